"""A Storage SCU made of bare bytes, for what no well-behaved library would send (PS3.8 9.3, PS3.7 9.3.1)."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Self

CR = "1.2.840.10008.5.1.4.1.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT, IMPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RP, ABORT = 0x02, 0x03, 0x04, 0x06, 0x07
PDV_BYTES = 65536


def pdu(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(content)) + content


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def associate_rq(
    contexts: dict[int, tuple[str, tuple[str, ...]]], called: str = "CXR_NODE", calling: str = "WIRE"
) -> bytes:
    proposed = b"".join(
        _item(
            0x20,
            struct.pack(">B3x", number)
            + _item(0x30, abstract.encode())
            + b"".join(_item(0x40, syntax.encode()) for syntax in syntaxes),
        )
        for number, (abstract, syntaxes) in contexts.items()
    )
    user = _item(0x50, _item(0x51, struct.pack(">I", 16384)) + _item(0x52, b"1.2.3.4"))
    titles = called.ljust(16).encode() + calling.ljust(16).encode()
    fixed = struct.pack(">HH", 1, 0) + titles + bytes(32)
    return pdu(0x01, fixed + _item(0x10, b"1.2.840.10008.3.1.1.1") + proposed + user)


def command(field: int, *, sop_class: bytes = b"", sop_instance: bytes = b"", has_data: bool = True) -> bytes:
    """A command set; empty UIDs are left out."""
    elements = [
        (0x0002, _even(sop_class)) if sop_class else None,
        (0x0100, struct.pack("<H", field)),
        (0x0110, struct.pack("<H", 7)),
        (0x0700, struct.pack("<H", 2)) if field == 0x0001 else None,
        (0x0800, struct.pack("<H", 0x0001 if has_data else 0x0101)),
        (0x1000, _even(sop_instance)) if sop_instance else None,
    ]
    body = b"".join(struct.pack("<HHI", 0, tag, len(value)) + value for tag, value in filter(None, elements))
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def pdv(content: bytes, *, context_id: int = 1, is_command: bool = False, is_last: bool = True) -> bytes:
    return struct.pack(">IBB", len(content) + 2, context_id, is_command | is_last << 1) + content


class Wire:
    """One connection; reads answers as PDUs."""

    def __init__(self, port: int, timeout_s: float = 20.0, from_host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s, source_address=(from_host, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def receive(self) -> tuple[int, bytes]:
        """The next PDU: its type and content; (0, b"") where the peer closed."""
        with contextlib.suppress(ConnectionResetError):
            header = self._exactly(6)
            if len(header) == 6:
                kind, length = struct.unpack(">BxI", header)
                return kind, self._exactly(length)
        return 0, b""

    def _exactly(self, number: int) -> bytes:
        content = b""
        while len(content) < number and (some := self.socket.recv(number - len(content))):
            content += some
        return content

    def associate(self, sop_class: str = DX, syntax: str = EXPLICIT, **titles: str) -> tuple[int, bytes]:
        self.send(associate_rq({1: (sop_class, (syntax,)), 3: (VERIFICATION, (IMPLICIT,))}, **titles))
        return self.receive()

    def begin_store(self, uid: str | bytes, sop_class: str = DX, context_id: int = 1) -> None:
        encoded = uid if isinstance(uid, bytes) else uid.encode()
        request = command(0x0001, sop_class=sop_class.encode(), sop_instance=encoded)
        self.send(pdu(P_DATA, pdv(request, context_id=context_id, is_command=True)))

    def store(self, uid: str | bytes, data_set: bytes, sop_class: str = DX) -> int | None:
        """Send one object; its status, or None where the association ended."""
        self.begin_store(uid, sop_class)
        self.send_data(data_set)
        return self.status()

    def send_data(self, data_set: bytes) -> None:
        for start in range(0, max(len(data_set), 1), PDV_BYTES):
            part = data_set[start : start + PDV_BYTES]
            self.send(pdu(P_DATA, pdv(part, is_last=start + PDV_BYTES >= len(data_set))))

    def echo(self) -> int | None:
        request = command(0x0030, sop_class=VERIFICATION.encode(), has_data=False)
        self.send(pdu(P_DATA, pdv(request, context_id=3, is_command=True)))
        return self.status()

    def status(self) -> int | None:
        kind, content = self.receive()
        if kind != P_DATA:
            return None
        at = content.index(struct.pack("<HHI", 0x0000, 0x0900, 2))
        return int(struct.unpack_from("<H", content, at + 8)[0])

    def release(self) -> int:
        self.send(pdu(0x05, bytes(4)))
        return self.receive()[0]


def data_set_of(part10: bytes) -> bytes:
    """What follows the File Meta Information of a Part 10 file."""
    length = struct.unpack_from("<I", part10, 132 + 8)[0]
    return part10[132 + 12 + length :]
