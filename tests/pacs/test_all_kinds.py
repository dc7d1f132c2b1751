"""Every kind of result object, made by the real node and taken by a real archive in series of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr_node.config.network import Address
from cxr_node.dicom import from_picture
from cxr_node.result_kinds import DICOM_KINDS, SHAPES, ResultKind
from cxr_node.tools import send
from tests.pacs.peers import Node, Orthanc
from tests.patience import wait_until

pytestmark = pytest.mark.pacs

RESULTS = tuple(kind for kind in DICOM_KINDS if kind is not ResultKind.NOT_ANALYSED)
PNEUMONIA = Path(__file__).parent.parent.parent / "cxr_node" / "demo_radiographs" / "opacity-1.jpg"


def test_orthanc_takes_every_kind(tmp_path: Path) -> None:
    source = tmp_path / "source.dcm"
    source.write_bytes(from_picture.wrap(PNEUMONIA, PatientAge="003Y", ViewPosition="AP"))
    with Orthanc(tmp_path / "orthanc") as orthanc:
        wanted = {"name": "pacs", "address": orthanc.address, "send": [kind.value for kind in DICOM_KINDS]}
        with Node(tmp_path / "node", [wanted], study={"quiet_s": 0.5}) as node:
            address = Address(ae_title=node.ae_title, host="127.0.0.1", port=node.port)
            send.store([source], lambda sent: None, address, "TESTS")
            wait_until(lambda: orthanc.count() == len(RESULTS), "every kind in the archive")
        series = [orthanc.get(f"/series/{one}")["MainDicomTags"] for one in orthanc.get("/series")]
    stored = {int(one["SeriesNumber"]): one["Modality"] for one in series}
    assert stored == {SHAPES[kind].series_number: SHAPES[kind].modality or "DX" for kind in RESULTS}
