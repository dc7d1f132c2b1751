"""A heat map: Grad-CAM scaled (Selvaraju et al. 2017), and its weight on whatever grid is laid over the radiograph.

Knows no network, no picture, no threshold of the classifier and no region (`model.regions` makes them). The map has 7
to 32 cells a side.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from cxr_node.domain import Border, Heatmap


def on_grid(heatmap: Heatmap, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Weight of each pixel of a grid over the whole radiograph; as `spread`."""
    return spread(heatmap.cells, heatmap.border, shape)


def peak(heatmap: Heatmap) -> tuple[float, float]:
    """Centre of the hottest cell, as shares of the rows and of the columns of the radiograph, in [0, 1]."""
    place = np.unravel_index(int(np.argmax(heatmap.cells)), heatmap.cells.shape)
    shares = [
        first + (int(at) + 0.5) / size * (1.0 - first - last)
        for at, size, (first, last) in zip(place, heatmap.cells.shape, heatmap.border, strict=True)
    ]
    return shares[0], shares[1]


def spread(cells: NDArray[np.float32], border: Border, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Interpolate between the centres of the cells, bilinearly.

    Parameters
    ----------
    cells : float32, shape (cell rows, cell columns), range [0, 1]
    border : of the radiograph, that has no cells
    shape : rows and columns of the grid

    Returns
    -------
    float32, shape `shape`, range [0, 1]; zeros on the border, which the network never saw
    """
    (rows, columns), (of_rows, of_columns) = shape, border
    down = interpolation(rows, cells.shape[0], of_rows)
    across = interpolation(columns, cells.shape[1], of_columns)
    weight: NDArray[np.float32] = np.clip(down @ cells @ across.T, 0.0, 1.0)  # (rows, columns)
    return weight


@functools.lru_cache(maxsize=32)  # of some sizes of radiographs and of pictures
def interpolation(size_px: int, cells: int, border: tuple[float, float]) -> NDArray[np.float32]:
    """Weights of the cells in each pixel, (size_px, cells): linear between cell centres, 0 on the border."""
    first, last = border
    seen = ((np.arange(size_px) + 0.5) / size_px - first) / (1.0 - first - last)  # in [0, 1] where the network saw
    place = np.clip(seen * cells - 0.5, 0.0, cells - 1.0)
    weights = np.clip(1.0 - np.abs(place[:, None] - np.arange(cells)), 0.0, 1.0)
    weights[(seen < 0.0) | (seen > 1.0)] = 0.0
    kept = weights.astype(np.float32)
    kept.setflags(write=False)
    return kept


LEVELS = 256
"""Steps of a cell's weight: coarser than what the number of threads moves (1e-5), so that it moves no byte."""
SMALLEST_RISE = 1.0
"""In logits: what an image as warm everywhere as at its peak would add. Below it nothing stands out. On 250
radiographs, what was called NORMAL had at most 0.98 (median 0), what was called PNEUMONIA at least 4.4 (median 6)."""


def on_source_grid(active: NDArray[np.float32], shape: tuple[int, ...], border: Border) -> NDArray[np.float32]:
    """Spread an activation over the radiograph: `scaled`, then `spread`; `border` as there."""
    return spread(scaled(active), border, shape)


def scaled(active: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale the peak of an activation to 1.

    Parameters
    ----------
    active : float32, shape (cells, cells) of the feature map, 0 or larger

    Returns
    -------
    float32, the same shape, range [0, 1]. All zeros where nothing raises the logit by `SMALLEST_RISE`.
    """
    peak = float(active.max())
    if peak * active.size < SMALLEST_RISE:
        return np.zeros_like(active, dtype=np.float32)
    stepped: NDArray[np.float32] = (np.round(active / peak * LEVELS) / LEVELS).astype(np.float32)
    return stepped
