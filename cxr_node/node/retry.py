"""How long to leave a destination alone: pauses, doubling delays, and a count of failures in a row."""

from __future__ import annotations

import random
from dataclasses import dataclass

from cxr_node.config.schema import Delivery

MAX_PAUSE_S = 60.0
"""So often a destination that does not answer is tried, however much waits for it."""


_PATIENCE = 3  # temporary refusals in a row that may be the objects' own


@dataclass(frozen=True, slots=True)
class Rest:
    """How long a thread sleeps, and whether a ring may wake it."""

    seconds: float
    deaf: bool = False


NO_PAUSE = Rest(0.0)


class Breaker:
    """Counts failures of one destination in a row, whichever object they befell, and lengthens the pause.

    Without it a destination that is down would cost one attempt of every object that waits for it.
    """

    def __init__(self, delivery: Delivery) -> None:
        self.failures = 0
        self._delivery = delivery

    def answered(self) -> None:
        """Count from the beginning: the destination does its work."""
        self.failures = 0

    def refused(self) -> Rest:
        """It answered that it cannot now; at first this may be about the object."""
        pause = self.failed()
        return NO_PAUSE if self.failures < _PATIENCE else pause

    def failed(self) -> Rest:
        """No answer came: leave it alone for a while."""
        self.failures += 1
        return Rest(min(backoff_s(self._delivery, self.failures), MAX_PAUSE_S), deaf=True)


def backoff_s(delivery: Delivery, attempts: int) -> float:
    """Doubling delay with full-range jitter in its upper half: destinations back from the dead are not stormed."""
    longest_s = min(delivery.max_delay_s, delivery.first_delay_s * 2.0 ** min(attempts - 1, 30))
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
