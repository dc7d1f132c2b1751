"""A report about several images with one thing wrong is refused: an image left out reads as negative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from pydicom import Dataset

from cxr_node.dicom.results.study import Study
from cxr_node.dicom.verify import check
from cxr_node.dicom.verify.rules import Rule
from cxr_node.errors import UnsoundResultError
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind
from tests.dicom.mutations import broken
from tests.dicom.studies import CONFIG, case, report, with_prior
from tests.dicom.test_study_report import items

REPORT, MEASUREMENTS, KEY_OBJECT = ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.KEY_OBJECT


@cache
def made() -> tuple[tuple[Artifact, ...], Study]:
    """Two positives, a negative, a lateral and a prior; and what the check is given."""
    of = with_prior(case("pneumonia", "normal", "pneumonia", laterals=1))
    given: list[Study] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "require_sound_study", lambda _, study: given.append(study))
        artifacts = report(of, CONFIG).artifacts
    return artifacts, given[0]


def spoilt(kind: ResultKind, act: Callable[[Dataset], None]) -> tuple[Artifact, ...]:
    return tuple(replace(broken(each, act), alternatives=()) if each.kind is kind else each for each in made()[0])


def swapped_regions(dataset: Dataset) -> None:
    one, _, other = (
        sorted(
            items(dataset, "Image Region"),
            key=lambda item: str(_source(item.ContentSequence[0]).ReferencedSOPInstanceUID),
        )[0],
        None,
        items(dataset, "Image Region")[-1],
    )
    first, second = _source(one.ContentSequence[0]), _source(other.ContentSequence[0])
    first.ReferencedSOPInstanceUID, second.ReferencedSOPInstanceUID = (
        second.ReferencedSOPInstanceUID,
        first.ReferencedSOPInstanceUID,
    )


def moved_region(dataset: Dataset) -> None:
    region = items(dataset, "Image Region")[-1]
    region.GraphicData = [value + 1.0 for value in region.GraphicData]


def flipped_group(dataset: Dataset) -> None:
    item = items(items(dataset, "Measurement Group")[-1], "Pneumonia")[0]  # of the negative
    item.ConceptCodeSequence[0].CodeValue = "52101004"
    item.ConceptCodeSequence[0].CodeMeaning = "Present"


def flipped_line(dataset: Dataset) -> None:
    line = items(dataset, "Finding")[1]
    line.TextValue = line.TextValue.replace("No pneumonia detected", "Pneumonia suspected")


def silent_line(dataset: Dataset) -> None:
    line = items(dataset, "Finding")[0]
    line.TextValue = line.TextValue.replace("Pneumonia suspected", "No pneumonia detected")


def lateral_line_lost(dataset: Dataset) -> None:
    section = items(dataset, "Findings")[0]
    del section.ContentSequence[-1]


def group_lost(dataset: Dataset) -> None:
    del items(dataset, "Imaging Measurements")[0].ContentSequence[-1]


def library_entry_lost(dataset: Dataset) -> None:
    del items(dataset, "Image Library Group")[0].ContentSequence[-1]


def evidence_lost(dataset: Dataset) -> None:
    del dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[1]


def other_evidence_lost(dataset: Dataset) -> None:
    del dataset.PertinentOtherEvidenceSequence


def number_changed(dataset: Dataset) -> None:
    line = items(dataset, "Finding")[0]
    line.TextValue = line.TextValue.replace("93 %", "98 %")


def lines_swapped(dataset: Dataset) -> None:
    first, second = items(dataset, "Finding")[:2]
    first.ContentSequence, second.ContentSequence = second.ContentSequence, first.ContentSequence


def verdict_lowered(dataset: Dataset) -> None:
    said = items(dataset, "Summary") or items(dataset, "Impression")
    said[0].TextValue = "AI: no pneumonia detected in images 1, 2 and 3."


def described_otherwise(dataset: Dataset) -> None:
    dataset.SeriesDescription = "AI: no pneumonia detected (research)"


def marks_the_negative(dataset: Dataset) -> None:
    image = next(item for item in dataset.ContentSequence if item.ValueType == "IMAGE")
    _source(image).ReferencedSOPInstanceUID = "1.2.826.0.1.3680043.10.1.2"


def other_patient(dataset: Dataset) -> None:
    dataset.PatientID = "SOMEBODY"


def other_device(dataset: Dataset) -> None:
    dataset.ContributingEquipmentSequence[-1].DeviceUID = "2.25.1"


BROKEN: list[tuple[ResultKind, Callable[[Dataset], None]]] = [
    (MEASUREMENTS, swapped_regions), (MEASUREMENTS, moved_region), (MEASUREMENTS, flipped_group),
    (MEASUREMENTS, group_lost), (MEASUREMENTS, library_entry_lost), (MEASUREMENTS, evidence_lost),
    (MEASUREMENTS, verdict_lowered), (MEASUREMENTS, other_patient), (MEASUREMENTS, other_device),
    (REPORT, flipped_line), (REPORT, silent_line), (REPORT, lateral_line_lost), (REPORT, evidence_lost),
    (REPORT, other_evidence_lost), (REPORT, number_changed), (REPORT, lines_swapped), (REPORT, verdict_lowered),
    (REPORT, described_otherwise), (REPORT, other_patient), (KEY_OBJECT, marks_the_negative),
]  # fmt: skip


def test_what_was_made_is_sound() -> None:
    check.require_sound_study(*made())


@pytest.mark.parametrize(("kind", "act"), BROKEN, ids=lambda each: getattr(each, "__name__", str(each)))
def test_it_is_refused_before_it_is_stored(kind: ResultKind, act: Callable[[Dataset], None]) -> None:
    with pytest.raises(UnsoundResultError):
        check.require_sound_study(spoilt(kind, act), made()[1])


@pytest.mark.parametrize(
    ("kind", "act"),
    [each for each in BROKEN if each[1] is not moved_region and each[0] is not KEY_OBJECT],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_verify_finds_it_in_files(kind: ResultKind, act: Callable[[Dataset], None]) -> None:
    files = [(str(each.kind), each.content) for each in spoilt(kind, act)]
    assert check.check_files(files).flaws


def test_a_document_without_its_predecessor_is_refused() -> None:
    of = case("normal", "pneumonia")
    early = report(replace(of, images=of.images[:1]))
    from tests.dicom.studies import refs

    given: list[tuple[tuple[Artifact, ...], Study]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "require_sound_study", lambda artifacts, study: given.append((artifacts, study)))
        report(replace(of, earlier_reports=(refs(early),)))
    (artifacts, study) = given[0]

    def lost(dataset: Dataset) -> None:
        del dataset.PredecessorDocumentsSequence

    changed = [replace(broken(each, lost), alternatives=()) if each.kind is REPORT else each for each in artifacts]
    with pytest.raises(UnsoundResultError, match=Rule.PREDECESSOR):
        check.require_sound_study(changed, study)


def _source(item: Dataset) -> Dataset:
    found: Dataset = item.ReferencedSOPSequence[0]
    return found
