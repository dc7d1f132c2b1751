"""How long a loop pauses, and how long a destination that does not answer is left alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

from cxr_node.config.schema import Delivery

LOOK_AFTER_S = 30.0
"""A loop reads the ledger at least so often: what a lost notification costs."""
NOTICE_STOP_S = 0.25
"""A loop looks at its stop event at least so often."""
PAUSE_S = 5.0
"""After a fault of this machine."""
MAX_PAUSE_S = 60.0
"""A destination that does not answer is tried at least so often, however much waits for it."""
_PATIENCE = 3  # temporary refusals in a row that may be the objects' own


@dataclass(frozen=True, slots=True)
class Pause:
    """How long a loop sleeps; a fixed pause is not cut short by new work, only by an operator."""

    seconds: float
    is_fixed: bool = False


NO_PAUSE = Pause(0.0)


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

    def refused(self) -> Pause:
        """It answered that it cannot now; at first this may be about the object."""
        pause = self.failed()
        return NO_PAUSE if self.failures < _PATIENCE else pause

    def failed(self) -> Pause:
        """No answer came: leave it alone for a while."""
        self.failures += 1
        return Pause(min(backoff_s(self._delivery, self.failures), MAX_PAUSE_S), is_fixed=True)


def backoff_s(delivery: Delivery, attempts: int) -> float:
    """Doubling delay with full-range jitter in its upper half: destinations back from the dead are not stormed."""
    longest_s = min(delivery.max_delay_s, delivery.first_delay_s * 2.0 ** min(attempts - 1, 30))
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
