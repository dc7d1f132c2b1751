from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_node.domain import AbstainReason, OperatingPoint, Prediction, Verdict
from cxr_node.model.decision import decide

POINT = OperatingPoint(
    name="default", label="pneumonia", report_at=0.8, rule_out_below=0.2, max_spread=0.3, max_distance=1.5
)


def prediction(probability: float, spread: float = 0.0, distance: float = 1.0) -> Prediction:
    return Prediction(probability={"pneumonia": probability}, spread=spread, distance=distance)


@pytest.mark.parametrize(
    ("probability", "verdict", "abstain_reason"),
    [
        (1.0, Verdict.POSITIVE, None),
        (0.8, Verdict.POSITIVE, None),
        (0.7999, Verdict.INDETERMINATE, AbstainReason.BETWEEN_THRESHOLDS),
        (0.2, Verdict.INDETERMINATE, AbstainReason.BETWEEN_THRESHOLDS),
        (0.1999, Verdict.NEGATIVE, None),
        (0.0, Verdict.NEGATIVE, None),
    ],
)
def test_thresholds(probability: float, verdict: Verdict, abstain_reason: AbstainReason | None) -> None:
    decision = decide(prediction(probability), POINT)
    assert (decision.verdict, decision.abstain_reason) == (verdict, abstain_reason)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_an_image_unlike_the_training_data_is_never_judged(probability: float) -> None:
    decision = decide(prediction(probability, spread=1.0, distance=1.51), POINT)
    assert (decision.verdict, decision.abstain_reason) == (Verdict.INDETERMINATE, AbstainReason.UNLIKE_TRAINING_DATA)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_views_that_disagree_are_a_doubt(probability: float) -> None:
    decision = decide(prediction(probability, spread=0.31), POINT)
    assert (decision.verdict, decision.abstain_reason) == (Verdict.INDETERMINATE, AbstainReason.VIEWS_DISAGREE)


@pytest.mark.parametrize(
    ("probability", "distance", "verdict"),
    [
        (0.1, 0.7, Verdict.NEGATIVE),
        (0.1, 0.71, Verdict.INDETERMINATE),
        (0.2, 0.71, Verdict.INDETERMINATE),
        (0.8, 1.5, Verdict.POSITIVE),
        (0.8, 1.51, Verdict.INDETERMINATE),
    ],
)
def test_what_is_ruled_out_may_have_to_be_nearer(probability: float, distance: float, verdict: Verdict) -> None:
    decision = decide(prediction(probability, distance=distance), replace(POINT, rule_out_max_distance=0.7))
    assert decision.verdict is verdict
    if distance > 0.7 and probability != 0.2:
        expected = None if verdict is Verdict.POSITIVE else AbstainReason.UNLIKE_TRAINING_DATA
        assert decision.abstain_reason is expected


def test_the_limits_themselves_are_still_allowed() -> None:
    assert decide(prediction(0.9, spread=0.3, distance=1.5), POINT).verdict is Verdict.POSITIVE


def test_equal_thresholds_leave_no_gap() -> None:
    point = OperatingPoint(
        name="one", label="pneumonia", report_at=0.5, rule_out_below=0.5, max_spread=1.0, max_distance=9.0
    )
    assert decide(prediction(0.5), point).verdict is Verdict.POSITIVE
    assert decide(prediction(0.4999), point).verdict is Verdict.NEGATIVE


def test_the_label_of_the_operating_point_is_judged() -> None:
    both = Prediction(probability={"effusion": 0.99, "pneumonia": 0.01}, spread=0.0, distance=0.0)
    assert decide(both, POINT).verdict is Verdict.NEGATIVE


unit = st.floats(0.0, 1.0)


@given(unit, unit, st.floats(0.0, 10.0))
def test_only_a_clear_answer_is_a_verdict(probability: float, spread: float, distance: float) -> None:
    decision = decide(prediction(probability, spread, distance), POINT)
    clear = distance <= 1.5 and spread <= 0.3 and not 0.2 <= probability < 0.8
    assert (decision.verdict is not Verdict.INDETERMINATE) == clear
    assert decision.verdict is not Verdict.REJECTED


@given(unit, unit)
def test_a_higher_probability_never_reads_more_harmless(one: float, other: float) -> None:
    order = [Verdict.NEGATIVE, Verdict.INDETERMINATE, Verdict.POSITIVE]
    low, high = (order.index(decide(prediction(p), POINT).verdict) for p in sorted((one, other)))
    assert low <= high
