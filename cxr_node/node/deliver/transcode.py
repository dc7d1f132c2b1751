"""Which pictures may leave compressed, in which transfer syntax, and the compressed data set around the pixels.

Knows no codec: a `PictureCompressor` is handed in. Every element but Pixel Data leaves in the bytes that were
checked, under the same SOP Instance UID, and what leaves decodes to the pixels that were checked.
PS3.5 8.2, A.4, A.4.2, A.4.3.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from typing import Protocol

from cxr_node.config.destinations import Compression
from cxr_node.errors import ResourceError

log = logging.getLogger(__name__)

JPEG_LS, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"
PICTURES = frozenset({"1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.4"})
"""Secondary Capture, Multi-frame True Color Secondary Capture: what heatmap and heatmap-frames are."""
_WANTED = {
    Compression.AUTO: (JPEG_LS, RLE),  # a fifth to a quarter, two thirds (measured)
    Compression.NONE: (),
    Compression.RLE: (RLE,),
    Compression.JPEG_LS: (JPEG_LS,),
}
_SAMPLES, _FRAMES, _ROWS, _COLUMNS = (0x0028, 0x0002), (0x0028, 0x0008), (0x0028, 0x0010), (0x0028, 0x0011)
_BITS, _PIXEL_DATA = (0x0028, 0x0100), (0x7FE0, 0x0010)
_ITEM, _SEQUENCE_END = struct.pack("<HH", 0xFFFE, 0xE000), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
_ENCAPSULATED = struct.pack("<HH2sHI", *_PIXEL_DATA, b"OB", 0, 0xFFFFFFFF)
_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
"""VRs with a length of 16 bits; that of all others, known or not, has 32 after two reserved bytes (PS3.5 7.1.2)."""
_ITEM_TAG, _ITEM_END, _SEQUENCE_END_TAG = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_HEAD = struct.Struct("<HHI")
_MAX_DEPTH = 32
_CUT = "its data set is cut short"

Pieces = list[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Head:
    """Tag, VR and length of one element; `start` is where its value begins."""

    tag: tuple[int, int]
    vr: bytes
    length: int
    start: int

    def end(self, limit: int) -> int:
        """Where its value ends."""
        if self.length == _UNDEFINED:
            raise ValueError("an element of undefined length is not a sequence: it cannot be in Implicit VR")
        if self.start + self.length > limit:
            raise ValueError(_CUT)
        return self.start + self.length


def to_implicit(data_set: memoryview) -> memoryview:
    """Encode a data set in Implicit VR Little Endian.

    Raises
    ------
    ValueError : it is cut short, nested too deep, or holds encapsulated pixel data; no value is quoted.
    """
    pieces, end = _elements(data_set, 0, len(data_set), 0)
    if end != len(data_set):
        raise ValueError("an item ends where none began")
    return memoryview(b"".join(pieces))


def head_at(view: memoryview, position: int, limit: int) -> Head:
    """Read the head of an element in Explicit VR, or of an item or a delimiter.

    Raises
    ------
    ValueError : it is cut short.
    """
    if position + 8 > limit:
        raise ValueError(_CUT)
    group, element, length = _HEAD.unpack_from(view, position)
    vr = bytes(view[position + 4 : position + 6])
    if group == _ITEM_TAG[0]:
        return Head((group, element), b"", length, position + 8)
    if vr in _SHORT:
        return Head((group, element), vr, length >> 16, position + 8)
    if position + 12 > limit:
        raise ValueError(_CUT)
    return Head((group, element), vr, struct.unpack_from("<I", view, position + 8)[0], position + 12)


def _elements(view: memoryview, position: int, limit: int, depth: int) -> tuple[Pieces, int]:
    """Elements up to the limit, or to the delimiter of their item, and where they end."""
    if depth > _MAX_DEPTH:
        raise ValueError("its sequences are nested too deep")
    pieces: Pieces = []
    while position < limit:
        head = head_at(view, position, limit)
        if head.tag == _ITEM_END:
            return pieces, position
        if head.vr == b"SQ":
            inner, position = _items(view, head, limit, depth)
            length = _UNDEFINED if head.length == _UNDEFINED else _size(inner)
            pieces += [_HEAD.pack(*head.tag, length), *inner]
            continue
        if head.vr == b"UN" and head.length == _UNDEFINED:  # a sequence whose items are in Implicit VR already
            position = _skip_items(view, head.start, limit, depth)
        else:
            position = head.end(limit)
        if head.tag[1] != 0:  # a group length would no longer be true
            pieces += [_HEAD.pack(*head.tag, head.length), view[head.start : position]]
    return pieces, position


def _items(view: memoryview, sequence: Head, limit: int, depth: int) -> tuple[Pieces, int]:
    """Items of a sequence, each with its own form of length, and where they end."""
    position, is_open = sequence.start, sequence.length == _UNDEFINED
    end = limit if is_open else sequence.end(limit)
    pieces: Pieces = []
    while position < end:
        head = head_at(view, position, end)
        if is_open and head.tag == _SEQUENCE_END_TAG:
            return [*pieces, _HEAD.pack(*_SEQUENCE_END_TAG, 0)], head.start
        if head.tag != _ITEM_TAG:
            raise ValueError("a sequence holds something else than items")
        if head.length == _UNDEFINED:
            inner, stop = _elements(view, head.start, end, depth + 1)
            position = _behind(view, stop, end)
            pieces += [_HEAD.pack(*_ITEM_TAG, _UNDEFINED), *inner, _HEAD.pack(*_ITEM_END, 0)]
        else:
            inner, position = _elements(view, head.start, head.end(end), depth + 1)
            pieces += [_HEAD.pack(*_ITEM_TAG, _size(inner)), *inner]
    if is_open:
        raise ValueError(_CUT)
    return pieces, position


def _behind(view: memoryview, position: int, limit: int) -> int:
    """Step over the delimiter of an item."""
    if position + 8 > limit or _HEAD.unpack_from(view, position)[:2] != _ITEM_END:
        raise ValueError(_CUT)
    return position + 8


def _skip_items(view: memoryview, position: int, limit: int, depth: int) -> int:
    """Find the end of what is in Implicit VR and has no length, its delimiter included."""
    if depth > _MAX_DEPTH:
        raise ValueError("its sequences are nested too deep")
    while position + 8 <= limit:
        group, element, length = _HEAD.unpack_from(view, position)
        position += 8
        if (group, element) in (_SEQUENCE_END_TAG, _ITEM_END):
            return position
        position = _skip_items(view, position, limit, depth + 1) if length == _UNDEFINED else position + length
    raise ValueError(_CUT)


def _size(pieces: Pieces) -> int:
    return sum(len(piece) for piece in pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Uncompressed color frames: uint8, colour by pixel, one behind the other."""

    rows: int
    columns: int
    number: int
    pixels: memoryview


class PictureCompressor(Protocol):
    """What compresses."""

    @property
    def syntaxes(self) -> frozenset[str]:
        """Transfer syntaxes that it can write."""
        ...

    def compress(self, rows: int, columns: int, frame: memoryview, syntax: str) -> bytes | None:
        """Compress one frame (uint8, shape (rows, columns, 3)) without loss; None where it cannot now.

        Raises
        ------
        ResourceError : this machine is at fault.
        """
        ...

    def close(self) -> None:
        """Give back what it holds; the next `compress` takes it again."""
        ...


def syntaxes(wish: Compression, compressor: PictureCompressor | None) -> tuple[str, ...]:
    """Transfer syntaxes to propose for pictures, the preferred one first."""
    return tuple(syntax for syntax in _WANTED[wish] if compressor is not None and syntax in compressor.syntaxes)


def compress(data_set: memoryview, syntax: str, compressor: PictureCompressor) -> memoryview | None:
    """Compress a data set in Explicit VR Little Endian; None where that cannot be, or makes it no smaller."""
    try:
        start, frames = _find(data_set)
        size = len(frames.pixels) // frames.number
        pieces = []
        for number in range(frames.number):
            frame = frames.pixels[number * size : (number + 1) * size]
            compressed = compressor.compress(frames.rows, frames.columns, frame, syntax)
            if compressed is None:
                log.warning("picture is sent uncompressed: syntax=%s the codec gave none", syntax)
                return None
            pieces.append(compressed)
    except (ValueError, struct.error):  # not a picture of ours, or of another shape: it is sent as it is
        return None
    except ResourceError as error:
        log.warning("picture is sent uncompressed: %s", error)
        return None
    whole = b"".join((data_set[:start], _ENCAPSULATED, *_fragments(pieces), _SEQUENCE_END))
    return memoryview(whole) if len(whole) < len(data_set) else None


def _fragments(frames: list[bytes]) -> list[bytes]:
    """Basic Offset Table, and each frame in a fragment of its own (PS3.5 A.4)."""
    even = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    offsets, position = [], 0
    for frame in even:
        offsets.append(position)
        position += 8 + len(frame)
    table = struct.pack(f"<{len(offsets)}I", *offsets)
    return [part for each in (table, *even) for part in (_ITEM + struct.pack("<I", len(each)), each)]


def _find(data_set: memoryview) -> tuple[int, Frames]:
    """Where Pixel Data begins, and the frames in it.

    Raises
    ------
    ValueError : it is not the last element, or not 8-bit color of the size that the header states.
    """
    position, numbers = 0, {_FRAMES: 1}
    while position < len(data_set):
        head = head_at(data_set, position, len(data_set))
        end = head.end(len(data_set))
        if head.tag == _PIXEL_DATA:
            break
        if head.vr == b"US" and head.length == 2:
            numbers[head.tag] = struct.unpack_from("<H", data_set, head.start)[0]
        elif head.tag == _FRAMES:
            numbers[head.tag] = int(bytes(data_set[head.start : end]))
        position = end
    else:
        raise ValueError("no pixel data")
    rows, columns, number = numbers.get(_ROWS, 0), numbers.get(_COLUMNS, 0), numbers[_FRAMES]
    size = rows * columns * 3 * number
    if end != len(data_set) or (numbers.get(_SAMPLES), numbers.get(_BITS)) != (3, 8) or not size:
        raise ValueError("no color picture")
    if head.length != size + size % 2:
        raise ValueError("pixel data of another size")
    return position, Frames(rows=rows, columns=columns, number=number, pixels=data_set[head.start : head.start + size])
