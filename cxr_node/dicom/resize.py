"""A radiograph in 8 bits at the size in which it is shown.

A smaller pixel is the mean over the area that it covers. Pillow has no such filter: its box counts whole pixels, and
its antialiasing ones take three times as long.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

_STRIP_ROWS = 128
"""Averaged at once: in whole images, the system would have to find new memory for every step of every image."""


def gray(values: NDArray[np.float32], size: tuple[int, int]) -> Image.Image:
    """Resize an image in [0, 1], and turn it to 8 bits: mode L. `size`: width and height."""
    width, height = size
    if height <= values.shape[0] and width <= values.shape[1]:
        return Image.fromarray(averaged(values, (height, width)))
    larger = Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)  # which may overshoot
    return Image.fromarray(eight_bits(np.asarray(larger)))


def averaged(values: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Average an image down.

    Parameters
    ----------
    values : float32, shape (rows, columns), range [0, 1]
    shape : rows and columns of the smaller grid, neither more than those of `values`

    Returns
    -------
    uint8, shape `shape`, as `eight_bits` rounds
    """
    down, across = (_shares(size, smaller) for size, smaller in zip(values.shape, shape, strict=True))
    found = np.empty(shape, np.uint8)
    for top in range(0, shape[0], _STRIP_ROWS):
        strip = slice(top, top + _STRIP_ROWS)
        found[strip] = eight_bits(across @ (down[strip] @ values).T).T
    return found


def eight_bits(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round [0, 1] to 0 to 255; what lies beyond is cut off."""
    levels = values * np.float32(255.0)
    levels += np.float32(0.5)
    return np.clip(levels, 0.0, 255.0, out=levels).astype(np.uint8)


@functools.lru_cache(maxsize=16)
def _shares(size_px: int, smaller_px: int) -> sparse.csr_array:
    """Share of each pixel in each of fewer, broader ones: (smaller_px, size_px), rows sum to 1."""
    edges = np.union1d(np.arange(size_px + 1), np.arange(smaller_px + 1) * (size_px / smaller_px))
    widths, middles = np.diff(edges), (edges[:-1] + edges[1:]) / 2
    broad, narrow = (np.minimum(middles * part / size_px, part - 1).astype(np.intp) for part in (smaller_px, size_px))
    shares = (widths * smaller_px / size_px).astype(np.float32)
    return sparse.csr_array((shares, (broad, narrow)), shape=(smaller_px, size_px))
