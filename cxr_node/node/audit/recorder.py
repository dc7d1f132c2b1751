"""One process's part of the audit trail: takes events at once, writes them in a thread of its own.

Whoever reports never waits and never fails: an event is put into memory, grouped, and written with one fsync for
all that has come meanwhile. So a full disk or a hanging one stops neither a C-STORE nor a delivery. What cannot be
written is kept, up to a limit, and tried again; what was lost beyond it is counted, and told by an alert.

Transfers are grouped, as A.5.3.7 wants a message per study and not per image: by peer, study, direction and outcome,
until the study has been quiet for some seconds. A process that is killed takes the groups of these seconds with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from cxr_node.errors import ResourceError
from cxr_node.node.audit import messages
from cxr_node.node.audit.messages import Activity, Alert, Outcome, Participant, Reporter, Transfer
from cxr_node.node.audit.syslog import Sender, Severity
from cxr_node.node.audit.trail import Segments

log = logging.getLogger(__name__)

QUIET_S = 5.0
"""A group is written when nothing was added for so long,"""
LONGEST_S = 60.0
"""and when it is so old; the same for refusals of one peer."""
MAX_GROUPS = 4096
MAX_WAITING = 10_000
"""Messages in memory while the disk takes none; some 15 MB."""
MAX_REFUSED = 64
"""Refused peers that are told apart at a time; more are counted together: a flood must not flood the trail."""
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
        """Say that a peer was not let in, `times` since the last word of it; `cause` and `word` are of ours."""
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
    """One peer and one cause: the first is told at once, the others by one message when their time is up."""

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
        """Tell of the first refusal of a peer at once, and count those that follow within a minute."""
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
