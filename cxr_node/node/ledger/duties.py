"""What one machine does for the whole node at a time: whoever leases a duty does it, the others look again later.

Whatever a duty changes is changed in a transaction with `require`: a machine that was halted, or cut off, while
another took its duty over does nothing any more. Knows no duty but by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa

from cxr_node.errors import ResourceError
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import FREE, insert_once, passed
from cxr_node.node.ledger.tables import duties

LEASE_S = 60.0
"""For how long a machine that died keeps a duty from the others."""


class Duty(StrEnum):
    """What is done by one at a time."""

    SWEEP = "sweep"
    """Retention."""
    ORPHANS = "orphans"
    """Results that no image has."""
    ALERTS = "alerts"
    """Telling people."""


class LostDutyError(ResourceError):
    """Another machine has taken the duty over: what was to be done is its now."""

    def __init__(self, duty: str) -> None:
        super().__init__(f"ledger: another process does {duty} now")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A duty that is ours, until its lease is over."""

    duty: str
    """A `Duty`, or of one worklist `of_worklist`."""
    owner: str
    fence: int


def of_worklist(name: str) -> str:
    """The duty of looking into one worklist."""
    return f"worklist {name}"


def take(ledger: Ledger, duty: str, owner: str, again_s: float = 0.0) -> Held | float:
    """Lease a duty; the seconds until it is worth another try where somebody else has it.

    Parameters
    ----------
    owner : a name that no other living process has
    again_s : leave it alone where it was done within so many seconds, by whomever
    """
    now, name = ledger.now(), duties.c.name == duty
    with ledger.database.leasing() as connection:
        insert_once(connection, duties, {"name": duty, "fence": 0})
        row = connection.execute(sa.select(duties).where(name).with_for_update()).mappings().one()
        is_over = sa.or_(
            duties.c.lease_owner == owner, passed(duties.c.lease_until, now, now + timedelta(seconds=2 * LEASE_S))
        )
        mine = sa.and_(name, sa.or_(duties.c.lease_until.is_(None), is_over))
        held = Held(duty=duty, owner=owner, fence=row["fence"] + 1)
        wait_s = _left_s(row["done_at"], again_s, now)
        if again_s > 0.0 and wait_s > 0.0:
            return wait_s
        taken = {"lease_owner": owner, "lease_until": _until(now), "fence": held.fence}
        if connection.execute(sa.update(duties).where(mine).values(taken)).rowcount:
            return held
    return max(1.0, _left_s(row["lease_until"], 0.0, now))


def require(connection: sa.Connection, held: Held | None, now: datetime) -> None:
    """Hold a duty for another lease, and against all others until the transaction ends; None: nobody else is there.

    Raises
    ------
    LostDutyError : another process has it.
    """
    if held is None:
        return
    mine = sa.update(duties).where(_is(held)).values(lease_until=_until(now))
    if connection.execute(mine).rowcount != 1:
        raise LostDutyError(held.duty)


def done(ledger: Ledger, held: Held) -> None:
    """Give a duty back: it was done just now."""
    with ledger.database.leasing() as connection:
        connection.execute(sa.update(duties).where(_is(held)).values(FREE | {"done_at": ledger.now()}))


def require_still(ledger: Ledger, held: Held | None) -> None:
    """As `require`, between two transactions."""
    if held is not None:
        with ledger.database.leasing() as connection:
            require(connection, held, ledger.now())


def _left_s(at: datetime | None, span_s: float, now: datetime) -> float:
    """Seconds until a span after a time is over; 0.0 where it is, or where the clock was put back since."""
    left_s = 0.0 if at is None else (at - now).total_seconds() + span_s
    return left_s if left_s <= max(span_s, 2 * LEASE_S) else 0.0


def _is(held: Held) -> sa.ColumnElement[bool]:
    return sa.and_(duties.c.name == held.duty, duties.c.lease_owner == held.owner, duties.c.fence == held.fence)


def _until(now: datetime) -> datetime:
    return now + timedelta(seconds=LEASE_S)
