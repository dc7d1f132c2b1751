"""The distance is near 1 at the edge of the population, and grows outside it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cxr_node.model.ood_distance import distance, fit, normalised

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def stats() -> dict[str, Floats]:
    features, labels = population(600, seed=1)
    return normalised(fit(features, labels), population(600, seed=2)[0])


def population(count: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """Draw two classes with a few strong and many weak directions of scatter."""
    labels = np.arange(count) % 2
    scatter = np.concatenate([np.full(10, 3.0), np.full(90, 0.1)])
    features = np.random.default_rng(seed).normal(size=(count, 100)) * scatter + labels[:, None] * 8.0
    return features.astype(np.float32), labels


def test_one_is_the_99th_percentile_of_held_out_images(stats: dict[str, Floats]) -> None:
    beyond = (distance(population(3000, seed=3)[0], stats) > 1.0).mean()
    assert 0.002 < float(beyond) < 0.03


def test_both_classes_are_near(stats: dict[str, Floats]) -> None:
    features, labels = population(400, seed=4)
    measured = distance(features, stats)
    assert abs(float(measured[labels == 0].mean() - measured[labels == 1].mean())) < 0.1


@pytest.mark.parametrize("strong", [True, False])
def test_foreign_features_are_far_along_strong_and_weak_directions(strong: bool, stats: dict[str, Floats]) -> None:
    features, _ = population(50, seed=5)
    shift = np.zeros(100, dtype=np.float32)
    shift[slice(0, 10) if strong else slice(90, 100)] = 25.0 if strong else 2.0
    assert float((distance(features + shift, stats) > 1.0).mean()) > 0.95


def test_few_images_suffice() -> None:
    features, labels = population(8, seed=6)
    assert np.isfinite(distance(features, fit(features, labels))).all()


def test_what_the_network_learned_of_outsiders_counts_where_it_is_larger() -> None:
    features, labels = population(600, seed=1)
    known = np.linspace(-8.0, -2.0, 600, dtype=np.float32)
    stats = normalised(fit(features, labels), features, known)
    near = features[:50]
    plain = distance(near, {name: value for name, value in stats.items() if name != "learned"})
    np.testing.assert_allclose(distance(near, stats, np.full(50, -9.0, dtype=np.float32)), plain)
    strange = distance(near, stats, np.full(50, 3.0, dtype=np.float32))
    assert float(strange.min()) > 1.5
    assert float((distance(features, stats, known) > 1.0).mean()) < 0.04


def test_features_whose_squares_float32_cannot_hold_are_far_and_no_error(stats: dict[str, Floats]) -> None:
    features = np.full((2, 100), 1e25, dtype=np.float32)
    features[1] = np.finfo(np.float32).max
    measured = distance(features, stats)
    assert np.isfinite(measured).all()
    assert float(measured.min()) > 1e20
