"""Consolidations and infiltrates drawn into lungs, so that a network learns where a pneumonia is, not whose film.

Knows no labels and no network. A drawn opacity is the one sign in a training image that is surely a sign of
disease and surely inside a lung: the image it comes from is the same but for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]

LUNGS = ((0.44, 0.29, 0.28, 0.15), (0.44, 0.71, 0.28, 0.15))
"""Centre row, centre column, half height and half width of each lung field, as shares of a squashed frontal chest
radiograph. Rough on purpose: where exactly an opacity is drawn is decided by how dark the place is."""

LEAST_PEAK = 0.5
"""What is drawn reaches this share of a full consolidation somewhere: less could not be called disease."""


def paste_opacity(image: Floats, rng: np.random.Generator) -> Floats:
    """Draw one to three opacities, or a diffuse pattern over both lungs, in place.

    Parameters
    ----------
    image : float32, shape (size_px, size_px), range [0, 1], changed in place

    Returns
    -------
    float32, shape (size_px, size_px), range [0, 1]: where it was drawn, 1 where the drawing is fullest
    """
    lungs = _dark_lungs(image)
    drawn = _streaks(lungs, rng) if rng.random() < 0.25 else _patches(lungs, rng)
    drawn *= ndimage.gaussian_filter((lungs > 0.08).astype(np.float32), 3.0)  # ribs and diaphragm bound it softly
    drawn *= max(1.0, LEAST_PEAK / max(1e-6, float(drawn.max())))
    inside = image[lungs > 0.3]
    dark, bright = (np.quantile(inside, 0.3), np.quantile(image, 0.9)) if inside.size else (0.3, 0.8)
    reach = max(0.15, float(bright - dark)) * rng.uniform(0.7, 1.1)
    drawn *= (1.0 + 0.25 * _smooth_noise(image.shape, 5.0, rng)).clip(0.4, 1.4)
    filling = np.clip(drawn * rng.uniform(0.6, 1.0), 0.0, 0.95) * np.maximum(dark + reach - image, 0.0)
    image += filling if rng.random() < 0.5 else 0.6 * reach * drawn.clip(0.0, 1.2)  # the latter leaves ribs to be seen
    image.clip(0.0, 1.0, out=image)
    peak = float(drawn.max())
    return drawn / peak if peak > 0.0 else drawn


def _dark_lungs(image: Floats) -> Floats:
    """Prefer the dark of the two rough lung fields: (size_px, size_px), range [0, 1]."""
    rows, cols = image.shape
    row, col = np.mgrid[:rows, :cols].astype(np.float32) + 0.5
    fields = np.zeros(image.shape, dtype=np.float32)
    for centre_row, centre_col, high, wide in LUNGS:
        reach = ((row / rows - centre_row) / high) ** 2 + ((col / cols - centre_col) / wide) ** 2
        fields = np.maximum(fields, np.clip(1.6 * (1.25 - reach), 0.0, 1.0))
    smooth = ndimage.gaussian_filter(image, 4.0)
    inside = smooth[fields > 0.5]
    low, high_grey = np.quantile(inside, [0.05, 0.9])
    darkness = np.clip((high_grey - smooth) / max(1e-3, high_grey - low), 0.0, 1.0)
    return np.asarray(fields * darkness, dtype=np.float32)


def _patches(lungs: Floats, rng: np.random.Generator) -> Floats:
    """Blobs with ragged, soft edges, centred on dark lung."""
    size = lungs.shape[0]
    row, col = np.mgrid[:size, :size].astype(np.float32)
    chance = lungs.ravel().astype(np.float64) + 1e-9
    drawn = np.zeros_like(lungs)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        place = int(rng.choice(lungs.size, p=chance / chance.sum()))
        centre = divmod(place, size)
        high, wide = rng.uniform(0.05, 0.17, size=2) * size
        turn = rng.uniform(0.0, np.pi)
        down, right = row - centre[0], col - centre[1]
        along, across = down * np.cos(turn) + right * np.sin(turn), right * np.cos(turn) - down * np.sin(turn)
        reach = np.sqrt((along / high) ** 2 + (across / wide) ** 2)
        ragged = reach + rng.uniform(0.1, 0.5) * _smooth_noise(lungs.shape, rng.uniform(4.0, 10.0), rng)
        softness = rng.uniform(0.15, 0.6)
        drawn = np.maximum(drawn, rng.uniform(0.5, 1.0) / (1.0 + np.exp((ragged - 0.9) / (0.4 * softness))))
    return np.asarray(drawn, dtype=np.float32)


def _streaks(lungs: Floats, rng: np.random.Generator) -> Floats:
    """Fine, patchy markings through both lungs, as of an interstitial pneumonia."""
    fine = 0.5 * _smooth_noise(lungs.shape, rng.uniform(1.2, 2.0), rng) + 0.5 * _smooth_noise(
        lungs.shape, rng.uniform(3.0, 6.0), rng
    )
    where = 1.0 / (1.0 + np.exp(-3.0 * (_smooth_noise(lungs.shape, 22.0, rng) + rng.uniform(-0.3, 0.8))))
    haze = rng.uniform(0.2, 0.6)
    return np.asarray((haze + fine.clip(0.0, 1.0)) * where * np.sqrt(lungs), dtype=np.float32).clip(0.0, 1.0)


def _smooth_noise(shape: tuple[int, ...], sigma_px: float, rng: np.random.Generator) -> Floats:
    """Smooth noise of standard deviation 1; drawn on a coarse grid, for its detail is not needed."""
    step = max(1, int(sigma_px // 2))
    rows, cols = shape
    coarse = rng.standard_normal((-(-rows // step) + 1, -(-cols // step) + 1)).astype(np.float32)
    smooth = ndimage.gaussian_filter(coarse, sigma_px / step)
    if step > 1:
        smooth = ndimage.zoom(smooth, step, order=1)
    smooth = smooth[:rows, :cols]
    return np.asarray(smooth / max(1e-6, float(smooth.std())), dtype=np.float32)
