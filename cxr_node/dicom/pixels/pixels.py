"""A source's pixel data to one `Radiograph`: float32, [0, 1], larger means more attenuating.

Knows no rule of admission and no network. PS3.3 C.7.6.3 (image pixel), C.7.5.1.1.2 (padding), PS3.5 8.1.1 (unused
bits); the gray scale is `grayscale`'s, the codecs are `decoders`'.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from cxr_node.config.schema import Admission
from cxr_node.dicom.pixels import codecs
from cxr_node.dicom.pixels.codecs import Layout
from cxr_node.dicom.pixels.grayscale import Counts, Values, show
from cxr_node.dicom.read.header import SPACINGS, Source
from cxr_node.domain import Radiograph
from cxr_node.errors import UndecodableError

MAX_DECODED_BYTES = 256 * 1024 * 1024
"""Rows x Columns x Samples x Frames x bytes, checked before a decoder runs (reliability.md T8)."""
MAX_BITS_STORED = 16
_STRIP_PIXELS = 1 << 17
"""Looked up or counted at once: numpy widens indices to 64 bits, and these stay in the processor's cache."""

_ASPECTS = (0.2, 5.0)
"""Pixels flatter or taller than this are a mistake in the header."""
_RATIOS = (*SPACINGS, "PixelAspectRatio")

# Tags without which stored values have no meaning: where one of them is there but broken, nothing is guessed.
_VITAL_TAGS = frozenset(
    {
        0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280103,
        0x00281052, 0x00281053, 0x00283000, 0x20500020,
    }
)  # fmt: skip


def decode(source: Source, rules: Admission) -> Radiograph:
    """Decode a source's one gray frame.

    Raises UndecodableError: the description of the pixel data is incomplete, contradictory (Bits Stored > Bits
    Allocated, PS3.3 C.7.6.3.1.3) or beyond the limits, or the pixel data is missing or damaged.
    """
    layout = _layout(source, rules)
    raw = codecs.decode(source.dataset.PixelData, source.ref.transfer_syntax_uid, layout)
    stored = _stored_values(layout)
    patterns, padding = _set_apart(source, raw, _patterns(raw, layout, _shift(raw, layout, source)), stored)
    shown = show(source, stored, partial(_counts, patterns, padding))
    shown.table[padding] = 0.0
    with ThreadPoolExecutor(1, "digest") as beside:  # as long as the table's look-up, which leaves a core free
        digest = beside.submit(_digest, patterns, shown.table)
        pixels = _looked_up(shown.table.astype(np.float32), patterns)
    return Radiograph(
        pixels=pixels, pixel_aspect=_pixel_aspect(source), view=source.view, remarks=shown.remarks, voi=shown.voi,
        pixel_digest=digest.result(),
    )  # fmt: skip


def stored_values(source: Source, rules: Admission) -> NDArray[Any]:
    """Stored values of a source's one gray frame, without what lies in the unused bits of each cell.

    Returns
    -------
    shape (rows, columns); uint8 or uint16, signed where Pixel Representation is 1

    Raises UndecodableError: as `decode`.
    """
    layout = _layout(source, rules)
    raw = codecs.decode(source.dataset.PixelData, source.ref.transfer_syntax_uid, layout)
    patterns = _patterns(raw, layout, _shift(raw, layout, source))
    if not layout.signed:
        return patterns
    values = patterns.astype(np.int32)
    values[values >= 1 << (layout.bits_stored - 1)] -= 1 << layout.bits_stored
    return values.astype(f"i{patterns.dtype.itemsize}")


def _layout(source: Source, rules: Admission) -> Layout:
    if source.unreadable & _VITAL_TAGS:
        raise UndecodableError("An attribute that describes the pixel data cannot be read.")
    bits_allocated = source.integer("BitsAllocated")
    layout = Layout(
        rows=source.integer("Rows"),
        columns=source.integer("Columns"),
        bits_allocated=bits_allocated,
        bits_stored=source.integer("BitsStored", bits_allocated),
        signed=source.integer("PixelRepresentation") == 1,
        photometric_interpretation=source.text("PhotometricInterpretation"),
        pixel_vr=str(source.dataset["PixelData"].VR) if "PixelData" in source.dataset else "",
    )
    samples, frames = source.integer("SamplesPerPixel", 1), source.integer("NumberOfFrames", 1)
    values = layout.rows * layout.columns * max(samples, 1) * max(frames, 1)
    if not source.dataset.get("PixelData"):
        raise UndecodableError("There is no pixel data.")
    if layout.rows < 1 or layout.columns < 1 or bits_allocated not in (8, 16, 32):
        named = f"{layout.rows} x {layout.columns}, {bits_allocated} bits"
        raise UndecodableError(f"Rows, Columns or Bits Allocated are missing or invalid ({named}).")
    if not 1 <= layout.bits_stored <= min(bits_allocated, MAX_BITS_STORED):
        named = f"{layout.bits_stored} of {bits_allocated}"
        raise UndecodableError(f"Bits Stored is invalid: above Bits Allocated, or above 16 ({named}).")
    if layout.photometric_interpretation not in ("MONOCHROME1", "MONOCHROME2") or samples != 1 or frames > 1:
        raise UndecodableError("The pixel data is not a single grayscale frame.")
    if values > rules.max_pixels or values * bits_allocated // 8 > MAX_DECODED_BYTES:
        raise UndecodableError(f"The image is larger than may be decoded ({layout.rows} x {layout.columns}).")
    return layout


def _shift(raw: NDArray[Any], layout: Layout, source: Source) -> int:
    """How many bits lie below the stored ones: none, unless High Bit says so and they are empty.

    High Bit is Bits Stored - 1 by PS3.5 8.1.1. Old modalities aligned values to the left, and meant it; more often
    another High Bit is a mistake, and then the low bits are full.
    """
    shift = source.integer("HighBit", layout.bits_stored - 1) + 1 - layout.bits_stored
    if not 0 < shift <= layout.bits_allocated - layout.bits_stored:
        return 0
    return 0 if np.any(raw & ((1 << shift) - 1)) else shift


def _patterns(raw: NDArray[Any], layout: Layout, shift: int) -> NDArray[Any]:
    """Bits Stored of every pixel as uint8 or uint16; overlays and whatever else lies above are cut off."""
    unsigned = _unsigned(raw)
    mask = (1 << layout.bits_stored) - 1
    patterns = unsigned >> shift if shift else unsigned
    if patterns.max() > mask:
        patterns = patterns & mask
    return patterns.astype(np.uint8 if layout.bits_stored <= 8 else np.uint16, order="C", copy=False)


def _unsigned(raw: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = raw.view(raw.dtype.str.replace("i", "u"))
    return found


def _stored_values(layout: Layout) -> Values:
    """Stored value of every bit pattern, two's complement where Pixel Representation is 1."""
    values = np.arange(1 << layout.bits_stored, dtype=np.float64)
    if layout.signed:
        values[len(values) // 2 :] -= len(values)
    return values


def _set_apart(
    source: Source, raw: NDArray[Any], patterns: NDArray[Any], stored: Values
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Tell which stored values are padding: Pixel Padding Value, or all from it to Pixel Padding Range Limit.

    A value that the stored bits cannot hold is compared with the whole pixel cells instead (C.7.5.1.1.2): those that
    have it, unused bits included, get a pattern that no other pixel has; where there are none, nothing is padding.

    Returns
    -------
    patterns of all pixels, and bool, shape (stored values,)
    """
    if not source.numbers("PixelPaddingValue"):
        return patterns, np.zeros(len(stored), bool)
    signed, value = raw.dtype.kind == "i", source.integer("PixelPaddingValue")
    first, last = sorted(_word(end, signed) for end in (value, source.integer("PixelPaddingRangeLimit", value)))
    padding = np.asarray((stored >= first) & (stored <= last))
    if padding.all():  # ends of different sign: no image is nothing but padding
        padding[:] = False
    if stored.min() <= first and last <= stored.max():
        return patterns, padding
    cells = (raw >= first) & (raw <= last) | (_unsigned(raw) == value & 0xFFFF)
    if not cells.any():
        return patterns, padding
    unused = np.flatnonzero(np.bincount(patterns[~cells], minlength=len(stored)) == 0)
    if not len(unused):
        return patterns, padding
    padding[unused[0]] = True
    return np.where(cells, patterns.dtype.type(unused[0]), patterns), padding


def _word(value: int, signed: bool) -> int:
    """Read 16 bits as the pixels are read: US and SS are often mistaken for each other."""
    value &= 0xFFFF
    return value - 0x10000 if signed and value > 0x7FFF else value


def _counts(patterns: NDArray[Any], padding: NDArray[np.bool_], step: int) -> Counts:
    """How many pixels of every `step`-th row have each stored value, padding not counted."""
    counts = np.zeros(len(padding), np.int64)
    for strip in _strips(patterns[::step]):
        counts += np.bincount(strip.ravel(), minlength=len(counts))
    counts[padding] = 0
    return counts


def _looked_up(table: NDArray[np.float32], patterns: NDArray[Any]) -> NDArray[np.float32]:
    """Entry of every pixel's bit pattern: float32, shape (rows, columns)."""
    found = np.empty(patterns.shape, np.float32)
    for strip, target in zip(_strips(patterns), _strips(found), strict=True):
        np.take(table, strip, out=target, mode="wrap")  # no pattern lies beyond; only "raise" would need a buffer
    return found


def _strips(image: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Cut an image into strips of whole rows, `_STRIP_PIXELS` or one row large."""
    rows = max(1, _STRIP_PIXELS // image.shape[1])
    return (image[top : top + rows] for top in range(0, len(image), rows))


def _pixel_aspect(source: Source) -> float:
    """Height over width of a pixel: spacing of rows over that of columns, or Pixel Aspect Ratio (C.7.6.3.1.7)."""
    for keyword in _RATIOS:
        pair = source.numbers(keyword)
        if len(pair) == 2 and all(np.isfinite(pair)) and min(pair) > 0:
            aspect = pair[0] / pair[1]
            return aspect if _ASPECTS[0] <= aspect <= _ASPECTS[1] else 1.0
    return 1.0


def _digest(patterns: NDArray[Any], table: Values) -> str:
    """Digest of size, stored values and what each of them looks like; the transfer syntax does not matter."""
    digest = blake3(f"{patterns.shape} {patterns.dtype.itemsize}".encode())  # 1.8 ms of 10 MB, where SHA-256 takes 6.8
    digest.update(table.astype("<f8").tobytes())
    digest.update(patterns.astype(patterns.dtype.newbyteorder("<"), copy=False).data.cast("B"))
    return digest.hexdigest()
