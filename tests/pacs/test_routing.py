"""Orthanc as the source that routes and as the archive that gets the results: the way a department uses the node.

A study is stored in Orthanc by storescu; Orthanc routes it to the node by itself; the results come back into the
same study. Nothing here knows the inside of the node.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, SecondaryCaptureImageStorage

from cxr_node.dicom import from_picture
from tests import builders
from tests.pacs.peers import Node, Orthanc, need
from tests.patience import wait_until
from tests.processes import run
from tests.shared import radiographs, shared

pytestmark = pytest.mark.pacs

ROUTE_RADIOGRAPHS = """
function OnStoredInstance(instance, tags, metadata, origin)
  if tags['Modality'] == 'DX' or tags['Modality'] == 'CR' then
    SendToModality(instance, 'node')
  end
end
"""
ROUTE_EVERYTHING = """
function OnStoredInstance(instance, tags, metadata, origin)
  SendToModality(instance, 'node')
end
"""
KINDS = {
    BasicTextSRStorage: "report",
    Comprehensive3DSRStorage: "measurements",
    SecondaryCaptureImageStorage: "heatmap",
}


def archive_and_node(folder: Path, rule: str, **wishes: str) -> tuple[Orthanc, Node]:
    """Two peers that know each other; `wishes` are of the archive."""
    node = Node(folder / "node", [], study={"quiet_s": 0.5}, results={"normal_heatmap": "banner"})
    orthanc = Orthanc(folder / "orthanc", modalities={"node": (node.ae_title, node.port)}, rule=rule)
    node = node.with_destinations([{"name": "archive", "address": orthanc.address, **wishes}])
    return orthanc, node


def store(orthanc: Orthanc, files: list[Path]) -> None:
    done = run("storescu", "-R", "-aec", orthanc.ae_title, "127.0.0.1", orthanc.dicom_port, *files)
    assert done.returncode == 0, done.stderr


def objects_by_study(orthanc: Orthanc) -> dict[str, list[str]]:
    """StudyInstanceUID -> kinds of the results in it, as DICOMweb tells."""
    found: dict[str, list[str]] = {}
    for instance in orthanc.get("/dicom-web/instances?limit=1000"):
        sop_class, study = instance["00080016"]["Value"][0], instance["0020000D"]["Value"][0]
        found.setdefault(study, [])
        if sop_class in KINDS:
            found[study].append(KINDS[sop_class])
    return found


def test_twenty_radiographs_through_auto_routing_and_three_times_again(tmp_path: Path) -> None:
    need("storescu", "Orthanc")
    files: list[Path] = []
    for number, image in enumerate(radiographs(per_class=10)):
        file = tmp_path / f"{number:02d}.dcm"
        file.write_bytes(from_picture.wrap(image, PatientAge="003Y", ViewPosition="AP"))
        files.append(file)
    sources = {str(dcmread(file, stop_before_pixels=True).StudyInstanceUID) for file in files}
    assert len(sources) == 20

    orthanc, node = archive_and_node(tmp_path, ROUTE_RADIOGRAPHS, report_per="image")
    with orthanc, node:
        store(orthanc, files)
        wait_until(lambda: orthanc.count() == 80, "60 results beside 20 radiographs")
        wait_until(lambda: node.counts()["DELIVERED"] == 20, "a verdict on each radiograph")
        for _ in range(3):
            store(orthanc, files)
        wait_until(node.is_idle, "an idle node")
        after = objects_by_study(orthanc)
        assert orthanc.count() == 80
    assert set(after) == sources
    assert all(sorted(kinds) == ["heatmap", "measurements", "report"] for kinds in after.values())


def test_an_archive_that_routes_everything_makes_no_loop(tmp_path: Path) -> None:
    need("storescu", "Orthanc")
    source = builders.radiograph()
    file = tmp_path / "one.dcm"
    file.write_bytes(builders.part10(source))
    orthanc, node = archive_and_node(tmp_path, ROUTE_EVERYTHING)
    with orthanc, node:
        store(orthanc, [file])
        wait_until(lambda: orthanc.count() == 4, "three results beside the radiograph")
        wait_until(lambda: node.counts()["REJECTED"] == 3, "our own results, back and rejected")
        assert orthanc.count() == 4
        (story,) = node.json("trace", str(source.SOPInstanceUID))
        assert all(row["seen_again_at"] for row in story["deliveries"])
        (seen,) = node.json("status")
        reasons = [row["reason"] for row in seen["recent"] if row["state"] == "REJECTED"]
        assert set(reasons) <= {"own-result", "sop-class-not-supported"}


def test_results_carry_the_source_s_patient_and_point_to_it(tmp_path: Path) -> None:
    need("storescu", "Orthanc")
    source = builders.radiograph(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Zoë")
    file = tmp_path / "one.dcm"
    file.write_bytes(builders.part10(source))
    orthanc, node = archive_and_node(tmp_path, ROUTE_RADIOGRAPHS)
    with orthanc, node:
        store(orthanc, [file])
        wait_until(lambda: orthanc.count() == 4, "three results beside the radiograph")
        results = [dcmread(io.BytesIO(orthanc.file(instance))) for instance in orthanc.get("/instances")]
    assert {str(result.StudyInstanceUID) for result in results} == {str(source.StudyInstanceUID)}
    assert {str(result.PatientName) for result in results} == {"Müller^Zoë"}
    assert {str(result.PatientID) for result in results} == {str(source.PatientID)}
    assert len({str(result.SeriesInstanceUID) for result in results}) == 4


REAL_FILES = ("cr_philips_mono1_15bit_j2k.dcm", "cr_8bit_jpeg_invalid_age.dcm", "dx_in_sc_class_no_view.dcm")


def test_real_files_of_other_vendors_get_a_verdict_or_a_coded_reason(tmp_path: Path) -> None:
    need("dcmsend", "Orthanc")
    folder = shared("dicom")
    with (
        Orthanc(tmp_path / "orthanc") as orthanc,
        Node(tmp_path / "node", [{"name": "archive", "address": orthanc.address}]) as node,
    ):
        for name in REAL_FILES:
            done = run("dcmsend", "-v", "-aec", node.ae_title, "127.0.0.1", node.port, folder / name)
            assert done.returncode == 0, done.stdout + done.stderr
        wait_until(node.is_idle, "an idle node")
        for name in REAL_FILES:
            (row,) = traced(node, folder / name)
            print(name, row["verdict"], row["reason"] or row["abstain_reason"], row["sentence"])
            assert row["verdict"] in ("PNEUMONIA", "NORMAL", "UNCERTAIN") or row["reason"]


def traced(node: Node, file: Path) -> list[dict[str, str]]:
    uid = str(dcmread(file, stop_before_pixels=True).SOPInstanceUID)
    return [story["instance"] for story in node.json("trace", uid)]
