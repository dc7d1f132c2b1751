"""Delivery: one courier thread for each destination, so one that is down does not delay the others.

Knows no protocol: `link` does. A delivery is settled after the answer; a process killed in between sends the same bytes
under the same SOP Instance UID once more, which changes nothing in an archive.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from functools import partial

from cxr_node.config.destinations import AnyDestination, Destination
from cxr_node.config.schema import Config
from cxr_node.errors import DeliveryError, LedgerLostError, ResourceError, UnreachableError
from cxr_node.node.audit.messages import Outcome
from cxr_node.node.audit.recorder import SILENT, Audit, alert
from cxr_node.node.deliver import removed_destinations
from cxr_node.node.deliver.commitment_loop import CommitmentLoop
from cxr_node.node.deliver.fetching import NOTHING_FETCHED, Fetching
from cxr_node.node.deliver.link import Link, ResultFile, StaleConnectionError, StoreReply, link_to
from cxr_node.node.deliver.loop import DeliveryContext, ServiceLoop
from cxr_node.node.deliver.outage import Outage
from cxr_node.node.deliver.sweeper import Sweeper
from cxr_node.node.deliver.transfer_audit import TransferAudit
from cxr_node.node.ledger import commitments, destination_health, queries
from cxr_node.node.ledger.lease_keeper import LeaseKeeper, worker_name
from cxr_node.node.ledger.machines import telling
from cxr_node.node.ledger.opening import await_ledger
from cxr_node.node.ledger.states import DeliveryJob, OwnReason
from cxr_node.node.ledger.wake import listening
from cxr_node.node.network.pictures import PictureCompressor
from cxr_node.node.network.rejections import Refusals
from cxr_node.node.process import metrics
from cxr_node.node.process.logs import describe
from cxr_node.node.process.notify import Role
from cxr_node.node.process.service_manager import Notifier
from cxr_node.node.retry import LOOK_AFTER_S, NO_PAUSE, NOTICE_STOP_S, Breaker, Pause, backoff_s
from cxr_node.node.spool.opening import open_spool
from cxr_node.node.spool.spool import Area, SpoolCorruptError
from cxr_node.result_kinds import SHAPES

log = logging.getLogger(__name__)


_STUCK_AFTER_S = 240.0  # longer than a slow send takes, shorter than WatchdogSec of the unit


def run(
    config: Config,
    stop: threading.Event,
    notifier: Notifier | None = None,
    audit: Audit = SILENT,
    compressor: PictureCompressor | None = None,
    fetching: Fetching = NOTHING_FETCHED,
) -> None:
    """Deliver what is due until `stop` is set; what is being sent is finished first.

    Parameters
    ----------
    fetching : what reads, names and keeps images; where earlier radiographs or worklists are configured, images are
        fetched with it

    Raises
    ------
    ConfigError : a destination's certificate or key cannot be used, or the store.
    ResourceError : a thread ended by itself; a new process may do better.
    """
    notifier = notifier or Notifier()
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # our own line says why a try failed
    with ExitStack() as stack:
        ledger = await_ledger(config, stop, notifier.progress)
        stack.callback(ledger.close)
        owner = stack.enter_context(worker_name(ledger, config.spool.path, Role.DELIVER))
        context = DeliveryContext(
            config=config,
            ledger=ledger,
            spool=open_spool(config.spool),
            owner=owner,
            keeper=stack.enter_context(closing(LeaseKeeper(ledger, config.work.lease_s))),
            audit=audit,
            refusals=Refusals(partial(alert, audit), level=logging.DEBUG),  # each try has a line of its own
        )
        stack.callback(context.refusals.close)
        context.spool.store.prepare()
        stack.enter_context(listening(ledger, config.spool.path, Role.DELIVER))
        stack.enter_context(telling(ledger, config.spool.path))
        context.clock.follow(ledger)
        loops = [loop for destination in config.destinations for loop in _loops(context, destination, compressor)]
        loops += fetching.loops(context)
        _put_in_order(context)
        threads = [threading.Thread(target=loop.run, args=(stop,), name=loop.name) for loop in loops]
        for thread in threads:
            thread.start()
        stack.callback(_join, stop, threads)
        notifier.ready()
        log.info("ready owner=%s destinations=%d", owner, len(config.destinations))
        _watch(context, list(zip(loops, threads, strict=True)), stop, notifier)
        notifier.stopping()


def _loops(
    context: DeliveryContext, destination: AnyDestination, compressor: PictureCompressor | None
) -> list[ServiceLoop]:
    """One thread sends; where commitment is wanted, another one asks for it: neither waits for the other."""
    link = link_to(destination, context.config.listen.ae_title, context.refusals, compressor)
    wait_s = destination.commitment_wait_s
    if wait_s is None:
        return [Courier(context, destination, link)]
    commitment = CommitmentLoop(context, destination, wait_s)
    return [Courier(context, destination, link, commitment), commitment]


def _put_in_order(context: DeliveryContext) -> None:
    """Settle what waits for a destination that is no longer configured, or no longer asked for commitment."""
    configured = {destination.name for destination in context.config.destinations}
    for name, number in removed_destinations.settle(context.ledger, configured).items():
        log.error("dead destination=%s deliveries=%d no longer configured", name, number)
    for name, number in removed_destinations.revive(context.ledger, configured).items():
        log.warning("revived destination=%s deliveries=%d configured again", name, number)
    asked = {destination.name for destination in context.config.destinations if destination.is_asked_to_commit}
    if abandoned := commitments.abandon(context.ledger, asked):
        log.error("accepted, not committed objects=%d no longer asked for commitment", abandoned)


def _watch(
    context: DeliveryContext,
    pairs: Sequence[tuple[ServiceLoop, threading.Thread]],
    stop: threading.Event,
    notifier: Notifier,
) -> None:
    """Feed the watchdog while every thread moves, and let retention sweep now and then."""
    sweeper = Sweeper(context.ledger, context.spool, context.config, context.owner)
    while not stop.wait(NOTICE_STOP_S):
        now = time.monotonic()
        context.ledger.database.require_whole()
        context.refusals.turn()
        dead = [loop.name for loop, thread in pairs if not thread.is_alive()]
        if dead and not stop.is_set():  # asked last: it may have been set since, and a loop have obeyed
            raise ResourceError(f"delivery to {', '.join(dead)} ended by itself")
        if all(now - loop.moved_at < _STUCK_AFTER_S for loop, _ in pairs):
            notifier.progress()
        if _has_stepped(context):
            sweeper.put_off()
        sweeper.turn()


def _has_stepped(context: DeliveryContext) -> bool:
    try:
        return context.clock.follow(context.ledger) != 0.0
    except ResourceError as error:
        log.error("clock stepped, due times of deliveries are not corrected yet: %s", error)
        return False


def _join(stop: threading.Event, threads: list[threading.Thread]) -> None:
    stop.set()
    for thread in threads:
        thread.join()


class Courier(ServiceLoop):
    """Serves one destination, in a thread of its own."""

    def __init__(
        self, context: DeliveryContext, destination: Destination, link: Link, commitment: CommitmentLoop | None = None
    ) -> None:
        super().__init__(context, destination.name, destination.idle_close_s)
        self._link = link
        self._audit = TransferAudit(context.audit, context.ledger, destination)
        self._commitment = commitment
        self._breaker = Breaker(context.config.delivery)
        self._outage = Outage(destination.name)
        self._last_fault = ""
        self._clock_steps = self._choice = 0
        self._wish = replace(destination.wish, live_share=context.config.live_share(destination))

    def forget_failures(self) -> None:
        """Try at once."""
        self._breaker.answered()

    def close(self) -> None:
        """Close the link."""
        self._link.close()

    def do_one(self) -> Pause:
        """Claim one delivery and bring it to an end, and say how long to pause.

        Raises
        ------
        ResourceError : the ledger or the spool cannot be used now.
        """
        context = self._context
        self._clock_steps = context.clock.steps
        job = context.ledger.claim_delivery(self.name, context.owner, context.config.work.lease_s)
        if job is None:
            due_s = queries.next_delivery_s(context.ledger, self.name)
            return Pause(LOOK_AFTER_S if due_s is None else min(LOOK_AFTER_S, due_s))
        try:
            if self._is_in_shadow(job):
                return self._shadowed(job)
            if self._is_replaced(job):
                return self._aside(job, OwnReason.REPLACED, "kept, not sent: a later report of the study was made")
            if self._is_late(job):
                return self._late(job)
            self._audit.look(job)
            if self._breaker.failures and self._is_old(job):  # it is down: what is too old needs no try of its own
                return self._dead(job, self._too_old(self._last_fault))
            with context.keeper.keeping(job):
                return self._send(job)
        except DeliveryError as error:
            return self._published(self._failed(job, error), error)
        except SpoolCorruptError as error:
            return self._dead(job, str(error))
        except (ResourceError, LedgerLostError):
            raise
        except Exception as error:
            permanent = job.attempts >= context.config.work.max_attempts
            return self._failed(job, DeliveryError(describe(error), permanent=permanent), logging.ERROR)

    def _send(self, job: DeliveryJob) -> Pause:
        started = time.monotonic()
        alternatives = [
            ResultFile(sop_class_uid=stored.sop_class_uid, size_bytes=stored.size_bytes)
            for stored in job.artifact.sop_class_choices
        ]
        self._choice = job.sop_class_choice or self._noted(job)
        try:
            reply = self._hand_over(job, alternatives)
        except StaleConnectionError:
            log.info("reopening destination=%s", self.name)
            reply = self._hand_over(job, alternatives)
        self._breaker.answered()
        self._outage.end()
        self._audit.ended()
        is_held = self._context.ledger.settle_delivered(job, reply.status, promised=self._commitment is not None)
        if self._commitment is not None:
            self._commitment.wake()
        metrics.attempted(self.name, "delivered")
        log.log(
            logging.WARNING if reply.is_warning else logging.INFO,
            "delivered destination=%s instance=%d kind=%s delivery=%d attempt=%d took_ms=%d %s",
            *(self.name, job.instance_id, job.artifact.kind, job.claim.row_id, job.attempts),
            *(round(1000 * (time.monotonic() - started)), reply.words if is_held else f"{reply.words} lost-lease"),
        )
        return NO_PAUSE

    def _hand_over(self, job: DeliveryJob, alternatives: Sequence[ResultFile]) -> StoreReply:
        accepted = self._link.open(alternatives)
        chosen = self._choose(job, alternatives, accepted)
        return self._link.store(chosen)

    def _choose(
        self, job: DeliveryJob, alternatives: Sequence[ResultFile], accepted: Sequence[ResultFile]
    ) -> ResultFile:
        """Choose the SOP Class that goes, and check every byte; the ledger knows it before the first byte leaves.

        What was chosen once stays chosen while the destination accepts it, whatever else it accepts by now: after an
        answer that was lost, another SOP Class would be a second object in the archive.
        """
        spool, artifact = self._context.spool, job.artifact
        before = alternatives[self._choice]
        chosen = before if before in accepted else accepted[0]
        number = self._choice = alternatives.index(chosen)
        content = spool.read(Area.RESULTS, artifact.sop_class_choices[number].content_sha256)
        if number != job.sop_class_choice:
            spool.note(artifact.content_sha256, job.destination, str(number))
            if not self._context.ledger.choose(job, number):
                raise DeliveryError("another process took this delivery over", permanent=False)
        self._audit.begins(chosen.sop_class_uid)
        return replace(chosen, content=content)

    def _noted(self, job: DeliveryJob) -> int:
        """What was chosen before the ledger was lost (`rebuild`); 0 where nothing was."""
        if not job.artifact.alternatives:
            return 0
        noted = self._context.spool.noted(job.artifact.content_sha256, job.destination)
        return int(noted) if noted.isdecimal() and int(noted) < len(job.artifact.sop_class_choices) else 0

    def _failed(self, job: DeliveryJob, error: DeliveryError, level: int = logging.WARNING) -> Pause:
        """Permanent or too old: DEAD. Else back to the queue; a destination without an answer is left alone.

        Where there was no connection the same delivery is tried again after the pause, and the attempt does not count:
        the log numbers the tries of the outage instead.
        """
        is_unreachable = isinstance(error, UnreachableError)
        attempt = job.attempts
        if error.permanent or error.answered:
            self._outage.end()
        elif level < logging.ERROR:
            tries = self._outage.count()
            attempt = tries if is_unreachable else attempt
        if error.permanent:
            self._breaker.answered()
            return self._dead(job, str(error), error.status)
        pause = self._breaker.refused(error.after_s) if error.answered else self._breaker.failed(error.after_s)
        self._last_fault = str(error)
        if self._is_old(job):
            return self._dead(job, self._too_old(str(error)), error.status)
        if error.answered:
            self._audit.ended(Outcome.MINOR_FAILURE, str(error))
        delay_s = max(pause.seconds, 0.0 if is_unreachable else backoff_s(self._context.config.delivery, job.attempts))
        self._context.ledger.postpone(
            job, delay_s=delay_s, status=error.status, detail=str(error), count_attempt=not is_unreachable
        )
        metrics.attempted(self.name, "postponed")
        log.log(
            level,
            "postponed destination=%s instance=%d delivery=%d attempt=%d again_in_s=%.1f %s",
            *(self.name, job.instance_id, job.claim.row_id, attempt, delay_s, error),
        )
        return pause

    def _published(self, pause: Pause, error: DeliveryError) -> Pause:
        """Publish the health of the destination to other processes."""
        if not self._breaker.failures:
            destination_health.answered(self._context.ledger, self.name)
        elif pause.seconds or not error.answered:
            destination_health.down(self._context.ledger, self.name, pause.seconds, str(error))
        return pause

    def _is_old(self, job: DeliveryJob) -> bool:
        """By a clock that did not step since the job was claimed; if it did, the next try decides."""
        age, delivery = self._context.ledger.now() - job.first_due_at, self._context.config.delivery
        return age >= timedelta(hours=delivery.max_age_h) and not self._has_stepped()

    def _is_late(self, job: DeliveryJob) -> bool:
        """By such a clock too; where it stepped, what may be too late is sent."""
        not_after_min = self._context.config.delivery.not_after_min
        if not_after_min is None or self._waited(job) < timedelta(minutes=not_after_min):
            return False
        return not self._has_stepped()

    def _waited(self, job: DeliveryJob) -> timedelta:
        return self._context.clock.age(self._context.ledger, job)

    def _has_stepped(self) -> bool:
        self._context.clock.follow(self._context.ledger)
        return self._context.clock.steps != self._clock_steps

    def _is_replaced(self, job: DeliveryJob) -> bool:
        """Whether it is a message that a later report replaced: of two about one order, the last to come counts."""
        return not SHAPES[job.artifact.kind].is_dicom and queries.is_outdated(self._context.ledger, job)

    def _is_in_shadow(self, job: DeliveryJob) -> bool:
        """Whether it was due before its destination was in shadow: nothing leaves that no person has let out."""
        if job.is_released or self._wish.live_share == 1.0:
            return False
        study_instance_uid, _ = queries.study_of(self._context.ledger, job)
        return self._wish.is_shadow(study_instance_uid)

    def _shadowed(self, job: DeliveryJob) -> Pause:
        detail = "kept, not sent: its destination is in shadow now"
        self._context.ledger.settle_shadowed(job, detail + self._tried(job))
        log.info(
            "shadow destination=%s instance=%d kind=%s delivery=%d %s",
            *(self.name, job.instance_id, job.artifact.kind, job.claim.row_id, detail),
        )
        return NO_PAUSE

    def _tried(self, job: DeliveryJob) -> str:
        """An archive may have it from an earlier try."""
        tries = job.attempts - 1
        words = f"; tried {tries} {'time' if tries == 1 else 'times'} before, and not known to have arrived"
        return words if tries else ""

    def _late(self, job: DeliveryJob) -> Pause:
        """Nothing is sent; the event says where it was tried before."""
        after_min = self._waited(job).total_seconds() / 60
        detail = f"kept, not sent, after {after_min:.0f} min{self._tried(job)}"
        metrics.too_late(self.name)
        return self._aside(job, OwnReason.TOO_LATE, detail)

    def _aside(self, job: DeliveryJob, reason: OwnReason, detail: str) -> Pause:
        self._context.ledger.settle_unsent(job, reason, detail)
        log.info(
            "%s destination=%s instance=%d kind=%s delivery=%d %s",
            *(reason.replace("-", " "), self.name, job.instance_id, job.artifact.kind, job.claim.row_id, detail),
        )
        return NO_PAUSE

    def _too_old(self, why: str) -> str:
        return f"gave up after {self._context.config.delivery.max_age_h:g} h: {why}"

    def _dead(self, job: DeliveryJob, detail: str, status: int | None = None) -> Pause:
        self._audit.ended(Outcome.SERIOUS_FAILURE, detail)
        self._context.ledger.settle_delivery_dead(job, status=status, detail=detail)
        metrics.attempted(self.name, "dead")
        log.error(
            "dead destination=%s instance=%d delivery=%d attempt=%d %s",
            *(self.name, job.instance_id, job.claim.row_id, job.attempts, detail),
        )
        return NO_PAUSE
