"""Audit messages are what PS3.15 A.5 says, and hold nobody's name."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from cxr_node.node.audit import messages
from cxr_node.node.audit.messages import Activity, Alert, Direction, Outcome, Participant, Reporter, Transfer
from tests.node import audit_schema

AT = datetime(2026, 1, 31, 12, 0, 0, 250_000, UTC)
REPORTER = Reporter(source_id="node-1", role="receive", pid=4242, host="cxr1", ae_title="CXR_NODE")
PARTICIPANT = Participant(ae_title="MODALITY", host="10.0.0.7")
STUDY, PATIENT = "1.2.3", "ab" * 32
DX, SR = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.88.11"


def transfer(**fields: object) -> Transfer:
    values = {"direction": Direction.RECEIVED, "participant": PARTICIPANT, "patient_key": PATIENT}
    return Transfer(**values | {"study_instance_uid": STUDY} | fields)  # type: ignore[arg-type]


ALL = {
    "start": messages.application_activity(REPORTER, Activity.START, Outcome.SUCCESS, AT),
    "stop": messages.application_activity(REPORTER, Activity.STOP, Outcome.MAJOR_FAILURE, AT),
    "begin": messages.begin_transferring(REPORTER, transfer(direction=Direction.SENT), {SR: 1}, AT),
    "received": messages.instances_transferred(REPORTER, transfer(), {DX: 2, SR: 1}, AT),
    "refused": messages.instances_transferred(
        REPORTER, transfer(direction=Direction.SENT, outcome=Outcome.MINOR_FAILURE, words="0xA700: busy"), {SR: 1}, AT
    ),
    "nobody": messages.instances_transferred(REPORTER, transfer(patient_key=""), {DX: 1}, AT),
    "alert": messages.security_alert(REPORTER, Alert.NODE_AUTHENTICATION, PARTICIPANT, "refused: CALLING_AE_TITLE", AT),
    "gap": messages.security_alert(REPORTER, Alert.RECORDING_STARTED, None, "7 events were not recorded", AT),
}


@pytest.mark.parametrize("content", ALL.values(), ids=ALL.keys())
def test_every_message_is_valid(content: bytes) -> None:
    assert audit_schema.faults(content) == []
    assert b"\n" not in content
    assert content.isascii()


def test_the_schema_of_the_tests_finds_faults() -> None:
    assert audit_schema.faults(b"<Audit/>")
    for before, after in (
        (b'EventOutcomeIndicator="0"', b'EventOutcomeIndicator="1"'),
        (b'UserIsRequestor="false" ', b""),
        (b"<AuditSourceIdentification", b"<Other/><AuditSourceIdentification"),
        (b'codeSystemName="DCM" ', b""),
        (b"T12:00:00.250+00:00", b" 12:00"),
    ):
        assert before in ALL["received"]
        assert audit_schema.faults(ALL["received"].replace(before, after, 1)), before


def event(content: bytes) -> tuple[str, ...]:
    root = ElementTree.fromstring(content)
    found = root.find("EventIdentification")
    assert found is not None
    codes = [code.get("csd-code", "") for code in found]
    return found.get("EventActionCode", ""), found.get("EventOutcomeIndicator", ""), *[code for code in codes if code]


def test_events_have_the_codes_of_the_standard() -> None:
    """PS3.15 A.5.3.1, A.5.3.3, A.5.3.7, A.5.3.11; CID 400, 401, 403."""
    assert {name: event(content) for name, content in ALL.items()} == {
        "start": ("E", "0", "110100", "110120"),
        "stop": ("E", "12", "110100", "110121"),
        "begin": ("E", "0", "110102"),
        "received": ("R", "0", "110104"),
        "refused": ("R", "4", "110104"),
        "nobody": ("R", "0", "110104"),
        "alert": ("E", "4", "110113", "110126"),
        "gap": ("E", "4", "110113", "110134"),
    }


def test_a_transfer_names_source_destination_study_and_pseudonym() -> None:
    root = ElementTree.fromstring(ALL["received"])
    source, destination = root.findall("ActiveParticipant")
    assert source.attrib == {
        "UserID": "MODALITY",
        "AlternativeUserID": "AETITLES=MODALITY",
        "UserIsRequestor": "true",
        "NetworkAccessPointID": "10.0.0.7",
        "NetworkAccessPointTypeCode": "2",
    }
    assert destination.attrib == {
        "UserID": "receive[4242]",
        "AlternativeUserID": "AETITLES=CXR_NODE",
        "UserIsRequestor": "false",
        "NetworkAccessPointID": "cxr1",
        "NetworkAccessPointTypeCode": "1",
    }
    assert [one.find("RoleIDCode").get("csd-code") for one in (source, destination)] == ["110153", "110152"]  # type: ignore[union-attr]
    study, patient = root.findall("ParticipantObjectIdentification")
    assert (study.get("ParticipantObjectID"), patient.get("ParticipantObjectID")) == (STUDY, PATIENT)
    assert {one.get("UID"): one.get("NumberOfInstances") for one in study.iter("SOPClass")} == {DX: "2", SR: "1"}
    sent = ElementTree.fromstring(ALL["begin"]).findall("ActiveParticipant")
    assert [one.get("UserID") for one in sent] == ["receive[4242]", "MODALITY"]


def test_an_alert_describes_itself() -> None:
    """PS3.15 Table A.5.3.11-1: Alert Description, of the node that is its subject."""
    node = ElementTree.fromstring(ALL["alert"]).find("ParticipantObjectIdentification")
    assert node is not None
    detail = node.find("ParticipantObjectDetail")
    assert detail is not None
    assert (node.get("ParticipantObjectID"), detail.get("type")) == ("10.0.0.7", "Alert Description")
    assert base64.b64decode(detail.get("value", "")) == b"refused: CALLING_AE_TITLE"


def test_what_a_peer_calls_itself_cannot_break_a_message() -> None:
    rogue = Participant(ae_title='"/><A&\x00\x1b\nÿ\ud800', host="::1%eth0")
    content = messages.security_alert(REPORTER, Alert.NODE_AUTHENTICATION, rogue, "refused", AT)
    assert audit_schema.faults(content) == []
    assert b"\n" not in content
    other = ElementTree.fromstring(content).findall("ActiveParticipant")[1]
    assert other.get("UserID") == '"/><A&???ÿ?'
    assert other.get("NetworkAccessPointTypeCode") == "2"
