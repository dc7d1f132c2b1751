"""Probabilities of the tests are right without a change, in the tail too, and the power is what is said."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cxr_node.assurance import two_sample
from cxr_node.assurance.two_sample import Kernel, holm, weighted_tail


def test_ks_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    before, now = rng.standard_normal(2000), rng.standard_normal(300) + 0.2
    theirs = stats.ks_2samp(before, now, method="asymp")
    ours = two_sample.ks(before, now)
    assert ours.value == pytest.approx(theirs.statistic)
    assert ours.p == pytest.approx(theirs.pvalue, rel=0.1)  # theirs rounds the size of the samples


def test_the_tail_of_a_weighted_sum() -> None:
    equal = np.ones(6)
    for value in (10.0, 20.0, 40.0):
        assert weighted_tail(equal, value) == pytest.approx(stats.chi2.sf(value, 6), rel=0.02)
    weights = np.random.default_rng(1).exponential(size=100) ** 2
    drawn = np.square(np.random.default_rng(2).standard_normal((40_000, 100))) @ weights
    assert weighted_tail(weights, float(np.quantile(drawn, 0.999))) == pytest.approx(0.001, rel=0.35)


@pytest.fixture(scope="module")
def mix() -> np.ndarray:
    return np.random.default_rng(4).standard_normal((64, 64))


def test_mmd_errs_as_often_as_it_says(mix: np.ndarray) -> None:
    rng = np.random.default_rng(6)
    kernel = Kernel(rng.standard_normal((2000, 64)) @ mix)
    found = np.array([kernel.mmd(rng.standard_normal((200, 64)) @ mix).p for _ in range(200)])
    assert 0.02 <= (found < 0.1).mean() <= 0.18
    assert found.min() > 1e-4


def test_mmd_finds_the_least_shift_that_it_says(mix: np.ndarray) -> None:
    rng = np.random.default_rng(8)
    before = rng.standard_normal((2000, 64)) @ mix
    kernel = Kernel(before)
    least = kernel.least_shift(500, 1e-4)
    assert least is not None and least < 1.0
    scale = before.std(0, ddof=1)
    axis = np.linalg.eigh(np.cov(before / scale, rowvar=False))
    moved = least * np.sqrt(axis.eigenvalues[-1]) * axis.eigenvectors[:, -1] * scale
    seen = [kernel.mmd(rng.standard_normal((500, 64)) @ mix + moved).p < 1e-4 for _ in range(40)]
    assert np.mean(seen) >= 0.85


def test_ks_finds_the_least_shift_that_it_says() -> None:
    rng = np.random.default_rng(9)
    least = two_sample.least_shift(2000, 500, 1e-3)
    assert least is not None and 0.2 < least < 0.4
    seen = [two_sample.ks(rng.standard_normal(2000), rng.standard_normal(500) + least).p < 1e-3 for _ in range(200)]
    assert np.mean(seen) >= 0.9
    assert two_sample.least_shift(10, 3, 1e-6) is None


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
