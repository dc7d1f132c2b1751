"""Stored values to what the eye sees: Modality LUT, VOI LUT, Presentation LUT, as one table over stored values.

Knows no pixels, only how often each stored value occurs: a table of at most 65,536 entries costs the same for a
thumbnail and for 9 megapixels. PS3.3 C.11.1 (modality), C.11.2 (VOI), C.11.6 (presentation), C.7.6.3.1.2.

Where PS3.3 leaves the choice: a VOI LUT is preferred to a window (C.11.2.1 calls them alternatives; the curve is
the one that the modality's own console applies), and of several of either the first is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian

from cxr_node.dicom.header import Source
from cxr_node.errors import UndecodableError

Values = NDArray[np.float64]
Counts = NDArray[np.int64]
Tally = Callable[[int], Counts]
"""How many pixels of every so many-th row have each stored value, padding not counted."""

ROBUST_RANGE = (0.005, 0.995)
"""Shares of the pixels between which an image without VOI window is shown: side markers and dead pixels lie outside."""
MIN_CONTRAST = 0.05
"""Of the full range, between the 1st and 99th percentile: a window that leaves less shows nothing of the image."""
MIN_LEVELS = 32
"""Stored values between those percentiles below which there is nothing to stretch but noise."""
PART = 8
"""Every so many-th row is counted first: what that proves of nearly every window costs an eighth."""
DISPLAY_BITS = 8
"""Images of so many bits were windowed when they were made: without VOI their whole range is shown."""

_NO_VOI = "The header gives no VOI window: the image was shown over its own range of values."
_USELESS_VOI = "The VOI window of the header does not fit the image: it was shown over its own range of values."


@dataclass(frozen=True, slots=True)
class Shown:
    """What each stored value looks like.

    Attributes
    ----------
    table : float64, shape (stored values,), range [0, 1], MONOCHROME2 sense
    remarks : what a reader must know of the choice
    """

    table: Values
    remarks: tuple[str, ...] = ()


def show(source: Source, stored: Values, tally: Tally) -> Shown:
    """Apply the gray scale of the header to every possible stored value.

    Parameters
    ----------
    stored : the stored values, ascending by bit pattern, shape (n,)
    tally : counts how many pixels have each of them, padding not counted; answers shape (n,)

    Raises
    ------
    UndecodableError : the modality transformation is there but cannot be read.
    """
    values = _modality(source, stored)
    table, remarks = _voi(source, values, tally)
    if source.text("PhotometricInterpretation") == "MONOCHROME1" or source.text("PresentationLUTShape") == "INVERSE":
        table = 1.0 - table  # once: for MONOCHROME1 both say the same thing (C.11.6.1.2)
    return Shown(table, remarks)


def _modality(source: Source, stored: Values) -> Values:
    """Rescale or look up (C.11.1); Rescale Slope 0 is no transformation, and ignored."""
    for item in source.dataset.get("ModalityLUTSequence") or ():
        lut = read_lut(item, source)
        if lut is None:
            raise UndecodableError("The Modality LUT of the header cannot be read.")
        first, entries, _ = lut
        return entries[_positions(stored, first, len(entries))]
    slope = next(iter(source.numbers("RescaleSlope")), 1.0)
    intercept = next(iter(source.numbers("RescaleIntercept")), 0.0)
    usable = np.isfinite(slope) and np.isfinite(intercept) and slope != 0.0
    return stored * slope + intercept if usable else stored


def _voi(source: Source, values: Values, tally: Tally) -> tuple[Values, tuple[str, ...]]:
    stated = _voi_lut(source, values)
    if stated is None:
        stated = _window(source, values)
    pixels = source.integer("Rows") * source.integer("Columns")
    if stated is not None and _least_contrast(stated, tally(PART), pixels) >= MIN_CONTRAST:
        return stated, ()
    counts = tally(1)
    if stated is not None and (_contrast(stated, counts) >= MIN_CONTRAST or _levels(values, counts) < MIN_LEVELS):
        return stated, ()
    if stated is None and source.integer("BitsStored") == DISPLAY_BITS:
        return _between(values, float(values.min()), float(values.max())), ()
    low, high = _quantiles(values, counts, ROBUST_RANGE)
    return _between(values, low, high), (_NO_VOI if stated is None else _USELESS_VOI,)


def _voi_lut(source: Source, values: Values) -> Values | None:
    """First item of VOI LUT Sequence (C.11.2.1.1), scaled by the bits of its entries; None if there is none."""
    for item in source.dataset.get("VOILUTSequence") or ():
        lut = read_lut(item, source)
        if lut is None:
            return None
        first, entries, bits = lut
        if first > 0x7FFF and values.min() < 0:  # written as US, meant as SS
            first -= 0x10000
        top = max((1 << bits) - 1.0, float(entries.max()))
        return entries[_positions(values, first, len(entries))] / top if top > 0 else None
    return None


def _window(source: Source, values: Values) -> Values | None:
    """First window (C.11.2.1.2, C.11.2.1.3); None if there is none or its width is not allowed."""
    centers, widths = source.numbers("WindowCenter"), source.numbers("WindowWidth")
    if not centers or not widths or not np.isfinite([centers[0], widths[0]]).all():
        return None
    center, width = centers[0], widths[0]
    function = source.text("VOILUTFunction").upper() or "LINEAR"
    if width < 1 and (function == "LINEAR" or width <= 0):
        return None
    if function == "SIGMOID":
        exponent = np.clip(-4.0 * (values - center) / width, -700.0, 700.0)  # exp overflows beyond
        return np.asarray(1.0 / (1.0 + np.exp(exponent)))
    if function == "LINEAR_EXACT":
        return _between(values, center - width / 2, center + width / 2)
    return _between(values, center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2)


def _between(values: Values, low: float, high: float) -> Values:
    """0 up to `low`, 1 above `high`, straight between; a step where they are the same."""
    if high <= low:
        return (values > low).astype(np.float64)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def read_lut(item: Dataset, source: Source) -> tuple[int, Values, int] | None:
    """First value mapped, entries and bits of an entry (C.11.1.1.1); None where they do not fit together."""
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if descriptor is None or data is None or len(descriptor) != 3:
        return None
    count, first, bits = (int(part) for part in descriptor)
    count = count & 0xFFFF or 0x10000
    if isinstance(data, bytes):
        order = ">" if source.ref.transfer_syntax_uid == ExplicitVRBigEndian else "<"
        entries = np.frombuffer(data, "u1" if len(data) - count in (0, 1) else f"{order}u2", -1)
    else:
        entries = np.atleast_1d(np.asarray(data)) & 0xFFFF
    if len(entries) < count or not 1 <= bits <= 16:
        return None
    signed = source.integer("PixelRepresentation") == 1
    return first - 0x10000 if signed and first > 0x7FFF else first, entries[:count].astype(np.float64), bits


def _positions(values: Values, first: int, count: int) -> NDArray[np.intp]:
    """Entry of each value; values before the first and after the last take those (C.11.1.1.1)."""
    return np.clip(np.round(values - first), 0, count - 1).astype(np.intp)


def _quantiles(values: Values, counts: Counts, shares: tuple[float, float]) -> tuple[float, float]:
    """Values below which the given shares of the pixels lie."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(counts[order])
    low, high = np.searchsorted(reached, [share * reached[-1] for share in shares])
    last = len(order) - 1
    return float(values[order[min(low, last)]]), float(values[order[min(high, last)]])


def _contrast(table: Values, counts: Counts) -> float:
    low, high = _quantiles(table, counts, (0.01, 0.99))
    return high - low


def _least_contrast(table: Values, part: Counts, pixels: int) -> float:
    """What the contrast is at least, as a part of the pixels proves.

    Where the part alone has as many pixels so dark, or so bright, as are a hundredth of all, the percentile of all
    lies there or beyond.
    """
    order = np.argsort(table, kind="stable")
    reached = np.cumsum(part[order])
    enough = 0.01 * pixels + 1
    if reached[-1] < enough:
        return 0.0
    low, high = np.searchsorted(reached, enough), np.searchsorted(reached, reached[-1] - enough, side="right")
    return float(table[order[high]] - table[order[low]])


def _levels(values: Values, counts: Counts) -> int:
    """How many different values that occur lie between the 1st and 99th percentile."""
    low, high = _quantiles(values, counts, (0.01, 0.99))
    return int(np.count_nonzero((counts > 0) & (values >= low) & (values <= high)))
