"""The report of a study: the worst of its images, each with a line of its own, the same in whichever order."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from cxr_node import judgement_text, pipeline, study_pipeline
from cxr_node.dicom.verify import check
from cxr_node.dicom.words import study_wording
from cxr_node.domain import Reason, Verdict
from cxr_node.outcome import Reported, StudyCase, StudyReport
from cxr_node.result_kinds import OF_ONE_IMAGE, ResultKind
from tests import builders
from tests.dicom import studies
from tests.dicom.studies import case, image, lateral, refs, report, settings, with_prior


def document(of: StudyReport, kind: ResultKind) -> Dataset:
    (artifact,) = (each for each in of.artifacts if each.kind is kind)
    return dcmread(io.BytesIO(artifact.content))


def items(dataset: Dataset, meaning: str) -> list[Dataset]:
    """Content items of a name, at every depth."""
    found = []
    for item in dataset.get("ContentSequence", ()):
        if [code.CodeMeaning for code in item.get("ConceptNameCodeSequence", ())] == [meaning]:
            found.append(item)
        found += items(item, meaning)
    return found


def lines(of: StudyReport, meaning: str) -> list[str]:
    return [item.TextValue for item in items(document(of, ResultKind.REPORT), meaning) if "TextValue" in item]


def listed(sequence: Any) -> list[str]:
    return [
        entry.ReferencedSOPInstanceUID
        for study in sequence
        for series in study.ReferencedSeriesSequence
        for entry in series.ReferencedSOPSequence
    ]


@pytest.mark.parametrize(
    ("cases", "laterals", "verdict", "impression"),
    [
        (("normal", "pneumonia"), 0, Verdict.POSITIVE, "AI: PNEUMONIA SUSPECTED in image 2. "),
        (("pneumonia", "between"), 1, Verdict.POSITIVE, "AI: PNEUMONIA SUSPECTED in image 1. "),
        (("normal", "between"), 0, Verdict.INDETERMINATE, "AI: UNCERTAIN. The AI gives no answer for image 2. "),
        (("normal", "normal"), 1, Verdict.NEGATIVE, "AI: no pneumonia detected in images 1 and 2. 1 of 3 images was "),
        (("normal",), 1, Verdict.NEGATIVE, "AI: no pneumonia detected in image 1. 1 of 2 images was not analysed. "),
        ((), 2, Verdict.INDETERMINATE, "AI: UNCERTAIN. The AI gives no answer: none of the 2 images was analysed. "),
        (("normal",), 0, Verdict.NEGATIVE, "AI: no pneumonia detected. "),
    ],
)
def test_the_worst_image_is_the_verdict(
    cases: tuple[str, ...], laterals: int, verdict: Verdict, impression: str
) -> None:
    made = report(case(*cases, laterals=laterals))
    assert made.verdict is verdict
    (said,) = lines(made, "Impression")
    assert said.startswith(impression)
    if cases:
        (summary,) = items(document(made, ResultKind.MEASUREMENTS), "Summary")
        assert summary.TextValue == said
    else:
        assert [each.kind for each in made.artifacts] == [ResultKind.REPORT]


def test_nothing_to_say() -> None:
    _, film = lateral(1)
    for reason in (Reason.NOT_CHEST, Reason.AGE_OUTSIDE_POPULATION):
        unseen = StudyCase(images=(), others=(replace(film, reason=reason),))
        assert study_pipeline.report_study(unseen, studies.CONFIG) is None
    assert study_pipeline.report_study(StudyCase(images=()), studies.CONFIG) is None


def test_every_image_has_its_line_and_leads_to_it() -> None:
    made = report(case("pneumonia", "normal", "unlike", laterals=1))
    found = items(document(made, ResultKind.REPORT), "Finding")
    assert [item.TextValue for item in found] == [
        "Image 1 (PA, series 1, image 1): Pneumonia suspected (certainty of pneumonia 93 %).",
        "Image 2 (PA, series 2, image 1): No pneumonia detected (certainty of pneumonia 3 %).",
        "Image 3 (PA, series 3, image 1): UNCERTAIN, image unlike the training data.",
        "Image 4 (series 4, image 1): not analysed - the view is not frontal (PA or AP): View Position LL.",
    ]
    uids = [item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in found]
    assert uids == [f"1.2.826.0.1.3680043.10.1.{number}" for number in (1, 2, 3, 4)]
    evidence = listed(document(made, ResultKind.REPORT).CurrentRequestedProcedureEvidenceSequence)
    assert set(uids) < set(evidence)
    assert len(evidence) == 6  # and two pictures


def test_a_group_for_each_image_and_a_library_of_all() -> None:
    made = document(report(case("normal", "pneumonia", laterals=1)), ResultKind.MEASUREMENTS)
    groups = items(made, "Measurement Group")
    assert len(groups) == 2
    assert items(groups[0], "Image Region")  # OHIF opens the first group
    (library,) = items(made, "Image Library Group")
    uids = [entry.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for entry in library.ContentSequence]
    assert uids == [f"1.2.826.0.1.3680043.10.1.{number}" for number in (1, 2, 3)]


def test_any_order_gives_the_same_bytes_and_twice_is_once() -> None:
    of = with_prior(case("normal", "pneumonia", "between", laterals=1))
    first = report(of)
    for images in permutations(of.images):
        again = replace(of, images=(*images, images[0]), others=of.others * 2)
        assert report(again) == first


def test_judgements_that_were_kept_as_text_make_the_same_report() -> None:
    of = case("normal", "pneumonia", laterals=1)
    kept = tuple(
        replace(each, judgement=judgement_text.load_judgement(judgement_text.dump(each.judgement)))
        for each in of.images
    )
    others = tuple(judgement_text.load_not_analysed(judgement_text.dump(each)) for each in of.others)
    assert report(replace(of, images=kept, others=others)) == report(of)


def test_a_late_image_makes_a_report_that_says_what_it_replaces() -> None:
    of = case("normal", "pneumonia")
    early = report(replace(of, images=of.images[:1]))
    late = report(replace(of, earlier_reports=(refs(early),)))
    (said,) = lines(late, "Impression")
    assert said.startswith("This report replaces the earlier one of this study. AI: PNEUMONIA SUSPECTED")
    for kind in (ResultKind.REPORT, ResultKind.MEASUREMENTS):
        assert listed(document(late, kind).PredecessorDocumentsSequence) == [
            each.sop_instance_uid for each in refs(early) if each.kind is kind
        ]
    again = report(replace(of, earlier_reports=(refs(early), refs(late))))
    assert again == late  # it does not replace itself
    assert {each.sop_instance_uid for each in late.artifacts}.isdisjoint(
        each.sop_instance_uid for each in report(of).artifacts
    )


def test_an_answer_that_is_given_again_replaces_the_one_in_between() -> None:
    of = case("normal", "pneumonia")
    alone = replace(of, images=of.images[:1])
    first = report(alone)
    second = report(replace(of, earlier_reports=(refs(first),)))
    third = report(replace(alone, earlier_reports=(refs(first), refs(second))))
    named = listed(document(third, ResultKind.REPORT).PredecessorDocumentsSequence)
    assert named == [each.sop_instance_uid for made in (first, second) for each in refs(made) if each.kind == "report"]
    assert report(replace(alone, earlier_reports=(refs(first), refs(second), refs(third)))) == third


def test_a_prior_is_told_without_a_comparison() -> None:
    made = report(with_prior(case("pneumonia")))
    assert lines(made, "Previous Finding") == [
        "Earlier radiograph of 2023-04-05 (PA): No pneumonia detected (certainty of pneumonia 3 %). "
        + study_wording.NOT_COMPARED
    ]
    found = document(made, ResultKind.REPORT)
    assert listed(found.PertinentOtherEvidenceSequence) == ["1.2.826.0.1.3680043.10.1.8"]


def test_pictures_of_a_study_share_a_series_whatever_else_comes() -> None:
    pictures = [image(number, "pneumonia")[1].pictures for number in (1, 2)]
    for one, other in zip(*pictures, strict=True):
        assert one.kind is other.kind in OF_ONE_IMAGE
        assert one.series_instance_uid == other.series_instance_uid
        assert one.sop_instance_uid != other.sop_instance_uid
    headers = [dcmread(io.BytesIO(each.content)) for one in pictures for each in one if each.kind is ResultKind.HEATMAP]
    assert {header.SeriesDescription for header in headers} == {"AI heat maps (research)"}
    assert not any("SeriesDate" in header for header in headers)


def test_a_normal_has_no_picture_unless_asked_for() -> None:
    assert image(1, "normal")[1].pictures == ()
    asked = settings(normal_heatmap="banner")
    _, outcome = image(1, "normal", asked)
    assert [each.kind for each in outcome.pictures] == [ResultKind.HEATMAP]
    assert report(case("normal", "normal", config=asked), asked).verdict is Verdict.NEGATIVE


def test_a_report_of_each_image_is_no_matter_of_studies() -> None:
    config = settings(per="image")
    outcome = pipeline.process(studies.source(1), studies.origin(1), builders.FixedPredictor(), config)
    assert isinstance(outcome, Reported)
    assert outcome.judgement is None
    assert outcome.pictures == ()
    assert {each.kind for each in outcome.artifacts} >= {ResultKind.REPORT, ResultKind.HEATMAP}


@pytest.mark.parametrize("laterals", [0, 1])
@pytest.mark.parametrize("cases", [("normal", "pneumonia"), ("between", "views"), ("normal",), ()])
def test_files_of_a_study_have_no_flaw(cases: tuple[str, ...], laterals: int) -> None:
    if not cases and not laterals:
        return
    of = case(*cases, laterals=laterals)
    of = with_prior(of) if cases else of
    pictures = [each for number, one in enumerate(cases, 1) for each in image(number, one)[1].pictures]
    files = [(str(each.kind), each.content) for each in (*report(of).artifacts, *pictures)]
    sources = [(f"source {number}", each.content) for number, each in enumerate(of.images)]
    assert check.check_files([*files, *sources]).flaws == ()


def test_another_number_of_an_image_makes_another_picture() -> None:
    one, other = (image(1, "pneumonia", InstanceNumber=number)[1].pictures for number in (1, 2))
    assert not {each.sop_instance_uid for each in one} & {each.sop_instance_uid for each in other}
    numbers = [dcmread(io.BytesIO(each[0].content)).InstanceNumber for each in (one, other)]
    assert numbers == [1, 2]


def test_a_picture_says_which_image_it_is_and_another_series_makes_another() -> None:
    one, other = (image(1, "pneumonia", SeriesNumber=number)[1].pictures for number in (1, 2))
    assert not {each.sop_instance_uid for each in one} & {each.sop_instance_uid for each in other}
    assert study_wording.place({"series": 2, "image": 1}) == "Series 2, image 1."
    assert study_wording.place({}) == ""
    found = [
        next(dcmread(io.BytesIO(each.content)).pixel_array for each in its if each.kind is ResultKind.HEATMAP)
        for its in (one, other)
    ]
    assert found[0].shape == found[1].shape
    assert (found[0] != found[1]).any()
