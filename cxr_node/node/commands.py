"""Command sets of the messages that come by the thousand, read and written without a data set in between.

Knows no association. PS3.7 6.3.1 (Implicit VR Little Endian), 9.3.1 (C-STORE), E.1 (elements and their VRs).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from cxr_node.domain import Priority

PRIORITIES = {Priority.MEDIUM: 0, Priority.HIGH: 1, Priority.LOW: 2}
"""Codes of (0000,0700), PS3.7 9.3.1.1."""
NO_DATA_SET = 0x0101
_STORE_RQ, _STORE_RSP = 0x0001, 0x8001
_SOP_CLASS, _FIELD, _MESSAGE_ID, _ANSWERED, _PRIORITY, _DATA_SET, _STATUS, _SOP_INSTANCE = (
    *(0x0002, 0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x0900, 0x1000),
)
_KEYWORDS = {
    _SOP_CLASS: "AffectedSOPClassUID",
    _FIELD: "CommandField",
    _MESSAGE_ID: "MessageID",
    _PRIORITY: "Priority",
    _DATA_SET: "CommandDataSetType",
    _SOP_INSTANCE: "AffectedSOPInstanceUID",
    0x1002: "EventTypeID",
}
_TEXT = (_SOP_CLASS, _SOP_INSTANCE)


def read(encoded: bytes) -> dict[str, int | str]:
    """Read the elements that are obeyed here, by keyword: UI as text, US as a number where it has the length of one.

    Raises
    ------
    ValueError : it does not hold together.
    """
    found: dict[str, int | str] = {}
    position = 0
    while position < len(encoded):
        if position + 8 > len(encoded):
            raise ValueError("half an element")
        group, element, length = struct.unpack_from("<HHI", encoded, position)
        value = encoded[position + 8 : position + 8 + length]
        position += 8 + length
        if group != 0 or position > len(encoded):
            raise ValueError("no command set")
        if element in _TEXT:
            found[_KEYWORDS[element]] = value.decode("latin-1").rstrip("\0 ")
        elif element in _KEYWORDS and length == 2:
            found[_KEYWORDS[element]] = int.from_bytes(value, "little")
    return found


def store_request(sop_class_uid: str, sop_instance_uid: str, message_id: int) -> bytes:
    """Encode a C-STORE-RQ of medium priority (9.3.1.1)."""
    return _encoded(
        {
            _SOP_CLASS: sop_class_uid,
            _FIELD: _STORE_RQ,
            _MESSAGE_ID: message_id,
            _PRIORITY: PRIORITIES[Priority.MEDIUM],
            _DATA_SET: 0x0001,
            _SOP_INSTANCE: sop_instance_uid,
        }
    )


def store_response(sop_class_uid: str, sop_instance_uid: str, message_id: int, status: int) -> bytes:
    """Encode a C-STORE-RSP (9.3.1.2); a UID that is empty is left out."""
    return _encoded(
        {
            _SOP_CLASS: sop_class_uid,
            _FIELD: _STORE_RSP,
            _ANSWERED: message_id,
            _DATA_SET: NO_DATA_SET,
            _STATUS: status,
            _SOP_INSTANCE: sop_instance_uid,
        }
    )


def _encoded(values: Mapping[int, int | str]) -> bytes:
    elements = b"".join(_element(element, value) for element, value in values.items() if value != "")
    return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements


def _element(element: int, value: int | str) -> bytes:
    encoded = struct.pack("<H", value) if isinstance(value, int) else value.encode("ascii")
    encoded += b"\0" * (len(encoded) % 2)
    return struct.pack("<HHI", 0, element, len(encoded)) + encoded
