"""One answer for a study: images over several associations, in any order; what Orthanc then has, and after a late one.

Sent by DCMTK's storescu to the node as a hospital runs it, with a short wait.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from cxr_node.dicom import from_picture
from cxr_node.dicom.words.study_wording import REPLACES
from cxr_node.result_kinds import SHAPES, ResultKind
from cxr_node.tools.drawn import BUILT_IN, BUILT_IN_ATTRIBUTES
from tests.pacs.peers import Node, Orthanc, need
from tests.patience import wait_until
from tests.processes import run

pytestmark = [pytest.mark.pacs, pytest.mark.timeout(900)]

REPORT, MEASUREMENTS, HEATMAP = (
    SHAPES[kind].series_number for kind in (ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.HEATMAP)
)
_ROOT = "1.2.826.0.1.3680043.8.498.162"
OF_RECEIPT = ("ContentDate", "ContentTime", "SeriesDate", "SeriesTime", "ContributionDateTime")
QUIET_S = 8.0
"""Longer than three associations take on a machine that has much else to do."""


def film(folder: Path, study: int, number: int, picture: str, view: str = "AP") -> Path:
    """A built-in radiograph as image `number` of a study, in a series of its own."""
    file = folder / f"{study}-{number}.dcm"
    identity = {
        "PatientID": f"STUDY-{study}", "StudyInstanceUID": f"{_ROOT}.1.{study}", "SeriesNumber": str(number),
        "SeriesInstanceUID": f"{_ROOT}.2.{study}.{number}", "SOPInstanceUID": f"{_ROOT}.3.{study}.{number}",
        "ViewPosition": view, "SeriesDescription": f"Chest {number}",
    }  # fmt: skip
    file.write_bytes(from_picture.wrap(BUILT_IN / f"{picture}.jpg", **{**BUILT_IN_ATTRIBUTES, **identity}))
    return file


@contextmanager
def department(folder: Path) -> Iterator[tuple[Orthanc, Node]]:
    """An archive, and a node that sends to it."""
    need("storescu", "Orthanc")
    with Orthanc(folder / "orthanc") as orthanc:
        archive = {"name": "archive", "address": orthanc.address}
        with Node(folder / "node", [archive], study={"quiet_s": QUIET_S}) as node:
            yield orthanc, node


def send(node: Node, *files: Path) -> None:
    """Send each over an association of its own."""
    for file in files:
        done = run("storescu", "-R", "-aec", node.ae_title, "127.0.0.1", node.port, file)
        assert done.returncode == 0, done.stderr


def stored(orthanc: Orthanc, node: Node, count: int) -> list[Dataset]:
    """All objects in the archive, once there are so many and the node has no more to send."""
    wait_until(lambda: orthanc.count() >= count and node.is_idle(), f"{count} results")
    found = [dcmread(io.BytesIO(orthanc.file(instance))) for instance in orthanc.get("/instances")]
    assert len(found) == count, [each.SeriesDescription for each in found]
    return sorted(found, key=lambda each: (int(each.SeriesNumber), str(each.SOPInstanceUID)))


def impression(report: Dataset) -> str:
    """What the report says first."""
    (container,) = (each for each in report.ContentSequence if said(each, "Impressions"))
    return str(next(each.TextValue for each in container.ContentSequence if said(each, "Impression")))


def said(item: Dataset, meaning: str) -> bool:
    return bool(item.get("ConceptNameCodeSequence") and item.ConceptNameCodeSequence[0].CodeMeaning == meaning)


def without_receipt(dataset: Dataset) -> Dataset:
    """Leave out when the images came: the only thing in which two nodes may differ."""
    for element in list(dataset):
        if element.keyword in OF_RECEIPT:
            del dataset[element.tag]
        elif element.VR == "SQ":
            for item in element.value:
                without_receipt(item)
    return dataset


def replaced(report: Dataset) -> list[str]:
    return [
        str(each.ReferencedSOPInstanceUID)
        for study in report.get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    ]


def test_three_associations_in_any_order_make_the_same_three_series(tmp_path: Path) -> None:
    """Two frontals and a lateral, to three nodes: each image is once the last."""
    films = [film(tmp_path, 1, 1, "clear-1"), film(tmp_path, 1, 2, "opacity-2"), film(tmp_path, 1, 3, "clear-2", "LL")]
    first: list[Dataset] = []
    for place in range(3):
        with department(tmp_path / str(place)) as (orthanc, node):
            send(node, *films[place:], *films[:place])
            found = stored(orthanc, node, 3)
        assert [int(each.SeriesNumber) for each in found] == [REPORT, MEASUREMENTS, HEATMAP]
        assert len({each.SeriesInstanceUID for each in found}) == 3
        assert {each.StudyInstanceUID for each in found} == {f"{_ROOT}.1.1"}
        assert impression(found[0]).startswith("AI: PNEUMONIA SUSPECTED in image 2. 1 of 3 images was not analysed.")
        found = [without_receipt(each) for each in found]
        first = first or found
        assert found == first


def test_a_late_image_makes_a_report_that_replaces_the_earlier_one(tmp_path: Path) -> None:
    """First two without pneumonia: two series; then one with: a report, measurements and a picture more."""
    films = [film(tmp_path, 2, 1, "clear-1"), film(tmp_path, 2, 2, "clear-2")]
    with department(tmp_path) as (orthanc, node):
        send(node, *films)
        report, measurements = stored(orthanc, node, 2)
        assert [int(each.SeriesNumber) for each in (report, measurements)] == [REPORT, MEASUREMENTS]
        assert impression(report).startswith("AI: no pneumonia detected in images 1 and 2. ")
        send(node, film(tmp_path, 2, 3, "opacity-2"))
        found = stored(orthanc, node, 5)
    numbers = [int(each.SeriesNumber) for each in found]
    assert numbers == [REPORT, REPORT, MEASUREMENTS, MEASUREMENTS, HEATMAP]
    assert report in found
    assert measurements in found
    later_report, later_measurements = (each for each in found[:4] if each not in (report, measurements))
    assert impression(later_report).startswith(f"{REPLACES}AI: PNEUMONIA SUSPECTED in image 3. ")
    assert replaced(later_report) == [report.SOPInstanceUID]
    assert replaced(later_measurements) == [measurements.SOPInstanceUID]
    assert replaced(report) == replaced(measurements) == []
    assert len({each.SeriesInstanceUID for each in found}) == 5
