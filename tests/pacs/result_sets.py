"""Forty result sets: every verdict and doubt, from CR, DX and SC, under every character set; all kinds and SOP Classes.

Made by the pipeline as the worker makes them, with a classifier that says what it is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
)

from cxr_node import pipeline
from cxr_node.config import loader
from cxr_node.domain import Origin
from cxr_node.outcome import Artifact, Reported
from cxr_node.result_kinds import ResultKind
from tests import builders
from tests.dicom.contexts import CASES, RECEIVED
from tests.dicom.test_context import NAMES

SOURCES: dict[str, dict[str, Any]] = {
    "DX": {"SOPClassUID": DigitalXRayImageStorageForPresentation},
    "CR": {"SOPClassUID": ComputedRadiographyImageStorage, "Modality": "CR", "PresentationIntentType": None},
    "SC": {
        "SOPClassUID": SecondaryCaptureImageStorage, "PatientOrientation": None, "PatientAge": None,
        "ViewPosition": None, "BodyPartExamined": None, "Manufacturer": None, "StudyDate": "",
        "TimezoneOffsetFromUTC": "+0100",
    },
}  # fmt: skip
CHARACTER_SETS = ("Latin-1", "UTF-8", "Greek", "Cyrillic", "Arabic", "Japanese", "undeclared")
_ROWS = [*zip(CHARACTER_SETS, ("DX", "CR", "SC", "DX", "CR", "DX", "CR"), strict=True), ("Latin-1", "SC")]
DESTINATION = {
    "name": "pacs", "address": "PACS@127.0.0.1:104", "send": [kind.value for kind in ResultKind], "report_per": "image",
}  # fmt: skip
SETTINGS = loader.parse(
    {"spool": {"path": "."}, "destinations": [DESTINATION], "results": {"normal_heatmap": "banner"}}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSet:
    """One source, and what is made of it."""

    number: int
    case: str
    character_set: str
    source_class: str

    def __str__(self) -> str:
        return f"{self.number:02d}-{self.case}-{self.source_class}-{self.character_set}"

    @property
    def source(self) -> bytes:
        """Part 10 file of the radiograph: patient, study and instance of its own."""
        declared, sent = NAMES[self.character_set]
        placeholder = b"@" * (len(sent) + len(sent) % 2)
        named = {"SpecificCharacterSet": declared, "PatientName": placeholder.decode()}
        dataset = builders.radiograph(self.number, **SOURCES[self.source_class], **named)
        return builders.part10(dataset).replace(placeholder, sent.ljust(len(placeholder)))

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Every result object in every SOP class."""
        origin = Origin(calling_ae_title="MODALITY", peer_host="127.0.0.1", received_at=RECEIVED)
        outcome = pipeline.process(self.source, origin, builders.FixedPredictor(**CASES[self.case]), SETTINGS)
        assert isinstance(outcome, Reported), outcome
        return tuple(choice for artifact in outcome.artifacts for choice in artifact.sop_class_choices)


RESULT_SETS = tuple(
    ResultSet(number=number, case=case, character_set=character_set, source_class=source_class)
    for number, (case, (character_set, source_class)) in enumerate(((case, row) for case in CASES for row in _ROWS), 1)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One result object as a file, and where it came from."""

    of: ResultSet
    kind: ResultKind
    sop_class_uid: str
    source: Path
    file: Path

    @property
    def is_report(self) -> bool:
        """Tell whether it has a content tree, for the validators of those."""
        return self.kind in (ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.KEY_OBJECT)


def write(folder: Path, sets: tuple[ResultSet, ...] = RESULT_SETS) -> list[Made]:
    """Write sources and results as files."""
    made = []
    for one in sets:
        source = folder / f"{one}-source.dcm"
        source.write_bytes(one.source)
        for artifact in one.artifacts:
            suffix = artifact.sop_class_uid.rsplit(".", 1)[-1]
            file = folder / f"{one}-{artifact.kind}-{suffix}.dcm"
            file.write_bytes(artifact.content)
            made.append(
                Made(of=one, kind=artifact.kind, sop_class_uid=artifact.sop_class_uid, source=source, file=file)
            )
    return made
