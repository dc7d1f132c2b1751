"""Delivery: one courier thread per destination, so that a dead destination delays no other.

Knows no DICOM: links are made by `destinations`. A delivery is settled after the answer; a process killed in
between sends the same bytes under the same SOP Instance UID once more, which changes nothing in an archive.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from cxr_node.config.schema import Config, Destination
from cxr_node.errors import DeliveryError, LedgerLostError, ResourceError
from cxr_node.node.audit.messages import Direction, Outcome, Participant, Transfer
from cxr_node.node.audit.recorder import SILENT, Audit, alert
from cxr_node.node.deliver import removed_destinations, retention
from cxr_node.node.deliver.commitment_loop import Asker
from cxr_node.node.deliver.loop import LOOK_AFTER_S, NOTICE_STOP_S, Home, Rounds
from cxr_node.node.deliver.sop_class_choice import Ladder
from cxr_node.node.deliver.storage_scu import Link, link
from cxr_node.node.deliver.transcode import PLAIN, Squeezer
from cxr_node.node.ledger import commitments, destination_health, queries
from cxr_node.node.ledger.lease_keeper import Keeper, office
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import DeliveryJob
from cxr_node.node.network.association import UnreachableError
from cxr_node.node.network.rejections import Refusals
from cxr_node.node.process.logs import describe
from cxr_node.node.process.notify import Role
from cxr_node.node.process.supervisor import Notifier
from cxr_node.node.retry import GO_ON, Breaker, Rest, backoff_s
from cxr_node.node.spool.spool import Spool, SpoolCorruptError

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outage:
    """Tries in a row to which a destination gave no answer, whichever object they were made with."""

    destination: str
    tries: int = 0
    _since: float = 0.0

    def goes_on(self) -> int:
        """One more try failed; which one of this outage it was."""
        if self.tries == 0:
            self._since = time.monotonic()
        self.tries += 1
        return self.tries

    def is_over(self) -> None:
        """An answer came, whatever it was."""
        if self.tries:
            down_s = time.monotonic() - self._since
            log.info("back destination=%s tries=%d down_s=%.0f", self.destination, self.tries, down_s)
        self.tries = 0


class Told:
    """One job at a time, as its courier has it. For one thread."""

    def __init__(self, audit: Audit, ledger: Ledger, destination: Destination) -> None:
        address = destination.address
        self._audit = audit
        self._ledger = ledger
        self._participant = Participant(ae_title=address.ae_title, host=address.host)
        self._transfer = self._of("", "")
        self._sop_class_uid = ""

    def look(self, job: DeliveryJob) -> None:
        """Find out of which study the next sending is.

        Raises
        ------
        ResourceError : the ledger cannot be read now.
        """
        if self._audit is SILENT:
            return
        self._transfer = self._of(*queries.study_of(self._ledger, job))
        self._sop_class_uid = job.artifact.rungs[job.rung].sop_class_uid

    def begins(self, sop_class_uid: str) -> None:
        """Say that the first byte is about to leave."""
        self._sop_class_uid = sop_class_uid
        self._audit.begins(self._transfer, sop_class_uid)

    def ended(self, outcome: Outcome = Outcome.SUCCESS, words: str = "") -> None:
        """Say that the destination has it, or why not; the words are ours, never the destination's."""
        self._audit.transferred(replace(self._transfer, outcome=outcome, words=words), self._sop_class_uid)

    def _of(self, study_instance_uid: str, patient_key: str) -> Transfer:
        return Transfer(
            direction=Direction.SENT,
            participant=self._participant,
            study_instance_uid=study_instance_uid,
            patient_key=patient_key,
        )


_STUCK_AFTER_S = 240.0  # longer than a slow send takes, shorter than WatchdogSec of the unit
_HUNG_AFTER_LEASES = 5


def run(
    config: Config,
    stop: threading.Event,
    notifier: Notifier | None = None,
    audit: Audit = SILENT,
    squeezer: Squeezer = PLAIN,
) -> None:
    """Deliver what is due until `stop` is set; sends in hand are finished first. `squeezer` compresses pictures.

    Raises
    ------
    ConfigError : a destination's certificate or key cannot be used.
    ResourceError : a courier ended on its own; a new process may do better.
    """
    notifier = notifier or Notifier()
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # why a try failed is in its one line of ours
    spool, ledger = Spool(config.spool.path), Ledger.open(config.spool.path, repair=True)
    with ExitStack() as stack:
        stack.callback(ledger.close)
        owner = stack.enter_context(office(ledger, config.spool.path, Role.DELIVER))
        lease_s = config.work.lease_s
        keeper = stack.enter_context(Keeper(ledger, lease_s, _HUNG_AFTER_LEASES * lease_s))
        refusals = Refusals(partial(alert, audit), level=logging.DEBUG)  # each try has a line of its own
        home = Home(
            config=config, ledger=ledger, spool=spool, owner=owner, keeper=keeper, audit=audit, refusals=refusals
        )
        home.clock.follow(ledger)
        stack.callback(home.refusals.close)
        hands = [hand for destination in config.destinations for hand in _hands(home, destination, squeezer)]
        _put_in_order(home)
        threads = [threading.Thread(target=hand.run, args=(stop,), name=hand.name) for hand in hands]
        for thread in threads:
            thread.start()
        stack.callback(_join, stop, threads)
        notifier.ready()
        log.info("ready owner=%s destinations=%d", owner, len(config.destinations))
        _watch(home, list(zip(hands, threads, strict=True)), stop, notifier)
        notifier.stopping()


def _watch(home: Home, pairs: list[tuple[Rounds, threading.Thread]], stop: threading.Event, notifier: Notifier) -> None:
    """Feed the watchdog while every thread moves, and let retention sweep now and then."""
    sweep_at = time.monotonic()
    while not stop.wait(NOTICE_STOP_S):
        now = time.monotonic()
        home.ledger.database.require_whole()
        home.refusals.turn()
        if dead := [hand.name for hand, thread in pairs if not thread.is_alive()]:
            raise ResourceError(f"delivery to {', '.join(dead)} ended by itself")
        if all(now - hand.moved_at < _STUCK_AFTER_S for hand, _ in pairs):
            notifier.progress()
        if _stepped(home):
            sweep_at = now + _pause_s(home)  # a clock that was just put forward must not delete anything
        if now >= sweep_at:
            sweep_at = now + _pause_s(home)
            _sweep(home)


def _stepped(home: Home) -> bool:
    try:
        return home.clock.follow(home.ledger) != 0.0
    except ResourceError as error:
        log.error("clock stepped, deliveries are not dated anew yet: %s", error)
        return False


def _pause_s(home: Home) -> float:
    kept = home.config.spool
    return retention.pause_s(min(kept.retention_days, kept.rejected_days))


def _sweep(home: Home) -> None:
    kept = home.config.spool
    try:
        if swept := retention.sweep(home.ledger, home.spool, kept.retention_days, kept.rejected_days):
            log.info("retention instances=%d", swept)
        if kept.history_days is not None and (forgotten := retention.forget(home.ledger, kept.history_days)):
            log.info("forgotten instances=%d", forgotten)
    except ResourceError as error:
        log.error("retention put off: %s", error)


def _join(stop: threading.Event, threads: list[threading.Thread]) -> None:
    stop.set()
    for thread in threads:
        thread.join()


def _hands(home: Home, destination: Destination, squeezer: Squeezer) -> list[Rounds]:
    """One thread sends; where commitment is wanted, another one asks for it: neither waits for the other."""
    link_ = link(destination, home.config.listen.ae_title, home.refusals, squeezer)
    if destination.commitment_wait_h is None:
        return [Courier(home, destination, link_)]
    asker = Asker(home, destination, destination.commitment_wait_h)
    return [Courier(home, destination, link_, asker), asker]


def _put_in_order(home: Home) -> None:
    """What waits for a destination that is gone, or for a word that nobody asks for any more, waits no longer."""
    configured = {destination.name for destination in home.config.destinations}
    for name, number in removed_destinations.settle(home.ledger, configured).items():
        log.error("dead destination=%s deliveries=%d it is not configured any more", name, number)
    for name, number in removed_destinations.revive(home.ledger, configured).items():
        log.warning("revived destination=%s deliveries=%d it is configured again", name, number)
    asking = {to.name for to in home.config.destinations if to.commitment_wait_h is not None}
    if abandoned := commitments.abandon(home.ledger, asking):
        log.error("accepted, not committed objects=%d their destinations are not asked any more", abandoned)


class Courier(Rounds):
    """Serves one destination, in a thread of its own."""

    def __init__(self, home: Home, destination: Destination, link_: Link, asker: Asker | None = None) -> None:
        super().__init__(home, destination.name, destination.idle_close_s)
        self._link = link_
        self._told = Told(home.audit, home.ledger, destination)
        self._asker = asker
        self._breaker = Breaker(home.config.delivery)
        self._outage = Outage(destination.name)
        self._last_fault = ""
        self._steps = 0

    def urged(self) -> None:
        """Try at once."""
        self._breaker.answered()

    def close(self) -> None:
        """Release the association."""
        self._link.close()

    def do_one(self) -> Rest:
        """Claim one delivery and bring it to an end, and say what to do next.

        Raises
        ------
        ResourceError : the ledger or the spool cannot be used now.
        """
        home = self._home
        self._steps = home.clock.steps
        job = home.ledger.claim_delivery(self.name, home.owner, home.config.work.lease_s)
        if job is None:
            due_s = queries.next_delivery_s(home.ledger, self.name)
            return Rest(min(LOOK_AFTER_S, LOOK_AFTER_S if due_s is None else due_s))
        try:
            self._told.look(job)
            if self._breaker.failures and self._is_old(job):  # it does not answer: what is too old need not ask again
                return self._dead(job, self._too_old(self._last_fault))
            with home.keeper.keeping(job):
                return self._send(job)
        except DeliveryError as error:
            return self._seen(self._failed(job, error), error)
        except SpoolCorruptError as error:
            return self._dead(job, str(error))
        except (ResourceError, LedgerLostError):
            raise
        except Exception as error:
            permanent = job.attempts >= home.config.work.max_attempts
            return self._failed(job, DeliveryError(describe(error), permanent=permanent), logging.ERROR)

    def _send(self, job: DeliveryJob) -> Rest:
        started, ladder = time.monotonic(), Ladder(self._home, job, self._told.begins)
        receipt = self._link.send(*ladder.parcels, choose=ladder.choose)
        self._breaker.answered()
        self._outage.is_over()
        self._told.ended()
        held = self._home.ledger.settle_delivered(job, receipt.status, promised=self._asker is not None)
        if self._asker is not None:
            self._asker.nudge()
        log.log(
            logging.INFO if receipt.status == 0 else logging.WARNING,
            "delivered destination=%s instance=%d kind=%s delivery=%d attempt=%d took_ms=%d status=0x%04X %s",
            *(self.name, job.instance_id, job.artifact.kind, job.claim.row_id, job.attempts),
            *(round(1000 * (time.monotonic() - started)), receipt.status, receipt.words if held else "lost-lease"),
        )
        return GO_ON

    def _failed(self, job: DeliveryJob, error: DeliveryError, level: int = logging.WARNING) -> Rest:
        """Permanent or too old: DEAD. Else back to the queue; a destination without an answer is left alone.

        Where no association came about the same delivery tries again after the pause, and the attempt does not count:
        then the log tells the try of the outage.
        """
        nothing_sent = isinstance(error, UnreachableError)
        attempt = job.attempts
        if error.permanent or error.status is not None:
            self._outage.is_over()
        elif level < logging.ERROR:
            tries = self._outage.goes_on()
            attempt = tries if nothing_sent else attempt
        if error.permanent:
            self._breaker.answered()
            return self._dead(job, str(error), error.status)
        rest = self._breaker.failed() if error.status is None else self._breaker.refused()
        self._last_fault = str(error)
        if self._is_old(job):
            return self._dead(job, self._too_old(str(error)), error.status)
        if error.status is not None:
            self._told.ended(Outcome.MINOR_FAILURE, str(error))
        delay_s = rest.seconds if nothing_sent else backoff_s(self._home.config.delivery, job.attempts)
        self._home.ledger.postpone(job, delay_s=delay_s, status=error.status, detail=str(error), forgive=nothing_sent)
        log.log(
            level,
            "postponed destination=%s instance=%d delivery=%d attempt=%d again_in_s=%.1f %s",
            *(self.name, job.instance_id, job.claim.row_id, attempt, delay_s, error),
        )
        return rest

    def _seen(self, rest: Rest, error: DeliveryError) -> Rest:
        """Let other processes see how the destination fares."""
        if not self._breaker.failures:
            destination_health.answered(self._home.ledger, self.name)
        elif rest.seconds or error.status is None:
            destination_health.down(self._home.ledger, self.name, rest.seconds, str(error))
        return rest

    def _is_old(self, job: DeliveryJob) -> bool:
        """By a clock that did not step since the job was claimed; if it did, the next try will tell."""
        home = self._home
        if home.ledger.now() - job.first_due_at < timedelta(hours=home.config.delivery.max_age_h):
            return False
        home.clock.follow(home.ledger)
        return home.clock.steps == self._steps

    def _too_old(self, why: str) -> str:
        return f"gave up after {self._home.config.delivery.max_age_h:g} h: {why}"

    def _dead(self, job: DeliveryJob, detail: str, status: int | None = None) -> Rest:
        self._told.ended(Outcome.SERIOUS_FAILURE, detail)
        self._home.ledger.settle_delivery_dead(job, status=status, detail=detail)
        log.error(
            "dead destination=%s instance=%d delivery=%d attempt=%d %s",
            *(self.name, job.instance_id, job.claim.row_id, job.attempts, detail),
        )
        return GO_ON
