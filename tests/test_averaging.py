"""Band matrices against the same matrices in full."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_node.averaging import Band


@pytest.mark.parametrize(
    ("rows", "columns", "width"), [(1, 1, 1), (5, 9, 2), (30, 100, 7), (300, 700, 4), (20, 900, 90)]
)
def test_a_band_is_multiplied_like_the_whole_matrix(rows: int, columns: int, width: int) -> None:
    chance = np.random.default_rng(rows)
    firsts = np.sort(chance.integers(0, columns - width + 1, rows))
    to = np.repeat(np.arange(rows), width)
    of = (firsts[:, None] + np.arange(width)).ravel()
    weights = chance.random(len(to), dtype=np.float32)
    whole = np.zeros((rows, columns))
    whole[to, of] = weights
    band, values = Band(to, of, weights), chance.random((columns, 11), dtype=np.float32)
    expected = whole @ values
    np.testing.assert_allclose(band.down(values), expected, rtol=1e-5)
    np.testing.assert_allclose(band.across(values.T), expected.T, rtol=1e-5)
    strips = list(band.strips(values))
    assert [place for strip, _ in strips for place in range(strip.start, strip.stop)] == list(range(rows))
    np.testing.assert_allclose(np.concatenate([found for _, found in strips]), expected, rtol=1e-5)


def test_of_two_weights_for_one_place_the_sum_counts() -> None:
    band = Band(np.array([0, 0, 0]), np.array([1, 2, 1]), np.array([0.25, 1.0, 0.5], np.float32))
    np.testing.assert_array_equal(band.down(np.eye(3, dtype=np.float32)), [[0.0, 0.75, 1.0]])
