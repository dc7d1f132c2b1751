"""Destinations that an operator holds: their deliveries wait, without an attempt, until the release.

A hold is not a state of a delivery: every claim checks for it (`states.is_on_hold`). So it survives restarts and ends
at once. A transfer in progress when it begins is finished.
"""

from __future__ import annotations

import logging
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

log = logging.getLogger(__name__)

_BATCH = 1000  # short transactions: the receiver waits for none of them


class HoldReason(StrEnum):
    """A closed list: free text could name patients."""

    MAINTENANCE = "maintenance"
    MIGRATION = "migration"
    STORAGE_FULL = "storage-full"
    WRONG_RESULTS = "wrong-results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One held destination."""

    destination: str
    since: datetime
    by: str
    reason: str | None
    """A `HoldReason`; None: none was given."""


def hold(ledger: Ledger, destination: str, by: str, reason: HoldReason | None = None) -> Hold:
    """Begin a hold; a destination that is held already keeps its first `since` and `by`."""
    new = Hold(destination=destination, since=ledger.now(), by=by, reason=reason)
    with ledger.database.writing() as connection:
        known = connection.execute(sa.select(holds).where(holds.c.destination == destination)).mappings().first()
        if known is not None:
            return Hold(**pick(Hold, known))
        connection.execute(sa.insert(holds), asdict(new))
    log.warning("held destination=%s by=%s reason=%s", destination, by, reason or "-")
    return new


def release(ledger: Ledger, destination: str, *, by: str) -> int | None:
    """End a hold, make all waiting deliveries due, and return how many; None where it was not held.

    They count as due for the first time now: the time of the hold does not count against `delivery.max_age_h`. They
    are dated before the hold ends, so a process that dies in between leaves the destination held.
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
        number = int(connection.scalar(waiting) or 0)
    log.warning("released destination=%s by=%s deliveries=%d", destination, by, number)
    return number


def _date_some(ledger: Ledger, destination: str, state: str, last_id: int) -> int | None:
    """Make one batch due now and return its last row; None where it was empty."""
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
    """Every held destination, by name."""
    with ledger.database.reading() as connection:
        rows = connection.execute(sa.select(holds).order_by(holds.c.destination)).mappings().all()
    return {row["destination"]: Hold(**pick(Hold, row)) for row in rows}


def forget(connection: sa.Connection, destination: str) -> None:
    """Delete the row of a destination that is gone."""
    connection.execute(sa.delete(holds).where(holds.c.destination == destination))
