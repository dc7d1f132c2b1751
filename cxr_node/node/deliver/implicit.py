"""A data set in Implicit VR Little Endian, for a destination that accepts nothing else: every value keeps its bytes.

PS3.5 7.1.2, 7.1.3, 7.5, A.1.
"""

from __future__ import annotations

import struct

from cxr_node.node.network.pictures import CUT, Head, head_at

_ITEM_TAG, _ITEM_END, _SEQUENCE_END_TAG = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_HEAD = struct.Struct("<HHI")
_MAX_DEPTH = 32

Pieces = list[bytes | memoryview]


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
        raise ValueError(CUT)
    return pieces, position


def _behind(view: memoryview, position: int, limit: int) -> int:
    """Step over the delimiter of an item."""
    if position + 8 > limit or _HEAD.unpack_from(view, position)[:2] != _ITEM_END:
        raise ValueError(CUT)
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
    raise ValueError(CUT)


def _size(pieces: Pieces) -> int:
    return sum(len(piece) for piece in pieces)
