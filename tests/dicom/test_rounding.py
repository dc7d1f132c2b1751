"""The one rule for numbers that people read: whole percents that never cross a threshold, never 0 and never 100."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cxr_node.dicom.words import rounding
from cxr_node.domain import OperatingPoint
from tests import builders

POINT = builders.profile().operating_point
BUILT_IN = replace(POINT, rule_out_below=0.1241, report_at=0.8052)
_READ = re.compile(r"(below |above )?(\d+(?:\.\d+)?) %")


def as_read(text: str) -> tuple[float, float]:
    """Least and greatest percentage that a text can mean, a hair inside."""
    found = _READ.fullmatch(text)
    assert found is not None, text
    value = float(found[2])
    return {"below ": (0.0, value - 1e-9), "above ": (value + 1e-9, 100.0), None: (value, value)}[found[1]]


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0.98, "98 %"), (0.934, "93 %"), (0.031, "3 %"), (0.0, "below 1 %"), (0.004, "below 1 %"), (0.006, "1 %"),
        (0.994, "99 %"), (0.9951, "above 99 %"), (1.0, "above 99 %"),
        (0.84996, "below 85 %"), (0.846, "below 85 %"), (0.844, "84 %"), (0.85, "85 %"), (0.149, "below 15 %"),
        (0.15, "15 %"),
    ],
)  # fmt: skip
def test_whole_percents(probability: float, text: str) -> None:
    assert rounding.percent_text(probability, POINT) == text


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.1240, "below 12 %"), (0.1241, "12 %"), (0.8051, "below 81 %"), (0.8052, "81 %"), (0.9966, "above 99 %")],
)
def test_a_number_and_thresholds_of_four_digits_do_not_contradict_each_other(probability: float, text: str) -> None:
    assert rounding.percent_text(probability, BUILT_IN) == text
    assert rounding.threshold_text(BUILT_IN.rule_out_below, BUILT_IN) == "12 %"
    assert rounding.threshold_text(BUILT_IN.report_at, BUILT_IN) == "81 %"


@given(
    probability=st.floats(0.0, 1.0) | st.integers(0, 1000).map(lambda permille: permille / 1000),
    thresholds=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
)
def test_what_is_read_lies_on_the_side_of_each_threshold_as_that_is_read(
    probability: float, thresholds: tuple[float, float]
) -> None:
    low, high = sorted(thresholds)
    assume(high - low > 1e-5 and low > 1e-5 and high < 1 - 1e-5)
    point = replace(POINT, rule_out_below=low, report_at=high)
    least, greatest = as_read(rounding.percent_text(probability, point))
    for threshold in (low, high):
        shown = float(rounding.threshold_text(threshold, point).removesuffix(" %"))
        assert 0 < shown < 100
        if probability >= threshold:
            assert greatest >= shown
        else:
            assert least < shown
    assert rounding.percent_text(probability, point) not in ("0 %", "100 %")


@given(probability=st.floats(0.0, 1.0), thresholds=st.tuples(st.integers(1, 999), st.integers(1, 999)))
def test_the_number_of_machines_crosses_no_threshold(probability: float, thresholds: tuple[int, int]) -> None:
    rule_out, report = (permille / 1000 for permille in sorted(thresholds))
    assume(all(probability == limit or abs(probability - limit) > 1e-7 for limit in (rule_out, report)))
    point = replace(POINT, rule_out_below=rule_out, report_at=report)
    stated = round(rounding.exact_percent(probability, point) / 100, 9)  # 22.7 / 100 is a little below 0.227
    assert (stated >= report) == (probability >= report)
    assert (stated >= rule_out) == (probability >= rule_out)


def test_thresholds_that_look_alike_get_the_digits_that_part_them() -> None:
    point: OperatingPoint = replace(POINT, rule_out_below=0.501, report_at=0.504)
    assert [rounding.threshold_text(value, point) for value in (0.501, 0.504)] == ["50.1 %", "50.4 %"]
    assert rounding.percent_text(0.503, point) == "50.3 %"
