"""The times that people write: `15m` and `7d` of an operator, and the local clock of a study that names no zone.

Knows no DICOM and imports no room. The host's zone is found as the C library finds it: TZ, /etc/localtime, and, where
that is missing, /etc/timezone; UTC where a machine has none of them (POSIX.1 8.3, RFC 9636).
"""

from __future__ import annotations

import io
import itertools
import os
import re
import struct
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

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


LOCALTIME, TIMEZONE = Path("/etc/localtime"), Path("/etc/timezone")
_DATABASE = "zoneinfo/"
_POSIX = re.compile(r"(<[+\-0-9A-Za-z]{3,}>|[A-Za-z]{3,})[+-]?\d{1,3}.*")
_UNUSABLE = (LookupError, OSError, ValueError)  # ZoneInfoNotFoundError is a KeyError
_CLOCK_FAULT = timedelta(minutes=10)
"""By which a modality's clock may be fast; zones differ by a quarter of an hour or more."""


def zone(name: str | None) -> tzinfo:
    """Zone of a name, or the host's.

    Raises
    ------
    ValueError : there is no such zone.
    """
    return _host() if name is None else _named(name)


def known(name: str) -> str:
    """Check a name; the same exception as `zone`."""
    _named(name)
    return name


def offset(of: tzinfo, study: datetime | None, received_at: datetime) -> timedelta | None:
    """Offset from UTC of a study's times, had they been read in this zone.

    Parameters
    ----------
    study : date and time of the study, naive, as a clock on the wall showed them; None where they are not known
    received_at : when the image was received (aware)

    Returns
    -------
    None where the study would then have begun after its image was received: it was another clock. Of an hour that comes
    twice, the end of summer time, the later one that is not after the receipt.
    """
    if study is None:
        return received_at.astimezone(of).utcoffset()
    begins = [study.replace(tzinfo=of, fold=fold) for fold in (1, 0)]
    for begin in begins:
        ahead = begin.utcoffset() or timedelta()
        if study <= received_at.astimezone(UTC).replace(tzinfo=None) + ahead + _CLOCK_FAULT:
            return ahead
    return None


def name_of(of: tzinfo) -> str:
    """Name a zone for people; one of a rule or an unnamed file by its abbreviation."""
    return getattr(of, "key", None) or of.tzname(datetime(2025, 1, 1)) or "without a name"


def fixed(ahead: timedelta) -> tzinfo:
    """Zone of one offset, to the minute as DICOM writes it."""
    minutes = round(ahead / timedelta(minutes=1))
    return timezone(timedelta(minutes=minutes))


def _named(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except _UNUSABLE as error:
        raise ValueError("no such time zone; write an IANA name, for example Europe/Berlin or UTC") from error


@lru_cache(maxsize=1)
def _host() -> tzinfo:
    """Look once: what a process began with, it ends with."""
    return find(os.environ.get("TZ"), LOCALTIME, TIMEZONE)


def find(variable: str | None, localtime: Path, text: Path) -> tzinfo:
    """Zone that a host with this environment variable and these files has."""
    if variable is not None and (told := _of_variable(variable.removeprefix(":"))) is not None:
        return told
    if (linked := _of_file(localtime)) is not None:
        return linked
    try:
        return ZoneInfo(text.read_text("ascii").strip())
    except _UNUSABLE:
        return UTC


def _of_variable(value: str) -> tzinfo | None:
    if not value:
        return UTC  # POSIX: set and empty
    if value.startswith("/"):
        return _of_file(Path(value))
    try:
        return ZoneInfo(value)
    except _UNUSABLE:
        return _of_rule(value)


def _of_file(path: Path) -> tzinfo | None:
    """Zone of a compiled file: by its name where it is one of the database's."""
    name = str(path.resolve()).rpartition(_DATABASE)[2].removeprefix("posix/")
    try:
        return ZoneInfo(name)
    except _UNUSABLE:
        pass
    try:
        with path.open("rb") as file:
            return ZoneInfo.from_file(file)
    except _UNUSABLE:
        return None


def _of_rule(rule: str) -> tzinfo | None:
    """POSIX rule (JST-9, CET-1CEST,M3.5.0,M10.5.0/3): the footer of a zone file without transitions (RFC 9636 3.3)."""
    if _POSIX.fullmatch(rule) is None or "\n" in rule:
        return None
    block = struct.pack(">4sc15x6I", b"TZif", b"2", 0, 0, 0, 0, 1, 1) + struct.pack(">lBB", 0, 0, 0) + b"\0"
    try:
        return ZoneInfo.from_file(io.BytesIO(block + block + f"\n{rule}\n".encode("ascii")))
    except _UNUSABLE:
        return None
