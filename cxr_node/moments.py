"""Moments as an operator writes them: so long ago ("7d", "12h", "30m"), or a date and time of this machine's clock."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from cxr_node.errors import DataError

_AGO = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def since(text: str, now: datetime) -> datetime:
    """Parse a moment.

    Raises
    ------
    DataError : it is none, or lies ahead.
    """
    if ago := _AGO.fullmatch(text.strip().lower()):
        return now - timedelta(seconds=int(ago[1]) * _UNITS_S[ago[2]])
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise DataError(
            f"{text!r}: write how long ago (30m, 12h, 7d, 2w) or a date (2026-03-01, 2026-03-01T08:00)"
        ) from error
    at = at.astimezone(now.tzinfo)  # without an offset it is the machine's own time
    if at > now:
        raise DataError(f"{text!r}: lies ahead")
    return at
