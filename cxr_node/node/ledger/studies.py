"""Studies: when one is ripe, what its report is made of, and the move that makes the report due.

A judged image makes its study wait until no image has come for a while; a worker then leases the study as it leases an
image. The row outlives kills, and nothing but the ledger says whether a report was made. An image that comes later
makes the study wait again, and its report replaces the earlier ones, which stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import InstanceRef, Origin, Priority, ResultRef, Verdict
from cxr_node.node.ledger import lateness, results
from cxr_node.node.ledger.ledger import Ledger, conclude
from cxr_node.node.ledger.ripening import wanting
from cxr_node.node.ledger.states import (
    FREE,
    DeadReason,
    DeliveryState,
    InstanceState,
    Member,
    OwnReason,
    StoredArtifact,
    StudyJob,
    StudyState,
    claim,
    due_at,
    held,
    note,
    pick,
)
from cxr_node.node.ledger.tables import (
    artifacts,
    deliveries,
    instance_artifacts,
    instances,
    judgements,
    report_artifacts,
    studies,
    study_reports,
)
from cxr_node.result_kinds import ReportPer, ResultKind, Wish

_DOCUMENTS = (ResultKind.REPORT, ResultKind.MEASUREMENTS)
_REPORTED = (InstanceState.REPORTED, InstanceState.DELIVERED)


def _is_ripe() -> sa.ColumnElement[bool]:
    """Every image that came is judged; one that failed, and is to be tried again after a while, is not waited for.

    One whose worker died is: it is tried again at once, and a few times at most.
    """
    fresh = sa.or_(instances.c.attempts == 0, instances.c.lease_owner.is_not(None), instances.c.alone == 1)
    unjudged = sa.select(sa.literal(1)).where(
        instances.c.study_instance_uid == studies.c.study_instance_uid,
        instances.c.state == InstanceState.RECEIVED,
        fresh,
    )
    return sa.and_(studies.c.state == StudyState.WAITING, ~unjudged.correlate(studies).exists())


def claim_study(ledger: Ledger, owner: str, lease_s: float) -> StudyJob | None:
    """Lease the study that is to be reported next: the most urgent, then the one that has been ripe for longest."""
    with ledger.database.leasing() as connection:
        claimed = claim(connection, studies, _is_ripe(), owner, lease_s, ledger.now())
        if claimed is None:
            return None
        row, lease = claimed
        members = _members(connection, row["study_instance_uid"])
        made_of = _digest(members)
        return StudyJob(
            claim=lease,
            study_instance_uid=row["study_instance_uid"],
            version=row["version"],
            priority=Priority(row["priority"]),
            members=members,
            made_of_sha256=made_of,
            earlier_reports=_earlier_reports(connection, row["id"], made_of),
        )


def next_study_s(ledger: Ledger) -> float | None:
    """Seconds until a study may be claimed (0.0: now); None where none waits but for its images."""
    with ledger.database.reading() as connection:
        found = sa.select(sa.func.min(due_at(studies), type_=studies.c.not_before.type)).where(_is_ripe())
        at = connection.scalar(found)
    return None if at is None else max(0.0, (at - ledger.now()).total_seconds())


def settle_study(
    ledger: Ledger,
    job: StudyJob,
    verdict: Verdict | None,
    stored: Sequence[StoredArtifact],
    wishes: Mapping[str, Wish],
) -> bool:
    """WAITING -> REPORTED, with the report and the pictures of its images due where they are wanted: all or nothing.

    False where the lease was lost, or another image was judged meanwhile: then the study waits again.

    Parameters
    ----------
    verdict : None: there is nothing to say of it; then the notes about its images are due
    """
    now, row_id = ledger.now(), job.claim.row_id
    with ledger.database.writing() as connection:
        mine = sa.and_(held(studies, job.claim), studies.c.version == job.version)
        values = FREE | {"state": StudyState.REPORTED, "attempts": 0, "updated_at": now}
        if connection.execute(sa.update(studies).where(mine).values(values)).rowcount == 0:
            again = FREE | {"attempts": 0}
            connection.execute(sa.update(studies).where(held(studies, job.claim)).values(again))
            return False
        told = [member.instance_id for member in job.members]
        locked = sa.select(instances.c.id).where(instances.c.id.in_(told)).order_by(instances.c.id)
        connection.execute(locked.with_for_update())
        report = _link(connection, row_id, job, verdict, stored, now)
        due = report | _pictures(connection, told, notes=verdict is None)
        late_from = lateness.since(connection, told) if told else now
        _make_due(connection, due, wishes, job.priority, now, late_from)
        _reopen(connection, told, now)
        words = f"{verdict} of {len(told)} images" if verdict else "nothing to report"
        note(connection, told, now, "study-reported", words)
        conclude(connection, told, now)
    return True


def release_study(ledger: Ledger, job: StudyJob, *, delay_s: float, count_attempt: bool = True) -> bool:
    """Return a study to the queue; `count_attempt` is False if it was not to blame."""
    values = FREE | {"attempts": job.attempts - int(not count_attempt)}
    values["not_before"] = ledger.now() + timedelta(seconds=delay_s)
    with ledger.database.writing() as connection:
        return connection.execute(sa.update(studies).where(held(studies, job.claim)).values(values)).rowcount == 1


def settle_study_dead(ledger: Ledger, job: StudyJob, reason: DeadReason, detail: str) -> bool:
    """WAITING -> FAILED, and its images DEAD, so that an operator sees them and may retry."""
    now = ledger.now()
    with ledger.database.writing() as connection:
        mine = sa.and_(held(studies, job.claim), studies.c.version == job.version)
        failed = FREE | {"state": StudyState.FAILED, "updated_at": now}
        if connection.execute(sa.update(studies).where(mine).values(failed)).rowcount == 0:
            return False
        told = [member.instance_id for member in job.members]
        dead = {"state": InstanceState.DEAD, "reason": reason, "sentence": detail, "updated_at": now}
        which = sa.and_(instances.c.id.in_(told), instances.c.state == InstanceState.REPORTED)
        ended = sa.update(instances).where(which).values(dead).returning(instances.c.id)
        note(connection, list(connection.scalars(ended)), now, "dead", f"its study was not reported: {detail}")
    return True


def _members(connection: sa.Connection, study_instance_uid: str) -> tuple[Member, ...]:
    """Images that the report has: of each SOP Instance the last answer, and of equal ones the first."""
    unjudged = sa.and_(
        instances.c.state == InstanceState.DEAD,
        instances.c.reason.in_((DeadReason.FAULT, DeadReason.SPOOL_CORRUPT)),
        judgements.c.instance_id.is_(None),
    )
    too_late = instances.c.reason == OwnReason.TOO_LATE  # its results were: the image stays one of its study
    is_aside = sa.and_(instances.c.state == InstanceState.SET_ASIDE, sa.func.coalesce(~too_late, sa.true()))
    judged = sa.and_(judgements.c.instance_id.is_not(None), ~is_aside)
    found = (
        sa.select(instances, judgements.c.content, judgements.c.listed)
        .outerjoin(judgements, judgements.c.instance_id == instances.c.id)
        .where(
            instances.c.study_instance_uid == study_instance_uid,
            instances.c.purged_at.is_(None),
            sa.or_(judged, unjudged),
        )
        .order_by(instances.c.id)
    )
    answers: dict[str, Member] = {}
    for row in connection.execute(found).mappings():
        one = _member(row)
        before = answers.get(one.ref.sop_instance_uid)
        if before is None or before.judgement != one.judgement:
            answers[one.ref.sop_instance_uid] = one
    return tuple(sorted(answers.values(), key=lambda member: member.instance_id))


def _member(row: sa.RowMapping) -> Member:
    return Member(
        instance_id=row["id"],
        ref=InstanceRef(**pick(InstanceRef, row)),
        origin=Origin(**pick(Origin, row)),
        content_sha256=row["content_sha256"],
        judgement=row["content"] or "",
        is_listed=bool(row["listed"]),
    )


def _digest(members: Iterable[Member]) -> str:
    parts = sorted(f"{each.ref.sop_instance_uid}|{each.judgement}" for each in members)
    return sha256("\n".join(parts).encode()).hexdigest()


def _earlier_reports(connection: sa.Connection, study_id: int, made_of: str) -> tuple[tuple[ResultRef, ...], ...]:
    made = sa.select(study_reports).where(study_reports.c.study_id == study_id).order_by(study_reports.c.id)
    reports = []
    for report in connection.execute(made).mappings().all():
        if report["made_of_sha256"] == made_of:
            break
        linked = sa.select(report_artifacts.c.artifact_id).where(report_artifacts.c.report_id == report["id"])
        documents = sa.select(artifacts).where(artifacts.c.id.in_(linked), artifacts.c.kind.in_(_DOCUMENTS))
        rows = connection.execute(documents.order_by(artifacts.c.id)).mappings()
        reports.append(tuple(ResultRef(**pick(ResultRef, row) | {"kind": ResultKind(row["kind"])}) for row in rows))
    return tuple(each for each in reports if each)


def _link(
    connection: sa.Connection,
    study_id: int,
    job: StudyJob,
    verdict: Verdict | None,
    stored: Sequence[StoredArtifact],
    now: datetime,
) -> set[int]:
    """Keep the report, and link it to the images that it is about in place of the one before; its rows."""
    earlier = sa.select(report_artifacts.c.artifact_id).join(study_reports)
    of_study = earlier.where(study_reports.c.study_id == study_id)
    replaced = sa.and_(instance_artifacts.c.artifact_id.in_(of_study), instance_artifacts.c.outdated_at.is_(None))
    connection.execute(sa.update(instance_artifacts).where(replaced).values(outdated_at=now))
    if verdict is None:
        return set()
    report = {"study_id": study_id, "made_of_sha256": job.made_of_sha256, "verdict": verdict, "reported_at": now}
    report_id = connection.execute(sa.insert(study_reports).returning(study_reports.c.id), report).scalar_one()
    due = set()
    for member in job.members:
        have = sa.select(instance_artifacts.c.artifact_id).where(instance_artifacts.c.instance_id == member.instance_id)
        known = frozenset(connection.scalars(have))
        for each in stored:
            due.add(results.link(connection, member.instance_id, each, known)[0])
    rows = sa.select(artifacts.c.id).where(artifacts.c.sop_instance_uid.in_(list(_uids(stored))))
    linked = [{"report_id": report_id, "artifact_id": artifact_id} for artifact_id in connection.scalars(rows)]
    connection.execute(sa.insert(report_artifacts), linked)
    return due


def _uids(stored: Iterable[StoredArtifact]) -> Iterable[str]:
    return (choice.sop_instance_uid for each in stored for choice in each.sop_class_choices)


def _pictures(connection: sa.Connection, instance_ids: Sequence[int], *, notes: bool) -> set[int]:
    """What images have of their own for the report of their study: pictures; `notes` where there is no report."""
    is_note = artifacts.c.kind == ResultKind.NOT_ANALYSED
    own = (
        sa.select(artifacts.c.id)
        .join(instance_artifacts, instance_artifacts.c.artifact_id == artifacts.c.id)
        .where(
            instance_artifacts.c.instance_id.in_(instance_ids),
            instance_artifacts.c.outdated_at.is_(None),
            artifacts.c.per == ReportPer.STUDY,
            artifacts.c.id.not_in(sa.select(report_artifacts.c.artifact_id)),
            is_note if notes else ~is_note,
        )
    )
    return set(connection.scalars(own))


def _make_due(
    connection: sa.Connection,
    artifact_ids: Iterable[int],
    wishes: Mapping[str, Wish],
    priority: Priority,
    now: datetime,
    late_from: datetime,
) -> None:
    rows: list[dict[str, Any]] = []
    for artifact_id in sorted(artifact_ids):
        kind = ResultKind(connection.scalar(sa.select(artifacts.c.kind).where(artifacts.c.id == artifact_id)) or "")
        there = sa.select(deliveries.c.destination).where(deliveries.c.artifact_id == artifact_id)
        have = set(connection.scalars(there))
        due = {"artifact_id": artifact_id, "state": DeliveryState.READY, "not_before": now, "first_due_at": now}
        due |= {"late_from": late_from}
        wanted_by = [name for name in wanting(wishes, kind, ReportPer.STUDY) if name not in have]
        rows += [due | {"destination": name, "priority": priority} for name in wanted_by]
    if rows:
        connection.execute(sa.insert(deliveries), rows)


def _reopen(connection: sa.Connection, instance_ids: Sequence[int], now: datetime) -> None:
    """What was delivered, or was not, or too late, came with an earlier report: the last one counts."""
    undelivered = sa.and_(instances.c.state == InstanceState.DEAD, instances.c.reason == DeadReason.UNDELIVERED)
    late = sa.and_(instances.c.state == InstanceState.SET_ASIDE, instances.c.reason == OwnReason.TOO_LATE)
    which = sa.or_(instances.c.state.in_(_REPORTED), undelivered, late)
    values = {"state": InstanceState.REPORTED, "reason": None, "sentence": None, "updated_at": now}
    connection.execute(sa.update(instances).where(instances.c.id.in_(instance_ids), which).values(values))
