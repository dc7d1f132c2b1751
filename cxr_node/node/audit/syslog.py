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
_RECORD_BYTES = 1 << 14


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
        session = _Session(connection, context, address[0])
        session.write(b"".join(map(frame, messages)))
        session.end()
        _confirm(session, connection)


class _Session:
    """TLS, with every record that comes in our hands.

    `SSLSocket.unwrap` takes a fatal alert for the answer to its close: in TLS 1.3 that is how a collector refuses our
    certificate, after a handshake that we held for done.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        while not self._shaken():
            self._receive()

    def write(self, content: bytes) -> None:
        """Send all of it."""
        rest = memoryview(content)
        while rest:
            rest = rest[self._tls.write(rest) :]
            self._flush()

    def end(self) -> None:
        """Send our close_notify, and read nothing that came after it."""
        if self._has_ended():
            raise UnconfirmedError("the collector closed before it had read everything")
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()

    def wait(self) -> None:
        """Wait for the collector's close_notify; whatever else ends the connection is raised."""
        while not self._has_ended():
            self._receive()

    def _shaken(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._flush()
        return True

    def _has_ended(self) -> bool:
        """Take in what was received; True behind a close_notify."""
        try:
            while self._tls.read():
                pass  # a collector has nothing to say (RFC 5425 4.3)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLZeroReturnError:
            pass
        return True

    def _receive(self) -> None:
        if content := self._connection.recv(_RECORD_BYTES):
            self._incoming.write(content)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        self._connection.sendall(self._outgoing.read())


def _confirm(session: _Session, connection: socket.socket) -> None:
    """Wait for the collector's close_notify, which stands behind the last byte it has read.

    Some collectors just close, or not at all. Linux answers the bytes that a closed socket never read with a
    reset; so a plain end, or silence, behind which TCP has everything acknowledged, counts too.
    """
    connection.settimeout(_CLOSE_S)
    try:
        session.wait()
    except (ssl.SSLEOFError, TimeoutError):
        if not _all_acknowledged(connection):
            raise UnconfirmedError("the collector closed before it had read everything") from None


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
