"""How long a loop pauses, and how long a destination that does not answer is left alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

from cxr_node.config.schema import Delivery

LOOK_AFTER_S = 30.0
"""Longest pause of a loop: the price of a lost notification."""
NOTICE_STOP_S = 0.25
"""Longest pause between looks at the stop event."""
PAUSE_S = 5.0
"""Pause after a fault of this machine."""
MAX_PAUSE_S = 60.0
"""Longest pause between tries of a destination that does not answer."""
_PATIENCE = 3  # temporary refusals in a row that may be the objects' own


@dataclass(frozen=True, slots=True)
class Pause:
    """How long a loop sleeps; a fixed pause is not cut short by new work, only by an operator."""

    seconds: float
    is_fixed: bool = False


NO_PAUSE = Pause(0.0)


class Breaker:
    """Counts consecutive failures of one destination, whatever the object, and lengthens the pause.

    Without it a destination that is down would cost one attempt of every object that waits for it.
    """

    def __init__(self, delivery: Delivery) -> None:
        self.failures = 0
        self._delivery = delivery

    def answered(self) -> None:
        """Reset the count: the destination works."""
        self.failures = 0

    def refused(self, after_s: float | None = None) -> Pause:
        """It refused temporarily; at first this may be about the object, unless it says how long it is to be left."""
        pause = self.failed(after_s)
        return NO_PAUSE if after_s is None and self.failures < _PATIENCE else pause

    def failed(self, after_s: float | None = None) -> Pause:
        """No answer, or one that asks for a pause: of `after_s`, but never longer than a delivery waits."""
        self.failures += 1
        asked_s = min(after_s or 0.0, self._delivery.max_delay_s)
        return Pause(max(asked_s, min(backoff_s(self._delivery, self.failures), MAX_PAUSE_S)), is_fixed=True)


def backoff_s(delivery: Delivery, attempts: int) -> float:
    """Doubling delay with full-range jitter in its upper half: destinations that come back are not flooded."""
    longest_s = min(delivery.max_delay_s, delivery.first_delay_s * 2.0 ** min(attempts - 1, 30))
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
