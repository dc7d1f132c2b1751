"""PROXY protocol, version 2: the header in which a load balancer names the peer that it passes on.

HAProxy's specification (proxy-protocol.txt, 2.2). Knows no association and not whom to believe. Not one byte beyond the
header is read: what follows it may be TLS. Version 1, a line of text, is refused.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from dataclasses import dataclass

from cxr_node.errors import CxrNodeError

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
VERSION_1 = b"PROXY "
HEAD_BYTES = 16
"""Signature, version and command, family, length of what follows."""
LONGEST_BYTES = 4096
"""Of what follows: addresses, and TLVs (a peer's certificate names, a unique identifier), which are skipped."""
HEADER_S = 3.0
"""From the connection to the end of its header; a proxy sends it with its first packet."""
_LOCAL, _PROXY = 0, 1
_ADDRESS_BYTES = {0x11: 4, 0x21: 16}
"""Of TCP over IPv4, and over IPv6."""
_PORTS_BYTES = 4
_HINT = "listen.proxy_protocol names this address, and version 2 is asked of it (HAProxy: send-proxy-v2)"
UNASKED = "a PROXY protocol header, from an address that listen.proxy_protocol does not name"


class HeaderError(CxrNodeError):
    """Not a header that can be believed."""


@dataclass(frozen=True, slots=True)
class Source:
    """The peer for which a proxy speaks."""

    host: str
    port: int


def read(connection: socket.socket) -> Source | None:
    """Read a header; None where the proxy speaks for itself (LOCAL: its own health check).

    Raises
    ------
    HeaderError : there is none, none that can be read, or it comes too slowly.
    EOFError : the connection was closed without a byte.
    """
    deadline = time.monotonic() + HEADER_S
    head = bytearray()
    while len(head) < HEAD_BYTES:
        received = _some(connection, HEAD_BYTES - len(head), deadline)
        if not received and not head:
            raise EOFError
        head += _unless_closed(received)
        _require_beginning(head)
    body = bytearray()
    length = body_bytes(head)
    while len(body) < length:
        body += _unless_closed(_some(connection, length - len(body), deadline))
    return source(head, body)


def is_begun(first: bytes) -> bool:
    """Whether the first bytes of a connection, six or more, are those of a header of either version."""
    return first.startswith((SIGNATURE[:6], VERSION_1))


def body_bytes(head: bytes | bytearray) -> int:
    """Read how much follows the first 16 bytes.

    Raises
    ------
    HeaderError : it is not a header of version 2, or too long.
    """
    _require_beginning(head)
    version, command = head[12] >> 4, head[12] & 0x0F
    if version != 2:
        raise HeaderError(f"version {version} of the PROXY protocol in a binary header; {_HINT}")
    if command not in (_LOCAL, _PROXY):
        raise HeaderError(f"command {command} of the PROXY protocol, which there is not")
    length = int.from_bytes(head[14:16])
    if length > LONGEST_BYTES:
        raise HeaderError(f"a PROXY protocol header of {length} bytes; {LONGEST_BYTES} are allowed")
    return length


def source(head: bytes | bytearray, body: bytes | bytearray) -> Source | None:
    """Read the peer's address and port; an IPv4 address inside IPv6 is what it means.

    Raises
    ------
    HeaderError : it names no peer over TCP, or ends before its addresses do.
    """
    if head[12] & 0x0F == _LOCAL:
        return None
    size = _ADDRESS_BYTES.get(head[13])
    if size is None:
        raise HeaderError(f"a PROXY protocol header without a peer over TCP (family {head[13]:02X}H)")
    if len(body) < 2 * size + _PORTS_BYTES:
        raise HeaderError(f"a PROXY protocol header of {len(body)} bytes, shorter than its addresses")
    address = ipaddress.ip_address(bytes(body[:size]))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return Source(str(mapped or address), int.from_bytes(body[2 * size : 2 * size + 2]))


def _require_beginning(received: bytes | bytearray) -> None:
    """Refuse at the first byte that is not a header's: what is no header is not waited for."""
    if received.startswith(VERSION_1):
        raise HeaderError(f"a PROXY protocol header of version 1; {_HINT}")
    if not any(begin.startswith(received[: len(begin)]) for begin in (SIGNATURE, VERSION_1)):
        raise HeaderError(f"no PROXY protocol header; {_HINT}")


def _some(connection: socket.socket, number: int, deadline: float) -> bytes:
    """Read what has come, up to `number` bytes; b"" where the peer closed."""
    remaining_s = deadline - time.monotonic()
    try:
        if remaining_s <= 0:
            raise TimeoutError
        connection.settimeout(remaining_s)
        return connection.recv(number)
    except TimeoutError as error:
        raise HeaderError(f"no whole PROXY protocol header within {HEADER_S:g} s; {_HINT}") from error
    except ConnectionError:
        return b""


def _unless_closed(received: bytes) -> bytes:
    if not received:
        raise HeaderError("the connection was closed in the middle of a PROXY protocol header")
    return received
