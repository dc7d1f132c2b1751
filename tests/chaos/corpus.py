"""Radiographs with their structure broken: tags, VRs, lengths, nesting, character sets, UIDs, fragments, encodings.

A valid object is read into its elements, some of them are changed, and it is written again with whatever was wished:
what comes out is wrong in one to three places and right everywhere else. The same seed makes the same corpus.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image
from pydicom import uid as syntaxes
from pydicom.encaps import encapsulate

from tests import builders
from tests.node import wire

CANARY = "escaped-from-the-spool"
"""Part of every name that wants out."""
LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
VRS = (*LONG_VRS, *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"FD", b"FL", b"IS", b"LO", b"PN", b"SH", b"SS", b"TM"))
VRS += (b"DT", b"LT", b"SL", b"ST", b"UI", b"UL", b"US")
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID = 0x00080018, 0x0020000D, 0x0020000E


@dataclass(slots=True)
class Element:
    """One data element; `length` is written instead of the true one where it is set."""

    tag: int
    vr: bytes
    value: bytes | list[list[Element]]
    length: int | None = None
    delimited: bool = True
    """Whether a sequence of undefined length gets its end."""


@dataclass(slots=True)
class Draft:
    """An object under change."""

    elements: list[Element]
    syntax: str
    explicit: bool
    affected_uid: bytes
    last: list[Callable[[bytes], bytes]] = field(default_factory=list)
    """What is done to the encoded data set."""

    def find(self, tag: int) -> Element | None:
        return next((element for element in self.elements if element.tag == tag), None)

    def put(self, tag: int, vr: bytes, value: bytes | list[list[Element]]) -> Element:
        """Set an element, in its place by tag."""
        element = Element(tag, vr, value)
        self.elements = sorted([*(old for old in self.elements if old.tag != tag), element], key=lambda each: each.tag)
        return element

    def encoded(self) -> bytes:
        content = write(self.elements, self.explicit)
        for change in self.last:
            content = change(content)
        return content


def read(content: bytes) -> list[Element]:
    """Elements of a valid data set in Explicit VR Little Endian (PS3.5 7.1)."""
    found, at = list[Element](), 0
    while at < len(content):
        group, number, vr = struct.unpack_from("<HH2s", content, at)
        is_long = vr in LONG_VRS
        length = struct.unpack_from("<I" if is_long else "<H", content, at + (8 if is_long else 6))[0]
        at += 12 if is_long else 8
        if length == UNDEFINED:
            length = len(content) - at  # encapsulated pixel data, the last element
        value = content[at : at + length]
        at += length
        items = _items(value) if vr == b"SQ" else value
        found.append(Element(group << 16 | number, vr, items, UNDEFINED if group == 0x7FE0 and vr == b"OB" else None))
    return found


def _items(content: bytes) -> list[list[Element]]:
    items, at = list[list[Element]](), 0
    while at < len(content):
        length = struct.unpack_from("<I", content, at + 4)[0]
        items.append(read(content[at + 8 : at + 8 + length]))
        at += 8 + length
    return items


def write(elements: list[Element], explicit: bool) -> bytes:
    """Encode as told, right or wrong."""
    return b"".join(_write(element, explicit) for element in elements)


def _write(element: Element, explicit: bool) -> bytes:
    if isinstance(element.value, bytes):
        value = element.value
    else:
        value = b"".join(tag(ITEM, len(item := write(each, explicit))) + item for each in element.value)
        if element.length == UNDEFINED and element.delimited:
            value += tag(SEQUENCE_END, 0)
    length = len(value) if element.length is None else element.length
    if not explicit:
        return tag(element.tag, length) + value
    head = struct.pack("<HH2s", element.tag >> 16, element.tag & 0xFFFF, element.vr)
    if element.vr in LONG_VRS:
        return head + struct.pack("<HI", 0, length) + value
    return head + struct.pack("<H", length & 0xFFFF) + value


def tag(number: int, length: int) -> bytes:
    """Head of an item, of a delimiter, or of an element in Implicit VR."""
    return struct.pack("<HHI", number >> 16, number & 0xFFFF, length & UNDEFINED)


@cache
def valid(syntax: str) -> bytes:
    """The data set of a valid object in a transfer syntax, Explicit VR."""
    stored = builders.chest(rows=160, columns=136)
    if syntax == syntaxes.JPEGBaseline8Bit:
        pixels, file = (stored >> 4).astype(np.uint8), BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        dataset = builders.radiograph(1, pixels, LossyImageCompression="01", LossyImageCompressionMethod="ISO_10918_1")
        dataset.PixelData = encapsulate([file.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
        return wire.data_set_of(builders.part10(dataset, syntax))
    encoded = syntaxes.ExplicitVRLittleEndian if syntax == syntaxes.ImplicitVRLittleEndian else syntax
    return wire.data_set_of(builders.part10(builders.radiograph(1, stored), encoded))


SYNTAXES = tuple(
    map(
        str,
        (
            syntaxes.ExplicitVRLittleEndian,
            syntaxes.ImplicitVRLittleEndian,
            syntaxes.RLELossless,
            syntaxes.JPEGBaseline8Bit,
            syntaxes.JPEG2000Lossless,
        ),
    )
)
CONTEXTS = {1 + 2 * place: syntax for place, syntax in enumerate(SYNTAXES)}
"""Presentation contexts under which the corpus is sent."""


def even(value: bytes) -> bytes:
    """Pad a UID."""
    return value + b"\0" * (len(value) % 2)


def deflated(content: bytes) -> bytes:
    """As the deflated transfer syntax has it (PS3.5 A.5)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()
