"""Calibration keeps the order of images, means what it says, and leaves room between the thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_node.training import metrics
from cxr_node.training.calibrate import operating_point, platt
from cxr_node.training.scores import Scores
from tests.training import folders


def drawn(count: int, seed: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = np.arange(count) % 2 == 0
    return positive, rng.normal(size=count) + gap * positive


def patients(count: int) -> np.ndarray:
    return np.arange(count).astype(str)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), gap=st.floats(-2.0, 20.0), prevalence=st.floats(0.05, 0.95))
def test_order_never_changes(seed: int, gap: float, prevalence: float) -> None:
    positive, logit = drawn(40, seed, gap)
    slope, intercept = platt(logit, positive, weight=np.ones(40), prevalence=prevalence)
    assert slope > 0.0
    assert np.isfinite([slope, intercept]).all()


def test_probabilities_mean_what_they_say() -> None:
    rng = np.random.default_rng(3)
    logit = rng.normal(scale=3.0, size=6000)
    positive = rng.random(6000) < metrics.sigmoid(0.5 * logit)
    slope, intercept = platt(logit, positive, weight=np.ones(6000), prevalence=float(positive.mean()))
    assert slope == pytest.approx(0.5, abs=0.05)
    assert metrics.calibration_error(positive, metrics.sigmoid(slope * logit + intercept)) < 0.03


def test_prevalence_moves_the_intercept_by_its_odds() -> None:
    positive, logit = drawn(2000, 1, 2.0)
    fitted = [platt(logit, positive, weight=np.ones(2000), prevalence=share) for share in (0.5, 0.2)]
    assert fitted[1][1] - fitted[0][1] == pytest.approx(np.log(0.25), abs=0.15)


def test_separable_classes_do_not_lead_to_certainty() -> None:
    positive, logit = drawn(60, 1, 50.0)
    slope, intercept = platt(logit, positive, weight=np.ones(60), prevalence=0.5)
    probability = metrics.sigmoid(slope * logit + intercept)
    assert probability.max() < 0.995
    assert probability.min() > 0.005


@pytest.mark.parametrize("gap", [1.0, 4.0, 12.0])
def test_thresholds_spend_the_budget_and_never_cross(gap: float, tmp_path: Path) -> None:
    recipe = folders.recipe(tmp_path)
    positive, logit = drawn(1000, 2, gap)
    logits = torch.from_numpy(logit - gap / 2.0).float()[:, None, None].expand(-1, 4, 1)
    scored = Scores(logits=logits, distance=np.zeros(1000))
    point, promised = operating_point(recipe, positive, patients(1000), scored, slope=1.0, intercept=0.0)
    assert promised is None
    probability = scored.probability(1.0, 0.0)
    assert point.rule_out_below <= 0.5 <= point.report_at
    assert (probability[positive] < point.report_at).mean() >= recipe.operating.abstain - 5e-3  # thresholds are rounded
    assert (
        probability[~positive] >= point.rule_out_below
    ).mean() >= recipe.operating.abstain - 5e-3  # thresholds are rounded
    assert point.label == recipe.label


def test_spread_limit_lets_most_images_through(tmp_path: Path) -> None:
    recipe = folders.recipe(tmp_path)
    positive, logit = drawn(1000, 2, 3.0)
    noise = np.random.default_rng(5).normal(scale=0.3, size=(1000, 4))
    scored = Scores(logits=torch.from_numpy(logit[:, None] + noise).float()[..., None], distance=np.zeros(1000))
    point, _ = operating_point(recipe, positive, patients(1000), scored, slope=1.0, intercept=-1.5)
    beyond = (scored.spread(1.0, -1.5) > point.max_spread).mean()
    assert beyond == pytest.approx(1.0 - recipe.operating.spread_quantile, abs=0.005)
