"""Reports of studies and their patients' earlier radiographs: from a real Orthanc, and from a source that is mute."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import BasicTextSRStorage

from cxr_node.config.network import Address
from cxr_node.dicom.words import study_wording
from cxr_node.node.ledger import prior_orders
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.spool.spool import Area, Spool
from cxr_node.tools import send
from tests.builders import part10, radiograph
from tests.node import peers
from tests.pacs.peers import Node, Orthanc
from tests.pacs.test_priors import OPEN
from tests.patience import wait_until

pytestmark = pytest.mark.pacs

ROOT = "1.2.826.0.1.3680043.8.498.162"
CANARY = "CANARY"


def child(patient: str, study: int, day: str, view: str = "AP", **more: Any) -> Dataset:
    """One radiograph of a child; each study has one."""
    named: dict[str, Any] = {
        "PatientID": f"{CANARY}-{patient}",
        "IssuerOfPatientID": "HERE",
        "PatientBirthDate": "20220102",
        "PatientAge": None,
        "StudyDate": day,
        "StudyTime": "101112",
        "ViewPosition": view,
        "StudyInstanceUID": f"{ROOT}.1.{study}",
        "SeriesInstanceUID": f"{ROOT}.2.{study}",
        "SOPInstanceUID": f"{ROOT}.3.{study}",
    }
    return radiograph(study, **named | more)


NONE, THREE, OTHER, GONE = (
    child(patient, number, "20250601") for number, patient in enumerate(("NONE", "THREE", "OTHER", "GONE"), 1)
)
ARCHIVED = (
    child("THREE", 10, "20240301"),
    child("THREE", 11, "20250301"),
    child("THREE", 12, "20250401", "PA"),
    child("THREE", 13, "20250501", "LL"),
    child("OTHER", 14, "20250301", IssuerOfPatientID="THERE"),
    child("GONE", 15, "20250301"),
)


def sent(node: Node, folder: Path, *images: Dataset) -> None:
    files = []
    for image in images:
        files.append(folder / f"{image.SOPInstanceUID}.dcm")
        files[-1].write_bytes(part10(image))
    address = Address(ae_title=node.ae_title, host="127.0.0.1", port=node.port)
    answers: list[send.Sent] = []
    wait_until(lambda: node.said().count(" ready owner=") == 2, "the worker has its weights")
    send.store(files, answers.append, address=address, calling_ae_title="MODALITY")
    assert [one.ok for one in answers] == [True] * len(images)


def reports(orthanc: Orthanc) -> dict[str, list[Dataset]]:
    """Basic Text SRs in the archive, by study."""
    found: dict[str, list[Dataset]] = {}
    for instance in orthanc.get("/instances"):
        with contextlib.suppress(HTTPError):  # the one whose file is gone
            dataset = dcmread(io.BytesIO(orthanc.file(instance)))
            if dataset.SOPClassUID == BasicTextSRStorage:
                found.setdefault(str(dataset.StudyInstanceUID), []).append(dataset)
    return found


def texts(report: Dataset, heading: str) -> list[str]:
    """Lines of a section."""
    return [
        str(line.TextValue)
        for section in report.ContentSequence
        if section.ConceptNameCodeSequence and section.ConceptNameCodeSequence[0].CodeMeaning == heading
        for line in section.get("ContentSequence", ())
        if "TextValue" in line
    ]


def test_a_report_says_what_is_said_of_the_radiograph_before_and_compares_nothing(tmp_path: Path) -> None:
    """A patient with none, one with three and a lateral, one of another issuer, one whose file is gone.

    This archive, which answers from its index alone, names neither issuer nor view: those are fetched, and their
    headers tell.
    """
    archived = OPEN | {"StorageAccessOnFind": "Never"}
    with Orthanc(tmp_path / "orthanc", more=archived) as orthanc:
        for each in ARCHIVED:
            orthanc.post("/instances", part10(each))
        orthanc.lose(f"{ROOT}.3.15")
        node = Node(
            tmp_path / "node",
            [{"name": "pacs", "address": orthanc.address}],
            study={"quiet_s": 1, "max_wait_s": 100},
            priors={"from": "pacs", "studies": 3, "years": 10},
        )
        with node:
            sent(node, tmp_path, NONE, THREE, OTHER, GONE)
            studies = {str(each.StudyInstanceUID) for each in (NONE, THREE, OTHER, GONE)}
            wait_until(lambda: node.is_idle() and reports(orthanc).keys() >= studies, "a report of each study")
            with closing(Ledger.open(node.spool)) as ledger:
                became = {study: prior_orders.prior_of(ledger, study) for study in studies}
            kept = sorted(Spool(node.spool).digests(Area.PRIORS))
        made = reports(orthanc)
        archive_has = orthanc.count()
    assert {study: len(each) for study, each in made.items()} == dict.fromkeys(studies, 1)
    for image, reasons in ((NONE, ["none"]), (OTHER, ["identity-conflict"]), (GONE, ["cannot-retrieve"])):
        uid = str(image.StudyInstanceUID)
        told = became[uid]
        assert told is not None
        assert [each.reason for each in told.outcomes] == reasons
        assert texts(made[uid][0], "Previous Findings") == []
        assert "PertinentOtherEvidenceSequence" not in made[uid][0]
    (report,) = made[str(THREE.StudyInstanceUID)]
    lines = texts(report, "Previous Findings")
    assert [line.partition(":")[0] for line in lines] == [
        "Earlier radiograph of 2025-04-01 (PA)",
        "Earlier radiograph of 2025-03-01 (AP)",
    ]
    assert all(line.endswith(study_wording.NOT_COMPARED) for line in lines)
    assert texts(report, "Findings"), "and what is said now"
    evidence = [str(each.StudyInstanceUID) for each in report.PertinentOtherEvidenceSequence]
    assert evidence == [f"{ROOT}.1.12", f"{ROOT}.1.11"]
    told = became[str(THREE.StudyInstanceUID)]
    assert told is not None
    assert [each.reason for each in told.outcomes] == ["view-not-frontal", None, None]
    assert len(kept) == 4
    assert archive_has > len(ARCHIVED), "results went to the archive, earlier radiographs did not come back to it"
    log = node.said()
    assert log.count(" earlier radiographs source=pacs instance=") == 4
    assert CANARY not in log
    assert "20220102" not in log


def test_a_source_that_is_mute_and_a_process_that_is_killed_delay_no_report_beyond_the_bound(tmp_path: Path) -> None:
    def mute(connection: Any) -> None:
        while connection.recv(65536):
            pass

    max_wait_s = 60.0
    with Orthanc(tmp_path / "orthanc") as orthanc, peers.raw_peer(mute) as address:
        node = Node(
            tmp_path / "node",
            [{"name": "archive", "address": orthanc.address}, {"name": "mute", "address": str(address), "send": []}],
            study={"quiet_s": 1, "max_wait_s": max_wait_s},
            priors={"from": "mute"},
        )
        with node:
            sent(node, tmp_path, NONE)
            begun = time.monotonic()
            study = str(NONE.StudyInstanceUID)

            def is_leased() -> bool:
                with closing(Ledger.open(node.spool)) as ledger:
                    told = prior_orders.prior_of(ledger, study)
                return told is not None and (told.lease_owner is not None or bool(told.outcomes))

            wait_until(is_leased, "the order is in hand")
            os.kill(node.roles()["deliver"], signal.SIGKILL)
            wait_until(lambda: study in reports(orthanc), "the report", timeout_s=max_wait_s + 40)
            took_s = time.monotonic() - begun
            wait_until(node.is_idle, "all is delivered")
        assert len(reports(orthanc)[study]) == 1
    assert took_s < max_wait_s + 30, "on a machine with much else to do"
