"""Steps of the wall clock, noticed and made good: nothing expires early or waits too long because of one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import sqlalchemy as sa

from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import OPEN, StudyState
from cxr_node.node.ledger.tables import deliveries, studies

log = logging.getLogger(__name__)

TOLERANCE_S = 2.0
"""Of the clock: less is corrected by slewing, or not worth a transaction."""
_MARGIN_S = 0.5


class ClockWatch:
    """Notices steps of the wall clock, so that nothing expires early or waits too long because of one.

    Rows hold wall-clock times, for they outlive processes; inside a process only the monotonic clock counts. A step
    is the difference of the two, and what is on its way is dated by the new clock (reliability.md T24). A step while
    no delivery runs is not seen: then `states.claim` takes what would wait for longer than is ever set, and the time
    by which the clock was put forward counts as time that passed. Threads may share it.
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._seen: tuple[float, float] | None = None
        self._lock = threading.Lock()
        self.steps = 0
        """How many were seen: a delivery is too old only if this has not grown since it was claimed."""

    def follow(self, ledger: Ledger) -> float:
        """Date the open deliveries by the clock as it is now; by how many seconds it was put forward (0.0: it was not).

        Raises
        ------
        ResourceError : the ledger cannot be written; the step is seen again at the next look.
        """
        with self._lock:
            wall, steady = ledger.now().timestamp(), self._steady()
            seen_wall, seen_steady = self._seen or (wall, steady)
            passed_s = steady - seen_steady
            step_s = wall - seen_wall - passed_s
            if stepped := abs(step_s) > TOLERANCE_S:
                _redate(ledger, step_s, passed_s)
                self.steps += 1
                log.warning("clock stepped by_s=%.1f", step_s)
            self._seen = wall, steady
            return step_s if stepped else 0.0


def _redate(ledger: Ledger, step_s: float, passed_s: float) -> None:
    """Move what was due before the step with the clock; what became due since is right already."""
    step, now = timedelta(seconds=step_s), ledger.now()
    since = now - timedelta(seconds=passed_s + _MARGIN_S)
    open_ = sa.and_(deliveries.c.state.in_(OPEN), ~deliveries.c.first_due_at.between(since, now))
    rows = sa.select(deliveries.c.id, deliveries.c.first_due_at, deliveries.c.not_before).where(open_)
    waiting = sa.select(studies.c.id, studies.c.not_before).where(studies.c.state == StudyState.WAITING)
    with ledger.database.writing() as connection:
        for row in connection.execute(rows.with_for_update()).all():
            moved = {"first_due_at": min(row.first_due_at + step, now), "not_before": row.not_before + step}
            connection.execute(sa.update(deliveries).where(deliveries.c.id == row.id).values(moved))
        for study in connection.execute(waiting.with_for_update()).all():
            due = {"not_before": study.not_before + step}
            connection.execute(sa.update(studies).where(studies.c.id == study.id).values(due))
