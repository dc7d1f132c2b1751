"""Judging: lease an instance, process its bytes, store the results once, settle in one transaction.

Knows no DICOM and no network: `process` and the predictor are handed in. Whatever happens between two lines
here, the instance is judged again from the same bytes to the same result, and leaves the ledger once.

Several instances are in hand at a time, each in a lane of its own from its bytes to its settled row, so that one is
decoded while another is examined and a third is stored. What ends one lane's job touches no other's.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cxr_node.config.schema import Config
from cxr_node.domain import Artifact, Origin, Outcome, Precedent, Reason, Rejected, Reported, ResultKind
from cxr_node.errors import InstanceError, LedgerLostError, ModelError, ResourceError
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.lease_keeper import Keeper, office
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import Death, Job, StoredArtifact
from cxr_node.node.process.logs import describe
from cxr_node.node.process.notify import Bell, Role, ring
from cxr_node.node.process.supervisor import Notifier
from cxr_node.node.spool.spool import Area, Spool, SpoolCorruptError
from cxr_node.node.work.lanes import Crew

log = logging.getLogger(__name__)

P = TypeVar("P")
Process = Callable[[bytes, Origin, P, Config, Precedent], Outcome]
"""`pipeline.process`: the same arguments, the same bytes out. Called by several lanes at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits(Generic[P]):
    """What is to be known of a predictor."""

    batch: Callable[[P], int] = lambda _: 1
    """How many instances it examines at once."""
    rules_sha256: Callable[[P], str] = lambda _: ""
    """Digest of rules and weights, by which an image that was rejected is refused again."""


_LOOK_AFTER_S = 30.0  # a ring that was lost costs at most this
_NOTICE_STOP_S = 0.25
_MAX_LANES = 4  # beyond, they wait for Python's own lock; each takes some 150 MB of a 5 megapixel image
_PAUSE_S = 5.0  # after a fault of this machine
_RETRY_DELAY_S = 10.0  # after a fault that nobody knows; times the attempt
_HUNG_AFTER_LEASES = 5
_EXIT_HUNG = 70  # EX_SOFTWARE


def run(
    config: Config,
    load_predictor: Callable[[], P],
    process: Process[P],
    stop: threading.Event,
    notifier: Notifier | None = None,
    traits: Traits[P] | None = None,
) -> None:
    """Judge what is received until `stop` is set; the jobs in hand are finished first.

    Raises
    ------
    ConfigError : the profile cannot be used.
    ModelError : the classifier failed. The job is back in the queue; a new process may do better.
    LedgerLostError : the ledger is damaged, or another process has begun a new one.
    """
    notifier, traits = notifier or Notifier(), traits or Traits()
    spool = Spool(config.spool.path)
    ledger = Ledger.open(config.spool.path, mend=True)
    try:
        predictor = load_predictor()
        with Bell(config.spool.path, Role.WORK) as bell, office(ledger, config.spool.path, Role.WORK) as owner:
            if swept := spool.sweep():  # of results that a killed worker was writing
                log.warning("swept unfinished files=%d", swept)
            notifier.ready()
            log.info("ready owner=%s", owner)
            rules = traits.rules_sha256(predictor)
            worker = Worker(config, ledger, spool, owner, predictor, process, rules_sha256=rules)
            lease_s = config.work.lease_s
            with (
                Keeper(ledger, lease_s, _HUNG_AFTER_LEASES * lease_s, _exit_hung) as keeper,
                Crew(worker.claim, worker.finish, keeper, _lanes(config, traits.batch(predictor))) as crew,
            ):
                _loop(crew, ledger, bell, stop, notifier)
            notifier.stopping()
    finally:
        ledger.close()


def _lanes(config: Config, batch: int) -> int:
    """How many instances are in hand at a time: what keeps the cores busy, or fills the predictor's batch."""
    return config.work.lanes or max(min(len(os.sched_getaffinity(0)), _MAX_LANES), batch)


def _loop(crew: Crew, ledger: Ledger, bell: Bell, stop: threading.Event, notifier: Notifier) -> None:
    while not stop.is_set():
        if not crew.has_room(_NOTICE_STOP_S):
            continue  # and no progress: where no lane comes free any more, the service manager is told nothing
        notifier.progress()
        try:
            if crew.take_one():
                continue
            due_s = queries.next_instance_s(ledger)
        except ResourceError as error:
            log.error("paused pause_s=%.0f %s", _PAUSE_S, error)
            stop.wait(_PAUSE_S)
            continue
        until = time.monotonic() + min(_LOOK_AFTER_S, _LOOK_AFTER_S if due_s is None else due_s)
        while not stop.is_set() and not crew.failed and (left_s := until - time.monotonic()) > 0:
            if bell.wait(min(left_s, _NOTICE_STOP_S)):
                break


@dataclass(frozen=True, slots=True)
class Worker(Generic[P]):
    """One process's hands."""

    config: Config
    ledger: Ledger
    spool: Spool
    owner: str
    predictor: P
    process: Process[P]
    owed: list[tuple[Job, str]] = field(default_factory=list)
    """Jobs to be given back that the ledger did not take at the time, and why: their attempt must not count."""
    rules_sha256: str = ""
    """Digest of everything but the image that a refusal depends on: what comes again under others is judged."""

    def do_one(self) -> bool:
        """Claim one instance and bring it to an end, its lease as it is; False where none is due. As `finish`."""
        job = self.claim()
        if job is not None:
            self.finish(job)
        return job is not None

    def claim(self) -> Job | None:
        """Lease the instance that is to be judged next.

        Raises
        ------
        ResourceError : the ledger cannot be used now, and nothing is leased.
        """
        self._return_owed()
        return self.ledger.claim_instance(self.owner, self.config.work.lease_s)

    def finish(self, job: Job) -> None:
        """Bring one claimed instance to an end.

        Raises
        ------
        ModelError : after the instance was given back.
        ResourceError : after the instance was given back, if the ledger still took it.
        """
        started = time.monotonic()
        ending = self._end(job)
        level = logging.ERROR if ending.startswith("dead") else logging.INFO  # somebody must look; `trace` tells why
        log.log(level, "%s instance=%d attempt=%d took_ms=%d", ending, job.claim.row_id, job.attempts, _ms(started))

    def _end(self, job: Job) -> str:
        """Bring one claimed instance to an end, by whose fault it is; tell the end in one word."""
        if job.attempts > self.config.work.max_attempts:  # each attempt took its worker with it
            detail = f"{self.config.work.max_attempts} workers died of it"
            return self._dead(job, Death.FAULT, detail)
        try:
            return self._judge(job)
        except SpoolCorruptError as error:
            return self._dead(job, Death.SPOOL_CORRUPT, str(error))
        except InstanceError as error:
            return self._dead(job, Death.FAULT, str(error))
        except ModelError as error:
            self._give_back(job, error, _PAUSE_S)
            raise
        except ResourceError as error:
            self._give_back(job, error, _PAUSE_S)
            raise
        except LedgerLostError:
            raise
        except Exception as error:
            return self._blame(job, describe(error))

    def _dead(self, job: Job, death: Death, detail: str) -> str:
        return _settled(self.ledger.settle_dead(job, death, detail), f"dead reason={death}")

    def _judge(self, job: Job) -> str:
        if job.rejected_under is not None and job.rejected_under == self.rules_sha256:
            return _settled(self.ledger.settle_as_before(job), "rejected as before")
        content = self.spool.load(Area.OBJECTS, job.content_sha256)
        precedent = queries.precedent(self.ledger, job)
        with ThreadPoolExecutor(1, "digest") as beside:  # 5 ms of 10 MB, which another core has free
            whole = beside.submit(self.spool.require_whole, Area.OBJECTS, job.content_sha256, content)
            try:
                outcome = self.process(content, job.origin, self.predictor, self.config, precedent)
            finally:
                whole.result()  # before anything is made of the outcome, whatever it is
        match outcome:
            case Rejected():
                return self._reject(job, outcome)
            case Reported():
                return self._report(job, outcome)

    def _reject(self, job: Job, rejected: Rejected) -> str:
        """As `_report`, of the note that says so, where there is one."""
        stored = self._all_stored(rejected.artifacts)
        by_others = rejected.reason is Reason.IDENTITY_CONFLICT  # what other images say may change
        rules = None if by_others else self.rules_sha256
        settled = self.ledger.settle_rejected(job, rejected, stored, self._wanted(), rules)
        if stored:
            ring(self.config.spool.path, Role.DELIVER)
        return _settled(settled, f"rejected reason={rejected.reason}")

    def _wanted(self) -> dict[str, tuple[ResultKind, ...]]:
        """Kinds of results by the destinations that want them."""
        return {destination.name: destination.send for destination in self.config.destinations}

    def _report(self, job: Job, reported: Reported) -> str:
        """Results are durable before the ledger speaks of them, and due at the destinations when it does."""
        stored = self._all_stored(reported.artifacts)
        settled = self.ledger.settle_reported(job, reported.finding, stored, self._wanted())
        ring(self.config.spool.path, Role.DELIVER)
        decision = reported.finding.decision
        doubt = f" doubt={decision.doubt}" if decision.doubt is not None else ""
        return _settled(settled, f"reported verdict={reported.finding.target.word(decision.verdict)}{doubt}")

    def _all_stored(self, artifacts: Sequence[Artifact]) -> list[StoredArtifact]:
        """Store each; the largest beside the others, for the disk lets both wait at once."""
        largest = max(artifacts, key=lambda each: len(each.content), default=None)
        with ThreadPoolExecutor(1, "largest") as beside:
            waiting = None if largest is None else beside.submit(self._store, largest)
            stored = [None if each is largest else self._store(each) for each in artifacts]
        return [one if one is not None else waiting.result() for one in stored if waiting is not None]

    def _store(self, artifact: Artifact) -> StoredArtifact:
        alternatives = tuple(self._store(alternative) for alternative in artifact.alternatives)
        file = self.spool.store_result(artifact.content)
        return StoredArtifact(
            kind=artifact.kind,
            sop_class_uid=artifact.sop_class_uid,
            sop_instance_uid=artifact.sop_instance_uid,
            series_instance_uid=artifact.series_instance_uid,
            content_sha256=file.sha256,
            size_bytes=file.size_bytes,
            alternatives=alternatives,
        )

    def _blame(self, job: Job, detail: str) -> str:
        """Nobody expected this: a bug. Tried again, for the machine may have hiccuped, then set aside."""
        log.error("failed instance=%d attempt=%d %s", job.claim.row_id, job.attempts, detail)
        if job.attempts >= self.config.work.max_attempts:
            return self._dead(job, Death.FAULT, detail)
        return _settled(self.ledger.release(job, delay_s=_RETRY_DELAY_S * job.attempts, detail=detail), "released")

    def _give_back(self, job: Job, error: Exception, delay_s: float) -> None:
        try:
            self.ledger.release(job, delay_s=delay_s, detail=describe(error), forgive=True)
        except ResourceError as fault:  # else three outages of the ledger would make an innocent image DEAD
            log.error("cannot give back now instance=%d %s", job.claim.row_id, fault)
            self.owed.append((job, describe(error)))

    def _return_owed(self) -> None:
        while self.owed:
            job, detail = self.owed.pop()
            try:
                self.ledger.release(job, delay_s=0.0, detail=detail, forgive=True)
            except ResourceError:
                self.owed.append((job, detail))
                raise


def _settled(held: bool, ending: str) -> str:
    """Where the lease was lost, another worker's word counts."""
    return ending if held else f"lost-lease after={ending}"


def _exit_hung() -> None:
    """C code cannot be interrupted: the process goes, the lease runs out, the attempt stays counted."""
    log.critical("hung: the job in hand did not end")
    os._exit(_EXIT_HUNG)


def _ms(started: float) -> int:
    return round(1000 * (time.monotonic() - started))
