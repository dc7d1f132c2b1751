"""Edges of one gray are no part of a film: with `margins: cut` they move no answer, and maps lie where they lay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from cxr_node import heatmap
from cxr_node.model import preprocess
from cxr_node.model.preprocess import borders, film, pictures, prepare
from cxr_node.model.profile import InputSpec, Margins, Normalisation
from cxr_node.training.measure import padding
from tests.builders import around

Floats = NDArray[np.float32]
CUT = InputSpec(size_px=48, border=0.04, shape_px=64, margins=Margins.CUT)
SHOWN = CUT.model_copy(update={"margins": Margins.SHOWN})


def recorded(rows: int, cols: int, seed: int = 0) -> Floats:
    """Draw something in which no row or column has one gray."""
    return np.random.default_rng(seed).uniform(0.2, 0.9, (rows, cols)).astype(np.float32)


@pytest.mark.parametrize(("rows", "cols"), [(120, 90), (1100, 1000)])  # the second is large: our own averaging
@pytest.mark.parametrize("move", [name for name in padding.MOVES if name.startswith("padded")])
@pytest.mark.parametrize("gray", [0.0, 0.5, 1.0])
def test_a_margin_moves_no_bit(rows: int, cols: int, move: str, gray: float) -> None:
    inside = recorded(rows, cols)
    left, right, top, bottom = padding.MOVES[move]
    pads = [(round(top * rows), round(bottom * rows)), (round(left * cols), round(right * cols))]
    wider = np.pad(inside, pads, constant_values=gray)
    assert np.array_equal(pictures(wider, CUT), pictures(inside, CUT))
    assert not np.array_equal(pictures(wider, SHOWN), pictures(inside, SHOWN))


def test_without_margins_nothing_is_cut() -> None:
    inside = recorded(150, 110)
    assert np.array_equal(pictures(inside, CUT), pictures(inside, SHOWN))
    assert np.array(borders(inside, CUT)) == pytest.approx(np.array(around(0.04)))


def test_what_jpeg_leaves_of_black_is_a_margin_and_a_letter_is_none() -> None:
    picture = np.pad(recorded(80, 60), 15)
    picture[:, :10] = np.random.default_rng(1).uniform(0.0, preprocess.BLANK, (110, 10))
    assert film(picture) == (slice(15, 95), slice(15, 75))
    picture[4:8, 5:9] = 1.0  # R
    assert film(picture) == (slice(4, 95), slice(5, 75))


def test_of_nothing_a_third_is_left() -> None:
    assert film(np.zeros((90, 60), np.float32)) == (slice(30, 60), slice(20, 40))
    assert np.isfinite(pictures(np.zeros((90, 60), np.float32), CUT)).all()


@settings(max_examples=60, deadline=None)
@given(
    ends=st.tuples(*[st.integers(0, 60)] * 4),
    size=st.tuples(st.integers(130, 300), st.integers(130, 300)),
    spot=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
    shaped=st.booleans(),
)
def test_a_map_lies_over_what_was_seen(
    ends: tuple[int, int, int, int], size: tuple[int, int], spot: tuple[float, float], shaped: bool
) -> None:
    spec = CUT.of_pictures[int(shaped)]
    inside = recorded(*size) * 0.1
    row, col = (int(share * side) for share, side in zip(spot, size, strict=True))
    high, wide = (side // 10 for side in size)  # a twenty-fifth of the film: of less the grey is clipped
    inside[row - high : row + high, col - wide : col + wide] += 0.8
    top, bottom, left, right = ends
    whole = np.pad(inside, ((top, bottom), (left, right)))
    cells = prepare(whole, spec).reshape(16, spec.size_px // 16, 16, -1).mean((1, 3))
    cells = np.maximum(cells, 0.0) / cells.max()
    border = borders(whole, spec)
    seen = heatmap.spread(cells.astype(np.float32), border, whole.shape)
    found = np.unravel_index(int(seen.argmax()), seen.shape)
    assert max(abs(found[0] - top - row), abs(found[1] - left - col)) <= max(size) / 8
    if shaped:  # cells reach into the bars, and so into a margin there
        return
    assert not seen[:top].any() and not seen[:, :left].any()
    assert not seen[whole.shape[0] - bottom :].any() and not seen[:, whole.shape[1] - right :].any()


def test_the_published_networks_saw_margins() -> None:
    assert InputSpec(size_px=32, border=0.0).margins is Margins.SHOWN
    with pytest.raises(ValidationError, match="margins are shown"):
        InputSpec(size_px=224, border=0.0, normalisation=Normalisation.XRV, margins=Margins.CUT)
