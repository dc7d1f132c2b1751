"""How long a destination has been without an answer, for the log."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outage:
    """Consecutive tries without an answer from a destination, with whatever object."""

    destination: str
    tries: int = 0
    _since: float = 0.0

    def count(self) -> int:
        """One more try without an answer; its number in this outage."""
        if self.tries == 0:
            self._since = time.monotonic()
        self.tries += 1
        return self.tries

    def end(self) -> None:
        """An answer came, whatever it was."""
        if self.tries:
            down_s = time.monotonic() - self._since
            log.info("back destination=%s tries=%d down_s=%.0f", self.destination, self.tries, down_s)
        self.tries = 0
