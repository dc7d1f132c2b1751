"""The heat map laid over the radiograph: in color where the answer rests on it, hatched in gray where none does.

Viridis is perceptually uniform, safe for color-blind readers, and has no red. A gray veil over a lung would look like
an opacity, so gray is hatched. Both fade to nothing where the network did not look.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr_node.averaging import Band


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
    for strip, rows in down.strips(values):
        found[strip] = eight_bits(across.across(rows))
    return found


def eight_bits(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round [0, 1] to 0 to 255; what lies beyond is cut off."""
    levels = values * np.float32(255.0)
    levels += np.float32(0.5)
    return np.clip(levels, 0.0, 255.0, out=levels).astype(np.uint8)


@functools.lru_cache(maxsize=16)
def _shares(size_px: int, smaller_px: int) -> Band:
    """Share of each pixel in each of fewer, broader ones: (smaller_px, size_px), rows sum to 1."""
    edges = np.union1d(np.arange(size_px + 1), np.arange(smaller_px + 1) * (size_px / smaller_px))
    widths, middles = np.diff(edges), (edges[:-1] + edges[1:]) / 2
    broad, narrow = (np.minimum(middles * part / size_px, part - 1).astype(np.intp) for part in (smaller_px, size_px))
    shares = (widths * smaller_px / size_px).astype(np.float32)
    return Band(broad, narrow, shares)


_MAP_FROM, _MAP_TO, _MAP_OPACITY = 0.2, 0.8, 0.6
_HATCH_GRAYS = (40, 225)
_HATCH_SHARE = 1 / 80
"""Distance of the hatch's lines, of the long side of what it is laid over; never below `_FINEST_PX`."""
_FINEST_PX = 8


def overlaid(shown: Image.Image, weight: NDArray[np.float32], *, gray: bool = False) -> Image.Image:
    """Lay the map over the radiograph, opaque only where the weight is high.

    Parameters
    ----------
    shown : the radiograph
    weight : float32, in [0, 1], on the same grid
    gray : hatched instead of colored
    """
    laid, levels = shown.convert("RGB"), Image.fromarray(eight_bits(weight))
    opacity = levels.point(_opacity())
    box = opacity.getbbox()
    if box is None:
        return laid
    if gray:
        colors = _hatch(shown.size).crop(box)
    else:
        colors = levels.crop(box)
        colors.putpalette(_viridis().tobytes())
    laid.paste(colors.convert("RGB"), box, opacity.crop(box))
    return laid


@functools.cache
def _viridis() -> NDArray[np.uint8]:
    """256 colors, as matplotlib has them (CC0); a file of 243 bytes, for the library has 25 MB and takes 0.2 s."""
    with Image.open(Path(__file__).parent / "viridis.png") as colors:
        return np.asarray(colors, dtype=np.uint8).reshape(256, 3)


@functools.cache
def _opacity() -> list[int]:
    """Opacity of the 256 levels: none below `_MAP_FROM`, then smoothly to `_MAP_OPACITY`."""
    ramp = np.clip((np.arange(256) / 255 - _MAP_FROM) / (_MAP_TO - _MAP_FROM), 0, 1)
    return [round(255 * _MAP_OPACITY * value) for value in ramp * ramp * (3 - 2 * ramp)]


@functools.lru_cache(maxsize=4)
def _hatch(size: tuple[int, int]) -> Image.Image:
    """Dark and light lines from lower left to upper right, seen on any gray; mode L."""
    width, height = size
    period = max(_FINEST_PX, round(_HATCH_SHARE * max(size)))
    along = (np.arange(height)[:, None] + np.arange(width)[None, :]) % period
    light = along < max(2, period // 3)
    return Image.fromarray(np.where(light, _HATCH_GRAYS[1], _HATCH_GRAYS[0]).astype(np.uint8))
