"""What is said is true, short enough, and cannot be misread by who reads one line only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cxr_node.dicom import wording
from cxr_node.domain import Finding, ResultKind, Verdict, View
from cxr_node.model.decision import decide
from tests import builders
from tests.dicom.contexts import CASES, UNCERTAIN, finding, picture_of

RADIOGRAPH = picture_of(builders.chest(64, 64))
NUMBERS = {ResultKind.HEATMAP: 9102, ResultKind.MEASUREMENTS: 9101, ResultKind.REPORT: 9100}


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


def every_sentence(case: str) -> list[str]:
    judged = finding(case, RADIOGRAPH)
    banner = wording.banner(judged)
    return [
        wording.summary(judged),
        banner.title,
        banner.subtitle,
        wording.certainty_line(judged),
        *(wording.series_description(kind, judged, shows_map=shows) for kind in ResultKind for shows in (True, False)),
        *wording.report_findings(judged, RADIOGRAPH, NUMBERS, shows_map=True),
        *wording.report_conclusions(judged, RADIOGRAPH, "cxr_node 0"),
    ]


def test_the_summaries_are_those_that_were_agreed() -> None:
    assert {case: wording.summary(finding(case, RADIOGRAPH)) for case in CASES} == {
        "pneumonia": "AI: pneumonia SUSPECTED, certainty 93.4 % (report threshold 85 %). Unverified. Only pneumonia "
        "was assessed; other findings are not evaluated. Research use only.",
        "normal": "AI: no pneumonia detected, certainty of pneumonia 3.1 % (rule-out threshold 15 %). Unverified. Only "
        "pneumonia was assessed; this is not a statement that the radiograph is normal. Research use only.",
        "between": "AI: UNCERTAIN - the algorithm abstains; certainty of pneumonia 52.0 % lies between 15 % and 85 %. "
        "Human reading required. Research use only.",
        "views": "AI: UNCERTAIN - the algorithm abstains; repeated looks at this image disagree by 41.0 percentage "
        "points (limit 20). Human reading required. Research use only.",
        "unlike": "AI: UNCERTAIN - the algorithm abstains; this image is unlike its training data (distance 1.4, "
        "limit 1). Human reading required. Research use only.",
    }


@pytest.mark.parametrize("case", UNCERTAIN)
def test_uncertain_never_reads_as_negative_or_positive(case: str) -> None:
    for sentence in every_sentence(case):
        lower = sentence.lower()
        assert "no pneumonia" not in lower
        assert "not detected" not in lower
        assert "suspected" not in lower
        assert "without findings" not in lower


def test_normal_never_reads_as_positive_and_claims_no_normal_radiograph() -> None:
    for sentence in every_sentence("normal"):
        assert "suspected" not in sentence.lower()
        assert "PNEUMONIA" not in sentence or "NO PNEUMONIA" in sentence
        assert "is normal" not in sentence or "not a statement" in sentence.lower()


@pytest.mark.parametrize("case", CASES)
def test_sentences_are_ascii_so_that_every_character_set_can_hold_them(case: str) -> None:
    for sentence in every_sentence(case):
        assert sentence.isascii()
        assert sentence.isprintable()
        assert "\\" not in sentence


@pytest.mark.parametrize("case", ["views", "unlike"])
def test_thresholds_are_not_blamed_for_another_doubt(case: str) -> None:
    judged = finding(case, RADIOGRAPH)
    assert "lies between" not in wording.summary(judged)
    assert "threshold" not in wording.banner(judged).subtitle


@pytest.mark.parametrize("case", ["views", "unlike"])
def test_a_number_that_the_verdict_does_not_rest_on_is_nowhere(case: str) -> None:
    assert finding(case, RADIOGRAPH).probability == 0.03
    assert wording.certainty(finding(case, RADIOGRAPH)) is None
    assert not any("3 %" in sentence or "3%" in sentence or "3.0" in sentence for sentence in every_sentence(case))


@given(
    probability=st.floats(0.0, 1.0) | st.integers(0, 1000).map(lambda permille: permille / 1000),
    thresholds=st.tuples(st.integers(1, 999), st.integers(1, 999)),
)
def test_rounding_never_crosses_a_threshold(probability: float, thresholds: tuple[int, int]) -> None:
    rule_out, report = (permille / 1000 for permille in sorted(thresholds))
    assume(all(probability == limit or abs(probability - limit) > 1e-7 for limit in (rule_out, report)))
    judged = said(probability, rule_out_below=rule_out, report_at=report, spread=0.0, distance=0.0)
    shown = wording.certainty(judged)
    assert shown is not None
    as_read = round(shown / 100, 9)  # 22.7 / 100 is a little below 0.227
    assert (as_read >= report) == (probability >= report)
    assert (as_read >= rule_out) == (probability >= rule_out)


@pytest.mark.parametrize(
    ("probability", "text"), [(0.0, "0.1 %"), (1e-7, "0.1 %"), (0.99999, "99.9 %"), (1.0, "99.9 %")]
)
def test_certainty_is_never_nothing_and_never_complete(probability: float, text: str) -> None:
    assert wording.certainty_text(said(probability)) == text


@pytest.mark.parametrize(("probability", "text"), [(0.8496, "84.96 %"), (0.84996, "84.996 %"), (0.85, "85.0 %")])
def test_certainty_grows_digits_beside_a_threshold(probability: float, text: str) -> None:
    assert wording.certainty_text(said(probability)) == text


def test_an_exceeded_limit_is_seen_to_be_exceeded() -> None:
    assert "distance 1.01, limit 1)" in wording.summary(said(0.5, distance=1.01))
    assert "by 20.002 percentage points (limit 20)" in wording.summary(said(0.5, spread=0.20002))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ResultKind)
def test_series_descriptions_fit_lo_and_begin_with_the_verdict(case: str, kind: ResultKind) -> None:
    judged = finding(case, RADIOGRAPH)
    description = wording.series_description(kind, judged, shows_map=True)
    assert len(description) <= 64
    words = {Verdict.PNEUMONIA: "PNEUMONIA", Verdict.NORMAL: "no pneumonia", Verdict.UNCERTAIN: "UNCERTAIN"}
    if kind not in (ResultKind.REPORT, ResultKind.HEATMAP, ResultKind.FRAMES):
        assert not any(word.lower() in description.lower() for word in words.values())
    else:
        assert description[:18].startswith(f"AI: {words[judged.decision.verdict]}")


@pytest.mark.parametrize(
    ("text", "folded"),
    [("Müller & Söhne", "Muller & Sohne"), ("日本", "??"), ("a\\b\nc", "a/b c"), ("bell\a", "bell?"), ("", "")],
)
def test_foreign_words_are_folded(text: str, folded: str) -> None:
    assert wording.plain(text) == folded


def test_remarks_reach_the_conclusions() -> None:
    radiograph = picture_of(builders.chest(64, 64), remarks=("The age is not known.",))
    assert "The age is not known." in wording.report_conclusions(
        finding("normal", radiograph), radiograph, "cxr_node 0"
    )


def test_projection_is_claimed_only_where_it_is_known() -> None:
    assert wording.view_line(View.AP) == "Projection: AP."
    assert "not stated" in wording.view_line(View.UNKNOWN)


def test_findings_name_a_heat_map_only_where_there_is_one() -> None:
    judged = finding("normal", RADIOGRAPH)
    assert not any("Heat map" in line for line in wording.report_findings(judged, RADIOGRAPH, NUMBERS, shows_map=False))
    assert any("9102" in line for line in wording.report_findings(judged, RADIOGRAPH, NUMBERS, shows_map=True))
