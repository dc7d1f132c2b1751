"""Which instances are old enough that their bytes may go, and which results go with each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from cxr_node.node.ledger.commitments import awaited
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import SETTLED, UNSENT, StudyState
from cxr_node.node.ledger.tables import (
    artifacts,
    deliveries,
    instance_artifacts,
    instances,
    report_artifacts,
    studies,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """One settled instance whose bytes may go."""

    instance_id: int
    content_sha256: str
    artifact_sha256s: tuple[str, ...]


def expired(ledger: Ledger, before: datetime, limit: int = 100, *which: sa.ColumnElement[bool]) -> list[Expired]:
    """Find settled instances untouched since `before` whose bytes are still in the spool, oldest first.

    A result that a younger instance shares is not in the list, nor an instance with a result that a destination
    is still to commit itself to, nor a rejected one with a note on its way. `which` leaves others out.
    """
    with ledger.database.reading() as connection:
        return _with_results(connection, _wanted(before, *which).limit(limit))


def lock(
    connection: sa.Connection, before: datetime, instance_ids: Sequence[int], *which: sa.ColumnElement[bool]
) -> list[Expired]:
    """Those of these instances of which that still holds, and goes on to hold until the transaction ends."""
    found = _wanted(before, instances.c.id.in_(instance_ids), *which)
    return _with_results(connection, found.with_for_update(of=instances))


def mark_purged(connection: sa.Connection, instance_ids: Sequence[int], now: datetime) -> None:
    """Record that the bytes of settled instances are gone; their rows stay."""
    gone = sa.and_(instances.c.id.in_(instance_ids), instances.c.state.in_(SETTLED))
    connection.execute(sa.update(instances).where(gone).values(purged_at=now))


def _wanted(before: datetime, *which: sa.ColumnElement[bool]) -> sa.Select[tuple[int, str]]:
    old = sa.and_(instances.c.state.in_(SETTLED), instances.c.updated_at < before, instances.c.purged_at.is_(None))
    mine = (old, ~awaited(), ~_on_its_way(), ~_is_to_be_reported(), ~_is_in_a_report_of(before), *which)
    return sa.select(instances.c.id, instances.c.content_sha256).where(*mine).order_by(instances.c.id)


def _with_results(connection: sa.Connection, wanted: sa.Select[tuple[int, str]]) -> list[Expired]:
    rows = connection.execute(wanted).all()
    ids = [row.id for row in rows]
    return [
        Expired(
            instance_id=row.id,
            content_sha256=row.content_sha256,
            artifact_sha256s=_own(connection, row.id, ids[:place]),
        )
        for place, row in enumerate(rows)
    ]


def has_report() -> sa.ColumnElement[bool]:
    """Instances that the report of a study is about."""
    linked = sa.select(instance_artifacts.c.instance_id).join(
        report_artifacts, report_artifacts.c.artifact_id == instance_artifacts.c.artifact_id
    )
    return linked.where(instance_artifacts.c.instance_id == instances.c.id).correlate(instances).exists()


def _is_to_be_reported() -> sa.ColumnElement[bool]:
    """A report is to be made of the study, with this instance if it is in it."""
    waiting = sa.select(studies.c.id).where(
        studies.c.study_instance_uid == instances.c.study_instance_uid, studies.c.state == StudyState.WAITING
    )
    return waiting.correlate(instances).exists()


def _is_in_a_report_of(before: datetime) -> sa.ColumnElement[bool]:
    """In the report of a study with an image that is younger: a report goes at once with all that it is about."""
    mine, theirs, other = instance_artifacts.alias("mine"), instance_artifacts.alias("theirs"), instances.alias("other")
    young = sa.or_(other.c.state.not_in(SETTLED), other.c.updated_at >= before)
    found = (
        sa.select(sa.literal(1))
        .select_from(mine.join(report_artifacts, report_artifacts.c.artifact_id == mine.c.artifact_id))
        .join(theirs, theirs.c.artifact_id == mine.c.artifact_id)
        .join(other, other.c.id == theirs.c.instance_id)
        .where(mine.c.instance_id == instances.c.id, other.c.purged_at.is_(None), young)
        .where(mine.c.outdated_at.is_(None), theirs.c.outdated_at.is_(None))
    )
    return found.correlate(instances).exists()


def _on_its_way() -> sa.ColumnElement[bool]:
    """Something of the instance is still to be delivered: of a settled one only the note about a rejection."""
    return (
        sa.select(sa.literal(1))
        .select_from(instance_artifacts)
        .join(deliveries, deliveries.c.artifact_id == instance_artifacts.c.artifact_id)
        .where(instance_artifacts.c.instance_id == instances.c.id, deliveries.c.state.in_(UNSENT))
        .correlate(instances)
        .exists()
    )


def _own(connection: sa.Connection, instance_id: int, gone: Collection[int]) -> tuple[str, ...]:
    """Digests of the results that no instance shares whose bytes stay; those that are `gone` went just before."""
    mine, other = instance_artifacts.alias("mine"), instance_artifacts.alias("other")
    shared = (
        sa.select(sa.literal(1))
        .select_from(other.join(instances, instances.c.id == other.c.instance_id))
        .where(
            other.c.artifact_id == artifacts.c.id,
            other.c.instance_id != instance_id,
            instances.c.purged_at.is_(None),
            other.c.instance_id.not_in(gone),
        )
    )
    found = (
        sa.select(artifacts.c.content_sha256)
        .join(mine, mine.c.artifact_id == artifacts.c.id)
        .where(mine.c.instance_id == instance_id, ~shared.exists())
    )
    return tuple(connection.scalars(found.order_by(artifacts.c.id)))
