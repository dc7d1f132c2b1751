"""Deliveries to destinations that the configuration no longer names: set aside, back with the name, or forgotten.

Done when the delivery process starts: no courier serves such a queue, so the instances would stay REPORTED for ever
without notice. Knows no destination, only names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from cxr_node.node.ledger import destination_health, holds, results
from cxr_node.node.ledger.ledger import Ledger, conclude
from cxr_node.node.ledger.states import FREE, OPEN, UNSENT, DeadReason, DeliveryState, InstanceState, note
from cxr_node.node.ledger.tables import deliveries, instance_artifacts, instances, promises

REMOVED = "destination-removed"
"""Begins the last error of such a delivery; found again by it."""


_BATCH = 100  # short transactions: the receiver waits for none of them
_IS_UNSETTLED = deliveries.c.state.in_((*UNSENT, DeliveryState.DEAD))


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


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a removed destination leaves behind."""

    deliveries: int
    delivered: int
    """Instances that are DELIVERED now, for everything else of them has settled."""
    held: int
    """Deliveries that a process of the node has in hand now."""


def forget(ledger: Ledger, destination: str, *, by: str) -> Forgotten:
    """Delete the deliveries that wait for a destination, or are DEAD: none will ever be sent.

    What it accepted is kept, and what was set aside. Configured again, the destination is not sent these.
    """
    total, delivered = 0, 0
    while some := _forget_some(ledger, destination, by):
        total, delivered = total + some[0], delivered + some[1]
    mine = sa.and_(deliveries.c.destination == destination, _IS_UNSETTLED)
    with ledger.database.writing() as connection:
        held = int(connection.scalar(sa.select(sa.func.count()).select_from(deliveries).where(mine)) or 0)
        if not held:
            destination_health.forget(connection, destination)
            holds.forget(connection, destination)
    return Forgotten(total, delivered, held)


def _forget_some(ledger: Ledger, destination: str, by: str) -> tuple[int, int] | None:
    """One batch: how many deliveries, and how many instances are DELIVERED for it; None where nothing is left."""
    now = ledger.now()
    free = sa.or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until <= now)
    delivered = 0
    with ledger.database.writing() as connection:
        rows = _some(connection, sa.and_(deliveries.c.destination == destination, _IS_UNSETTLED, free))
        for row in rows:
            users = results.lock_users(connection, row.artifact_id)
            connection.execute(sa.delete(promises).where(promises.c.delivery_id == row.id))
            connection.execute(sa.delete(deliveries).where(deliveries.c.id == row.id))
            note(connection, users, now, "delivery-forgotten", f"to {destination}: by {by}")
            ended_so = sa.or_(instances.c.reason == DeadReason.UNDELIVERED, instances.c.state == InstanceState.SHADOW)
            over = sa.and_(instances.c.id.in_(users), ended_so)
            reported = {"state": InstanceState.REPORTED, "updated_at": now, "reason": None}
            connection.execute(sa.update(instances).where(over).values(reported))
            delivered += conclude(connection, users, now)
    return (len(rows), delivered) if rows else None


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
    linked = linked.where(instance_artifacts.c.outdated_at.is_(None))  # judged again, an image has other results since
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
