"""Our own check of results that replace others: both versions are sound, a wrong predecessor is told."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from pydicom import Dataset, dcmread

from cxr_node.dicom.verify import check
from cxr_node.dicom.verify.rules import Rule
from cxr_node.domain import Precedent
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind
from tests import builders
from tests.dicom.contexts import RECEIVED, context
from tests.dicom.mutations import BUILD, broken

REPORT, MEASUREMENTS = ResultKind.REPORT, ResultKind.MEASUREMENTS


@dataclass(frozen=True)
class Version:
    """One header's results, and its source."""

    name: str
    artifacts: dict[ResultKind, Artifact]
    source: bytes

    def files(self, *, with_source: bool = True) -> list[tuple[str, bytes]]:
        found = [(f"{self.name} {kind}", artifact.content) for kind, artifact in self.artifacts.items()]
        return [*found, (self.name, self.source)] if with_source else found


@functools.cache
def versions() -> tuple[Version, Version]:
    """Results of a radiograph, and those that replaced them when its header was corrected."""
    found: list[Version] = []
    precedent = Precedent()
    for number, name in enumerate(("Wrong^Name", "Right^Name")):
        dataset = builders.radiograph(PatientName=name)
        of = context("pneumonia", dataset, max_heatmap_px=1024)
        later = replace(of.origin, received_at=RECEIVED + timedelta(days=number))
        of = replace(of, origin=later, precedent=precedent)
        artifacts = {kind: build(of) for kind, build in BUILD.items()}  # every SOP Class
        check.require_sound(list(artifacts.values()), of)
        precedent = Precedent(earlier_results=(tuple(each.ref for each in every_choice(artifacts)),))
        found.append(Version(name, artifacts, builders.part10(dataset)))
    return found[0], found[1]


def every_choice(artifacts: dict[ResultKind, Artifact]) -> list[Artifact]:
    return [choice for artifact in artifacts.values() for choice in artifact.sop_class_choices]


def test_both_versions_of_a_corrected_header_are_sound_together_and_alone() -> None:
    first, second = versions()
    for together in (
        second.files(),
        [*first.files(), *second.files()],
        [*second.files(), *first.files()],
        [*first.files(with_source=False), *second.files(with_source=False)],
    ):
        assert check.check_files(together).flaws == ()
    assert check.check_files([*first.files(), *second.files()]).sources == 2


def test_each_class_names_the_document_of_its_own_class() -> None:
    first, second = versions()
    for kind in (REPORT, MEASUREMENTS):
        for old, new in zip(
            first.artifacts[kind].sop_class_choices, second.artifacts[kind].sop_class_choices, strict=True
        ):
            (study,) = dcmread(io.BytesIO(new.content)).PredecessorDocumentsSequence
            (series,) = study.ReferencedSeriesSequence
            (document,) = series.ReferencedSOPSequence
            assert (document.ReferencedSOPClassUID, document.ReferencedSOPInstanceUID) == (
                old.sop_class_uid,
                old.sop_instance_uid,
            )
            assert (series.SeriesInstanceUID, old.sop_class_uid) == (old.series_instance_uid, new.sop_class_uid)


def of_another_study(dataset: Dataset) -> None:
    dataset.PredecessorDocumentsSequence[0].StudyInstanceUID = "1.2.3"


def of_itself(dataset: Dataset) -> None:
    series = dataset.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = dataset.SOPInstanceUID


def of_another_class(dataset: Dataset) -> None:
    series = dataset.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence[0].ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize("act", [of_another_study, of_itself, of_another_class])
@pytest.mark.parametrize("kind", [REPORT, MEASUREMENTS])
def test_a_wrong_predecessor_is_told(kind: ResultKind, act: Callable[[Dataset], None]) -> None:
    _, second = versions()
    artifacts = second.artifacts | {kind: replace(broken(second.artifacts[kind], act), alternatives=())}
    files = replace(second, artifacts=artifacts).files()
    assert {flaw.rule for flaw in check.check_files(files).flaws} == {Rule.PREDECESSOR}


def without(dataset: Dataset) -> None:
    del dataset.PredecessorDocumentsSequence


@pytest.mark.parametrize("act", [without, of_another_study])
def test_what_is_made_must_name_what_it_was_made_to_replace(act: Callable[[Dataset], None]) -> None:
    first, second = versions()
    of = context("pneumonia", builders.radiograph(PatientName="Right^Name"), max_heatmap_px=1024)
    precedent = Precedent(earlier_results=(tuple(each.ref for each in every_choice(first.artifacts)),))
    of = replace(of, origin=replace(of.origin, received_at=RECEIVED + timedelta(days=1)), precedent=precedent)
    artifacts = second.artifacts | {REPORT: broken(second.artifacts[REPORT], act)}
    assert Rule.PREDECESSOR in {flaw.rule for flaw in check.check_made(list(artifacts.values()), of)}
