"""States, leases and the nouns of handing out work: what is leased, by whom, and what there is to do.

One claims a row, the others wait until it settles or its time is over. `ledger` makes these values and takes them
back, and it alone says which state follows which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from cxr_node.domain import InstanceRef, Origin, Priority, ResultRef, Verdict
from cxr_node.node.ledger.prepared import given, value
from cxr_node.node.ledger.tables import events, holds
from cxr_node.result_kinds import ReportPer, ResultKind


class InstanceState(StrEnum):
    """Where a received instance is."""

    RECEIVED = "RECEIVED"
    REPORTED = "REPORTED"
    DELIVERED = "DELIVERED"
    REJECTED = "REJECTED"
    DEAD = "DEAD"
    SET_ASIDE = "SET_ASIDE"
    """An operator ended it, for a `SetAsideReason`; or its results were too late (`OwnReason`)."""
    SHADOW = "SHADOW"
    """Judged; its results, or those for some destination, are kept and not sent (`results.release`)."""


class DeliveryState(StrEnum):
    """Where one result object is on its way to one destination."""

    READY = "READY"
    WAIT = "WAIT"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"
    SET_ASIDE = "SET_ASIDE"
    """An operator decided that it is not to be sent, for a `SetAsideReason`; or the node did, for an `OwnReason`."""
    SHADOW = "SHADOW"
    """Kept and not sent, until a person sends it or it expires: no courier claims it."""


class StudyState(StrEnum):
    """Where a study is, for destinations that want one report of it."""

    WAITING = "WAITING"
    """For its images, or for a worker that makes its report."""
    REPORTED = "REPORTED"
    FAILED = "FAILED"
    """Every attempt failed; its images are DEAD."""


class OrderState(StrEnum):
    """Where the order of a study's earlier radiographs is."""

    DUE = "DUE"
    SETTLED = "SETTLED"
    """They were fetched, or are not to be had."""


class PromiseState(StrEnum):
    """Where the commitment of a destination to one accepted result object is (PS3.4 Annex J)."""

    DUE = "DUE"
    """To be asked for."""
    ASKED = "ASKED"
    COMMITTED = "COMMITTED"
    UNCOMMITTED = "UNCOMMITTED"
    """Refused, or never answered: accepted, not committed."""


class DeadReason(StrEnum):
    """Why an instance is DEAD: stable words for ledger, logs, status and tests."""

    FAULT = "fault"
    """Every attempt failed; the sentence is the last error."""
    SPOOL_CORRUPT = "spool-corrupt"
    """Its bytes are not those that were acknowledged."""
    UNDELIVERED = "undelivered"
    """A destination did not take a result."""
    UNREPORTED = "unreported"
    """It was judged, and every attempt to report its study failed; the sentence is the last error."""


class SetAsideReason(StrEnum):
    """Why an operator ended an image or a delivery: a closed list, for free text would name patients."""

    DUPLICATE = "duplicate"
    WRONG_PATIENT = "wrong-patient"
    SENT_OTHERWISE = "sent-otherwise"
    NOT_NEEDED = "not-needed"
    TEST_IMAGE = "test-image"


class OwnReason(StrEnum):
    """Why the node itself set a delivery aside: no operator can choose it, and `retry` undoes it as any other."""

    TOO_LATE = "too-late"
    """Not sent within `delivery.not_after_min` of the receipt of its image."""
    REPLACED = "replaced"
    """What was not sent before a later report of its study was made: it must not be the last word."""
    SHADOW_EXPIRED = "shadow-expired"
    """In shadow for longer than `results.shadow_keep_days`, or until a person said that it is not to be sent."""


def aside_words(reason: str | None, sentence: str | None) -> str:
    """Say that something was set aside, and why."""
    if reason == OwnReason.TOO_LATE:
        return f"too late: {sentence}"
    if reason == OwnReason.REPLACED:
        return f"replaced: {sentence}"
    if reason == OwnReason.SHADOW_EXPIRED:
        return f"shadow, expired: {sentence}"
    return f"set aside: {reason}, {sentence}"


INSTANCE_MOVES: Mapping[InstanceState, frozenset[InstanceState]] = {
    InstanceState.RECEIVED: frozenset(
        {InstanceState.REPORTED, InstanceState.REJECTED, InstanceState.DEAD, InstanceState.SET_ASIDE}
    ),
    InstanceState.REPORTED: frozenset(
        {
            InstanceState.DELIVERED,
            InstanceState.DEAD,
            InstanceState.SET_ASIDE,
            InstanceState.RECEIVED,
            InstanceState.SHADOW,
        }
    ),
    InstanceState.DELIVERED: frozenset({InstanceState.REPORTED, InstanceState.RECEIVED}),
    InstanceState.REJECTED: frozenset({InstanceState.RECEIVED, InstanceState.SET_ASIDE}),
    InstanceState.DEAD: frozenset({InstanceState.RECEIVED, InstanceState.REPORTED, InstanceState.SET_ASIDE}),
    InstanceState.SET_ASIDE: frozenset({InstanceState.RECEIVED, InstanceState.REPORTED}),
    InstanceState.SHADOW: frozenset({InstanceState.RECEIVED, InstanceState.REPORTED, InstanceState.SET_ASIDE}),
}
DELIVERY_MOVES: Mapping[DeliveryState, frozenset[DeliveryState]] = {
    DeliveryState.READY: frozenset(set(DeliveryState) - {DeliveryState.READY}),
    DeliveryState.WAIT: frozenset(set(DeliveryState) - {DeliveryState.READY}),
    DeliveryState.DELIVERED: frozenset({DeliveryState.READY}),
    DeliveryState.DEAD: frozenset({DeliveryState.READY, DeliveryState.SET_ASIDE}),
    DeliveryState.SET_ASIDE: frozenset({DeliveryState.READY}),
    DeliveryState.SHADOW: frozenset({DeliveryState.READY, DeliveryState.SET_ASIDE}),
}
"""Back to RECEIVED: `operator_moves`, and a rejected image that comes again (`receipts`).
Back to REPORTED and READY: `operator_moves`, and `commitments`, where an archive lost what it took.
SET_ASIDE: `set_aside`, and a delivery that is too late (`Ledger.settle_unsent`).
Out of SHADOW: `shadow`, and nothing else that sends."""
OPEN = (DeliveryState.READY, DeliveryState.WAIT)
UNSENT = (*OPEN, DeliveryState.SHADOW)
"""What may still be sent: by itself, or when a person says so."""
SETTLED = (InstanceState.DELIVERED, InstanceState.REJECTED, InstanceState.DEAD, InstanceState.SET_ASIDE)


def is_unjudged(row: Mapping[Any, Any]) -> bool:
    """Tell of a row of `instances` whether it waits to be judged, or came to its end before: no result is concerned."""
    match row["state"]:
        case InstanceState.RECEIVED:
            return True
        case InstanceState.DEAD:
            return row["reason"] not in (DeadReason.UNDELIVERED, DeadReason.UNREPORTED)
        case InstanceState.SET_ASIDE:
            return row["verdict"] is None or row["verdict"] == Verdict.REJECTED
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A lease on one row; settles only if the row was not claimed again."""

    row_id: int
    owner: str
    fence: int
    """Number of the claim on its row, never reset: a settle with an older one changes nothing."""
    attempts: int
    """How often this was tried, this time included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One received instance to be judged."""

    claim: Claim
    ref: InstanceRef
    origin: Origin
    content_sha256: str
    priority: Priority
    alone: bool
    """It was in the hands of a worker that died: nothing else may run at the same time."""
    rejected_under: str | None = None
    """It came again after it was rejected under these rules and weights: while they hold, so does the refusal."""

    @property
    def instance_id(self) -> int:
        """Ledger number of the instance."""
        return self.claim.row_id

    @property
    def is_first(self) -> bool:
        """It was never claimed before, so nothing was ever said of it."""
        return self.claim.fence == 1

    @property
    def attempts(self) -> int:
        """How often this was tried, this time included."""
        return self.claim.attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One image of a study, as its report has it."""

    instance_id: int
    ref: InstanceRef
    origin: Origin
    content_sha256: str
    judgement: str
    """What was said of it; "" where the node could not judge it, for a fault of its own."""
    is_listed: bool
    """It was not analysed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """One earlier radiograph that was fetched for the report of a study."""

    prior_id: int
    content_sha256: str
    fetched_at: datetime
    judgement: str | None
    """What was said of it; None: it was not judged yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeReport:
    """One report of a study that was made before."""

    made_of_sha256: str
    documents: tuple[ResultRef, ...]
    images: tuple[str, ...]
    """Digests of the objects that it is about."""

    @property
    def uids(self) -> frozenset[str]:
        """What it is known by: the SOP Instance UIDs of its documents."""
        return frozenset(each.sop_instance_uid for each in self.documents)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyJob:
    """One ripe study to be reported."""

    claim: Claim
    study_instance_uid: str
    version: int
    priority: Priority
    members: tuple[Member, ...]
    """Of each SOP Instance the version that counts, the first received first."""
    made_of_sha256: str
    """Digest of all of it: what equals it was reported already."""
    reports: tuple[MadeReport, ...]
    """Those that this ledger knows, the first one first, but for those about images whose bytes are gone."""
    priors: tuple[Prior, ...] | None = None
    """Earlier radiographs, the newest first, but those that no report is to mention; None: none were ordered."""

    @property
    def is_first(self) -> bool:
        """It was never claimed before, so it has no report."""
        return self.claim.fence == 1

    @property
    def instance_id(self) -> int:
        """Ledger number of its first image, which names it in logs; 0 where it has none any more."""
        return self.members[0].instance_id if self.members else 0

    @property
    def alone(self) -> bool:
        """It was tried before, and the worker may have died of it: nothing else may run at the same time."""
        return self.attempts > 1

    @property
    def attempts(self) -> int:
        """How often this was tried, this time included."""
        return self.claim.attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArtifact:
    """A result object whose bytes are safe in the spool."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    content_sha256: str
    size_bytes: int
    series_instance_uid: str | None = None
    """None for results of versions that did not keep it."""
    per: ReportPer = ReportPer.IMAGE
    """For destinations that want a report of each image, or of each study."""
    alternatives: tuple[StoredArtifact, ...] = ()
    """The same result in other SOP Classes: where a destination does not take this one's, the first that it takes."""

    @property
    def sop_class_choices(self) -> tuple[StoredArtifact, ...]:
        """This one and its alternatives, the first choice first."""
        return (self, *self.alternatives)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryJob:
    """One result object to be sent to one destination."""

    claim: Claim
    destination: str
    artifact: StoredArtifact
    sop_class_choice: int
    """which of the artifact's SOP Classes was chosen for the destination; 0, its first choice, while none was."""
    first_due_at: datetime
    late_from: datetime | None
    """From when on it counts how late it is (`lateness`); None: it is never too late."""
    instance_id: int
    """Ledger number of the instance whose result this is; the first of several that share it."""
    is_released: bool = False
    """A person let it out of the shadow: it is sent whatever `results.release` says."""

    @property
    def attempts(self) -> int:
        """How often this was tried, this time included."""
        return self.claim.attempts


FREE: dict[str, Any] = {"lease_owner": None, "lease_until": None}
"""A row without a lease."""


def claim(
    connection: sa.Connection,
    table: sa.Table,
    waiting: sa.ColumnElement[bool],
    owner: str,
    lease_s: float,
    now: datetime,
    **values: Any,
) -> tuple[sa.RowMapping, Claim] | None:
    """Lease the first of the waiting rows that is due and free: the most urgent, of those the oldest.

    Of instances, what took a worker with it or failed before comes after its equals. The attempt is counted now: a
    job that kills its worker is counted too. SQLite holds the write lock here; PostgreSQL skips rows that another
    claim has locked. `waiting` : one condition for each caller, made once; `values` : of its stand-ins.
    """
    times = {"now": now, "until": now + timedelta(seconds=lease_s), "freed": now + timedelta(seconds=2 * lease_s)}
    times["far"] = now + timedelta(seconds=table.info["max_delay_s"])
    row = connection.execute(_taking(table, waiting), given(owner=owner, **times, **values)).mappings().first()
    if row is None:
        return None
    return row, Claim(row_id=row["id"], owner=owner, fence=row["fence"], attempts=row["attempts"])


@cache
def _taking(table: sa.Table, waiting: sa.ColumnElement[bool]) -> sa.UpdateBase:
    now = value("now")
    free = sa.or_(table.c.lease_until.is_(None), passed(table.c.lease_until, now, value("freed")))
    due = passed(table.c.not_before, now, value("far"))
    found = sa.select(table.c.id).where(waiting, due, free).order_by(*(table.c[name] for name in table.info["order"]))
    first = found.limit(1).with_for_update(skip_locked=True).cte("first_due")  # locks, so it is evaluated once
    taken = {"lease_owner": value("owner"), "lease_until": value("until")}
    taken |= {"fence": table.c.fence + 1, "attempts": table.c.attempts + 1}
    mine = table.c.id == sa.select(first.c.id).scalar_subquery()
    return sa.update(table).where(mine).values(taken).returning(*table.c)


def passed(at: sa.Column[Any], now: datetime, far: datetime) -> sa.ColumnElement[bool]:
    """True for a time that has come, and for one beyond any that is ever set: the clock was put back since."""
    return sa.or_(at <= now, at > far)


def held(table: sa.Table, lease: Claim) -> sa.ColumnElement[bool]:
    """True for the leased row, until it is claimed again or settled."""
    return sa.and_(table.c.id == lease.row_id, table.c.lease_owner == lease.owner, table.c.fence == lease.fence)


def extend(connection: sa.Connection, table: sa.Table, lease: Claim, until: datetime) -> bool:
    """Keep a lease for longer; False where it is lost."""
    return connection.execute(sa.update(table).where(held(table, lease)).values(lease_until=until)).rowcount == 1


def is_on_hold(destination: str) -> sa.ColumnElement[bool]:
    """An operator holds the destination: a condition of every claim, within its transaction."""
    return sa.select(holds.c.destination).where(holds.c.destination == destination).exists()


def due_at(table: sa.Table) -> sa.ColumnElement[Any]:
    """When a row may be claimed: after its delay, and after the lease that is on it."""
    lease_until = sa.func.coalesce(table.c.lease_until, table.c.not_before)
    return sa.case((lease_until > table.c.not_before, lease_until), else_=table.c.not_before)


def insert_all(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows by one statement: without RETURNING there would be one for each."""
    connection.execute(_insert(table), rows)


@cache
def _insert(table: sa.Table) -> sa.UpdateBase:
    return sa.insert(table).returning(*table.primary_key.columns)


_NOTE = sa.insert(events)


def note(connection: sa.Connection, instance_ids: Sequence[int], now: datetime, what: str, detail: str) -> None:
    """Remember a transition."""
    if instance_ids:
        rows = [{"instance_id": row_id, "at": now, "what": what, "detail": detail} for row_id in instance_ids]
        connection.execute(_NOTE, rows)


def pick(noun: type[Any], row: Mapping[Any, Any]) -> dict[str, Any]:
    """Take from a row what a noun's fields are named after."""
    return {field.name: row[field.name] for field in fields(noun)}


_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def insert(engine: str, table: sa.Table) -> Any:
    """INSERT of an engine that knows ON CONFLICT, for which SQL has no common word."""
    return _INSERTS[engine](table)


def insert_once(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    """Insert a row; False where there is one of that key, which stays as it is."""
    return connection.execute(_insert_once(connection.dialect.name, table), row).first() is not None


@cache
def _insert_once(engine: str, table: sa.Table) -> Any:
    return insert(engine, table).on_conflict_do_nothing().returning(sa.literal(1))  # rowcount: not on PostgreSQL
