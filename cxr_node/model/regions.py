"""Regions of a heat map: every place that stands out, and in which lung field it lies.

The map runs over the spine from one lung into the other on most films; a region must say which lung the network looked
at. So what reaches into both is cut at the mediastinum, and what reaches beyond the lungs at the rib cage. What has its
peak outside the chest stays: that the network looked at a letter must be seen. Where no lungs are found, nothing is cut
and no place is named. Pixels are counted as SCOORD does (PS3.3 C.18.6.1.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import contourpy
import numpy as np
from numpy.typing import NDArray

from cxr_node.domain import Border, Place, Point, Region, Zone
from cxr_node.heatmap import interpolation
from cxr_node.model.lungs import MARGIN, Thorax

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

REGION_CUT = 0.7
"""A region is what reaches this share of the map's peak. Measured by `tools/heatmap_regions.py` on films that are
called PNEUMONIA, 1016 of children and 247 of adults. Outlines of half the peak, not cut, take 21 and 13 % of the
film, reach into both lungs on 88 and 63 % of them, and lie in the lungs by 64 and 62 % of their area. Those of 0.7,
cut: 8 and 5 %, 1 and 1 %, 87 and 84 %. 70 % of their area (54 % before) lies in the radiologists' boxes of the
adults, of which they touch 79 %; those of 0.8 touch 69 %."""
MEDIASTINUM = 0.16
"""Half of its width, of the half width of the thorax: spine and hila, not the heart, for lungs lie behind that."""
OUTSIDE, ABOVE = 0.25, 0.15
"""In half widths of the thorax, from the chest: a peak farther out lies outside; but not one between the walls that is
nearer than this to the apex, in heights of the thorax: where a film cuts off an apex, the thorax is found too low."""
STEEPNESS = 2.0
"""Weight for a half width of the thorax: as steep as the map itself falls, so that cut edges are smooth."""
SMALLEST_CELLS = 0.1
"""Smaller pieces of a cut region are chips; in cells of the map. What was not cut is kept however small."""
ZONE_ENDS = (0.32, 0.62)
"""Upper and middle zone end so far down the thorax; lungs end at 0.85 to 1 of it."""
ZONE_SHARE = 0.25
"""Of a region's area, from which a zone counts as covered; the one with the peak always does."""
MAX_POINTS = 60
"""Corners of an outline; a contour of a 7 x 7 map has fewer bends."""
CONTOUR_SIZE_PX = 192
"""Long side of the grid on which the contour is traced: the map itself has 7 to 32 cells a side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sampled:
    """A map on a grid that is fine enough, and coarse enough to be quick.

    Attributes
    ----------
    weight : float32, shape (rows, cols), range [0, 1]
    first, step : row and column of the first sample in the radiograph, and the distance to the next, in pixels
    shape : rows and columns of the radiograph
    cell : samples to a cell of the map
    """

    weight: Floats
    first: tuple[int, int]
    step: tuple[int, int]
    shape: tuple[int, int]
    cell: float

    def points(self, samples: NDArray[np.float64]) -> tuple[Point, ...]:
        """Places in pixels, as SCOORD counts them, of centres of samples; both column and row, shape (points, 2)."""
        pixels = samples * self.step[::-1] + self.first[::-1] + 0.5
        return tuple((column, row) for column, row in np.clip(pixels, 0.0, self.shape[::-1]).tolist())

    def shares(self, axis: int) -> Floats:
        """Places of the samples along an axis, as shares of the radiograph's side."""
        count = self.weight.shape[axis]
        centres = np.arange(count, dtype=np.float32) * self.step[axis] + np.float32(self.first[axis] + 0.5)
        return centres / np.float32(self.shape[axis])


@dataclass(frozen=True, slots=True)
class _Lungs:
    """The thorax on the grid of the samples: `u`, `v` and `depth` as `Thorax.own` returns them."""

    u: Floats
    v: Floats
    depth: Floats

    def fields(self, window: tuple[slice, slice], margin: float) -> tuple[tuple[Place, Floats], ...]:
        """How deep each sample lies inside either lung field with a margin, in half widths; negative outside."""
        inside, u = self.depth[window] + np.float32(margin), self.u[window]
        return (
            (Place.PICTURE_LEFT, np.minimum(inside, -u - np.float32(MEDIASTINUM))),
            (Place.PICTURE_RIGHT, np.minimum(inside, u - np.float32(MEDIASTINUM))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """What gets an outline, in a window of the samples.

    Attributes
    ----------
    window : rows and columns of the samples
    rise : float32, shape of the window: 0 on the outline, larger inside
    inside : bool, the same shape
    place : the lung field; None where no lungs were found
    """

    window: tuple[slice, slice]
    rise: Floats
    inside: Bools
    place: Place | None


def regions(
    cells: Floats,
    border: Border,
    shape: tuple[int, ...],
    thorax: Thorax | None,
    share: float = REGION_CUT,
) -> tuple[Region, ...]:
    """Outline every place that stands out, the hottest first.

    Parameters
    ----------
    cells, border : the map, as `heatmap.spread` takes them
    shape : rows and columns of the radiograph
    thorax : where the lungs are; None, or one that is not found: regions are not cut, and have no place
    share : of the map's peak, that a region reaches

    Returns
    -------
    Regions with closed polygons of 4 to `MAX_POINTS` corners within [0, cols] x [0, rows]; none where no place stands
    out, that is where the map is zero or nowhere below that share of its peak
    """
    sampled = _sample(cells, border, shape)
    cut = np.float32(share) * sampled.weight.max()
    if cut <= 0.0 or sampled.weight.min() >= cut:
        return ()
    lungs = None
    if thorax is not None and thorax.is_found:
        lungs = _Lungs(*thorax.own(sampled.shares(1), sampled.shares(0)))
    found = [_region(piece, sampled, lungs) for piece in _pieces(sampled.weight - cut, sampled.cell, lungs)]
    return tuple(sorted(found, key=lambda region: -region.weight))  # stable: of equal ones the upper first


def _sample(cells: Floats, border: Border, shape: tuple[int, ...]) -> _Sampled:
    """Look at the map in steps, such that its peak is a sample."""
    down, across = (interpolation(*each) for each in zip(shape, cells.shape, border, strict=True))  # (pixels, cells)
    top = _peak(down, across, cells)
    step = (max(1, -(-shape[0] // CONTOUR_SIZE_PX)), max(1, -(-shape[1] // CONTOUR_SIZE_PX)))
    first = (top[0] % step[0], top[1] % step[1])
    weight: Floats = np.clip(down[first[0] :: step[0]] @ cells @ across[first[1] :: step[1]].T, 0.0, 1.0)
    return _Sampled(weight=weight, first=first, step=step, shape=(shape[0], shape[1]), cell=weight.size / cells.size)


def _pieces(rise: Floats, cell: float, lungs: _Lungs | None) -> Iterator[_Piece]:
    """Yield what is outlined.

    rise : float32, shape (rows, cols): weight less the cut
    """
    from scipy import ndimage  # 0.2 s, where an outline is wanted

    parts, _ = ndimage.label(rise >= 0.0)
    for part, box in enumerate(ndimage.find_objects(parts), 1):
        window = (_wider(box[0]), _wider(box[1]))
        inside = parts[window] == part
        alone = np.where(inside | (rise[window] < 0.0), rise[window], -1.0)
        if lungs is None:
            yield _Piece(window=window, rise=alone, inside=inside, place=None)
            continue
        place, depth = _place_of(alone, window, lungs)
        fields = () if place is Place.OUTSIDE else lungs.fields(window, MARGIN if depth >= -MARGIN else np.inf)
        within = list(_in_fields(alone, window, cell, fields))
        yield from within or [_Piece(window=window, rise=alone, inside=inside, place=place)]


def _wider(side: slice) -> slice:
    """One sample more on either side: there the outline runs."""
    return slice(max(0, side.start - 1), side.stop + 1)


def _in_fields(
    alone: Floats, window: tuple[slice, slice], cell: float, fields: tuple[tuple[Place, Floats], ...]
) -> Iterator[_Piece]:
    """Cut one connected part at the lung fields; several pieces where it bends out of one and in again."""
    from scipy import ndimage

    for place, depth in fields:
        cut = np.minimum(alone, np.float32(STEEPNESS) * depth)
        parts, count = ndimage.label(cut >= 0.0)
        whole = count == 1 and bool((depth[alone >= 0.0] >= 0.0).all())
        for part in range(1, count + 1):
            inside = parts == part
            if whole or np.count_nonzero(inside) >= SMALLEST_CELLS * cell:
                rise = np.where(inside | (cut < 0.0), cut, -1.0)
                yield _Piece(window=window, rise=rise, inside=inside, place=place)


def _place_of(alone: Floats, window: tuple[slice, slice], lungs: _Lungs) -> tuple[Place, float]:
    """Tell where the peak of a part lies, and how deep in the chest."""
    peak = np.unravel_index(int(alone.argmax()), alone.shape)
    across, down, depth = (float(each[window][peak]) for each in (lungs.u, lungs.v, lungs.depth))
    if depth < -OUTSIDE and not (abs(across) < 1.0 and -ABOVE <= down < 0.5):
        return Place.OUTSIDE, depth
    if abs(across) < MEDIASTINUM:
        return Place.BETWEEN, depth
    return Place.PICTURE_LEFT if across < 0.0 else Place.PICTURE_RIGHT, depth


def _region(piece: _Piece, sampled: _Sampled, lungs: _Lungs | None) -> Region:
    weight = np.where(piece.inside, sampled.weight[piece.window], -1.0)
    row, column = (int(at) for at in np.unravel_index(int(weight.argmax()), weight.shape))
    corner = np.array([piece.window[1].start, piece.window[0].start], dtype=np.float64)
    (peak,) = sampled.points(np.array([[column, row]]) + corner)
    zones: tuple[Zone, ...] = ()
    if lungs is not None and piece.place in (Place.PICTURE_LEFT, Place.PICTURE_RIGHT):
        heights = lungs.v[piece.window]
        zones = _zones(heights[piece.inside], float(heights[row, column]))
    return Region(
        outline=sampled.points(_traced(piece.rise) + corner),
        peak=peak,
        weight=float(weight[row, column]),
        place=piece.place,
        zones=zones,
    )


def _zones(heights: Floats, peak: float) -> tuple[Zone, ...]:
    counts = np.bincount(np.searchsorted(ZONE_ENDS, heights, side="right"), minlength=len(Zone))
    of_peak = int(np.searchsorted(ZONE_ENDS, peak, side="right"))
    return tuple(
        zone for at, zone in enumerate(Zone) if at == of_peak or counts[at] >= ZONE_SHARE * max(len(heights), 1)
    )


def _traced(rise: Floats) -> NDArray[np.float64]:
    """Trace where a rise is 0, the outermost line only; shape (points, 2), column and row in samples."""
    framed = np.pad(rise, 1, constant_values=-1.0)  # a region that touches the edge closes there
    lines = contourpy.contour_generator(z=framed, line_type=contourpy.LineType.Separate).lines(0.0)
    outermost = max((np.asarray(line) for line in lines), key=_area)  # the others go round holes
    return _thinned(outermost) - 1.0


def _peak(down: Floats, across: Floats, cells: Floats) -> tuple[int, int]:
    """Row and column of the first pixel where the weight is highest.

    Between the centres of two cells it changes evenly, so that only the outermost pixels there can be higher than
    all their neighbours.
    """
    rows, columns = (_ends(each) for each in (down, across))
    highest = np.argmax(np.clip(down[rows] @ cells @ across[columns].T, 0.0, 1.0))
    row, column = np.unravel_index(int(highest), (len(rows), len(columns)))
    return int(rows[row]), int(columns[column])


def _ends(weights: Floats) -> NDArray[np.intp]:
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
