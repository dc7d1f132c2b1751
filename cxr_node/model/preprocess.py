"""From a radiograph to the network's input: the same function in training and in serving.

One golden array (tests/model/test_preprocess.py) pins it: a change makes every calibration in `weights/` void.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr_node.averaging import Band
from cxr_node.domain import Border
from cxr_node.model import torchxrayvision
from cxr_node.model.profile import Geometry, InputSpec, Margins, Normalisation, Shown

Floats = NDArray[np.float32]

LOW_QUANTILE, HIGH_QUANTILE = 0.02, 0.98
"""Grey values beyond these are clipped: burned-in letters and direct radiation must not set the scale."""
LARGE_PX = 1 << 20
"""From here an image is large; those of training have at most 0.1 megapixels, and stay as they are to the last bit."""
BLANK = 0.03
"""Largest difference of gray, of the whole range, within a row or column in which nothing was recorded: eight steps of
eight bits, for what JPEG leaves of black."""
MOST_BLANK = 1.0 / 3.0
"""Of the rows or columns, at each end: of an image without a film something must be left to refuse."""
_LINES_AT_ONCE = 16
SMALLEST_SPREAD = 1e-4
"""Standard deviation below which an image counts as constant; a sixteenth of a step of 8 bits."""


def prepare(pixels: NDArray[np.float32], spec: InputSpec) -> NDArray[np.float32]:
    """Cut margins and border, average down to the network's grid, standardise; or what TorchXRayVision's expect.

    Parameters
    ----------
    pixels : float32, shape (rows, cols), range [0, 1], larger means more attenuating (MONOCHROME2 sense)
    spec : size of the grid and share of the border to cut

    Returns
    -------
    float32, shape (size_px, size_px), mean 0, standard deviation 1 within the clipped grey values; range
    [-1024, 1024] where the normalisation is XRV

    Notes
    -----
    Each output pixel is a triangle-weighted mean over the source area under it, so that an original of
    3,000 pixels and its small copy give nearly the same input. Bars of a letterbox are 0 and set no scale.
    """
    return _prepared(pixels[_kept(pixels, spec)], spec)


def pictures(pixels: NDArray[np.float32], spec: InputSpec) -> NDArray[np.float32]:
    """Make all pictures of a radiograph that the network sees, as `prepare`: (spec.pictures, side_px, side_px)."""
    whole = pixels[_kept(pixels, spec)]
    shown = np.zeros((spec.pictures, spec.side_px, spec.side_px), dtype=np.float32)
    for place, each in enumerate(spec.of_pictures):
        shown[place, : each.size_px, : each.size_px] = _prepared(whole, each)
    return shown


def _prepared(whole: NDArray[np.float32], spec: InputSpec) -> NDArray[np.float32]:
    """As `prepare`, of a film without its margins."""
    if spec.normalisation is Normalisation.XRV:
        return torchxrayvision.prepare(whole, spec.size_px)
    film: Floats = standardise(cut_and_resize(whole, spec)[None])[0]  # (rows, cols) of the grid that the film takes
    if film.shape == (spec.size_px, spec.size_px):
        return film
    canvas = np.zeros((spec.size_px, spec.size_px), dtype=np.float32)
    canvas[_centred(film.shape, spec.size_px)] = film
    return canvas


def borders(pixels: NDArray[np.float32], spec: InputSpec) -> Border:
    """What of a radiograph `prepare` leaves out, or adds as bars."""
    kept = _kept(pixels, spec)
    sides = zip(kept, pixels.shape, _evenly(pixels[kept].shape, spec), strict=True)
    rows, cols = (
        ((each.start + share * _length(each)) / side, 1.0 - (each.stop - share * _length(each)) / side)
        for each, side, share in sides
    )
    return rows, cols


def _length(part: slice) -> int:
    return int(part.stop - part.start)


def _evenly(shape: tuple[int, ...], spec: InputSpec) -> tuple[float, float]:
    """Share of a film's rows, and of its columns, that is left out at both ends; negative: added as a bar."""
    if spec.geometry is Geometry.LETTERBOX:
        rows, cols = _taken(shape, spec)
        return (rows - spec.size_px) / (2 * rows), (cols - spec.size_px) / (2 * cols)
    if spec.normalisation is Normalisation.STANDARDISED:
        return spec.border, spec.border
    top, left, _ = torchxrayvision.square(shape)
    return top / shape[0], left / shape[1]


def _kept(pixels: NDArray[np.float32], spec: InputSpec) -> tuple[slice, slice]:
    if spec.margins is Margins.CUT:
        return film(pixels)
    rows, cols = (slice(0, side) for side in pixels.shape)
    return rows, cols


def film(pixels: NDArray[np.float32]) -> tuple[slice, slice]:
    """Find where something was recorded: the rows and columns between edges of one gray.

    Such edges are what a console, a film scanner or an export has added, and differ from hospital to hospital.

    Parameters
    ----------
    pixels : float32, shape (rows, cols), range [0, 1]
    """
    rows = _recorded(pixels)
    return rows, _recorded(pixels[rows].T)


def _recorded(lines: NDArray[np.float32]) -> slice:
    most = int(len(lines) * MOST_BLANK)
    return slice(_blank(lines[:most]), len(lines) - _blank(lines[::-1][:most]))


def _blank(lines: NDArray[np.float32]) -> int:
    """Count the first lines of one gray; some at a time and copied, because the pixels of a column lie far apart."""
    for first in range(0, len(lines), _LINES_AT_ONCE):
        some = np.ascontiguousarray(lines[first : first + _LINES_AT_ONCE])
        recorded = np.ptp(some, axis=1) > BLANK
        if recorded.any():
            return first + int(recorded.argmax())
    return len(lines)


def _taken(shape: tuple[int, ...], spec: InputSpec) -> tuple[int, int]:
    """Rows and columns of the grid that a film takes; a bar is as broad as the one opposite."""
    if spec.geometry is Geometry.SQUASHED:
        return spec.size_px, spec.size_px
    size, longest = spec.size_px, max(shape)
    rows, cols = (max(size % 2 + 2, size - 2 * round(size * (1.0 - side / longest) / 2.0)) for side in shape)
    return rows, cols


def _centred(taken: tuple[int, ...], size_px: int) -> tuple[slice, slice]:
    rows, cols = (slice((size_px - side) // 2, (size_px + side) // 2) for side in taken)
    return rows, cols


def _film(prepared: Floats) -> tuple[slice, slice]:
    """Find the rows and columns between the bars: nothing but a bar is 0 to the last bit from edge to edge."""
    shown = prepared != 0.0
    ends = []
    for axis in (1, 0):
        there = np.flatnonzero(shown.any(axis=axis))
        ends.append(slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, prepared.shape[1 - axis]))
    return ends[0], ends[1]


def cut_and_resize(pixels: NDArray[np.float32], spec: InputSpec) -> NDArray[np.float32]:
    """`prepare` without margins, standardisation and bars: float32, (rows, cols) that the film takes, range [0, 1].

    Large images are averaged here with the weights that Pillow computes for its filter: it would copy them, and take
    four times as long. A test holds both to the same numbers.
    """
    taken = _taken(pixels.shape, spec)
    if pixels.size >= LARGE_PX:
        down, across = (_triangles(*sizes, spec.border) for sizes in zip(pixels.shape, taken, strict=True))
        return across.across(down.down(pixels))
    rows, cols = pixels.shape
    kept = (spec.border * cols, spec.border * rows, (1.0 - spec.border) * cols, (1.0 - spec.border) * rows)
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
    resized = image.resize(taken[::-1], Image.Resampling.BILINEAR, box=kept)
    return np.array(resized, dtype=np.float32)


@functools.lru_cache(maxsize=16)  # a detector has one size, a hospital a few
def _triangles(size: int, size_px: int, border: float) -> Band:
    """Weigh each source pixel for each pixel of the grid along one side, (size_px, size): Pillow's BILINEAR.

    A triangle round the middle of what the pixel covers, as broad as two of them, or as two source pixels.
    """
    start, stop = (np.float32(share * size) for share in (border, 1.0 - border))
    step = float(stop - start) / size_px
    half = max(step, 1.0)
    middles = start + (np.arange(size_px) + 0.5) * step
    firsts, ends = np.maximum(middles - half + 0.5, 0.0).astype(np.intp), np.minimum(middles + half + 0.5, size)
    places = firsts[:, None] + np.arange(int(np.ceil(half)) * 2 + 1)  # (size_px, at most so many)
    weights = np.maximum(1.0 - np.abs(places - middles[:, None] + 0.5) / half, 0.0)
    weights[places >= ends.astype(np.intp)[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    grid, tap = np.nonzero(weights)
    return Band(grid, places[grid, tap], weights[grid, tap].astype(np.float32))


def standardise(images: Floats) -> Floats:
    """Clip each image to its central grey values and scale it to mean 0 and standard deviation 1.

    Parameters
    ----------
    images : float32, shape (batch, rows, cols), any range

    Returns
    -------
    float32, the same shape. A constant image becomes zeros.

    Notes
    -----
    The quantiles are taken on 2 x 2 means: noise and single bright pixels do not move them.
    """
    rows, cols = (side // 2 * 2 for side in images.shape[1:])
    even = images[:, :rows, :cols]
    means = (even[:, ::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, ::2] + even[:, 1::2, 1::2]) * np.float32(0.25)
    ordered = np.sort(
        means.reshape(len(images), -1), axis=1
    )  # numpy's quantile of 9,216 values takes four times as long
    low, high = (_quantile(ordered, share) for share in (LOW_QUANTILE, HIGH_QUANTILE))
    clipped = np.clip(images, low[:, None, None], high[:, None, None])
    centred = clipped - clipped.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    spread = np.sqrt(np.square(centred).mean(axis=(1, 2), keepdims=True, dtype=np.float64)).astype(np.float32)
    return np.asarray(centred / np.maximum(spread, np.float32(SMALLEST_SPREAD)), dtype=np.float32)


def _quantile(ordered: Floats, share: float) -> Floats:
    """Take a quantile of each sorted row, linear between neighbours: (batch, values) -> (batch,)."""
    place = share * (ordered.shape[1] - 1)
    below = int(place)
    above = min(below + 1, ordered.shape[1] - 1)
    return np.asarray(ordered[:, below] + (ordered[:, above] - ordered[:, below]) * np.float32(place - below))


def views(prepared: Floats, spec: InputSpec) -> Floats:
    """Show an image in the ways that must not change its meaning; the first is the image itself.

    Parameters
    ----------
    prepared : float32, shape (spec.pictures, side_px, side_px), as `pictures` returns it; bars of a letterbox stay bars
    spec : how it was prepared, and which views; they are brought to the same range

    Returns
    -------
    float32, shape (len(spec.views), spec.pictures, side_px, side_px)
    """
    shown = np.zeros((len(spec.views), *prepared.shape), dtype=np.float32)
    for place, each in enumerate(spec.of_pictures):
        side = slice(each.size_px)
        shown[:, place, side, side] = _views(np.ascontiguousarray(prepared[place, side, side]), each)
    return shown


def _views(prepared: Floats, spec: InputSpec) -> Floats:
    """As `views`, of one picture: (size_px, size_px) -> (views, size_px, size_px)."""
    if spec.normalisation is Normalisation.XRV:
        changes = {Shown.CLOSER: _closer, Shown.BLURRED: _blurred, Shown.BRIGHTER: _brighter_xrv}
        return np.stack([prepared, *(changes[view](prepared) for view in spec.views[1:])])
    changes = {Shown.CLOSER: _closer, Shown.BLURRED: _blurred, Shown.BRIGHTER: _brighter}
    place = _film(prepared)
    film = prepared[place]
    shown = np.zeros((len(spec.views), *prepared.shape), dtype=np.float32)
    shown[0] = prepared
    shown[1:, place[0], place[1]] = standardise(np.stack([changes[view](film) for view in spec.views[1:]]))
    return shown


def _closer(image: Floats) -> Floats:
    """Cut 4 % off each side and enlarge the rest, bilinearly."""
    rows, cols = image.shape
    down, across = round(0.04 * rows), round(0.04 * cols)
    inner = image[down : rows - down, across : cols - across]
    closer = _enlarging(len(inner), rows) @ inner @ _enlarging(inner.shape[1], cols).T
    return np.asarray(closer, dtype=np.float32)


@functools.cache
def _enlarging(before: int, after: int) -> Floats:
    """Weights of the old samples in each new one, (after, before): linear between the samples' centres."""
    place = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0.0, before - 1.0)
    return np.asarray(np.clip(1.0 - np.abs(place[:, None] - np.arange(before)), 0.0, 1.0).astype(np.float32))


def _blurred(image: Floats) -> Floats:
    padded = np.pad(image, 1, mode="edge")
    down = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray((down[:, :-2] + down[:, 1:-1] + down[:, 2:]) / np.float32(9.0), dtype=np.float32)


def _brighter(image: Floats) -> Floats:
    low, high = image.min(), image.max()
    reach = max(high - low, np.float32(SMALLEST_SPREAD))
    return np.asarray(((image - low) / reach) ** np.float32(0.8))


def _brighter_xrv(image: Floats) -> Floats:
    reach = np.float32(torchxrayvision.REACH)
    return np.asarray(((image / reach + 1.0) / 2.0) ** np.float32(0.8) * 2.0 * reach - reach)
