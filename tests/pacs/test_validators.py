"""Public validators find nothing wrong with any result object, whatever the source was."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
)

from cxr_node.dicom.result import Context
from cxr_node.domain import ResultKind
from tests import builders
from tests.dicom.contexts import CASES, context, of_bytes
from tests.dicom.test_result import BUILD, NAMES, item, named

pytestmark = pytest.mark.pacs

SOURCES: dict[str, dict[str, Any]] = {
    "DX": {"SOPClassUID": DigitalXRayImageStorageForPresentation},
    "CR": {"SOPClassUID": ComputedRadiographyImageStorage, "Modality": "CR", "PresentationIntentType": None},
    "SC": {
        "SOPClassUID": SecondaryCaptureImageStorage, "PatientOrientation": None, "PatientAge": None,
        "ViewPosition": None, "BodyPartExamined": None, "Manufacturer": None, "StudyDate": "",
        "TimezoneOffsetFromUTC": "+0100",
    },
}  # fmt: skip
EXPECTED_WARNINGS = (
    "DeviceUID(0018,1002)> - Attribute is not present in standard DICOM IOD",  # IHE AIR demands it
    "StudyDate(0008,0020)> - Missing attribute or value that would be needed to build DICOMDIR",  # the source has none
)


def complaints(file: Path) -> list[str]:
    """What dciodvfy says beyond the name of the IOD and what is expected."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is missing: install dicom3tools")
    run = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, errors="replace", check=False)
    lines = [line for line in run.stderr.splitlines() if line.startswith(("Error", "Warning"))]
    return [line for line in lines if not line.endswith(EXPECTED_WARNINGS)]


def written(folder: Path, of: Context, kind: ResultKind) -> Path:
    file = folder / f"{kind}.dcm"
    file.write_bytes(BUILD[kind](of).content)
    return file


def ordered(**overrides: Any) -> Dataset:
    """A radiograph with an order, a coded procedure and other identifiers."""
    code = item(CodeValue="399208008", CodingSchemeDesignator="SCT", CodeMeaning="Plain chest X-ray")
    request = item(RequestedProcedureID="RP1", RequestedProcedureCodeSequence=[code])
    other = item(PatientID="MRN-2", IssuerOfPatientID="OTHER", TypeOfPatientID="TEXT")
    return builders.radiograph(
        ProcedureCodeSequence=[code], RequestAttributesSequence=[request], OtherPatientIDsSequence=[other], **overrides
    )


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ResultKind)
def test_dciodvfy_finds_nothing(tmp_path: Path, kind: ResultKind, case: str, source: str) -> None:
    assert complaints(written(tmp_path, context(case, builders.radiograph(**SOURCES[source])), kind)) == []


@pytest.mark.parametrize("kind", ResultKind)
def test_dciodvfy_finds_nothing_in_orders_and_identifiers(tmp_path: Path, kind: ResultKind) -> None:
    assert complaints(written(tmp_path, context(dataset=ordered()), kind)) == []


@pytest.mark.parametrize("kind", ResultKind)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "undeclared" and "wrong" not in name])
def test_dciodvfy_finds_nothing_in_other_character_sets(tmp_path: Path, kind: ResultKind, name: str) -> None:
    of = of_bytes(named(*NAMES[name]), "between")
    assert complaints(written(tmp_path, of, kind)) == []


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", [ResultKind.REPORT, ResultKind.MEASUREMENTS])
def test_dsrdump_reads_all_of_it(tmp_path: Path, kind: ResultKind, case: str) -> None:
    if shutil.which("dsrdump") is None:
        pytest.skip("dsrdump is missing: install dcmtk")
    file = written(tmp_path, context(case, ordered()), kind)
    run = subprocess.run(["dsrdump", str(file)], capture_output=True, text=True, errors="replace", check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "Preliminary Flag    : PRELIMINARY" in run.stdout


JAVA = Path("/usr/share/java")
JARS = (
    "pixelmed", "commons-codec", "commons-net", "hsqldb", "jaxb-api", "jmdns", "javax.json", "slf4j-api",
    "slf4j-simple", "vecmath",
)  # fmt: skip
UNLIMITED = ("-Xss16m", *(f"-Djdk.xml.xpath{limit}Limit=0" for limit in ("TotalOp", "ExprOp", "ExprGrp")))
NOT_IN_TEMPLATE = ("(122405,DCM", "(233604007,SCT")
"""Rows younger than the validator's tables, or an extension that TID 1410 allows."""


@pytest.mark.parametrize("case", ["pneumonia", "unlike"])
@pytest.mark.parametrize("kind", [ResultKind.REPORT, ResultKind.MEASUREMENTS])
def test_pixelmed_finds_the_templates_kept(tmp_path: Path, kind: ResultKind, case: str) -> None:
    if shutil.which("java") is None or not (JAVA / "pixelmed.jar").exists():
        pytest.skip("PixelMed is missing: install libpixelmed-java, pixelmed-apps and default-jre-headless")
    file = written(tmp_path, context(case), kind)
    path = ":".join(str(JAVA / f"{jar}.jar") for jar in JARS)
    command = ["java", *UNLIMITED, "-cp", path, "com.pixelmed.validate.DicomSRValidator", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    said = (run.stdout + run.stderr).splitlines()
    assert any("Root Template Validation Complete" in line for line in said)
    wrong = [line for line in said if line.startswith(("Error", "Warning"))]
    assert [line for line in wrong if not any(known in line for known in NOT_IN_TEMPLATE)] == []
