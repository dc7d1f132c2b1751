"""Images that the classifier must not judge, made from those that it may: the lesson is where its world ends.

Knows no labels and no network. An outlier-exposure set in the sense of Hendrycks et al. (2019). What the evaluation
shows instead is made in `measure.stress`, which shares no code with this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Bytes = NDArray[np.uint8]
Maker = Callable[[Bytes, np.random.Generator], Bytes]


def mirrored(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Swap left and right, as when a film is laid the wrong way round."""
    return image[:, ::-1]


def inverted(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Swap black and white, as when the Photometric Interpretation is wrong."""
    return 255 - image


def turned(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Lay the image on its side or on its head, sometimes mirrored too."""
    side = np.rot90(image, int(rng.integers(1, 4)))
    return side[:, ::-1] if rng.random() < 0.3 else side


def part(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Show a part of the body alone: a third to a half of the image, enlarged, away from the chest's middle."""
    size = image.shape[0]
    side = int(rng.uniform(0.25, 0.45) * size)
    row, col = (int(rng.choice([rng.uniform(0.0, 0.15), rng.uniform(0.85, 1.0)]) * (size - side)) for _ in range(2))
    cut = np.rot90(image[row : row + side, col : col + side], int(rng.integers(4)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(cut)).resize((size, size), Image.Resampling.BICUBIC))


def texture(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Noise of one grain or of several, or the image in shuffled tiles: nothing that has anatomy."""
    size = image.shape[0]
    if rng.random() < 0.3:
        tiles = int(rng.integers(3, 7))
        edges = np.array_split(np.arange(size), tiles)
        rows, cols = (np.concatenate([edges[place] for place in rng.permutation(tiles)]) for _ in range(2))
        return np.asarray(image[np.ix_(rows, cols)], dtype=np.uint8)
    grain = ndimage.gaussian_filter(rng.standard_normal((size, size)), float(np.exp(rng.uniform(-1.5, 3.5))))
    low, high = np.quantile(grain, [0.01, 0.99])
    return np.asarray(np.clip((grain - low) / (high - low), 0.0, 1.0) * 255.0, dtype=np.uint8)


MAKERS: Mapping[str, Maker] = {
    "mirrored": mirrored,
    "inverted": inverted,
    "turned": turned,
    "part": part,
    "texture": texture,
}
"""Kind -> how it is made from a training image."""


def draw(images: Bytes, count: int, rng: np.random.Generator) -> Bytes:
    """Make outsiders, mirrored ones most often: they are the hardest to tell.

    Parameters
    ----------
    images : uint8, shape (images, size_px, size_px), of the population
    count : how many

    Returns
    -------
    uint8, shape (count, size_px, size_px)
    """
    kinds = rng.choice(["mirrored", "mirrored", "mirrored", "inverted", "turned", "part", "texture"], size=count)
    return np.stack([MAKERS[str(kind)](images[int(rng.integers(len(images)))], rng) for kind in kinds])
