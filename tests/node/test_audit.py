"""The audit trail: durable before anything else, bounded, in nobody's way; and what each role tells it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cxr_node.config.network import Address
from cxr_node.config.schema import Config
from cxr_node.errors import ConfigError, DeliveryError, ResourceError
from cxr_node.node.audit import recorder, trail
from cxr_node.node.audit.messages import Direction, Participant, Reporter, Transfer
from cxr_node.node.audit.recorder import Auditor
from cxr_node.node.audit.trail import Segments, TrailFolder
from cxr_node.node.deliver import courier
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.tools import send
from tests import builders
from tests.node import audit_schema, peers, receivers, workplace
from tests.node.certificates import Authority
from tests.node.wire import ASSOCIATE_RJ, Wire
from tests.pacs import odd_associations

REPORTER = Reporter(source_id="node-1", role="receive", pid=1, host="cxr1", ae_title="CXR_NODE")
PARTICIPANT = Participant(ae_title="MODALITY", host="10.0.0.7")
DX = "1.2.840.10008.5.1.4.1.1.1.1"
HEADER = re.compile(
    rb"<8(?P<severity>[45])>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ cxr-node \d+ DICOM\+RFC3881 - <AuditMessage>"
)
"""PS3.15 A.6: facility 10, severity 5 or 4, MSGID; RFC 5424 6."""


def shelf(folder: Path, **fields: Any) -> TrailFolder:
    return TrailFolder(**{"folder": folder, "keep_days": 30.0, "max_bytes": 1 << 30, "is_collected": False} | fields)


def lines(folder: Path) -> list[bytes]:
    return [line for path in sorted(folder.glob("*.log")) for line in path.read_bytes().splitlines()]


def bodies(folder: Path) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(line.split(b" - ", 1)[1]) for line in lines(folder)]


def events(folder: Path) -> list[str]:
    """Codes of event and type, and the outcome, of each message."""
    told = []
    for root in bodies(folder):
        event = root[0]
        codes = [code.get("csd-code") for code in event if code.get("csd-code")]
        told.append(" ".join([*map(str, codes), str(event.get("EventOutcomeIndicator"))]))
    return told


def received(study: int = 1, **fields: Any) -> Transfer:
    values = {"direction": Direction.RECEIVED, "participant": PARTICIPANT, "patient_key": "ab"}
    return Transfer(**values | {"study_instance_uid": f"1.2.{study}"} | fields)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def recording(folder: Path, clock: Clock | None = None) -> Iterator[Auditor]:
    found = Auditor(REPORTER, Segments(shelf(folder), "receive"), clock or Clock())
    try:
        yield found
    finally:
        found.close()


def test_start_and_stop_are_recorded_and_every_line_is_a_syslog_message(tmp_path: Path) -> None:
    with recording(tmp_path / "audit") as found:
        assert events(tmp_path / "audit") == ["110100 110120 0"]
        found.transferred(received(), DX)
        found.refused(PARTICIPANT, "CALLING_AE_TITLE")
    assert Counter(events(tmp_path / "audit")) == {
        "110100 110120 0": 1,
        "110104 0": 1,
        "110113 110126 4": 1,
        "110100 110121 0": 1,
    }
    assert events(tmp_path / "audit")[-1] == "110100 110121 0"
    for line in lines(tmp_path / "audit"):
        assert HEADER.match(line), line
        assert audit_schema.faults(line.split(b" - ", 1)[1]) == []
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "audit").glob("*.log")} == {0o600}
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o700


def test_images_of_a_study_are_one_message_when_the_study_is_quiet(tmp_path: Path) -> None:
    clock = Clock()
    with recording(tmp_path, clock) as found:
        for study in (1, 1, 2, 1):
            found.transferred(received(study), DX)
        found.transferred(received(1, participant=Participant(ae_title="OTHER", host="10.0.0.8")), DX)
        clock.now = recorder.QUIET_S - 0.1
        found.transferred(received(2), DX)
        assert not workplace.eventually(lambda: "110104 0" in events(tmp_path), 1.5)
        clock.now = recorder.QUIET_S
        assert workplace.eventually(lambda: events(tmp_path).count("110104 0") == 2)
        clock.now = 2 * recorder.QUIET_S
        assert workplace.eventually(lambda: events(tmp_path).count("110104 0") == 3)
    counts = [int(one.get("NumberOfInstances", 0)) for root in bodies(tmp_path) for one in root.iter("SOPClass")]
    assert sorted(counts) == [1, 2, 3]


def test_a_study_that_never_rests_is_told_once_a_minute(tmp_path: Path) -> None:
    clock = Clock()
    with recording(tmp_path, clock) as found:
        while clock.now < recorder.LONGEST_S:
            found.transferred(received(), DX)
            clock.now += 1.0
        assert workplace.eventually(lambda: events(tmp_path).count("110104 0") == 1)


def test_a_study_begins_once_however_many_images_follow(tmp_path: Path) -> None:
    clock, sending = Clock(), received(direction=Direction.SENT)
    with recording(tmp_path, clock) as found:
        for _ in range(3):
            found.begins(sending, DX)
            found.transferred(sending, DX)
        assert workplace.eventually(lambda: "110102 0" in events(tmp_path))
        clock.now = recorder.QUIET_S
        assert workplace.eventually(lambda: "110104 0" in events(tmp_path))
        found.begins(sending, DX)
    assert [event for event in events(tmp_path) if not event.startswith("110100")] == [
        "110102 0",
        "110104 0",
        "110102 0",
    ]


def test_a_flood_of_refusals_does_not_flood_the_trail(tmp_path: Path) -> None:
    clock = Clock()
    with recording(tmp_path, clock) as found:
        for number in range(20_000):
            found.refused(Participant(ae_title=f"AE{number}", host=f"10.0.{number % 100}.1"), "too many connections")
        clock.now = recorder.LONGEST_S
        assert workplace.eventually(lambda: len(lines(tmp_path)) >= 1 + 2 * (recorder.MAX_REFUSED + 1))
    alerts = [root for root in bodies(tmp_path) if root.find(".//ParticipantObjectDetail") is not None]
    assert len(alerts) == 2 * (recorder.MAX_REFUSED + 1)
    more = [re.search(r"refused (\d+) times more", one[0][2].text or "") for one in alerts]
    told = sum(int(match[1]) if match else 1 for match in more)
    assert told == 20_000, "every refusal is counted"


def test_a_full_disk_stops_nobody_and_loses_nothing_while_memory_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, full = Clock(), threading.Event()
    write = trail._write

    def half(file: int, content: bytes) -> None:
        if full.is_set():
            write(file, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        write(file, content)

    monkeypatch.setattr(trail, "_write", half)
    monkeypatch.setattr(recorder, "MAX_WAITING", 50)
    with caplog.at_level(logging.WARNING), recording(tmp_path, clock) as found:
        full.set()
        for study in range(60):
            found.transferred(received(study), DX)
        clock.now = recorder.QUIET_S
        assert workplace.eventually(lambda: "audit: full" in caplog.text)
        found.refused(PARTICIPANT, "CALLING_AE_TITLE")  # returns, though nothing can be written
        full.clear()
        assert workplace.eventually(lambda: "written again lost=11" in caplog.text)
    assert all(line.startswith(b"<8") for line in lines(tmp_path)), "a torn line was left behind"
    assert events(tmp_path).count("110104 0") == 50
    gap = next(root for root in bodies(tmp_path) if root.find(".//EventTypeCode[@csd-code='110134']") is not None)
    assert gap.findtext(".//EventOutcomeDescription") == "11 events were not recorded"


def test_a_folder_that_cannot_be_written_is_the_operators_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"audit\.folder: .*File exists"):
        Segments(shelf(tmp_path / "file" / "audit"), "receive")


def test_segments_are_rotated_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trail, "SEGMENT_BYTES", 1000)
    segments = Segments(shelf(tmp_path, max_bytes=4000, is_collected=True), "receive")
    for number in range(30):
        segments.append([f"{number:03d}".encode() * 100])
    kept = lines(tmp_path)
    assert sum(map(len, kept)) <= 4000 + 1000
    assert kept[-1] == b"029" * 100
    assert kept == sorted(kept), "the oldest went first"
    assert "audit.max_mib is reached" in caplog.text
    segments.close()


def test_old_messages_go_when_the_collector_has_them(tmp_path: Path) -> None:
    collected = shelf(tmp_path, keep_days=1.0, is_collected=True)
    for role in ("receive", "work", "deliver"):
        segments = Segments(collected, role)
        segments.append([role.encode()])
        if role != "deliver":
            segments.close()
    for path in tmp_path.glob("*.log"):
        os.utime(path, (0, 0))
    by_role = {path.name.split("-")[1]: path for path in tmp_path.glob("*.log")}
    collected.move_cursor({by_role["receive"].name: 8, by_role["deliver"].name: 8})
    collected.sweep()
    left = {path.name.split("-")[1] for path in tmp_path.glob("*.log")}
    assert left == {"work", "deliver"}, "uncollected, and of a process that lives"
    segments.close()
    shelf(tmp_path, keep_days=1.0).sweep()
    assert not list(tmp_path.glob("*.log")), "without a collector age alone counts"


def config(tmp_path: Path, *addresses: Any, **sections: Any) -> Config:
    return workplace.config(tmp_path / "spool", *addresses, **sections)


def test_a_role_records_its_start_its_stop_and_its_death(tmp_path: Path) -> None:
    settings = config(tmp_path)
    with recorder.recording(settings, "work"):
        pass
    with pytest.raises(ResourceError), recorder.recording(settings, "work"):
        raise ResourceError("the disk is gone")
    assert events(tmp_path / "spool" / "audit") == [
        "110100 110120 0",
        "110100 110121 0",
        "110100 110120 0",
        "110100 110121 12",
    ]
    with recorder.recording(config(tmp_path / "off", audit={"enabled": False}), "work"):
        pass
    assert not (tmp_path / "off").exists()


def test_a_delivery_is_begun_and_transferred_with_its_study(tmp_path: Path) -> None:
    archive = peers.Archive(lambda count: 0xA700 if count == 2 else 0xC000 if count == 5 else 0x0000)
    with peers.listening(archive) as address:
        settings = config(tmp_path, address)
        workplace.receive(settings, 1, 2)
        judged(settings)
        stop = threading.Event()
        with recorder.recording(settings, "deliver") as record:
            thread = threading.Thread(target=courier.run, args=(settings, stop, None, record))
            thread.start()
            settled = workplace.eventually(
                lambda: {row[0] for row in workplace.states(settings)} == {"DELIVERED", "DEAD"}
            )
            stop.set()
            thread.join(20)
    assert settled
    folder = tmp_path / "spool" / "audit"
    roots = [root for root in bodies(folder) if root[0][0].get("csd-code") in ("110102", "110104")]
    transferred = [root for root in roots if root[0][0].get("csd-code") == "110104"]
    assert Counter(root[0].get("EventOutcomeIndicator") for root in transferred) == {"0": 2, "4": 1, "8": 1}
    assert sum(root[0][0].get("csd-code") == "110102" for root in roots) == 2
    sent = sum(
        int(one.get("NumberOfInstances", 0))
        for root in transferred
        if root[0].get("EventOutcomeIndicator") == "0"
        for one in root.iter("SOPClass")
    )
    assert sent == 5
    for root in roots:
        assert audit_schema.faults(ElementTree.tostring(root)) == []
        study, patient = root.findall("ParticipantObjectIdentification")
        assert (study.get("ParticipantObjectID") or "").startswith("1.2.")
        assert len(patient.get("ParticipantObjectID") or "") == 64


def test_what_a_destination_rejects_is_an_alert_and_a_line_each_try(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with peers.listening(peers.Archive(), requires="SOMEBODY") as address:
        settings = config(tmp_path, address)
        workplace.receive(settings, 1)
        judged(settings)
        stop = threading.Event()
        with caplog.at_level("INFO", "cxr_node"), recorder.recording(settings, "deliver") as record:
            thread = threading.Thread(target=courier.run, args=(settings, stop, None, record))
            thread.start()
            tried = workplace.eventually(lambda: "rejected (permanent)" in caplog.text)
            stop.set()
            thread.join(20)
    assert tried
    folder = tmp_path / "spool" / "audit"
    alerts = [root for root in bodies(folder) if root[0][0].get("csd-code") == "110113"]
    assert [one.findtext(".//EventOutcomeDescription") for one in alerts][:1] == [
        "association ended: destination-rejected"
    ]
    assert address.ae_title in {one.get("UserID") for one in alerts[0].findall("ActiveParticipant")}
    assert all(audit_schema.faults(ElementTree.tostring(one)) == [] for one in alerts)
    assert "refused or ended since the start destination-rejected=" in caplog.text


def test_a_caller_outside_ascii_is_in_the_trail(tmp_path: Path) -> None:
    settings = config(tmp_path)
    request = odd_associations.Request(calling=b'<R\xf6"&ntgen\x1b'.ljust(16)).encoded()
    with (
        recorder.recording(settings, "receive") as record,
        receivers.receiving(settings.spool.path, audit=record, peers=[{"ae_title": "CT1"}]) as node,
        Wire(node.port) as stranger,
    ):
        stranger.send(request)
        assert stranger.receive()[0] == ASSOCIATE_RJ
    alerts = [root for root in bodies(settings.spool.path / "audit") if root[0][0].get("csd-code") == "110113"]
    assert [one.findtext(".//EventOutcomeDescription") for one in alerts] == ["refused: calling-ae-title"]
    assert '<R\\xF6"&ntgen\\x1B' in {one.get("UserID") for one in alerts[0].findall("ActiveParticipant")}
    assert audit_schema.faults(ElementTree.tostring(alerts[0])) == []


def judged(settings: Config) -> None:
    ledger = Ledger.open(settings.spool.path)
    worker = workplace.worker(settings, ledger)
    while worker.do_one():
        pass
    ledger.close()


def test_what_the_receiver_takes_and_whom_it_refuses_is_recorded(tmp_path: Path) -> None:
    content = builders.part10(builders.radiograph(1))
    file = tmp_path / "one.dcm"
    file.write_bytes(content)
    settings = config(tmp_path)
    with recorder.recording(settings, "receive") as record:
        known = [{"ae_title": "MODALITY"}]
        with receivers.receiving(settings.spool.path, audit=record, peers=known) as node:
            address = Address(ae_title="CXR_NODE", host="127.0.0.1", port=node.port)
            for _ in range(2):
                send.store([file], lambda sent: None, address, "MODALITY")
            with pytest.raises(DeliveryError):
                send.store([file], lambda sent: None, address, "STRANGER")
            with pytest.raises(DeliveryError):
                send.store([file], lambda sent: None, address.model_copy(update={"ae_title": "OTHER"}), "MODALITY")
    folder = settings.spool.path / "audit"
    transfers = [root for root in bodies(folder) if root[0][0].get("csd-code") == "110104"]
    assert [root[0].get("EventActionCode") for root in transfers] == ["C", "R"], "the second was known already"
    study, patient = transfers[0].findall("ParticipantObjectIdentification")
    assert study.get("ParticipantObjectID") == str(builders.radiograph(1).StudyInstanceUID)
    assert "TEST-0001" not in str(patient.attrib)
    alerts = [root.findtext(".//EventOutcomeDescription") for root in bodies(folder)]
    assert {"refused: calling-ae-title", "refused: called-ae-title"} <= set(alerts)
    named = {one.get("UserID") for root in bodies(folder) for one in root.findall("ActiveParticipant")}
    assert {"MODALITY", "STRANGER"} <= named


def test_a_client_that_does_not_speak_tls_is_an_alert(tmp_path: Path) -> None:
    settings = config(tmp_path)
    identity = Authority(tmp_path).issue("node")
    with (
        recorder.recording(settings, "receive") as record,
        receivers.receiving(settings.spool.path, audit=record, tls=identity.tls()) as node,
        socket.create_connection(("127.0.0.1", node.port), 10) as stranger,
        contextlib.suppress(ConnectionResetError),
    ):
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while stranger.recv(4096):
            pass
    alerts = [root.findtext(".//EventOutcomeDescription") for root in bodies(settings.spool.path / "audit")]
    assert "refused: tls" in alerts
