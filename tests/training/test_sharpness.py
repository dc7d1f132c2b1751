"""Soft and sharp films can weigh alike, so that sharpness tells no class."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_node.training.data import sharpness


def test_a_blurred_film_is_less_sharp() -> None:
    grain = np.random.default_rng(0).random((448, 448)).astype(np.float32)
    blurred = (grain[:-1, :-1] + grain[1:, :-1] + grain[:-1, 1:] + grain[1:, 1:]) / np.float32(4.0)
    assert sharpness.of(blurred) < 0.9 * sharpness.of(grain)
    assert sharpness.of(np.zeros((50, 40), dtype=np.float32)) == 0.0


def test_all_films_are_measured_as_one() -> None:
    stored = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    stored[1] = 128
    found = sharpness.of_all(stored)
    assert found[1] == pytest.approx(0.0, abs=1e-4)
    assert found[2] == pytest.approx(sharpness.of(stored[2].astype(np.float32) / np.float32(255.0)))


@pytest.fixture
def films() -> tuple[np.ndarray, np.ndarray]:
    """Sharpness and class of 4,000 films; the ill are three in four, and softer."""
    kinds = (np.arange(4000) % 4 > 0).astype(np.int64)
    return np.random.default_rng(0).normal(np.where(kinds == 1, 5.4, 7.3), 1.2), kinds


def _told(values: np.ndarray, kinds: np.ndarray, weight: np.ndarray) -> float:
    """Area under the curve by which sharpness tells the class, films weighted."""
    order = np.argsort(-values)
    ill, well = (np.where(kinds[order] == one, weight[order], 0.0) for one in (1, 0))
    return float((ill * (well.sum() - np.cumsum(well) + well / 2.0)).sum() / ill.sum() / well.sum())


def test_levelled_sharpness_tells_no_class(films: tuple[np.ndarray, np.ndarray]) -> None:
    softness, told = -films[0], {}
    for share in (0.0, 0.5, 1.0):
        weight = sharpness.levelled(*films, share)
        assert [weight[films[1] == one].sum() for one in (0, 1)] == pytest.approx([1.0, 1.0])
        told[share] = _told(softness, films[1], weight)
    assert told[0.0] > 0.85 > told[0.5] > 0.65
    assert told[1.0] == pytest.approx(0.5, abs=0.08)
