"""What is said is true, short enough, and cannot be misread by a reader of one line only."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from cxr_node.dicom.verify import single_field
from cxr_node.dicom.words import names, rounding, wording
from cxr_node.domain import PNEUMONIA, AbstainReason, Finding, Reason, Verdict, View
from cxr_node.model.decision import decide
from cxr_node.outcome import Rejected
from cxr_node.result_kinds import DICOM_KINDS, ResultKind
from tests import builders
from tests.dicom.contexts import CASES, UNCERTAIN, finding, picture_of

RADIOGRAPH = picture_of(builders.chest(64, 64))
NUMBERS = {ResultKind.HEATMAP: 9102, ResultKind.MEASUREMENTS: 9101, ResultKind.REPORT: 9100}
SERIES = [kind for kind in DICOM_KINDS if kind is not ResultKind.NOT_ANALYSED]


def said(probability: float, **changes: float) -> Finding:
    """Judge a probability, with changes to the operating point or to spread and distance."""
    base = finding("between", RADIOGRAPH)
    of_prediction = {name: changes.pop(name) for name in ("spread", "distance") if name in changes}
    prediction = replace(base.prediction, probability={"pneumonia": probability}, **of_prediction)
    point = replace(base.identity.operating_point, **changes)
    return replace(
        base,
        prediction=prediction,
        decision=decide(prediction, point),
        identity=replace(base.identity, operating_point=point),
    )


def every_sentence(judged: Finding, *, shows_map: bool = True) -> list[str]:
    """All that people read of one answer, but for what is only about the answer (technique, limitations)."""
    banner = wording.banner(judged)
    return [
        wording.summary(judged),
        banner.title,
        banner.subtitle,
        wording.certainty_line(judged),
        wording.report_finding(judged),
        *wording.report_scores(judged),
        *(wording.series_description(kind, judged, shows_map=shows) for kind in SERIES for shows in (True, False)),
        *([] if not shows_map else [wording.LOOKED, wording.MAP_CAPTION]),
    ]


def about(judged: Finding) -> list[str]:
    """What is said about the answer."""
    return [
        *wording.report_technique(judged, RADIOGRAPH, NUMBERS, "cxr_node 0", shows_map=True),
        *wording.report_limitations(judged, RADIOGRAPH, shows_map=True),
        *wording.page_limits(judged, RADIOGRAPH),
    ]


@pytest.mark.parametrize("case", CASES)
def test_every_line_alone_reads_as_its_verdict_or_as_none(case: str) -> None:
    """As `single_field` takes a text that is read by itself."""
    judged = finding(case, RADIOGRAPH)
    for sentence in every_sentence(judged):
        assert single_field.of_text(sentence) <= {judged.decision.verdict}, sentence


@pytest.mark.parametrize("case", CASES)
def test_summary_banner_and_main_series_name_the_verdict_first(case: str) -> None:
    judged = finding(case, RADIOGRAPH)
    name = judged.name
    assert wording.summary(judged).startswith(f"AI: {name}")
    assert wording.banner(judged).title == name.upper()
    for kind in (ResultKind.REPORT, ResultKind.HEATMAP, ResultKind.FRAMES):
        assert wording.series_description(kind, judged, shows_map=True).startswith(f"AI: {name}")


@pytest.mark.parametrize("case", CASES)
def test_no_word_of_programs_reaches_people(case: str) -> None:
    """NORMAL is what must not be read into the answer; codes, statistics and data sets are for others."""
    judged = finding(case, RADIOGRAPH)
    words = re.compile(
        r"\bNORMAL\b|between-thresholds|views-disagree|unlike-training-data|looks disagree|abstain|corrupted|kermany"
        r"|rule-out|\d\.\d+ %|limit \d|distance"
    )
    for sentence in (*every_sentence(judged), *about(judged)):
        assert not words.search(sentence), sentence


@pytest.mark.parametrize("abstain_reason", AbstainReason)
def test_each_abstain_reason_has_words_of_its_own(abstain_reason: AbstainReason) -> None:
    assert len(set(names.ABSTAIN_REASONS.values())) == len(AbstainReason)
    assert names.reason(abstain_reason.value) == names.ABSTAIN_REASONS[abstain_reason]


def test_normal_claims_no_normal_radiograph() -> None:
    for sentence in (*every_sentence(finding("normal", RADIOGRAPH)), *about(finding("normal", RADIOGRAPH))):
        assert " is normal" not in sentence or "does not mean" in sentence.lower()


@pytest.mark.parametrize("case", CASES)
def test_sentences_are_ascii_so_that_every_character_set_can_hold_them(case: str) -> None:
    judged = finding(case, RADIOGRAPH)
    for sentence in (*every_sentence(judged), *about(judged)):
        assert sentence.isascii()
        assert sentence.isprintable()
        assert "\\" not in sentence


@pytest.mark.parametrize("case", ["views", "unlike"])
def test_thresholds_are_not_blamed_for_another_doubt(case: str) -> None:
    judged = finding(case, RADIOGRAPH)
    assert "threshold" not in wording.summary(judged)
    assert "threshold" not in wording.banner(judged).subtitle


@pytest.mark.parametrize("case", ["views", "unlike"])
def test_a_number_that_the_verdict_does_not_rest_on_is_nowhere(case: str) -> None:
    judged = finding(case, RADIOGRAPH)
    assert judged.probability == 0.03
    assert wording.certainty(judged) is None
    assert not any("%" in sentence for sentence in every_sentence(judged))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", SERIES)
def test_series_descriptions_fit_lo_and_have_a_number_for_pneumonia_alone(case: str, kind: ResultKind) -> None:
    judged = finding(case, RADIOGRAPH)
    description = wording.series_description(kind, judged, shows_map=True)
    assert len(description) <= 64
    named = kind in (ResultKind.REPORT, ResultKind.HEATMAP, ResultKind.FRAMES)
    assert ("93%" in description) == (named and case == "pneumonia")
    assert named or not any(name.lower() in description.lower() for name in map(PNEUMONIA.name, Verdict))


def test_the_longest_series_description_fits() -> None:
    longest = wording.series_description(ResultKind.FRAMES, said(1.0), shows_map=True)
    assert ">99%" in longest
    assert len(longest) <= 64


@pytest.mark.parametrize("reason", Reason)
def test_a_note_says_why_there_is_no_answer_and_nothing_else(reason: Reason) -> None:
    line = wording.not_analysed(Rejected(reason=reason, sentence="The body part is not the chest."))
    assert line == "AI: not analysed - the body part is not the chest. No answer was given. Research use only."
    assert single_field.of_text(line) == single_field.of_text(wording.NOT_ANALYSED_SERIES) == frozenset()


@pytest.mark.parametrize(
    ("text", "folded"),
    [("Müller & Söhne", "Muller & Sohne"), ("日本", "??"), ("a\\b\nc", "a/b c"), ("bell\a", "bell?"), ("", "")],
)
def test_foreign_words_are_folded(text: str, folded: str) -> None:
    assert wording.plain(text) == folded


def test_remarks_reach_the_limitations() -> None:
    radiograph = picture_of(builders.chest(64, 64), remarks=("The age is not known.",))
    judged = finding("normal", radiograph)
    assert "The age is not known." in wording.report_limitations(judged, radiograph, shows_map=False)
    assert "The age is not known." in wording.page_limits(judged, radiograph)


def test_projection_is_claimed_only_where_it_is_known() -> None:
    assert wording.view_line(View.AP) == "Projection: AP."
    assert "not stated" in wording.view_line(View.UNKNOWN)


def test_technique_names_a_heat_map_only_where_there_is_one() -> None:
    judged = finding("normal", RADIOGRAPH)
    for shows_map in (True, False):
        lines = wording.report_technique(judged, RADIOGRAPH, NUMBERS, "cxr_node 0", shows_map=shows_map)
        assert any("9102" in line for line in lines) == shows_map


@pytest.mark.parametrize("case", UNCERTAIN)
def test_a_verdict_without_its_thresholds_has_a_number_for_pneumonia_alone(case: str) -> None:
    """Where thresholds are not at hand: terminal, demo."""
    assert rounding.beside("PNEUMONIA", 0.934) == "93 %"
    for verdict in (Verdict.NEGATIVE, Verdict.INDETERMINATE, None):
        assert rounding.beside(verdict, finding(case, RADIOGRAPH).probability) is None
