"""The database's clock: the only one that all machines of a node share; leases and due times are dated by it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from cxr_node.errors import ConfigError

log = logging.getLogger(__name__)

REFUSED_S = 300.0
"""Where a machine's own clock differs by so much, its log, its audit trail and its files are dated wrongly."""
DOUBTFUL_S = 2.0
LOOK_EVERY_S = 5.0
"""Between two looks; meanwhile this machine's monotonic clock counts, which nobody sets."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRUSTED_S = 0.5
"""An answer that took longer than this tells no time."""


class ServerClock:
    """Tells the server's time without asking it: what it said last, and the time that passed since. Threads share it.

    Steps of this machine's wall clock do not touch it.
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._steady, self._wall = steady, wall
        self._offset_s: float | None = None
        self._looked_at = float("-inf")
        self._is_doubtful = False
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        """Read it; before the first connection this machine's own."""
        offset_s = self._offset_s
        seconds = self._wall() if offset_s is None else self._steady() + offset_s
        return _EPOCH + timedelta(seconds=seconds)

    @property
    def ahead_s(self) -> float:
        """By how much this machine's wall clock is ahead of the server's."""
        return 0.0 if self._offset_s is None else self._wall() - self._steady() - self._offset_s

    def follow(self, connection: sa.Connection) -> None:
        """Ask the server, where the last answer is old; for the begin of a transaction."""
        if self._steady() - self._looked_at < LOOK_EVERY_S:
            return
        begun = self._steady()
        told = connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
        took_s = self._steady() - begun
        with self._lock:
            if self._offset_s is not None and took_s > _TRUSTED_S:
                return
            self._offset_s, self._looked_at = float(told) - begun - took_s / 2, begun
            was, self._is_doubtful = self._is_doubtful, abs(self.ahead_s) > DOUBTFUL_S
        if self._is_doubtful and not was:
            log.warning("clock differs from the database's ahead_s=%.1f", self.ahead_s)

    def require_near(self) -> None:
        """Refuse a machine whose own clock is far off.

        Raises
        ------
        ConfigError : it must be set first.
        """
        ahead_s = self.ahead_s
        if abs(ahead_s) > REFUSED_S:
            which = "ahead of" if ahead_s > 0 else "behind"
            raise ConfigError(
                f"ledger: this machine's clock is {abs(ahead_s):.0f} s {which} the database's, "
                f"more than {REFUSED_S:.0f}; let NTP set both"
            )
