"""Images that are small on the wire and huge, or nothing, once decoded (T8): each with the fate it must have."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image
from pydicom import Dataset, uid
from pydicom.encaps import encapsulate, get_frame

from tests import builders
from tests.node import wire

MOST_PIXELS = 10_000
"""Rows and Columns of the largest image that is decoded (admission.max_pixels)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bomb:
    """One object as it is sent, and how many bytes it claims to decode to."""

    name: str
    sop_instance_uid: str
    syntax: str
    data_set: bytes
    claims_bytes: int


def bombs(is_long: bool) -> Iterator[Bomb]:
    """Make them one after the other; the long run has the largest that are let through to a decoder."""
    side = MOST_PIXELS if is_long else 4000
    most = MOST_PIXELS
    yield _bomb(1, "RLE 1:64", _rle(side), uid.RLELossless, side, side)
    yield _bomb(2, "RLE, 65535 x 65535", _rle(1000), uid.RLELossless, 65535, 65535)
    yield _bomb(3, "RLE, segment that goes on", _rle(side) + bytes(10), uid.RLELossless, 1000, 1000)
    yield _bomb(4, "JPEG 2000, one value, 1:1000 and more", _jpeg_2000(side), uid.JPEG2000Lossless, side, side, bits=8)
    huge = _resized_jpeg_2000(_jpeg_2000(64), most)
    yield _bomb(5, "JPEG 2000 that claims 10,000 x 10,000", huge, uid.JPEG2000Lossless, most, most, bits=8)
    huge = _resized_jpeg_2000(_jpeg_2000(64), 2**31 - 1)
    yield _bomb(6, "JPEG 2000 that claims 2^31 x 2^31", huge, uid.JPEG2000Lossless, 256, 256, bits=8)
    yield _bomb(7, "JPEG that claims 10,000 x 10,000", _jpeg(most), uid.JPEGBaseline8Bit, most, most, bits=8)
    yield _bomb(8, "JPEG that claims 65535 x 65535", _jpeg(65535), uid.JPEGBaseline8Bit, 65535, 65535, bits=8)
    yield _native(9, "Rows x Columns x frames beyond 2^63", Rows=65535, Columns=65535, NumberOfFrames=str(2**31 - 1))
    yield _native(10, "pixel data shorter than declared", Rows=9000, Columns=9000)
    yield _native(11, "pixel data longer than declared", Rows=160, Columns=144)
    yield _native(12, "Bits Allocated 64", BitsAllocated=64, BitsStored=64, HighBit=63)


def _bomb(number: int, name: str, frame: bytes, syntax: str, rows: int, columns: int, bits: int = 16) -> Bomb:
    stored = np.zeros((16, 16), np.uint8 if bits == 8 else np.uint16)
    dataset = builders.radiograph(900 + number, stored, Rows=rows, Columns=columns)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    return _encoded(name, dataset, syntax)


def _native(number: int, name: str, **overrides: object) -> Bomb:
    return _encoded(name, builders.radiograph(900 + number, **overrides), uid.ExplicitVRLittleEndian)


def _encoded(name: str, dataset: Dataset, syntax: str) -> Bomb:
    frames = int(dataset.get("NumberOfFrames", 1))
    return Bomb(
        name=name,
        sop_instance_uid=str(dataset.SOPInstanceUID),
        syntax=str(syntax),
        data_set=wire.data_set_of(builders.part10(dataset, syntax)),
        claims_bytes=dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8 * frames,
    )


def _rle(side: int) -> bytes:
    """Two segments of runs of 128 equal bytes (PS3.5 G.3): the most that RLE can do."""
    segment = b"\x81\x40" * (side * side // 128)
    return struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13) + 2 * segment


def _jpeg_2000(side: int) -> bytes:
    dataset = builders.radiograph(1, np.full((side, side), 77, np.uint8))
    content = wire.data_set_of(builders.part10(dataset, uid.JPEG2000Lossless))
    start = content.index(struct.pack("<HH", 0x7FE0, 0x0010) + b"OB")
    return get_frame(content[start + 12 :], 0, number_of_frames=1)


def _resized_jpeg_2000(codestream: bytes, side: int) -> bytes:
    """The same codestream with another size in its SIZ marker segment, image and tile (ISO 15444-1 A.5.1)."""
    at = codestream.index(b"\xff\x4f\xff\x51") + 8
    size = struct.pack(">II", side, side)
    return codestream[:at] + size + codestream[at + 8 : at + 16] + size + codestream[at + 24 :]


def _jpeg(side: int) -> bytes:
    """A small JPEG with another size in its frame header (ISO 10918-1 B.2.2)."""
    file = BytesIO()
    Image.fromarray(np.full((64, 64), 77, np.uint8)).save(file, "JPEG")
    content = file.getvalue()
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", side, side) + content[at + 4 :]
