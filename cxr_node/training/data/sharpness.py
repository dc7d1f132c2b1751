"""How sharp a film is, and weighing films so that sharpness tells less of their class.

In one hospital's films the ill may be the blurred ones: bedside exposures, another export. A network that reads
sharpness takes the next hospital's softer normal films for ill.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr_node.training.data.populations import Places

SIDE_PX = 224
"""Sharpness depends on the grid; this is that of the public copies."""
LEVELS = 5
"""Levels of sharpness that weigh alike. Measured with a linear layer: 4 to 8 do as well."""

Floats = NDArray[np.float64]


def of(picture: NDArray[np.float32]) -> float:
    """Mean absolute Laplacian on a grid of SIDE_PX, in steps of 8 bits; `picture` in [0, 1]."""
    small = Image.fromarray(picture).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
    grey = np.asarray(small, dtype=np.float64) * 255.0
    inner = 4.0 * grey[1:-1, 1:-1]
    return float(np.abs(inner - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]).mean())


def of_all(images: NDArray[np.uint8]) -> Floats:
    """Sharpness of each: uint8, shape (images, rows, cols) -> shape (images,)."""
    return np.array([of(image.astype(np.float32) / np.float32(255.0)) for image in images])


def levelled(sharpness: Floats, kinds: Places, share: float) -> Floats:
    """Weigh films so that, in a share of each class, every level of sharpness weighs the same.

    Parameters
    ----------
    sharpness : shape (films,)
    kinds : shape (films,), place of each film's class
    share : 0 weighs the films of a class alike; with 1, sharpness tells nothing of the class, and its rare films weigh
        much: of the sharpest pneumonias, or the softest normals, there may be a handful

    Returns
    -------
    shape (films,), summing to 1 in each class
    """
    classes = np.unique(kinds)
    steps = np.linspace(0.0, 1.0, 51)
    alike = np.concatenate([np.quantile(sharpness[kinds == one], steps) for one in classes])  # classes weigh the same
    level = np.digitize(sharpness, np.quantile(alike, np.linspace(0.0, 1.0, LEVELS + 1)[1:-1]))
    weight = np.empty(len(sharpness))
    for one in classes:
        places = np.flatnonzero(kinds == one)
        of_class = level[places]
        there, counts = np.unique(of_class, return_counts=True)
        even = 1.0 / (len(there) * counts[np.searchsorted(there, of_class)])
        weight[places] = (1.0 - share) / len(places) + share * even
    return weight
