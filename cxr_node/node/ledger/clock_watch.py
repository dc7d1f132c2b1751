"""Steps of the wall clock: what is on its way is dated by the clock as it is (reliability.md T24)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.server_clock import LOOK_EVERY_S
from cxr_node.node.ledger.states import OPEN, DeliveryJob, OrderState, StudyState
from cxr_node.node.ledger.tables import clock_steps, deliveries, prior_orders, studies
from cxr_node.node.ledger.work_item_tables import work_items
from cxr_node.node.ledger.work_items import OPEN_ITEMS

log = logging.getLogger(__name__)

TOLERANCE_S = 2.0
"""Of the clock: less is corrected by slewing, or not worth a transaction."""
_MARGIN_S = 0.5
_SAME_STEP = timedelta(minutes=1)
"""Two processes notice one step within this time."""


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
        self._forward: list[tuple[datetime, timedelta, int]] = []
        """Of each step forward: when it was, by how much, and the last delivery that was dated by it."""

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
                last_id = _redate(ledger, step_s, passed_s)
                self.steps += 1
                if step_s > 0.0:
                    self._forward.append((_before_now(ledger, passed_s), timedelta(seconds=step_s), last_id))
                log.warning("clock stepped by_s=%.1f", step_s)
            self._seen = wall, steady
            return step_s if stepped else 0.0

    def age(self, ledger: Ledger, job: DeliveryJob) -> timedelta:
        """How late a delivery is, zero where it is never too late.

        Of an image that was received before a step and judged after it, the step is no time that passed.
        """
        if job.late_from is None:
            return timedelta()
        with self._lock:
            steps = [step for at, step, last_id in self._forward if job.late_from < at and job.claim.row_id > last_id]
        return ledger.now() - job.late_from - sum(steps, timedelta())


def _before_now(ledger: Ledger, passed_s: float) -> datetime:
    """When the clock stepped, by the clock as it is now: not later than that."""
    noticed_s = LOOK_EVERY_S if ledger.database.is_shared else 0.0  # others date by a server's new clock already
    return ledger.now() - timedelta(seconds=passed_s + noticed_s + _MARGIN_S)


def _redate(ledger: Ledger, step_s: float, passed_s: float) -> int:
    """Move what was due before the step with the clock; what became due since is right already.

    Returns the last delivery there is: of what comes later, `late_from` may still be of the clock as it was.
    """
    step, now, since = timedelta(seconds=step_s), ledger.now(), _before_now(ledger, passed_s)
    columns = (deliveries.c.id, deliveries.c.first_due_at, deliveries.c.not_before, deliveries.c.late_from)
    rows = sa.select(*columns).where(deliveries.c.state.in_(OPEN))
    waiting = sa.select(studies.c.id, studies.c.not_before).where(studies.c.state == StudyState.WAITING)
    with ledger.database.writing() as connection:
        if ledger.database.is_shared and not _is_first(connection, step_s, now):
            return _last(connection)
        for row in connection.execute(rows.with_for_update()).all():
            moved: dict[str, datetime] = {}
            if not since <= row.first_due_at <= now:
                moved = {"first_due_at": min(row.first_due_at + step, now), "not_before": row.not_before + step}
            if row.late_from is not None and not since <= row.late_from <= now:
                moved["late_from"] = min(row.late_from + step, now)
            if moved:
                connection.execute(sa.update(deliveries).where(deliveries.c.id == row.id).values(moved))
        for study in connection.execute(waiting.with_for_update()).all():
            due = {"not_before": study.not_before + step}
            connection.execute(sa.update(studies).where(studies.c.id == study.id).values(due))
        ordered = sa.select(prior_orders.c.id, prior_orders.c.until, prior_orders.c.not_before)
        for order in connection.execute(ordered.where(prior_orders.c.state == OrderState.DUE).with_for_update()).all():
            due = {"until": order.until + step, "not_before": order.not_before + step}
            connection.execute(sa.update(prior_orders).where(prior_orders.c.id == order.id).values(due))
        _redate_items(connection, step)
        return _last(connection)


def _redate_items(connection: sa.Connection, step: timedelta) -> None:
    """An item is canceled when time is up, and not because the clock was put forward."""
    found = sa.select(work_items.c.id, work_items.c.not_before, work_items.c.claimed_at)
    for item in connection.execute(found.where(work_items.c.state.in_(OPEN_ITEMS)).with_for_update()).all():
        due = {"not_before": item.not_before + step}
        due |= {} if item.claimed_at is None else {"claimed_at": item.claimed_at + step}
        connection.execute(sa.update(work_items).where(work_items.c.id == item.id).values(due))


def _last(connection: sa.Connection) -> int:
    return int(connection.scalar(sa.select(sa.func.max(deliveries.c.id))) or 0)


def _is_first(connection: sa.Connection, step_s: float, now: datetime) -> bool:
    """Whether no other process has dated by this step of the server's clock, which all of them notice."""
    connection.execute(sa.text("LOCK TABLE clock_steps IN EXCLUSIVE MODE"))
    near = sa.and_(
        clock_steps.c.at.between(now - _SAME_STEP, now + _SAME_STEP),
        clock_steps.c.step_s.between(step_s - 2 * TOLERANCE_S, step_s + 2 * TOLERANCE_S),
    )
    if connection.scalar(sa.select(clock_steps.c.id).where(near).limit(1)) is not None:
        return False
    connection.execute(sa.insert(clock_steps).values(at=now, step_s=step_s))
    return True
