"""Stored values to what the eye sees: Modality LUT, VOI LUT, Presentation LUT, as one table over stored values.

A table of at most 65,536 entries costs the same for a thumbnail and for 9 megapixels. A VOI LUT is preferred to a
window (C.11.2.1 calls them alternatives; the curve is what the modality's console applies), and of several of either
the first is used that shows something. PS3.3 C.11.1 (modality), C.11.2 (VOI), C.11.6 (presentation), C.7.6.3.1.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRBigEndian

from cxr_node.dicom.read.header import Source
from cxr_node.domain import Voi
from cxr_node.errors import UndecodableError

Values = NDArray[np.float64]
Counts = NDArray[np.int64]
Tally = Callable[[int], Counts]
"""How many pixels of every so many-th row have each stored value, padding not counted."""

ROBUST_RANGE = (0.005, 0.995)
"""Shares of the pixels between which an image without VOI window is shown: side markers and dead pixels lie outside."""
MIN_CONTRAST = 0.25
"""Of the full range, between the 1st and 99th percentile: what leaves less is one dark or bright shade to the eye.
Twelve bits in a window made for sixteen have 0.06, for fourteen 0.22; films in a window of their own 0.7 and more."""
MAX_BLACK_OR_WHITE = 0.85
"""Share of the pixels that may be black or white on a screen: what `admission` refuses, but by a window's fault."""
MIN_SHADES = 16
"""Of the 256 of a screen: a step, or a window as narrow as ten values, leaves fewer."""
MIN_LEVELS = 32
"""Stored values between those percentiles below which there is nothing to stretch but noise."""
PART = 8
"""Every so many-th row is counted first: what that proves of nearly every window costs an eighth."""
DISPLAY_BITS = 8
"""Images of so many bits were windowed when they were made: without VOI their whole range is shown."""

_SHADES = 256
_HAIR = 1.02
_NO_VOI = "The header gives no VOI window; the image was shown over its full range of values."
_USELESS_VOI = "The VOI window in the header does not fit the image; it was shown over its full range of values."
_OTHER_VOI = "The first VOI window in the header does not fit the image; it was shown with another one from the header."


@dataclass(frozen=True, slots=True)
class Shown:
    """What each stored value looks like.

    Attributes
    ----------
    table : float64, shape (stored values,), range [0, 1], MONOCHROME2 sense
    remarks : what a reader must know of the choice
    voi : what was chosen in place of the header's first window or curve
    """

    table: Values
    remarks: tuple[str, ...] = ()
    voi: Voi | None = None


def show(source: Source, stored: Values, tally: Tally) -> Shown:
    """Apply the gray scale of the header to every possible stored value.

    Parameters
    ----------
    stored : the stored values, ascending by bit pattern, shape (n,)
    tally : counts how many pixels have each of them, padding not counted; answers shape (n,)

    Raises UndecodableError: the modality transformation is there but cannot be read.
    """
    values = _modality(source, stored)
    shown = _voi(source, values, tally)
    if source.text("PhotometricInterpretation") == "MONOCHROME1" or source.text("PresentationLUTShape") == "INVERSE":
        return replace(shown, table=1.0 - shown.table)  # once: for MONOCHROME1 both say the same thing (C.11.6.1.2)
    return shown


def _modality(source: Source, stored: Values) -> Values:
    """Rescale or look up (C.11.1); Rescale Slope 0 is no transformation, and ignored."""
    for item in source.dataset.get("ModalityLUTSequence") or ():
        lut = read_lut(item, source)
        if lut is None:
            raise UndecodableError("The Modality LUT in the header cannot be read.")
        first, entries, _ = lut
        return entries[_positions(stored, first, len(entries))]
    slope = next(iter(source.numbers("RescaleSlope")), 1.0)
    intercept = next(iter(source.numbers("RescaleIntercept")), 0.0)
    usable = np.isfinite(slope) and np.isfinite(intercept) and slope != 0.0
    return stored * slope + intercept if usable else stored


def _voi(source: Source, values: Values, tally: Tally) -> Shown:
    """Use the first window or curve that shows something of the image; the image's own range where none does."""
    stated = list(_stated(source, values))
    part = tally(PART if stated else 1)
    pixels = source.integer("Rows") * source.integer("Columns")
    for place, (voi, table) in enumerate(stated):
        if _has_shades(table, part) and _least_contrast(table, part, pixels) >= MIN_CONTRAST:
            return _chosen(place, voi, table)
    counts = tally(1) if stated else part
    for place, (voi, table) in enumerate(stated):
        has_shades = _has_shades(table, part) or _has_shades(table, counts)
        if has_shades and _contrast(table, counts) >= MIN_CONTRAST:
            return _chosen(place, voi, table)
    if stated and _levels(values, counts) < MIN_LEVELS:
        return Shown(stated[0][1])
    if not stated and source.integer("BitsStored") == DISPLAY_BITS:
        return Shown(_between(values, float(values.min()), float(values.max())))
    low, high = _quantiles(values, counts, ROBUST_RANGE)
    own = Voi(window=((low + high) / 2, max(high - low, 1.0)), function="LINEAR_EXACT")
    return Shown(_between(values, low, high), (_USELESS_VOI if stated else _NO_VOI,), own)


def _chosen(place: int, voi: Voi, table: Values) -> Shown:
    """Say what was passed over; what could not be read is nothing that a viewer would show."""
    if place:
        return Shown(table, (_OTHER_VOI,), voi)
    return Shown(table, voi=voi if voi.lut else None)


def _stated(source: Source, values: Values) -> Iterator[tuple[Voi, Values]]:
    """List what the header offers and can be read: the curves in their order, then the windows in theirs."""
    for place, item in enumerate(source.dataset.get("VOILUTSequence") or ()):
        if (curve := _curve(item, source, values)) is not None:
            yield Voi(lut=place), curve
    function = source.text("VOILUTFunction").upper() or "LINEAR"
    for center, width in zip(source.numbers("WindowCenter"), source.numbers("WindowWidth"), strict=False):
        if (table := _window(values, center, width, function)) is not None:
            yield Voi(window=(center, width), function=function), table


def _curve(item: Dataset, source: Source, values: Values) -> Values | None:
    """Look up an item of VOI LUT Sequence (C.11.2.1.1); None where it cannot be read."""
    lut = read_voi_lut(item, source)
    if lut is None:
        return None
    first, entries, bits = lut
    if first > 0x7FFF and values.min() < 0:  # written as US, meant as SS
        first -= 0x10000
    return entries[_positions(values, first, len(entries))] / ((1 << bits) - 1.0)


def _window(values: Values, center: float, width: float, function: str) -> Values | None:
    """Apply a window (C.11.2.1.2, C.11.2.1.3); None where its width is not allowed."""
    if not np.isfinite([center, width]).all() or width <= 0 or (width < 1 and function == "LINEAR"):
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


def read_voi_lut(item: Dataset, source: Source) -> tuple[int, Values, int] | None:
    """First value mapped, entries, and the bits that these need, whatever the descriptor says; None if unreadable.

    "16 bits" over entries of 12 is an old habit of several makers, and a console that believed it would show them
    nearly black. Entries that are a hair above a power of 2 (4096 for 4095) are cut: they need no further bit.
    """
    lut = read_lut(item, source)
    if lut is None or lut[1].max() <= 0:
        return None
    first, entries, declared = lut
    highest = int(entries.max())
    bits = highest.bit_length()
    if bits != declared and bits > 1 and highest < _HAIR * (1 << (bits - 1)):
        bits -= 1
    return first, np.minimum(entries, (1 << bits) - 1.0), bits


def read_lut(item: Dataset, source: Source) -> tuple[int, Values, int] | None:
    """First value mapped, entries and declared bits of an entry (C.11.1.1.1); None where they do not fit together."""
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if data is None or not isinstance(descriptor, (list, MultiValue)) or len(descriptor) != 3:
        return None
    count, first, bits = (int(part) for part in descriptor)
    count = count & 0xFFFF or 0x10000
    entries = _entries(item, count, source)
    if len(entries) < count or not 1 <= bits <= 16:
        return None
    signed = source.integer("PixelRepresentation") == 1
    return first - 0x10000 if signed and first > 0x7FFF else first, entries[:count].astype(np.float64), bits


def _entries(item: Dataset, count: int, source: Source) -> NDArray[Any]:
    """LUT Data as numbers: words, or bytes two by two in words (PS3.5 8.1.1), in the byte order of the object."""
    data, is_big = item.LUTData, source.ref.transfer_syntax_uid == ExplicitVRBigEndian
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data)) & 0xFFFF
    if len(data) - count not in (0, 1):
        return np.frombuffer(data[: len(data) & ~1], ">u2" if is_big else "<u2")
    swapped = is_big and item["LUTData"].VR == "OW" and len(data) % 2 == 0
    return np.frombuffer(data, "u1").reshape(-1, 2)[:, ::-1].ravel() if swapped else np.frombuffer(data, "u1")


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


def _has_shades(table: Values, counts: Counts) -> bool:
    """Tell whether a screen would show something between black and white of most of the pixels."""
    shades = np.bincount(np.minimum(table * _SHADES, _SHADES - 1).astype(np.intp), counts, _SHADES)
    extremes = shades[0] + shades[-1]
    return bool(np.count_nonzero(shades) >= MIN_SHADES and extremes <= MAX_BLACK_OR_WHITE * shades.sum())


def _levels(values: Values, counts: Counts) -> int:
    """How many different values that occur lie between the 1st and 99th percentile."""
    low, high = _quantiles(values, counts, (0.01, 0.99))
    return int(np.count_nonzero((counts > 0) & (values >= low) & (values <= high)))
