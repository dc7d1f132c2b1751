"""Questions to the ledger: queues, counts, one instance's story, what came before, what is due.

Reads only; every move is in `ledger`. Keys are UIDs and digests, never a patient's name or number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import Precedent
from cxr_node.node.ledger import results
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.lookup import matching
from cxr_node.node.ledger.prepared import given, prepared, value
from cxr_node.node.ledger.states import (
    OPEN,
    DeliveryJob,
    DeliveryState,
    InstanceState,
    Job,
    OwnReason,
    PromiseState,
    due_at,
    is_on_hold,
    pick,
)
from cxr_node.node.ledger.tables import (
    IS_ENDED,
    artifacts,
    commitments,
    deliveries,
    events,
    instance_artifacts,
    instances,
    promises,
)

_LOOK_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """What the ledger knows of one instance."""

    id: int
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    content_sha256: str
    calling_ae_title: str
    peer_host: str
    station_name: str | None
    received_at: datetime
    updated_at: datetime
    size_bytes: int
    state: InstanceState
    reason: str | None
    sentence: str | None
    verdict: str | None
    abstain_reason: str | None
    probability: float | None
    profile: str | None
    attempts: int
    lease_owner: str | None
    not_before: datetime
    purged_at: datetime | None
    repeats: int
    """How often the same bytes came again."""
    repeated_at: datetime | None
    why: str | None = None
    """What it waits for (`waiting`); None if it does not wait or was not looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow:
    """What the ledger knows of one result on its way to one destination."""

    id: int
    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    """Of the SOP Class that was chosen for the destination, where the result has several."""
    destination: str
    sop_class_choice: int
    """Which of the result's SOP Classes was chosen; 0: its first."""
    state: DeliveryState
    attempts: int
    not_before: datetime
    last_status: int | None
    last_error: str | None
    first_due_at: datetime
    delivered_at: datetime | None
    """When the destination accepted it, with `last_status`."""
    reason: str | None
    """Why it was set aside; None where it was not."""
    commitment: PromiseState | None
    """None if the destination is not asked to commit."""
    asks: int | None
    transaction_uid: str | None
    committed_at: datetime | None
    commitment_detail: str | None
    seen_again_at: datetime | None
    """When the object last came back to us from the destination, or was seen there, which therefore holds it."""
    why: str | None = None
    """What it waits for (`waiting`); None if it does not wait or was not looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of an instance's story."""

    at: datetime
    what: str
    detail: str
    machine: str | None
    """Where; None where the ledger is one machine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One instance from the wire to the archive."""

    instance: InstanceRow
    deliveries: tuple[DeliveryRow, ...]
    events: tuple[Event, ...]
    replaces: tuple[results.Version, ...] = ()
    """Earlier versions of the instance, of which the results are others."""
    replaced_by: tuple[results.Version, ...] = ()


def precedent(ledger: Ledger, job: Job) -> Precedent:
    """What earlier instances of the same study and series say; the first one that names a patient counts.

    Rejected ones count too: whether another worker has judged an instance yet must not change the answer. From the
    row on that an operator admitted, that one says whose the study is, and of which study the series; what came
    before it is answered as it was, whenever it is judged again. Results of earlier versions of the instance are
    known: `results.IS_NEXT` waits for them.
    """
    said = _precedent(job.ref.study_instance_uid, job.ref.series_instance_uid, job.claim.row_id)
    with ledger.database.reading() as connection:
        patient_key, study_uid = connection.execute(*said).one()
        return Precedent(
            patient_key_of_study=patient_key,
            study_instance_uid_of_series=study_uid,
            earlier_results=results.earlier_results(connection, job),
        )


@prepared
def _precedent(study_instance_uid: str, series_instance_uid: str, row_id: int) -> sa.Select[str | None, str | None]:
    same_study = instances.c.study_instance_uid == study_instance_uid
    study = sa.select(instances.c.patient_key).where(same_study, instances.c.patient_key != "")
    series = sa.select(instances.c.study_instance_uid).where(instances.c.series_instance_uid == series_instance_uid)
    return sa.select(_said(study, row_id), _said(series, row_id))


def _said(of: sa.Select[Any], row_id: int) -> sa.ColumnElement[str | None]:
    """Value of the last instance up to this one that was admitted, else of the first that came before it."""
    admitted = of.where(instances.c.admitted_at.is_not(None), instances.c.id <= row_id)
    last = admitted.order_by(instances.c.id.desc()).limit(1).scalar_subquery()
    first = of.where(instances.c.id < row_id).order_by(instances.c.id).limit(1).scalar_subquery()
    return sa.func.coalesce(last, first)


def study_of(ledger: Ledger, job: DeliveryJob) -> tuple[str, str]:
    """Study and patient of a result: Study Instance UID and patient key of its first instance."""
    of_instance = instances.join(instance_artifacts, instance_artifacts.c.instance_id == instances.c.id)
    of_delivery = of_instance.join(deliveries, deliveries.c.artifact_id == instance_artifacts.c.artifact_id)
    found = sa.select(instances.c.study_instance_uid, instances.c.patient_key).select_from(of_delivery)
    with ledger.database.reading() as connection:
        first = found.where(deliveries.c.id == job.claim.row_id).order_by(instances.c.id).limit(1)
        row = connection.execute(first).one()
    return row.study_instance_uid, row.patient_key


def next_instance_s(ledger: Ledger) -> float | None:
    """Seconds until an instance may be claimed (0.0: now); None where none waits.

    One that waits for an earlier version of itself may be claimed as soon as that is settled: look again soon.
    """
    due_s = _next_s(ledger, instances, results.IS_NEXT)
    if due_s == 0.0:
        return due_s
    blocked = _next_s(ledger, instances, _IS_BLOCKED)
    return due_s if blocked is None else min(_LOOK_AGAIN_S, _LOOK_AGAIN_S if due_s is None else due_s)


def next_delivery_s(ledger: Ledger, destination: str) -> float | None:
    """Seconds until a delivery to a destination may be claimed (0.0: now); None where none waits, or it is held."""
    return _next_s(ledger, deliveries, _IS_OPEN_THERE, destination=destination)


_IS_BLOCKED = sa.and_(instances.c.state == InstanceState.RECEIVED, ~results.IS_NEXT)
_THERE = value("destination")
_IS_OPEN_THERE = sa.and_(deliveries.c.destination == _THERE, deliveries.c.state.in_(OPEN), ~is_on_hold(_THERE))


def counts(ledger: Ledger) -> dict[InstanceState, int]:
    """Instances in each state."""
    grouped = sa.select(instances.c.state, sa.func.count()).group_by(instances.c.state)
    with ledger.database.reading() as connection:
        found = {InstanceState(state): number for state, number in connection.execute(grouped)}
    return {state: found.get(state, 0) for state in InstanceState}


def queues(ledger: Ledger) -> dict[str, dict[DeliveryState, int]]:
    """Deliveries in each state, by destination; removed destinations included."""
    columns = (deliveries.c.destination, deliveries.c.state)
    grouped = sa.select(*columns, sa.func.count()).group_by(*columns).order_by(deliveries.c.destination)
    found: dict[str, dict[DeliveryState, int]] = {}
    with ledger.database.reading() as connection:
        for destination, state, number in connection.execute(grouped):
            found.setdefault(destination, dict.fromkeys(DeliveryState, 0))[DeliveryState(state)] = number
    return found


def dead(ledger: Ledger) -> dict[str, int]:
    """Instances that are DEAD, by reason."""
    which = sa.select(instances.c.reason, sa.func.count()).where(instances.c.state == InstanceState.DEAD)
    with ledger.database.reading() as connection:
        return {reason or "": number for reason, number in connection.execute(which.group_by(instances.c.reason))}


def dead_deliveries(ledger: Ledger) -> dict[str, int]:
    """Count what is DEAD at each destination and could be retried: present results whose bytes are kept."""
    return _kept(ledger, deliveries.c.state == DeliveryState.DEAD)


def late_deliveries(ledger: Ledger) -> dict[str, int]:
    """Count what was too late for each destination and is kept: present results that `retry` would send."""
    return _kept(ledger, deliveries.c.state == DeliveryState.SET_ASIDE, deliveries.c.reason == OwnReason.TOO_LATE)


def _kept(ledger: Ledger, *which: sa.ColumnElement[bool]) -> dict[str, int]:
    columns = (deliveries.c.id, deliveries.c.destination, deliveries.c.artifact_id)
    ended = sa.select(*columns).where(IS_ENDED, *which).subquery()
    counted = (
        sa.select(ended.c.destination, sa.func.count(sa.distinct(ended.c.id)))
        .join(instance_artifacts, instance_artifacts.c.artifact_id == ended.c.artifact_id)
        .join(instances, instances.c.id == instance_artifacts.c.instance_id)
        .where(instance_artifacts.c.outdated_at.is_(None), instances.c.purged_at.is_(None))
    )
    grouped = counted.group_by(ended.c.destination).order_by(ended.c.destination)
    with ledger.database.reading() as connection:
        return {row[0]: row[1] for row in connection.execute(grouped)}


def uncommitted(ledger: Ledger) -> dict[str, dict[PromiseState, int]]:
    """Results that a destination accepted and has not committed, by destination and state."""
    columns = (promises.c.destination, promises.c.state)
    accepted = sa.and_(deliveries.c.state == DeliveryState.DELIVERED, promises.c.state != PromiseState.COMMITTED)
    counted = sa.select(*columns, sa.func.count()).join_from(promises, deliveries).where(accepted).group_by(*columns)
    found: dict[str, dict[PromiseState, int]] = {}
    with ledger.database.reading() as connection:
        for destination, state, number in connection.execute(counted):
            found.setdefault(destination, {})[PromiseState(state)] = number
    return found


def recent(ledger: Ledger, number: int) -> list[InstanceRow]:
    """Return the instances that came last, newest first."""
    newest = sa.select(instances).order_by(instances.c.id.desc()).limit(number)
    with ledger.database.reading() as connection:
        return [instance_row(row) for row in connection.execute(newest).mappings()]


def trace(
    ledger: Ledger, key: str, titles: Mapping[str, str] | None = None, *, accession_keys: Collection[str] = ()
) -> list[Story]:
    """The stories behind a key, as `lookup.matching` takes it.

    `titles` are the AE titles of the destinations, by name: by them a result that came back is known as theirs.
    """
    with ledger.database.reading() as connection:
        named = sa.select(instances).where(matching(key, accession_keys)).order_by(instances.c.id)
        rows = connection.execute(named).mappings().all()
        return [_story(connection, row, titles or {}) for row in rows]


def present_results(ledger: Ledger, instance_id: int, kinds: Collection[str]) -> list[tuple[str, str]]:
    """Kind and digest of the results that an image has now, of these kinds."""
    linked = sa.and_(
        instance_artifacts.c.artifact_id == artifacts.c.id,
        instance_artifacts.c.instance_id == instance_id,
        instance_artifacts.c.outdated_at.is_(None),
    )
    found = sa.select(artifacts.c.kind, artifacts.c.content_sha256).join(instance_artifacts, linked)
    with ledger.database.reading() as connection:
        rows = connection.execute(found.where(artifacts.c.kind.in_(kinds)).order_by(artifacts.c.id)).all()
    return [(row.kind, row.content_sha256) for row in rows]


@cache
def _first_due(table: sa.Table, waiting: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(sa.func.min(due_at(table), type_=table.c.not_before.type)).where(waiting)


def _next_s(ledger: Ledger, table: sa.Table, waiting: sa.ColumnElement[bool], **values: Any) -> float | None:
    """`waiting`, and its values, as `states.claim`."""
    with ledger.database.reading() as connection:
        at = connection.scalar(_first_due(table, waiting), given(**values))
    return None if at is None else max(0.0, (at - ledger.now()).total_seconds())


def _story(connection: sa.Connection, row: sa.RowMapping, titles: Mapping[str, str]) -> Story:
    mine = sa.select(instance_artifacts.c.artifact_id).where(instance_artifacts.c.instance_id == row["id"])
    told = sa.select(events).where(events.c.instance_id == row["id"]).order_by(events.c.id)
    others = results.others(connection, row)
    return Story(
        instance=instance_row(row),
        deliveries=deliveries_of(connection, mine, titles),
        events=tuple(Event(**pick(Event, found)) for found in connection.execute(told).mappings()),
        replaces=tuple(each for each in others if each.instance_id < row["id"]),
        replaced_by=tuple(each for each in others if each.instance_id > row["id"]),
    )


def deliveries_of(
    connection: sa.Connection, artifact_ids: sa.Select[tuple[int]], titles: Mapping[str, str]
) -> tuple[DeliveryRow, ...]:
    """Where results went and are to go; `titles` as in `trace`."""
    promised = (promises.c.asks, promises.c.state.label("commitment"), promises.c.detail.label("commitment_detail"))
    committed_at = sa.case((promises.c.state == PromiseState.COMMITTED, promises.c.settled_at)).label("committed_at")
    sent = (
        sa.select(artifacts.c.kind, artifacts.c.sop_class_uid, artifacts.c.sop_instance_uid, deliveries)
        .add_columns(*promised, committed_at, commitments.c.transaction_uid)
        .join_from(deliveries, artifacts, artifacts.c.id == results.chosen())
        .outerjoin(promises, promises.c.delivery_id == deliveries.c.id)
        .outerjoin(commitments, commitments.c.id == promises.c.commitment_id)
        .where(deliveries.c.artifact_id.in_(artifact_ids))
        .order_by(deliveries.c.id)
    )
    return tuple(_delivery(connection, one, titles) for one in connection.execute(sent).mappings().all())


def is_outdated(ledger: Ledger, job: DeliveryJob) -> bool:
    """Whether no image has the result of a delivery any more: a later report took its place."""
    present = (
        sa.select(artifacts.c.id)
        .join(instance_artifacts, instance_artifacts.c.artifact_id == artifacts.c.id)
        .where(
            artifacts.c.sop_instance_uid == job.artifact.sop_instance_uid, instance_artifacts.c.outdated_at.is_(None)
        )
    )
    with ledger.database.reading() as connection:
        return connection.scalar(present.limit(1)) is None


def instance_row(row: sa.RowMapping) -> InstanceRow:
    """Convert a row of `instances`."""
    return InstanceRow(**pick(InstanceRow, dict(row) | {"state": InstanceState(row["state"]), "why": None}))


def _delivery(connection: sa.Connection, row: sa.RowMapping, titles: Mapping[str, str]) -> DeliveryRow:
    """The loop guard rejects what comes back of our results, and its row is the evidence of the archive."""
    at = sa.func.max(
        sa.func.coalesce(instances.c.repeated_at, instances.c.received_at), type_=instances.c.received_at.type
    )
    back = sa.select(at).where(
        instances.c.sop_instance_uid == row["sop_instance_uid"],
        instances.c.calling_ae_title == (titles.get(row["destination"]) or None),  # "": it has no AE title
    )
    has_title = titles.get(row["destination"]) != ""
    seen_at = connection.scalar(back) if has_title else row["committed_at"]  # without one it is looked for there
    told = dict(row) | {"state": DeliveryState(row["state"]), "seen_again_at": seen_at}
    told["why"] = None
    told["commitment"] = row["commitment"] and PromiseState(row["commitment"])
    return DeliveryRow(**pick(DeliveryRow, told))
