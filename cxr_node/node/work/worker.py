"""Judging: lease an instance, process its bytes, store the results once, settle in one transaction.

Knows no DICOM and no network: an `Analyser` is handed in. Whatever happens between two lines here, the instance is
judged again from the same bytes to the same result, and leaves the ledger once.

Several instances are in hand at a time, each in a lane of its own from its bytes to its settled row, so that one is
decoded while another is examined and a third is stored. A fault in one lane does not touch the others.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

from cxr_node import judgement_text
from cxr_node.config.schema import Config
from cxr_node.domain import CONSTANCY_STUDY, Origin, Precedent, Reason
from cxr_node.errors import InstanceError, LedgerLostError, ModelError, ResourceError
from cxr_node.node.ledger import queries, studies
from cxr_node.node.ledger.counted import Counted
from cxr_node.node.ledger.lease_keeper import LeaseKeeper, worker_name
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.machines import alike, telling
from cxr_node.node.ledger.opening import await_ledger
from cxr_node.node.ledger.ripening import Judged, Ripening
from cxr_node.node.ledger.states import DeadReason, Job, StudyJob
from cxr_node.node.ledger.wake import listening, wake
from cxr_node.node.network import pictures
from cxr_node.node.process import metrics
from cxr_node.node.process.logs import describe
from cxr_node.node.process.notify import Role, Wakeup
from cxr_node.node.process.service_manager import Notifier
from cxr_node.node.retry import LOOK_AFTER_S, NOTICE_STOP_S, PAUSE_S
from cxr_node.node.spool.opening import open_spool
from cxr_node.node.spool.spool import Area, Spool, SpoolCorruptError
from cxr_node.node.work.beside import LOOK_S, Beside, Candidate, comparison
from cxr_node.node.work.earlier_radiographs import JudgePrior
from cxr_node.node.work.study_reports import RETRY_DELAY_S, StudyReporter, all_stored, ms, settled
from cxr_node.outcome import Outcome, Rejected, Reported, StudyCase, StudyReport
from cxr_node.result_kinds import ReportPer, ResultKind

log = logging.getLogger(__name__)

_MAX_LANES = 4  # beyond, they wait for Python's own lock; each takes some 150 MB of a 5 megapixel image
_STUDIES_EVERY_S = 0.1
"""While images wait, so often a worker looks whether a study is ripe: each look is a transaction of its own."""
_EXIT_HUNG = 70  # EX_SOFTWARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Analyser:
    """Analyses an instance: `pipeline.process` with a classifier, which a worker does not know."""

    process: Callable[[bytes, Origin, Config, Precedent], Outcome]
    """Called by several lanes at once; equal arguments give equal bytes."""
    report: Callable[[StudyCase, Config], StudyReport | None]
    """Makes the report of a study, as `process` does; None where there is nothing to say."""
    prior: JudgePrior | None = None
    """Judges an earlier radiograph for the report of a study; None: reports mention none."""
    batch: int = 1
    """How many instances it examines at once."""
    encoder: pictures.Encoder | None = None
    """Compresses pictures for the spool, where a destination would have them so; None: they are kept uncompressed."""
    candidate: Candidate | None = None
    """Answers what was answered, too, and is only compared."""
    agreed_sha256: str = ""
    """Digest of both profiles, whichever is live: what machines compare; "": `rules_sha256`."""
    rules_sha256: str = ""
    """Digest of all that a refusal depends on besides the image: under another one, a repeat is judged again."""


def run(config: Config, load: Callable[[], Analyser], stop: threading.Event, notifier: Notifier | None = None) -> None:
    """Judge what is received until `stop` is set; the jobs in hand are finished first.

    Raises
    ------
    ConfigError : the profile cannot be used, or the store.
    ModelError : the classifier failed. The job is back in the queue; a new process may do better.
    LedgerLostError : the ledger is damaged, or another process has begun a new one.
    """
    notifier = notifier or Notifier()
    spool = open_spool(config.spool)
    spool.store.prepare()
    # beside the check of the ledger; but what a candidate's loading reads stands in there
    begun = None if config.model.candidate is not None else ThreadPoolExecutor(1, "load").submit(load)
    ledger = await_ledger(config, stop, notifier.progress)
    try:
        analyser = load() if begun is None else begun.result()
        with (
            alike(ledger, config, analyser.agreed_sha256 or analyser.rules_sha256),
            closing(Wakeup(config.spool.path, Role.WORK)) as wakeup,
            listening(ledger, config.spool.path, Role.WORK),
            telling(ledger, config.spool.path),
            worker_name(ledger, config.spool.path, Role.WORK) as owner,
        ):
            if swept := spool.sweep():  # of results that a killed worker was writing
                log.warning("swept unfinished files=%d", swept)
            notifier.ready()
            log.info("ready owner=%s", owner)
            worker = Worker(config, ledger, spool, owner, analyser)
            beside = None if analyser.candidate is None else Beside(ledger, spool, owner, analyser.candidate)
            with (
                closing(LeaseKeeper(ledger, config.work.lease_s, _exit_hung)) as keeper,
                Lanes(worker, keeper, _lanes(config, analyser.batch), beside) as lanes,
            ):
                _loop(lanes, ledger, wakeup, stop, notifier)
            notifier.stopping()
    finally:
        ledger.close()


def _lanes(config: Config, batch: int) -> int:
    """How many instances are in hand at a time: what keeps the cores busy, or fills the classifier's batch."""
    return config.work.lanes or max(min(len(os.sched_getaffinity(0)), _MAX_LANES), batch)


def _loop(lanes: Lanes, ledger: Ledger, wakeup: Wakeup, stop: threading.Event, notifier: Notifier) -> None:
    while not stop.is_set():
        if not lanes.has_room(NOTICE_STOP_S):
            continue  # and no progress: where no lane comes free any more, the service manager restarts the worker
        notifier.progress()
        try:
            if lanes.take_one():
                continue
            due_s = _next_s(ledger)
            if lanes.step_beside(due_s):
                due_s = LOOK_S if due_s is None else min(due_s, LOOK_S)
        except ResourceError as error:
            log.error("paused pause_s=%.0f %s", PAUSE_S, error)
            stop.wait(PAUSE_S)
            continue
        until = time.monotonic() + (LOOK_AFTER_S if due_s is None else min(LOOK_AFTER_S, due_s))
        while not stop.is_set() and not lanes.failed and (left_s := until - time.monotonic()) > 0:
            if wakeup.wait(min(left_s, NOTICE_STOP_S)):
                break


def _next_s(ledger: Ledger) -> float | None:
    """Seconds until an image or a study may be claimed; None where none waits."""
    due = [due_s for due_s in (queries.next_instance_s(ledger), studies.next_study_s(ledger)) if due_s is not None]
    return min(due, default=None)


@dataclass(frozen=True, slots=True)
class Worker:
    """Processes instances, each in the lane that calls it."""

    config: Config
    ledger: Ledger
    spool: Spool
    owner: str
    analyser: Analyser
    unreturned: list[tuple[Job, str]] = field(default_factory=list)
    """Jobs to be given back that the ledger did not take at the time, and why: their attempt must not count."""

    @property
    def studies(self) -> StudyReporter:
        """Who reports studies."""
        analyser = self.analyser
        return StudyReporter(self.config, self.ledger, self.spool, self.owner, analyser.report, analyser.prior)

    def do_one(self) -> bool:
        """Claim a study or an instance and bring it to an end, its lease as it is; False where none is due.

        As `finish`.
        """
        study = self.studies.claim()
        if study is not None:
            self.studies.finish(study)
            return True
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
        self._give_back_the_rest()
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
        level = logging.ERROR if ending.startswith("dead") else logging.INFO  # an operator must look; `trace` says why
        log.log(level, "%s instance=%d attempt=%d took_ms=%d", ending, job.claim.row_id, job.attempts, ms(started))

    def _end(self, job: Job) -> str:
        """Bring one claimed instance to an end, by whose fault it is; that end, for the log."""
        if job.attempts > self.config.work.max_attempts:  # each attempt took its worker with it
            detail = f"{self.config.work.max_attempts} workers died of it"
            return self._dead(job, DeadReason.FAULT, detail)
        try:
            return self._judge(job)
        except SpoolCorruptError as error:
            return self._dead(job, DeadReason.SPOOL_CORRUPT, str(error))
        except InstanceError as error:
            return self._dead(job, DeadReason.FAULT, str(error))
        except (ModelError, ResourceError) as error:
            self._give_back(job, describe(error))
            raise
        except LedgerLostError:
            raise
        except Exception as error:
            return self._blame(job, describe(error))

    def _dead(self, job: Job, death: DeadReason, detail: str) -> str:
        return settled(self.ledger.settle_dead(job, death, detail), f"dead reason={death}")

    def _judge(self, job: Job) -> str:
        if job.rejected_under is not None and job.rejected_under == self.analyser.rules_sha256:
            return settled(self.ledger.settle_as_before(job), "rejected as before")
        content = self.spool.load(Area.OBJECTS, job.content_sha256)
        precedent = queries.precedent(self.ledger, job)
        with ThreadPoolExecutor(1, "digest") as thread:  # 5 ms of 10 MB, which another core has free
            whole = thread.submit(self.spool.require_whole, Area.OBJECTS, job.content_sha256, content)
            try:
                outcome = self.analyser.process(content, job.origin, self._config_for(job), precedent)
            finally:
                whole.result()  # before anything is made of the outcome, whatever it is
        match outcome:
            case Rejected():
                return self._reject(job, outcome)
            case Reported():
                return self._report(job, outcome)

    def _config_for(self, job: Job) -> Config:
        """The phantom of `constancy` goes all the way but the last: as in a node without destinations."""
        is_phantom = job.ref.study_instance_uid == CONSTANCY_STUDY
        return self.config.model_copy(update={"destinations": ()}) if is_phantom else self.config

    def _reject(self, job: Job, rejected: Rejected) -> str:
        """As `_report`, for the note that says so, where there is one."""
        per = ReportPer.STUDY if ResultKind.NOT_ANALYSED in self.config.kinds(ReportPer.STUDY) else ReportPer.IMAGE
        stored = all_stored(self.spool, rejected.artifacts, per)
        by_others = rejected.reason is Reason.IDENTITY_CONFLICT  # what other images say may change
        rules = None if by_others else self.analyser.rules_sha256
        judged = None
        if rejected.listed is not None:
            judged = self._judged(job, judgement_text.dump(rejected.listed), is_listed=True)
        was_held = self.ledger.settle_rejected(job, rejected, stored, self._config_for(job).wishes, rules, judged)
        if stored:
            wake(self.ledger, self.config.spool.path, Role.DELIVER)
        self._come_round(judged is not None)
        if was_held:
            metrics.rejected(rejected.reason)
        return settled(was_held, f"rejected reason={rejected.reason}")

    def _judged(self, job: Job, text: str, *, is_listed: bool) -> Judged | None:
        """What the report of its study is made of; None where nobody wants one."""
        if not self.config.kinds(ReportPer.STUDY) or job.ref.study_instance_uid == CONSTANCY_STUDY:
            return None
        ripening = Ripening(
            quiet_s=self.config.study.quiet_s,
            max_wait_s=self.config.study.max_wait_s,
            with_priors=self.config.priors is not None and not is_listed,
        )
        return Judged(text=text, is_listed=is_listed, ripening=ripening)

    def _come_round(self, is_wanted: bool) -> None:
        """Whoever fills the lanes has looked for studies, and let a candidate answer, before this image was judged."""
        if is_wanted:
            wake(self.ledger, self.config.spool.path, Role.WORK)

    def _report(self, job: Job, reported: Reported) -> str:
        """Results are durable before the ledger speaks of them, and due at the destinations when it does."""
        packing = pictures.kept_by(self.analyser.encoder, self.config.destinations)
        stored = all_stored(self.spool, reported.artifacts, ReportPer.IMAGE, packing)
        stored += all_stored(self.spool, reported.pictures, ReportPer.STUDY, packing)
        kept = reported.judgement
        judged = None if kept is None else self._judged(job, judgement_text.dump(kept), is_listed=False)
        counted = Counted(
            subgroup=reported.subgroup,
            measurement=reported.measurement,
            comparison=comparison(self.analyser.candidate, reported),
        )
        wishes = self._config_for(job).wishes
        was_held = self.ledger.settle_reported(job, reported.finding, stored, wishes, judged, counted)
        wake(self.ledger, self.config.spool.path, Role.DELIVER)
        self._come_round(judged is not None or counted.comparison is not None)
        decision, profile = reported.finding.decision, reported.finding.identity.profile
        word = reported.finding.target.word(decision.verdict)
        if was_held:
            metrics.judged(profile, word, decision.abstain_reason)
        abstained = f" abstain_reason={decision.abstain_reason}" if decision.abstain_reason is not None else ""
        return settled(was_held, f"reported verdict={word}{abstained}")

    def _blame(self, job: Job, detail: str) -> str:
        """An unexpected error is a bug: tried again, since the machine may be at fault, then set aside."""
        log.error("failed instance=%d attempt=%d %s", job.claim.row_id, job.attempts, detail)
        if job.attempts >= self.config.work.max_attempts:
            return self._dead(job, DeadReason.FAULT, detail)
        return settled(self.ledger.release(job, delay_s=RETRY_DELAY_S * job.attempts, detail=detail), "released")

    def _give_back(self, job: Job, detail: str) -> None:
        try:
            self.ledger.release(job, delay_s=PAUSE_S, detail=detail, count_attempt=False)
        except ResourceError as fault:  # else three outages of the ledger would make an innocent image DEAD
            log.error("cannot give back now instance=%d %s", job.claim.row_id, fault)
            self.unreturned.append((job, detail))

    def _give_back_the_rest(self) -> None:
        while self.unreturned:
            job, detail = self.unreturned.pop()
            try:
                self.ledger.release(job, delay_s=0.0, detail=detail, count_attempt=False)
            except ResourceError:
                self.unreturned.append((job, detail))
                raise


class Lanes:
    """The lanes of a worker, and the thread that fills them; with one lane there is no other thread than that.

    What a lane raises is raised to the thread that fills them. What a worker died of before is done with all other
    lanes empty: if it dies again, no other instance is blamed.
    """

    def __init__(self, worker: Worker, keeper: LeaseKeeper, lanes: int, beside: Beside | None = None) -> None:
        self._worker = worker
        self._beside = beside
        self._keeper = keeper
        self._lanes = lanes
        self._room = threading.Semaphore(lanes)
        self._count, self._in_hand = threading.Lock(), 0
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
        self._faults: deque[Exception] = deque()
        self._studies_at = 0.0

    def step_beside(self, due_s: float | None) -> bool:
        """Let the candidate go on where nobody waits; whether it has a film in hand."""
        return self._beside is not None and due_s != 0.0 and not self._in_hand and self._beside.step()

    @property
    def failed(self) -> bool:
        """A lane's fault waits to be raised."""
        return bool(self._faults)

    def has_room(self, timeout_s: float) -> bool:
        """Wait until a lane is free."""
        if free := self._room.acquire(timeout=timeout_s):
            self._room.release()
        return free

    def take_one(self) -> bool:
        """Claim one study or instance and begin it; False where none is due.

        Raises
        ------
        Exception : what the claim raised, or a lane since the last call.
        """
        if self._faults:
            raise self._faults.popleft()
        if self._beside is not None:
            self._beside.require_live()
        job = self._claim()
        if job is None:
            return False
        if job.alone and self._beside is not None:
            self._beside.join()
        if self._lanes == 1:
            self._finish(job)
        elif job.alone:
            self._finish_alone(job)
        else:
            self._room.acquire()
            with self._count:
                self._in_hand += 1
            self._threads.submit(self._run, partial(self._finish, job))
        return True

    def _claim(self) -> Job | StudyJob | None:
        """A ripe study goes before images, and is looked for again as long as there is one."""
        is_time = time.monotonic() >= self._studies_at
        job: Job | StudyJob | None = self._claim_study() if is_time else None
        job = job or self._worker.claim()
        return job if job is not None or is_time else self._claim_study()

    def _claim_study(self) -> StudyJob | None:
        study = self._worker.studies.claim()
        if study is None:
            self._studies_at = time.monotonic() + _STUDIES_EVERY_S
        return study

    def _finish(self, job: Job | StudyJob) -> None:
        with self._keeper.keeping(job):
            self._end(job)

    def _finish_alone(self, job: Job | StudyJob) -> None:
        with self._keeper.keeping(job):
            for _ in range(self._lanes):
                self._room.acquire()
            try:
                self._end(job)
            finally:
                self._room.release(self._lanes)

    def _end(self, job: Job | StudyJob) -> None:
        if isinstance(job, StudyJob):
            self._worker.studies.finish(job)
        else:
            self._worker.finish(job)

    def _run(self, finish: Callable[[], None]) -> None:
        try:
            finish()
        except Exception as error:
            self._faults.append(error)
        finally:
            with self._count:
                self._in_hand -= 1
            self._room.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the lanes finish what they have in hand."""
        self._threads.shutdown()
        if self._beside is not None:
            self._beside.join()


def _exit_hung() -> None:
    """C code cannot be interrupted: the process goes, the lease runs out, the attempt stays counted."""
    log.critical("hung: the job in hand did not end")
    os._exit(_EXIT_HUNG)
