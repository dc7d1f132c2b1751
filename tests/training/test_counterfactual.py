from __future__ import annotations

import numpy as np
import pytest

from cxr_node.model import lungs
from cxr_node.model.lungs import Chest
from cxr_node.training.synthetic import counterfactual, drawings
from tests.model.test_lungs import SHIPPED, pixels_of


@pytest.fixture(scope="module")
def healthy() -> tuple[lungs.Floats, Chest]:
    pixels = pixels_of(SHIPPED / "clear-2.jpg")[::4, ::4]
    return pixels, lungs.find(pixels)


def test_every_opacity_whitens_one_place_in_one_lung(healthy: tuple[lungs.Floats, Chest]) -> None:
    pixels, chest = healthy
    seen = set()
    for seed in range(40):
        one = counterfactual.opacity(pixels, chest, np.random.default_rng(seed))
        seen.add(one.shape)
        assert one.pixels.dtype == np.float32 and one.pixels.min() >= 0.0 and one.pixels.max() <= 1.0
        assert 0.03 < one.place.sum() / chest.lungs.sum() < 0.4, one.shape
        assert not (one.place & ~chest.lungs).any()
        columns = np.nonzero(one.place)[1]
        middle = pixels.shape[1] / 2
        assert (columns < middle).all() or (columns > middle).all()
        change = one.pixels - pixels
        assert change.min() >= 0.0 and change[one.place].mean() > 0.05
        assert np.abs(change[~chest.lungs]).max() < 1e-6
    assert seen == set(counterfactual.SHAPES)


def test_same_chance_same_opacity(healthy: tuple[lungs.Floats, Chest]) -> None:
    one, other = (counterfactual.opacity(*healthy, np.random.default_rng(7)).pixels for _ in range(2))
    assert (one == other).all()


def test_marks_stay_out_of_the_chest_and_reach_what_the_network_sees(healthy: tuple[lungs.Floats, Chest]) -> None:
    pixels, chest = healthy
    bank = drawings.bank(20, max(pixels.shape), np.random.default_rng(0))
    seen = 0
    for seed in range(20):
        one = counterfactual.marks(pixels, chest, bank, np.random.default_rng(seed))
        assert not (one.place & chest.region).any()
        assert (one.pixels[chest.region] == pixels[chest.region]).all()
        seen += bool(one.place[20:-20, 20:-20].any())
    assert seen > 15


def test_a_chest_that_fills_the_picture_takes_no_frame() -> None:
    everywhere = np.ones((40, 40), dtype=np.bool_)
    chest = Chest(lungs=everywhere, region=everywhere, likeness=0.5)
    pixels = np.full((40, 40), 0.5, dtype=np.float32)
    bank = drawings.bank(5, 40, np.random.default_rng(0))
    one = counterfactual.marks(pixels, chest, bank, np.random.default_rng(1))
    assert not one.place.any() and (one.pixels == pixels).all()
