"""Times as an operator writes them: `15m`, `2h`, `7d`, or a date. Imports no room, reads no clock."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([a-z]+)")
_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
    **dict.fromkeys(("w", "week", "weeks"), 604_800),
}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LONGEST = timedelta(days=36_500)


def duration(text: str) -> timedelta:
    """Read 30s, 15m, 2h, 7d or 4w.

    Raises
    ------
    ValueError : it is none; the sentence says how one is written.
    """
    written = _DURATION.fullmatch(text.strip().lower())
    seconds = _SECONDS.get(written[2]) if written else None
    if written is None or seconds is None:
        raise ValueError(f"{text!r} is no duration; write 30s, 15m, 2h, 7d or 4w")
    return min(timedelta(seconds=float(written[1]) * seconds), _LONGEST)


def moment(text: str, now: datetime, *, whole_day: bool = False) -> datetime:
    """Read a point in time: so long ago, or a date, or a date and time. UTC, as all tables, where no offset is given.

    Parameters
    ----------
    whole_day : a bare date means the end of that day: `--until 2026-07-01` has all of it

    Raises
    ------
    ValueError : it is none; the sentence says how one is written.
    """
    plain = text.strip()
    if _DURATION.fullmatch(plain.lower()):
        return now - duration(plain)
    try:
        at = datetime.fromisoformat(plain)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        return at + timedelta(days=1) if whole_day and _DATE.fullmatch(plain) else at
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no time; write how long ago (15m, 2h, 7d) or a date (2026-07-01, 2026-07-01T16:00)"
        ) from None


def age(span: timedelta) -> str:
    """Say a duration as people do, in its two largest units: 45 s, 3 min 10 s, 2 h 5 min, 3 d 4 h."""
    seconds = max(0, int(span.total_seconds()))
    units = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    for (size, name), (below, name_below) in itertools.pairwise(units):
        if seconds >= size:
            rest = seconds % size // below
            return f"{seconds // size} {name}" + (f" {rest} {name_below}" if rest else "")
    return f"{seconds} s"
