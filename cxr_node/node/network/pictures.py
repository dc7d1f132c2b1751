"""Pictures in fewer bytes without loss: which may be, in which transfer syntax, and the data set around the pixels.

Knows no codec: one is handed in. Every element but Pixel Data stays in the bytes that were checked, under the same
SOP Instance UID, and what is compressed decodes to the pixels that were checked. PS3.5 8.2, A.4, A.4.2, A.4.3.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cxr_node.config.destinations import AnyDestination, Compression, DicomDestination
from cxr_node.errors import ResourceError
from cxr_node.node.network import file_meta
from cxr_node.result_kinds import SHAPES

log = logging.getLogger(__name__)

JPEG_LS, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"
_EXPLICIT = "1.2.840.10008.1.2.1"
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
_NATIVE = struct.Struct("<HH2sHI")
_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
"""VRs with a length of 16 bits; that of all others, known or not, has 32 after two reserved bytes (PS3.5 7.1.2)."""
_ITEM_GROUP, _UNDEFINED = 0xFFFE, 0xFFFFFFFF
_HEAD = struct.Struct("<HHI")
CUT = "its data set is cut short"


class Encoder(Protocol):
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


class PictureCompressor(Encoder, Protocol):
    """What compresses, and gives back what an `Encoder` compressed."""

    def decompress(self, rows: int, columns: int, frame: memoryview) -> bytes | None:
        """Decode one frame in JPEG-LS, which was checked to be our own; None where it cannot now.

        Raises
        ------
        ResourceError : this machine is at fault.
        """
        ...

    def close(self) -> None:
        """Give back what it holds; the next call takes it again."""
        ...


def syntaxes(wish: Compression, compressor: PictureCompressor | None) -> tuple[str, ...]:
    """Transfer syntaxes to propose for pictures, the preferred one first."""
    return tuple(syntax for syntax in _WANTED[wish] if compressor is not None and syntax in compressor.syntaxes)


def kept_by(encoder: Encoder | None, destinations: Iterable[AnyDestination]) -> Encoder | None:
    """The encoder, where some destination would have pictures in JPEG-LS: they are compressed once, when made."""
    is_wanted = any(
        isinstance(each, DicomDestination)
        and JPEG_LS in _WANTED[each.heatmap_compression]
        and any(SHAPES[kind].sop_class_uid in PICTURES for kind in each.send)
        for each in destinations
    )
    return encoder if is_wanted else None


def pack(content: bytes, encoder: Encoder) -> bytes:
    """A picture's file in JPEG-LS; as it is where that cannot be, or makes it no smaller."""
    try:
        meta, data_set = file_meta.halves(content)
    except ValueError:
        return content
    packed = compress(data_set, JPEG_LS, encoder) if JPEG_LS in encoder.syntaxes else None
    if packed is None:
        return content
    return file_meta.renamed(content, meta, JPEG_LS) + packed


def unpack(content: bytes, compressor: PictureCompressor | None) -> bytes:
    """Undo `pack`, to the byte; any other file stays as it is.

    Raises
    ------
    ResourceError : it cannot be decoded now.
    ValueError : it is not a Part 10 file, or its data set is malformed.
    """
    meta, data_set = file_meta.halves(content)
    if meta.transfer_syntax_uid != JPEG_LS:
        return content
    return file_meta.renamed(content, meta, _EXPLICIT) + decompress(data_set, compressor)


def compress(data_set: memoryview, syntax: str, encoder: Encoder) -> memoryview | None:
    """Compress a data set in Explicit VR Little Endian; None where that cannot be, or makes it no smaller."""
    try:
        picture = _find(data_set)
        pixels = data_set[picture.start : picture.start + picture.size]
        size = picture.size // picture.number
        if picture.length != picture.size + picture.size % 2 or picture.start + picture.length != len(data_set):
            raise ValueError("pixel data of another size")
        pieces = []
        for start in range(0, picture.size, size):
            frame = encoder.compress(picture.rows, picture.columns, pixels[start : start + size], syntax)
            if frame is None:
                log.warning("picture stays uncompressed: syntax=%s the codec gave none", syntax)
                return None
            pieces.append(frame)
    except (ValueError, struct.error):  # not a picture of ours, or of another shape
        return None
    except ResourceError as error:
        log.warning("picture stays uncompressed: %s", error)
        return None
    head = _NATIVE.pack(*_PIXEL_DATA, b"OB", 0, _UNDEFINED)
    whole = b"".join((data_set[: picture.position], head, *_fragments(pieces), _SEQUENCE_END))
    return memoryview(whole) if len(whole) < len(data_set) else None


def decompress(data_set: memoryview, compressor: PictureCompressor | None) -> memoryview:
    """Undo `compress` of JPEG-LS, to the byte.

    Raises
    ------
    ResourceError : it cannot be decoded now.
    ValueError : it is not what `compress` made.
    """
    picture = _find(data_set)
    _, *frames = _items(data_set, picture.start)
    if picture.length != _UNDEFINED or len(frames) != picture.number:
        raise ValueError("no compressed picture")
    pixels = []
    for frame in frames:
        found = None if compressor is None else compressor.decompress(picture.rows, picture.columns, frame)
        if found is None or len(found) != picture.size // picture.number:
            raise ResourceError("a picture cannot be decompressed now")
        pixels.append(found)
    padding = picture.size % 2
    head = _NATIVE.pack(*_PIXEL_DATA, b"OB", 0, picture.size + padding)
    return memoryview(b"".join((data_set[: picture.position], head, *pixels, b"\0" * padding)))


def _fragments(frames: list[bytes]) -> list[bytes]:
    """Basic Offset Table, and each frame in a fragment of its own (PS3.5 A.4)."""
    even = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    offsets, position = [], 0
    for frame in even:
        offsets.append(position)
        position += 8 + len(frame)
    table = struct.pack(f"<{len(offsets)}I", *offsets)
    return [part for each in (table, *even) for part in (_ITEM + struct.pack("<I", len(each)), each)]


def _items(data_set: memoryview, position: int) -> list[memoryview]:
    """What `_fragments` made: the table, and the frames, each with its padding."""
    found = []
    while (head := head_at(data_set, position, len(data_set))).tag == (_ITEM_GROUP, 0xE000):
        position = head.end(len(data_set))
        found.append(data_set[head.start : position])
    return found


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
            raise ValueError(CUT)
        return self.start + self.length


def head_at(view: memoryview, position: int, limit: int) -> Head:
    """Read the head of an element in Explicit VR, or of an item or a delimiter.

    Raises
    ------
    ValueError : it is cut short.
    """
    if position + 8 > limit:
        raise ValueError(CUT)
    group, element, length = _HEAD.unpack_from(view, position)
    vr = bytes(view[position + 4 : position + 6])
    if group == _ITEM_GROUP:
        return Head((group, element), b"", length, position + 8)
    if vr in _SHORT:
        return Head((group, element), vr, length >> 16, position + 8)
    if position + 12 > limit:
        raise ValueError(CUT)
    return Head((group, element), vr, struct.unpack_from("<I", view, position + 8)[0], position + 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    """8-bit color frames, colour by pixel, one behind the other."""

    rows: int
    columns: int
    number: int
    position: int
    """Where Pixel Data begins,"""
    start: int
    """and where its value does."""
    length: int
    """As its head says."""

    @property
    def size(self) -> int:
        """Bytes of all frames, uncompressed."""
        return self.rows * self.columns * 3 * self.number


def _find(data_set: memoryview) -> _Picture:
    """Find the picture in a data set.

    Raises
    ------
    ValueError : there is none, or it is not 8-bit color.
    """
    position, numbers = 0, {_FRAMES: 1}
    while position < len(data_set):
        head = head_at(data_set, position, len(data_set))
        if head.tag == _PIXEL_DATA:
            break
        end = head.end(len(data_set))
        if head.vr == b"US" and head.length == 2:
            numbers[head.tag] = struct.unpack_from("<H", data_set, head.start)[0]
        elif head.tag == _FRAMES:
            numbers[head.tag] = int(bytes(data_set[head.start : end]))
        position = end
    else:
        raise ValueError("no pixel data")
    found = _Picture(
        rows=numbers.get(_ROWS, 0),
        columns=numbers.get(_COLUMNS, 0),
        number=numbers[_FRAMES],
        position=position,
        start=head.start,
        length=head.length,
    )
    if (numbers.get(_SAMPLES), numbers.get(_BITS)) != (3, 8) or found.size <= 0:
        raise ValueError("no color picture")
    return found
