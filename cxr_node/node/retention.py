"""Retention: after a time a settled instance's bytes go, and after a longer one, where that is configured, its rows.

A result that a younger instance shares stays until that one's time has come. Killed half-way, the next sweep
takes the same files again. SQLite uses the pages of deleted rows for new ones: the ledger stops to grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from cxr_node.domain import Reason
from cxr_node.node import history
from cxr_node.node.jobs import InstanceState
from cxr_node.node.ledger import SETTLED, Ledger
from cxr_node.node.schema import (
    alternatives,
    artifacts,
    commitments,
    deliveries,
    events,
    instance_artifacts,
    instances,
    promises,
)
from cxr_node.node.spool import Area, Spool

_REFUSED = sa.and_(instances.c.state == InstanceState.REJECTED, instances.c.reason != Reason.IDENTITY_CONFLICT)
_BATCH = 100  # short transactions: the receiver waits for none of them
_SECONDS_PER_DAY = 86400.0
_LONGEST_PAUSE_S = 3600.0
_SHARE = 0.1


def pause_s(retention_days: float) -> float:
    """Time between two sweeps: nothing stays much longer than it should."""
    return min(_LONGEST_PAUSE_S, max(1.0, _SHARE * retention_days * _SECONDS_PER_DAY))


def sweep(ledger: Ledger, spool: Spool, retention_days: float, rejected_days: float | None = None) -> int:
    """Delete what is older, and what was rejected after days of its own; how many instances lost their bytes.

    Not for whose it is: such an image waits for an operator to say so.
    """
    swept = _sweep(ledger, spool, retention_days)
    if rejected_days is not None and rejected_days < retention_days:
        swept += _sweep(ledger, spool, rejected_days, _REFUSED)
    return swept


def _sweep(ledger: Ledger, spool: Spool, days: float, *which: sa.ColumnElement[bool]) -> int:
    before = ledger.now() - timedelta(days=days)
    swept = 0
    while found := history.expired(ledger, before, _BATCH, *which):
        for instance in found:
            spool.delete(Area.OBJECTS, instance.content_sha256)
            for digest in instance.artifact_sha256s:
                spool.delete(Area.RESULTS, digest)
        ledger.mark_purged([instance.instance_id for instance in found])
        swept += len(found)
    return swept


def forget(ledger: Ledger, history_days: float) -> int:
    """Delete the rows of instances that were settled so long ago and have no bytes any more; how many they were.

    Such an instance, sent once more, is a new one: judged again, under the same UIDs, with a new time of receipt.
    """
    before = ledger.now() - timedelta(days=history_days)
    old = sa.and_(instances.c.state.in_(SETTLED), instances.c.updated_at < before, instances.c.purged_at.is_not(None))
    batch = sa.select(instances.c.id).where(old).order_by(instances.c.id).limit(_BATCH).with_for_update()
    forgotten = 0
    while True:
        with ledger.database.writing() as connection:
            if not (row_ids := list(connection.scalars(batch))):
                return forgotten
            delete_rows(connection, row_ids)
        forgotten += len(row_ids)


def delete_rows(connection: sa.Connection, instance_ids: Sequence[int]) -> None:
    """Take instances away, and the results that no other instance has."""
    of_these = instance_artifacts.c.instance_id.in_(instance_ids)
    results = list(connection.scalars(sa.select(instance_artifacts.c.artifact_id).where(of_these).distinct()))
    connection.execute(sa.delete(events).where(events.c.instance_id.in_(instance_ids)))
    connection.execute(sa.delete(instance_artifacts).where(of_these))
    connection.execute(sa.delete(instances).where(instances.c.id.in_(instance_ids)))
    shared = sa.select(instance_artifacts.c.artifact_id).where(instance_artifacts.c.artifact_id.in_(results))
    still = set(connection.scalars(shared))
    own = [row_id for row_id in results if row_id not in still]
    gone = sa.select(deliveries.c.id).where(deliveries.c.artifact_id.in_(own))
    asked = list(connection.scalars(sa.select(promises.c.commitment_id).where(promises.c.delivery_id.in_(gone))))
    connection.execute(sa.delete(promises).where(promises.c.delivery_id.in_(gone)))
    kept = sa.select(promises.c.commitment_id).where(promises.c.commitment_id == commitments.c.id)
    connection.execute(sa.delete(commitments).where(commitments.c.id.in_(asked), ~kept.exists()))
    connection.execute(sa.delete(deliveries).where(deliveries.c.artifact_id.in_(own)))
    either = sa.or_(alternatives.c.artifact_id.in_(own), alternatives.c.alternative_id.in_(own))
    connection.execute(sa.delete(alternatives).where(either))
    connection.execute(sa.delete(artifacts).where(artifacts.c.id.in_(own)))
