"""What differs between scanners and wards, taken from one radiograph and given to another.

Knows no labels. In one hospital's data the ward and the device often tell the class (Zech et al. 2018): what
surrounds the chest and how sharp the film is must come from images of either class.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]

BANDS_PX = (1.0, 2.0, 4.0)
"""Standard deviations between which detail is compared: noise and grain, fine vessels, ribs' edges."""
LEAST_GAIN, LARGEST_GAIN = 0.4, 2.5
"""A band is not damped or raised beyond these: what is not there cannot be restored."""
SURROUND = ((0.03, 0.16), (0.05, 0.24), (0.03, 0.17), (0.03, 0.17))
"""Least and largest share of the height or width that belongs to top, bottom, left and right surroundings."""


def like(image: Floats, other: Floats, share: float) -> Floats:
    """Move an image's sharpness, band by band, and its grey values towards another's.

    Parameters
    ----------
    image, other : float32, shape (size_px, size_px), range [0, 1]
    share : 0 leaves the image, 1 gives it the other's strength of detail and distribution of grey values
    """
    mine, theirs = _bands(image), _bands(other)
    changed = mine[-1].copy()
    for band, model in zip(mine[:-1], theirs[:-1], strict=True):
        gain = (float(model.std()) + 1e-4) / (float(band.std()) + 1e-4)
        changed += band * np.clip(gain**share, LEAST_GAIN, LARGEST_GAIN)
    steps = np.linspace(0.0, 1.0, 33)
    grey = np.interp(changed, np.quantile(changed, steps), np.quantile(other, steps))
    return np.asarray((1.0 - share) * changed + share * grey, dtype=np.float32).clip(0.0, 1.0)


def surround(image: Floats, other: Floats, rng: np.random.Generator) -> None:
    """Replace what surrounds the chest by another image's surroundings, in place, with soft edges.

    Parameters
    ----------
    image, other : float32, shape (size_px, size_px), range [0, 1]
    """
    rows, cols = image.shape
    top, bottom, left, right = (rng.uniform(low, high) for low, high in SURROUND)
    soft = rng.uniform(0.005, 0.05)
    down = _window(rows, top, bottom, soft)[:, None]
    across = _window(cols, left, right, soft)[None, :]
    kept = np.minimum(down, across)  # (rows, cols)
    image *= kept
    image += (1.0 - kept) * other


def _window(size: int, first: float, last: float, soft: float) -> Floats:
    place = (np.arange(size) + 0.5) / size
    inside = np.minimum(place - first, 1.0 - last - place)
    return np.asarray(np.clip(0.5 + inside / (2.0 * soft), 0.0, 1.0), dtype=np.float32)


def _bands(image: Floats) -> list[Floats]:
    smooth = [image, *(ndimage.gaussian_filter(image, sigma, truncate=2.5) for sigma in BANDS_PX)]
    details = [fine - coarse for fine, coarse in itertools.pairwise(smooth)]
    return [*details, smooth[-1]]
