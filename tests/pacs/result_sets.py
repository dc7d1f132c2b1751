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
from cxr_node.result_kinds import DICOM_KINDS, ResultKind
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
    "name": "pacs", "address": "PACS@127.0.0.1:104", "report_per": "image",
    "send": [kind.value for kind in DICOM_KINDS],
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
        return named(self.number, self.character_set, **SOURCES[self.source_class])

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


def named(number: int, character_set: str, **overrides: Any) -> bytes:
    """Part 10 file of a radiograph whose patient has a name in a character set."""
    declared, sent = NAMES[character_set]
    placeholder = b"@" * (len(sent) + len(sent) % 2)
    overrides |= {"SpecificCharacterSet": declared, "PatientName": placeholder.decode()}
    return builders.part10(builders.radiograph(number, **overrides)).replace(placeholder, sent.ljust(len(placeholder)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """One result object as a file, with the files that it was made of."""

    kind: ResultKind
    sop_class_uid: str
    sources: tuple[Path, ...]
    file: Path

    @property
    def is_report(self) -> bool:
        """Tell whether it has a content tree, for the validators of those."""
        return self.kind in (ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.KEY_OBJECT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made(ResultFile):
    """One that was made of a single radiograph."""

    of: ResultSet

    @property
    def source(self) -> Path:
        """The radiograph."""
        return self.sources[0]


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
                Made(of=one, kind=artifact.kind, sop_class_uid=artifact.sop_class_uid, sources=(source,), file=file)
            )
    return made
