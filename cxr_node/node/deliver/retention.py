"""Retention: after a time a settled instance's bytes go, and after a longer one, where that is configured, its rows.

A result that a younger instance shares stays until that one's time has come. Killed half-way, the next sweep
takes the same files again. SQLite uses the pages of deleted rows for new ones: the ledger stops growing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import Reason
from cxr_node.errors import ResourceError
from cxr_node.node.ledger import duties, expiry, prior_orders, work_items
from cxr_node.node.ledger.candidate_tables import candidate_answers
from cxr_node.node.ledger.duties import Held
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.measurement_tables import measurements
from cxr_node.node.ledger.reading_tables import readings
from cxr_node.node.ledger.results import chosen
from cxr_node.node.ledger.states import FREE, SETTLED, DeliveryState, InstanceState, StudyState
from cxr_node.node.ledger.tables import (
    alternatives,
    artifacts,
    commitments,
    deliveries,
    events,
    instance_artifacts,
    instances,
    judgements,
    promises,
    report_artifacts,
    studies,
    study_reports,
)
from cxr_node.node.spool.spool import Area, Spool

LEASE = timedelta(seconds=60)
"""Lease of an erasure: how long one that died blocks its rows."""
_LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """One result object that a destination has, or may have."""

    destination: str
    kind: str
    study_instance_uid: str
    sop_instance_uid: str
    is_sure: bool
    """False where it was tried and never acknowledged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """One instance that is to be erased."""

    instance_id: int
    study_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    patient_key: str
    results: int
    left: tuple[Left, ...]


def of_patient(ledger: Ledger, keys_of: Callable[[str], frozenset[str]]) -> list[int]:
    """Rows of a patient's instances; `keys_of` makes the digests of the Patient ID in a study."""
    with ledger.database.reading() as connection:
        known = sa.select(instances.c.id, instances.c.study_instance_uid, instances.c.patient_key)
        rows = connection.execute(known.where(instances.c.patient_key != "").order_by(instances.c.id)).all()
    keys = {study: keys_of(study) for study in {row.study_instance_uid for row in rows}}
    return [row.id for row in rows if row.patient_key in keys[row.study_instance_uid]]


def look(ledger: Ledger, instance_ids: Sequence[int]) -> list[Doomed]:
    """Say what would be erased, and what would be left in archives."""
    with ledger.database.reading() as connection:
        return [doomed for each in instance_ids if (doomed := _doomed(connection, each)) is not None]


def related(ledger: Ledger, instance_ids: Sequence[int]) -> list[int]:
    """Rows of other versions of these instances, which are not among them: the same radiograph under another header."""
    wanted, found = set(instance_ids), set()
    with ledger.database.reading() as connection:
        for instance_id in instance_ids:
            uid = sa.select(instances.c.sop_instance_uid).where(instances.c.id == instance_id).scalar_subquery()
            found |= set(connection.scalars(sa.select(instances.c.id).where(instances.c.sop_instance_uid == uid)))
    return sorted(found - wanted)


def erase(ledger: Ledger, spool: Spool, instance_id: int, patience_s: float) -> Doomed | None:
    """Delete files and rows of one instance; results that another instance shares stay with that one.

    Returns what it was at that moment, with all that was sent until then; None where it was gone already.

    Raises
    ------
    ResourceError : it is in hand for too long, or spool or ledger cannot be used. What is half
        done, the next try finishes.
    """
    until = time.monotonic() + patience_s
    while True:
        is_over, doomed = _erase(ledger, spool, instance_id)
        if is_over:
            return doomed
        if time.monotonic() >= until:
            raise ResourceError(f"image {instance_id} is being judged or sent right now; erase it again in a minute")
        time.sleep(_LOOK_EVERY_S)


def _erase(ledger: Ledger, spool: Spool, instance_id: int) -> tuple[bool, Doomed | None]:
    """Try once; whether it is over, and what was erased. Not while a process holds a lease; none gets a new one.

    All in one transaction: a receiver that takes the same image again waits for its end, and then finds no row.
    """
    with ledger.database.writing() as connection:
        found = sa.select(instances).where(instances.c.id == instance_id).with_for_update()
        row = connection.execute(found).mappings().first()
        if row is None:
            return True, None
        now, owner = ledger.now(), f"{ledger.database.machine}/erase"
        own = _own_results(connection, instance_id)
        study = studies.c.study_instance_uid == row["study_instance_uid"]
        if (
            _take(connection, instances, instances.c.id == instance_id, owner, now)
            or _take(connection, deliveries, deliveries.c.artifact_id.in_([each.id for each in own]), owner, now)
            or _take(connection, studies, study, owner, now)
        ):
            return False, None
        doomed = _doomed(connection, instance_id)
        for each in _own_results(connection, instance_id, instances.c.purged_at.is_(None)):
            spool.delete(Area.RESULTS, each.content_sha256)
        spool.delete(Area.OBJECTS, row["content_sha256"])
        delete_rows(connection, [instance_id])
        work_items.erase(connection, row["sop_instance_uid"])
        for digest in prior_orders.forget(connection, [row["study_instance_uid"]]):
            spool.delete(Area.PRIORS, digest)
        mine = sa.and_(study, studies.c.lease_owner == owner)
        connection.execute(sa.update(studies).where(mine).values(FREE))
    return True, doomed


_WAITING = {
    instances.name: (InstanceState.RECEIVED,),
    deliveries.name: (DeliveryState.READY, DeliveryState.WAIT),
    studies.name: (StudyState.WAITING,),
}


def _take(connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool], owner: str, now: datetime) -> bool:
    """Lease what is free; True if another process has a lease."""
    mine = sa.and_(which, table.c.state.in_(_WAITING[table.name]))
    free = sa.or_(table.c.lease_until.is_(None), table.c.lease_until <= now, table.c.lease_owner == owner)
    values: dict[str, Any] = {"lease_owner": owner, "lease_until": now + LEASE}
    connection.execute(sa.update(table).where(mine, free).values(values | {"fence": table.c.fence + 1}))
    return connection.scalar(sa.select(table.c.id).where(mine, table.c.lease_owner != owner).limit(1)) is not None


def _own_results(connection: sa.Connection, instance_id: int, *which: sa.ColumnElement[bool]) -> Sequence[Any]:
    """Results, in every SOP Class, that no other instance shares; `which` leaves some others out."""
    mine, other = instance_artifacts.alias("mine"), instance_artifacts.alias("other")
    shared = (
        sa.select(sa.literal(1))
        .select_from(other.join(instances, instances.c.id == other.c.instance_id))
        .where(other.c.artifact_id == artifacts.c.id, other.c.instance_id != instance_id, *which)
    )
    found = (
        sa.select(artifacts.c.id, artifacts.c.content_sha256)
        .join(mine, mine.c.artifact_id == artifacts.c.id)
        .where(mine.c.instance_id == instance_id, ~shared.correlate(artifacts).exists())
    )
    return connection.execute(found.order_by(artifacts.c.id)).all()


def _doomed(connection: sa.Connection, instance_id: int) -> Doomed | None:
    row = connection.execute(sa.select(instances).where(instances.c.id == instance_id)).mappings().first()
    if row is None:
        return None
    return Doomed(
        instance_id=instance_id,
        study_instance_uid=row["study_instance_uid"],
        sop_instance_uid=row["sop_instance_uid"],
        sop_class_uid=row["sop_class_uid"],
        patient_key=row["patient_key"],
        results=len(_own_results(connection, instance_id)),
        left=tuple(_left(connection, row)),
    )


def _left(connection: sa.Connection, row: sa.RowMapping) -> list[Left]:
    sent = (
        sa.select(artifacts.c.kind, artifacts.c.sop_instance_uid, deliveries)
        .join_from(deliveries, instance_artifacts, instance_artifacts.c.artifact_id == deliveries.c.artifact_id)
        .join(artifacts, artifacts.c.id == chosen())
        .where(instance_artifacts.c.instance_id == row["id"])
        .where(sa.or_(deliveries.c.delivered_at.is_not(None), deliveries.c.attempts > 0))
        .order_by(deliveries.c.destination, deliveries.c.id)
    )
    return [
        Left(
            destination=one["destination"],
            kind=one["kind"],
            study_instance_uid=row["study_instance_uid"],
            sop_instance_uid=one["sop_instance_uid"],
            is_sure=one["delivered_at"] is not None,
        )
        for one in connection.execute(sent).mappings()
    ]


_REFUSED = sa.and_(
    instances.c.state == InstanceState.REJECTED,
    instances.c.reason != Reason.IDENTITY_CONFLICT,
    ~expiry.has_report(),
)
_BATCH = 100
_AT_ONCE = 10  # short transactions: the receiver waits for none of them, though a share or a bucket takes its time
_SECONDS_PER_DAY = 86400.0
_LONGEST_PAUSE_S = 3600.0
_SHARE = 0.1


def pause_s(retention_days: float) -> float:
    """Time between two sweeps: nothing stays much longer than it should."""
    return min(_LONGEST_PAUSE_S, max(1.0, _SHARE * retention_days * _SECONDS_PER_DAY))


def sweep(
    ledger: Ledger, spool: Spool, retention_days: float, rejected_days: float | None = None, held: Held | None = None
) -> int:
    """Delete what is older, and what was rejected after days of its own; how many instances lost their bytes.

    Not for whose it is: such an image waits for an operator to say so. Nor what the report of a study lists: it stays
    as long as the report, so that a rebuilt ledger makes the same.

    Raises
    ------
    LostDutyError : another machine sweeps now; `held` is our lease of that duty.
    """
    swept = _sweep(ledger, spool, held, retention_days)
    if rejected_days is not None and rejected_days < retention_days:
        swept += _sweep(ledger, spool, held, rejected_days, _REFUSED)
    return swept


def _sweep(ledger: Ledger, spool: Spool, held: Held | None, days: float, *which: sa.ColumnElement[bool]) -> int:
    before = ledger.now() - timedelta(days=days)
    swept = 0
    while found := expiry.expired(ledger, before, _BATCH, *which):
        ids = [each.instance_id for each in found]
        for start in range(0, len(ids), _AT_ONCE):
            swept += _purge(ledger, spool, held, before, ids[start : start + _AT_ONCE], *which)
    return swept


def _purge(
    ledger: Ledger,
    spool: Spool,
    held: Held | None,
    before: datetime,
    instance_ids: Sequence[int],
    *which: sa.ColumnElement[bool],
) -> int:
    """Files before the end of the transaction: where a process dies in it, the next sweep finds the rows again.

    A sender that sends one of them again waits for that end, and then finds that its bytes had gone.
    """
    with ledger.database.writing() as connection:
        duties.require(connection, held, ledger.now())
        found = expiry.lock(connection, before, instance_ids, *which)
        for instance in found:
            spool.delete(Area.OBJECTS, instance.content_sha256)
            for digest in instance.artifact_sha256s:
                spool.delete(Area.RESULTS, digest)
        expiry.mark_purged(connection, [instance.instance_id for instance in found], ledger.now())
    return len(found)


def forget(ledger: Ledger, history_days: float, held: Held | None = None) -> int:
    """Delete the rows of instances that were settled so long ago and no longer have bytes; how many they were.

    Such an instance, sent once more, is a new one: judged again, under the same UIDs, with a new time of receipt.
    """
    before = ledger.now() - timedelta(days=history_days)
    old = sa.and_(instances.c.state.in_(SETTLED), instances.c.updated_at < before, instances.c.purged_at.is_not(None))
    batch = sa.select(instances.c.id).where(old).order_by(instances.c.id).limit(_BATCH).with_for_update()
    forgotten = 0
    while True:
        with ledger.database.writing() as connection:
            duties.require(connection, held, ledger.now())
            if not (row_ids := list(connection.scalars(batch))):
                return forgotten
            delete_rows(connection, row_ids)
        forgotten += len(row_ids)


def delete_rows(connection: sa.Connection, instance_ids: Sequence[int]) -> None:
    """Take instances away, the results that no other instance has, and the studies of which none is left."""
    named = sa.select(instances.c.study_instance_uid).where(instances.c.id.in_(instance_ids)).distinct()
    of_studies = list(connection.scalars(named))
    connection.execute(sa.delete(judgements).where(judgements.c.instance_id.in_(instance_ids)))
    connection.execute(sa.delete(measurements).where(measurements.c.instance_id.in_(instance_ids)))
    of_these = instance_artifacts.c.instance_id.in_(instance_ids)
    results = list(connection.scalars(sa.select(instance_artifacts.c.artifact_id).where(of_these).distinct()))
    connection.execute(sa.delete(events).where(events.c.instance_id.in_(instance_ids)))
    connection.execute(sa.delete(candidate_answers).where(candidate_answers.c.instance_id.in_(instance_ids)))
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
    connection.execute(sa.delete(report_artifacts).where(report_artifacts.c.artifact_id.in_(own)))
    connection.execute(sa.delete(artifacts).where(artifacts.c.id.in_(own)))
    _delete_studies(connection, of_studies)


def _delete_studies(connection: sa.Connection, study_instance_uids: Sequence[str]) -> None:
    """Delete reports of which nothing is left, and studies of which no image is."""
    of_these = sa.select(studies.c.id).where(studies.c.study_instance_uid.in_(study_instance_uids))
    left = sa.select(report_artifacts.c.report_id).where(report_artifacts.c.report_id == study_reports.c.id)
    empty = sa.and_(study_reports.c.study_id.in_(of_these), ~left.correlate(study_reports).exists())
    connection.execute(sa.delete(study_reports).where(empty))
    images = sa.select(instances.c.id).where(instances.c.study_instance_uid == studies.c.study_instance_uid)
    gone = sa.and_(studies.c.study_instance_uid.in_(study_instance_uids), ~images.correlate(studies).exists())
    connection.execute(sa.delete(studies).where(gone))
    of_image = sa.select(instances.c.id).where(instances.c.study_instance_uid == readings.c.study_instance_uid)
    said = readings.c.study_instance_uid.in_(study_instance_uids)
    connection.execute(sa.delete(readings).where(said, ~of_image.correlate(readings).exists()))
