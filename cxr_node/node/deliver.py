"""Delivery: one courier thread per destination, so that a dead destination delays no other.

Knows no DICOM: links are made by `destinations`. A delivery is settled after the answer; a process killed in
between sends the same bytes under the same SOP Instance UID once more, which changes nothing in an archive.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import timedelta

from cxr_node.config import Config, Delivery
from cxr_node.errors import DeliveryError, ResourceError
from cxr_node.node import history, retention
from cxr_node.node.audit_messages import Outcome
from cxr_node.node.auditor import SILENT, Audit
from cxr_node.node.destinations import Link, Parcel, link
from cxr_node.node.jobs import DeliveryJob, DeliveryState, StoredArtifact
from cxr_node.node.journal import describe
from cxr_node.node.ledger import Ledger
from cxr_node.node.sendings import Told
from cxr_node.node.service import Notifier
from cxr_node.node.spool import Area, Spool, SpoolCorruptError
from cxr_node.node.tenure import kept, office
from cxr_node.node.wakeup import Bell, Role

log = logging.getLogger(__name__)

_LOOK_AFTER_S = 30.0  # a ring that was lost costs at most this
_NOTICE_STOP_S = 0.25
_PAUSE_S = 5.0  # after a fault of this machine
_MAX_PAUSE_S = 60.0  # so often an unreachable destination is tried with one delivery; the others wait untried
_SWEEP_EVERY_S = 3600.0
_STUCK_AFTER_S = 240.0  # longer than a slow send takes, shorter than WatchdogSec of the unit
_HUNG_AFTER_LEASES = 5


def run(config: Config, stop: threading.Event, notifier: Notifier | None = None, audit: Audit = SILENT) -> None:
    """Deliver what is due until `stop` is set; sends in hand are finished first.

    Raises
    ------
    ConfigError : a destination's certificate or key cannot be used.
    ResourceError : a courier ended on its own; a new process may do better.
    """
    notifier = notifier or Notifier()
    spool, ledger = Spool(config.spool.path), Ledger.open(config.spool.path)
    with ExitStack() as stack:
        stack.callback(ledger.close)
        owner = stack.enter_context(office(ledger, config.spool.path, Role.DELIVER))
        home = Home(config=config, ledger=ledger, spool=spool, owner=owner, audit=audit)
        couriers = [
            Courier(home, destination.name, link(destination, config.listen.ae_title), destination.idle_close_s)
            for destination in config.destinations
        ]
        _warn_of_forgotten(home)
        threads = [threading.Thread(target=courier.run, args=(stop,), name=courier.name) for courier in couriers]
        for thread in threads:
            thread.start()
        stack.callback(_join, stop, threads)
        notifier.ready()
        log.info("ready owner=%s destinations=%d", owner, len(couriers))
        _watch(home, list(zip(couriers, threads, strict=True)), stop, notifier)
        notifier.stopping()


def _watch(
    home: Home, pairs: list[tuple[Courier, threading.Thread]], stop: threading.Event, notifier: Notifier
) -> None:
    """Feed the watchdog while every courier moves, and let retention sweep now and then."""
    sweep_at = time.monotonic()
    while not stop.wait(_NOTICE_STOP_S):
        now = time.monotonic()
        if dead := [courier.name for courier, thread in pairs if not thread.is_alive()]:
            raise ResourceError(f"delivery to {', '.join(dead)} ended by itself")
        if all(now - courier.moved_at < _STUCK_AFTER_S for courier, _ in pairs):
            notifier.progress()
        if now >= sweep_at:
            sweep_at = now + _SWEEP_EVERY_S
            _sweep(home)


def _sweep(home: Home) -> None:
    try:
        if swept := retention.sweep(home.ledger, home.spool, home.config.spool.retention_days):
            log.info("retention instances=%d", swept)
    except ResourceError as error:
        log.error("retention put off: %s", error)


def _join(stop: threading.Event, threads: list[threading.Thread]) -> None:
    stop.set()
    for thread in threads:
        thread.join()


def _warn_of_forgotten(home: Home) -> None:
    """Deliveries to a destination that is no longer configured wait for its return."""
    known = {destination.name for destination in home.config.destinations}
    for name, states in history.queues(home.ledger).items():
        waiting = states[DeliveryState.READY] + states[DeliveryState.WAIT]
        if waiting and name not in known:
            log.warning("destination=%s is not configured any more, waiting=%d", name, waiting)


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """What all couriers of a process share."""

    config: Config
    ledger: Ledger
    spool: Spool
    owner: str
    audit: Audit = SILENT


@dataclass(frozen=True, slots=True)
class Rest:
    """How long a courier sleeps, and whether a ring may wake it."""

    seconds: float
    deaf: bool = False


_GO_ON = Rest(0.0)


class Ladder:
    """The rungs of one delivery: one of them goes, and the ledger knows which before its first byte leaves.

    What was chosen once stays chosen while the destination takes it, whatever else it takes by now: after an
    answer that was lost, another rung would be a second object in the archive.
    """

    def __init__(self, home: Home, job: DeliveryJob, begins: Callable[[str], None] = lambda sop_class: None) -> None:
        self.parcels = tuple(_parcel(home.spool, stored) for stored in job.artifact.rungs)
        self._home = home
        self._job = job
        self._rung = job.rung
        self._begins = begins

    def choose(self, taken: Sequence[Parcel]) -> Parcel:
        """Name the rung that goes, of those that the destination takes; every byte of it was checked."""
        known = self.parcels[self._rung]
        parcel = known if known in taken else taken[0]
        rung = self.parcels.index(parcel)
        self._home.spool.read(Area.RESULTS, self._job.artifact.rungs[rung].content_sha256)
        if rung != self._rung and not self._home.ledger.choose(self._job, rung):
            raise DeliveryError("another process took this delivery over", permanent=False)
        self._rung = rung
        self._begins(parcel.sop_class_uid)
        return parcel


def _parcel(spool: Spool, stored: StoredArtifact) -> Parcel:
    path = spool.locate(Area.RESULTS, stored.content_sha256)
    return Parcel(path=path, sop_class_uid=stored.sop_class_uid, size_bytes=stored.size_bytes)


class Courier:
    """Serves one destination, in a thread of its own."""

    def __init__(self, home: Home, name: str, link_: Link, idle_close_s: float) -> None:
        self.name = name
        self.moved_at = time.monotonic()
        """When its loop last came round; for the watchdog."""
        self._home = home
        self._link = link_
        self._told = Told(home.audit, home.ledger, next(to for to in home.config.destinations if to.name == name))
        self._idle_close_s = idle_close_s

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set."""
        with Bell(self._home.config.spool.path, Role.DELIVER) as bell:
            try:
                while not stop.is_set():
                    self._sleep(self._try_one(), bell, stop)
            finally:
                self._link.close()

    def _try_one(self) -> Rest:
        try:
            return self.do_one()
        except ResourceError as error:
            log.error("paused destination=%s pause_s=%.0f %s", self.name, _PAUSE_S, error)
            return Rest(_PAUSE_S, deaf=True)

    def _sleep(self, rest: Rest, bell: Bell, stop: threading.Event) -> None:
        """Sleep in short pieces, for the sake of `stop`; release an association that has nothing to do."""
        begun = self.moved_at = time.monotonic()
        closed = False
        while not stop.is_set() and (slept_s := self.moved_at - begun) < rest.seconds:
            if not closed and slept_s >= self._idle_close_s:
                self._link.close()
                closed = True
            piece_s = min(_NOTICE_STOP_S, rest.seconds - slept_s)
            if rest.deaf:
                stop.wait(piece_s)
            elif bell.wait(piece_s):
                return
            self.moved_at = time.monotonic()

    def do_one(self) -> Rest:
        """Claim one delivery and bring it to an end, and say what to do next.

        Raises
        ------
        ResourceError : the ledger or the spool cannot be used now.
        """
        home = self._home
        job = home.ledger.claim_delivery(self.name, home.owner, home.config.work.lease_s)
        if job is None:
            due_s = history.next_delivery_s(home.ledger, self.name)
            return Rest(min(_LOOK_AFTER_S, _LOOK_AFTER_S if due_s is None else due_s))
        try:
            self._told.look(job)
            with self._lease(job):
                return self._send(job)
        except DeliveryError as error:
            return self._failed(job, error)
        except SpoolCorruptError as error:
            return self._dead(job, str(error))
        except ResourceError:
            raise
        except Exception as error:
            log.error("failed destination=%s %s", self.name, describe(error))
            permanent = job.attempts >= home.config.work.max_attempts
            return self._failed(job, DeliveryError(describe(error), permanent=permanent))

    def _send(self, job: DeliveryJob) -> Rest:
        started, ladder = time.monotonic(), Ladder(self._home, job, self._told.begins)
        receipt = self._link.send(*ladder.parcels, choose=ladder.choose)
        self._told.ended()
        held = self._home.ledger.settle_delivered(job, receipt.status)
        log.log(
            logging.INFO if receipt.status == 0 else logging.WARNING,
            "delivered destination=%s kind=%s delivery=%d attempt=%d took_ms=%d status=0x%04X %s",
            *(self.name, job.artifact.kind, job.claim.row_id, job.attempts),
            *(round(1000 * (time.monotonic() - started)), receipt.status, receipt.words if held else "lost-lease"),
        )
        return _GO_ON

    def _failed(self, job: DeliveryJob, error: DeliveryError) -> Rest:
        """Permanent or too old: DEAD. Else back to the queue; a destination without an answer is left alone."""
        delivery = self._home.config.delivery
        age = self._home.ledger.now() - job.first_due_at
        if error.permanent or age >= timedelta(hours=delivery.max_age_h):
            words = str(error) if error.permanent else f"gave up after {delivery.max_age_h:g} h: {error}"
            return self._dead(job, words, error.status)
        if error.status is not None:
            self._told.ended(Outcome.MINOR_FAILURE, str(error))
        delay_s = backoff_s(delivery, job.attempts)
        self._home.ledger.postpone(job, delay_s=delay_s, status=error.status, detail=str(error))
        log.warning(
            "postponed destination=%s delivery=%d attempt=%d again_in_s=%.1f %s",
            *(self.name, job.claim.row_id, job.attempts, delay_s, error),
        )
        return Rest(min(delay_s, _MAX_PAUSE_S), deaf=True) if error.status is None else _GO_ON

    def _dead(self, job: DeliveryJob, detail: str, status: int | None = None) -> Rest:
        self._told.ended(Outcome.SERIOUS_FAILURE, detail)
        self._home.ledger.settle_delivery_dead(job, status=status, detail=detail)
        log.error("dead destination=%s delivery=%d attempt=%d %s", self.name, job.claim.row_id, job.attempts, detail)
        return _GO_ON

    def _lease(self, job: DeliveryJob) -> AbstractContextManager[None]:
        lease_s = self._home.config.work.lease_s
        return kept(self._home.ledger, job, lease_s, _HUNG_AFTER_LEASES * lease_s, lambda: None)


def backoff_s(delivery: Delivery, attempts: int) -> float:
    """Doubling delay with full-range jitter in its upper half: destinations back from the dead are not stormed."""
    longest_s = min(delivery.max_delay_s, delivery.first_delay_s * 2.0 ** min(attempts - 1, 30))
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
