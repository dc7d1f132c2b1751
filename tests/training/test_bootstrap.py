"""Weighted figures against a well-known library's, and intervals that count children, not images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as known

from cxr_node.training.measure import bootstrap
from cxr_node.training.measure.bootstrap import Interval

ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 3)), min_size=2, max_size=50)


def columns(rows: list[tuple[bool, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    positive, score, weight = (np.array(column) for column in zip(*rows, strict=True))
    return positive.astype(bool), score / 9.0, weight.astype(float)


@settings(deadline=None)
@given(ROWS)
def test_ranking_figures_agree_with_scikit_learn(rows: list[tuple[bool, int, int]]) -> None:
    positive, score, weight = columns(rows)
    drawn = weight > 0
    both = np.stack([np.ones_like(weight), weight])
    auc, precision = (figure(positive, score, both) for figure in (bootstrap.aucs, bootstrap.average_precisions))
    for row, (used, weights) in enumerate(((np.ones_like(drawn), None), (drawn, weight[drawn]))):
        truth = positive[used]
        if truth.all() or not truth.any():
            assert np.isnan(auc[row])
            continue
        assert auc[row] == pytest.approx(known.roc_auc_score(truth, score[used], sample_weight=weights))
        expected = known.average_precision_score(truth, score[used], sample_weight=weights)
        assert precision[row] == pytest.approx(expected)


@given(ROWS)
def test_shares_and_f1_agree_with_scikit_learn(rows: list[tuple[bool, int, int]]) -> None:
    positive, score, _ = columns(rows)
    called, alone = score >= 0.5, np.ones((1, len(rows)))
    share = bootstrap.ratios(called == positive, np.ones_like(positive), alone)[0]
    assert share == pytest.approx(known.accuracy_score(positive, called))
    if (called | positive).any():
        assert bootstrap.f1s(called, positive, alone)[0] == pytest.approx(known.f1_score(positive, called))


def test_calibration_error_by_hand() -> None:
    probability = np.array([0.01, 0.02, 0.95, 1.0])
    positive = np.array([False, True, True, True])
    errors = bootstrap.calibration_errors(positive, probability, np.array([[1.0, 1, 1, 1], [2.0, 0, 0, 0]]))
    assert errors == pytest.approx([(0.97 + 0.05) / 4.0, 0.01])


def test_risk_area_by_hand() -> None:
    wrong, certainty = np.array([False, False, True, True]), np.array([0.9, 0.8, 0.7, 0.6])
    assert bootstrap.risk_areas(wrong, certainty, np.ones((1, 4))) == pytest.approx([(0 + 0 + 1 / 3 + 1 / 2) / 4])
    assert bootstrap.risk_areas(wrong, -certainty, np.ones((1, 4))) == pytest.approx([(1 + 1 + 2 / 3 + 1 / 2) / 4])


def test_a_redraw_takes_children_whole_and_row_0_is_the_data() -> None:
    weight = bootstrap.weights(np.array(["a", "b", "b", "c"]), draws=50)
    assert (weight[0] == 1.0).all()
    assert (weight[:, 1] == weight[:, 2]).all()
    assert (weight[:, [0, 1, 3]].sum(axis=1) == 3.0).all()
    assert (weight == bootstrap.weights(np.array(["a", "b", "b", "c"]), draws=50)).all()


def test_fewer_children_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(1).normal(size=40), 10)
    among = np.ones(400, dtype=bool)
    alone = bootstrap.bracket(bootstrap.ratios(values, among, bootstrap.weights(np.arange(400).astype(str))))
    groups = np.repeat(np.arange(40), 10).astype(str)
    together = bootstrap.bracket(bootstrap.ratios(values, among, bootstrap.weights(groups)))
    assert alone.value == together.value == pytest.approx(values.mean())
    assert together.high - together.low > 2.0 * (alone.high - alone.low)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(2), 0
    for _ in range(200):
        hit = rng.random(80) < 0.8
        found = bootstrap.share(hit, np.arange(80).astype(str))
        covered += found.low <= 0.8 <= found.high
    assert covered >= 180  # 95 % of 200 is 190; a bootstrap of so few is a little narrow


def test_a_perfect_share_is_still_in_doubt() -> None:
    children = np.arange(100).astype(str)
    all_hit = bootstrap.share(np.ones(100, dtype=bool), children)
    assert (all_hit.value, all_hit.high) == (1.0, 1.0)
    assert all_hit.low == pytest.approx(0.9638, abs=1e-4)  # Clopper-Pearson for 100 of 100
    assert bootstrap.share(np.zeros(100, dtype=bool), children).high == pytest.approx(0.0362, abs=1e-4)
    one_child = bootstrap.share(np.ones(100, dtype=bool), np.repeat("a", 100))
    assert one_child.low == pytest.approx(0.025)
    assert not bootstrap.share(np.ones(0, dtype=bool), children[:0]).is_known()
    assert not bootstrap.mean(np.ones(0), children[:0]).is_known()


def test_two_children_leave_everything_open_however_many_images_they_have() -> None:
    hit = np.repeat([True, False], 50)
    assert bootstrap.share(hit, np.repeat(["one", "other"], 50)).as_json() == {"value": 0.5, "low": 0.0, "high": 1.0}
    alone = bootstrap.share(hit, np.arange(100).astype(str))
    assert (alone.low, alone.high) == pytest.approx((0.4, 0.6), abs=0.03)


def test_a_difference_is_as_unsure_as_both_together() -> None:
    one, other = Interval(value=0.9, low=0.86, high=0.93), Interval(value=0.8, low=0.76, high=0.83)
    found = bootstrap.difference(one, other)
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1 - np.hypot(0.04, 0.03))
    assert found.high == pytest.approx(0.1 + np.hypot(0.03, 0.04))


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
