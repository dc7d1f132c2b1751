"""Radiographs changed in one known place: an opacity in a lung, or marks outside the chest.

A heat map can then be asked where it points. Opacities are drawn by other rules than those of training
(`synthetic.drawings`), so that a network is not asked what it was taught.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from cxr_node.model.lungs import Chest
from cxr_node.training.synthetic import drawings
from cxr_node.training.synthetic.drawings import Mark

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

SHAPES = ("lobar", "wedge", "round", "patchy")
FILL = (0.55, 0.95)
"""How far the lung's grey goes towards that of the heart: consolidated lung has no air left."""
SMALLEST_STEP = 0.12
"""Of the picture's range: hazy lungs are brightened by so much at least, or nothing would be there to find."""
SEEN = 0.35
"""Share of the fill from which a pixel belongs to the opacity."""
TOUCHED = 0.02
"""Change of grey from which a pixel belongs to a mark."""
SETS, TRIES, CUT_OFF = 2, 12, 0.01
"""So many sets of marks are laid, if so many tries find some of which the chest takes away less than this share of
the picture: a cable, not half a plate, whose cut edge would be a new sight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pasted:
    """A changed radiograph.

    Attributes
    ----------
    pixels : float32, shape (rows, cols), range [0, 1]
    place : shape (rows, cols), where it was changed
    shape : one of `SHAPES`, or "marks"
    """

    pixels: Floats
    place: Bools
    shape: str


def opacity(pixels: Floats, chest: Chest, rng: np.random.Generator) -> Pasted:
    """Consolidate a part of one lung.

    Parameters
    ----------
    pixels : float32, shape (rows, cols), range [0, 1], larger means more attenuating
    chest : where its lungs are
    """
    lung = _one_lung(chest, rng)
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    filled = _DRAWN[shape](lung, rng) * _soft_inside(lung)
    filled *= _airways(lung, rng) * _grain(pixels.shape, rng)
    filled = filled.clip(0.0, 1.0).astype(np.float32)
    around = chest.region & ~chest.lungs
    heart = float(np.quantile(pixels[around], 0.6)) if around.any() else 0.7
    soft = ndimage.gaussian_filter(pixels, 0.04 * max(pixels.shape), mode="nearest")
    reach = float(np.ptp(np.quantile(pixels, [0.02, 0.98])))
    step = np.maximum(heart - soft, SMALLEST_STEP * reach) * np.float32(rng.uniform(*FILL))
    changed = np.clip(pixels + filled * step, 0.0, 1.0).astype(np.float32)
    place = ndimage.binary_fill_holes(filled > SEEN)
    return Pasted(pixels=changed, place=np.asarray(place), shape=shape)


def marks(pixels: Floats, chest: Chest, bank: list[Mark], rng: np.random.Generator) -> Pasted:
    """Lay letters, text, cables and a frame over a radiograph; the chest stays as it is, cables end at it.

    Parameters
    ----------
    pixels : float32, shape (rows, cols), range [0, 1]
    bank : as `stamps.bank` draws it for this size
    """
    changed = pixels.copy()
    if rng.random() < 0.5:
        _frame(changed, chest, rng)
    laid = 0
    for _ in range(TRIES):
        tried = changed.copy()
        drawings.paste_marks(tried, bank, rng)
        if (chest.region & (np.abs(tried - changed) > TOUCHED)).mean() < CUT_OFF and laid < SETS:
            changed, laid = tried, laid + 1
    changed[chest.region] = pixels[chest.region]
    return Pasted(pixels=changed, place=np.abs(changed - pixels) > TOUCHED, shape="marks")


def _frame(pixels: Floats, chest: Chest, rng: np.random.Generator) -> None:
    """Blank the edges in place, as collimation and scanned film do, up to the chest but deeper than it was cut."""
    grey = np.float32(rng.choice([0.0, 1.0, rng.random()]))
    for axis in (0, 1):
        within = np.flatnonzero(chest.region.any(axis=1 - axis))
        size = pixels.shape[axis]
        first, last = (within[0], within[-1] + 1) if len(within) else (size, 0)
        deepest = rng.uniform(0.05, 0.12, size=2) * size
        edges = np.moveaxis(pixels, axis, 0)  # a view
        edges[: min(int(deepest[0]), first)] = grey
        edges[max(size - int(deepest[1]), last) :] = grey


def _one_lung(chest: Chest, rng: np.random.Generator) -> Bools:
    fields, count = ndimage.label(chest.lungs)
    sizes = np.bincount(fields.ravel(), minlength=count + 1)[1:]
    largest = np.argsort(sizes)[::-1][:2] + 1
    return np.asarray(fields == int(rng.choice(largest)))


def _soft_inside(lung: Bools) -> Floats:
    """Fall from 1 to 0 in the last few pixels before the lung's own border."""
    depth = ndimage.distance_transform_edt(lung)
    return _floats(np.clip(depth / (0.02 * max(lung.shape)), 0.0, 1.0))


def _lobar(lung: Bools, rng: np.random.Generator) -> Floats:
    """All that lies below (or above) a fissure: a straight, sharp edge."""
    rows, cols = np.nonzero(lung)
    row, col = np.indices(lung.shape)
    tilt = rng.uniform(-0.5, 0.5)
    along = row + tilt * (col - cols.mean())
    share = rng.uniform(0.3, 0.6)
    cut = np.quantile(rows + tilt * (cols - cols.mean()), 1.0 - share if rng.random() < 0.6 else share)
    below = along >= cut if cut > np.median(along[lung]) else along <= cut
    return _floats(below)


def _wedge(lung: Bools, rng: np.random.Generator) -> Floats:
    """A segment: the angle from the root of the lung to the wall."""
    rows, cols = np.nonzero(lung)
    inwards = 1.0 if cols.mean() < lung.shape[1] / 2 else -1.0
    root_row = np.quantile(rows, rng.uniform(0.4, 0.6))
    root_col = np.quantile(cols, 0.9 if inwards > 0 else 0.1)
    row, col = np.indices(lung.shape)
    angle = np.arctan2(row - root_row, (root_col - col) * inwards)
    half, middle = rng.uniform(0.35, 0.6), rng.uniform(-0.7, 0.9)
    far = np.hypot(row - root_row, col - root_col) > 0.08 * max(lung.shape)
    return _floats((np.abs(angle - middle) < half) & far)


def _round(lung: Bools, rng: np.random.Generator) -> Floats:
    """A ball with corners and a narrow rim."""
    row, col = np.indices(lung.shape)
    centre = _place_within(lung, rng)
    radius = rng.uniform(0.25, 0.4) * np.sqrt(lung.sum())
    angle = np.arctan2(row - centre[0], col - centre[1])
    corners = 1.0 + 0.12 * np.cos(int(rng.integers(3, 7)) * angle + rng.uniform(0.0, 6.3))
    beyond = np.hypot(row - centre[0], col - centre[1]) - radius * corners
    return _floats(np.clip(0.5 - beyond / (0.015 * max(lung.shape)), 0.0, 1.0))


def _patchy(lung: Bools, rng: np.random.Generator) -> Floats:
    """Lobules: cells of a mosaic round one place, most of them filled."""
    row, col = np.indices(lung.shape)
    centre = _place_within(lung, rng)
    reach = rng.uniform(0.32, 0.46) * np.sqrt(lung.sum())
    seeds = np.array(centre) + rng.uniform(-reach, reach, size=(28, 2))
    far = np.hypot(np.subtract.outer(row, seeds[:, 0]), np.subtract.outer(col, seeds[:, 1]))  # (rows, cols, seeds)
    filled = np.take(rng.uniform(0.25, 1.0, size=28), np.argmin(far, axis=-1))
    return _floats(filled * (np.hypot(row - centre[0], col - centre[1]) < reach))


_DRAWN: Mapping[str, Callable[[Bools, np.random.Generator], Floats]] = {
    "lobar": _lobar,
    "wedge": _wedge,
    "round": _round,
    "patchy": _patchy,
}


def _place_within(lung: Bools, rng: np.random.Generator) -> tuple[int, int]:
    """Choose a pixel that lies deep in the lung."""
    depth = ndimage.distance_transform_edt(lung)
    deep = np.argwhere(depth >= 0.5 * depth.max())
    chosen = int(rng.integers(len(deep)))
    return int(deep[chosen, 0]), int(deep[chosen, 1])


def _airways(lung: Bools, rng: np.random.Generator) -> Floats:
    """Air bronchograms: a few thin lines from the root that keep their air; 1 elsewhere."""
    rows, cols = np.nonzero(lung)
    inwards = 1.0 if cols.mean() < lung.shape[1] / 2 else -1.0
    row, col = np.indices(lung.shape)
    down, out = row - rows.mean(), (np.quantile(cols, 0.95 if inwards > 0 else 0.05) - col) * inwards
    width = 0.004 * max(lung.shape)
    open_ = np.zeros(lung.shape)
    for angle in rng.uniform(-1.1, 1.1, size=4):
        away = np.abs(down * np.cos(angle) - out * np.sin(angle))
        open_ = np.maximum(open_, np.exp(-np.square(away / width)) * (out > 0))
    return _floats(1.0 - 0.45 * open_)


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), 0.012 * max(shape))
    return _floats(1.0 + 0.12 * noise / max(float(noise.std()), 1e-6))


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float32)
