"""Orthanc and dicomweb-client store in the node over HTTP; the node judges, and the results come back over HTTP."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from requests.exceptions import HTTPError

from tests import builders
from tests.pacs.peers import DICOMWEB_PLUGIN, Node, Orthanc, need
from tests.patience import wait_until
from tests.processes import answers, free_port
from tests.web import stowing

pytestmark = [
    pytest.mark.pacs,
    pytest.mark.skipif(not DICOMWEB_PLUGIN.exists(), reason="apt-get install orthanc-dicomweb"),
]


def peers(folder: Path, **server: Any) -> tuple[Orthanc, Node]:
    """A node that takes from Orthanc over HTTP, and sends its results there the same way."""
    need("Orthanc")
    page = free_port()
    stow = {"senders": [{"name": "ORTHANC_WEB", "key": str(stowing.key_file(folder))}]}
    known = {"node": {"Url": f"http://127.0.0.1:{page}/dicom-web/"} | server}
    settings = {"Enable": True, "Root": "/dicom-web/", "Servers": known}
    orthanc = Orthanc(folder / "orthanc", more={"DicomWeb": settings})
    archive = {"kind": "dicomweb", "name": "archive", "url": f"http://127.0.0.1:{orthanc.http_port}/dicom-web"}
    node = Node(folder / "node", [archive], web={"port": page, "stow": stow}, study={"quiet_s": 0.5})
    return orthanc, node


def page(node: Node) -> int:
    return int(node.sections["web"]["port"])


BEARER = {"HttpHeaders": {"Authorization": f"Bearer {stowing.KEY}"}}
BASIC = {"Username": "ORTHANC_WEB", "Password": stowing.KEY}


@pytest.mark.parametrize("shown", [BEARER, BASIC], ids=["bearer", "basic"])
def test_orthanc_stores_a_study_and_gets_its_results(tmp_path: Path, shown: dict[str, Any]) -> None:
    orthanc, node = peers(tmp_path, **shown)
    made = [builders.radiograph(1), builders.radiograph(2)]
    for each in made[1:]:
        each.StudyInstanceUID, each.SeriesInstanceUID = made[0].StudyInstanceUID, made[0].SeriesInstanceUID
        each.PatientID, each.PatientName = made[0].PatientID, made[0].PatientName
    with orthanc, node:
        wait_until(lambda: answers(page(node)), "the page answers")
        for each in made:
            orthanc.post("/instances", builders.part10(each))
        (study,) = orthanc.get("/studies")
        done = orthanc.post("/dicom-web/servers/node/stow", f'{{"Resources": ["{study}"]}}'.encode())
        assert done is not None
        wait_until(lambda: orthanc.count() > 2 and node.is_idle(), "judged, and the results are there")
        stories = [node.story(str(each.SOPInstanceUID)) for each in made]
        client = DICOMwebClient(f"http://127.0.0.1:{orthanc.http_port}/dicom-web")
        found = client.retrieve_study(str(made[0].StudyInstanceUID))
        (traced,) = node.json("trace", str(made[0].SOPInstanceUID))
    assert [story.instance.calling_ae_title for story in stories] == ["ORTHANC_WEB"] * 2
    assert all(story.instance.state == "DELIVERED" for story in stories)
    assert {each.Modality for each in found} >= {"DX", "SR"}
    assert any("from ORTHANC_WEB at 127.0.0.1" in event["detail"] for event in traced["events"])


def test_dicomweb_client_stores_and_is_told_what_was_not(tmp_path: Path) -> None:
    orthanc, node = peers(tmp_path)
    with orthanc, node:
        wait_until(lambda: answers(page(node)), "the page answers")
        shown = {"Authorization": f"Bearer {stowing.KEY}"}
        client = DICOMwebClient(f"http://127.0.0.1:{page(node)}/dicom-web", headers=shown)
        first, second = (dcmread(io.BytesIO(builders.part10(builders.radiograph(number)))) for number in (1, 2))
        told = client.store_instances([first, second])
        assert [item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence] == [
            first.SOPInstanceUID,
            second.SOPInstanceUID,
        ]
        assert "FailedSOPSequence" not in told
        told = client.store_instances([first, second], study_instance_uid=str(first.StudyInstanceUID))
        assert [item.FailureReason for item in told.FailedSOPSequence] == [0xA900]
        assert [item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence] == [first.SOPInstanceUID]
        stranger = DICOMwebClient(f"http://127.0.0.1:{page(node)}/dicom-web")
        with pytest.raises(HTTPError, match="401"):
            stranger.store_instances([first])
        wait_until(node.is_idle, "all is judged and delivered")
        assert sum(node.counts().values()) == 2
