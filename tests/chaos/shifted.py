"""`cxr-node ROLE ...` under a wall clock that is ahead by as many seconds as a file says: python -m ... FILE ROLE ...

What libfaketime would do for a whole process, which breaks time.sleep of CPython 3.11 (clock_nanosleep). The
monotonic clock goes on, as it does when an operator or NTP sets the time.
"""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path

OFFSET = Path(sys.argv[1])
_datetime, _time = datetime.datetime, time.time


def offset_s() -> float:
    """Seconds that the clock is ahead."""
    return float(OFFSET.read_text())


class Shifted(_datetime):
    """A datetime whose now is elsewhere."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Shifted:
        return cls.fromtimestamp(_time() + offset_s(), tz)


datetime.datetime = Shifted  # type: ignore[misc]  # before anything of ours is imported
time.time = lambda: _time() + offset_s()

from cxr_node.cli.node import app  # noqa: E402

if __name__ == "__main__":
    app(sys.argv[2:])
