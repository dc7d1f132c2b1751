"""Health of each destination, written by deliver and read by the others; and requests to try it now.

Knows no association: `deliver` reports the outcome of a try. What is due is not here but in the deliveries.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cxr_node.node.ledger import commitments, states
from cxr_node.node.ledger.prepared import prepared
from cxr_node.node.ledger.states import DeliveryState, pick
from cxr_node.node.ledger.tables import IS_OPEN, deliveries, destination_health

if TYPE_CHECKING:
    from cxr_node.node.ledger.ledger import Ledger


log = logging.getLogger(__name__)


_OFTEN_ENOUGH = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """One destination at its last try."""

    destination: str
    down_since: datetime | None
    """When a try failed for the first time since it last answered; None: it answered."""
    next_try_at: datetime | None
    last_error: str | None
    last_success_at: datetime | None
    """When it last accepted a result."""


def down(ledger: Ledger, destination: str, pause_s: float, detail: str) -> None:
    """Record that it does not answer, or refuses for now, and when it is tried again."""
    now = ledger.now()
    since = sa.func.coalesce(destination_health.c.down_since, sa.literal(now, destination_health.c.down_since.type))
    told = {"next_try_at": now + timedelta(seconds=pause_s), "last_error": detail}
    with ledger.database.writing() as connection:
        write(connection, destination, told | {"down_since": since}, told | {"down_since": now})


def answered(ledger: Ledger, destination: str) -> None:
    """Record that it answers, though not with a success."""
    was_down = sa.and_(destination_health.c.destination == destination, destination_health.c.down_since.is_not(None))
    with ledger.database.writing() as connection:
        connection.execute(
            sa.update(destination_health).where(was_down).values(down_since=None, next_try_at=None, last_error=None)
        )


def look(ledger: Ledger) -> Mapping[str, Health]:
    """Health of every destination that was ever tried, by name."""
    with ledger.database.reading() as connection:
        rows = connection.execute(sa.select(destination_health)).mappings().all()
    return {row["destination"]: Health(**pick(Health, row)) for row in rows}


def nudges(ledger: Ledger, destination: str) -> int:
    """Count the requests to try it at once; a higher count is a new request."""
    wished = sa.select(destination_health.c.nudges).where(destination_health.c.destination == destination)
    with ledger.database.reading() as connection:
        return int(connection.scalar(wished) or 0)


def try_now(ledger: Ledger, destination: str, *, by: str) -> int:
    """Request a try at once, and make all its waiting deliveries due; returns how many.

    The courier is notified; a request during a try counts for the next one.
    """
    now = ledger.now()
    mine = sa.and_(deliveries.c.destination == destination, IS_OPEN)
    later = sa.and_(mine, deliveries.c.state == DeliveryState.WAIT, deliveries.c.not_before > now)
    with ledger.database.writing() as connection:
        nudge(connection, destination)
        connection.execute(sa.update(deliveries).where(later).values(not_before=now))
        commitments.hasten(connection, destination, now)
        waiting = int(connection.scalar(sa.select(sa.func.count()).select_from(deliveries).where(mine)) or 0)
    log.info("requested a try destination=%s by=%s deliveries=%d", destination, by, waiting)
    return waiting


def nudge(connection: sa.Connection, destination: str) -> None:
    """Request a try at once, whatever pause its courier makes."""
    again: dict[str, Any] = {"nudges": destination_health.c.nudges + 1}
    write(connection, destination, again, {"nudges": 1})


def write(connection: sa.Connection, destination: str, again: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Update or insert the row; another machine may be inserting it just now."""
    known = sa.update(destination_health).where(destination_health.c.destination == destination).values(**again)
    if connection.execute(known).rowcount == 0:
        insert = states.insert(connection.dialect.name, destination_health).values(destination=destination, **first)
        new = insert.on_conflict_do_nothing(index_elements=[destination_health.c.destination])
        if connection.scalar(new.returning(destination_health.c.destination)) is None:
            connection.execute(known)


def succeeded(connection: sa.Connection, destination: str, now: datetime) -> None:
    """Record that it has just accepted a result; of several within a second one is enough.

    All that deliver to it write this row: each would wait for the others' commits.
    """
    row = connection.execute(*_known(destination)).first()
    last = None if row is None or row.down_since is not None else row.last_success_at
    if last is not None and timedelta() <= now - last < _OFTEN_ENOUGH:
        return
    up = {"down_since": None, "next_try_at": None, "last_error": None, "last_success_at": now}
    write(connection, destination, up, up)


@prepared
def _known(destination: str) -> sa.Select[Any]:
    known = (destination_health.c.down_since, destination_health.c.last_success_at)
    return sa.select(*known).where(destination_health.c.destination == destination)


def forget(connection: sa.Connection, destination: str) -> None:
    """Delete the row."""
    connection.execute(sa.delete(destination_health).where(destination_health.c.destination == destination))
