"""Collectors of audit messages, of every temper, on free loopback ports: syslog over TLS (RFC 5425)."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from enum import Enum

from tests.node.certificates import Identity
from tests.patience import PATIENCE_S


class Temper(Enum):
    """How a collector ends a connection."""

    POLITE = "answers close_notify"
    BRUSQUE = "closes without close_notify when the sender has closed"
    SILENT = "never closes"
    DYING = "resets the connection in the middle of a batch"
    DEAF = "closes at once, nothing is read"


class Collector:
    """Keeps the messages it has read, repeats included."""

    def __init__(self, identity: Identity, temper: Temper = Temper.POLITE, port: int = 0, dies_after: int = 1) -> None:
        self.temper = temper
        self.dies_after = dies_after
        """Messages read on a connection before it is reset."""
        self.messages: list[bytes] = []
        self.connections = 0
        self.arrived = threading.Condition()
        self._context = identity.server()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def wait(self, messages: int, timeout_s: float = PATIENCE_S) -> bool:
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.messages) >= messages, timeout_s)

    def bodies(self) -> list[bytes]:
        """The XML of each message, each once, in the order of its first arrival."""
        return list(dict.fromkeys(message.split(b" - ", 1)[1] for message in self.messages))

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._quietly, args=(connection,), daemon=True).start()

    def _quietly(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        with contextlib.suppress(OSError):
            wrapped = self._context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
            with wrapped as secured:
                self._read(secured)

    def _read(self, secured: ssl.SSLSocket) -> None:
        if self.temper is Temper.DEAF:
            return
        source, number = secured.makefile("rb"), 0
        while (message := _one(source)) is not None:
            number += 1
            if self.temper is Temper.DYING and number > self.dies_after:
                secured.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            with self.arrived:
                self.messages.append(message)
                self.arrived.notify_all()
        if self.temper is Temper.SILENT:
            threading.Event().wait(5)
        elif self.temper is Temper.POLITE:
            with contextlib.suppress(OSError):
                secured.unwrap()


def _one(source: object) -> bytes | None:
    """MSG-LEN SP SYSLOG-MSG (RFC 5425 4.3); None at the end."""
    digits = b""
    while (char := source.read(1)) not in (b" ", b""):  # type: ignore[attr-defined]  # a binary file
        digits += char
    if not digits:
        return None
    assert digits.isdigit() and not digits.startswith(b"0"), digits
    message: bytes = source.read(int(digits))  # type: ignore[attr-defined]
    assert len(message) == int(digits)
    return message


@contextlib.contextmanager
def collecting(identity: Identity, temper: Temper = Temper.POLITE, port: int = 0) -> Iterator[Collector]:
    collector = Collector(identity, temper, port)
    try:
        yield collector
    finally:
        collector.close()
