"""Rates by hand, subgroups, and goals that are reached only when the interval says so."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_node.domain import Verdict
from cxr_node.training.measure import acceptance, metrics
from cxr_node.training.measure.acceptance import Met
from cxr_node.training.measure.metrics import Outcomes


def outcomes(positive: list[int], probability: list[float], *, low: float = 0.2, high: float = 0.8) -> Outcomes:
    said = [
        Verdict.POSITIVE if p >= high else Verdict.NEGATIVE if p < low else Verdict.INDETERMINATE for p in probability
    ]
    return Outcomes(
        positive=np.array(positive, dtype=bool),
        groups=np.arange(len(positive)).astype(str),
        probability=np.array(probability),
        verdict=np.array([str(one) for one in said]),
        answered=np.array([one is not Verdict.INDETERMINATE for one in said]),
    )


def test_rates_by_hand() -> None:
    found = metrics.rates(outcomes([1, 1, 1, 1, 0, 0, 0, 0], [0.9, 0.9, 0.6, 0.1, 0.1, 0.1, 0.3, 0.95]))
    value = {name: one["value"] for name, one in found.items()}
    assert value["sensitivity_at_0.5"] == value["specificity_at_0.5"] == 0.75
    assert value["accuracy_at_0.5"] == value["balanced_accuracy_at_0.5"] == 0.75
    assert value["f1_at_0.5"] == value["positive_predictive_value_at_0.5"] == 0.75
    assert value["answered"] == 0.75
    assert value["accuracy_of_answered"] == pytest.approx(4 / 6, abs=1e-4)
    assert value["sensitivity_of_answered"] == value["positive_predictive_value"] == pytest.approx(2 / 3, abs=1e-4)
    assert value["f1_of_answered"] == pytest.approx(2 / 3, abs=1e-4)
    assert all(one["low"] <= one["value"] <= one["high"] for one in found.values())
    assert set(found) == {*metrics.FIGURES, *metrics.SHARES, *metrics.LOSSES}


def test_what_is_not_defined_is_left_out() -> None:
    found = metrics.rates(outcomes([1, 1, 1], [0.9, 0.5, 0.1]))
    assert "auc" not in found
    assert "specificity_at_0.5" not in found
    assert found["sensitivity_at_0.5"]["value"] == pytest.approx(2 / 3, abs=1e-4)


def test_a_perfect_ranking_is_no_certainty() -> None:
    found = metrics.rates(outcomes([1] * 20 + [0] * 5, [0.9] * 20 + [0.1] * 5))["auc"]
    assert found["value"] == found["high"] == 1.0
    assert found["low"] == pytest.approx(0.025 ** (1 / 5), abs=1e-4)


def test_a_sublabel_is_set_against_the_other_class() -> None:
    truth = outcomes([1, 1, 1, 1, 0, 0], [0.9, 0.8, 0.3, 0.2, 0.25, 0.1])
    tags = [{"sublabel": word} for word in ("bacteria", "bacteria", "virus", "virus", "normal", "normal")]
    found = metrics.subgroups(truth, tags)["sublabel"]
    assert found["bacteria"]["rates"]["auc"]["value"] == 1.0
    assert found["virus"]["rates"]["auc"]["value"] == 0.75
    assert "auc" not in found["normal"]["rates"]
    assert (found["virus"]["images"], found["virus"]["positives"]) == (2, 2)


def test_ages_are_grouped_as_dicom_and_manifests_write_them() -> None:
    truth = outcomes([1, 0] * 5, [0.9, 0.1] * 5)
    ages = ["018M", "1", "003Y", "061Y", "79", "17", "90", "", "unknown", "0.5"]
    found = metrics.subgroups(truth, [{"age": age} for age in ages])["age"]
    counted = {value: one["images"] for value, one in found.items()}
    assert counted == {
        "0 years": 1,
        "1 year": 2,
        "3 years": 1,
        "6 to 17 years": 1,
        "60 to 79 years": 2,
        "80 years and more": 1,
    }
    assert list(found) == list(counted)


def test_one_value_is_no_subgroup() -> None:
    assert metrics.subgroups(outcomes([1, 0], [0.9, 0.1]), [{"view": "AP"}] * 2) == {}


@pytest.mark.parametrize(
    ("low", "value", "high", "answer"),
    [
        (0.99, 0.995, 1.0, Met.YES),
        (0.98, 0.99, 1.0, Met.LIKELY),
        (0.96, 0.97, 0.99, Met.UNLIKELY),
        (0.9, 0.95, 0.98, Met.NO),
    ],
)
def test_a_goal_asks_the_interval(low: float, value: float, high: float, answer: Met) -> None:
    figure = {"value": value, "low": low, "high": high}
    (found,) = acceptance.held_against({"rates": {"auc": figure}})
    assert found["met"] == answer


def test_a_loss_is_better_the_smaller() -> None:
    (loss,) = (goal for goal in acceptance.GOALS if goal.name.startswith("calibration"))
    assert acceptance.met(loss, {"value": 0.01, "low": 0.0, "high": 0.02}) is Met.YES
    assert acceptance.met(loss, {"value": 0.04, "low": 0.0, "high": 0.07}) is Met.LIKELY
    assert acceptance.met(loss, {"value": 0.09, "low": 0.06, "high": 0.1}) is Met.NO
