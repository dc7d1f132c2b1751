"""Messages under the same ledger as everything else: due with their report, once, traced; and never out of order."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config.schema import Config
from cxr_node.domain import Origin, Precedent, Verdict
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.spool.opening import open_spool
from cxr_node.node.work.worker import Analyser, Worker
from cxr_node.outcome import Outcome, Reported, StudyCase, StudyReport
from cxr_node.result_kinds import ResultKind
from tests.dicom import studies
from tests.messages.studies import made
from tests.node import fhir_server, ledgers, mllp_peer, workplace
from tests.node.fhir_server import Server
from tests.node.mllp_peer import Receiver, acknowledgment
from tests.node.test_courier import delivering


@pytest.fixture(scope="module")
def reports() -> tuple[StudyReport, StudyReport]:
    """The report of a study, and the one that replaces it when another image has come."""
    case = studies.case("normal", "pneumonia")
    first = made(replace(case, images=case.images[:1]))
    later = made(replace(case, earlier_reports=(tuple(each.ref for each in first.values()),)))
    kinds = (ResultKind.HL7, ResultKind.FHIR)
    return (
        StudyReport(verdict=Verdict.NEGATIVE, artifacts=tuple(first[kind] for kind in kinds)),
        StudyReport(verdict=Verdict.POSITIVE, artifacts=tuple(later[kind] for kind in kinds)),
    )


def configured(folder: Path, port: int, url: str) -> Config:
    ris = {"name": "ris", "kind": "hl7", "address": f"127.0.0.1:{port}", "timeout_s": 2.0}
    ehr = {"name": "ehr", "kind": "fhir", "url": url, "timeout_s": 2.0}
    return workplace.config(folder, destinations=[ris, ehr], study={"quiet_s": 0.0, "max_wait_s": 0.0})


def judge(content: bytes, origin: Origin, config: Config, precedent: Precedent) -> Outcome:
    number = int(content.removeprefix(b"radiograph "))
    return Reported(finding=ledgers.finding(), artifacts=(), judgement=workplace.judgement(number))


def reported(config: Config, number: int, report: StudyReport, study: int = 1) -> None:
    """Image `number` of a study comes, and the report of that is made."""
    spool, ledger = open_spool(config.spool), Ledger.of_node(config)
    part = spool.begin()
    part.write(f"radiograph {number}".encode())
    origin = Origin(calling_ae_title="MODALITY", peer_host="10.0.0.7", received_at=ledger.now())
    stored = spool.store_object(part, origin.received_at)
    ref = replace(ledgers.reference(study), sop_instance_uid=f"1.2.1.1.{number}")
    assert ledger.add(ref, origin, stored.sha256, stored.size_bytes)

    def make(_: StudyCase, __: Config) -> StudyReport:
        return report

    worker = Worker(config, ledger, spool, "me", Analyser(process=judge, report=make))
    while worker.do_one():
        pass
    ledger.close()


def deliveries(config: Config) -> dict[tuple[str, str], list[str]]:
    """States by destination and kind."""
    ledger = Ledger.of_node(config)
    try:
        found: dict[tuple[str, str], dict[str, str]] = {}
        for story in reversed(queries.trace(ledger, "1.2.1")):
            for row in story.deliveries:
                found.setdefault((row.destination, row.kind), {})[row.sop_instance_uid] = row.state
        return {key: list(rows.values()) for key, rows in found.items()}
    finally:
        ledger.close()


@pytest.fixture
def peers_of_messages() -> Iterator[tuple[Receiver, Server, int, str]]:
    receiver, server = Receiver(), Server()
    with ExitStack() as stack:
        port = stack.enter_context(mllp_peer.receiving(receiver))
        yield receiver, server, port, stack.enter_context(fhir_server.serving(server))


def test_a_report_goes_once_to_each_and_nothing_of_the_patient_is_logged(
    tmp_path: Path,
    reports: tuple[StudyReport, StudyReport],
    peers_of_messages: tuple[Receiver, Server, int, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver, server, port, url = peers_of_messages
    config = configured(tmp_path / "spool", port, url)
    caplog.set_level(logging.DEBUG)
    reported(config, 1, reports[0])
    with delivering(config):
        assert workplace.eventually(lambda: [state for state, _ in workplace.states(config)] == ["DELIVERED"])
    assert deliveries(config) == {("ris", "hl7"): ["DELIVERED"], ("ehr", "fhir"): ["DELIVERED"]}
    assert (len(receiver.messages), len(server.bodies)) == (1, 1)
    assert b"OBX|1|CE|233604007" in receiver.messages[0]
    for word in ("TEST-0001", "ACC00001", "Test"):
        assert word not in caplog.text
    assert "kind=hl7" in caplog.text and "acknowledged=AA" in caplog.text


def test_of_two_reports_the_later_one_is_the_last_word(
    tmp_path: Path, reports: tuple[StudyReport, StudyReport], peers_of_messages: tuple[Receiver, Server, int, str]
) -> None:
    """The first is put off by the receiver, and the second accepted meanwhile: the first must not come after it."""
    receiver, _, port, url = peers_of_messages
    config = configured(tmp_path / "spool", port, url)
    is_locked = threading.Event()
    is_locked.set()

    def moody(message: bytes) -> list[Any]:
        return [acknowledgment(message, "AE", "206")] if is_locked.is_set() else [acknowledgment(message)]

    receiver.temper = moody
    reported(config, 1, reports[0])
    with delivering(config):
        assert workplace.eventually(lambda: len(receiver.messages) >= 1)
    reported(config, 2, reports[1])
    is_locked.clear()
    before = len(receiver.messages)
    with delivering(config):
        assert workplace.eventually(lambda: {state for state, _ in workplace.states(config)} == {"DELIVERED"})
        assert workplace.eventually(lambda: sorted(deliveries(config)["ris", "hl7"]) == ["DELIVERED", "SET_ASIDE"])
    (last,) = receiver.messages[before:]
    assert b"replaces the earlier one" in last and b"POSITIVE" in last


def test_a_refused_message_is_dead_with_the_code_alone(
    tmp_path: Path,
    reports: tuple[StudyReport, StudyReport],
    peers_of_messages: tuple[Receiver, Server, int, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver, _, port, url = peers_of_messages
    receiver.temper = lambda message: [acknowledgment(message, "AR", "203")]
    config = configured(tmp_path / "spool", port, url)
    reported(config, 1, reports[0])
    with delivering(config):
        assert workplace.eventually(lambda: workplace.states(config) == [("DEAD", "undelivered")])
    assert len(receiver.messages) == 1
    assert "dead destination=ris" in caplog.text and "AR, error 203" in caplog.text
    assert "CANARY" not in caplog.text


def test_a_receiver_of_changing_temper_gets_every_message_and_one_text_each(
    tmp_path: Path, reports: tuple[StudyReport, StudyReport], peers_of_messages: tuple[Receiver, Server, int, str]
) -> None:
    """Accepts, locks, hangs up, cuts, stays silent, answers others, twice: each message is accepted in the end."""
    receiver, _, port, url = peers_of_messages
    dice = random.Random(1)
    accepted: list[bytes] = []

    def moody(message: bytes) -> list[Any]:
        whole = acknowledgment(message)
        tempers: list[list[Any]] = [
            [whole], [whole], [whole], [whole, whole], [acknowledgment(message, control_id="OTHER"), whole],
            [acknowledgment(message, "AE")], [acknowledgment(message, "AR", "207")], [None], [whole[:20], None], [],
        ]  # fmt: skip
        chosen = dice.choice(tempers)
        if whole in chosen:
            accepted.append(message)
        return chosen

    receiver.temper = moody
    config = configured(tmp_path / "spool", port, url)
    ris = config.destinations[0].model_copy(update={"timeout_s": 0.2})
    config = config.model_copy(update={"destinations": (ris,)})
    base, count = reports[0].artifacts[0], 20
    control_id = base.content.split(b"|")[9]
    for number in range(1, count + 1):
        content = base.content.replace(control_id, b"%020d" % number)
        artifact = replace(base, sop_instance_uid=f"1.2.3.{number}", content=content)
        reported(config, number, StudyReport(verdict=Verdict.NEGATIVE, artifacts=(artifact,)), study=number)
    with delivering(config):
        assert workplace.eventually(lambda: [state for state, _ in workplace.states(config)] == ["DELIVERED"] * count)
    texts: dict[bytes, set[bytes]] = {}
    for message in receiver.messages:
        texts.setdefault(message.split(b"|")[9], set()).add(message)
    assert len(texts) == count and all(len(text) == 1 for text in texts.values())
    assert {message.split(b"|")[9] for message in accepted} == set(texts)
    assert len(receiver.messages) > count, "some of them were tried again"
