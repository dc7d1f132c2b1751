"""Two profiles on the same films: the difference has its own interval, and a patient is one witness."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_node.domain import Verdict
from cxr_node.training.measure import bootstrap, metrics, paired
from cxr_node.training.measure.metrics import Outcomes


def outcomes(probability: np.ndarray, positive: np.ndarray, groups: np.ndarray) -> Outcomes:
    sure = np.abs(probability - 0.5) > 0.2
    said = np.where(probability > 0.5, str(Verdict.POSITIVE), str(Verdict.NEGATIVE))
    verdict = np.where(sure, said, str(Verdict.INDETERMINATE))
    return Outcomes(positive=positive, groups=groups, probability=probability, verdict=verdict, answered=sure)


@pytest.fixture
def films() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    positive = np.arange(200) % 2 == 0
    hard = rng.normal(0.0, 1.0, 200)  # shared by both: it makes either figure unsure, but not their difference
    return positive, hard, np.array([f"patient {place // 2}" for place in range(200)])


def probabilities(positive: np.ndarray, hard: np.ndarray, gain: float) -> np.ndarray:
    return bootstrap.sigmoid(gain * (2.0 * positive - 1.0) + hard)


def test_the_interval_is_of_the_difference(films: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    positive, hard, groups = films
    worse, better = (outcomes(probabilities(positive, hard, gain), positive, groups) for gain in (0.8, 0.95))
    found = paired.compared(worse, better)["rates"]["auc"]
    alone = metrics.rates(worse, ("auc",))["auc"], metrics.rates(better, ("auc",))["auc"]
    assert found["first"] == alone[0] and found["second"] == alone[1]
    assert found["difference"]["value"] == pytest.approx(alone[1]["value"] - alone[0]["value"], abs=2e-4)
    assert found["difference"]["low"] > 0.0  # although the two intervals overlap
    assert alone[1]["low"] < alone[0]["high"]
    width = found["difference"]["high"] - found["difference"]["low"]
    assert width < 0.7 * (alone[0]["high"] - alone[0]["low"])


def test_a_profile_against_itself_gains_nothing(films: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    positive, hard, groups = films
    one = outcomes(probabilities(positive, hard, 1.0), positive, groups)
    found = paired.compared(one, one)
    assert all(rate["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0} for rate in found["rates"].values())
    assert found["right"]["at_0.5"] == {
        "only_first": 0, "only_second": 0, "patients_for_first": 0, "patients_for_second": 0, "p": 1.0
    }  # fmt: skip
    assert (found["opposite"], found["images"], found["patients"]) == (0, 200, 100)


def test_turning_the_order_turns_the_sign(films: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    positive, hard, groups = films
    one, other = (outcomes(probabilities(positive, hard, gain), positive, groups) for gain in (0.5, 1.5))
    there, back = paired.compared(one, other), paired.compared(other, one)
    for name, rate in there["rates"].items():
        turned = back["rates"][name]["difference"]
        assert rate["difference"]["value"] == pytest.approx(-turned["value"], abs=1e-9)
        assert rate["difference"]["low"] == pytest.approx(-turned["high"], abs=2e-4)
    assert there["right"]["at_0.5"]["only_second"] == back["right"]["at_0.5"]["only_first"]
    assert there["right"]["at_0.5"]["p"] == back["right"]["at_0.5"]["p"]


def test_many_films_of_one_patient_are_one_witness() -> None:
    first, second = np.zeros(12, dtype=bool), np.ones(12, dtype=bool)
    alone = paired.discordant(first, second, np.array(["a"] * 12))
    assert (alone["only_second"], alone["patients_for_second"], alone["p"]) == (12, 1, 1.0)
    all_of_them = paired.discordant(first, second, np.arange(12).astype(str))
    assert all_of_them["p"] == pytest.approx(2 * 0.5**12, abs=1e-6)
    both = paired.discordant(np.array([True, False]), np.array([False, True]), np.array(["a", "a"]))
    assert (both["only_first"], both["only_second"], both["patients_for_first"], both["p"]) == (1, 1, 0, 1.0)


def test_opposite_verdicts_are_counted() -> None:
    positive = np.array([True, True, False, False])
    one = outcomes(np.array([0.9, 0.9, 0.5, 0.1]), positive, np.arange(4).astype(str))
    other = outcomes(np.array([0.1, 0.5, 0.1, 0.9]), positive, np.arange(4).astype(str))
    assert paired.compared(one, other)["opposite"] == 2
