"""The detector plane, and the few shapes that everything is drawn of.

Lengths are in cm; x grows to the right of the picture (the child's left) from the middle, y downwards from the upper
edge. A shape is an array of path lengths through it, float64, shape (rows, cols), cm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

Plane = NDArray[np.float64]
Points = NDArray[np.float64]
"""Places (x, y) along a tube's axis, shape (points, 2)."""
Place = tuple[float, float]

CM_PER_PX = 0.021


class Canvas:
    """A detector of so many pixels."""

    def __init__(self, rows: int, cols: int) -> None:
        self.shape = (rows, cols)
        row, column = np.mgrid[:rows, :cols]
        self.x: Plane = (column + 0.5 - cols / 2) * CM_PER_PX
        self.y: Plane = (row + 0.5) * CM_PER_PX

    def capsule(self, start: Place, end: Place, radius: float) -> Plane:
        """Draw a cylinder with round ends."""
        (x, y), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
        along = np.clip(((self.x - x) * dx + (self.y - y) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        squared = (self.x - x - along * dx) ** 2 + (self.y - y - along * dy) ** 2
        chord: Plane = 2.0 * np.sqrt(np.clip(radius**2 - squared, 0.0, None))
        return chord

    def ellipsoid(self, centre: Place, half_axes: Place, depth: float, turn_deg: float = 0.0) -> Plane:
        """Draw an ellipsoid that is `depth` thick in its middle."""
        turn = np.deg2rad(turn_deg)
        dx, dy = self.x - centre[0], self.y - centre[1]
        u = (dx * np.cos(turn) + dy * np.sin(turn)) / half_axes[0]
        v = (dy * np.cos(turn) - dx * np.sin(turn)) / half_axes[1]
        thickness: Plane = depth * np.sqrt(np.clip(1.0 - u**2 - v**2, 0.0, None))
        return thickness

    def tubes(self, axes: Sequence[tuple[Points, Plane]], radius: float, rim: float) -> Plane:
        """Draw tubes of one radius.

        Parameters
        ----------
        axes : for each tube, places along its axis and the length (cm, in space) that each stands for. Where a tube
            runs along the ray, many places fall on one pixel, and it shows as dense as it is.
        rim : share of the mass in the wall, in [0, 1]; a bone's cortex
        """
        length = np.zeros(self.shape)
        for points, pieces in axes:
            column = np.round(points[:, 0] / CM_PER_PX + self.shape[1] / 2 - 0.5).astype(int)
            row = np.round(points[:, 1] / CM_PER_PX - 0.5).astype(int)
            hit = (column >= 0) & (column < self.shape[1]) & (row >= 0) & (row < self.shape[0])
            np.add.at(length, (row[hit], column[hit]), pieces[hit])
        spread: Plane = signal.fftconvolve(length, _cross_section(radius, rim), mode="same")
        return np.clip(spread, 0.0, None) * np.pi * (radius / CM_PER_PX) ** 2

    def noise(self, chance: np.random.Generator, size_cm: float) -> Plane:
        """Draw smooth noise of mean 0 and standard deviation 1."""
        blurred = soften(chance.standard_normal(self.shape), size_cm)
        scaled: Plane = (blurred - blurred.mean()) / blurred.std()
        return scaled


def soften(plane: Plane, size_cm: float) -> Plane:
    """Blur by a Gaussian."""
    blurred: Plane = ndimage.gaussian_filter(plane, size_cm / CM_PER_PX, mode="nearest", truncate=3.0)
    return blurred


def step(signed_cm: Plane, softness_cm: float) -> Plane:
    """Rise from 0 to 1 where the distance turns positive."""
    rise: Plane = 1.0 / (1.0 + np.exp(np.clip(-signed_cm / softness_cm, -50.0, 50.0)))
    return rise


def _cross_section(radius: float, rim: float) -> Plane:
    """A disc with a dense rim, of mass 1."""
    half = int(np.ceil(radius / CM_PER_PX)) + 3
    row, column = np.mgrid[-half : half + 1, -half : half + 1] * CM_PER_PX
    beyond = np.hypot(row, column) - radius
    disc = np.clip(0.5 - beyond / CM_PER_PX, 0.0, 1.0)
    wall = np.exp(-((beyond / (0.12 * radius + 0.6 * CM_PER_PX)) ** 2))
    section: Plane = (1.0 - rim) * disc / disc.sum() + rim * wall / wall.sum()
    return section
