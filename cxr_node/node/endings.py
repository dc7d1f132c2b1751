"""Why an association ended that was not released, from the event and the state in which it came (PS3.8 9.2).

Knows no socket. What ended it before any of these events (a PDU too long, a refusal) has been told already.
"""

from __future__ import annotations

from dataclasses import dataclass

from pynetdicom.fsm import TRANSITION_TABLE

from cxr_node.node.refusals import Cause

_AWAITS_REQUEST, _AWAITS_ANSWER_OF_OURS, _ESTABLISHED, _AWAITS_CLOSING = "Sta2", "Sta3", "Sta6", "Sta13"
_ABORTING = ("AA-1", "AA-8")
_METHODS = (b"GET ", b"HEAD", b"POST", b"OPTI", b"PUT ", b"CONN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the connection knows of its peer so far."""

    first: bytes
    """The first bytes that came, up to six."""
    said: str
    """An abort of the peer's, in words."""
    fault: str
    """What was wrong with a PDU, in words; "" where nobody has said."""
    is_idle: bool
    """The peer has been silent for longer than it may."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended; `Cause.PROBE` is to be counted, and not to be told."""

    cause: Cause
    detail: str


def judge(event: str, state: str, heard: Heard) -> Ending | None:
    """Say why an event ends the association; None where it does not, or where it ends as it should.

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
        case "Evt19":
            invalid = in_words(heard.first) if state == _AWAITS_REQUEST else "a PDU that cannot be read"
            return Ending(Cause.PROTOCOL, heard.fault or invalid)
        case _ if TRANSITION_TABLE.get((event, state)) in _ABORTING:
            return Ending(Cause.PROTOCOL, "a PDU out of its place")
        case _:
            return None


def in_words(first: bytes) -> str:
    """Guess from its first bytes what a connection that does not speak DICOM speaks."""
    if first[:2] == b"\x16\x03":
        return "a TLS handshake, where plain DICOM is spoken"
    if first[:4] in _METHODS:
        return "an HTTP request"
    return "a PDU that cannot be read" if first[:1] and 1 <= first[0] <= 7 else "it does not speak DICOM"
