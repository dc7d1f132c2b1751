"""Refused peers and associations that ended without a release: counted by cause, logged at a limited rate.

The first refusal of a peer for a cause is a line at once; the others of the next minute are one line at its end.
Knows no protocol. PS3.15 A.5.3.11: a refusal may be a Security Alert, which `on_refusal` is for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from pynetdicom.fsm import TRANSITION_TABLE

from cxr_node.node.network import proxy_protocol
from cxr_node.node.process import metrics

log = logging.getLogger(__name__)

MINUTE_S = 60.0
TOTALS_EVERY_S = 3600.0
MAX_WINDOWS = 1024
"""More peers than this are reported as one."""
OTHERS = "others"


_AWAITS_REQUEST, _AWAITS_ANSWER_OF_OURS, _ESTABLISHED, _AWAITS_CLOSING = "Sta2", "Sta3", "Sta6", "Sta13"
_ABORTING = ("AA-1", "AA-8")
_METHODS = (b"GET ", b"HEAD", b"POST", b"OPTI", b"PUT ", b"CONN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the connection knows about its peer so far."""

    first: bytes
    """The first bytes that came, up to six."""
    said: str
    """An abort of the peer's, in words."""
    fault: str
    """What was wrong with a PDU, in words; "" if unknown."""
    is_idle: bool
    """The peer has been silent for too long."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended; `Cause.PROBE` is counted and not logged."""

    cause: Cause
    detail: str


def judge(event: str, state: str, heard: Heard) -> Ending | None:
    """Why an event ends the association; None if it does not, or if the end is regular.

    Evt15: we abort. Evt16: the peer aborts. Evt17: the connection is closed. Evt18: time is up. Evt19: no valid PDU.
    """
    match event:
        case _ if state == _AWAITS_CLOSING:
            return None
        case "Evt16":
            return Ending(Cause.PEER_ABORT, heard.said)
        case "Evt17" if state == _AWAITS_REQUEST:
            words = "the connection was closed in the middle of a request"
            return Ending(Cause.PEER_CLOSED, words) if heard.first else Ending(Cause.PROBE, "")
        case "Evt17" if state in (_AWAITS_ANSWER_OF_OURS, _ESTABLISHED):
            return Ending(Cause.PEER_CLOSED, "the connection was closed without a release")
        case "Evt18":
            return Ending(Cause.NO_REQUEST, "no association was requested in time")
        case "Evt15":
            idle = Ending(Cause.IDLE, "the peer was silent for longer than listen.idle_timeout_s")
            return idle if heard.is_idle else Ending(Cause.PROTOCOL, "a message that is not served here")
        case "Evt19" if state == _AWAITS_REQUEST and proxy_protocol.is_begun(heard.first):
            return Ending(Cause.PROXY_HEADER, proxy_protocol.UNASKED)
        case "Evt19":
            invalid = in_words(heard.first) if state == _AWAITS_REQUEST else "a PDU that cannot be read"
            return Ending(Cause.PROTOCOL, heard.fault or invalid)
        case _ if TRANSITION_TABLE.get((event, state)) in _ABORTING:
            return Ending(Cause.PROTOCOL, "a PDU out of its place")
        case _:
            return None


def in_words(first: bytes) -> str:
    """Guess the protocol of a connection that does not speak DICOM from its first bytes."""
    if first[:2] == b"\x16\x03":
        return "a TLS handshake, where plain DICOM is spoken"
    if first[:4] in _METHODS:
        return "an HTTP request"
    return "a PDU that cannot be read" if first[:1] and 1 <= first[0] <= 7 else "it does not speak DICOM"


class Cause(StrEnum):
    """Why a peer was refused."""

    TOO_MANY_CONNECTIONS = "too-many-connections"
    GAVE_WAY = "gave-way"
    """It had not requested an association yet, and the limit of connections was reached."""
    PROXY_HEADER = "proxy-header"
    """A PROXY protocol header where none is believed, or none where one must be."""
    TLS = "tls"
    PDU_TOO_LONG = "pdu-too-long"
    TOO_SLOW = "too-slow"
    PROTOCOL = "protocol"
    VERSION = "protocol-version"
    CALLED_AE_TITLE = "called-ae-title"
    CALLING_AE_TITLE = "calling-ae-title"
    HOST = "host"
    """The AE title is known, but not from that host."""
    CERTIFICATE = "certificate"
    """The AE title is known, but not with that certificate."""
    KEY = "key"
    """Over HTTP: no key, or one that no sender has."""
    LOCAL_LIMIT = "local-limit"
    OUT_OF_RESOURCES = "out-of-resources"
    """This and the next three: a C-STORE that was answered with such a failure."""
    MISMATCH = "mismatch"
    INVALID_INSTANCE = "invalid-instance"
    CANNOT_UNDERSTAND = "cannot-understand"
    COMMITMENT_REPORT = "commitment-report"
    DROPPED = "dropped"
    """An association that ended before its object was complete."""
    FAULT = "fault"
    """A fault of ours that ended one association."""
    PEER_ABORT = "peer-abort"
    PEER_CLOSED = "peer-closed"
    """It closed the connection without a release."""
    IDLE = "idle"
    """We aborted an association on which nothing came."""
    NO_REQUEST = "no-request"
    """A connection on which nothing came."""
    DRAINING = "draining"
    """An association was requested while the receiver stops."""
    STOPPING = "stopping"
    """We aborted an association because the receiver stops."""
    PROBE = "probe"
    """A connection closed without a byte, as port monitors do: counted, not logged."""
    DESTINATION_REJECTED = "destination-rejected"
    """This and the next four: of an association that we requested."""
    DESTINATION_ABORTED = "destination-aborted"
    DESTINATION_MUTE = "destination-mute"
    """It did not answer in time, or closed the connection."""
    DESTINATION_CONFUSED = "destination-confused"
    """Its answer does not match our message."""
    DESTINATION_AWAY = "destination-away"
    """Nothing listens there: counted and logged, but not audited."""


UNWELCOME = frozenset(
    {
        *(Cause.TOO_MANY_CONNECTIONS, Cause.GAVE_WAY, Cause.PROXY_HEADER, Cause.TLS, Cause.LOCAL_LIMIT, Cause.VERSION),
        *(Cause.CALLED_AE_TITLE, Cause.CALLING_AE_TITLE, Cause.HOST, Cause.CERTIFICATE, Cause.KEY),
    }
)
"""Causes for which a peer is refused: each is a Security Alert."""
ENDED = frozenset(
    {
        *(Cause.PEER_ABORT, Cause.PEER_CLOSED, Cause.IDLE, Cause.NO_REQUEST, Cause.STOPPING),
        *(Cause.DESTINATION_REJECTED, Cause.DESTINATION_ABORTED, Cause.DESTINATION_MUTE, Cause.DESTINATION_CONFUSED),
    }
)
"""An association ended, and we did not refuse it."""
_NO_REFUSAL = ENDED | {Cause.DROPPED, Cause.FAULT, Cause.DESTINATION_AWAY}
ALERTS = UNWELCOME | ENDED | {Cause.PDU_TOO_LONG, Cause.TOO_SLOW, Cause.PROTOCOL, Cause.FAULT}
"""What is audited; a refused C-STORE is in the log only."""


def told_as(cause: Cause) -> str:
    """First words of a line or an alert."""
    return "association ended" if cause in ENDED else "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refusal, or all further ones of a minute."""

    cause: Cause
    host: str
    ae_title: str = ""
    """The peer's AE title; empty before its request."""
    detail: str = ""
    times: int = 1


@dataclass(slots=True)
class _Window:
    first: Refusal
    ends_at: float
    more: int = 0


class Refusals:
    """All of one receiver. Threads share it."""

    def __init__(self, on_refusal: Callable[[Refusal], None] = lambda _: None, level: int = logging.WARNING) -> None:
        self._on_refusal = on_refusal
        self._level = level
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, Cause], _Window] = {}
        self._totals: Counter[Cause] = Counter()
        self._told_of = 0
        self._totals_at = time.monotonic() + TOTALS_EVERY_S

    @property
    def totals(self) -> Counter[Cause]:
        """Counts since the start, by cause."""
        with self._lock:
            return Counter(self._totals)

    def add(self, refusal: Refusal) -> None:
        """Count a refusal, and log it if it is the first of its minute."""
        if refusal.cause not in _NO_REFUSAL:
            metrics.refused(refusal.cause)
        with self._lock:
            self._totals[refusal.cause] += 1
            key = refusal.host, refusal.cause
            if key not in self._windows and len(self._windows) >= MAX_WINDOWS:
                key = OTHERS, refusal.cause
                refusal = replace(refusal, host=OTHERS, ae_title="")
            window = self._windows.get(key)
            if window is not None:
                window.more += 1
                return
            self._windows[key] = _Window(refusal, time.monotonic() + MINUTE_S)
        self._tell(refusal)

    def count(self, cause: Cause) -> None:
        """Count what is not worth a line."""
        with self._lock:
            self._totals[cause] += 1

    def turn(self) -> None:
        """Log the minutes that are over, and a total every hour; called periodically."""
        now = time.monotonic()
        self._end(now)
        if now >= self._totals_at:
            self._totals_at = now + TOTALS_EVERY_S
            self._tell_totals()

    def close(self) -> None:
        """Log what has not been logged yet."""
        self._end(float("inf"))
        self._tell_totals()

    def _end(self, now: float) -> None:
        """End the windows that are due; a peer that went on gets another minute."""
        more = []
        with self._lock:
            for key, window in [(key, one) for key, one in self._windows.items() if one.ends_at <= now]:
                if window.more:
                    more.append(replace(window.first, times=window.more))
                    window.more, window.ends_at = 0, now + MINUTE_S
                else:
                    del self._windows[key]
        for refusal in more:
            self._tell(replace(refusal, detail=f"… and {refusal.times} more"))

    def _tell(self, refusal: Refusal) -> None:
        parts = (refusal.host, refusal.ae_title, refusal.cause, refusal.detail)
        log.log(self._level, "%s peer=%s ae=%r cause=%s %s", told_as(refusal.cause), *parts)
        self._on_refusal(refusal)

    def _tell_totals(self) -> None:
        totals = self.totals
        if totals.total() != self._told_of:
            self._told_of = totals.total()
            words = " ".join(f"{cause}={number}" for cause, number in totals.items())
            log.info("refused or ended since the start %s", words)
