"""Many peers that mean no good, moved by one thread, and one that does: how each of them fared.

Loopback has 16 million addresses: a crowd may come from one host or from hundreds.
"""

from __future__ import annotations

import errno
import selectors
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from tests.node import wire
from tests.node.wire import Wire
from tests.patience import PATIENCE_S

TURN_S = 0.25
LEGAL_HOST = "127.0.0.2"
REQUEST = wire.associate_rq({1: (wire.DX, (wire.EXPLICIT,))})
STORE = wire.pdu(
    wire.P_DATA, wire.pdv(wire.command(0x0001, sop_class=wire.DX.encode(), sop_instance=b"1.2.3"), is_command=True)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """What a peer says at once, and what it lets drop byte by byte once it has been answered, or at once."""

    name: str
    at_once: bytes = b""
    waits_for_answer: bool = False
    drops: bytes = b""


SILENT = Manner(name="silent")
SLOW_BEFORE = Manner(name="slow before the association", drops=REQUEST)
SLOW_INSIDE = Manner(
    name="slow inside a PDU",
    at_once=REQUEST,
    waits_for_answer=True,
    drops=STORE + struct.pack(">BBI", 4, 0, 5000) + bytes(5000),
)
GARBAGE = Manner(name="garbage", at_once=b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n")


@dataclass(slots=True)
class _Peer:
    manner: Manner
    connection: socket.socket
    opened_at: float
    dropped: int = 0
    answered: bool = False
    ended_at: float | None = None


class Crowd(threading.Thread):
    """Opens its connections at once and holds each of them until the node ends it."""

    def __init__(self, port: int, peers: list[tuple[Manner, str]]) -> None:
        super().__init__(name="crowd", daemon=True)
        self._port, self._wanted = port, peers
        self._peers: list[_Peer] = []
        self._done = threading.Event()
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        for manner, host in self._wanted:
            connection = socket.create_connection(("127.0.0.1", self._port), PATIENCE_S, source_address=(host, 0))
            connection.setblocking(False)
            peer = _Peer(manner=manner, connection=connection, opened_at=time.monotonic())
            with suppress(OSError):
                connection.send(manner.at_once)
            self._peers.append(peer)
            self._selector.register(connection, selectors.EVENT_READ, peer)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
        for peer in self._peers:
            peer.connection.close()
        self._selector.close()

    def run(self) -> None:
        next_drop = time.monotonic()
        while not self._done.is_set():
            for key, _ in self._selector.select(max(0.01, next_drop - time.monotonic())):
                self._listen(key.data)
            if time.monotonic() >= next_drop:
                next_drop = time.monotonic() + TURN_S
                for peer in self._peers:
                    self._drop(peer)

    def left(self) -> int:
        """How many the node has not ended."""
        return sum(peer.ended_at is None for peer in self._peers)

    def longest_s(self) -> float:
        """How long the node has put up with the most patient of them."""
        return max((peer.ended_at or time.monotonic()) - peer.opened_at for peer in self._peers)

    def _listen(self, peer: _Peer) -> None:
        try:
            content = peer.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            content = b""
        peer.answered = peer.answered or content[:1] == bytes([wire.ASSOCIATE_AC])
        if not content:
            self._end(peer)

    def _drop(self, peer: _Peer) -> None:
        manner = peer.manner
        if peer.ended_at is not None or (manner.waits_for_answer and not peer.answered):
            return
        rest = manner.drops[peer.dropped : peer.dropped + 1]
        if manner.waits_for_answer and peer.dropped == 0:  # what comes before the slow PDU comes at once
            rest = manner.drops[: len(STORE) + 6]
        try:
            peer.dropped += peer.connection.send(rest) if rest else 0
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK):
                self._end(peer)

    def _end(self, peer: _Peer) -> None:
        if peer.ended_at is None:
            peer.ended_at = time.monotonic()
            self._selector.unregister(peer.connection)


class Flood(threading.Thread):
    """One host that opens connections as fast as it can, asks for an association on each, and keeps them."""

    def __init__(self, port: int, host: str = "127.0.0.1", kept: int = 100) -> None:
        super().__init__(name="flood", daemon=True)
        self.opened = 0
        self._port, self._host, self._kept = port, host, kept
        self._done = threading.Event()

    def run(self) -> None:
        kept: list[socket.socket] = []
        while not self._done.wait(0.002):
            with suppress(OSError):
                kept.append(socket.create_connection(("127.0.0.1", self._port), 5, source_address=(self._host, 0)))
                self.opened += 1
                kept[-1].settimeout(1)
                kept[-1].send(REQUEST)
            if len(kept) > self._kept:
                kept.pop(0).close()
        for connection in kept:
            connection.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


@dataclass(slots=True)
class Fared:
    """What became of the legal peer's requests; seconds of each."""

    took_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def p95_s(self) -> float:
        return sorted(self.took_s)[int(0.95 * (len(self.took_s) - 1))]

    def median_s(self) -> float:
        return sorted(self.took_s)[len(self.took_s) // 2]

    def __str__(self) -> str:
        total = len(self.took_s) + len(self.failures)
        return (
            f"legal peer {len(self.took_s)}/{total} requests, p95 {self.p95_s() * 1000:.0f} ms, "
            f"max {max(self.took_s) * 1000:.0f} ms"
        )


class LegalPeer(threading.Thread):
    """Opens an association, stores, echoes, releases, again and again, from a host of its own."""

    def __init__(self, port: int, objects: Iterator[tuple[str, bytes]], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(name="legal", daemon=True)
        self.fared = Fared()
        self.stored: list[str] = []
        self._port, self._objects, self._tls = port, objects, tls
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.02):
            try:
                self._visit()
            except (OSError, AssertionError, ValueError) as error:
                self.fared.failures.append(f"{type(error).__name__}: {error}")

    def _visit(self) -> None:
        started = time.monotonic()
        with Wire(self._port, PATIENCE_S, LEGAL_HOST) as peer:
            if self._tls is not None:
                peer.socket = self._tls.wrap_socket(peer.socket)
            kind = peer.associate(calling="LEGAL")[0]
            assert kind == wire.ASSOCIATE_AC, f"the association was answered with {kind}"
            started = self._clock(started)
            uid, data_set = next(self._objects)
            status = peer.store(uid, data_set)
            assert status == 0x0000, f"the store was answered with {status}"
            self.stored.append(uid)
            started = self._clock(started)
            status = peer.echo()
            assert status == 0x0000, f"the echo was answered with {status}"
            self._clock(started)
            assert peer.release() == wire.RELEASE_RP, "the release was not answered"

    def _clock(self, started: float) -> float:
        now = time.monotonic()
        self.fared.took_s.append(now - started)
        return now

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Finish the visit that is under way, and make no other."""
        self._done.set()
        self.join()
