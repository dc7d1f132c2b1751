"""Deliveries to destinations that the configuration does not name any more: set aside, and back when it does again.

Done when the process that delivers starts, for nobody serves such a queue: without it the instances would stay
REPORTED for ever and nobody would be told. Knows no destination, only names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import sqlalchemy as sa

from cxr_node.node import results
from cxr_node.node.claims import FREE, note
from cxr_node.node.jobs import DeliveryState, InstanceState
from cxr_node.node.ledger import OPEN, Ledger, conclude
from cxr_node.node.schema import deliveries, instances

REMOVED = "destination-removed"
"""Begins the last error of such a delivery; found again by it."""


def settle(ledger: Ledger, configured: Collection[str]) -> Counter[str]:
    """READY or WAIT -> DEAD for what is due at any other destination; how many, by its name."""
    now = ledger.now()
    free = sa.or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until <= now)
    stray = sa.and_(deliveries.c.destination.not_in(configured), deliveries.c.state.in_(OPEN), free)
    values = FREE | {"state": DeliveryState.DEAD, "last_error": f"{REMOVED}: no destination of this name is configured"}
    settled: Counter[str] = Counter()
    with ledger.database.writing() as connection:
        moved = sa.update(deliveries).where(stray).values(values)
        rows = connection.execute(moved.returning(deliveries.c.destination, deliveries.c.artifact_id)).all()
        for row in rows:
            settled[row.destination] += 1
            users = results.lock_users(connection, row.artifact_id)
            note(connection, users, now, "delivery-dead", f"to {row.destination}: {REMOVED}")
            conclude(connection, users, now)
    return settled


def revive(ledger: Ledger, configured: Collection[str]) -> Counter[str]:
    """DEAD -> READY for what `settle` set aside and is due at a destination that is back; how many, by its name."""
    now = ledger.now()
    back = sa.and_(
        deliveries.c.destination.in_(configured),
        deliveries.c.state == DeliveryState.DEAD,
        deliveries.c.last_error.startswith(REMOVED, autoescape=True),
    )
    revived: Counter[str] = Counter()
    with ledger.database.writing() as connection:
        found = sa.select(deliveries.c.id, deliveries.c.destination, deliveries.c.artifact_id).where(back)
        for row in connection.execute(found.with_for_update()).all():
            kept = sa.and_(
                instances.c.id.in_(results.lock_users(connection, row.artifact_id)),
                instances.c.purged_at.is_(None),
                instances.c.state.in_((InstanceState.DEAD, InstanceState.REPORTED)),
            )
            reported = {"state": InstanceState.REPORTED, "updated_at": now, "reason": None}
            moved = sa.update(instances).where(kept).values(reported).returning(instances.c.id)
            if users := list(connection.scalars(moved)):  # else retention has taken the bytes
                due = FREE | {"state": DeliveryState.READY, "attempts": 0, "not_before": now, "first_due_at": now}
                connection.execute(sa.update(deliveries).where(deliveries.c.id == row.id).values(due))
                note(connection, users, now, "retried", f"{row.destination} is configured again")
                revived[row.destination] += 1
    return revived
