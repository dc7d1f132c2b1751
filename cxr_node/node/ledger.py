"""The truth about every instance and every delivery, and all moves between their states.

Everything that affects a state lives here; `history` only reads. Knows no DICOM, no file and no socket.
A row is the state, a settled claim is the transition, the events table is the memory. Times come from the
clock of the machine that claims; with several machines that must be the database's clock (FAULTS T24).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import Finding, InstanceRef, Origin, Precedent, Rejected, ResultKind, Verdict
from cxr_node.node.database import Database
from cxr_node.node.schema import artifacts, deliveries, events, instance_artifacts, instances

FILE_NAME = "ledger.sqlite3"


class InstanceState(StrEnum):
    """Where a received instance is."""

    RECEIVED = "RECEIVED"
    REPORTED = "REPORTED"
    DELIVERED = "DELIVERED"
    REJECTED = "REJECTED"
    DEAD = "DEAD"


class DeliveryState(StrEnum):
    """Where one result object is on its way to one destination."""

    READY = "READY"
    WAIT = "WAIT"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"


class Death(StrEnum):
    """Why an instance is DEAD: stable words for ledger, logs, status and tests."""

    FAULT = "fault"
    """Every attempt failed; the event holds what was seen last."""
    SPOOL_CORRUPT = "spool-corrupt"
    """Its bytes are not those that were acknowledged."""
    UNDELIVERED = "undelivered"
    """A destination did not take a result."""


State = InstanceState | DeliveryState

MOVES: Mapping[State, frozenset[State]] = {
    InstanceState.RECEIVED: frozenset({InstanceState.REPORTED, InstanceState.REJECTED, InstanceState.DEAD}),
    InstanceState.REPORTED: frozenset({InstanceState.DELIVERED, InstanceState.DEAD}),
    InstanceState.DELIVERED: frozenset(),
    InstanceState.REJECTED: frozenset(),
    InstanceState.DEAD: frozenset({InstanceState.RECEIVED, InstanceState.REPORTED}),
    DeliveryState.READY: frozenset({DeliveryState.WAIT, DeliveryState.DELIVERED, DeliveryState.DEAD}),
    DeliveryState.WAIT: frozenset({DeliveryState.WAIT, DeliveryState.DELIVERED, DeliveryState.DEAD}),
    DeliveryState.DELIVERED: frozenset(),
    DeliveryState.DEAD: frozenset({DeliveryState.READY}),
}
"""All allowed moves. DEAD is left only by an operator's retry."""
OPEN = (DeliveryState.READY, DeliveryState.WAIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A lease on one row; settles only while nobody else has claimed the row since."""

    row_id: int
    owner: str
    fence: int
    attempts: int
    """How often this was tried, this time included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One received instance to be judged."""

    claim: Claim
    ref: InstanceRef
    origin: Origin
    content_sha256: str

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryJob:
    """One result object to be sent to one destination."""

    claim: Claim
    destination: str
    artifact: StoredArtifact
    first_due_at: datetime

    @property
    def attempts(self) -> int:
        """How often this was tried, this time included."""
        return self.claim.attempts


def utc_now() -> datetime:
    """Read the wall clock."""
    return datetime.now(UTC)


class Ledger:
    """The moves. Every method is one transaction; a method that returns has made its effect durable.

    Raises
    ------
    ResourceError : from every method, where the database does not answer or cannot write.
    """

    def __init__(self, database: Database, now: Callable[[], datetime] = utc_now) -> None:
        self.database = database
        self._now = now

    @classmethod
    def open(cls, spool_path: Path, url: str | None = None, now: Callable[[], datetime] = utc_now) -> Ledger:
        """Open the spool's own SQLite ledger, or the one at `url`, with its tables brought up to date."""
        run = spool_path / "run"
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        if url is None:
            file = spool_path / FILE_NAME
            file.touch(mode=0o600)
            url = f"sqlite:///{file}"
        return cls(Database.open(url, run / "migrate.lock"), now)

    def close(self) -> None:
        """Give the connections back."""
        self.database.close()

    def add(self, ref: InstanceRef, origin: Origin, *, content_sha256: str, size_bytes: int) -> bool:
        """Take a received object in; False where exactly this object is known already."""
        now = self._now()
        values = {field: getattr(ref, field) for field in ref.__dataclass_fields__}
        values |= {field: getattr(origin, field) for field in origin.__dataclass_fields__}
        values |= {"content_sha256": content_sha256, "size_bytes": size_bytes}
        values |= {"state": InstanceState.RECEIVED, "not_before": now, "updated_at": now}
        same = (instances.c.sop_instance_uid == ref.sop_instance_uid, instances.c.content_sha256 == content_sha256)
        with self.database.writing() as connection:
            try:
                with connection.begin_nested():
                    row_id = connection.execute(sa.insert(instances).values(values)).inserted_primary_key[0]
            except sa.exc.IntegrityError:
                # Its bytes are in the spool again: let retention find them, from today on.
                again = sa.update(instances).where(*same, instances.c.purged_at.is_not(None))
                connection.execute(again.values(purged_at=None, updated_at=now))
                return False
            _note(connection, [row_id], now, "received", f"from {origin.calling_ae_title} at {origin.peer_host}")
        return True

    def claim_instance(self, owner: str, lease_s: float) -> Job | None:
        """Lease the oldest instance that waits to be judged."""
        waiting = sa.select(instances).where(instances.c.state == InstanceState.RECEIVED).order_by(instances.c.id)
        with self.database.writing() as connection:
            row = self._claim(connection, instances, waiting, owner, lease_s)
        if row is None:
            return None
        return Job(
            claim=_claim_of(row, owner),
            ref=InstanceRef(**{field: row[field] for field in InstanceRef.__dataclass_fields__}),
            origin=Origin(**{field: row[field] for field in Origin.__dataclass_fields__}),
            content_sha256=row["content_sha256"],
        )

    def precedent(self, job: Job) -> Precedent:
        """What earlier instances of the same study and series say; the first one that names a patient counts.

        An instance that was rejected counts too: whether it was judged yet must not change the answer.
        """
        earlier = instances.c.id < job.claim.row_id
        study = sa.select(instances.c.patient_key).where(
            earlier, instances.c.study_instance_uid == job.ref.study_instance_uid, instances.c.patient_key != ""
        )
        series = sa.select(instances.c.study_instance_uid).where(
            earlier, instances.c.series_instance_uid == job.ref.series_instance_uid
        )
        with self.database.reading() as connection:
            return Precedent(
                patient_key_of_study=connection.execute(study.order_by(instances.c.id).limit(1)).scalar(),
                study_instance_uid_of_series=connection.execute(series.order_by(instances.c.id).limit(1)).scalar(),
            )

    def extend(self, job: Job | DeliveryJob, lease_s: float) -> bool:
        """Work takes longer; False where the lease is lost."""
        table = instances if isinstance(job, Job) else deliveries
        until = self._now() + timedelta(seconds=lease_s)
        with self.database.writing() as connection:
            held = sa.update(table).where(*_held(table, job.claim)).values(lease_until=until)
            return connection.execute(held).rowcount == 1

    def release(self, job: Job, *, delay_s: float, detail: str, forgive: bool = False) -> bool:
        """Give an instance back for later; `forgive` where it was not to blame: the attempt does not count."""
        now = self._now()
        values = {"lease_owner": None, "lease_until": None, "not_before": now + timedelta(seconds=delay_s)}
        with self.database.writing() as connection:
            held = sa.update(instances).where(*_held(instances, job.claim))
            given = sa.case((instances.c.attempts > 0, instances.c.attempts - int(forgive)), else_=0)
            if connection.execute(held.values(**values, attempts=given)).rowcount != 1:
                return False
            _note(connection, [job.claim.row_id], now, "released", detail)
        return True

    def settle_rejected(self, job: Job, rejected: Rejected) -> bool:
        """RECEIVED -> REJECTED; False where the lease was lost: then nothing has changed."""
        values = {"reason": rejected.reason, "sentence": rejected.sentence, "verdict": Verdict.REJECTED}
        return self._settle_instance(job, InstanceState.REJECTED, values, f"{rejected.reason}: {rejected.sentence}")

    def settle_dead(self, job: Job, death: Death, detail: str) -> bool:
        """RECEIVED -> DEAD; False where the lease was lost: then nothing has changed."""
        return self._settle_instance(job, InstanceState.DEAD, {"reason": death, "sentence": detail}, detail)

    def settle_reported(
        self,
        job: Job,
        finding: Finding,
        stored: Sequence[StoredArtifact],
        destinations: Mapping[str, Sequence[ResultKind]],
    ) -> bool:
        """RECEIVED -> REPORTED with its results due at every destination that wants them, all or nothing.

        A result whose SOP Instance UID is known keeps its first bytes and makes no new delivery: the same
        radiograph came before in another transfer syntax. False where the lease was lost.
        """
        decision, now = finding.decision, self._now()
        values = {"verdict": decision.verdict, "doubt": decision.doubt, "probability": finding.probability}
        values |= {"profile": f"{finding.identity.profile} {finding.identity.version}"}
        with self.database.writing() as connection:
            if not self._move_instance(connection, job, InstanceState.REPORTED, values):
                return False
            _note(connection, [job.claim.row_id], now, "reported", f"{decision.verdict} {finding.probability:.4f}")
            for artifact in stored:
                wanted = [name for name, kinds in destinations.items() if artifact.kind in kinds]
                _attach(connection, job.claim.row_id, artifact, wanted, now)
            _conclude(connection, [job.claim.row_id], now)
        return True

    def claim_delivery(self, destination: str, owner: str, lease_s: float) -> DeliveryJob | None:
        """Lease the oldest delivery that is due at a destination."""
        open_here = sa.and_(deliveries.c.destination == destination, deliveries.c.state.in_(OPEN))
        waiting = sa.select(deliveries).where(open_here).order_by(deliveries.c.id)
        with self.database.writing() as connection:
            row = self._claim(connection, deliveries, waiting, owner, lease_s)
            if row is None:
                return None
            wanted = sa.select(artifacts).where(artifacts.c.id == row["artifact_id"])
            artifact = connection.execute(wanted).mappings().one()
        fields = {field: artifact[field] for field in StoredArtifact.__dataclass_fields__}
        return DeliveryJob(
            claim=_claim_of(row, owner),
            destination=destination,
            artifact=StoredArtifact(**fields | {"kind": ResultKind(fields["kind"])}),
            first_due_at=row["first_due_at"],
        )

    def settle_delivered(self, job: DeliveryJob, status: int) -> bool:
        """-> DELIVERED; the last delivery of an instance settles the instance. False: the lease was lost."""
        values = {"last_status": status, "last_error": None, "delivered_at": self._now()}
        return self._settle_delivery(job, DeliveryState.DELIVERED, values, f"status 0x{status:04X}")

    def postpone(self, job: DeliveryJob, *, delay_s: float, status: int | None, detail: str) -> bool:
        """-> WAIT until `delay_s` from now. False: the lease was lost."""
        until = self._now() + timedelta(seconds=delay_s)
        values = {"last_status": status, "last_error": detail, "not_before": until}
        return self._settle_delivery(job, DeliveryState.WAIT, values, f"{detail}; again in {delay_s:.0f} s")

    def settle_delivery_dead(self, job: DeliveryJob, *, status: int | None, detail: str) -> bool:
        """-> DEAD. False: the lease was lost."""
        values = {"last_status": status, "last_error": detail}
        return self._settle_delivery(job, DeliveryState.DEAD, values, detail)
