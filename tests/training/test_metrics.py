"""Figures against those of a well-known library, and intervals that count children."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as known

from cxr_node.training import metrics


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=60))
def test_auc_agrees_with_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    positive = np.array([row[0] for row in rows])
    score = np.array([row[1] for row in rows], dtype=np.float64)
    if positive.all() or not positive.any():
        assert np.isnan(metrics.auc(positive, score))
    else:
        assert metrics.auc(positive, score) == pytest.approx(known.roc_auc_score(positive, score))


def test_losses_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    probability = rng.uniform(0.01, 0.99, 200)
    positive = rng.random(200) < probability
    assert metrics.log_loss(positive, probability) == pytest.approx(known.log_loss(positive, probability))
    assert metrics.brier(positive, probability) == pytest.approx(known.brier_score_loss(positive, probability))


def test_calibration_error_is_small_for_true_probabilities_and_large_for_boasts() -> None:
    rng = np.random.default_rng(1)
    probability = rng.uniform(0.0, 1.0, 5000)
    positive = rng.random(5000) < probability
    assert metrics.calibration_error(positive, probability) < 0.03
    assert metrics.calibration_error(positive, np.where(probability > 0.5, 0.99, 0.01)) > 0.2


def test_sigmoid_survives_any_logit() -> None:
    assert metrics.sigmoid(np.array([-1e9, 0.0, 1e9])).tolist() == pytest.approx([0.0, 0.5, 1.0])


def test_interval_covers_the_mean_and_widens_with_fewer_children() -> None:
    values = np.random.default_rng(1).normal(size=400)

    def mean(places: np.ndarray) -> float:
        return float(values[places].mean())

    alone = metrics.interval(mean, np.arange(400).astype(str))
    values = np.repeat(values[:40], 10)
    together = metrics.interval(mean, np.repeat(np.arange(40), 10).astype(str))
    assert alone[0] < 0.1 < alone[1] + 0.1
    assert together[1] - together[0] > 2.0 * (alone[1] - alone[0])


def test_interval_is_the_same_each_time() -> None:
    groups = np.array(["a", "b", "c", "c"])
    draws = [metrics.interval(lambda places: float(places.mean()), groups) for _ in range(2)]
    assert draws[0] == draws[1]


def test_a_perfect_share_is_still_in_doubt() -> None:
    children = np.arange(100).astype(str)
    value, low, high = metrics.share(np.ones(100, dtype=bool), children)
    assert (value, high) == (1.0, 1.0)
    assert low == pytest.approx(0.9638, abs=1e-4)  # Clopper-Pearson for 100 of 100
    assert metrics.share(np.zeros(100, dtype=bool), children)[2] == pytest.approx(0.0362, abs=1e-4)
    one_child = metrics.share(np.ones(100, dtype=bool), np.repeat("a", 100))
    assert one_child[1] == pytest.approx(0.025)
    assert np.isnan(metrics.share(np.ones(0, dtype=bool), children[:0])).all()
