"""The first bytes of a received object's file: preamble, prefix and File Meta Information (PS3.10 7.1).

Written here, never taken from the network: a preamble may carry a program (CVE-2019-11687), and a stable
header makes the same data set the same file. Knows no library, only the few bytes that the clause asks for; and
finds them again, in files that are made here and in those that come by STOW-RS.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

IMPLEMENTATION_CLASS_UID = "2.25.270368559297714802618508887961494672406"
"""Of this node in every version: an update must not change the bytes of a file."""
IMPLEMENTATION_VERSION_NAME = "CXR_NODE"
PREAMBLE = bytes(128) + b"DICM"
MAX_BYTES = 64 * 1024
"""Of all that stands before a data set; private information of the sender included."""
_FIRST = len(PREAMBLE) + 12  # behind the group length
_GROUP_LENGTH = struct.pack("<HH2sH", 0x0002, 0x0000, b"UL", 4)
_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")  # PS3.5 7.1.2
_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX = 0x0002, 0x0003, 0x0010


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """What a file says of its data set; a UID that it does not name is ""."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    """Where the data set begins."""


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Encode preamble, prefix and group 0002 in Explicit VR Little Endian, as PS3.10 Table 7.1-1 orders them."""
    elements = b"".join(
        (
            struct.pack("<HH2sHI", 0x0002, 0x0001, b"OB", 0, 2) + b"\x00\x01",
            _text(0x0002, b"UI", sop_class_uid),
            _text(0x0003, b"UI", sop_instance_uid),
            _text(0x0010, b"UI", transfer_syntax_uid),
            _text(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _text(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        )
    )
    group_length = struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(elements))
    return PREAMBLE + group_length + elements


def renamed(head: bytes, meta: FileMeta, transfer_syntax_uid: str) -> bytes:
    """What stands before a data set, of another transfer syntax; the rest of it stays to the byte."""
    old, new = (_text(_TRANSFER_SYNTAX, b"UI", each) for each in (meta.transfer_syntax_uid, transfer_syntax_uid))
    elements = head[_FIRST : meta.size_bytes].replace(old, new, 1)
    return head[: _FIRST - 4] + struct.pack("<I", len(elements)) + elements


def _text(element: int, vr: bytes, value: str) -> bytes:
    """PS3.5 6.2: even length; a UID is padded by NUL, text by a space."""
    encoded = value.encode("ascii")
    if len(encoded) % 2:
        encoded += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 0x0002, element, vr, len(encoded)) + encoded


def read(head: bytes | bytearray) -> FileMeta | None:
    """Read the File Meta Information off the first bytes of a file; None where more of them are needed.

    Raises
    ------
    ValueError : it is no Part 10 file, or its File Meta Information does not hold together.
    """
    start = bytes(head[128 : len(PREAMBLE) + len(_GROUP_LENGTH)])
    if not (PREAMBLE[128:] + _GROUP_LENGTH).startswith(start):
        raise ValueError("no Part 10 file")
    if len(head) < _FIRST:
        return None
    end = _FIRST + int(struct.unpack_from("<I", head, _FIRST - 4)[0])
    if end > MAX_BYTES:
        raise ValueError("its file meta information is too long")
    if len(head) < end:
        return None
    found = _elements(bytes(head[_FIRST:end]))
    sop_class, instance, syntax = (
        found.get(number, b"").decode("latin-1").rstrip("\0 ")
        for number in (_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX)
    )
    return FileMeta(sop_class_uid=sop_class, sop_instance_uid=instance, transfer_syntax_uid=syntax, size_bytes=end)


def _elements(content: bytes) -> dict[int, bytes]:
    """Values of group 0002, by element number."""
    found, position = dict[int, bytes](), 0
    while position < len(content):
        try:
            group, element, vr, length = struct.unpack_from("<HH2sH", content, position)
            position += 8
            if vr in _LONG_VRS:
                length, position = struct.unpack_from("<I", content, position)[0], position + 4
        except struct.error:
            raise ValueError("its file meta information is cut") from None
        if group != 0x0002 or position + length > len(content):
            raise ValueError("its file meta information does not have the length that it states")
        found[element] = content[position : position + length]
        position += length
    return found


def split(content: bytes) -> tuple[str, memoryview]:
    """A file's SOP Instance UID, and where its data set begins; raises as `halves`."""
    meta, data_set = halves(content)
    return meta.sop_instance_uid, data_set


def halves(content: bytes) -> tuple[FileMeta, memoryview]:
    """What a file says of its data set, and the data set.

    Raises
    ------
    ValueError : it is not a Part 10 file.
    """
    meta = read(content[:MAX_BYTES])
    if meta is None:
        raise ValueError("no Part 10 file")
    return meta, memoryview(content)[meta.size_bytes :]
