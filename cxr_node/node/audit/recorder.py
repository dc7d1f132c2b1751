"""One process's part of the audit trail: takes events at once, writes them in a thread of its own.

Reporting never blocks and never fails: an event is queued in memory, grouped, and written with one fsync for
everything queued meanwhile. So a full or hanging disk stops neither a C-STORE nor a delivery. Messages that cannot be
written are kept up to a limit and retried; losses beyond it are counted and reported by an alert.

Transfers are grouped, as A.5.3.7 wants a message per study and not per image: by peer, study, direction and outcome,
until the study has been quiet for some seconds. A process that is killed takes the groups of these seconds with it.
"""

from __future__ import annotations

import getpass
import logging
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from cxr_node.config.schema import Config
from cxr_node.errors import ResourceError
from cxr_node.node.audit import messages
from cxr_node.node.audit.messages import (
    Act,
    Activity,
    Alert,
    Outcome,
    Participant,
    Reporter,
    Sender,
    Severity,
    Transfer,
    operator_act,
)
from cxr_node.node.audit.trail import Segments, TrailFolder
from cxr_node.node.process import machine
from cxr_node.node.spool.spool import make_folders

if TYPE_CHECKING:
    from cxr_node.node.network.rejections import Refusal

log = logging.getLogger(__name__)

QUIET_S = 5.0
"""A group is written when nothing was added for so long,"""
LONGEST_S = 60.0
"""and when it is so old; the same for refusals of one peer."""
MAX_GROUPS = 4096
MAX_WAITING = 10_000
"""Messages in memory while the disk takes none; some 15 MB."""
MAX_REFUSED = 64
"""Refused peers counted one by one at a time; more are counted together: a flood must not flood the trail."""
_TURN_S = 1.0
_CLOSE_S = 10.0
_MANY = Participant(ae_title="", host="many")


class Audit(Protocol):
    """What the rooms report to. No method waits, and none fails."""

    def begins(self, transfer: Transfer, sop_class_uid: str) -> None:
        """Say that the first byte of an instance is about to leave."""
        ...

    def transferred(self, transfer: Transfer, sop_class_uid: str) -> None:
        """Say that an instance was received or sent, or was not taken."""
        ...

    def refused(self, peer: Participant, cause: str, times: int = 1, word: str = "refused") -> None:
        """Record that a peer was refused `times` since the last report; `cause` and `word` are our own words."""
        ...


class Silent:
    """Reports nothing: audit is off."""

    def begins(self, transfer: Transfer, sop_class_uid: str) -> None:
        """Do nothing."""

    def transferred(self, transfer: Transfer, sop_class_uid: str) -> None:
        """Do nothing."""

    def refused(self, peer: Participant, cause: str, times: int = 1, word: str = "refused") -> None:
        """Do nothing."""


SILENT: Audit = Silent()


@dataclass(slots=True)
class _Group:
    """What belongs into one message."""

    first_at: float
    last_at: float
    ended_at: datetime
    sop_classes: Counter[str] = field(default_factory=Counter)

    def is_due(self, now: float) -> bool:
        return now - self.last_at >= QUIET_S or now - self.first_at >= LONGEST_S


@dataclass(slots=True)
class _Refusals:
    """One peer and one cause: the first refusal is reported at once, the rest in one message a minute later."""

    first_at: float
    peer: Participant
    word: str
    untold: int = 0


class Auditor:
    """Collects, groups and writes; `close` ends it."""

    def __init__(self, reporter: Reporter, segments: Segments, clock: Callable[[], float] = time.monotonic) -> None:
        self._reporter = reporter
        self._sender = Sender(host=reporter.host, pid=reporter.pid)
        self._segments = segments
        self._clock = clock
        self._lock = threading.Lock()
        self._groups: dict[Transfer, _Group] = {}
        self._begun: dict[Transfer, float] = {}
        self._refusals: dict[tuple[str, str], _Refusals] = {}
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._is_down = False
        self._wake, self._ending = threading.Event(), threading.Event()
        self._put(messages.application_activity(reporter, Activity.START, Outcome.SUCCESS, _now()))
        self.write()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def begins(self, transfer: Transfer, sop_class_uid: str) -> None:
        """One message for the first instance of a study, none for those that follow closely."""
        with self._lock:
            if transfer in self._begun or len(self._begun) >= MAX_GROUPS:
                return
            self._begun[transfer] = self._clock()
            message = messages.begin_transferring(self._reporter, transfer, {sop_class_uid: 1}, _now())
            self._put(message)
        self._wake.set()

    def transferred(self, transfer: Transfer, sop_class_uid: str) -> None:
        """Add one instance to its group."""
        with self._lock:
            now = self._clock()
            group = self._groups.get(transfer)
            if group is None:
                if len(self._groups) >= MAX_GROUPS:
                    self._lost += 1
                    return
                group = self._groups[transfer] = _Group(first_at=now, last_at=now, ended_at=_now())
            group.last_at, group.ended_at = now, _now()
            group.sop_classes[sop_class_uid] += 1

    def refused(self, peer: Participant, cause: str, times: int = 1, word: str = "refused") -> None:
        """Report a peer's first refusal at once, and count those that follow within a minute."""
        with self._lock:
            key = (peer.host, cause)
            if key not in self._refusals and len(self._refusals) >= MAX_REFUSED:
                key, peer = (_MANY.host, cause), _MANY
            refusals = self._refusals.get(key)
            if refusals is not None:
                refusals.untold += times
                return
            self._refusals[key] = _Refusals(first_at=self._clock(), peer=peer, word=word)
            self._alert(peer, _refused(word, cause, times))
        self._wake.set()

    def write(self) -> None:
        """Write what waits; what cannot be written stays."""
        with self._lock:
            lines = list(self._waiting)
        if not lines:
            return
        try:
            self._segments.append(lines)
        except ResourceError as error:
            if not self._is_down:
                log.error("audit messages wait in memory: %s", error)
            self._is_down = True
            return
        with self._lock:
            for _ in lines:
                self._waiting.popleft()
            lost, self._lost = self._lost, 0
            if lost:
                self._alert(None, f"{lost} events were not recorded", Alert.RECORDING_STARTED)
        if self._is_down:
            log.warning("audit messages are written again lost=%d", lost)
        self._is_down = False

    def close(self, outcome: Outcome = Outcome.SUCCESS) -> None:
        """Write everything, and that the process stops. A disk that hangs is not waited for."""
        self._ending.set()
        self._wake.set()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            log.error("audit messages lost waiting=%d: the disk does not answer", len(self._waiting))
            return
        with self._lock:
            self._gather(all_of_them=True)
            self._put(messages.application_activity(self._reporter, Activity.STOP, outcome, _now()))
        self.write()
        self.write()  # the alert that the first one may have left
        if self._waiting:
            log.error("audit messages lost waiting=%d", len(self._waiting))
        self._segments.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            self._wake.wait(_TURN_S)
            self._wake.clear()
            with self._lock:
                self._gather()
            self.write()
            if self._is_down:
                self._ending.wait(_TURN_S)

    def _gather(self, all_of_them: bool = False) -> None:
        """Turn what is due into messages; the caller holds the lock."""
        now = self._clock()
        for transfer in [one for one, group in self._groups.items() if all_of_them or group.is_due(now)]:
            group = self._groups.pop(transfer)
            self._begun.pop(replace(transfer, outcome=Outcome.SUCCESS, words=""), None)
            self._put(messages.instances_transferred(self._reporter, transfer, group.sop_classes, group.ended_at))
        for transfer in [one for one, at in self._begun.items() if now - at >= LONGEST_S]:
            del self._begun[transfer]
        for key in [key for key, one in self._refusals.items() if all_of_them or now - one.first_at >= LONGEST_S]:
            refusals = self._refusals.pop(key)
            if refusals.untold:
                self._alert(refusals.peer, _refused(refusals.word, key[1], refusals.untold, more=True))

    def _alert(self, peer: Participant | None, words: str, alert: Alert = Alert.NODE_AUTHENTICATION) -> None:
        at = _now()
        self._put(messages.security_alert(self._reporter, alert, peer, words, at), Severity.WARNING)

    def _put(self, message: bytes, severity: Severity = Severity.NOTICE) -> None:
        """Keep a message to be written; the oldest stays, the newest is lost where there are too many."""
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            return
        self._waiting.append(self._sender.message(message, severity, _now()))


def _now() -> datetime:
    return datetime.now(UTC)


def _refused(word: str, cause: str, times: int, more: bool = False) -> str:
    return f"{word} {times} times more: {cause}" if more or times > 1 else f"{word}: {cause}"


_MIB = 1024 * 1024


def trail_folder(config: Config) -> TrailFolder:
    """Where the trail lies. In a spool: it is made, and closed to others, before the first message is in it.

    Raises
    ------
    ConfigError : the spool is a shared folder. ResourceError : its disk is full, gone or broken.
    """
    audit = config.audit
    if audit.folder is None:
        make_folders(config.spool.path)
    return TrailFolder(
        folder=audit.folder or config.spool.path / "audit",
        keep_days=audit.keep_days,
        max_bytes=audit.max_mib * _MIB,
        is_collected=audit.syslog is not None,
    )


def alert(audit: Audit, refusal: Refusal) -> None:
    """The trail has refused peers and associations that ended without a release; a refused C-STORE is in the log."""
    from cxr_node.node.network.rejections import ALERTS, told_as  # pynetdicom, which the page does without

    if refusal.cause in ALERTS:
        peer, word = Participant(ae_title=refusal.ae_title, host=refusal.host), told_as(refusal.cause)
        audit.refused(peer, refusal.cause, refusal.times, word)


@contextmanager
def recording(config: Config, role: str) -> Iterator[Audit]:
    """Record that a role started, what it reports, and that it stopped, or died of an error.

    Raises
    ------
    ConfigError, ResourceError : the folder cannot be used.
    """
    if not config.audit.enabled:
        yield SILENT
        return
    auditor = Auditor(_reporter(config, role), Segments(trail_folder(config), role))
    outcome = Outcome.MAJOR_FAILURE
    try:
        yield auditor
        outcome = Outcome.SUCCESS
    finally:
        auditor.close(outcome)


class People:
    """What people do, by a command or on the page: each message is on the disk before the call returns.

    Raises, at the start and by each method
    ---------------------------------------
    ConfigError, ResourceError : the trail cannot be written, and nothing may be done that nobody can look up.
    """

    def __init__(self, config: Config, role: str) -> None:
        self._reporter = _reporter(config, role)
        self._sender = Sender(host=self._reporter.host, pid=self._reporter.pid)
        self._segments = Segments(trail_folder(config), role) if config.audit.enabled else None
        self._lock = threading.Lock()
        self._write()

    def did(self, person: str, act: Act) -> None:
        """Somebody erased or admitted a study."""
        self._write(operator_act(self._reporter, person, act, _now()))

    def changed(self, person: str, words: str, host: str | None = None) -> None:
        """Somebody changed what the node does; `words` without patient data."""
        self._write(messages.restricted_use(self._reporter, person, host or self._reporter.host, words, _now()))

    def authenticated(self, kind: messages.Authentication, person: str, host: str, outcome: Outcome) -> None:
        """Somebody logged in, failed to, or logged out."""
        who = Participant(ae_title=person, host=host)
        self._write(messages.user_authentication(self._reporter, kind, who, outcome, _now()))

    def close(self) -> None:
        """Close the segment."""
        if self._segments is not None:
            self._segments.close()

    def _write(self, *content: bytes) -> None:
        if self._segments is not None:
            with self._lock:
                self._segments.append([self._sender.message(each, Severity.NOTICE, _now()) for each in content])


@contextmanager
def by_operator(config: Config, command: str, by: str) -> Iterator[Callable[[Act | str], None]]:
    """Record what an operator does by a command, each deed when it is done; the trail is open before the first.

    A deed is an act on a study; in plain words, it is a setting for all of them.

    Raises
    ------
    ConfigError, ResourceError : as `People`.
    """
    people = People(config, command)
    try:
        yield lambda deed: people.changed(by, deed) if isinstance(deed, str) else people.did(by, deed)
    finally:
        people.close()


def source_id(config: Config) -> str:
    """Audit Source ID of this machine: the node's, and where several machines are one node, the machine's name too.

    Raises
    ------
    ResourceError : the spool, which keeps that name, cannot be used.
    """
    node = config.audit.source_id or config.results.installation_id
    return node if config.ledger.url is None else f"{node}@{machine.name(config.spool.path)}"


def _reporter(config: Config, role: str) -> Reporter:
    return Reporter(
        source_id=source_id(config),
        role=role,
        pid=os.getpid(),
        host=socket.gethostname(),
        ae_title=config.listen.ae_title,
    )


def account() -> str:
    """The operator's account: under `sudo -u cxr-node` the person behind it."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # no such account: a container
        return f"uid {os.getuid()}"


@contextmanager
def forwarding(config: Config) -> Iterator[None]:
    """Forward the trail of all roles to the collector while the block runs.

    Raises
    ------
    ConfigError : certificate, key or CA cannot be used, or the folder cannot.
    """
    if not config.audit.enabled or config.audit.syslog is None:
        yield
        return
    from cxr_node.node.audit.forwarder import Forwarder  # it imports TLS, which the other roles do not need

    forwarder, stop = Forwarder(config.audit.syslog, trail_folder(config)), threading.Event()
    thread = threading.Thread(target=forwarder.run, args=(stop,), name="audit-forwarder", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
