"""How one destination's outage reads in the log: a line for each try, and one when it is over.

Knows no link and no schedule; `rounds.Breaker` says how long a destination is left alone.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outage:
    """Tries in a row to which a destination gave no answer, whichever object they were made with."""

    destination: str
    tries: int = 0
    _since: float = 0.0

    def goes_on(self) -> int:
        """One more try failed; which one of this outage it was."""
        if self.tries == 0:
            self._since = time.monotonic()
        self.tries += 1
        return self.tries

    def is_over(self) -> None:
        """An answer came, whatever it was."""
        if self.tries:
            down_s = time.monotonic() - self._since
            log.info("back destination=%s tries=%d down_s=%.0f", self.destination, self.tries, down_s)
        self.tries = 0
