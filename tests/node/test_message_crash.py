"""A sender of messages that is killed at any step: nothing lost, and what is repeated is the same and counts once."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from cxr_node.domain import Verdict
from cxr_node.outcome import StudyReport
from cxr_node.result_kinds import ResultKind
from tests.dicom import studies
from tests.messages.studies import made
from tests.node import fhir_server, mllp_peer
from tests.node.fhir_server import Server
from tests.node.mllp_peer import Receiver
from tests.node.test_crash import all_delivered, child, exit_code, running
from tests.node.test_message_delivery import configured, reported

DIES = [
    ("cxr_node.node.ledger.ledger:Ledger.claim_delivery", "after"),
    ("cxr_node.node.deliver.mllp:MllpLink._connect", "after"),
    ("cxr_node.node.deliver.mllp:MllpLink._exchange", "before"),
    ("cxr_node.node.deliver.mllp:MllpLink._exchange", "after"),  # taken, the ledger knows nothing
    ("cxr_node.node.deliver.mllp:judge", "after"),
    ("cxr_node.node.deliver.fhir:judge", "before"),  # taken, its answer not read
    ("cxr_node.node.deliver.fhir:FhirLink.store", "after"),
    ("cxr_node.node.ledger.ledger:Ledger._settle_delivery", "before"),
    ("cxr_node.node.ledger.ledger:conclude", "before"),  # within the transaction
    ("cxr_node.node.ledger.ledger:Ledger.settle_delivered", "after"),
]


@pytest.mark.timeout(120)
def test_a_sender_killed_at_every_step_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    receiver, server, count = Receiver(), Server(), 12
    first = made(studies.case("normal"))
    hl7, fhir = first[ResultKind.HL7], first[ResultKind.FHIR]
    with mllp_peer.receiving(receiver) as port, fhir_server.serving(server) as url:
        config = configured(tmp_path / "spool", port, url)
        for number in range(1, count + 1):
            uid = f"1.2.3.{number}"
            message = hl7.content.replace(hl7.content.split(b"|")[9], b"%020d" % number)
            bundle = fhir.content.replace(fhir.sop_instance_uid.encode(), uid.encode())
            artifacts = (
                replace(hl7, sop_instance_uid=f"{uid}.1", content=message),
                replace(fhir, sop_instance_uid=uid, content=bundle),
            )
            reported(config, number, StudyReport(verdict=Verdict.NEGATIVE, artifacts=artifacts), study=number)
        for point in DIES:
            assert exit_code(child(config, "deliver", *point)) == -signal.SIGKILL, f"never came to {point}"
        with running(config, "deliver"):
            assert all_delivered(config, count)
    texts: dict[bytes, set[bytes]] = {}
    for each in receiver.messages:
        texts.setdefault(each.split(b"|")[9], set()).add(each)
    assert len(texts) == count and all(len(text) == 1 for text in texts.values())
    assert len(receiver.messages) > count, "what was not settled is sent again"
    there = [kind for kind, _ in server.resources if kind == "DiagnosticReport"]
    assert len(there) == count, "one report each, however often it was sent"
    assert len(server.bodies) > count and len(set(server.bodies)) == count
