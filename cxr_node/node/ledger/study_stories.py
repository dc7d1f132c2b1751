"""Studies that are reported as one: how many wait, and one study's story, from its first image to its last report.

Reads only; the moves are in `studies`. Keys are UIDs, never a patient's name or number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.queries import DeliveryRow, deliveries_of
from cxr_node.node.ledger.states import InstanceState, StudyState
from cxr_node.node.ledger.studies import images_of
from cxr_node.node.ledger.tables import (
    alternatives,
    artifacts,
    instance_artifacts,
    instances,
    report_artifacts,
    studies,
    study_reports,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeOf:
    """Images of a report."""

    analysed: int
    listed: int
    """Not analysed, and named with the reason."""
    failed: int
    """Not analysed for a fault of the node's own, and named too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRow:
    """One document of a report, and where it went."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    deliveries: tuple[DeliveryRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """One report of a study."""

    number: int
    """The first of the study is 1."""
    verdict: str
    """The word for programs."""
    reported_at: datetime
    made_of: MadeOf
    replaces: tuple[int, ...]
    """Earlier ones."""
    replaced_by: int | None
    """The last one; None of the last itself."""
    documents: tuple[DocumentRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """What the ledger knows of one study."""

    study_instance_uid: str
    state: StudyState
    waits_since: datetime | None
    """Receipt of the first image that no report has; None: it does not wait."""
    ripe_at: datetime | None
    """When no image is waited for any more, as far as is known now; later where the report was tried in vain."""
    attempts: int
    """How often the report was tried in vain."""
    to_be_judged: int
    """Images that came and are not judged yet."""
    so_far: MadeOf
    """What a report would be made of now."""
    reports: tuple[ReportRow, ...]
    """The last one counts."""
    can_be_retried: bool
    """It FAILED, and `retry` takes one of its images."""
    lease_until: datetime | None
    why: str | None = None
    """What it waits for, or what is to be done; None if it was not looked up, or is reported."""

    @property
    def delivery_ids(self) -> frozenset[int]:
        """Of all documents of its reports."""
        documents = (document for report in self.reports for document in report.documents)
        return frozenset(one.id for document in documents for one in document.deliveries)


def look(ledger: Ledger, study_instance_uid: str, titles: Mapping[str, str]) -> StudyRow | None:
    """One study; None where no report of it was ever wanted. `titles` as in `queries.trace`."""
    named = sa.select(studies).where(studies.c.study_instance_uid == study_instance_uid)
    with ledger.database.reading() as connection:
        row = connection.execute(named).mappings().first()
        return None if row is None else _study(connection, row, titles)


def _study(connection: sa.Connection, row: sa.RowMapping, titles: Mapping[str, str]) -> StudyRow:
    uid, state = row["study_instance_uid"], StudyState(row["state"])
    waits = state is StudyState.WAITING
    now = images_of(connection, uid)
    failed, listed = sum(not each.judgement for each in now), sum(each.is_listed for each in now)
    return StudyRow(
        study_instance_uid=uid,
        state=state,
        waits_since=row["first_at"] if waits else None,
        ripe_at=row["not_before"] if waits else None,
        attempts=row["attempts"],
        to_be_judged=_number(connection, uid, InstanceState.RECEIVED),
        so_far=MadeOf(analysed=len(now) - listed - failed, listed=listed, failed=failed),
        reports=tuple(_reports(connection, row["id"], titles)),
        can_be_retried=state is StudyState.FAILED and _number(connection, uid, InstanceState.DEAD) > 0,
        lease_until=row["lease_until"],
    )


def _number(connection: sa.Connection, study_instance_uid: str, state: InstanceState) -> int:
    mine = sa.and_(instances.c.study_instance_uid == study_instance_uid, instances.c.state == state)
    return int(connection.scalar(sa.select(sa.func.count()).select_from(instances).where(mine)) or 0)


def _reports(connection: sa.Connection, study_id: int, titles: Mapping[str, str]) -> Iterator[ReportRow]:
    """Each once: one that was made of the same as another is the same to the byte."""
    made = sa.select(study_reports).where(study_reports.c.study_id == study_id).order_by(study_reports.c.id)
    rows = connection.execute(made).mappings().all()
    first = {row["made_of_sha256"]: row for row in reversed(rows)}
    numbers = {digest: number for number, digest in enumerate(reversed(first), 1)}
    for digest, number in numbers.items():
        row, last = first[digest], numbers[rows[-1]["made_of_sha256"]]
        mine = sa.select(report_artifacts.c.artifact_id).where(report_artifacts.c.report_id == row["id"])
        yield ReportRow(
            number=number,
            verdict=row["verdict"] or "",
            reported_at=row["reported_at"],
            made_of=_made_of(connection, mine),
            replaces=tuple(range(1, number)),
            replaced_by=None if number == last else last,
            documents=tuple(_documents(connection, mine, titles)),
        )


def _made_of(connection: sa.Connection, artifact_ids: sa.Select[tuple[int]]) -> MadeOf:
    """By the images that the report is linked to, whose rows stay when their bytes are gone."""
    linked = sa.select(instance_artifacts.c.instance_id).where(instance_artifacts.c.artifact_id.in_(artifact_ids))
    images = connection.execute(
        sa.select(instances.c.state, instances.c.profile).where(instances.c.id.in_(linked))
    ).all()
    others = [image.state for image in images if image.profile is None]
    failed = others.count(InstanceState.DEAD)
    return MadeOf(analysed=len(images) - len(others), listed=len(others) - failed, failed=failed)


def _documents(
    connection: sa.Connection, artifact_ids: sa.Select[tuple[int]], titles: Mapping[str, str]
) -> Iterator[DocumentRow]:
    """Without the alternatives: what a destination got in another SOP Class is in its row of the deliveries."""
    first_choices = artifacts.c.id.not_in(sa.select(alternatives.c.alternative_id))
    found = sa.select(artifacts).where(artifacts.c.id.in_(artifact_ids), first_choices).order_by(artifacts.c.id)
    for row in connection.execute(found).mappings().all():
        sent = deliveries_of(connection, sa.select(artifacts.c.id).where(artifacts.c.id == row["id"]), titles)
        yield DocumentRow(
            kind=row["kind"],
            sop_class_uid=row["sop_class_uid"],
            sop_instance_uid=row["sop_instance_uid"],
            deliveries=sent,
        )


def ripe_at(ledger: Ledger, study_instance_uids: Collection[str]) -> dict[str, datetime]:
    """When each of these studies that wait is ripe, as far as is known now."""
    waiting = sa.and_(studies.c.study_instance_uid.in_(study_instance_uids), studies.c.state == StudyState.WAITING)
    found = sa.select(studies.c.study_instance_uid, studies.c.not_before).where(waiting)
    with ledger.database.reading() as connection:
        return {row.study_instance_uid: row.not_before for row in connection.execute(found)}


@dataclass(frozen=True, slots=True, kw_only=True)
class OldestStudy:
    """The study that has waited for its report for longest."""

    number: int
    """Ledger number of its first image."""
    since: datetime
    """Receipt of the first image that no report has."""
    due_at: datetime
    """When its report is due at the latest (`study.max_wait_s`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCounts:
    """Studies that are reported as one."""

    waiting: int
    """For their images, or for a worker."""
    failed: int
    """No report could be made, and a person has not decided about their images yet."""
    reported_today: int
    """Reports made since midnight UTC."""
    oldest: OldestStudy | None


def counts(ledger: Ledger, max_wait_s: float) -> StudyCounts:
    """Count studies: quick, however many there are."""
    now = ledger.now()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    before = sa.select(study_reports.c.id).where(study_reports.c.reported_at < midnight)
    last = before.order_by(study_reports.c.id.desc()).limit(1).scalar_subquery()
    today = study_reports.c.id > sa.func.coalesce(last, 0)
    with ledger.database.reading() as connection:
        return StudyCounts(
            waiting=_count(connection, studies, studies.c.state == StudyState.WAITING),
            failed=_count(connection, studies, has_failed()),
            reported_today=_count(connection, study_reports, today),
            oldest=_oldest(connection, max_wait_s),
        )


def _count(connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool]) -> int:
    return int(connection.scalar(sa.select(sa.func.count()).select_from(table).where(which)) or 0)


def has_failed() -> sa.ColumnElement[bool]:
    """FAILED, and of its images one is still DEAD, or is one that was only listed: else a person has decided."""
    open_ = sa.select(sa.literal(1)).where(
        instances.c.study_instance_uid == studies.c.study_instance_uid,
        instances.c.state.in_((InstanceState.DEAD, InstanceState.REJECTED)),
        instances.c.purged_at.is_(None),
    )
    return sa.and_(studies.c.state == StudyState.FAILED, open_.correlate(studies).exists())


def _oldest(connection: sa.Connection, max_wait_s: float) -> OldestStudy | None:
    waiting = sa.select(studies.c.study_instance_uid, studies.c.first_at).where(studies.c.state == StudyState.WAITING)
    row = connection.execute(waiting.order_by(studies.c.first_at, studies.c.id).limit(1)).first()
    if row is None:
        return None
    mine = sa.select(sa.func.min(instances.c.id)).where(instances.c.study_instance_uid == row.study_instance_uid)
    due_at = row.first_at + timedelta(seconds=max_wait_s)
    return OldestStudy(number=int(connection.scalar(mine) or 0), since=row.first_at, due_at=due_at)
