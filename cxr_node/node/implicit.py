"""A data set from Explicit to Implicit VR Little Endian: the heads of its elements change, no value does.

Text stays in the bytes it was carried in, whatever its character set, and whether or not that is declared. Knows no
attribute and no library. PS3.5 7.1.2 and 7.1.3 (heads), 6.2.2 (UN), 7.2 (group length), 7.5 (sequences), A.1, A.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

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
            raise ValueError("an element of undefined length is no sequence: it cannot be in Implicit VR")
        if self.start + self.length > limit:
            raise ValueError(_CUT)
        return self.start + self.length


def to_implicit(data_set: memoryview) -> memoryview:
    """Encode anew.

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
