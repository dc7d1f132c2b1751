"""The truth about every instance and every delivery, and all moves between their states.

Everything that affects a state lives here; `queries` only reads. Knows no DICOM, no file and no socket.
A row is the state, a settled claim is the transition, the events table is the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cxr_node.config.schema import Config
from cxr_node.domain import Finding, InstanceRef, Origin, Priority, Verdict
from cxr_node.errors import ResourceError
from cxr_node.node.ledger import commitments, destination_health, lateness, measurements, postgres, results
from cxr_node.node.ledger.counted import NOTHING, Counted
from cxr_node.node.ledger.database import AbsentLedgerError, Database
from cxr_node.node.ledger.move_statements import DELIVERY_DUE, concluding, ends, moved, moving, settling
from cxr_node.node.ledger.prepared import given
from cxr_node.node.ledger.receipts import Arrival, GroupCommit, IsKept
from cxr_node.node.ledger.ripening import Judged, begins_as, expect, wanting
from cxr_node.node.ledger.states import (
    DELIVERY_MOVES,
    FREE,
    INSTANCE_MOVES,
    OPEN,
    DeadReason,
    DeliveryJob,
    DeliveryState,
    InstanceState,
    Job,
    OwnReason,
    StoredArtifact,
    StudyJob,
    claim,
    extend,
    held,
    insert_all,
    note,
    pick,
)
from cxr_node.node.ledger.tables import deliveries, instances, studies
from cxr_node.node.process import machine, metrics
from cxr_node.outcome import Rejected
from cxr_node.result_kinds import ReportPer, ResultKind, Wish

FILE_NAME = "ledger.sqlite3"
_LEASED = {Job: instances, StudyJob: studies, DeliveryJob: deliveries}


class Ledger:
    """The moves. Each method is one transaction: when it returns, its effect is durable.

    A settle returns False, and has changed nothing, where the lease was lost to another claim. Every method
    raises ResourceError where the database does not answer or cannot write, LedgerLostError where its file is lost.
    """

    def __init__(self, database: Database, now: Callable[[], datetime] | None = None) -> None:
        """`now` is the database's clock unless a test says otherwise."""
        self.database = database
        self.now = now or database.clock
        self._arrivals = GroupCommit(database, self.now)

    @classmethod
    def of_node(cls, config: Config, *, repair: bool = False, must_exist: bool = False) -> Ledger:
        """Open the ledger that is configured, and bring its tables up to date.

        Parameters
        ----------
        repair : for processes that write: a damaged file is set aside, and a new one is started
        must_exist : for those that look at what a node has done

        Raises
        ------
        ResourceError : it does not answer.
        ConfigError : it cannot be used before an operator has acted, or does not exist.
        """
        spool_path, url, file = config.spool.path, config.ledger.url, config.ledger.password
        if must_exist and url is None and not (spool_path / FILE_NAME).exists():
            raise AbsentLedgerError(str(spool_path))
        password = None if file is None else partial(postgres.password_in, file)
        return cls.open(spool_path, url, repair=repair, must_exist=must_exist, password=password)

    @classmethod
    def open(
        cls,
        spool_path: Path,
        url: str | None = None,
        now: Callable[[], datetime] | None = None,
        **how: Any,
    ) -> Ledger:
        """Open the spool's own SQLite ledger, or the one at `url`, as `Database.open` does."""
        file = spool_path / FILE_NAME
        try:
            (spool_path / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
            if url is None:
                file.touch(mode=0o600)
        except OSError as error:
            raise ResourceError(f"ledger: {spool_path}: {error.strerror}") from error
        lock = spool_path / "run" / "migrate.lock"
        return cls(Database.open(url or f"sqlite:///{file}", lock, machine=machine.name(spool_path), **how), now)

    def close(self) -> None:
        """Close the connections."""
        self.database.close()

    def add(
        self,
        ref: InstanceRef,
        origin: Origin,
        content_sha256: str,
        size_bytes: int,
        priority: Priority = Priority.MEDIUM,
        is_kept: IsKept = lambda _: True,
    ) -> int | None:
        """-> RECEIVED, and its number; None where exactly this object is known already. Threads share a transaction.

        Raises
        ------
        ConflictError : it is known, and no longer kept; sent again, it is stored again.
        """
        return self._arrivals.add(Arrival(ref, origin, content_sha256, size_bytes, priority), is_kept)

    def claim_instance(self, owner: str, lease_s: float) -> Job | None:
        """Lease the instance that is to be judged next: the most urgent, then the oldest."""
        with self.database.leasing() as connection:
            claimed = claim(connection, instances, results.IS_NEXT, owner, lease_s, self.now())
        if claimed is None:
            return None
        row, lease = claimed
        ref, origin = InstanceRef(**pick(InstanceRef, row)), Origin(**pick(Origin, row))
        priority, alone = Priority(row["priority"]), bool(row["alone"])
        digest = row["content_sha256"]
        return Job(
            claim=lease,
            ref=ref,
            origin=origin,
            content_sha256=digest,
            priority=priority,
            alone=alone,
            rejected_under=row["rules_sha256"] if row["reason"] is not None else None,
        )

    def claim_delivery(self, destination: str, owner: str, lease_s: float) -> DeliveryJob | None:
        """Lease the delivery that is due next at a destination: the most urgent, then the oldest; none while held."""
        with self.database.leasing() as connection:
            claimed = claim(connection, deliveries, DELIVERY_DUE, owner, lease_s, self.now(), destination=destination)
            if claimed is None:
                return None
            row, lease = claimed
            artifact, instance_id = results.with_first_user(connection, row["artifact_id"])
        return DeliveryJob(
            claim=lease,
            destination=destination,
            artifact=artifact,
            sop_class_choice=row["sop_class_choice"],
            first_due_at=row["first_due_at"],
            late_from=row["late_from"],
            instance_id=instance_id,
            is_released=row["released_at"] is not None,
        )

    def extend(self, job: Job | StudyJob | DeliveryJob, lease_s: float) -> bool:
        """Extend a lease; False if it is lost."""
        table = _LEASED[type(job)]
        with self.database.leasing() as connection:
            return extend(connection, table, job.claim, self.now() + timedelta(seconds=lease_s))

    def release(self, job: Job, *, delay_s: float, detail: str, count_attempt: bool = True) -> bool:
        """Return an instance to the queue; `count_attempt` is False if it was not to blame."""
        now = self.now()
        values = FREE | {
            "not_before": now + timedelta(seconds=delay_s),
            "attempts": job.attempts - int(not count_attempt),
        }
        with self.database.writing() as connection:
            if connection.execute(sa.update(instances).where(held(instances, job.claim)).values(values)).rowcount == 0:
                return False
            note(connection, [job.claim.row_id], now, "released", detail)
        return True

    def settle_rejected(
        self,
        job: Job,
        rejected: Rejected,
        stored: Sequence[StoredArtifact] = (),
        wishes: Mapping[str, Wish] | None = None,
        rules_sha256: str | None = None,
        judged: Judged | None = None,
    ) -> bool:
        """RECEIVED -> REJECTED, with the note about it due at every destination that wants one: all or nothing.

        It stays REJECTED whatever becomes of the note: the delivery has a state of its own. `rules_sha256` of what it
        was refused by, for a repeat; None: a repeat is judged. `judged` : as the report of its study lists it.
        """
        values: dict[str, Any] = {"reason": rejected.reason, "sentence": rejected.sentence, "verdict": Verdict.REJECTED}
        values |= {"rules_sha256": rules_sha256, "abstain_reason": None, "probability": None, "profile": None}
        now = self.now()
        with self.database.writing() as connection:
            if not self._settle(connection, job, InstanceState.REJECTED, values, rejected.sentence):
                return False
            _attach(connection, job, stored, wishes or {}, now)
            measurements.drop(connection, job)
            expect(connection, job, judged, now)
        return True

    def settle_as_before(self, job: Job) -> bool:
        """RECEIVED -> REJECTED, of what came again and is refused by the same rules: reason, sentence and date stay."""
        allowed = sa.and_(held(instances, job.claim), instances.c.state == InstanceState.RECEIVED)
        with self.database.writing() as connection:
            moved = sa.update(instances).where(allowed).values(FREE | {"state": InstanceState.REJECTED})
            return connection.execute(moved).rowcount == 1

    def settle_dead(self, job: Job, reason: DeadReason, detail: str) -> bool:
        """RECEIVED -> DEAD."""
        with self.database.writing() as connection:
            return self._settle(connection, job, InstanceState.DEAD, {"reason": reason, "sentence": detail}, detail)

    def settle_reported(
        self,
        job: Job,
        finding: Finding,
        stored: Sequence[StoredArtifact],
        wishes: Mapping[str, Wish],
        judged: Judged | None = None,
        counted: Counted = NOTHING,
    ) -> bool:
        """RECEIVED -> REPORTED, with its results due at every destination that wants them: all or nothing.

        A result whose SOP Instance UID is known keeps its first bytes and makes no new delivery: the same
        radiograph came before in another transfer syntax. `judged` : for destinations that want a report of its study,
        which is made, and goes with the pictures, once the study is ripe. `counted` : what is kept beside it.
        """
        decision, now = finding.decision, self.now()
        word = finding.target.word(decision.verdict)
        values: dict[str, Any] = {
            "verdict": word,
            "abstain_reason": decision.abstain_reason,
            "probability": finding.calibrated_probability,
            "reason": None,
            "sentence": None,
            "rules_sha256": None,
        }
        values |= counted.columns
        values["profile"] = f"{finding.identity.profile} {finding.identity.version}"
        detail = f"{word} {decision.abstain_reason or ''}".rstrip()  # the certainty has rules of its own: `show`
        with self.database.writing() as connection:
            if not self._settle(connection, job, InstanceState.REPORTED, values, detail):
                return False
            _attach(connection, job, stored, wishes, now)
            expect(connection, job, judged, now)
            counted.keep(connection, job, finding.identity, now)
            if judged is None:  # else its study waits
                conclude(connection, [job.claim.row_id], now)
        return True

    def choose(self, job: DeliveryJob, choice: int) -> bool:
        """Remember the SOP Class in which a result goes to its destination, before its first byte leaves."""
        chosen_class = job.artifact.sop_class_choices[choice].sop_class_uid
        detail = f"{job.artifact.kind} to {job.destination}: as SOP Class {chosen_class}"
        with self.database.writing() as connection:
            chosen = sa.update(deliveries).where(held(deliveries, job.claim)).values(sop_class_choice=choice)
            row = connection.execute(chosen.returning(deliveries.c.artifact_id)).first()
            if row is None:
                return False
            note(connection, results.lock_users(connection, row.artifact_id), self.now(), "delivery-sop-class", detail)
        return True

    def settle_delivered(self, job: DeliveryJob, status: int | None, *, promised: bool = False) -> bool:
        """-> DELIVERED; the last one settles its instance too. `promised`: its commitment is to be asked for."""
        detail = "accepted" if status is None else f"status 0x{status:04X}"
        values = {"last_status": status, "last_error": None, "delivered_at": self.now()}
        return self._settle_delivery(job, DeliveryState.DELIVERED, values, detail, promised)

    def postpone(
        self, job: DeliveryJob, *, delay_s: float, status: int | None, detail: str, count_attempt: bool = True
    ) -> bool:
        """-> WAIT, due again after `delay_s`; `count_attempt` False where nothing was sent."""
        values: dict[str, Any] = {
            "last_status": status,
            "last_error": detail,
            "attempts": job.attempts - int(not count_attempt),
        }
        values["not_before"] = self.now() + timedelta(seconds=delay_s)
        return self._settle_delivery(job, DeliveryState.WAIT, values, f"{detail}; again in {delay_s:.1f} s")

    def settle_delivery_dead(self, job: DeliveryJob, *, status: int | None, detail: str) -> bool:
        """-> DEAD."""
        return self._settle_delivery(job, DeliveryState.DEAD, {"last_status": status, "last_error": detail}, detail)

    def settle_unsent(self, job: DeliveryJob, reason: OwnReason, detail: str) -> bool:
        """-> SET_ASIDE, for it must not be sent any more: kept; the attempt does not count."""
        values = {"reason": reason, "last_error": detail, "attempts": job.attempts - 1}
        return self._settle_delivery(job, DeliveryState.SET_ASIDE, values, detail, what=reason)

    def settle_shadowed(self, job: DeliveryJob, detail: str) -> bool:
        """-> SHADOW: it was due before its destination was in shadow; the attempt does not count."""
        values = {"last_error": detail, "attempts": job.attempts - 1}
        return self._settle_delivery(job, DeliveryState.SHADOW, values, detail)

    def _settle(
        self, connection: sa.Connection, job: Job, to: InstanceState, values: dict[str, Any], detail: str
    ) -> bool:
        now = self.now()
        values = FREE | values | {"state": to, "updated_at": now}
        statement = moving(instances, _before(INSTANCE_MOVES, to), tuple(values))
        if connection.execute(statement, moved(job.claim, values)).rowcount != 1:
            return False
        note(connection, [job.claim.row_id], now, to.lower(), detail)
        return True

    def _settle_delivery(
        self,
        job: DeliveryJob,
        to: DeliveryState,
        values: dict[str, Any],
        detail: str,
        promised: bool = False,
        what: str | None = None,
    ) -> bool:
        now, values = self.now(), FREE | values | {"state": to}
        statement = settling(_before(DELIVERY_MOVES, to), tuple(values))
        with self.database.writing() as connection:
            row = connection.execute(statement, moved(job.claim, values)).first()
            if row is None:
                return False
            if to is DeliveryState.DELIVERED:
                destination_health.succeeded(connection, job.destination, now)
            if promised:
                commitments.expect(connection, job.claim.row_id, job.destination, now)
            instance_ids = results.lock_users(connection, row.artifact_id)
            detail = f"{job.artifact.kind} to {job.destination}: {detail}"
            note(connection, instance_ids, now, what or f"delivery-{to.lower()}", detail)
            conclude(connection, instance_ids, now)
        return True


def _before(moves: Mapping[Any, frozenset[Any]], to: StrEnum) -> tuple[str, ...]:
    """Name the states from which `to` may be reached: the WHERE of every move."""
    return tuple(state for state, allowed in moves.items() if to in allowed)


def _wanted_now(wishes: Mapping[str, Wish], stored: StoredArtifact) -> list[str]:
    """Destinations that get a result as soon as its image is judged; what belongs to a study waits for its report."""
    at_once = stored.per is ReportPer.IMAGE or stored.kind is ResultKind.NOT_ANALYSED
    return wanting(wishes, stored.kind, ReportPer.IMAGE) if at_once else []


def _attach(
    connection: sa.Connection, job: Job, stored: Sequence[StoredArtifact], wishes: Mapping[str, Wish], now: datetime
) -> None:
    """Link results to their instance in place of earlier ones; what is new is due at the destinations that want it.

    An answer that is the instance's once more may have been withdrawn before some destination got it.
    """
    row_id = job.claim.row_id
    known = frozenset[int]() if job.is_first else results.outdate(connection, row_id, now)
    kept = results.keep(connection, stored)
    results.link(connection, [row_id], kept, {(row_id, each) for each in known})
    due: list[dict[str, Any]] = []
    for each, one in zip(stored, kept, strict=True):
        wanted_by = _wanted_now(wishes, each) if one.is_new or one.artifact_id in known else []
        if wanted_by and not one.is_new:
            there = sa.select(deliveries.c.destination).where(deliveries.c.artifact_id == one.artifact_id)
            have = set(connection.scalars(there))
            wanted_by = [name for name in wanted_by if name not in have]
        for name in wanted_by:
            state = begins_as(wishes[name], job.ref.study_instance_uid)
            due.append({"artifact_id": one.artifact_id, "destination": name, "state": state})
    if due:
        late_from = lateness.since(connection, [job.instance_id], came_again=job.rejected_under is not None)
        same = {"not_before": now, "first_due_at": now, "priority": job.priority, "late_from": late_from}
        insert_all(connection, deliveries, [row | same for row in due])
    results.withdraw(connection, job.instance_id, known, now)


def conclude(connection: sa.Connection, instance_ids: Sequence[int], now: datetime) -> int:
    """REPORTED -> DELIVERED, DEAD, SHADOW or SET_ASIDE for those instances, held by the caller, with no open delivery.

    Not while their study waits for a report.
    How many are DELIVERED now.
    """
    delivered = 0
    for instance_id in instance_ids:
        found = {row.state: row for row in connection.execute(*ends(instance_id))}
        if not found.keys().isdisjoint(OPEN):
            continue
        values: dict[str, Any] = {"state": InstanceState.DELIVERED, "reason": None, "updated_at": now}
        if DeliveryState.DEAD in found:
            values |= {"state": InstanceState.DEAD, "reason": DeadReason.UNDELIVERED}
        elif DeliveryState.SHADOW in found:
            values["state"] = InstanceState.SHADOW
        elif (aside := found.get(DeliveryState.SET_ASIDE)) is not None:
            values |= {"state": InstanceState.SET_ASIDE, "reason": aside.reason, "sentence": aside.last_error}
        else:
            values["delivered_at"] = now
        told = given(instance_id=instance_id, **values)
        if (row := connection.execute(concluding(tuple(values)), told).first()) is not None:
            if row.delivered_at == now:  # for the first time
                metrics.turned_around((now - row.received_at).total_seconds())
            note(connection, [instance_id], now, values["state"].lower(), "every destination has settled")
            delivered += int(values["state"] is InstanceState.DELIVERED)
    return delivered
