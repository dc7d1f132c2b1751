"""A smaller picture is the mean of what it covers; a larger one is as Pillow enlarges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr_node.dicom.render import overlay


@pytest.mark.parametrize("factor", [(2, 2), (3, 1), (5, 4)])
def test_by_a_whole_factor_it_is_the_mean_of_each_block(factor: tuple[int, int]) -> None:
    values = np.random.default_rng(1).random((60, 80), dtype=np.float32)
    rows, columns = 60 // factor[0], 80 // factor[1]
    means = values.reshape(rows, factor[0], columns, factor[1]).mean(axis=(1, 3))
    found = overlay.averaged(values, (rows, columns)).astype(int)
    assert np.abs(found - means * 255).max() <= 0.501


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 90), st.floats(0.01, 1.0), st.floats(0.01, 1.0), st.integers(0, 999))
def test_by_any_factor_it_is_the_mean_over_the_area(
    rows: int, columns: int, narrower: float, shorter: float, seed: int
) -> None:
    """As a fine grid counts it: every pixel cut into so many that both grids lie on its lines."""
    values = np.random.default_rng(seed).random((rows, columns), dtype=np.float32)
    shape = max(1, int(rows * shorter)), max(1, int(columns * narrower))
    found = overlay.averaged(values, shape)
    expected = values.astype(np.float64)
    for smaller in shape:  # down, turned, across, turned back
        fine = np.repeat(expected, smaller, axis=0)
        expected = fine.reshape(smaller, -1, expected.shape[1]).mean(axis=1).T
    assert found.shape == shape
    assert np.abs(found - expected * 255).max() <= 0.51


def test_black_and_white_stay_what_they_are() -> None:
    for value, level in ((0.0, 0), (1.0, 255), (0.6, 153)):
        assert (overlay.averaged(np.full((997, 701), value, np.float32), (611, 409)) == level).all()
    assert overlay.eight_bits(np.array([-0.1, 0.0, 0.5, 1.0, 1.2], np.float32)).tolist() == [0, 0, 128, 255, 255]


def test_it_looks_as_the_antialiasing_filter_shows_it() -> None:
    """On a smooth image with noise, as a radiograph is: no level differs by more than noise does."""
    y, x = np.mgrid[:900, :700] / 900
    smooth = 0.5 + 0.4 * np.sin(7 * x) * np.cos(9 * y)
    values = np.clip(smooth + np.random.default_rng(2).normal(0, 0.01, smooth.shape), 0, 1).astype(np.float32)
    found = np.asarray(overlay.gray(values, (430, 553))).astype(int)
    pillow = np.asarray(Image.fromarray(values).resize((430, 553), Image.Resampling.BICUBIC)) * 255
    assert np.abs(found - pillow).mean() < 0.6
    assert np.abs(found - pillow).max() < 6


@pytest.mark.parametrize("size", [(140, 200), (140, 99), (99, 200)])
def test_what_grows_is_interpolated(size: tuple[int, int]) -> None:
    values = np.random.default_rng(3).random((100, 100), dtype=np.float32)
    found = np.asarray(overlay.gray(values, size)).astype(int)
    pillow = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC))
    assert np.abs(found - np.clip(pillow, 0, 1) * 255).max() <= 0.501
