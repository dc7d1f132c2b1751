"""Marks for worklists: a positive is found by them, and nobody who looks at a mark alone takes a doubt for a no."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from cxr_node import pipeline
from cxr_node.config import loader, schema
from cxr_node.config.triage import KeyObjectTitle
from cxr_node.dicom.results import key_object
from cxr_node.dicom.verify import check, single_field
from cxr_node.dicom.words import wording
from cxr_node.domain import Target, Verdict
from cxr_node.errors import ConfigError
from cxr_node.outcome import Artifact, Reported
from cxr_node.result_kinds import SHAPES, ResultKind
from tests import builders
from tests.dicom import studies
from tests.dicom.contexts import CASES, context
from tests.messages.test_oru import parsed, rows

FLAG, CHECK = "AI FLAG", "AI CHECK"
MARKS: dict[str, Any] = {"positive": FLAG, "uncertain": CHECK}
MIXED = {
    ("pneumonia", "normal"): FLAG, ("views", "pneumonia"): FLAG, ("normal", "between"): CHECK, ("unlike",): CHECK,
    (): CHECK, ("normal",): "", ("normal", "normal"): "",
}  # fmt: skip


def settings(triage: dict[str, Any] | None, per: str = "study") -> schema.Config:
    return studies.settings("report", "measurements", "heatmap", "key-object", "not-analysed", per=per, triage=triage)


def headers(artifacts: tuple[Artifact, ...]) -> dict[ResultKind, Dataset]:
    return {each.kind: dcmread(io.BytesIO(each.content)) for each in artifacts if SHAPES[each.kind].is_dicom}


def judged(case: str, triage: dict[str, Any] | None, per: str = "image") -> Reported:
    answers: dict[str, Any] = dict(CASES[case])
    config = settings(triage, per=per)
    outcome = pipeline.process(studies.source(1), studies.origin(1), builders.FixedPredictor(**answers), config)
    assert isinstance(outcome, Reported)
    return outcome


@pytest.mark.parametrize(("cases", "mark"), MIXED.items(), ids=lambda value: "+".join(value) or "none")
def test_the_documents_of_a_study_carry_the_mark_of_its_verdict(cases: tuple[str, ...], mark: str) -> None:
    config = settings(MARKS)
    laterals = 0 if cases else 1
    made = headers(studies.report(studies.case(*cases, laterals=laterals, config=config), config).artifacts)
    plain = settings(None)
    before = headers(studies.report(studies.case(*cases, laterals=laterals, config=plain), plain).artifacts)
    assert made.keys() == before.keys()
    for kind, dataset in made.items():
        assert dataset.SeriesDescription == f"{mark} {before[kind].SeriesDescription}".strip()
        assert dataset.SeriesDescription.endswith("(research)")
        assert dataset.SOPInstanceUID != before[kind].SOPInstanceUID


@pytest.mark.parametrize("case", CASES)
def test_the_series_of_one_image_carry_the_mark_of_its_verdict(case: str) -> None:
    outcome = judged(case, MARKS)
    mark = {Verdict.POSITIVE: FLAG, Verdict.INDETERMINATE: CHECK}.get(outcome.finding.decision.verdict, "")
    for dataset in headers(outcome.artifacts).values():
        assert dataset.SeriesDescription.startswith(f"{mark} AI" if mark else "AI")
        assert dataset.SeriesDescription.endswith("(research)")
        assert len(dataset.SeriesDescription) <= 64
    files = [(f"{each.kind}.dcm", each.content) for each in outcome.artifacts]
    assert check.check_files([("source.dcm", studies.source(1)), *files]).flaws == ()


def test_a_series_of_pictures_that_images_share_has_no_mark() -> None:
    shared = judged("pneumonia", MARKS, per="study").pictures
    assert {each.SeriesDescription for each in headers(shared).values()} == {"AI heat maps (research)"}


def test_the_note_about_a_rejected_image_has_no_mark() -> None:
    outcome = pipeline.process(
        studies.source(1, ViewPosition="LL"), studies.origin(1), builders.FixedPredictor(), settings(MARKS)
    )
    (note,) = headers(outcome.artifacts).values()
    assert note.SeriesDescription == wording.NOT_ANALYSED_SERIES


def test_without_the_section_everything_is_as_before() -> None:
    plain, off = settings(None), settings({})
    parts = {"admission": plain.admission, "results": plain.results}
    unsaid = {"time_zone", "triage", "release", "release_share", "shadow_keep_days"}
    without = {name: part.model_dump(mode="json", exclude=unsaid) for name, part in parts.items()}
    assert plain.answer_sha256 == hashlib.sha256(json.dumps(without, sort_keys=True).encode()).hexdigest()
    assert "AI FLAG" not in str(headers(studies.report(studies.case("pneumonia", config=off), off).artifacts))
    assert plain.answer_sha256 != settings(MARKS).answer_sha256


@pytest.mark.parametrize("case", CASES)
def test_a_reader_of_the_name_alone_is_told_the_same_with_and_without_a_mark(case: str) -> None:
    of = context(case)
    mark = {"pneumonia": FLAG, "normal": ""}.get(case, CHECK)
    for kind in (ResultKind.REPORT, ResultKind.HEATMAP, ResultKind.MEASUREMENTS):
        named = wording.series_description(kind, of.finding, shows_map=True, mark=mark)
        bare = wording.series_description(kind, of.finding, shows_map=True)
        assert single_field.of_text(named) == single_field.of_text(bare)


def test_the_longest_name_with_the_longest_mark_keeps_its_verdict_and_that_it_is_research() -> None:
    of = context("pneumonia", max_heatmap_px=1024)
    named = wording.series_description(ResultKind.FRAMES, of.finding, shows_map=True, mark="X" * 16)
    assert len(named) <= 64
    assert "AI: PNEUMONIA SUSPECTED" in named
    assert named.endswith("(research)")


NO_MARKS: dict[str, tuple[dict[str, Any], str]] = {
    **{
        word: ({"uncertain": word}, "may be read as negative")
        for word in ("NORMAL", "AI negative", "no flag", "AI-NO-FLAG", "all clear", "LOW", "routine", "OK", "rule out")
    },
    "done": ({"positive": "DONE"}, "may be read as negative, or as read"),
    **{
        word: ({"uncertain": word}, "may be read as positive")
        for word in ("AI POSITIVE", "pneumonia", "URGENT", "suspected")
    },
    "empty": ({"positive": ""}, "is no mark"),
    "long": ({"positive": "A" * 17}, "is no mark"),
    "a backslash": ({"positive": "A\\B"}, "is no mark"),
    "a caret": ({"positive": "A^B"}, "is no mark"),
    "a letter that not every character set has": ({"positive": "prioritär"}, "is no mark"),
    "the same": ({"positive": "AI", "uncertain": "ai"}, "would find the other"),
    "one in the other": ({"positive": "AI FLAG", "uncertain": "AI FLAG 2"}, "would find the other"),
    "a title": ({"key_object_title": "rejected"}, "key_object_title"),
    "a priority of HL7 that puts off": ({"hl7_priority": "R"}, "hl7_priority"),
    "a mark for negatives": ({"negative": "AI LOW"}, "negative: unknown key"),
}  # fmt: skip


@pytest.mark.parametrize(("triage", "said"), NO_MARKS.values(), ids=NO_MARKS.keys())
def test_a_mark_that_would_be_misread_is_refused(triage: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings(triage)
    assert any(said in line and "results.triage" in line for line in raised.value.mistakes), raised.value.mistakes


@pytest.mark.parametrize("mark", ["AI CHECK", "AI READ!", "KI SICHTEN", "IA#2"])
def test_marks_that_may_stand_before_a_doubt_say_neither(mark: str) -> None:
    assert settings({"uncertain": mark}).results.triage is not None
    for target in ("pneumonia", "opacity"):
        assert single_field.of_text(f"{mark} AI measurements (research)", target) == frozenset()


@pytest.mark.parametrize("title", KeyObjectTitle)
def test_the_title_of_the_key_object_is_one_of_cid_7010(title: KeyObjectTitle) -> None:
    config = settings({"key_object_title": title.value})
    (mixed,) = (
        each
        for each in studies.report(studies.case("normal", "pneumonia", config=config), config).artifacts
        if each.kind is ResultKind.KEY_OBJECT
    )
    dataset = dcmread(io.BytesIO(mixed.content))
    (code,) = dataset.ConceptNameCodeSequence
    assert code.CodingSchemeDesignator == "DCM"
    assert code.CodeMeaning.casefold().replace(" ", "-") == title.value
    marked = [each.ReferencedSOPSequence[0] for each in dataset.ContentSequence if each.ValueType == "IMAGE"]
    assert marked[0].ReferencedSOPInstanceUID.endswith(".2")  # the second image alone, then its picture
    assert len(marked) == 2


@pytest.mark.parametrize("case", [case for case in CASES if case != "pneumonia"])
@pytest.mark.parametrize("title", KeyObjectTitle)
def test_no_other_verdict_has_a_key_object(case: str, title: KeyObjectTitle) -> None:
    assert key_object.build(context(case, triage=settings({"key_object_title": title.value}).results.triage)) is None


def sent(triage: dict[str, Any] | None, *cases: str, laterals: int = 0) -> bytes:
    ris = {"name": "ris", "kind": "hl7", "address": "127.0.0.1:2575"}
    config = loader.parse({"spool": {"path": "."}, "destinations": [ris], "results": {"triage": triage}})
    (message,) = studies.report(studies.case(*cases, laterals=laterals, config=config), config).artifacts
    return message.content


@pytest.mark.parametrize("letter", ["A", "S"])
def test_the_message_about_a_positive_has_the_priority_where_both_versions_of_hl7_have_it(letter: str) -> None:
    content = sent({"hl7_priority": letter}, "normal", "pneumonia")
    found = parsed(content).oru_r01_patient_result.oru_r01_order_observation
    assert found.obr.obr_5.value == letter
    assert found.oru_r01_timing_qty.tq1.tq1_9.value == letter
    assert rows(content, "OBX")[0][8] == "POS"


@pytest.mark.parametrize(
    ("cases", "laterals"), [(("normal",), 0), (("views",), 0), (("between", "normal"), 1), ((), 2)]
)
def test_no_other_message_has_a_priority(cases: tuple[str, ...], laterals: int) -> None:
    content = sent({"hl7_priority": "S"}, *cases, laterals=laterals)
    assert rows(content, "TQ1") == []
    assert rows(content, "OBR")[0][5] == ""


def test_without_the_section_a_positive_has_no_priority() -> None:
    content = sent(None, "pneumonia")
    assert rows(content, "TQ1") == []
    assert rows(content, "OBR")[0][5] == ""


def test_a_mark_for_any_finding_that_a_profile_may_judge_leaves_room_for_its_name() -> None:
    for finding in ("tuberculosis", "pleural effusion", "pulmonary edema"):
        name = Target(finding=finding, code=("1", "SCT", finding)).name(Verdict.POSITIVE)
        assert len(f"{'X' * 16} AI: {name} (research)") <= 64
