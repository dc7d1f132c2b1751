"""What is DEAD, given another try by an operator: images back to be judged, deliveries back to be sent.

A destination that is not configured is left alone (nobody would serve the queue: `removal`), and so is an image whose
bytes retention has taken. Knows no configuration, only names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from cxr_node.node import results
from cxr_node.node.claims import FREE, note
from cxr_node.node.jobs import Death, DeliveryState, InstanceState
from cxr_node.node.ledger import Ledger, of_instance
from cxr_node.node.schema import deliveries, instance_artifacts, instances

_REVIVED_AT_ONCE = 100  # short transactions: the receiver waits for none of them


class Left(StrEnum):
    """Why something DEAD stays so."""

    PURGED = "its bytes were deleted after spool.retention_days; send the image again"
    ELSEWHERE = "it is DEAD only at other destinations, or at those that are not configured"
    UNSENT = "it died while it was judged, so no destination is concerned"


@dataclass(frozen=True, slots=True)
class Retried:
    """What came of it."""

    instances: int = 0
    """Back in the queue, whole or with some of their deliveries."""
    deliveries: int = 0
    left: Counter[Left] = field(default_factory=Counter)


def dead() -> sa.ColumnElement[bool]:
    """Instances that are DEAD, and those on their way that a destination has refused something of."""
    refused = (
        sa.select(instance_artifacts.c.instance_id)
        .join(deliveries, deliveries.c.artifact_id == instance_artifacts.c.artifact_id)
        .where(instance_artifacts.c.instance_id == instances.c.id, instance_artifacts.c.outdated_at.is_(None))
        .where(deliveries.c.state == DeliveryState.DEAD)
    )
    noted = (InstanceState.REPORTED, InstanceState.REJECTED)  # of a rejected one the note that says so
    on_its_way = sa.and_(instances.c.state.in_(noted), refused.exists())
    return sa.or_(instances.c.state == InstanceState.DEAD, on_its_way)


def retry(
    ledger: Ledger, which: sa.ColumnElement[bool], destinations: Collection[str], *, unjudged: bool = True
) -> Retried:
    """DEAD -> READY or RECEIVED, for instances that a condition names.

    Parameters
    ----------
    which : condition on instances
    destinations : names of those that may be tried again
    unjudged : also what died while it was judged
    """
    last_id, moved, sent, left = 0, 0, 0, Counter[Left]()
    while True:
        found = sa.select(instances).where(which, dead(), instances.c.id > last_id).order_by(instances.c.id)
        with ledger.database.writing() as connection:
            rows = connection.execute(found.limit(_REVIVED_AT_ONCE).with_for_update()).mappings().all()
            for row in rows:
                came = _revive(connection, row, destinations, ledger.now(), unjudged=unjudged)
                if isinstance(came, Left):
                    left[came] += 1
                else:
                    moved, sent = moved + 1, sent + came
        if not rows:
            return Retried(moved, sent, left)
        last_id = rows[-1]["id"]


def _revive(
    connection: sa.Connection, row: sa.RowMapping, destinations: Collection[str], now: datetime, *, unjudged: bool
) -> int | Left:
    """Put one instance back: how many of its deliveries are due again, or why it stays."""
    if row["purged_at"] is not None:
        return Left.PURGED
    if row["state"] == InstanceState.DEAD and row["reason"] != Death.UNDELIVERED:  # judged again, it may have results
        if not unjudged:
            return Left.UNSENT
        _move(connection, [row["id"]], InstanceState.RECEIVED, now)
        return 0
    current = of_instance(row["id"], instance_artifacts.c.outdated_at.is_(None))
    refused = sa.and_(current, deliveries.c.state == DeliveryState.DEAD, deliveries.c.destination.in_(destinations))
    due = FREE | {"attempts": 0, "not_before": now, "state": DeliveryState.READY, "first_due_at": now}
    again = sa.update(deliveries).where(refused).values(due).returning(deliveries.c.artifact_id)
    sent = list(connection.scalars(again))
    if not sent:
        return Left.ELSEWHERE
    users = {user for artifact_id in sent for user in results.lock_users(connection, artifact_id)}
    over = sa.and_(instances.c.state == InstanceState.DEAD, instances.c.purged_at.is_(None))
    waiting = sa.select(instances.c.id).where(instances.c.id.in_(users), over)
    back = list(connection.scalars(waiting))
    _move(connection, back, InstanceState.REPORTED, now)
    if row["id"] not in back:
        note(connection, [row["id"]], now, "retried", f"by an operator, {len(sent)} deliveries")
    return len(sent)


def _move(connection: sa.Connection, instance_ids: list[int], to: InstanceState, now: datetime) -> None:
    values: dict[str, Any] = FREE | {"attempts": 0, "not_before": now, "updated_at": now, "state": to}
    values |= {"reason": None, "sentence": None}
    connection.execute(sa.update(instances).where(instances.c.id.in_(instance_ids)).values(values))
    note(connection, instance_ids, now, "retried", f"by an operator, back to {to}")
