"""Where the network looked: Grad-CAM (Selvaraju et al. 2017) on the source pixel grid, and a region from it.

Knows no network (`Network.activation` makes the map), no file, no threshold of the classifier and no DICOM but how
SCOORD counts pixels (PS3.3 C.18.6.1.1).
"""

from __future__ import annotations

import contourpy
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cxr_node.domain import Point

REGION_CUT = 0.5
"""A region is what reaches this share of the peak: full width at half maximum, the usual size of a blurred spot."""
MAX_POINTS = 60
"""Corners of an outline; a contour of a 7 x 7 map has fewer bends."""
CONTOUR_SIZE_PX = 256
"""Long side of the grid on which the contour is traced: the map itself has 7 to 32 cells a side."""
LEVELS = 256
"""Steps of a cell's weight: coarser than what the number of threads moves (1e-5), so that it moves no byte."""
SMALLEST_RISE = 1.0
"""In logits: what an image as warm everywhere as at its peak would add. Below it nothing stands out. On 250
radiographs, what was called NORMAL had at most 0.98 (median 0), what was called PNEUMONIA at least 4.4 (median 6)."""


def on_source_grid(
    active: NDArray[np.float32], shape: tuple[int, int], border: float | tuple[float, float]
) -> NDArray[np.float32]:
    """Spread an activation over the radiograph, bilinearly, and scale its peak to 1.

    Parameters
    ----------
    active : float32, shape (cells, cells) of the feature map, 0 or larger
    shape : rows and columns of the radiograph
    border : share that preprocessing cut from each side, of rows and of columns alike or of either, in [0, 0.5)

    Returns
    -------
    float32, shape `shape`, range [0, 1]. All zeros where nothing raises the logit by `SMALLEST_RISE`, and zeros on
    the border, which the network never saw.
    """
    peak = float(active.max())
    if peak * active.size < SMALLEST_RISE:
        return np.zeros(shape, dtype=np.float32)
    of_rows, of_cols = border if isinstance(border, tuple) else (border, border)
    down = _interpolation(shape[0], active.shape[0], of_rows)  # (rows, cells)
    across = _interpolation(shape[1], active.shape[1], of_cols)  # (cols, cells)
    stepped = np.round(active / peak * LEVELS) / LEVELS  # (cells, cells)
    weight = down @ stepped.astype(np.float32) @ across.T  # (rows, cols)
    clipped: NDArray[np.float32] = np.clip(weight, 0.0, 1.0)
    return clipped


def outline(weight: NDArray[np.float32]) -> tuple[Point, ...]:
    """Trace the region round the peak.

    Parameters
    ----------
    weight : float32, shape (rows, cols), range [0, 1], smooth (it is sampled every so many pixels)

    Returns
    -------
    closed polygon of 4 to `MAX_POINTS` corners, the first repeated at the end, within [0, cols] x [0, rows]; empty
    where no place stands out, that is where the map is zero or nowhere below `REGION_CUT` of its peak
    """
    top = np.unravel_index(int(np.argmax(weight)), weight.shape)
    cut = REGION_CUT * float(weight[top])
    step = [max(1, -(-size // CONTOUR_SIZE_PX)) for size in weight.shape]
    first = [int(place) % each for place, each in zip(top, step, strict=True)]  # so that the peak is a sample
    sampled = weight[first[0] :: step[0], first[1] :: step[1]]
    if cut <= 0.0 or float(sampled.min()) >= cut:
        return ()
    regions, _ = ndimage.label(sampled >= cut)
    around_peak = regions == regions[top[0] // step[0], top[1] // step[1]]
    alone = np.where(around_peak | (sampled < cut), sampled, 0.0)
    framed = np.pad(alone, 1)  # a region that touches the edge closes there
    lines = contourpy.contour_generator(z=framed, line_type=contourpy.LineType.Separate).lines(cut)
    outermost = max((np.asarray(line) for line in lines), key=_area)  # the others go round holes
    corners = _thinned(outermost) - 1.0  # (points, 2), column and row in samples
    places = corners * step[::-1] + first[::-1] + 0.5  # in pixels as SCOORD counts them
    places = np.clip(places, 0.0, weight.shape[::-1])
    return tuple((float(column), float(row)) for column, row in places)


def _interpolation(size_px: int, cells: int, border: float) -> NDArray[np.float32]:
    """Weights of the cells in each pixel, (size_px, cells): linear between cell centres, 0 on the border."""
    seen = ((np.arange(size_px) + 0.5) / size_px - border) / (1.0 - 2.0 * border)  # in [0, 1] where the network saw
    place = np.clip(seen * cells - 0.5, 0.0, cells - 1.0)
    weights = np.clip(1.0 - np.abs(place[:, None] - np.arange(cells)), 0.0, 1.0)
    weights[(seen < 0.0) | (seen > 1.0)] = 0.0
    return weights.astype(np.float32)


def _thinned(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most `MAX_POINTS` points, evenly along the closed line."""
    if len(line) <= MAX_POINTS:
        return line
    along = np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))))
    places = np.linspace(0.0, along[-1], MAX_POINTS)
    thin = np.column_stack([np.interp(places, along, line[:, axis]) for axis in (0, 1)])
    thin[-1] = thin[0]
    return thin


def _area(line: NDArray[np.float64]) -> float:
    column, row = line.T
    return 0.5 * abs(float(column[:-1] @ row[1:] - column[1:] @ row[:-1]))
