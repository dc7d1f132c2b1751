"""Syslog messages and how they travel over TLS: RFC 5424 (the message), RFC 5425 (its frame), PS3.15 A.6.

Knows no audit message. RFC 5425 has no acknowledgement, so this sender closes every connection and takes the
collector's own close as the proof that it has read everything (RFC 5425 4.4, RFC 8446 6.1).
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

MSGID = "DICOM+RFC3881"
_AUTHORIZATION = 10  # facility: security and authorization messages (A.6)
_APP_NAME = "cxr-node"
_PRINTABLE = {chr(code) for code in range(33, 127)}  # RFC 5424 6: PRINTUSASCII
_MAX_HOST_CHARS = 255
_TIMEOUT_S = 20.0
_CLOSE_S = 10.0
"""How long the collector may take to answer the close."""
_ACK_S = 1.0


class Severity(IntEnum):
    """RFC 5424 6.2.1, those that A.6 names."""

    WARNING = 4
    NOTICE = 5


class UnconfirmedError(OSError):
    """Nobody knows whether the collector has read what was sent: it goes again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who writes, as the header names it."""

    host: str
    pid: int

    def message(self, content: bytes, severity: Severity, at: datetime) -> bytes:
        """SYSLOG-MSG; without structured data, and without a byte order mark as the content is ASCII."""
        host = "".join(char if char in _PRINTABLE else "-" for char in self.host)[:_MAX_HOST_CHARS] or "-"
        stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        header = f"<{_AUTHORIZATION * 8 + severity}>1 {stamp} {host} {_APP_NAME} {self.pid} {MSGID} - "
        return header.encode() + content


def frame(message: bytes) -> bytes:
    """SYSLOG-FRAME: the length in octets, a space, the message (RFC 5425 4.3)."""
    return f"{len(message)} ".encode() + message


def send(address: tuple[str, int], context: ssl.SSLContext, messages: Sequence[bytes]) -> None:
    """Hand messages over, in their order; when this returns the collector has read them.

    Raises
    ------
    OSError : no connection, no common TLS, or no proof. All of the messages must go again.
    """
    with socket.create_connection(address, _TIMEOUT_S) as connection:
        connection.settimeout(_TIMEOUT_S)
        with context.wrap_socket(connection, server_hostname=address[0]) as secured:
            secured.sendall(b"".join(map(frame, messages)))
            _confirm(secured)


def _confirm(secured: ssl.SSLSocket) -> None:
    """Close, and wait for the collector's close_notify, which stands behind the last byte it has read.

    Some collectors just close, or not at all. Linux answers the bytes that a closed socket never read with a
    reset; so a plain end, or silence, behind which TCP has everything acknowledged, counts too.
    """
    secured.settimeout(_CLOSE_S)
    try:
        secured.unwrap()
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError, TimeoutError):
        pass
    except ssl.SSLError as error:
        if error.reason != "UNEXPECTED_EOF_WHILE_READING":
            raise
    else:
        return
    if not _all_acknowledged(secured):
        raise UnconfirmedError("the collector closed before it had read everything")


def _all_acknowledged(connection: socket.socket) -> bool:
    deadline = time.monotonic() + _ACK_S
    while (waiting := _unacknowledged_bytes(connection)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return waiting == 0 and connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def _unacknowledged_bytes(connection: socket.socket) -> int:
    """SIOCOUTQ of tcp(7); 1, which proves nothing, where the kernel does not tell."""
    with contextlib.suppress(OSError):
        number: int = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        return number
    return 1
