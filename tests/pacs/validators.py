"""Public validators as functions of files, and the complaints that stay, each with its reason.

`tests/pacs/test_result_sets` fails on a complaint that is not in `KNOWN`; `tests/pacs/validation` writes the table.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from tests.pacs.peers import need

JAVA = Path("/usr/share/java")
JARS = (
    "pixelmed", "commons-codec", "commons-net", "hsqldb", "jaxb-api", "jmdns", "javax.json", "slf4j-api",
    "slf4j-simple", "vecmath",
)  # fmt: skip
UNLIMITED = ("-Xss16m", "-Xmx2g", *(f"-Djdk.xml.xpath{limit}Limit=0" for limit in ("TotalOp", "ExprOp", "ExprGrp")))
"""The validator's style sheets ask for more than Java 17 allows by default."""


class Validator(StrEnum):
    """Who complains."""

    DCIODVFY = "dciodvfy"
    DSRDUMP = "dsrdump"
    PIXELMED = "DicomSRValidator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """One line of a validator."""

    validator: Validator
    is_error: bool
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Complaints that stay: those whose words match, and why."""

    validator: Validator
    pattern: str
    shown: str
    reason: str
    of_the_source: bool = False
    """An error that the validator finds in the source too, word for word."""

    def covers(self, complaint: Complaint) -> bool:
        """Tell whether this is the complaint; an error is covered only where the source has it too."""
        if complaint.validator is not self.validator or (complaint.is_error and not self.of_the_source):
            return False
        return re.search(self.pattern, complaint.words) is not None


def dciodvfy(file: Path) -> list[Complaint]:
    """Attributes of any object (dicom3tools)."""
    need("dciodvfy")
    _, said = _run("dciodvfy", "-new", str(file))
    return _sort(Validator.DCIODVFY, said, errors=("Error",), warnings=("Warning",))


def dsrdump(file: Path) -> list[Complaint]:
    """Content tree of an SR (DCMTK)."""
    need("dsrdump")
    status, said = _run("dsrdump", str(file))
    found = _sort(Validator.DSRDUMP, said, errors=("E:", "F:"), warnings=("W:",))
    if status != 0 and not any(complaint.is_error for complaint in found):
        found.append(Complaint(validator=Validator.DSRDUMP, is_error=True, words=f"exit status {status}"))
    return found


def has_pixelmed() -> bool:
    """Tell whether PixelMed's validator is installed; it wants Java and takes some 5 s a file."""
    return shutil.which("java") is not None and (JAVA / "pixelmed.jar").exists()


def pixelmed(file: Path) -> list[Complaint]:
    """Templates of an SR (PixelMed), those of PS3.16 in 2022."""
    if not has_pixelmed():
        pytest.skip("PixelMed is missing: apt-get install libpixelmed-java pixelmed-apps default-jre-headless")
    _, said = _java("com.pixelmed.validate.DicomSRValidator", file)
    return _of_templates(said)


def pixelmed_together(files: Sequence[Path]) -> dict[Path, list[Complaint]]:
    """Validate many files in one process, several times as fast; wants a JDK, which runs a program from its source."""
    _, said = _java(str(Path(__file__).parent / "ValidateAll.java"), *files)
    parts = said.split("File: ")[1:]
    answers = {Path(part.splitlines()[0]): _of_templates(part) for part in parts}
    if answers.keys() != set(files):
        raise RuntimeError(said[-2000:])
    return {file: answers[file] for file in files}


def pixelmed_by_any_way(files: Sequence[Path]) -> dict[Path, list[Complaint]]:
    """Validate in one process where there is a JDK, else in one for each file."""
    return pixelmed_together(files) if has_pixelmed() and shutil.which("javac") else over(pixelmed, files)


def over(validate: Callable[[Path], list[Complaint]], files: Sequence[Path]) -> dict[Path, list[Complaint]]:
    """Validate files, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(files, pool.map(validate, files), strict=True))


def _java(program: str, *files: Path) -> tuple[int, str]:
    path = ":".join(str(JAVA / f"{jar}.jar") for jar in JARS)
    return _run("java", *UNLIMITED, "-cp", path, program, *map(str, files))


def _of_templates(said: str) -> list[Complaint]:
    found = _sort(Validator.PIXELMED, said, errors=("Error",), warnings=("Warning",))
    if "Root Template Validation Complete" not in said:
        found.append(Complaint(validator=Validator.PIXELMED, is_error=True, words="no root template was found"))
    return found


def _run(*command: str) -> tuple[int, str]:
    run = subprocess.run(command, capture_output=True, timeout=1800, check=False)
    return run.returncode, (run.stdout + run.stderr).decode("latin-1")


def _sort(validator: Validator, said: str, errors: tuple[str, ...], warnings: tuple[str, ...]) -> list[Complaint]:
    return [
        Complaint(validator=validator, is_error=line.startswith(errors), words=line.strip())
        for line in said.splitlines()
        if line.startswith((*errors, *warnings))
    ]


KNOWN = (
    Known(
        validator=Validator.DCIODVFY,
        pattern=r"DeviceUID\(0018,1002\)> - Attribute is not present in standard DICOM IOD",
        shown="Contributing Equipment Sequence, Device UID: attribute is not present in standard DICOM IOD",
        reason="IHE AIR 6.5.3.1 requires it, to distinguish a model from its successor. Declared as Standard Extended.",
    ),
    Known(
        validator=Validator.DCIODVFY,
        pattern=r"StudyDate\(0008,0020\)> - Missing attribute or value that would be needed to build DICOMDIR",
        shown="Study Date: missing value that would be needed to build DICOMDIR",
        reason="The source has none (sets with a Secondary Capture), and a result invents nothing about a study.",
    ),
    Known(
        validator=Validator.DCIODVFY,
        pattern=r"PatientName\(0010,0010\)\[1\]> - Value invalid for this VR .* Character invalid for character",
        shown="Patient's Name: character invalid for character repertoire (an error, and one of the source)",
        reason="The source has an 8-bit name without a character set. It is copied byte for byte: any guess could "
        "change the name, and source and result must read alike.",
        of_the_source=True,
    ),
    Known(
        validator=Validator.DSRDUMP,
        pattern=r"PatientName \(0010,0010\) contains invalid character",
        shown="PatientName contains invalid character(s)",
        reason="As above: the source's undeclared 8-bit name.",
    ),
    Known(
        validator=Validator.DSRDUMP,
        pattern=r"(VR checker does not support this|Reading unknown/unsupported) ?Specific ?Character ?Set",
        shown="the VR checker does not support this Specific Character Set",
        reason="A limit of the checker, which knows few character sets. Names are compared through an archive instead.",
    ),
    Known(
        validator=Validator.DSRDUMP,
        pattern=r"Check for template constraints not yet supported",
        shown="check for template constraints not yet supported",
        reason="A limit of the checker, for every key object; PixelMed checks the template.",
    ),
    Known(
        validator=Validator.PIXELMED,
        pattern=r"TEXT \(122405,DCM,\"Algorithm Manufacturer\"\): Content Item not in template",
        shown="Algorithm Manufacturer: content item not in template",
        reason="TID 4019 has this row (AIR requires it); it is newer than the validator's tables of 2022.",
    ),
    Known(
        validator=Validator.PIXELMED,
        pattern=r"CODE \(233604007,SCT,\"Pneumonia\"\): Content Item not in template",
        shown="Pneumonia = Present, Absent or Undetermined in the measurement group: content item not in template",
        reason="TID 1410 is extensible. The row repeats for the group what the document states, so that a reader of "
        "the group alone need not infer it from a number.",
    ),
    Known(
        validator=Validator.PIXELMED,
        pattern=r"TEXT \(121106,DCM,\"Comment\"\): Content Item not in template",
        shown="Comment (side and zone) in the measurement group: content item not in template",
        reason="TID 1410 is extensible. A Finding Site would assert that the finding is there; the network only "
        "looked there.",
    ),
    Known(
        validator=Validator.DCIODVFY,
        pattern=r"CodingSchemeDesignator\(0008,0102\)\[1\]> - Unrecognized defined term = <99CXRNODE>",
        shown="Coding Scheme Designator: unrecognized defined term 99CXRNODE",
        reason="A local scheme, declared in Coding Scheme Identification. No public code for the heading Limitations "
        "could be verified.",
    ),
    Known(
        validator=Validator.PIXELMED,
        pattern=r"/(CONTAINER|TEXT) \((272394005,SCT,\"Technique\"|limitations?,99CXRNODE,\"Limitations?\")\): "
        r"Content Item not in template",
        shown="Technique and Limitations in the report: content item not in template",
        reason="CID 7001 has no heading for either, and is extensible.",
    ),
    Known(
        validator=Validator.PIXELMED,
        pattern=r"/CONTAINER \(C0034375,UMLS,\"Qualitative Evaluations\"\).*: Content Item not in template",
        shown="everything in measurements without a region: content item not in template",
        reason="The validator recognises TID 1500 only by the titles of CID 7021, which is extensible; highdicom "
        "uses the template identifier, and reads it. OHIF shows a black viewport for an Imaging Measurement "
        "Report that has nothing to draw.",
    ),
)
