"""Destinations that an operator holds: what is for them waits, without an attempt, until they are released.

A hold is the operator's word and no state of a delivery: every claim looks for it (`states.is_on_hold`), so it
outlives every process and ends at once. What is in hand when it begins is finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cxr_node.node.ledger import destination_health
from cxr_node.node.ledger.states import OPEN, PromiseState, pick
from cxr_node.node.ledger.tables import IS_OPEN, deliveries, holds, promises

if TYPE_CHECKING:
    from cxr_node.node.ledger.ledger import Ledger

_BATCH = 1000  # short transactions: the receiver waits for none of them


class HoldReason(StrEnum):
    """Why: a closed list, for free text would name patients."""

    MAINTENANCE = "maintenance"
    MIGRATION = "migration"
    STORAGE_FULL = "storage-full"
    WRONG_RESULTS = "wrong-results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One destination that is held."""

    destination: str
    since: datetime
    by: str
    reason: str | None
    """A `HoldReason`, or None: none was given."""


def hold(ledger: Ledger, destination: str, by: str, reason: HoldReason | None = None) -> Hold:
    """Let what is for a destination wait; one that is held stays as it was, with its first `since` and `by`."""
    new = Hold(destination=destination, since=ledger.now(), by=by, reason=reason)
    with ledger.database.writing() as connection:
        known = connection.execute(sa.select(holds).where(holds.c.destination == destination)).mappings().first()
        if known is not None:
            return Hold(**pick(Hold, known))
        connection.execute(sa.insert(holds), asdict(new))
    return new


def release(ledger: Ledger, destination: str) -> int | None:
    """End a hold: all that waits is due now, and no older than now; how much. None where it was not held.

    The time of the hold does not count against `delivery.max_age_h`: what waits is dated before the hold ends, so a
    process that dies in between leaves it held.
    """
    if destination not in look(ledger):
        return None
    for state in OPEN:
        last_id: int | None = 0
        while last_id is not None:
            last_id = _date_some(ledger, destination, state, last_id)
    now = ledger.now()
    unasked = sa.and_(promises.c.destination == destination, promises.c.state == PromiseState.DUE)
    with ledger.database.writing() as connection:
        connection.execute(sa.update(promises).where(unasked).values(not_before=now, first_due_at=now))
        connection.execute(sa.delete(holds).where(holds.c.destination == destination))
        destination_health.nudge(connection, destination)
        waiting = sa.select(sa.func.count()).where(deliveries.c.destination == destination, IS_OPEN)
        return int(connection.scalar(waiting) or 0)


def _date_some(ledger: Ledger, destination: str, state: str, last_id: int) -> int | None:
    """Make one batch due now: the last of its rows; None where it was empty."""
    mine = sa.and_(deliveries.c.destination == destination, deliveries.c.state == state)
    some = sa.select(deliveries.c.id).where(mine, deliveries.c.id > last_id).order_by(deliveries.c.id).limit(_BATCH)
    now = ledger.now()
    with ledger.database.writing() as connection:
        ids = list(connection.scalars(some))
        connection.execute(
            sa.update(deliveries).where(deliveries.c.id.in_(ids)).values(not_before=now, first_due_at=now)
        )
    return ids[-1] if ids else None


def look(ledger: Ledger) -> Mapping[str, Hold]:
    """Tell of every destination that is held, by name."""
    with ledger.database.reading() as connection:
        rows = connection.execute(sa.select(holds).order_by(holds.c.destination)).mappings().all()
    return {row["destination"]: Hold(**pick(Hold, row)) for row in rows}


def forget(connection: sa.Connection, destination: str) -> None:
    """Take the row away: the destination is gone."""
    connection.execute(sa.delete(holds).where(holds.c.destination == destination))
