"""Figures against those of a well-known library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as known

from cxr_node.training.measure import bootstrap


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=60))
def test_auc_agrees_with_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    positive = np.array([row[0] for row in rows])
    score = np.array([row[1] for row in rows], dtype=np.float64)
    if positive.all() or not positive.any():
        assert np.isnan(bootstrap.auc(positive, score))
    else:
        assert bootstrap.auc(positive, score) == pytest.approx(known.roc_auc_score(positive, score))


def test_losses_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    probability = rng.uniform(0.01, 0.99, 200)
    positive = rng.random(200) < probability
    assert bootstrap.log_loss(positive, probability) == pytest.approx(known.log_loss(positive, probability))
    assert bootstrap.brier(positive, probability) == pytest.approx(known.brier_score_loss(positive, probability))


def test_calibration_error_is_small_for_true_probabilities_and_large_for_boasts() -> None:
    rng = np.random.default_rng(1)
    probability = rng.uniform(0.0, 1.0, 5000)
    positive = rng.random(5000) < probability
    assert bootstrap.calibration_error(positive, probability) < 0.03
    assert bootstrap.calibration_error(positive, np.where(probability > 0.5, 0.99, 0.01)) > 0.2


def test_sigmoid_survives_any_logit() -> None:
    assert bootstrap.sigmoid(np.array([-1e9, 0.0, 1e9])).tolist() == pytest.approx([0.0, 0.5, 1.0])
