"""Proof that no drawing is somebody's radiograph: its nearest neighbour, against those of different children.

Knows no anatomy. Reads a folder as training does; nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr_node.training.data import images

SIZE_PX = 96
"""Compared at this size: fine enough for ribs, coarse enough to ignore the grain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Pearson's correlation with the nearest image, in [-1, 1].

    Attributes
    ----------
    drawn : for each drawing, with the most similar of all real images
    between_children : median and highest over real images, each with the most similar image of another child
    """

    drawn: Mapping[str, float]
    between_children: tuple[float, float]


def measure(drawings: Mapping[str, NDArray[np.uint8]], folder: Path) -> Likeness:
    """Compare drawings with all labelled images of a folder.

    Raises
    ------
    DataError : the folder holds no labelled images
    """
    items = images.read(folder, {"NORMAL": False, "PNEUMONIA": True})
    real = np.stack([_signature(images.load(item)) for item in items])
    group = np.unique([item.group for item in items], return_inverse=True)[1]
    nearest = {name: float((real @ _signature(pixels)).max()) for name, pixels in drawings.items()}
    pairs = real @ real.T  # (images, images)
    pairs[group[:, None] == group] = -1.0
    others = pairs.max(axis=1)
    return Likeness(drawn=nearest, between_children=(float(np.median(others)), float(others.max())))


def _signature(pixels: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean 0, length 1: the product of two is their correlation."""
    small = Image.fromarray(pixels.astype(np.float32)).resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX)
    flat = np.asarray(small, dtype=np.float32).ravel()
    flat = flat - flat.mean()
    scaled: NDArray[np.float32] = flat / max(float(np.linalg.norm(flat)), 1e-6)
    return scaled
