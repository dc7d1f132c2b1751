"""Command sets of the frequent messages, read and written without a data set in between.

Knows no association. PS3.7 6.3.1 (Implicit VR Little Endian), 9.3.1 (C-STORE), E.1 (elements and their VRs).
"""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cxr_node.domain import Priority

LONGEST_PDU_BYTES = 1024 * 1024
"""For a peer without a limit."""
_P_DATA_TF, _COMMAND, _DATA, _LAST = 0x04, 0x01, 0x00, 0x02
_PIECES = 64  # in one call of the system, which takes up to 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One request with its data set, or one response; stands for all of its PDVs until the socket has them."""

    context_id: int
    command: bytes
    data_set: memoryview
    """Empty with a response."""
    longest: int
    """Bytes of a PDU's PDVs that the peer takes; 0: any."""

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Its P-DATA-TF PDUs, heads and contents in turn."""
        step = max(1, min(self.longest or LONGEST_PDU_BYTES, LONGEST_PDU_BYTES) - 6)
        for kind, content in ((_COMMAND, memoryview(self.command)), (_DATA, self.data_set)):
            for start in range(0, len(content), step):
                piece = content[start : start + step]
                control = kind | (_LAST if start + step >= len(content) else 0)
                lengths = (len(piece) + 6, len(piece) + 2)
                yield struct.pack(">BBIIBB", _P_DATA_TF, 0, *lengths, self.context_id, control)
                yield piece


def transmit(connection: socket.socket, message: Message) -> None:
    """Write a message; raises OSError if the peer is gone or reads too slowly."""
    pieces = message.pieces()
    if isinstance(connection, ssl.SSLSocket):
        for head in pieces:
            connection.sendall(b"".join((head, next(pieces))))
        return
    while some := list(itertools.islice(pieces, _PIECES)):
        while some:
            sent = connection.sendmsg(some)
            while some and sent >= len(some[0]):
                sent -= len(some.pop(0))
            if some:
                some[0] = memoryview(some[0])[sent:]


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
    ValueError : it is malformed.
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
