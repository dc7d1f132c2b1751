"""The upper layer with bare sockets, for both ends of a measurement: the same small cost for whatever is measured.

A sender that knows when its last byte left, and what a destination needs to answer. PS3.8 9.3, PS3.7 9.3.1.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from benchmarks.images import SOP_CLASS_UID, TRANSFER_SYNTAX_UID, Numbered

MAX_PDU_BYTES = 131072
ASSOCIATE_RQ, ASSOCIATE_AC, P_DATA, RELEASE_RQ, RELEASE_RP = 1, 2, 4, 5, 6
C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP = 0x0001, 0x8001, 0x0030, 0x8030
VERIFICATION = "1.2.840.10008.1.1"
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_NO_DATA_SET = 0x0101
_IMPLEMENTATION = b"2.25.1"


class Readable(Protocol):
    """A socket's file."""

    def read(self, size: int, /) -> bytes:
        """So many bytes, or less where the peer has closed."""
        ...


class WireError(Exception):
    """The peer did something else than it must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One answered C-STORE; times in nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share."""

    begun_ns: int
    last_byte_ns: int
    """When the last byte of the data set had been handed to the system."""
    answered_ns: int


class Sender:
    """One association as requestor."""

    def __init__(self, port: int, called: str, sop_class_uid: str = SOP_CLASS_UID) -> None:
        self._socket = nodelay(socket.create_connection(("127.0.0.1", port), 60.0))
        self._file = self._socket.makefile("rb")
        self._sop_class_uid = sop_class_uid
        self._socket.sendall(_associate_rq(called, sop_class_uid))
        kind, answer = read_pdu(self._file)
        if kind != ASSOCIATE_AC:
            raise WireError(f"{called} answers the association with PDU type {kind}")
        self._max_pdu_bytes = _max_pdu_bytes(answer)
        self._message_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendall(pdu(RELEASE_RQ, bytes(4)))
        read_pdu(self._file)
        self._file.close()
        self._socket.close()

    def store(self, instance: Numbered) -> Sent:
        """C-STORE; an answer that is no success is an error."""
        begun = time.monotonic_ns()
        self._request(C_STORE_RQ, instance.sop_instance_uid)
        room = self._max_pdu_bytes - 6
        pieces = [memoryview(part) for part in instance.parts]
        for place, piece in enumerate(pieces):
            for start in range(0, len(piece), room):
                is_last = place == len(pieces) - 1 and start + room >= len(piece)
                self._socket.sendall(p_data(1, piece[start : start + room], is_last=is_last))
        last_byte = time.monotonic_ns()
        self._expect_success()
        return Sent(begun_ns=begun, last_byte_ns=last_byte, answered_ns=time.monotonic_ns())

    def echo(self) -> None:
        """C-ECHO, on an association for VERIFICATION."""
        self._request(C_ECHO_RQ, None)
        self._expect_success()

    def _request(self, field: int, sop_instance_uid: str | None) -> None:
        self._message_id = self._message_id % 65535 + 1
        elements = {0x0002: self._sop_class_uid.encode(), 0x0100: _us(field), 0x0110: _us(self._message_id)}
        if sop_instance_uid is not None:
            elements |= {0x0700: _us(0), 0x0800: _us(0x0001), 0x1000: sop_instance_uid.encode()}
        else:
            elements |= {0x0800: _us(_NO_DATA_SET)}
        self._socket.sendall(p_data(1, command(elements), is_command=True, is_last=True))

    def _expect_success(self) -> None:
        kind, content = read_pdu(self._file)
        if kind != P_DATA:
            raise WireError(f"PDU type {kind} instead of an answer")
        status = struct.unpack("<H", elements_of(content[6:])[0x0900])[0]
        if status != 0:
            raise WireError(f"status 0x{status:04X}")


def nodelay(connection: socket.socket) -> socket.socket:
    """Without Nagle's algorithm, which waits 40 ms for an acknowledgement that TCP delays."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_pdu(file: Readable) -> tuple[int, bytes]:
    """Type and content of the next PDU; (0, b"") where the peer has closed."""
    header = file.read(6)
    if len(header) < 6:
        return 0, b""
    kind, length = struct.unpack(">BxI", header)
    return kind, file.read(length)


def pdu(kind: int, content: bytes) -> bytes:
    """One PDU (PS3.8 9.3.1)."""
    return struct.pack(">BxI", kind, len(content)) + content


def p_data(context_id: int, piece: bytes | memoryview, *, is_last: bool, is_command: bool = False) -> bytes:
    """P-DATA-TF with one PDV (PS3.8 9.3.5)."""
    flags = is_command | is_last << 1
    return struct.pack(">BxIIBB", P_DATA, len(piece) + 6, len(piece) + 2, context_id, flags) + piece


def command(elements: dict[int, bytes]) -> bytes:
    """A command set in Implicit VR Little Endian (PS3.7 6.3.1), from values by element number."""
    even = {number: value + b"\0" * (len(value) % 2) for number, value in elements.items()}
    body = b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in even.items())
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def elements_of(encoded: bytes) -> dict[int, bytes]:
    """Read a command set: values by element number."""
    found, place = {}, 0
    while place < len(encoded):
        _, number, length = struct.unpack_from("<HHI", encoded, place)
        found[number] = encoded[place + 8 : place + 8 + length]
        place += 8 + length
    return found


def items(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of the items of an A-ASSOCIATE PDU, or of the sub-items of one."""
    place = 0
    while place < len(content):
        kind, length = struct.unpack_from(">BxH", content, place)
        yield kind, content[place + 4 : place + 4 + length]
        place += 4 + length


def item(kind: int, content: bytes) -> bytes:
    """One item of an A-ASSOCIATE PDU (PS3.8 9.3.2)."""
    return struct.pack(">BxH", kind, len(content)) + content


def user_information() -> bytes:
    """Maximum length and implementation (PS3.8 9.3.2.3, PS3.7 D.3.3)."""
    return item(0x50, item(0x51, struct.pack(">I", MAX_PDU_BYTES)) + item(0x52, _IMPLEMENTATION))


def accepting(request: bytes) -> bytes:
    """A-ASSOCIATE-AC that takes every presentation context, in the first transfer syntax that is proposed for it."""
    accepted = b""
    for kind, content in items(request[68:]):
        if kind == 0x20:
            syntax = next(value for sub, value in items(content[4:]) if sub == 0x40)
            accepted += item(0x21, content[:1] + bytes(3) + item(0x40, syntax))
    return pdu(ASSOCIATE_AC, request[:68] + item(0x10, _APPLICATION_CONTEXT) + accepted + user_information())


def response(context_id: int, field: int, request: dict[int, bytes]) -> bytes:
    """Success, in answer to a command."""
    values = {0x0002: request[0x0002], 0x0100: _us(field), 0x0120: request[0x0110], 0x0800: _us(_NO_DATA_SET)}
    values[0x0900] = _us(0)
    if 0x1000 in request:
        values[0x1000] = request[0x1000]
    return p_data(context_id, command(values), is_command=True, is_last=True)


def _associate_rq(called: str, sop_class_uid: str) -> bytes:
    syntaxes: Sequence[str] = (
        (TRANSFER_SYNTAX_UID, "1.2.840.10008.1.2") if sop_class_uid == VERIFICATION else (TRANSFER_SYNTAX_UID,)
    )
    proposed = item(0x30, sop_class_uid.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
    titles = called.ljust(16).encode() + b"BENCH".ljust(16)
    context = item(0x20, struct.pack(">B3x", 1) + proposed)
    fixed = struct.pack(">HH", 1, 0) + titles + bytes(32)
    return pdu(ASSOCIATE_RQ, fixed + item(0x10, _APPLICATION_CONTEXT) + context + user_information())


def _max_pdu_bytes(accepted: bytes) -> int:
    """What the peer takes (0: as much as one likes), and no more than we send."""
    user = next(content for kind, content in items(accepted[68:]) if kind == 0x50)
    told = next(struct.unpack(">I", content)[0] for kind, content in items(user) if kind == 0x51)
    return min(MAX_PDU_BYTES, told or MAX_PDU_BYTES)


def _us(value: int) -> bytes:
    return struct.pack("<H", value)
