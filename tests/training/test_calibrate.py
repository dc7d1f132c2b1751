"""Calibration keeps the order of images, means what it says, and leaves room between the thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_node.errors import DataError
from cxr_node.training.calibrate import platt as fitting
from cxr_node.training.calibrate.calibrate import CalibrationOptions, operating_point
from cxr_node.training.calibrate.platt import Sample
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.data.recipe_sections import GuaranteeSection
from cxr_node.training.measure import bootstrap
from cxr_node.training.measure.inference import Scores
from tests.training import folders


def drawn(count: int, seed: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = np.arange(count) % 2 == 0
    return positive, rng.normal(size=count) + gap * positive


def platt(logit: np.ndarray, positive: np.ndarray, prevalence: float) -> tuple[float, float]:
    return fitting.platt(sample(logit, positive), prevalence)


def sample(logit: np.ndarray, positive: np.ndarray) -> Sample:
    every = np.ones(len(logit))
    return Sample(logit=logit, weight=every, positive=positive, clean=every > 0, groups=patients(len(logit)))


def patients(count: int) -> np.ndarray:
    return np.arange(count).astype(str)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), gap=st.floats(-2.0, 20.0), prevalence=st.floats(0.05, 0.95))
def test_order_never_changes(seed: int, gap: float, prevalence: float) -> None:
    positive, logit = drawn(40, seed, gap)
    slope, intercept = platt(logit, positive, prevalence=prevalence)
    assert slope > 0.0
    assert np.isfinite([slope, intercept]).all()


def test_probabilities_mean_what_they_say() -> None:
    rng = np.random.default_rng(3)
    logit = rng.normal(scale=3.0, size=6000)
    positive = rng.random(6000) < bootstrap.sigmoid(0.5 * logit)
    slope, intercept = platt(logit, positive, prevalence=float(positive.mean()))
    assert slope == pytest.approx(0.5, abs=0.05)
    assert bootstrap.calibration_error(positive, bootstrap.sigmoid(slope * logit + intercept)) < 0.03


def test_prevalence_moves_the_intercept_by_its_odds() -> None:
    positive, logit = drawn(2000, 1, 2.0)
    fitted = [platt(logit, positive, prevalence=share) for share in (0.5, 0.2)]
    assert fitted[1][1] - fitted[0][1] == pytest.approx(np.log(0.25), abs=0.15)


def test_separable_classes_do_not_lead_to_certainty() -> None:
    positive, logit = drawn(60, 1, 50.0)
    slope, intercept = platt(logit, positive, prevalence=0.5)
    probability = bootstrap.sigmoid(slope * logit + intercept)
    assert probability.max() < 0.995
    assert probability.min() > 0.005


@pytest.mark.parametrize("gap", [1.0, 4.0, 12.0])
def test_thresholds_spend_the_budget_and_never_cross(gap: float, tmp_path: Path) -> None:
    recipe = folders.recipe(tmp_path)
    positive, logit = drawn(1000, 2, gap)
    logits = np.repeat((logit - gap / 2.0).astype(np.float32)[:, None, None], 4, axis=1)
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


@pytest.mark.parametrize("gap", [1.0, 2.0, 12.0])
def test_a_budget_of_errors_bounds_both_kinds(gap: float, tmp_path: Path) -> None:
    recipe = folders.recipe(tmp_path)
    operating = recipe.operating.model_copy(update={"abstain": None, "wrong": 0.05})
    positive, logit = drawn(1000, 2, gap)
    scored = Scores(
        logits=np.repeat((logit - gap / 2.0).astype(np.float32)[:, None, None], 4, axis=1), distance=np.zeros(1000)
    )
    wanted = recipe.model_copy(update={"operating": operating})
    point, _ = operating_point(wanted, positive, patients(1000), scored, slope=1.0, intercept=0.0)
    probability = scored.probability(1.0, 0.0)
    called = probability >= point.report_at
    cleared = probability < point.rule_out_below
    assert called[~positive].mean() <= 0.05 + 5e-3
    assert cleared[positive].mean() <= 0.05 + 5e-3
    assert (called | cleared).mean() > (0.2 if gap < 2 else 0.5)


def test_spread_limit_lets_most_images_through(tmp_path: Path) -> None:
    recipe = folders.recipe(tmp_path)
    positive, logit = drawn(1000, 2, 3.0)
    noise = np.random.default_rng(5).normal(scale=0.3, size=(1000, 4))
    scored = Scores(logits=(logit[:, None] + noise).astype(np.float32)[..., None], distance=np.zeros(1000))
    point, _ = operating_point(recipe, positive, patients(1000), scored, slope=1.0, intercept=-1.5)
    beyond = (scored.spread(1.0, -1.5) > point.max_spread).mean()
    assert beyond == pytest.approx(1.0 - recipe.operating.spread_quantile, abs=0.005)


def test_the_promise_holds_with_fitted_probabilities_and_limits_too(tmp_path: Path) -> None:
    """Slope, intercept and the limit of spread come from the same patients: over re-draws that breaks nothing."""
    recipe = promising(folders.recipe(tmp_path), ppv=0.93, npv=0.95, prevalence=0.4)
    rng, broken, made = np.random.default_rng(8), 0, 0
    many_positive, many = views_of(60_000, rng)
    for _ in range(60):
        positive, scored = views_of(800, rng)
        slope, intercept = platt(scored.logit(), positive, prevalence=0.4)
        try:
            point, promised = operating_point(recipe, positive, patients(800), scored, slope=slope, intercept=intercept)
        except DataError:
            continue
        assert promised is not None
        made += 1
        answered = many.spread(slope, intercept) <= point.max_spread
        probability = many.probability(slope, intercept)
        said = {
            True: answered & (probability >= point.report_at),
            False: answered & (probability < point.rule_out_below),
        }
        values = []
        for own, share in ((True, 0.4), (False, 0.6)):
            right, wrong = (said[own][many_positive == one].mean() for one in (own, not own))
            values.append(share * right / (share * right + (1.0 - share) * wrong))
        broken += values[0] < 0.93 or values[1] < 0.95
    assert made > 50
    assert broken <= 0.05 * made


def views_of(count: int, rng: np.random.Generator) -> tuple[np.ndarray, Scores]:
    """Logits of four views that agree less where the class is less clear."""
    positive = np.arange(count) % 2 == 0
    logit = rng.normal(size=count) + 3.4 * (positive - 0.5)
    views = logit[:, None] + rng.normal(scale=0.4, size=(count, 4))
    return positive, Scores(logits=views.astype(np.float32)[..., None], distance=np.zeros(count))


def promising(recipe: Recipe, *, ppv: float, npv: float, prevalence: float) -> Recipe:
    return CalibrationOptions(ppv=ppv, npv=npv, prevalence=prevalence).of(recipe)


def test_one_predictive_value_alone_is_no_wish(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give --ppv and --npv"):
        CalibrationOptions(ppv=0.9).of(folders.recipe(tmp_path))


def test_what_is_not_asked_stays_as_the_recipe_says(tmp_path: Path) -> None:
    recipe = folders.recipe(tmp_path)
    assert CalibrationOptions().of(recipe) == recipe
    promise = promising(recipe, ppv=0.9, npv=0.98, prevalence=0.3)
    assert promise.operating.abstain is None
    assert CalibrationOptions(confidence=0.9).of(promise).operating.guarantee == GuaranteeSection(
        ppv=0.9, npv=0.98, confidence=0.9
    )
