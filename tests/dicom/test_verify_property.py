"""One thing removed or changed anywhere is noticed: at run time, of files, or by the oracle, as the lists below say."""

from __future__ import annotations

import io
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread

from cxr_node.dicom.verify import check
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind
from tests.dicom import oracle
from tests.dicom.contexts import CASES
from tests.dicom.mutations import SOURCE, Mutation, broken, every, items, results

OF_FILES = frozenset(
    {
        # whose it is
        "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge",
        "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber",
        "ReferringPhysicianName", "ReferencedRequestSequence", "IssuerOfPatientID",
        # what it is, and that nobody has signed it
        "SOPClassUID", "Modality", "SeriesNumber", "InstanceNumber", "InstanceCreatorUID", "CompletionFlag",
        "VerificationFlag", "PreliminaryFlag", "ContentQualification",
        # when, and by which algorithm
        "ContentDate", "ContentTime", "SeriesDate", "SeriesTime", "ContributionDateTime", "TimezoneOffsetFromUTC",
        "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "DeviceUID",
        # what it refers to, and how large it is
        "CurrentRequestedProcedureEvidenceSequence", "ReferencedSOPClassUID", "ReferencedSOPInstanceUID",
        "Rows", "Columns", "PatientOrientation", "LossyImageCompression",
    }
)  # fmt: skip
"""A change of these is noticed in files too, with their source."""
AT_RUN_TIME = OF_FILES | {
    "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "NumericValue", "GraphicData", "MeasuredValueSequence",
}  # fmt: skip
"""A change of these, at any depth, is noticed before anything is stored. Every other is the oracle's at least."""


@cache
def document(case: str, kind: ResultKind) -> Dataset:
    return dcmread(io.BytesIO(results(case)[0][kind].content))


@cache
def mutations(case: str, kind: ResultKind) -> list[Mutation]:
    needed = ("SOPClassUID", "SOPInstanceUID")  # a Part 10 file cannot be written without
    return [each for each in every(document(case, kind)) if not (each.removes and str(each)[1:] in needed)]


@st.composite
def broken_sets(draw: st.DrawFn) -> tuple[str, Mutation, ResultKind]:
    case = draw(st.sampled_from(sorted(CASES)))
    kind = draw(st.sampled_from((ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.HEATMAP)))
    return case, draw(st.sampled_from(mutations(case, kind))), kind


def with_one_broken(case: str, act: object, kind: ResultKind) -> list[Artifact]:
    artifacts = results(case)[0]
    return [broken(each, act) if each.kind is kind else each for each in artifacts.values()]  # type: ignore[arg-type]


def by_check(case: str, artifacts: list[Artifact]) -> bool:
    return bool(check.check_made(artifacts, results(case)[1]))


def by_oracle(case: str, artifacts: list[Artifact]) -> bool:
    return bool(oracle.flaws(artifacts, results(case)[1]))


def by_files(artifacts: list[Artifact]) -> bool:
    return bool(check.check_files([*((str(each.kind), each.content) for each in artifacts), SOURCE]).flaws)


@settings(max_examples=150, deadline=None)
@given(broken_sets())
def test_any_change_anywhere_is_noticed(drawn: tuple[str, Mutation, ResultKind]) -> None:
    case, act, kind = drawn
    artifacts = with_one_broken(case, act, kind)
    at_run_time = by_check(case, artifacts)
    assert at_run_time or by_oracle(case, artifacts), str(act)
    assert at_run_time or not AT_RUN_TIME.intersection(act.keywords), str(act)
    assert by_files(artifacts) or not OF_FILES.intersection(act.keywords), str(act)


TREES = [
    pytest.param(case, kind, act, id=f"{case}-{kind}-{act.__name__}")
    for case in ("pneumonia", "views")
    for kind in (ResultKind.REPORT, ResultKind.MEASUREMENTS)
    for act in items(document(case, kind))
]


@pytest.mark.parametrize(("case", "kind", "act"), TREES)
def test_every_content_item_removed_doubled_or_moved_is_noticed(case: str, kind: ResultKind, act: object) -> None:
    broken_set = with_one_broken(case, act, kind)
    if [each.content for each in broken_set] == [each.content for each in results(case)[0].values()]:
        pytest.skip("the last of several moved to its own place")
    assert by_check(case, broken_set) or by_oracle(case, broken_set)


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from((ResultKind.REPORT, ResultKind.MEASUREMENTS)),
    place=st.floats(0, 1, exclude_max=True),
    garbage=st.binary(min_size=1, max_size=12),
)
def test_garbage_in_a_file_is_a_flaw_or_nothing_but_never_a_crash(
    kind: ResultKind, place: float, garbage: bytes
) -> None:
    content = results("pneumonia")[0][kind].content
    start = 132 + int(place * (len(content) - 132))
    spoilt = content[:start] + garbage + content[start + len(garbage) :]
    checked = check.check_files([("spoilt", spoilt), SOURCE])
    assert checked.results + len(checked.flaws) + len(checked.ignored) + checked.sources >= 1
