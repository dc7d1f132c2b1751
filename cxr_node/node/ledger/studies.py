"""Studies: when one is ripe, what its report is made of, and the move that makes the report due.

A judged image makes its study wait until no image has come for a while; a worker then leases the study as it leases an
image. The row outlives kills, and nothing but the ledger says whether a report was made. An image that comes later
makes the study wait again, and its report replaces the earlier ones, which stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import InstanceRef, Origin, Priority, ResultRef
from cxr_node.node.ledger import lateness, prior_orders, results
from cxr_node.node.ledger.ledger import Ledger, conclude
from cxr_node.node.ledger.move_statements import moved, moving
from cxr_node.node.ledger.prepared import given, prepared, value
from cxr_node.node.ledger.prior_orders import PriorOutcome
from cxr_node.node.ledger.ripening import begins_as, wanting
from cxr_node.node.ledger.states import (
    FREE,
    DeadReason,
    InstanceState,
    MadeReport,
    Member,
    Prior,
    StoredArtifact,
    StudyJob,
    StudyState,
    claim,
    due_at,
    held,
    insert_all,
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
from cxr_node.node.process import metrics
from cxr_node.result_kinds import DOCUMENTS, ReportPer, ResultKind, Wish

_REPORTED = (InstanceState.REPORTED, InstanceState.DELIVERED, InstanceState.SHADOW)


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


_IS_DUE = sa.and_(_is_ripe(), ~prior_orders.awaited(value("now"), value("longest")))


def claim_study(ledger: Ledger, owner: str, lease_s: float) -> StudyJob | None:
    """Lease the study that is to be reported next: the most urgent, then the one that has been ripe for longest.

    Earlier radiographs that were not fetched until then are left out for good.
    """
    now = ledger.now()
    longest = prior_orders.longest(now)
    with ledger.database.leasing() as connection:
        claimed = claim(connection, studies, _IS_DUE, owner, lease_s, now, longest=longest)
        if claimed is None:
            return None
        row, lease = claimed
        priors = prior_orders.closed(connection, row["study_instance_uid"], now)
        members = images_of(connection, row["study_instance_uid"])
        return StudyJob(
            claim=lease,
            study_instance_uid=row["study_instance_uid"],
            version=row["version"],
            priority=Priority(row["priority"]),
            members=members,
            made_of_sha256=_digest(members, priors),
            reports=_made_reports(connection, row["id"]) if lease.fence > 1 else (),
            priors=priors,
        )


def settle_priors(ledger: Ledger, job: StudyJob, answers: Mapping[int, PriorOutcome]) -> StudyJob | None:
    """Remember what is said of earlier radiographs, by their numbers, before a report says it; the job with that.

    None where the lease was lost.
    """
    with ledger.database.writing() as connection:
        mine = sa.select(studies.c.id).where(held(studies, job.claim)).with_for_update()
        if connection.scalar(mine) is None:
            return None
        for prior_id, outcome in sorted(answers.items()):
            prior_orders.answer(connection, prior_id, outcome)
        priors = prior_orders.fetched(connection, job.study_instance_uid)
    return replace(job, priors=priors, made_of_sha256=_digest(job.members, priors))


def next_study_s(ledger: Ledger) -> float | None:
    """Seconds until a study may be claimed (0.0: now); None where none waits but for its images."""
    with ledger.database.reading() as connection:
        at = connection.scalar(*_first_ripe())
    return None if at is None else max(0.0, (at - ledger.now()).total_seconds())


@prepared
def _first_ripe() -> sa.Select[Any]:
    due, until = due_at(studies), prior_orders.awaited_until()
    at_last = sa.case((until > due, until), else_=due)
    return sa.select(sa.func.min(at_last, type_=studies.c.not_before.type)).where(_is_ripe())


def settle_study(
    ledger: Ledger,
    job: StudyJob,
    verdict: str | None,
    stored: Sequence[StoredArtifact],
    wishes: Mapping[str, Wish],
) -> bool:
    """WAITING -> REPORTED, with the report and the pictures of its images due where they are wanted: all or nothing.

    False where the lease was lost, or another image was judged meanwhile: then the study waits again.

    Parameters
    ----------
    verdict : the word for programs; None: there is nothing to say of it; then the notes about its images are due
    """
    now = ledger.now()
    with ledger.database.writing() as connection:
        told = _told(connection, job)
        waiting = _lock_images(connection, job.study_instance_uid, told)
        values = FREE | {"state": StudyState.REPORTED, "attempts": 0, "updated_at": now}
        version = given(version=job.version)
        if connection.execute(_reporting(tuple(values)), moved(job.claim, values) | version).rowcount == 0:
            again = FREE | {"attempts": 0}
            connection.execute(sa.update(studies).where(held(studies, job.claim)).values(again))
            return False
        waited_s = _waited_s(connection, job, now)
        report = _link(connection, job, told, verdict, stored, now)
        due = report | _pictures(connection, told, notes=verdict is None)
        members = [member.instance_id for member in job.members]
        late_from = lateness.since(connection, members) if members else now
        _make_due(connection, due, wishes, job, now, late_from)
        _reopen(connection, told, now)
        words = f"{verdict} of {len(members)} images" if verdict else "nothing to report"
        note(connection, told, now, "study-reported", words)
        conclude(connection, waiting, now)
    if verdict is not None:
        metrics.study_reported(verdict, waited_s)
    return True


@cache
def _reporting(names: tuple[str, ...]) -> sa.Update:
    """Of a study that was not changed since it was claimed."""
    return moving(studies, (StudyState.WAITING,), names).where(studies.c.version == value("version"))


def _waited_s(connection: sa.Connection, job: StudyJob, now: datetime) -> float | None:
    """Seconds since the last image came; None where it came before an earlier report."""
    before = None if job.is_first else connection.scalar(*_last_made(job.claim.row_id))
    last = max((member.origin.received_at for member in job.members), default=None)
    return None if last is None or (before is not None and last <= before) else (now - last).total_seconds()


@prepared
def _last_made(study_id: int) -> sa.Select[Any]:
    at = study_reports.c.reported_at
    return sa.select(sa.func.max(at, type_=at.type)).where(study_reports.c.study_id == study_id)


def release_study(ledger: Ledger, job: StudyJob, *, delay_s: float, count_attempt: bool = True) -> bool:
    """Return a study to the queue; `count_attempt` is False if it was not to blame."""
    values = FREE | {"attempts": job.attempts - int(not count_attempt)}
    values["not_before"] = ledger.now() + timedelta(seconds=delay_s)
    with ledger.database.writing() as connection:
        return connection.execute(sa.update(studies).where(held(studies, job.claim)).values(values)).rowcount == 1


def settle_study_dead(ledger: Ledger, job: StudyJob, reason: DeadReason, detail: str) -> bool:
    """WAITING -> FAILED, and its images DEAD, so that an operator sees them and may retry."""
    now = ledger.now()
    told = [member.instance_id for member in job.members]
    with ledger.database.writing() as connection:
        _lock_images(connection, job.study_instance_uid, told)
        mine = sa.and_(held(studies, job.claim), studies.c.version == job.version)
        failed = FREE | {"state": StudyState.FAILED, "updated_at": now}
        if connection.execute(sa.update(studies).where(mine).values(failed)).rowcount == 0:
            return False
        dead = {"state": InstanceState.DEAD, "reason": DeadReason.UNREPORTED, "updated_at": now}
        dead["sentence"] = f"{reason}: {detail}"
        which = sa.and_(instances.c.id.in_(told), instances.c.state == InstanceState.REPORTED)
        connection.execute(sa.update(instances).where(which).values(dead))
        note(connection, told, now, "dead", f"its study was not reported: {reason}: {detail}")
    return True


def images_of(connection: sa.Connection, study_instance_uid: str) -> tuple[Member, ...]:
    """Images that the report has: of each SOP Instance the last answer, and of equal ones the first."""
    answers: dict[str, Member] = {}
    admitted = connection.scalar(*_admitted(study_instance_uid))
    for row in connection.execute(*_members(study_instance_uid)).mappings():
        if admitted is not None and row["patient_key"] not in ("", admitted):
            continue
        one = _member(row)
        before = answers.get(one.ref.sop_instance_uid)
        if before is None or before.judgement != one.judgement:
            answers[one.ref.sop_instance_uid] = one
    return tuple(sorted(answers.values(), key=lambda member: member.instance_id))


@prepared
def _members(study_instance_uid: str) -> sa.Select[Any]:
    unjudged = sa.and_(
        instances.c.state == InstanceState.DEAD,
        instances.c.reason.in_((DeadReason.FAULT, DeadReason.SPOOL_CORRUPT)),
        judgements.c.instance_id.is_(None),
    )
    judged = judgements.c.instance_id.is_not(None)
    return (
        sa.select(instances, judgements.c.content, judgements.c.listed)
        .outerjoin(judgements, judgements.c.instance_id == instances.c.id)
        .where(
            instances.c.study_instance_uid == study_instance_uid,
            instances.c.purged_at.is_(None),
            sa.or_(judged, unjudged),
        )
        .order_by(instances.c.id)
    )


@prepared
def _admitted(study_instance_uid: str) -> sa.Select[Any]:
    """Of whom an operator said the study is: not an image of whose it was before; see `queries.precedent`."""
    named = sa.select(instances.c.patient_key).where(
        instances.c.study_instance_uid == study_instance_uid,
        instances.c.patient_key != "",
        instances.c.admitted_at.is_not(None),
    )
    return named.order_by(instances.c.id.desc()).limit(1)


def _told(connection: sa.Connection, job: StudyJob) -> list[int]:
    """Images that a report is about: its own, and copies of which the same was said."""
    said = {(member.ref.sop_instance_uid, member.judgement) for member in job.members}
    found = connection.execute(*_judged(job.study_instance_uid))
    copies = {row.id for row in found if (row.sop_instance_uid, row.content) in said}
    return sorted(copies | {member.instance_id for member in job.members})


@prepared
def _judged(study_instance_uid: str) -> sa.Select[Any]:
    return (
        sa.select(instances.c.id, instances.c.sop_instance_uid, judgements.c.content)
        .join(judgements, judgements.c.instance_id == instances.c.id)
        .where(instances.c.study_instance_uid == study_instance_uid, instances.c.purged_at.is_(None))
    )


def _lock_images(connection: sa.Connection, study_instance_uid: str, told: Sequence[int]) -> list[int]:
    """Hold the images of a report, and those that waited for it in vain: another version of theirs is in it.

    Before the study, as everybody does who holds both.
    """
    return list(connection.scalars(*_locked(study_instance_uid, told)))


@prepared
def _locked(study_instance_uid: str, told: Sequence[int]) -> sa.Select[Any]:
    waiting = sa.and_(instances.c.study_instance_uid == study_instance_uid, instances.c.state == InstanceState.REPORTED)
    which = sa.or_(instances.c.id.in_(told), waiting)
    return sa.select(instances.c.id).where(which).order_by(instances.c.id).with_for_update()


def _member(row: sa.RowMapping) -> Member:
    return Member(
        instance_id=row["id"],
        ref=InstanceRef(**pick(InstanceRef, row)),
        origin=Origin(**pick(Origin, row)),
        content_sha256=row["content_sha256"],
        judgement=row["content"] or "",
        is_listed=bool(row["listed"]),
    )


def _digest(members: Iterable[Member], priors: Iterable[Prior] | None) -> str:
    parts = sorted(f"{each.ref.sop_instance_uid}|{each.judgement}" for each in members)
    parts += sorted(f"{each.content_sha256}|{each.judgement}" for each in priors or ())
    return sha256("\n".join(parts).encode()).hexdigest()


def _made_reports(connection: sa.Connection, study_id: int) -> tuple[MadeReport, ...]:
    """Those with documents; what is said of an image that is here no more stands, and nothing replaces it."""
    about_gone = (
        sa.select(report_artifacts.c.report_id)
        .join(instance_artifacts, instance_artifacts.c.artifact_id == report_artifacts.c.artifact_id)
        .join(instances, instances.c.id == instance_artifacts.c.instance_id)
        .where(instances.c.purged_at.is_not(None), report_artifacts.c.report_id == study_reports.c.id)
        .correlate(study_reports)
        .exists()
    )
    made = sa.select(study_reports).where(study_reports.c.study_id == study_id, ~about_gone)
    reports = []
    for report in connection.execute(made.order_by(study_reports.c.id)).mappings().all():
        linked = sa.select(report_artifacts.c.artifact_id).where(report_artifacts.c.report_id == report["id"])
        documents = sa.select(artifacts).where(artifacts.c.id.in_(linked), artifacts.c.kind.in_(DOCUMENTS))
        rows = connection.execute(documents.order_by(artifacts.c.id)).mappings()
        refs = tuple(ResultRef(**pick(ResultRef, row) | {"kind": ResultKind(row["kind"])}) for row in rows)
        about = sa.select(instance_artifacts.c.instance_id).where(instance_artifacts.c.artifact_id.in_(linked))
        images = sa.select(instances.c.content_sha256).where(instances.c.id.in_(about)).order_by(instances.c.id)
        told = {"documents": refs, "images": tuple(connection.scalars(images))}
        reports.append(MadeReport(made_of_sha256=report["made_of_sha256"], **told))
    return tuple({each.uids: each for each in reports if each.documents}.values())


def _link(
    connection: sa.Connection,
    job: StudyJob,
    told: Sequence[int],
    verdict: str | None,
    stored: Sequence[StoredArtifact],
    now: datetime,
) -> set[int]:
    """Keep the report, and link it to the images that it is about in place of the one before; its rows."""
    study_id = job.claim.row_id
    if not job.is_first:
        earlier = sa.select(report_artifacts.c.artifact_id).join(study_reports)
        of_study = earlier.where(study_reports.c.study_id == study_id)
        replaced = sa.and_(instance_artifacts.c.artifact_id.in_(of_study), instance_artifacts.c.outdated_at.is_(None))
        connection.execute(sa.update(instance_artifacts).where(replaced).values(outdated_at=now))
    if verdict is None:
        return set()
    report = {"study_id": study_id, "made_of_sha256": job.made_of_sha256, "verdict": verdict, "reported_at": now}
    report_id = connection.execute(_INSERT, report).scalar_one()
    kept = results.keep(connection, stored)
    have = connection.execute(*_linked(told)).all()
    results.link(connection, told, kept, {(row.instance_id, row.artifact_id) for row in have})
    rows = sorted({row_id for one in kept for row_id in one.ids})
    if rows:
        linked = [{"report_id": report_id, "artifact_id": artifact_id} for artifact_id in rows]
        insert_all(connection, report_artifacts, linked)
    return {one.artifact_id for one in kept} if told else set()


_INSERT = sa.insert(study_reports).returning(study_reports.c.id)


@prepared
def _linked(instance_ids: Sequence[int]) -> sa.Select[Any]:
    pairs = (instance_artifacts.c.instance_id, instance_artifacts.c.artifact_id)
    return sa.select(*pairs).where(instance_artifacts.c.instance_id.in_(instance_ids))


def _pictures(connection: sa.Connection, instance_ids: Sequence[int], *, notes: bool) -> set[int]:
    """What images have of their own for the report of their study: pictures; `notes` where there is no report.

    One look-up by key after the other: of the join PostgreSQL reads whole tables where it has no statistics yet.
    """
    ids = sorted(set(connection.scalars(*_present(instance_ids))))
    found = {row.id for row in connection.execute(*_of_study(ids)) if (row.kind == ResultKind.NOT_ANALYSED) is notes}
    return found - set(connection.scalars(*_of_reports(ids)))


@prepared
def _present(instance_ids: Sequence[int]) -> sa.Select[Any]:
    linked = sa.and_(instance_artifacts.c.instance_id.in_(instance_ids), instance_artifacts.c.outdated_at.is_(None))
    return sa.select(instance_artifacts.c.artifact_id).where(linked)


@prepared
def _of_study(ids: Sequence[int]) -> sa.Select[Any]:
    of_study = artifacts.c.per == ReportPer.STUDY
    return sa.select(artifacts.c.id, artifacts.c.kind).where(artifacts.c.id.in_(ids), of_study)


@prepared
def _of_reports(ids: Sequence[int]) -> sa.Select[Any]:
    return sa.select(report_artifacts.c.artifact_id).where(report_artifacts.c.artifact_id.in_(ids))


def _make_due(
    connection: sa.Connection,
    artifact_ids: Collection[int],
    wishes: Mapping[str, Wish],
    job: StudyJob,
    now: datetime,
    late_from: datetime,
) -> None:
    if not artifact_ids:
        return
    ids = sorted(artifact_ids)
    have = set(map(tuple, connection.execute(*_wanted(ids))))
    due = {"not_before": now, "first_due_at": now, "late_from": late_from, "priority": job.priority}
    states = {name: begins_as(wish, job.study_instance_uid) for name, wish in wishes.items()}
    rows = [
        due | {"artifact_id": row.id, "destination": name, "state": states[name]}
        for row in connection.execute(*_kinds(ids))
        for name in wanting(wishes, ResultKind(row.kind), ReportPer.STUDY)
        if (row.id, name) not in have
    ]
    if rows:
        insert_all(connection, deliveries, rows)


def _reopen(connection: sa.Connection, instance_ids: Sequence[int], now: datetime) -> None:
    """What was delivered, or was not, or was not to be, came with an earlier report: the last one counts."""
    connection.execute(*_reopening(instance_ids, now))


@prepared
def _reopening(instance_ids: Sequence[int], now: datetime) -> sa.Update:
    undelivered = instances.c.reason.in_((DeadReason.UNDELIVERED, DeadReason.UNREPORTED))
    dead = sa.and_(instances.c.state == InstanceState.DEAD, undelivered)
    which = sa.or_(instances.c.state.in_((*_REPORTED, InstanceState.SET_ASIDE)), dead)
    values = {"state": InstanceState.REPORTED, "reason": None, "sentence": None, "updated_at": now}
    return sa.update(instances).where(instances.c.id.in_(instance_ids), which).values(values)


@prepared
def _kinds(ids: Sequence[int]) -> sa.Select[Any]:
    return sa.select(artifacts.c.id, artifacts.c.kind).where(artifacts.c.id.in_(ids)).order_by(artifacts.c.id)


@prepared
def _wanted(ids: Sequence[int]) -> sa.Select[Any]:
    there = sa.select(deliveries.c.artifact_id, deliveries.c.destination)
    return there.where(deliveries.c.artifact_id.in_(ids))
