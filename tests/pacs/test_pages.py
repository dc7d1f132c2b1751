"""The page in a FHIR report is, to the byte, the one that the archive has: a real node, Orthanc and a FHIR server."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from pydicom import dcmread

from cxr_node.config.network import Address
from cxr_node.dicom import from_picture
from cxr_node.tools import send
from tests.node.fhir_server import Server, serving
from tests.pacs.peers import Node, Orthanc
from tests.patience import wait_until

pytestmark = pytest.mark.pacs

PNEUMONIA = Path(__file__).parent.parent.parent / "cxr_node" / "demo_radiographs" / "opacity-1.jpg"


def test_the_archive_and_the_server_get_the_same_page(tmp_path: Path) -> None:
    source, server = tmp_path / "source.dcm", Server()
    source.write_bytes(from_picture.wrap(PNEUMONIA, PatientAge="003Y", ViewPosition="AP"))
    with Orthanc(tmp_path / "orthanc") as orthanc, serving(server) as url:
        archive = {"name": "pacs", "address": orthanc.address, "send": ["pdf"]}
        records = {"name": "ehr", "kind": "fhir", "url": url, "pdf": True}
        with Node(tmp_path / "node", [archive, records], study={"quiet_s": 0.5}) as node:
            address = Address(ae_title=node.ae_title, host="127.0.0.1", port=node.port)
            send.store([source], lambda sent: None, address, "TESTS")
            wait_until(node.is_idle, "both have it")
        (instance,) = orthanc.get("/instances")
        dataset = dcmread(io.BytesIO(orthanc.file(instance)))
    (body,) = server.bodies
    forms = json.loads(body)["entry"][-1]["resource"]["presentedForm"]
    assert [each["contentType"].split(";")[0] for each in forms] == ["text/plain", "application/pdf"]
    pdf = base64.b64decode(forms[1]["data"])
    assert pdf == dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]
    assert pdf.startswith(b"%PDF-") and pdf.rstrip().endswith(b"%%EOF")


def test_a_page_that_only_a_message_holds_is_sent_nowhere_and_keeps_nothing_waiting(tmp_path: Path) -> None:
    source, server = tmp_path / "source.dcm", Server()
    source.write_bytes(from_picture.wrap(PNEUMONIA, PatientAge="003Y", ViewPosition="AP"))
    with serving(server) as url:
        records = {"name": "ehr", "kind": "fhir", "url": url, "pdf": True}
        with Node(tmp_path / "node", [records], study={"quiet_s": 0.5}) as node:
            address = Address(ae_title=node.ae_title, host="127.0.0.1", port=node.port)
            send.store([source], lambda sent: None, address, "TESTS")
            wait_until(node.is_idle, "the server has it")
            uid = str(dcmread(source).SOPInstanceUID)
            assert [row.kind for row in node.story(uid).deliveries] == ["fhir"]
            assert node.counts()["DELIVERED"] == 1
    (body,) = server.bodies
    assert len(json.loads(body)["entry"][-1]["resource"]["presentedForm"]) == 2
