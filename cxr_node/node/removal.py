"""Deliveries to destinations that the configuration does not name any more: set aside, and back when it does again.

Done when the process that delivers starts, for nobody serves such a queue: without it the instances would stay
REPORTED for ever and nobody would be told. Knows no destination, only names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from cxr_node.node import results
from cxr_node.node.claims import FREE, note
from cxr_node.node.jobs import DeliveryState, InstanceState
from cxr_node.node.ledger import OPEN, Ledger, conclude
from cxr_node.node.schema import deliveries, instance_artifacts, instances

REMOVED = "destination-removed"
"""Begins the last error of such a delivery; found again by it."""


_BATCH = 100  # short transactions: the receiver waits for none of them


def settle(ledger: Ledger, configured: Collection[str]) -> Counter[str]:
    """READY or WAIT -> DEAD for what is due at any other destination; how many, by its name."""
    settled: Counter[str] = Counter()
    while some := _settle_some(ledger, configured):
        settled += some
    return settled


def revive(ledger: Ledger, configured: Collection[str]) -> Counter[str]:
    """DEAD -> READY for what `settle` set aside and is due at a destination that is back; how many, by its name.

    What retention has taken the bytes of stays DEAD.
    """
    revived: Counter[str] = Counter()
    while some := _revive_some(ledger, configured):
        revived += some
    return revived


def _settle_some(ledger: Ledger, configured: Collection[str]) -> Counter[str]:
    now = ledger.now()
    free = sa.or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until <= now)
    stray = sa.and_(deliveries.c.destination.not_in(configured), deliveries.c.state.in_(OPEN), free)
    values = FREE | {"state": DeliveryState.DEAD, "last_error": f"{REMOVED}: no destination of this name is configured"}
    settled: Counter[str] = Counter()
    with ledger.database.writing() as connection:
        for row in _some(connection, stray):
            settled[row.destination] += 1
            connection.execute(sa.update(deliveries).where(deliveries.c.id == row.id).values(values))
            users = results.lock_users(connection, row.artifact_id)
            note(connection, users, now, "delivery-dead", f"to {row.destination}: {REMOVED}")
            conclude(connection, users, now)
    return settled


def _revive_some(ledger: Ledger, configured: Collection[str]) -> Counter[str]:
    now = ledger.now()
    linked = sa.select(instance_artifacts.c.artifact_id).join(instances).where(instances.c.purged_at.is_(None))
    back = sa.and_(
        deliveries.c.destination.in_(configured),
        deliveries.c.state == DeliveryState.DEAD,
        deliveries.c.last_error.startswith(REMOVED, autoescape=True),
        deliveries.c.artifact_id.in_(linked.where(instance_artifacts.c.artifact_id == deliveries.c.artifact_id)),
    )
    due = FREE | {"state": DeliveryState.READY, "attempts": 0, "not_before": now, "first_due_at": now}
    revived: Counter[str] = Counter()
    with ledger.database.writing() as connection:
        for row in _some(connection, back):
            revived[row.destination] += 1
            connection.execute(sa.update(deliveries).where(deliveries.c.id == row.id).values(due))
            users = results.lock_users(connection, row.artifact_id)
            dead = sa.and_(instances.c.id.in_(users), instances.c.state == InstanceState.DEAD)
            kept = sa.and_(dead, instances.c.purged_at.is_(None))
            reported = {"state": InstanceState.REPORTED, "updated_at": now, "reason": None}
            connection.execute(sa.update(instances).where(kept).values(reported))
            note(connection, users, now, "retried", f"{row.destination} is configured again")
    return revived


def _some(connection: sa.Connection, which: sa.ColumnElement[bool]) -> Sequence[Any]:
    columns = (deliveries.c.id, deliveries.c.destination, deliveries.c.artifact_id)
    found = sa.select(*columns).where(which).order_by(deliveries.c.id).limit(_BATCH)
    return connection.execute(found.with_for_update(skip_locked=True)).all()
