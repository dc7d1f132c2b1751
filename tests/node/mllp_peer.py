"""An MLLP receiver of any temper, which records what it got."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

START, END = b"\x0b", b"\x1c\x0d"
Temper = Callable[[bytes], list[bytes | None]]
"""What it writes for a message, piece by piece; None: it closes the connection."""


def acknowledgment(message: bytes, code: str = "AA", error: str = "", control_id: str | None = None) -> bytes:
    """An answer as integration engines write it, with a text that must get nowhere."""
    own = message.split(b"|")[9].decode() if control_id is None else control_id
    segments = [f"MSH|^~\\&|RIS|HOSP|CXR_NODE||20260101||ACK^R01^ACK|1|P|2.5.1\rMSA|{code}|{own}|CANARY^TEST refused\r"]
    if error:
        segments.append(f"ERR||PID^1|{error}^text^HL70357|E\r")
    return START + "".join(segments).encode() + END


def accepting(message: bytes) -> list[bytes | None]:
    """Answer AA."""
    return [acknowledgment(message)]


@dataclass
class Receiver:
    """What came."""

    temper: Temper = accepting
    messages: list[bytes] = field(default_factory=list)
    connections: int = 0


@contextmanager
def receiving(receiver: Receiver, tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[int]:
    """Listen on loopback; its port."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(0.05)
        threads: list[threading.Thread] = []

        def accept() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                threads.append(threading.Thread(target=_serve, args=(receiver, connection, tls, stop)))
                threads[-1].start()

        threads.append(threading.Thread(target=accept))
        threads[0].start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            for thread in threads:
                thread.join(10)


def _serve(receiver: Receiver, connection: socket.socket, tls: ssl.SSLContext | None, stop: threading.Event) -> None:
    with connection:
        try:
            with connection if tls is None else tls.wrap_socket(connection, server_side=True) as served:
                receiver.connections += 1
                _answer(receiver, served, stop)
        except OSError:
            return


def _answer(receiver: Receiver, connection: socket.socket, stop: threading.Event) -> None:
    received = b""
    connection.settimeout(0.05)
    while not stop.is_set():
        try:
            chunk = connection.recv(65536)
        except TimeoutError:
            continue
        if not chunk:
            return
        received += chunk
        while END in received:
            frame, received = received.split(END, 1)
            receiver.messages.append(frame.removeprefix(START))
            for piece in receiver.temper(receiver.messages[-1]):
                if piece is None:
                    return
                connection.sendall(piece)
