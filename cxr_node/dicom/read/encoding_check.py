"""Whether a Part 10 file can be walked from its first element to its last: tags, VRs, lengths, sequences, fragments.

pydicom guesses where an encoding contradicts itself, opens a sequence only when it is asked for, and stops at the pixel
data; before an object is acknowledged, all of it must be what it says it is. PS3.5 7, 7.5, A.4, 6.2.2 (UN).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.datadict import dictionary_VR
from pydicom.uid import UID
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from cxr_node.dicom.part10 import (
    CUT_PIXELS,
    HUGE_BYTES,
    MAX_DEPTH,
    MAX_HEADER_BYTES,
    MAX_HEADER_READS,
    PIXEL_TAGS,
    as_text,
    require_prefix,
)
from cxr_node.errors import InstanceError

_PREFIX_END = 132  # PS3.10 7.1: preamble and prefix
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END, _DELIMITERS = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFE
_GROUP_LENGTH, _TRANSFER_SYNTAX, _PIXEL_DATA = 0x00020000, 0x00020010, 0x7FE00010
_NUMBER_OF_FRAMES, _CHARACTER_SET = 0x00280008, 0x00080005
_MAX_CHARACTER_SET_BYTES = 1024
"""All defined terms together are half as long (PS3.3 C.12.1.1.2)."""
_FIRST_GROUP = 0x0008
"""Lower ones are of commands, of the File Meta Information and of directories, not of data sets (PS3.5 7.1)."""
_VRS = frozenset(str(vr) for vr in STANDARD_VR)
_MAX_UID_BYTES = 128
_CUT = "it ends in the middle of an attribute, or of what holds it"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What is being walked over: the data set, a sequence, an item, or the fragments of pixel data."""

    end: int | None
    """None where a delimiter ends it."""
    limit: int
    """Where it must have ended at the latest."""
    implicit: bool
    holds_items: bool = False
    holds_fragments: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """Tag, VR ("" in Implicit VR) and length of an element, and where its value begins."""

    tag: int
    vr: str
    length: int
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What was asked for, of the File Meta Information and of the data set before its pixel data, as it is encoded."""

    by_tag: Mapping[int, tuple[str, bytes]]
    """VR ("" in Implicit VR) and value; a tag that came twice has the last one."""
    order: str

    def text(self, tag: int) -> str:
        """As `as_text`; "" where it is absent or empty."""
        return as_text(self.by_tag.get(tag, ("", b""))[1])

    def number(self, tag: int, default: int) -> int:
        """Of a US, UL or IS attribute; `default` where it is absent or empty."""
        vr, value = self.by_tag.get(tag, ("", b""))
        if not value:
            return default
        if vr in ("IS", "DS") or tag == _NUMBER_OF_FRAMES:
            return int(value.strip(b" \0") or default)
        return int.from_bytes(value[: 4 if vr in ("UL", "SL") else 2], "little" if self.order == "<" else "big")


def check(file: BinaryIO, size_bytes: int, wanted: Collection[int] = ()) -> Values:
    """Walk over a file.

    `wanted` : tags whose values are told
    Raises InstanceError: where it does not hold together, or has more attributes or levels than a radiograph can have.
    """
    require_prefix(file, size_bytes)
    found: dict[int, tuple[str, bytes]] = {}
    start, syntax = _meta(file, size_bytes, wanted, found)
    order = "<" if syntax.is_little_endian else ">"
    walk = _Walk(file, order, syntax.is_encapsulated)
    walk.run(start, _Part(end=size_bytes, limit=size_bytes, implicit=syntax.is_implicit_VR), wanted, found)
    return Values(by_tag=found, order=order)


def _meta(
    file: BinaryIO, size_bytes: int, wanted: Collection[int], found: dict[int, tuple[str, bytes]]
) -> tuple[int, UID]:
    """Find where the data set begins and how it is encoded (PS3.10 7.1: Explicit VR Little Endian, group 0002)."""
    walk = _Walk(file, "<", encapsulated=False)
    whole = _Part(end=size_bytes, limit=size_bytes, implicit=False)
    position, end, syntax = _PREFIX_END, size_bytes, ""
    while position < end and walk.group(position) == 2:
        head = walk.head(position, whole)
        position = walk.skip(head, whole)
        file.seek(head.start)
        if head.tag == _GROUP_LENGTH:
            if head.length != 4:
                raise InstanceError("its file meta information has no length")
            end = position + int(struct.unpack("<I", file.read(4))[0])
        elif head.tag == _TRANSFER_SYNTAX:
            syntax = file.read(min(head.length, _MAX_UID_BYTES)).decode("ascii", "replace").strip(" \0")
        if head.tag in wanted:
            found[head.tag] = walk.value(head)
    uid = UID(syntax)
    if not uid.is_transfer_syntax:
        raise InstanceError("its file meta information names no transfer syntax")
    if uid.is_deflated:
        raise InstanceError("the deflated transfer syntax is not accepted")
    return position, uid


class _Walk:
    """Reads the heads of elements, one after the other, and nothing between them."""

    def __init__(self, file: BinaryIO, order: str, encapsulated: bool) -> None:
        self._file, self._order, self._encapsulated = file, order, encapsulated
        self._tag = struct.Struct(f"{order}HH")
        self._left, self._bytes_left = MAX_HEADER_READS, MAX_HEADER_BYTES

    def run(self, position: int, whole: _Part, wanted: Collection[int], found: dict[int, tuple[str, bytes]]) -> None:
        """Walk from the first element of a data set to the end of the file; what is wanted is found on the way."""
        parts = [whole]
        while parts:
            part = parts[-1]
            if position == part.end:
                parts.pop()
                continue
            head = self.head(position, part)
            if head.tag >> 16 == _DELIMITERS:
                position = self._delimit(head, parts)
                continue
            if part.holds_items:
                raise InstanceError("a sequence holds something else than items")
            if len(parts) == 1 and head.tag >> 16 < _FIRST_GROUP:
                raise InstanceError("a data set holds attributes that belong elsewhere")
            inside = self._inside(head, part, at_top=len(parts) == 1)
            position = head.start if inside is not None else self.skip(head, part)
            if inside is not None:
                self._enter(parts, inside)
            elif head.length <= HUGE_BYTES and head.tag != _PIXEL_DATA:
                self._count(head)
                if head.tag in wanted and len(parts) == 1:
                    found[head.tag] = self.value(head)
            if head.tag in PIXEL_TAGS and len(parts) <= 2:
                wanted = ()  # what comes behind the pixel data is nobody's header

    def head(self, position: int, part: _Part) -> _Head:
        """Read one head."""
        self._left -= 1
        if self._left < 0:
            raise InstanceError("its header is larger than that of any radiograph")
        self._file.seek(position)
        content = self._file.read(8)
        if len(content) < 8 or position + 8 > part.limit:
            raise InstanceError(_CUT)
        group, number = self._tag.unpack_from(content)
        tag = group << 16 | number
        if part.implicit or group == _DELIMITERS:
            return _Head(tag=tag, vr="", length=self._number(content[4:]), start=position + 8)
        vr = content[4:6].decode("latin-1")
        if vr not in _VRS:  # nobody can tell how long its length field is: pydicom says 2 bytes, DCMTK 4
            raise InstanceError("an attribute has no VR")
        if vr not in EXPLICIT_VR_LENGTH_32:
            return _Head(tag=tag, vr=vr, length=self._number(content[6:]), start=position + 8)
        if position + 12 > part.limit:
            raise InstanceError(_CUT)
        return _Head(tag=tag, vr=vr, length=self._number(self._file.read(4)), start=position + 12)

    def value(self, head: _Head) -> tuple[str, bytes]:
        """Read VR and value."""
        self._file.seek(head.start)
        return head.vr, self._file.read(head.length)

    def group(self, position: int) -> int:
        """Read the group of a tag alone; 0 at the end of the file."""
        self._file.seek(position)
        return self._number(self._file.read(2))

    def skip(self, head: _Head, part: _Part) -> int:
        """Find the end of a value."""
        if head.length == _UNDEFINED:
            raise InstanceError("an attribute that is no sequence has no length")
        if head.start + head.length > part.limit:
            raise InstanceError(CUT_PIXELS if part.holds_fragments or head.tag == _PIXEL_DATA else _CUT)
        return head.start + head.length

    def _require_code_string(self, head: _Head) -> None:
        """All text hangs on it, and pydicom converts it while it reads, so that an error in it ends the reading."""
        is_short = head.vr in ("", "CS", "UN") and head.length <= _MAX_CHARACTER_SET_BYTES
        if not is_short or any(byte < ord(" ") for byte in self.value(head)[1].rstrip(b" \0")):
            raise InstanceError("its Specific Character Set is no code string")

    def _count(self, head: _Head) -> None:
        self._bytes_left -= head.length
        if self._bytes_left < 0:
            raise InstanceError("its header is larger than that of any radiograph")

    def _number(self, content: bytes) -> int:
        return int.from_bytes(content, "little" if self._order == "<" else "big")

    def _inside(self, head: _Head, part: _Part, at_top: bool) -> _Part | None:
        """Tell what of a value is walked over in turn: None where it is taken as it is."""
        if head.tag == _CHARACTER_SET:
            self._require_code_string(head)
        end = None if head.length == _UNDEFINED else head.start + head.length
        limit = part.limit if end is None else self.skip(head, part)
        if head.tag == _PIXEL_DATA and at_top and (end is None) != self._encapsulated:
            raise InstanceError("its pixel data is not encoded as its transfer syntax has it")
        if head.tag == _PIXEL_DATA and end is None and not part.implicit:
            return _Part(end=None, limit=limit, implicit=False, holds_items=True, holds_fragments=True)
        if head.vr == "UN" and end is None:  # its items are in Implicit VR
            return _Part(end=None, limit=limit, implicit=True, holds_items=True)
        if head.vr == "SQ" or (part.implicit and (end is None or _is_sequence(head.tag))):
            return _Part(end=end, limit=limit, implicit=part.implicit, holds_items=True)
        return None

    def _delimit(self, head: _Head, parts: list[_Part]) -> int:
        """Enter an item, step over a fragment, or leave what a delimiter ends."""
        part = parts[-1]
        if head.tag == _ITEM and part.holds_fragments:
            return self.skip(head, part)
        if head.tag == _ITEM and part.holds_items:
            end = None if head.length == _UNDEFINED else self.skip(head, part)
            limit = part.limit if end is None else end
            self._enter(parts, _Part(end=end, limit=limit, implicit=part.implicit))
        elif part.end is None and head.length == 0 and head.tag == (_SEQUENCE_END if part.holds_items else _ITEM_END):
            parts.pop()
        else:
            raise InstanceError("an item or a delimiter is where none can be")
        return head.start

    def _enter(self, parts: list[_Part], inside: _Part) -> None:
        if len(parts) > 2 * MAX_DEPTH:  # a sequence and its item are one level
            raise InstanceError("its sequences are nested deeper than those of any radiograph")
        parts.append(inside)


def _is_sequence(tag: int) -> bool:
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False
