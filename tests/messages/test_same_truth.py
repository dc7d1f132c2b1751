"""Twenty studies by SR, by HL7 and by FHIR: the three are read by code that knows none of ours, and say the same."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import pytest
from fhir.resources.R4B.bundle import Bundle
from pydicom import Dataset, dcmread

from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind
from tests.messages.studies import CONFIG
from tests.messages.test_oru import parsed, rows
from tests.pacs import study_sets
from tests.pacs.study_sets import STUDY_SETS, StudySet

PRESENCE = {"52101004", "272519000", "373068000"}
SUMMARY, CERTAINTY, PARAMETERS, DEVICE_UID = "121073", "111012", "111002", "121012"
IMAGES = "1.2.826.0.1.3680043.8.498.161.1."
UNESCAPED = {"\\F\\": "|", "\\S\\": "^", "\\T\\": "&", "\\R\\": "~", "\\E\\": "\\"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one of the three says."""

    study: str
    patient: tuple[str, str, str]
    """ID, birth date, sex."""
    accession: str
    presence: str
    lines: tuple[str, ...]
    certainty: float | None
    parameters: frozenset[str]
    device: str
    status: str


@cache
def made(of: StudySet) -> dict[ResultKind, Artifact]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_sets, "SETTINGS", CONFIG)
        found: dict[ResultKind, Artifact] = {}
        for each in replace(of).artifacts:  # nothing of it is cached
            found.setdefault(each.kind, each)
        return found


def items(of: Dataset) -> Iterator[Dataset]:
    for item in of.get("ContentSequence", ()):
        yield item
        yield from items(item)


def name(item: Dataset) -> str:
    concept = item.get("ConceptNameCodeSequence")
    return str(concept[0].CodeValue) if concept else ""


def by_sr(of: dict[ResultKind, Artifact]) -> Told:
    report = dcmread(io.BytesIO(of[ResultKind.REPORT].content))
    lines = tuple(str(item.TextValue) for item in items(report) if item.ValueType == "TEXT" and name(item) != "121013")
    presence, certainty, parameters = "373068000", None, frozenset[str]()
    devices = [str(item.UID) for item in items(report) if name(item) == DEVICE_UID]
    if ResultKind.MEASUREMENTS in of:
        measured = dcmread(io.BytesIO(of[ResultKind.MEASUREMENTS].content))
        (whole,) = [item for item in measured.ContentSequence if name(item) == "C0034375"]
        (presence,) = [_code(item) for item in whole.ContentSequence if _code(item) in PRESENCE]
        parameters = frozenset(str(item.TextValue) for item in items(measured) if name(item) == PARAMETERS)
        certainty = _decisive(measured, presence)
    return Told(
        study=str(report.StudyInstanceUID),
        patient=(str(report.PatientID), str(report.PatientBirthDate), str(report.PatientSex)),
        accession=str(report.AccessionNumber),
        presence=presence,
        lines=lines,
        certainty=certainty,
        parameters=parameters,
        device=devices[0],
        status={"PRELIMINARY": "preliminary"}[report.PreliminaryFlag],
    )


def _code(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].CodeValue) if item.ValueType == "CODE" else ""


def _referenced(item: Dataset) -> str:
    there = item.get("ReferencedSOPSequence")
    return str(there[0].ReferencedSOPInstanceUID) if there else ""


def _decisive(measured: Dataset, presence: str) -> float | None:
    """Certainty of the first image, by its number, whose answer is that of the study."""
    found = []
    for group in (item for item in items(measured) if name(item) == "125007"):
        inside = list(items(group))
        said = {_code(item) for item in inside} & PRESENCE
        numbers = [float(item.MeasuredValueSequence[0].NumericValue) for item in inside if name(item) == CERTAINTY]
        image = next(uid for uid in map(_referenced, inside) if uid.startswith(IMAGES))
        if said == {presence}:
            found.append((image, numbers[0] if numbers else None))
    first: dict[str, list[float | None]] = {}
    for image, number in found:
        first.setdefault(image, []).append(number)
    numbers_of = first[min(first)] if first else [None]
    return next((each for each in numbers_of if each is not None), None)


def by_hl7(of: dict[ResultKind, Artifact]) -> Told:
    content = of[ResultKind.HL7].content
    (patient,), (order,), seen = (rows(content, name) for name in ("PID", "OBR", "OBX"))

    def where(code: str) -> list[list[str]]:
        return [row for row in seen if row[3].split("^")[0] == code]

    numbers = [float(row[5]) for row in seen if row[2] == "NM"]
    return Told(
        study=where("110180")[0][5],
        patient=(_plain(patient[3].split("^")[0]), patient[7], patient[8]),
        accession=_plain(order[18]),
        presence=seen[0][5].split("^")[0],
        lines=tuple(_plain(line) for row in seen if row[2] == "FT" for line in row[5].split("\\.br\\")),
        certainty=numbers[0] if numbers else None,
        parameters=frozenset(_plain(each) for row in where(PARAMETERS) for each in row[5].split("~")),
        device=where("111001")[0][18].split("^")[2],
        status={"P": "preliminary"}[order[25]],
    )


def _plain(text: str) -> str:
    for escape, char in UNESCAPED.items():
        text = text.replace(escape, char)
    return text


def by_fhir(of: dict[ResultKind, Artifact]) -> Told:
    entries = json.loads(of[ResultKind.FHIR].content)["entry"]
    there = {entry["resource"]["resourceType"]: entry["resource"] for entry in entries}
    patient, seen, report = there["Patient"], there["Observation"], there["DiagnosticReport"]
    (form,) = report["presentedForm"]
    lines = base64.b64decode(form["data"]).decode().split("\n")
    headings = {0} | {number + 1 for number, line in enumerate(lines) if not line}
    components = seen.get("component", [])
    numbers = [each["valueQuantity"]["value"] for each in components if "valueQuantity" in each]
    (presence,) = {each["code"] for each in seen["valueCodeableConcept"]["coding"]} & PRESENCE
    assert seen["status"] == report["status"]
    assert report["conclusion"] == lines[1]
    return Told(
        study=there["ImagingStudy"]["identifier"][0]["value"].removeprefix("urn:oid:"),
        patient=(
            patient["identifier"][0]["value"],
            patient["birthDate"].replace("-", ""),
            {"female": "F", "male": "M", "other": "O"}[patient["gender"]],
        ),
        accession=there["ImagingStudy"]["identifier"][1]["value"],
        presence=presence,
        lines=tuple(line for number, line in enumerate(lines) if line and number not in headings),
        certainty=numbers[0] if numbers else None,
        parameters=frozenset(each["valueString"] for each in components if "valueString" in each),
        device=there["Device"]["identifier"][0]["value"].removeprefix("urn:oid:"),
        status=seen["status"],
    )


@pytest.mark.parametrize("of", STUDY_SETS, ids=str)
def test_sr_hl7_and_fhir_say_the_same(of: StudySet) -> None:
    there = made(of)
    sr, hl7, fhir = by_sr(there), by_hl7(there), by_fhir(there)
    assert hl7 == fhir
    parsed(there[ResultKind.HL7].content)
    Bundle.model_validate_json(there[ResultKind.FHIR].content)
    assert replace(sr, parameters=frozenset()) == replace(hl7, parameters=frozenset())
    assert hl7.parameters <= sr.parameters  # the SR has those of each image, too
    assert bool(hl7.parameters) == bool(sr.parameters)
