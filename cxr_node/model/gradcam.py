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
from cxr_node.heatmap import interpolation, spread

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
    """Spread an activation over the radiograph: `scaled`, then `heatmap.spread`; `border` as there, or one for both."""
    return spread(scaled(active), border if isinstance(border, tuple) else (border, border), shape)


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


def outline(cells: NDArray[np.float32], border: tuple[float, float], shape: tuple[int, ...]) -> tuple[Point, ...]:
    """Trace the region round the peak.

    Parameters
    ----------
    cells, border : the map, as `heatmap.spread` takes them
    shape : rows and columns of the radiograph

    Returns
    -------
    closed polygon of 4 to `MAX_POINTS` corners, the first repeated at the end, within [0, cols] x [0, rows]; empty
    where no place stands out, that is where the map is zero or nowhere below `REGION_CUT` of its peak
    """
    down, across = (interpolation(*each) for each in zip(shape, cells.shape, border, strict=True))  # (pixels, cells)
    top = _peak(down, across, cells)
    step = [max(1, -(-size // CONTOUR_SIZE_PX)) for size in shape]
    first = [place % each for place, each in zip(top, step, strict=True)]  # so that the peak is a sample
    sampled = np.clip(down[first[0] :: step[0]] @ cells @ across[first[1] :: step[1]].T, 0.0, 1.0)
    peak = top[0] // step[0], top[1] // step[1]
    cut = REGION_CUT * float(sampled[peak])
    if cut <= 0.0 or float(sampled.min()) >= cut:
        return ()
    regions, _ = ndimage.label(sampled >= cut)
    alone = np.where((regions == regions[peak]) | (sampled < cut), sampled, 0.0)
    framed = np.pad(alone, 1)  # a region that touches the edge closes there
    lines = contourpy.contour_generator(z=framed, line_type=contourpy.LineType.Separate).lines(cut)
    outermost = max((np.asarray(line) for line in lines), key=_area)  # the others go round holes
    corners = _thinned(outermost) - 1.0  # (points, 2), column and row in samples
    places = corners * step[::-1] + first[::-1] + 0.5  # in pixels as SCOORD counts them
    places = np.clip(places, 0.0, shape[::-1])
    return tuple((float(column), float(row)) for column, row in places)


def _peak(down: NDArray[np.float32], across: NDArray[np.float32], cells: NDArray[np.float32]) -> tuple[int, int]:
    """Row and column of the first pixel where the weight is highest.

    Between the centres of two cells it changes evenly, so that only the outermost pixels there can be higher than
    all their neighbours.
    """
    rows, columns = (_ends(each) for each in (down, across))
    highest = np.argmax(np.clip(down[rows] @ cells @ across[columns].T, 0.0, 1.0))
    row, column = np.unravel_index(int(highest), (len(rows), len(columns)))
    return int(rows[row]), int(columns[column])


def _ends(weights: NDArray[np.float32]) -> NDArray[np.intp]:
    """First and last pixel of each stretch between cell centres: there other cells begin to have a weight."""
    has = weights > 0.0
    changes = np.flatnonzero((has[1:] != has[:-1]).any(axis=1))
    return np.unique(np.concatenate(([0], changes, changes + 1, [len(weights) - 1])))


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
