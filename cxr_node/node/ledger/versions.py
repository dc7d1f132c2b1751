"""Versions of one SOP Instance: the same UID with a corrected header, or with other pixels. Each has a row of its own.

A later version's reports name those of the earlier ones of the same study as replaced, so it is judged after them.
Reads only. Knows no DICOM: that a version says something else is seen by its results, which are others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from cxr_node.domain import ResultKind, ResultRef
from cxr_node.node.ledger.leases import pick
from cxr_node.node.ledger.states import InstanceState, Job
from cxr_node.node.ledger.tables import artifacts, instance_artifacts, instances

_IS_CURRENT = instance_artifacts.c.outdated_at.is_(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Another version of an instance, which has other results."""

    instance_id: int
    same_study: bool
    same_patient: bool | None
    """None where that is not known: across studies nobody can tell."""
    sop_instance_uids: tuple[str, ...]
    """Of its results."""


def is_next() -> sa.ColumnElement[bool]:
    """Instances that may be judged: received, and no earlier version of the same SOP Instance waits.

    What a version replaces must be known by then, in whatever order several workers come to it.
    """
    before = instances.alias("before")
    waiting = sa.select(sa.literal(1)).where(
        before.c.sop_instance_uid == instances.c.sop_instance_uid,
        before.c.id < instances.c.id,
        before.c.state == InstanceState.RECEIVED,
    )
    return sa.and_(instances.c.state == InstanceState.RECEIVED, ~waiting.correlate(instances).exists())


def awaited(connection: sa.Connection, instance_id: int) -> int | None:
    """Number of the earlier version that an instance waits for; None where it waits for none (`is_next`)."""
    mine, before = instances.alias("mine"), instances.alias("before")
    same = sa.and_(before.c.sop_instance_uid == mine.c.sop_instance_uid, before.c.id < mine.c.id)
    waiting = sa.select(sa.func.max(before.c.id)).select_from(mine.join(before, same))
    number: int | None = connection.scalar(
        waiting.where(mine.c.id == instance_id, before.c.state == InstanceState.RECEIVED)
    )
    return number


def earlier_results(connection: sa.Connection, job: Job) -> tuple[tuple[ResultRef, ...], ...]:
    """Results of the versions of an instance that came before it in its study, those of one version together."""
    found = (
        sa.select(instances.c.id.label("version"), artifacts)
        .join(instance_artifacts, instance_artifacts.c.instance_id == instances.c.id)
        .join(artifacts, artifacts.c.id == instance_artifacts.c.artifact_id)
        .where(
            instances.c.sop_instance_uid == job.ref.sop_instance_uid,
            instances.c.study_instance_uid == job.ref.study_instance_uid,
            instances.c.id < job.claim.row_id,
            _IS_CURRENT,
            artifacts.c.series_instance_uid.is_not(None),
        )
        .order_by(instances.c.id, artifacts.c.id)
    )
    versions: dict[int, list[ResultRef]] = {}
    for row in connection.execute(found).mappings():
        one = ResultRef(**pick(ResultRef, row) | {"kind": ResultKind(row["kind"])})
        versions.setdefault(row["version"], []).append(one)
    return tuple(tuple(version) for version in versions.values())


def others(connection: sa.Connection, row: sa.RowMapping) -> tuple[Version, ...]:
    """Versions of an instance whose results are others than its own, the first received first."""
    alike = instances.c.sop_instance_uid == row["sop_instance_uid"]
    found = sa.select(instances).where(alike, instances.c.id != row["id"]).order_by(instances.c.id)
    mine = set(_results(connection, row["id"]))
    told = []
    for other in connection.execute(found).mappings().all():
        results = _results(connection, other["id"])
        if not results or not mine or mine & set(results):
            continue
        same_study = other["study_instance_uid"] == row["study_instance_uid"]
        same_patient = other["patient_key"] == row["patient_key"] if same_study else None
        told.append(
            Version(
                instance_id=other["id"],
                same_study=same_study,
                same_patient=same_patient,
                sop_instance_uids=tuple(results),
            )
        )
    return tuple(told)


def is_replaced(connection: sa.Connection, row: sa.RowMapping) -> bool:
    """Tell whether a later version has results, and other ones."""
    return any(version.instance_id > row["id"] for version in others(connection, row))


def latest(connection: sa.Connection, instance_id: int) -> int | None:
    """Number of the last later version with other results; None where there is none."""
    row = connection.execute(sa.select(instances).where(instances.c.id == instance_id)).mappings().first()
    later = [] if row is None else [one.instance_id for one in others(connection, row) if one.instance_id > row["id"]]
    return max(later, default=None)


def _results(connection: sa.Connection, instance_id: int) -> Sequence[str]:
    """SOP Instance UIDs of an instance's present results."""
    linked = sa.select(artifacts.c.sop_instance_uid).join(instance_artifacts)
    mine = linked.where(instance_artifacts.c.instance_id == instance_id, _IS_CURRENT)
    return connection.scalars(mine.order_by(artifacts.c.id)).all()
