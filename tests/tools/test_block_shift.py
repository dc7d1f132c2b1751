"""The study of shifted normals: what the weights do, and which correction helps against which shift."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_node.domain import Verdict
from cxr_node.training.measure import bootstrap
from tools import block_shift
from tools.block_shift import Films


@pytest.fixture(scope="module")
def films() -> Films:
    """The less sharp a normal film is, the iller it looks to this profile."""
    rng = np.random.default_rng(0)
    positive = np.arange(1200) < 600
    sharpness = np.where(positive, rng.normal(5.5, 1.0, 1200), rng.normal(7.5, 1.0, 1200))
    logit = np.where(positive, rng.normal(3.0, 1.5, 1200), rng.normal(-3.0, 1.5, 1200) + 1.2 * (7.5 - sharpness))
    probability = bootstrap.sigmoid(logit)
    verdict = np.where(probability >= 0.8, Verdict.POSITIVE, Verdict.INDETERMINATE)
    return Films(
        positive=positive,
        groups=np.arange(1200).astype(str),
        sharpness=sharpness,
        logit=logit,
        probability=probability,
        verdict=np.where(probability < 0.2, Verdict.NEGATIVE, verdict),
    )


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_shift_moves_the_normals_and_nothing_else(films: Films, shift: float) -> None:
    weight = films.weight(shift, 0.625)
    assert weight.sum() == pytest.approx(1.0)
    assert weight[films.positive].sum() == pytest.approx(0.625)
    assert np.ptp(weight[films.positive]) == pytest.approx(0.0)
    normal = ~films.positive
    moved = np.average(films.sharpness[normal], weights=weight[normal]) - films.sharpness[normal].mean()
    assert moved == pytest.approx(-shift * films.sharpness[normal].std(), abs=0.25)


def test_specificity_falls_and_sensitivity_stays(films: Films) -> None:
    plain, shifted = (block_shift.figures(films, shift, 0.625) for shift in (0.0, 1.5))
    assert shifted["specificity at 0.5"].value < plain["specificity at 0.5"].value - 0.05
    assert shifted["sensitivity at 0.5"].value == pytest.approx(plain["sensitivity at 0.5"].value)
    assert shifted["AUC"].value < plain["AUC"].value
    assert all(one.low <= one.value <= one.high for one in shifted.values())


def test_a_prior_found_without_labels_is_the_true_one_where_only_it_differs(films: Films) -> None:
    rows = np.r_[np.flatnonzero(films.positive)[:60], np.flatnonzero(~films.positive)]
    before, after = films.probability[rows], block_shift.prior_corrected(films.probability[rows])
    share = films.positive[rows].mean()
    assert abs(after.mean() - share) < abs(before.mean() - share) + 0.01
    assert after.mean() == pytest.approx(share, abs=0.03)


def test_labelled_films_restore_what_a_shifted_block_took(films: Films) -> None:
    found = block_shift.site_gains(films, 2.0, 0.15)
    as_it_is, _, labelled = found.values()
    assert labelled[1] < as_it_is[1]
