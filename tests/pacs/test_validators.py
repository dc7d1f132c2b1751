"""Public validators find nothing wrong where `test_result_sets` does not look: orders, notes, key objects, grays."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from cxr_node.config.schema import Admission
from cxr_node.config.triage import KeyObjectTitle, Triage
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.read import header
from cxr_node.dicom.results.context import Context
from cxr_node.outcome import Rejected
from cxr_node.result_kinds import ResultKind
from tests import builders
from tests.builders import item
from tests.dicom.contexts import context
from tests.dicom.test_context import BUILD
from tests.dicom.test_not_analysed_note import LATERAL, refused
from tests.pacs.result_sets import SOURCES
from tests.pacs.validators import dsrdump, pixelmed

pytestmark = pytest.mark.pacs

EXPECTED_WARNINGS = (
    "DeviceUID(0018,1002)> - Attribute is not present in standard DICOM IOD",  # IHE AIR demands it
    "StudyDate(0008,0020)> - Missing attribute or value that would be needed to build DICOMDIR",  # the source has none
    "CodingSchemeDesignator(0008,0102)[1]> - Unrecognized defined term = <99CXRNODE>",  # Limitations: a local code
)


def complaints(file: Path) -> list[str]:
    """What dciodvfy says beyond the name of the IOD and what is expected."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is missing: install dicom3tools")
    run = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, errors="replace", check=False)
    lines = [line for line in run.stderr.splitlines() if line.startswith(("Error", "Warning"))]
    return [line for line in lines if not line.endswith(EXPECTED_WARNINGS)]


def written(folder: Path, of: Context, kind: ResultKind, choice: int = 0) -> Path:
    file = folder / f"{kind}.dcm"
    made = BUILD[kind](of)
    assert made is not None
    file.write_bytes(made.sop_class_choices[choice].content)
    return file


def ordered(**overrides: Any) -> Dataset:
    """A radiograph with an order, a coded procedure and other identifiers."""
    code = item(CodeValue="399208008", CodingSchemeDesignator="SCT", CodeMeaning="Plain chest X-ray")
    request = item(RequestedProcedureID="RP1", RequestedProcedureCodeSequence=[code])
    other = item(PatientID="MRN-2", IssuerOfPatientID="OTHER", TypeOfPatientID="TEXT")
    return builders.radiograph(
        ProcedureCodeSequence=[code], RequestAttributesSequence=[request], OtherPatientIDsSequence=[other], **overrides
    )


@pytest.mark.parametrize("kind", BUILD)
def test_dciodvfy_finds_nothing_in_orders_and_identifiers(tmp_path: Path, kind: ResultKind) -> None:
    assert complaints(written(tmp_path, context(dataset=ordered()), kind)) == []


def test_validators_find_nothing_in_the_note_about_a_rejected_image(tmp_path: Path) -> None:
    (artifact,) = refused(**LATERAL).artifacts
    file = tmp_path / "note.dcm"
    file.write_bytes(artifact.content)
    assert complaints(file) == []
    assert [complaint.words for complaint in (*dsrdump(file), *pixelmed(file))] == []


def test_dsrdump_reads_the_key_object(tmp_path: Path) -> None:
    if shutil.which("dsrdump") is None:
        pytest.skip("dsrdump is missing: install dcmtk")
    file = written(tmp_path, context(dataset=ordered()), ResultKind.KEY_OBJECT)
    run = subprocess.run(["dsrdump", str(file)], capture_output=True, text=True, errors="replace", check=False)
    assert (run.returncode, run.stderr) == (0, "W: Check for template constraints not yet supported\n")
    assert '"Of Interest"' in run.stdout
    assert run.stdout.count("<contains IMAGE:") == 2


@pytest.mark.parametrize("title", KeyObjectTitle)
def test_dciodvfy_finds_nothing_in_a_marked_key_object_of_any_title(tmp_path: Path, title: KeyObjectTitle) -> None:
    triage = Triage(positive="AI FLAG", key_object_title=title)
    assert complaints(written(tmp_path, context(dataset=ordered(), triage=triage), ResultKind.KEY_OBJECT)) == []


@pytest.mark.parametrize("source", SOURCES)
def test_dcmpschk_finds_nothing_in_the_presentation_state(tmp_path: Path, source: str) -> None:
    """Its pattern of DT is that of PS3.5, but it takes no offset from UTC: the only thing that is taken out for it."""
    if shutil.which("dcmpschk") is None:
        pytest.skip("dcmpschk is missing: install dcmtk")
    file = written(tmp_path, context(dataset=builders.radiograph(**SOURCES[source])), ResultKind.PRESENTATION_STATE)
    dataset = dcmread(file)
    ours = dataset.ContributingEquipmentSequence[-1]
    ours.ContributionDateTime = ours.ContributionDateTime[: -len("+0000")]
    dataset.save_as(file)
    run = subprocess.run(["dcmpschk", str(file)], capture_output=True, text=True, errors="replace", check=False)
    said = run.stdout + run.stderr
    assert "Test passed." in said, said
    assert "E:" not in said


def curve() -> Dataset:
    table = item(LUTDescriptor=[4096, 0, 16])
    table.add_new("LUTData", "OW", (np.sqrt(np.arange(4096) / 4095) * 65535).astype("<u2").tobytes())
    return table


@pytest.mark.parametrize(
    "grays",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        {"WindowCenter": "1500", "WindowWidth": "1000"},
        {"RescaleSlope": "0.5", "RescaleIntercept": "-100", "WindowCenter": "700", "WindowWidth": "900"},
        {"VOILUTSequence": [curve()]},
    ],
)
def test_dcmtk_shows_the_gray_scale_that_was_judged(tmp_path: Path, grays: dict[str, Any]) -> None:
    """A presentation state replaces the header's gray scale, so it must be the same."""
    if shutil.which("dcmp2pgm") is None:
        pytest.skip("dcmp2pgm is missing: install dcmtk")
    source = tmp_path / "source.dcm"
    source.write_bytes(builders.part10(builders.radiograph(**grays)))
    read = header.read(source.read_bytes())
    assert not isinstance(read, Rejected)
    state = written(tmp_path, context(dataset=builders.radiograph(**grays)), ResultKind.PRESENTATION_STATE)
    shown = tmp_path / "shown.pgm"
    command = ["dcmp2pgm", "-p", str(state), str(source), str(shown)]
    subprocess.run(command, capture_output=True, check=True)
    judged = pixels.decode(read, Admission()).pixels * 255
    assert np.abs(np.asarray(Image.open(shown)).astype(float) - judged).max() <= 2
