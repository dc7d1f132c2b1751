"""Where the chest is on a frontal radiograph: a drawn thorax, moved and stretched until it lies on the picture.

Opacified lungs must be found as well as clear ones, so shape and usual place decide where brightness does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

GRID = 48
"""Side of the small picture on which the thorax is fitted; a rib is a pixel wide there and does not count."""
QUICK_GRID = 24
"""Likewise where an answer waits for it: a fifth of the time. On 157 radiographs the chest region is that of `GRID` to
93 % (median, intersection over union), and the middle to 0.9 % of the width in nine of ten."""
FOUND_FROM = 0.40
"""Likeness on `QUICK_GRID` from which a thorax counts as found: 99 % of 784 frontal films have that, and 6 % of those
that lie on their side."""
AIR_BELOW = 0.12
"""Grey value, as share of the picture's range, of what can be air beside the body; lungs are brighter mostly."""
PARAMETERS = ("centre", "top", "bottom", "half_width", "tilt", "heart", "taper")
"""Of a thorax: first shares of the picture's width and height, then radians, 1 for a small heart, and the exponent
of the rib cage's bell (a small one is pointed)."""
USUAL = np.array([0.505, 0.18, 0.88, 0.38, 0.0, 1.15, 2.0], dtype=np.float32)
SPREAD = np.array([0.03, 0.06, 0.06, 0.04, 0.03, 0.20, 0.35], dtype=np.float32)
LOWEST = np.array([0.38, -0.04, 0.60, 0.24, -0.12, 0.5, 1.6], dtype=np.float32)
HIGHEST = np.array([0.62, 0.40, 1.08, 0.50, 0.12, 1.8, 3.4], dtype=np.float32)
USUAL_RISE, SPREAD_RISE = 1.85, 0.25
"""Height over half width. Means and spreads are those of 500 fits to training radiographs, rounded."""
PULL = 0.0045
"""What one standard deviation (squared) from the usual thorax costs, in correlation. By eye on 80 radiographs: with
0.012 tall lungs lose their apices, with 0.003 white lower lobes are left out."""
FIRST, ROUNDS, EACH = 3000, 4, {GRID: 64, QUICK_GRID: 32}
"""Thoraces tried on every picture, then rounds of so many closer and closer to the best."""
MARGIN, RIM = 0.10, 0.22
"""Of the half width: how far the chest region reaches beyond the lungs, and how far the comparison does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chest:
    """A thorax as it lies on one radiograph.

    Attributes
    ----------
    lungs : shape (rows, cols), both lung fields, the part before the heart left out
    region : shape (rows, cols), both lungs, all between them, and a margin
    likeness : correlation of the drawn thorax with the picture, in [-1, 1]; clear lungs have about 0.7, white ones 0.5
    """

    lungs: Bools
    region: Bools
    likeness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Thorax:
    """A thorax as it lies on one radiograph, not drawn.

    Attributes
    ----------
    place : float32, shape (7,), its `PARAMETERS`
    likeness : as in `Chest`, but on `QUICK_GRID`
    """

    place: Floats
    likeness: float

    @property
    def is_found(self) -> bool:
        """Whether it is like enough to be believed."""
        return self.likeness >= FOUND_FROM

    def own(self, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
        """Where points of the radiograph lie in the thorax.

        Parameters
        ----------
        x, y : float32, shapes (cols,) and (rows,), shares of the radiograph's width and height

        Returns
        -------
        Three arrays, float32, shape (rows, cols): u from -1 to 1 between the walls, the picture's left to its right;
        v from 0 at the apex to 1 at the lowest angle; depth inside the chest in half widths, negative outside.
        """
        u, v, rise = _own_coordinates(self.place[None], x, y)
        return u[0], v[0], _region_depth(u, v, rise, _wall(self.place[None], v))[0]


def fit(pixels: Floats) -> Thorax:
    """Find the chest on one frontal radiograph, quickly and not drawn; parameters as those of `find`; 3 ms."""
    step = [max(1, side // (4 * QUICK_GRID)) for side in pixels.shape]  # the rest is averaged
    place, likeness = _fitted(_evened(pixels[:: step[0], :: step[1]], QUICK_GRID))
    return Thorax(place=place, likeness=likeness)


def find(pixels: Floats) -> Chest:
    """Find the chest on one frontal radiograph; 12 ms, whatever its size.

    Parameters
    ----------
    pixels : float32, shape (rows, cols), any range, larger means more attenuating (MONOCHROME2 sense)

    By eye, on radiographs that the constants above were not chosen on, the region is right (it holds all but a tenth of
    both lungs and reaches no farther than a tenth of the width beyond) in 39 of 40 children and 22 of 24 adults.
    """
    place, likeness = _fitted(_evened(pixels, GRID))
    lungs, region = masks(place, pixels.shape)
    return Chest(lungs=lungs, region=region, likeness=likeness)


def masks(place: Floats, shape: tuple[int, ...]) -> tuple[Bools, Bools]:
    """Draw lungs and chest region of a thorax with the given `PARAMETERS` on a picture of `shape`."""
    rows, cols = shape
    u, v, rise = _own_coordinates(place[None], _centres(cols), _centres(rows))
    wall = _wall(place[None], v)
    lung = _depth(place[None], u, v, rise, wall)[0] >= 0.0
    region = _region_depth(u, v, rise, wall)[0] >= -MARGIN
    return lung, region


def _evened(pixels: Floats, grid: int) -> Floats:
    """Shrink to (grid, grid); take out the slow changes of brightness and the air beside the body."""
    from scipy import ndimage  # 0.2 s, where an outline is wanted

    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
    small = np.asarray(image.resize((grid, grid), Image.Resampling.BILINEAR), dtype=np.float32)
    low, high = np.quantile(small, [0.02, 0.98])
    small = np.clip((small - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    small = _without_air(small)
    mean = ndimage.gaussian_filter(small, 0.2 * grid, mode="nearest")
    difference = small - mean
    scale = np.sqrt(ndimage.gaussian_filter(np.square(difference), 0.25 * grid, mode="nearest"))
    return np.asarray((difference / np.maximum(scale, 0.02)).clip(-2.5, 2.5).astype(np.float32))


def _without_air(small: Floats) -> Floats:
    """Fill what is black and reaches a side of the picture with the grey of the body: only lungs shall be dark."""
    from scipy import ndimage

    black, _ = ndimage.label(small < AIR_BELOW)
    sides = np.unique(np.concatenate([black[:, 0], black[:, -1], black[0], black[-1]]))
    air = np.isin(black, sides[sides > 0])
    air = ndimage.binary_dilation(air, iterations=1)
    if not air.any() or air.all():
        return small
    return np.where(air, np.quantile(small[~air], 0.6), small).astype(np.float32)


def _centres(count: int) -> Floats:
    return (np.arange(count, dtype=np.float32) + 0.5) / np.float32(count)


def _own_coordinates(places: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Coordinates in the thorax: u from -1 to 1 between the walls, v from 0 at the apex to 1 at the lowest angle.

    Returns u and v, each (places, rows, cols), and how many half widths the thorax is high, (places, 1, 1).
    """
    centre, top, bottom, half_width, tilt = (column[:, None, None] for column in places.T[:5])
    across = x[None, None, :] - centre
    down = y[None, :, None] - 0.5 * (top + bottom)
    height = bottom - top
    u = (across * np.cos(tilt) + down * np.sin(tilt)) / half_width
    v = (down * np.cos(tilt) - across * np.sin(tilt)) / height + 0.5
    return u, v, height / half_width


def _wall(places: Floats, v: Floats) -> Floats:
    above = np.clip((0.85 - v) / 0.9, 0.0, 1.0)
    return np.asarray(np.sqrt(1.0 - above ** places[:, 6, None, None]))


def _base(u: Floats) -> Floats:
    """Height of the diaphragm: two domes, lowest at the wall."""
    return np.asarray(0.85 + 0.15 * np.clip((np.abs(u) - 0.45) / 0.55, 0.0, 1.5) ** 2, dtype=np.float32)


def _depth(places: Floats, u: Floats, v: Floats, rise: Floats, wall: Floats) -> Floats:
    """How deep inside a lung, in half widths; negative outside."""
    heart = places[:, 5, None, None]
    bulge = np.clip((v - 0.35) / 0.4, 0.0, 1.0)
    bulge = bulge * bulge * (3.0 - 2.0 * bulge)
    middle = np.where(u > 0.0, 0.20 + 0.28 * heart * bulge, 0.20 + 0.08 * heart * bulge)
    across = np.minimum(wall - np.abs(u), np.abs(u) - middle)
    return np.asarray(np.minimum(across, (_base(u) - v) * rise))


def _region_depth(u: Floats, v: Floats, rise: Floats, wall: Floats) -> Floats:
    """How deep inside the chest, both lungs and all between them, in half widths; negative outside."""
    return np.asarray(np.minimum.reduce([wall - np.abs(u), (_base(u) - v) * rise, v * rise]))


def _drawn(places: Floats, grid: int) -> tuple[Floats, Floats]:
    """Draw thoraces as what their correlation with a picture needs.

    Returns kernels, standardised brightness (low in the lungs) times weight, and weights of sum 1, each
    (places, grid * grid). The weight reaches beyond the chest by a rim of wall, neck and belly.
    """
    u, v, rise = _own_coordinates(places, _centres(grid), _centres(grid))
    wall = _wall(places, v)
    bright = _step(-_depth(places, u, v, rise, wall), 0.05).reshape(len(places), -1)
    weight = _step(_region_depth(u, v, rise, wall) + RIM, 0.04).reshape(len(places), -1)
    weight /= weight.sum(1, keepdims=True)
    offset = bright - (weight * bright).sum(1, keepdims=True)
    spread = np.sqrt((weight * np.square(offset)).sum(1, keepdims=True))
    return weight * offset / spread, weight


def _step(depth: Floats, softness: float) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-depth / np.float32(softness))))


@cache
def _first(grid: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Draw the shapes that every picture is first compared with; the same on every machine. As `_best` takes them."""
    rng = np.random.default_rng(0)
    places = _within(USUAL + 1.5 * SPREAD * rng.standard_normal((FIRST, len(USUAL)), dtype=np.float32))
    drawn = [
        _drawn(some, grid) for some in np.array_split(places, 20)
    ]  # all at once would take a gigabyte for a moment
    kernels, weights = (np.concatenate(each) for each in zip(*drawn, strict=True))
    return places, _pulls(places), kernels, weights


def _within(places: Floats) -> Floats:
    """Keep thoraces within what a child can be."""
    return np.clip(places, LOWEST, HIGHEST).astype(np.float32)


def _fitted(small: Floats) -> tuple[Floats, float]:
    """Search the place whose thorax is most like the picture; its parameters and its correlation."""
    rng, grid = np.random.default_rng(1), len(small)
    place, likeness, score = _best(small, *_first(grid))
    for turn in range(ROUNDS):
        step = SPREAD * np.float32(0.5 * 0.6**turn)
        tried = _within(place + step * rng.standard_normal((EACH[grid], len(USUAL)), dtype=np.float32))
        found = _best(small, tried, _pulls(tried), *_drawn(tried, grid))
        if found[2] > score:
            place, likeness, score = found
    return place, likeness


def _pulls(places: Floats) -> Floats:
    """What being unlike the usual thorax costs each one, in correlation: (places,)."""
    rise = (places[:, 2] - places[:, 1]) / places[:, 3]
    far = np.square((places - USUAL) / SPREAD).sum(1) + np.square((rise - USUAL_RISE) / SPREAD_RISE)
    return np.asarray(np.float32(PULL) * far)


def _best(
    small: Floats, places: Floats, pulls: Floats, kernels: Floats, weights: Floats
) -> tuple[Floats, float, float]:
    """Choose the thorax that is most like the picture, less the pull to the usual one: place, likeness, score."""
    seen = small.reshape(-1)
    variance = weights @ np.square(seen) - np.square(weights @ seen)
    likeness = kernels @ seen / np.sqrt(np.maximum(variance, 1e-6))
    score = likeness - pulls
    best = int(score.argmax())
    return places[best], float(likeness[best]), float(score[best])
