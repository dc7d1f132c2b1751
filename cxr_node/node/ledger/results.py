"""Result objects in the ledger's tables: kept once, shared by instances, some of them in several SOP Classes.

Such a result is one object to the ledger: one delivery to a destination, which gets one of its SOP Classes. Knows no
state: `ledger` says what is due and what is settled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import ResultRef
from cxr_node.node.ledger.prepared import prepared
from cxr_node.node.ledger.states import UNSENT, InstanceState, Job, StoredArtifact, insert_all, note, pick
from cxr_node.node.ledger.tables import (
    alternatives,
    artifacts,
    deliveries,
    instance_artifacts,
    instances,
    report_artifacts,
)
from cxr_node.result_kinds import ReportPer, ResultKind


def is_of_report(artifact_id: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """A result that is part of the report of a study; looked up by its row, and not among all that were ever made."""
    return sa.exists().where(report_artifacts.c.artifact_id == artifact_id)


def outdate(connection: sa.Connection, instance_id: int, now: datetime) -> frozenset[int]:
    """Outdate an instance's results of an earlier judgement; `link` renews those that still hold.

    Returns their rows: none, unless the instance is judged again. For reports of its study see `studies`.
    """
    linked = sa.and_(instance_artifacts.c.instance_id == instance_id, ~is_of_report(instance_artifacts.c.artifact_id))
    known = frozenset(connection.scalars(sa.select(instance_artifacts.c.artifact_id).where(linked)))
    if known:
        current = sa.and_(linked, instance_artifacts.c.outdated_at.is_(None))
        connection.execute(sa.update(instance_artifacts).where(current).values(outdated_at=now))
    return known


def withdraw(connection: sa.Connection, instance_id: int, known: Collection[int], now: datetime) -> None:
    """Withdraw results of earlier answers that no instance has any longer, unless sending has begun."""
    if not known:
        return
    linked = instance_artifacts.c.artifact_id == deliveries.c.artifact_id
    current = sa.select(sa.literal(1)).where(linked, instance_artifacts.c.outdated_at.is_(None))
    untouched = sa.and_(
        deliveries.c.attempts == 0, deliveries.c.delivered_at.is_(None), deliveries.c.lease_until.is_(None)
    )
    mine = sa.and_(deliveries.c.artifact_id.in_(known), deliveries.c.state.in_(UNSENT), untouched)
    found = sa.select(deliveries.c.id, deliveries.c.destination).where(mine, ~current.correlate(deliveries).exists())
    rows = connection.execute(found.with_for_update(skip_locked=True)).all()  # what a courier takes now is sent
    connection.execute(sa.delete(deliveries).where(deliveries.c.id.in_([row.id for row in rows])))
    for row in rows:
        words = f"to {row.destination}: judged again before it was sent"
        note(connection, [instance_id], now, "delivery-withdrawn", words)


@dataclass(frozen=True, slots=True)
class Kept:
    """A result object in the ledger."""

    artifact_id: int
    alternative_ids: tuple[int, ...]
    is_new: bool
    """False: it was known, and keeps its first bytes."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Rows of all its SOP Classes, the first choice first."""
        return (self.artifact_id, *self.alternative_ids)


def keep(connection: sa.Connection, stored: Sequence[StoredArtifact]) -> list[Kept]:
    """Keep results in all their SOP Classes, or find them where they are known; each by its SOP Instance UID."""
    if not stored:
        return []
    wanted = {each.sop_instance_uid: each for one in reversed(stored) for each in reversed(one.sop_class_choices)}
    rows = {row.sop_instance_uid: int(row.id) for row in connection.execute(*_known(sorted(wanted)))}
    new = [_row(each) for one in stored for each in one.sop_class_choices if each.sop_instance_uid not in rows]
    new = list({row["sop_instance_uid"]: row for row in reversed(new)}.values())[::-1]
    if new:
        inserted = connection.execute(_INSERT, new)
        rows |= {row.sop_instance_uid: int(row.id) for row in inserted}
    fresh = {row["sop_instance_uid"] for row in new}
    kept = []
    chosen: list[dict[str, int]] = []
    for one in stored:
        first, *below = (each.sop_instance_uid for each in one.sop_class_choices)
        kept.append(Kept(rows[first], tuple(rows[uid] for uid in below), first in fresh))
        for choice, uid in enumerate(below, 1):
            if uid in fresh:
                fresh.discard(uid)
                row = {"artifact_id": rows[first], "sop_class_choice": choice, "alternative_id": rows[uid]}
                chosen.append(row)
    if chosen:
        insert_all(connection, alternatives, chosen)
    return kept


_NAMED = (artifacts.c.id, artifacts.c.sop_instance_uid)
_INSERT = sa.insert(artifacts).returning(*_NAMED)


@prepared
def _known(uids: Sequence[str]) -> sa.Select[Any]:
    known = sa.select(*_NAMED).where(artifacts.c.sop_instance_uid.in_(uids))
    return known.order_by(artifacts.c.id).with_for_update()


def link(
    connection: sa.Connection, instance_ids: Iterable[int], kept: Sequence[Kept], known: Collection[tuple[int, int]]
) -> None:
    """Link results to instances. `known` : pairs of instance and row that are linked already, and hold again."""
    ids = [row_id for one in kept for row_id in one.ids]
    pairs = list(dict.fromkeys((instance_id, row_id) for instance_id in instance_ids for row_id in ids))
    new = [{"instance_id": one, "artifact_id": row_id} for one, row_id in pairs if (one, row_id) not in known]
    if new:
        insert_all(connection, instance_artifacts, new)
    for instance_id in {one for one, row_id in pairs if (one, row_id) in known}:
        renewed = sa.and_(instance_artifacts.c.instance_id == instance_id, instance_artifacts.c.artifact_id.in_(ids))
        connection.execute(sa.update(instance_artifacts).where(renewed).values(outdated_at=None))


def find(connection: sa.Connection, artifact_id: int) -> StoredArtifact:
    """Read a result with its alternatives, the first choice first."""
    return with_first_user(connection, artifact_id)[0]


def with_first_user(connection: sa.Connection, artifact_id: int) -> tuple[StoredArtifact, int]:
    """As `find`, and the ledger number of the instance that it was made of; the first, where several share it."""
    first = connection.execute(*_with_user(artifact_id)).mappings().one()
    below = tuple(_stored(row, ()) for row in connection.execute(*_below(artifact_id)).mappings())
    return _stored(first, below), int(first["first_user"] or 0)


@prepared
def _with_user(artifact_id: int) -> sa.Select[Any]:
    users = sa.select(sa.func.min(instance_artifacts.c.instance_id))
    user = users.where(instance_artifacts.c.artifact_id == artifact_id).scalar_subquery().label("first_user")
    return sa.select(artifacts, user).where(artifacts.c.id == artifact_id)


@prepared
def _below(artifact_id: int) -> sa.Select[Any]:
    """Alternatives of a result, the first choice first."""
    others = sa.select(artifacts).join(alternatives, alternatives.c.alternative_id == artifacts.c.id)
    return others.where(alternatives.c.artifact_id == artifact_id).order_by(alternatives.c.sop_class_choice)


def chosen() -> sa.ColumnElement[Any]:
    """Row of the result object that a delivery is about: the SOP Class that was chosen for its destination."""
    instead = sa.select(alternatives.c.alternative_id).where(
        alternatives.c.artifact_id == deliveries.c.artifact_id,
        alternatives.c.sop_class_choice == deliveries.c.sop_class_choice,
    )
    return sa.func.coalesce(instead.correlate(deliveries).scalar_subquery(), deliveries.c.artifact_id)


def lock_users(connection: sa.Connection, artifact_id: int) -> list[int]:
    """Name the instances of a result, and hold them: of two deliveries that end at once, the second must see the first.

    The result is held before: an instance that is just being linked to it must see this delivery's end.
    """
    connection.execute(*_locked(artifact_id))
    return list(connection.scalars(*_users(artifact_id)))


@prepared
def _locked(artifact_id: int) -> sa.Select[Any]:
    return sa.select(artifacts.c.id).where(artifacts.c.id == artifact_id).with_for_update()


@prepared
def _users(artifact_id: int) -> sa.Select[Any]:
    linked = sa.select(instance_artifacts.c.instance_id).where(instance_artifacts.c.artifact_id == artifact_id)
    return sa.select(instances.c.id).where(instances.c.id.in_(linked)).order_by(instances.c.id).with_for_update()


def _row(stored: StoredArtifact) -> dict[str, Any]:
    return {name: getattr(stored, name) for name in _COLUMNS}


def _stored(row: sa.RowMapping, below: tuple[StoredArtifact, ...]) -> StoredArtifact:
    told = dict(row) | {"kind": ResultKind(row["kind"]), "alternatives": below}
    return StoredArtifact(**pick(StoredArtifact, told | {"per": ReportPer(row["per"])}))


_COLUMNS = tuple(each.name for each in fields(StoredArtifact) if each.name != "alternatives")
_IS_CURRENT = instance_artifacts.c.outdated_at.is_(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Another version of an instance, which has other results."""

    instance_id: int
    same_study: bool
    same_patient: bool | None
    """None where that is not known: across studies it is unknown."""
    sop_instance_uids: tuple[str, ...]
    """Of its results."""


def _is_next() -> sa.ColumnElement[bool]:
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


IS_NEXT = _is_next()


def awaited(connection: sa.Connection, instance_id: int) -> int | None:
    """Number of the earlier version that an instance waits for; None where it waits for none (`IS_NEXT`)."""
    mine, before = instances.alias("mine"), instances.alias("before")
    same = sa.and_(before.c.sop_instance_uid == mine.c.sop_instance_uid, before.c.id < mine.c.id)
    waiting = sa.select(sa.func.max(before.c.id)).select_from(mine.join(before, same))
    number: int | None = connection.scalar(
        waiting.where(mine.c.id == instance_id, before.c.state == InstanceState.RECEIVED)
    )
    return number


def earlier_results(connection: sa.Connection, job: Job) -> tuple[tuple[ResultRef, ...], ...]:
    """Results of the versions of an instance that came before it in its study, those of one version together."""
    versions: dict[int, list[ResultRef]] = {}
    found = _earlier(job.ref.sop_instance_uid, job.ref.study_instance_uid, job.claim.row_id)
    for row in connection.execute(*found).mappings():
        one = ResultRef(**pick(ResultRef, row) | {"kind": ResultKind(row["kind"])})
        versions.setdefault(row["version"], []).append(one)
    return tuple(tuple(version) for version in versions.values())


@prepared
def _earlier(sop_instance_uid: str, study_instance_uid: str, row_id: int) -> sa.Select[Any]:
    return (
        sa.select(instances.c.id.label("version"), artifacts)
        .join(instance_artifacts, instance_artifacts.c.instance_id == instances.c.id)
        .join(artifacts, artifacts.c.id == instance_artifacts.c.artifact_id)
        .where(
            instances.c.sop_instance_uid == sop_instance_uid,
            instances.c.study_instance_uid == study_instance_uid,
            instances.c.id < row_id,
            _IS_CURRENT,
            artifacts.c.series_instance_uid.is_not(None),
            artifacts.c.per == ReportPer.IMAGE,
        )
        .order_by(instances.c.id, artifacts.c.id)
    )


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
    """Whether a later version has different results."""
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
