"""Erasure: an instance's bytes, its results and its rows, while the node runs; told is what lies in archives.

Work in hand is waited for: what is leased is not touched, and what is not is leased here, so that nobody begins with
it meanwhile. Files go before rows: killed half-way, the next try finds the rows and ends the job, while a file
without a row would be received again. Knows no DICOM; a patient is a set of digests (`dicom.header.patient_keys`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from cxr_node.errors import ResourceError
from cxr_node.node.jobs import DeliveryState, InstanceState
from cxr_node.node.ledger import Ledger
from cxr_node.node.results import chosen
from cxr_node.node.retention import delete_rows
from cxr_node.node.schema import artifacts, deliveries, instance_artifacts, instances
from cxr_node.node.spool import Area, Spool

OWNER = "erase"
LEASE = timedelta(seconds=60)
"""An erasure that died costs what it had taken so long."""
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
    ResourceError : it is in hand for too long, or spool or ledger cannot be used. Nothing is half done but what the
        next try ends.
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
    """Try once; whether it is over, and what was erased. Not where somebody works on it; nobody else begins to then.

    All in one transaction: a receiver that takes the same image again waits for its end, and then finds no row.
    """
    with ledger.database.writing() as connection:
        found = sa.select(instances).where(instances.c.id == instance_id).with_for_update()
        row = connection.execute(found).mappings().first()
        if row is None:
            return True, None
        now = ledger.now()
        own = _own_results(connection, instance_id)
        if _take(connection, instances, instances.c.id == instance_id, now) or _take(
            connection, deliveries, deliveries.c.artifact_id.in_([each.id for each in own]), now
        ):
            return False, None
        doomed = _doomed(connection, instance_id)
        for each in own:
            spool.delete(Area.RESULTS, each.content_sha256)
        spool.delete(Area.OBJECTS, row["content_sha256"])
        delete_rows(connection, [instance_id])
    return True, doomed


def _take(connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool], now: datetime) -> bool:
    """Lease what is free; True where somebody else has a lease."""
    waiting = (InstanceState.RECEIVED,) if table is instances else (DeliveryState.READY, DeliveryState.WAIT)
    mine = sa.and_(which, table.c.state.in_(waiting))
    free = sa.or_(table.c.lease_until.is_(None), table.c.lease_until <= now, table.c.lease_owner == OWNER)
    values: dict[str, Any] = {"lease_owner": OWNER, "lease_until": now + LEASE}
    connection.execute(sa.update(table).where(mine, free).values(values | {"fence": table.c.fence + 1}))
    return connection.scalar(sa.select(table.c.id).where(mine, table.c.lease_owner != OWNER).limit(1)) is not None


def _own_results(connection: sa.Connection, instance_id: int) -> Sequence[Any]:
    """Results, in every SOP Class, that no other instance shares."""
    mine, other = instance_artifacts.alias("mine"), instance_artifacts.alias("other")
    shared = sa.select(sa.literal(1)).where(other.c.artifact_id == artifacts.c.id, other.c.instance_id != instance_id)
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
