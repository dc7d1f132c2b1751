"""A message with its data set as it leaves: cut into PDVs, not copied.

Knows no association. PS3.8 9.3.5 (P-DATA-TF), E.2 (message control header).
"""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_PDU_BYTES = 1024 * 1024
"""To a peer that takes any."""
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
    """Write a message; raises OSError where the peer has gone, or reads too slowly."""
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
