"""Our own check: sound sets pass in every form, and answers of several images or models are told apart."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from cxr_node import result_kinds
from cxr_node.dicom.pixels.compress import Encoder
from cxr_node.dicom.results.context import Context
from cxr_node.dicom.verify import check
from cxr_node.dicom.verify.rules import Rule
from cxr_node.node.network import file_meta, pictures
from cxr_node.result_kinds import ResultKind
from tests import builders
from tests.builders import item
from tests.dicom import oracle
from tests.dicom.contexts import CASES, RECEIVED, context, finding, of_bytes
from tests.dicom.mutations import BUILD, made, of_both_lungs

REPORT, MEASUREMENTS, HEATMAP = ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.HEATMAP
SMALL = {"max_heatmap_px": 1024}


PROCEDURE = item(CodeValue="RPCHEST", CodingSchemeDesignator="99LOCAL", CodeMeaning="Thorax Röntgen")
SOURCES: dict[str, bytes] = {
    "DX": builders.part10(builders.radiograph()),
    "CR": builders.part10(builders.radiograph(Modality="CR", SOPClassUID="1.2.840.10008.5.1.4.1.1.1")),
    "implicit": builders.part10(builders.radiograph(), ImplicitVRLittleEndian),
    "big endian": builders.part10(builders.radiograph(), ExplicitVRBigEndian),
    "JPEG 2000": builders.part10(builders.radiograph(), JPEG2000Lossless),
    "lossy": builders.part10(builders.radiograph(LossyImageCompression="01")),
    "ordered": builders.part10(
        builders.radiograph(
            ProcedureCodeSequence=[PROCEDURE],
            TimezoneOffsetFromUTC="+0530",
            IssuerOfAccessionNumberSequence=[item(LocalNamespaceEntityID="RIS")],
            OtherPatientIDsSequence=[item(PatientID="MRN-2", IssuerOfPatientID="OTHER", TypeOfPatientID="TEXT")],
            RequestAttributesSequence=[item(RequestedProcedureID="RP1", RequestedProcedureCodeSequence=[PROCEDURE])],
        )
    ),
    "UTF-8": builders.part10(builders.radiograph(SpecificCharacterSet="ISO_IR 192", PatientName="Ωμέγα^Ж李")),
    "undeclared": builders.part10(builders.radiograph(SpecificCharacterSet=None, PatientName="M@ller")).replace(
        b"M@ller", b"M\xfcller"
    ),
    "bare": builders.part10(
        builders.radiograph(
            **dict.fromkeys(
                (
                    "SpecificCharacterSet",
                    "PatientName",
                    "IssuerOfPatientID",
                    "PatientBirthDate",
                    "PatientSex",
                    "PatientAge",
                    "StudyID",
                    "StudyDate",
                    "StudyTime",
                    "StudyDescription",
                    "AccessionNumber",
                    "ReferringPhysicianName",
                    "Manufacturer",
                    "ViewPosition",
                    "ViewCodeSequence",
                    "PatientOrientation",
                    "LossyImageCompression",
                )
            )
        )
    ),
}


def files(of: Context, *kinds: ResultKind, source: bytes | None = None) -> list[tuple[str, bytes]]:
    found = [(str(kind), artifact.content) for kind, artifact in made(of).items() if not kinds or kind in kinds]
    return [*found, ("source", source)] if source else found


def flaws(of: Context, source: bytes) -> list[str]:
    """Of the set before it is sent, of its files with and without their source, and of each file alone."""
    artifacts = made(of)
    found = [str(flaw) for flaw in check.check_made(list(artifacts.values()), of)]
    found += map(str, oracle.flaws(list(artifacts.values()), of))
    report, measurements, heatmap = ((str(kind), artifact.content) for kind, artifact in artifacts.items())
    whole = [report, measurements, heatmap]
    for these in ([*whole, ("source", source)], whole, [report, heatmap], *([one] for one in whole)):
        found += [str(flaw) for flaw in check.check_files(these).flaws]
    return found


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("case", CASES)
def test_sound_results_have_no_flaw(case: str, name: str) -> None:
    content = SOURCES[name]
    of = of_bytes(content, case, **SMALL)
    of = replace(of, radiograph=replace(of.radiograph, view=of.source.view))
    assert flaws(of, content) == []


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "more",
    [
        {"normal_heatmap": "map"},
        {"manufacturer": "Müller GmbH \\ Söhne" * 5, "installation_id": "i" * 200},
        {"manufacturer": "", "installation_id": ""},
    ],
)
def test_sound_results_of_other_settings(case: str, more: dict[str, str]) -> None:
    assert flaws(context(case, **SMALL, **more), SOURCES["DX"]) == []


def as_kept(content: bytes, syntax: str) -> bytes:
    """A picture as the spool keeps it, or as a destination gets it in RLE."""
    meta, data_set = file_meta.halves(content)
    packed = pictures.compress(data_set, syntax, Encoder())
    assert packed is not None
    return file_meta.renamed(content, meta, syntax) + packed


@pytest.mark.parametrize("source", ["DX", "lossy"])
@pytest.mark.parametrize("syntax", [pictures.JPEG, pictures.JPEG_LS, pictures.RLE])
def test_a_picture_is_sound_as_it_is_sent(syntax: str, source: str) -> None:
    content = SOURCES[source]
    of = of_bytes(content, "pneumonia", **SMALL)
    of = replace(of, radiograph=replace(of.radiograph, view=of.source.view))
    *others, (name, whole) = files(of, REPORT, MEASUREMENTS, HEATMAP)
    picture = (name, as_kept(whole, syntax))
    for these in ([*others, picture, ("source", content)], [*others, picture], [picture]):
        assert check.check_files(these).flaws == ()


@pytest.mark.parametrize("lost", ["00", None])
def test_a_picture_that_lost_some_says_so(lost: str | None) -> None:
    dataset = dcmread(io.BytesIO(as_kept(dict(files(context(**SMALL)))[str(HEATMAP)], pictures.JPEG)))
    dataset.LossyImageCompression = lost
    written = io.BytesIO()
    dataset.save_as(written)
    found = check.check_files([("picture", written.getvalue())]).flaws
    assert {(flaw.rule, flaw.where) for flaw in found} == {(Rule.PIXELS, "LossyImageCompression")}


def test_a_character_set_of_several_values_is_no_flaw() -> None:
    """pydicom converts it while it reads, and nothing else; Japanese devices send it (PS3.3 C.12.1.1.2)."""
    name = "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"
    content = builders.part10(builders.radiograph(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=name))
    assert flaws(of_bytes(content, "pneumonia", **SMALL), content) == []


def test_several_regions_are_sound_in_every_kind() -> None:
    artifacts, of = of_both_lungs()
    assert check.check_made(artifacts, of) == []
    named = [(str(artifact.kind), artifact.content) for artifact in artifacts]
    assert check.check_files([*named, ("source", SOURCES["DX"])]).flaws == ()
    for one in named:
        assert check.check_files([one]).flaws == ()


def test_remarks_and_a_map_without_a_region_are_sound() -> None:
    of = context(**SMALL)
    of = replace(
        of,
        radiograph=replace(of.radiograph, remarks=("The patient's age is not known.", "No VOI window.")),
        finding=replace(of.finding, heatmap=replace(of.finding.heatmap, regions=())),
    )
    assert flaws(of, SOURCES["DX"]) == []


def test_who_speaks_may_have_any_name() -> None:
    """No maker, model or calibration is taken for a word about the patient; trailing spaces are padding."""
    for case in CASES:
        of = context(case, manufacturer="Positive Imaging, normal images", **SMALL)
        names = {"profile": "normal chest", "version": "1 negative", "calibration": "fitted on normal and positive "}
        identity = replace(of.finding.identity, **names)
        of = replace(of, finding=replace(of.finding, identity=identity))
        assert [str(flaw) for flaw in check.check_made(list(made(of).values()), of)] == []


@pytest.mark.parametrize("kinds", [{REPORT}, {REPORT, MEASUREMENTS}, {MEASUREMENTS, HEATMAP}, {HEATMAP}])
@pytest.mark.parametrize("case", CASES)
def test_sound_results_where_some_kinds_are_not_made(case: str, kinds: set[ResultKind]) -> None:
    of = replace(context(case, **SMALL), kinds=frozenset(kinds))
    artifacts = [artifact for kind, artifact in made(of).items() if kind in kinds]
    assert check.check_made(artifacts, of) == []
    contents = [(str(artifact.kind), artifact.content) for artifact in artifacts]
    assert check.check_files([*contents, ("source", SOURCES["DX"])]).flaws == ()


@settings(max_examples=25, deadline=None)
@given(
    numbers=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    probability=st.floats(0, 1),
    spread=st.floats(0, 1),
    distance=st.floats(0, 50),
    digits=st.integers(2, 17),
)
def test_whatever_the_numbers_sound_results_have_no_flaw_before_they_are_sent(
    numbers: Sequence[float], probability: float, spread: float, distance: float, digits: int
) -> None:
    """Rounding must not make the check cry wolf: that would hold the image back for ever."""
    low, high = (round(number, digits) for number in numbers)
    point = {"rule_out_below": low, "report_at": high, "max_spread": 0.2, "max_distance": 1.0}
    CASES["drawn"] = {"probability": probability, "spread": spread, "distance": distance}
    try:
        of = context(**SMALL)
        of = replace(of, finding=finding("drawn", of.radiograph, **point))
    finally:
        del CASES["drawn"]
    artifacts = [build(of) for kind, build in BUILD.items() if kind is not HEATMAP]
    assert check.check_made(artifacts, of) == []


@pytest.mark.parametrize(
    ("probability", "low", "high"), [(0.0253, 0.0254, 0.85), (0.845, 0.15, 0.8451), (0.935, 0.1, 0.9)]
)
def test_a_percent_rounded_twice_is_no_flaw(probability: float, low: float, high: float) -> None:
    """Of files, the certainty is known to its last digit only: 2.5 % may be 2.53 %, where 3 % would cross a line."""
    CASES["rounded"] = {"probability": probability}
    try:
        of = context(**SMALL)
        of = replace(of, finding=finding("rounded", of.radiograph, rule_out_below=low, report_at=high))
    finally:
        del CASES["rounded"]
    assert flaws(of, SOURCES["DX"]) == []


def test_every_alternative_is_sound_as_a_file() -> None:
    measurements = BUILD[MEASUREMENTS](context(**SMALL))
    for artifact in measurements.sop_class_choices:
        assert check.check_files([("file", artifact.content)]).flaws == ()


# --- files of more than one answer ------------------------------------------------------------------------------


def test_answers_of_two_images_and_two_models_are_told_apart() -> None:
    second = builders.part10(builders.radiograph(SOPInstanceUID="1.2.3.9"))
    first, other = context(**SMALL), of_bytes(second, "normal", **SMALL)
    weights = replace(first.finding.identity, weights_sha256="00" * 32)
    newer = replace(context("between", **SMALL), finding=replace(context("between").finding, identity=weights))
    together = [*files(first), *files(other), *files(newer), ("a", SOURCES["DX"]), ("b", second)]
    checked = check.check_files(together)
    assert checked.flaws == ()
    assert (checked.results, checked.sources) == (9, 2)


def test_two_answers_of_one_model_contradict_each_other() -> None:
    both = [*files(context(**SMALL)), *files(replace(context("normal", **SMALL), radiograph=_other_pixels()))]
    rules = {flaw.rule for flaw in check.check_files(both).flaws}
    assert {Rule.RESULT_TWICE, Rule.READS_NEGATIVE} <= rules


def _other_pixels() -> Any:
    return replace(context().radiograph, pixel_digest="00" * 32)


def test_results_of_another_image_of_the_same_study_are_not_taken_for_its_own() -> None:
    other = of_bytes(builders.part10(builders.radiograph(SOPInstanceUID="1.2.3.9")), **SMALL)
    mixed = [made(context(**SMALL))[REPORT], made(context(**SMALL))[MEASUREMENTS], made(other)[HEATMAP]]
    rules = {flaw.rule for flaw in check.check_made(mixed, context(**SMALL))}
    assert {Rule.SOURCE, Rule.UID} <= rules


def test_what_is_not_ours_is_passed_over_and_what_is_no_dicom_is_told() -> None:
    foreign = builders.part10(builders.radiograph(SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT"))
    checked = check.check_files([("ct", foreign), ("text", b"no DICOM"), ("source", SOURCES["DX"])])
    assert checked.ignored == ("ct",)
    assert [(flaw.document, flaw.rule) for flaw in checked.flaws] == [("text", Rule.UNREADABLE)]
    assert (checked.results, checked.sources) == (0, 1)


def test_every_rule_has_its_sentence() -> None:
    assert all(rule.sentence.endswith(".") for rule in Rule)


def test_the_context_is_the_builders_own() -> None:
    """The moment that is compared is the one that the objects have."""
    of = context(**SMALL)
    document = dcmread(io.BytesIO(made(of)[REPORT].content))
    assert document.ContentTime == RECEIVED.strftime("%H%M%S.%f")
    assert result_kinds.SHAPES[REPORT].sop_class_uid == document.SOPClassUID
