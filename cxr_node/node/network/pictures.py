"""Pictures in fewer bytes: which may be, in which transfer syntax, and the data set around the pixels.

Knows no codec: one is handed in. In JPEG-LS and RLE every element but Pixel Data stays in the bytes that were checked,
under the same SOP Instance UID, and decodes to the pixels that were checked. JPEG Baseline loses some, and the data set
says so; a picture is made so once, before anybody gets it, so that one UID never has two contents (PS3.3 C.7.6.1.1.5).
PS3.5 8.2, A.4, A.4.1 to A.4.3.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cxr_node.config.destinations import AnyDestination, Compression, DicomDestination
from cxr_node.errors import ResourceError
from cxr_node.node.network import file_meta
from cxr_node.result_kinds import SHAPES

log = logging.getLogger(__name__)

JPEG, JPEG_LS, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"
KEPT = (JPEG, JPEG_LS)
"""Transfer syntaxes in which a picture may be stored, beside Explicit VR Little Endian."""
_EXPLICIT = "1.2.840.10008.1.2.1"
PICTURES = frozenset({"1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.4"})
"""Secondary Capture, Multi-frame True Color Secondary Capture: what heatmap and heatmap-frames are."""
_WANTED = {
    Compression.AUTO: (JPEG, JPEG_LS, RLE),  # a fifteenth, a fourth, more than half (measured)
    Compression.LOSSLESS: (JPEG_LS, RLE),
    Compression.NONE: (),
    Compression.RLE: (RLE,),
    Compression.JPEG_LS: (JPEG_LS,),
}
_SAMPLES, _FRAMES, _ROWS, _COLUMNS = (0x0028, 0x0002), (0x0028, 0x0008), (0x0028, 0x0010), (0x0028, 0x0011)
_BITS, _PIXEL_DATA, _COLORS = (0x0028, 0x0100), (0x7FE0, 0x0010), (0x0028, 0x0004)
_LOSSY, _LOSSY_RATIO, _LOSSY_METHOD = (0x0028, 0x2110), (0x0028, 0x2112), (0x0028, 0x2114)
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
        """Compress one frame (uint8, shape (rows, columns, 3)); None where it cannot now.

        Raises
        ------
        ResourceError : this machine is at fault.
        """
        ...


class PictureCompressor(Encoder, Protocol):
    """What compresses, and gives back what an `Encoder` compressed."""

    def decompress(self, rows: int, columns: int, frame: memoryview, syntax: str) -> bytes | None:
        """Decode one frame in one of `KEPT`, which was checked to be our own; None where it cannot now.

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


@dataclass(frozen=True, slots=True)
class Packing:
    """How pictures are kept: by which encoder, in which of `KEPT`."""

    encoder: Encoder
    syntax: str


def kept_by(encoder: Encoder | None, destinations: Iterable[AnyDestination]) -> Packing | None:
    """How pictures are kept: compressed once, when made, where some destination would have them so.

    In JPEG Baseline only where all of them would: one SOP Instance has one content, whoever gets it.
    """
    wishes = {
        each.heatmap_compression
        for each in destinations
        if isinstance(each, DicomDestination) and any(SHAPES[kind].sop_class_uid in PICTURES for kind in each.send)
    }
    is_lossless = any(wish.is_lossless for wish in wishes)
    for syntax in KEPT:
        is_wanted = any(syntax in _WANTED[wish] for wish in wishes) and not (syntax == JPEG and is_lossless)
        if encoder is not None and is_wanted and syntax in encoder.syntaxes:
            return Packing(encoder, syntax)
    return None


def pack(content: bytes, packing: Packing) -> bytes:
    """A picture's file, compressed; as it is where that cannot be, or makes it no smaller."""
    try:
        meta, data_set = file_meta.halves(content)
    except ValueError:
        return content
    packed = compress(data_set, packing.syntax, packing.encoder)
    if packed is None:
        return content
    return file_meta.renamed(content, meta, packing.syntax) + packed


def unpack(content: bytes, compressor: PictureCompressor | None) -> bytes:
    """Undo `pack`, to the byte where nothing was lost; any other file stays as it is.

    Raises
    ------
    ResourceError : it cannot be decoded now.
    ValueError : it is not a Part 10 file, or its data set is malformed.
    """
    meta, data_set = file_meta.halves(content)
    if meta.transfer_syntax_uid not in KEPT:
        return content
    native = decompress(data_set, meta.transfer_syntax_uid, compressor)
    return file_meta.renamed(content, meta, _EXPLICIT) + native


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
    before: bytes | memoryview = data_set[: picture.position]
    if syntax == JPEG:
        before = _replaced(data_set, picture.position, _said_lossy(picture.size / sum(map(len, pieces))))
    head = _NATIVE.pack(*_PIXEL_DATA, b"OB", 0, _UNDEFINED)
    whole = b"".join((before, head, *_fragments(pieces), _SEQUENCE_END))
    return memoryview(whole) if len(whole) < len(data_set) else None


def decompress(data_set: memoryview, syntax: str, compressor: PictureCompressor | None) -> memoryview:
    """Undo `compress` in one of `KEPT`, to the byte where nothing was lost.

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
        found = None if compressor is None else compressor.decompress(picture.rows, picture.columns, frame, syntax)
        if found is None or len(found) != picture.size // picture.number:
            raise ResourceError("a picture cannot be decompressed now")
        pixels.append(found)
    before: bytes | memoryview = data_set[: picture.position]
    if syntax == JPEG:  # what was lost stays said
        before = _replaced(data_set, picture.position, {_COLORS: b"RGB"})
    padding = picture.size % 2
    head = _NATIVE.pack(*_PIXEL_DATA, b"OB", 0, picture.size + padding)
    return memoryview(b"".join((before, head, *pixels, b"\0" * padding)))


def _said_lossy(ratio: float) -> dict[tuple[int, int], bytes]:
    """What a data set must say once it is in JPEG Baseline (PS3.3 C.7.6.1.1.5, C.7.6.3.1.2).

    The chroma has half the columns, as YBR_FULL_422 says.
    """
    return {
        _COLORS: b"YBR_FULL_422",
        _LOSSY: b"01",
        _LOSSY_RATIO: f"{ratio:.2f}".encode(),
        _LOSSY_METHOD: b"ISO_10918_1",
    }


def _replaced(data_set: memoryview, end: int, values: Mapping[tuple[int, int], bytes]) -> bytes:
    """The elements before `end`, with some of text in place of, or in addition to, what stands there."""
    parts, position, left = [], 0, sorted(values)
    while left:
        head = head_at(data_set, position, end) if position < end else None
        if head is None or head.tag >= left[0]:
            tag = left.pop(0)
            value = values[tag] + b" " * (len(values[tag]) % 2)
            parts.append(struct.pack("<HH2sH", *tag, b"DS" if tag == _LOSSY_RATIO else b"CS", len(value)) + value)
            if head is None or head.tag != tag:
                continue
        else:
            parts.append(bytes(data_set[position : head.end(end)]))
        position = head.end(end)
    return b"".join((*parts, data_set[position:end]))


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
