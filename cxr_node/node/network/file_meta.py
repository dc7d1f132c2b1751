"""The first bytes of a received object's file: preamble, prefix and File Meta Information (PS3.10 7.1).

Written here, never taken from the network: a preamble may carry a program (CVE-2019-11687), and a stable
header makes the same data set the same file. Knows no library, only the few bytes that the clause asks for; and
finds them again in files that are made here.
"""

from __future__ import annotations

import struct

IMPLEMENTATION_CLASS_UID = "2.25.270368559297714802618508887961494672406"
"""Of this node in every version: an update must not change the bytes of a file."""
IMPLEMENTATION_VERSION_NAME = "CXR_NODE"
PREAMBLE = bytes(128) + b"DICM"
_FIRST = len(PREAMBLE) + 12  # behind the group length


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


def _text(element: int, vr: bytes, value: str) -> bytes:
    """PS3.5 6.2: even length; a UID is padded by NUL, text by a space."""
    encoded = value.encode("ascii")
    if len(encoded) % 2:
        encoded += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 0x0002, element, vr, len(encoded)) + encoded


def split(content: bytes) -> tuple[str, memoryview]:
    """A file's SOP Instance UID, and where its data set begins.

    Raises
    ------
    ValueError : it is not a Part 10 file.
    """
    view = memoryview(content)
    if content[128:132] != b"DICM" or content[132:140] != struct.pack("<HH2sH", 0x0002, 0x0000, b"UL", 4):
        raise ValueError("no Part 10 file")
    position = _FIRST
    end, uid = position + struct.unpack_from("<I", content, _FIRST - 4)[0], ""
    while position < end:
        _, element, vr, length = struct.unpack_from("<HH2sH", content, position)
        start = position + 8
        if vr in (b"OB", b"UN"):  # PS3.5 7.1.2: two bytes reserved, and a length of four
            length, start = struct.unpack_from("<I", content, start)[0], start + 4
        if element == 0x0003:
            uid = bytes(view[start : start + length]).decode("ascii").rstrip("\0 ")
        position = start + length
    return uid, view[end:]
