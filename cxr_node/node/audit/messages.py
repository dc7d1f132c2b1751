"""Audit messages as PS3.15 A.5 words them: one event in, one XML document out (schema: A.5.1, events: A.5.3).

Knows no file, no socket and no patient. Where the standard asks for the patient's ID these messages carry the
ledger's digest of it, a pseudonym that is the same for all images of one study: the node keeps no identifier of
a person outside the objects themselves. To identify the patient, look the study up in the archive.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum, StrEnum
from xml.etree import ElementTree  # writes only: nothing that comes from outside is parsed

from cxr_node.domain import InstanceRef, Origin

UNKNOWN_PATIENT = "unknown"
"""Where an object names no patient."""
Code = tuple[str, str, str]
"""csd-code, codeSystemName, originalText."""
_SOURCE, _DESTINATION = ("110153", "DCM", "Source Role ID"), ("110152", "DCM", "Destination Role ID")
_APPLICATION = ("110150", "DCM", "Application")
_STUDY, _NODE = ("110180", "DCM", "Study Instance UID"), ("110182", "DCM", "Node ID")
_PATIENT = ("2", "RFC-3881", "Patient Number")  # A.5.1.2.4
_APPLICATION_SERVER = "4"  # A.5.1.2.1
_MACHINE_NAME, _IP_ADDRESS = "1", "2"  # A.5.1.1, NetworkAccessPointTypeCode
MSGID = "DICOM+RFC3881"
_AUTHORIZATION = 10  # facility: security and authorization messages (A.6)
_APP_NAME = "cxr-node"
_PRINTABLE = {chr(code) for code in range(33, 127)}  # RFC 5424 6: PRINTUSASCII
_MAX_HOST_CHARS = 255


class Outcome(IntEnum):
    """EventOutcomeIndicator (A.5.1.1). In an alert, minor means that the node held (A.5.3.11)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


class Action(StrEnum):
    """EventActionCode of a transfer: whether the receiver had the instances already (A.5.3.7)."""

    CREATE = "C"
    READ = "R"


class Activity(Enum):
    """Application Activity (A.5.3.1)."""

    START = ("110120", "DCM", "Application Start")
    STOP = ("110121", "DCM", "Application Stop")


class Alert(Enum):
    """What a Security Alert is about (CID 403)."""

    NODE_AUTHENTICATION = ("110126", "DCM", "Node Authentication")
    RECORDING_STARTED = ("110134", "DCM", "Audit Recording Started")
    RESTRICTED_FUNCTION = ("110132", "DCM", "Use of Restricted Function")


class Authentication(Enum):
    """User Authentication (A.5.3.12)."""

    LOGIN = ("110122", "DCM", "Login")
    LOGOUT = ("110123", "DCM", "Logout")


class Direction(Enum):
    """Which way instances went."""

    RECEIVED = "received"
    SENT = "sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """The process that reports: UserID is `role[pid]`, as the service manager's log has it (A.5.2.1)."""

    source_id: str
    role: str
    pid: int
    host: str
    ae_title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """The other side; its AE title is what it claims, "" where it has claimed none."""

    ae_title: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Instances of one study that went one way between the node and one peer, with one outcome."""

    direction: Direction
    participant: Participant
    study_instance_uid: str
    patient_key: str
    action: Action = Action.READ
    outcome: Outcome = Outcome.SUCCESS
    words: str = ""
    """What went wrong; without patient data."""


class Deed(Enum):
    """What an operator did with a study: EventActionCode and EventID (A.5.3.6, A.5.3.8)."""

    ERASED = ("D", ("110105", "DCM", "DICOM Study Deleted"))
    ACCESSED = ("U", ("110103", "DCM", "DICOM Instances Accessed"))
    """Accepted whose they are, or set aside; the words tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """An operator's deed on one study."""

    deed: Deed
    study_instance_uid: str
    patient_key: str
    sop_classes: Mapping[str, int]
    words: str
    """What it was, without patient data."""
    outcome: Outcome = Outcome.SUCCESS


def received(ref: InstanceRef, origin: Origin, is_new: bool) -> Transfer:
    """Say what the receipt of one object is to the audit."""
    return Transfer(
        direction=Direction.RECEIVED,
        participant=Participant(ae_title=origin.calling_ae_title, host=origin.peer_host),
        study_instance_uid=ref.study_instance_uid,
        patient_key=ref.patient_key,
        action=Action.CREATE if is_new else Action.READ,
    )


def application_activity(reporter: Reporter, activity: Activity, outcome: Outcome, at: datetime) -> bytes:
    """The node's process started or stopped (A.5.3.1)."""
    message = _message(("110100", "DCM", "Application Activity"), "E", outcome, at)
    _type(message, activity.value)
    _ourselves(message, reporter, requests=False, role=_APPLICATION)
    return _finish(message, reporter)


def begin_transferring(reporter: Reporter, transfer: Transfer, sop_classes: Mapping[str, int], at: datetime) -> bytes:
    """The node is about to send instances of a study (A.5.3.3); `sop_classes` are those of the first."""
    message = _message(("110102", "DCM", "Begin Transferring DICOM Instances"), "E", Outcome.SUCCESS, at)
    return _transfer(message, reporter, transfer, sop_classes)


def instances_transferred(
    reporter: Reporter, transfer: Transfer, sop_classes: Mapping[str, int], at: datetime
) -> bytes:
    """Instances of a study were received or sent (A.5.3.7); `sop_classes` counts them by SOP Class UID."""
    event = ("110104", "DCM", "DICOM Instances Transferred")
    message = _message(event, transfer.action, transfer.outcome, at, transfer.words)
    return _transfer(message, reporter, transfer, sop_classes)


def security_alert(reporter: Reporter, alert: Alert, peer: Participant | None, words: str, at: datetime) -> bytes:
    """A peer was refused, or the record itself has a gap (A.5.3.11)."""
    message = _message(("110113", "DCM", "Security Alert"), "E", Outcome.MINOR_FAILURE, at, words)
    _type(message, alert.value)
    _ourselves(message, reporter, requests=False, role=_APPLICATION)
    if peer is not None:
        _other(message, peer, requests=False, role=None)
    subject = peer.host if peer is not None else reporter.host
    _described(message, subject, (peer.ae_title if peer is not None else "") or subject, words)
    return _finish(message, reporter)


def user_authentication(
    reporter: Reporter, kind: Authentication, person: Participant, outcome: Outcome, at: datetime
) -> bytes:
    """Somebody logged in on the page, failed to, or logged out (A.5.3.12); `person.ae_title` is the user's name."""
    message = _message(("110114", "DCM", "User Authentication"), "E", outcome, at)
    _type(message, kind.value)
    _participant(message, (person.ae_title or "unknown", ""), person.host, True, None)
    _ourselves(message, reporter, requests=False, role=_APPLICATION)
    return _finish(message, reporter)


def restricted_use(reporter: Reporter, person: str, host: str, words: str, at: datetime) -> bytes:
    """An operator changed what the node does: a retry, a hold, a release (A.5.3.11, Use of Restricted Function)."""
    message = _message(("110113", "DCM", "Security Alert"), "E", Outcome.SUCCESS, at, words)
    _type(message, Alert.RESTRICTED_FUNCTION.value)
    _participant(message, (person, ""), host, True, None)
    _ourselves(message, reporter, requests=False, role=_APPLICATION)
    _described(message, reporter.host, reporter.ae_title or reporter.host, words)
    return _finish(message, reporter)


def operator_act(reporter: Reporter, person: str, act: Act, at: datetime) -> bytes:
    """An operator erased instances of a study or admitted its patient; `person` is the operator's account."""
    action, event = act.deed.value
    message = _message(event, action, act.outcome, at, act.words)
    _participant(message, (person, ""), reporter.host, True, None)
    _ourselves(message, reporter, requests=False, role=_APPLICATION)
    _about(message, act.study_instance_uid, act.patient_key, act.sop_classes)
    return _finish(message, reporter)


def _described(message: ElementTree.Element, host: str, name: str, words: str) -> None:
    node = _object(message, ("2", "13"), host, _NODE, name)
    detail = base64.b64encode(words.encode()).decode()
    ElementTree.SubElement(node, "ParticipantObjectDetail", {"type": "Alert Description", "value": detail})


def _transfer(
    message: ElementTree.Element, reporter: Reporter, transfer: Transfer, sop_classes: Mapping[str, int]
) -> bytes:
    """The sender comes first; it also requested the association (A.5.3.3, A.5.3.7)."""
    if transfer.direction is Direction.SENT:
        _ourselves(message, reporter, requests=True, role=_SOURCE)
        _other(message, transfer.participant, requests=False, role=_DESTINATION)
    else:
        _other(message, transfer.participant, requests=True, role=_SOURCE)
        _ourselves(message, reporter, requests=False, role=_DESTINATION)
    _about(message, transfer.study_instance_uid, transfer.patient_key, sop_classes)
    return _finish(message, reporter)


def _about(
    message: ElementTree.Element, study_instance_uid: str, patient_key: str, sop_classes: Mapping[str, int]
) -> None:
    """Name the study, with how many instances of which SOP Class, and the patient by a pseudonym."""
    study = _object(message, ("2", "3"), study_instance_uid, _STUDY, "study")
    description = ElementTree.SubElement(study, "ParticipantObjectDescription")
    for uid, number in sorted(sop_classes.items()):
        if not uid:  # a message: it has none
            continue
        ElementTree.SubElement(description, "SOPClass", {"UID": uid, "NumberOfInstances": str(number)})
    _object(message, ("1", "1"), patient_key or UNKNOWN_PATIENT, _PATIENT, "pseudonym")


def _message(event: Code, action: str, outcome: Outcome, at: datetime, words: str = "") -> ElementTree.Element:
    message = ElementTree.Element("AuditMessage")
    when = at.isoformat(timespec="milliseconds")
    attributes = {"EventActionCode": action, "EventDateTime": when, "EventOutcomeIndicator": str(outcome.value)}
    identification = ElementTree.SubElement(message, "EventIdentification", attributes)
    _code(identification, "EventID", event)
    if words:
        ElementTree.SubElement(identification, "EventOutcomeDescription").text = _clean(words)
    return message


def _type(message: ElementTree.Element, kind: Code) -> None:
    """EventTypeCode has its place right after EventID."""
    element = ElementTree.Element("EventTypeCode")
    message[0].insert(1, element)
    _describe(element, kind)


def _ourselves(message: ElementTree.Element, reporter: Reporter, *, requests: bool, role: Code) -> None:
    user = f"{reporter.role}[{reporter.pid}]"
    _participant(message, (user, reporter.ae_title), reporter.host, requests, role)


def _other(message: ElementTree.Element, peer: Participant, *, requests: bool, role: Code | None) -> None:
    _participant(message, (peer.ae_title or peer.host, peer.ae_title), peer.host, requests, role)


def _participant(
    message: ElementTree.Element, names: tuple[str, str], host: str, requests: bool, role: Code | None
) -> None:
    """ActiveParticipant; AlternativeUserID as A.5.2.2 has it, the network access point as A.5.2.4."""
    user, ae_title = names
    attributes = {"UserID": user} | ({"AlternativeUserID": f"AETITLES={ae_title}"} if ae_title else {})
    attributes |= {"UserIsRequestor": "true" if requests else "false", "NetworkAccessPointID": host}
    attributes["NetworkAccessPointTypeCode"] = _IP_ADDRESS if _is_address(host) else _MACHINE_NAME
    cleaned = {name: _clean(value) for name, value in attributes.items()}
    participant = ElementTree.SubElement(message, "ActiveParticipant", cleaned)
    if role is not None:
        _code(participant, "RoleIDCode", role)


def _object(
    message: ElementTree.Element, kind: tuple[str, str], identifier: str, id_type: Code, name: str
) -> ElementTree.Element:
    """ParticipantObjectIdentification; `kind` is its type and its role. The schema demands a name, or a query."""
    attributes = {"ParticipantObjectID": _clean(identifier), "ParticipantObjectTypeCode": kind[0]}
    attributes["ParticipantObjectTypeCodeRole"] = kind[1]
    found = ElementTree.SubElement(message, "ParticipantObjectIdentification", attributes)
    _code(found, "ParticipantObjectIDTypeCode", id_type)
    ElementTree.SubElement(found, "ParticipantObjectName").text = _clean(name)
    return found


def _code(parent: ElementTree.Element, name: str, code: Code) -> None:
    _describe(ElementTree.SubElement(parent, name), code)


def _describe(element: ElementTree.Element, code: Code) -> None:
    for attribute, value in zip(("csd-code", "codeSystemName", "originalText"), code, strict=True):
        element.set(attribute, value)


def _finish(message: ElementTree.Element, reporter: Reporter) -> bytes:
    """Add the source, which stands behind the participants, and write it in ASCII on one line."""
    place = sum(element.tag in ("EventIdentification", "ActiveParticipant") for element in message)
    source = ElementTree.Element("AuditSourceIdentification", {"AuditSourceID": _clean(reporter.source_id)})
    ElementTree.SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    message.insert(place, source)
    written: bytes = ElementTree.tostring(message, "us-ascii")
    return written


def _clean(text: str) -> str:
    """What a peer claims may hold control characters, which no XML document can."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return False
    return True


class Severity(IntEnum):
    """RFC 5424 6.2.1, those that A.6 names."""

    WARNING = 4
    NOTICE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Process that writes, as the header names it."""

    host: str
    pid: int

    def message(self, content: bytes, severity: Severity, at: datetime) -> bytes:
        """SYSLOG-MSG; without structured data, and without a byte order mark as the content is ASCII."""
        host = "".join(char if char in _PRINTABLE else "-" for char in self.host)[:_MAX_HOST_CHARS] or "-"
        stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        header = f"<{_AUTHORIZATION * 8 + severity}>1 {stamp} {host} {_APP_NAME} {self.pid} {MSGID} - "
        return header.encode() + content
