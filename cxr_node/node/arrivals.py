"""How an object enters the ledger: from a sender, or from the spool, where the ledger had lost it.

Knows which columns an instance is received with; every later move is in `ledger`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import InstanceRef, Origin, Priority
from cxr_node.node.claims import note
from cxr_node.node.database import Database
from cxr_node.node.jobs import InstanceState
from cxr_node.node.schema import Instant, instances


@dataclass(frozen=True, slots=True)
class Arrival:
    """One object whose bytes are safe in the spool."""

    ref: InstanceRef
    origin: Origin
    """Without AE title where it was found in the spool: nobody remembers who sent it."""
    content_sha256: str
    size_bytes: int
    priority: Priority = Priority.MEDIUM
    """What the sender asked for; in the spool it is not written, so what is found there is MEDIUM."""


def arrive(connection: sa.Connection, arrival: Arrival, now: datetime) -> bool:
    """-> RECEIVED; False where exactly this object is known already."""
    row = asdict(arrival.ref) | asdict(arrival.origin)
    row |= {"content_sha256": arrival.content_sha256, "size_bytes": arrival.size_bytes}
    row |= {"state": InstanceState.RECEIVED, "not_before": now, "updated_at": now, "priority": arrival.priority}
    try:
        with connection.begin_nested():
            row_id = connection.execute(sa.insert(instances).returning(instances.c.id), row).scalar_one()
    except sa.exc.IntegrityError:
        # Where retention had taken its bytes they are back now: count their days from today.
        again: dict[str, Any] = {"repeats": instances.c.repeats + 1, "repeated_at": now, "purged_at": None}
        purged, updated_at = instances.c.purged_at.is_not(None), instances.c.updated_at
        again["updated_at"] = sa.case((purged, sa.literal(now, Instant)), else_=updated_at)
        more_urgent = instances.c.priority > arrival.priority  # sent once more, for it is wanted at once
        again["priority"] = sa.case((more_urgent, int(arrival.priority)), else_=instances.c.priority)
        connection.execute(sa.update(instances).where(*_same(arrival)).values(again))
        return False
    sender = arrival.origin
    told = f"from {sender.calling_ae_title} at {sender.peer_host}" if sender.calling_ae_title else "found in the spool"
    note(connection, [row_id], now, "received", told)
    return True


def first_receipt(database: Database, arrival: Arrival) -> datetime | None:
    """When an object was received for the first time; None where it is not known."""
    with database.reading() as connection:
        return connection.scalar(sa.select(instances.c.received_at).where(*_same(arrival)))


def _same(arrival: Arrival) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        instances.c.sop_instance_uid == arrival.ref.sop_instance_uid,
        instances.c.content_sha256 == arrival.content_sha256,
    )
