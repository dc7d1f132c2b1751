"""Geometry letterbox: a film keeps its shape, bars count for nothing, and a map comes back to where it was seen."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_node.heatmap import spread
from cxr_node.model.preprocess import borders, cut_and_resize, prepare, standardise, views
from cxr_node.model.profile import InputSpec, Normalisation
from cxr_node.model.regions import regions
from tests.model.test_preprocess import drawn

SPEC = InputSpec.model_validate({"size_px": 64, "border": 0.0, "geometry": "letterbox"})
SHAPES = [(64, 64), (96, 64), (64, 96), (1500, 1100), (1100, 1931), (2500, 64)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_film_lies_between_equal_bars_and_sets_the_scale_alone(shape: tuple[int, int]) -> None:
    prepared = prepare(drawn(*shape), SPEC)
    assert prepared.shape == (64, 64)
    film = cut_and_resize(drawn(*shape), SPEC)
    down, across = ((64 - side) // 2 for side in film.shape)
    np.testing.assert_array_equal(prepared[down : 64 - down, across : 64 - across], standardise(film[None])[0])
    assert np.count_nonzero(prepared) <= film.size
    longest = max(shape)
    assert max(film.shape) == 64
    for side, taken in zip(shape, film.shape, strict=True):
        assert taken == pytest.approx(max(2.0, 64 * side / longest), abs=1.01)


def test_a_circle_stays_round() -> None:
    y, x = ((np.arange(n, dtype=np.float32) + 0.5) for n in (120, 180))
    circle = (np.hypot(y[:, None] - 60, x[None] - 90) < 40).astype(np.float32)
    prepared = prepare(circle, SPEC) > 0.5
    assert abs(int(prepared.any(0).sum()) - int(prepared.any(1).sum())) <= 1


@pytest.mark.parametrize("shape", SHAPES[:5])
def test_views_leave_the_bars_alone_and_are_standardised_between_them(shape: tuple[int, int]) -> None:
    prepared = prepare(drawn(*shape), SPEC)
    shown = views(prepared[None], SPEC)
    np.testing.assert_array_equal(shown[0, 0], prepared)
    rows, cols = cut_and_resize(drawn(*shape), SPEC).shape
    down, across = (64 - rows) // 2, (64 - cols) // 2
    for view in shown[:, 0]:
        film = view[down : down + rows, across : across + cols]
        assert float(film.mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(film.std()) == pytest.approx(1.0, abs=1e-4)
        assert np.count_nonzero(view) <= film.size


def test_a_black_film_is_nothing_and_has_views() -> None:
    assert not views(prepare(np.zeros((90, 120), np.float32), SPEC)[None], SPEC).any()


@pytest.mark.parametrize("shape", [(96, 64), (640, 960), (1500, 1100)])
def test_a_spot_on_the_film_is_found_there_again(shape: tuple[int, int]) -> None:
    """Through the grid, the cells of a map and back: within a cell."""
    for down, across in ((0.1, 0.1), (0.5, 0.5), (0.2, 0.85), (0.9, 0.3)):
        row, col = int(down * shape[0]), int(across * shape[1])
        y, x = (np.arange(side, dtype=np.float32) for side in shape)
        size = max(shape) / 20
        spot = np.exp(-(((y[:, None] - row) / size) ** 2) - ((x[None] - col) / size) ** 2).astype(np.float32)
        cells = prepare(spot, SPEC).clip(0).reshape(16, 4, 16, 4).mean((1, 3))
        cells = np.asarray(cells / cells.max(), dtype=np.float32)
        border = borders(np.zeros(shape, np.float32), SPEC)
        found = np.unravel_index(int(spread(cells, border, shape).argmax()), shape)
        assert max(abs(found[0] - row), abs(found[1] - col)) <= max(shape) / 16
        hottest = regions(cells, border, shape, None)[0]
        points = np.array(hottest.outline)
        assert (points.min(0) <= (col + 1, row + 1)).all() and (points.max(0) >= (col, row)).all()
        assert (points >= 0).all() and (points <= shape[::-1]).all()


def test_bars_have_no_border_and_no_published_form() -> None:
    with pytest.raises(ValueError, match="letterbox"):
        InputSpec.model_validate({"size_px": 64, "border": 0.04, "geometry": "letterbox"})
    with pytest.raises(ValueError, match="letterbox"):
        InputSpec.model_validate(
            {"size_px": 64, "border": 0.0, "geometry": "letterbox", "normalisation": Normalisation.XRV}
        )
