"""Guarded sockets below pynetdicom's acceptor: how many may connect, how long and how large a PDU may be.

Knows no DIMSE message. pynetdicom 3.0.4 reads a PDU with no deadline and no limit, makes a thread for every
connection and shakes hands on the thread that accepts. What is overridden
here is internal to it: the version is pinned, and `tests/node/test_transport.py` holds each name we rely on.
PS3.8 9.1 (transport), 9.3.1 (PDU length).
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pynetdicom.acse import ACSE
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

log = logging.getLogger(__name__)

HANDSHAKE_S = 5.0
"""From the connection to the end of the TLS handshake."""
ARTIM_S = 5.0
"""From the connection to its A-ASSOCIATE-RQ, and from a refusal to its end (PS3.8 9.1.5)."""
SLOWEST_BYTES_PER_S = 32 * 1024
PDU_GRACE_S = 5.0
"""A PDU that was begun must be complete after this and its length over the slowest rate."""
SEND_TIMEOUT_S = 30.0
REQUEST_PDU_BYTES = 128 * 1024
"""Longest PDU before the association; 128 contexts with 40 transfer syntaxes each fit."""
PDU_SLACK_BYTES = 1024
"""Some senders count the headers of the PDVs out of the length they were told."""
BACKLOG = 128


class Provider(DIMSEServiceProvider):
    """The DIMSE messages of one association, as far as the transport must end them."""

    @property
    def idle_s(self) -> float:
        """Seconds since the last message; 0 while one is on its way."""
        raise NotImplementedError

    def discard(self) -> None:
        """Drop what has not been received whole."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What an association is made of and bound by."""

    make_acse: Callable[[Association], ACSE]
    make_provider: Callable[[Association], Provider]
    max_connections: int
    max_connections_per_host: int
    max_pdu_bytes: int


class GuardedSocket(AssociationSocket):
    """A connection whose PDUs have a longest length, a deadline, and so a slowest rate."""

    def __init__(self, assoc: Association, client_socket: socket.socket, max_pdu_bytes: int) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._max_pdu_bytes = max_pdu_bytes

    @property
    def ready(self) -> bool:
        """As the base class, by poll(): select() cannot watch descriptors beyond 1023."""
        connection = self.socket
        if connection is None or not self._is_connected:
            return False
        try:
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            found = bool(poll.poll(0))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False
        return found or (isinstance(connection, ssl.SSLSocket) and bool(connection.pending()))

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly `nr_bytes`, or fewer where the peer closed.

        Raises
        ------
        OSError : the PDU is too long or too slow; the connection is closed.
        """
        established = bool(self.assoc.is_established)
        longest = self._max_pdu_bytes + PDU_SLACK_BYTES if established else REQUEST_PDU_BYTES
        if nr_bytes > longest:
            self._refuse(f"a PDU of {nr_bytes} bytes; {longest} are allowed")
        content = bytearray(nr_bytes)
        rest = memoryview(content)
        deadline = time.monotonic() + PDU_GRACE_S + nr_bytes / SLOWEST_BYTES_PER_S
        while rest:
            got = self._recv_some(rest, deadline)
            if got == 0:
                break
            rest = rest[got:]
        received = nr_bytes - len(rest)
        rest.release()
        return content[:received] if received < nr_bytes else content

    def _recv_some(self, rest: memoryview, deadline: float) -> int:
        connection, remaining_s = self.socket, deadline - time.monotonic()
        if connection is None:
            return 0
        if remaining_s <= 0:
            self._refuse("a PDU that came too slowly")
        connection.settimeout(remaining_s)
        try:
            return connection.recv_into(rest)
        except TimeoutError:
            return self._refuse("a PDU that came too slowly")

    def send(self, bytestream: bytes) -> None:
        """As the base class, but a peer that does not read is given up."""
        if self.socket is not None:
            with suppress(OSError):
                self.socket.settimeout(SEND_TIMEOUT_S)
            super().send(bytestream)

    def _refuse(self, what: str) -> int:
        log.warning("connection closed peer=%s cause=%r", self.assoc.requestor.address, what)
        self._shutdown_socket()
        raise OSError(what)


class GuardedHandler(RequestHandler):
    """One connection, from the handshake to the last trace of it; runs in a thread of its own."""

    server: GuardedServer

    def handle(self) -> None:
        """Run the association to its end."""
        try:
            self._prepare()
        except OSError as error:  # ssl.SSLError is one
            log.warning("connection closed peer=%s cause=%s", self.client_address[0], type(error).__name__)
            return
        association = self._create_association()
        provider = association.dimse = self.server.gate.make_provider(association)
        self.server.opened(association, provider)
        try:
            association.start()
            association.join()
            association.dul.kill_dul()  # it has ended already, unless the association died of a fault
            association.dul.join()
        finally:
            provider.discard()
            self.server.closed(association)

    def finish(self) -> None:
        """Close the connection, whatever came before."""
        with suppress(OSError):
            self.request.close()

    def _prepare(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.request.settimeout(HANDSHAKE_S)
        if self.server.tls is not None:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)

    def _create_association(self) -> Association:
        association = super()._create_association()
        gate = self.server.gate
        association.dul.daemon = True  # nobody's silence may keep the process from ending
        association.dul.socket = None
        association.dul.event_queue.get_nowait()  # the base class's socket has announced the connection
        association.set_socket(GuardedSocket(association, self.request, gate.max_pdu_bytes))
        association.acse = gate.make_acse(association)
        return association


class _Shared(list[PresentationContext]):
    """Contexts that all associations read: copying 170 of them took 16 ms of each."""

    def __deepcopy__(self, _: Any) -> _Shared:
        return self


class GuardedServer(ThreadedAssociationServer):
    """A listener that counts before it makes a thread, and shakes hands after."""

    request_queue_size = BACKLOG
    daemon_threads = True
    block_on_close = False

    def __init__(self, ae: ApplicationEntity, address: tuple[str, int], gate: Gate, tls: ssl.SSLContext | None) -> None:
        self.gate = gate
        self.tls = tls
        self.on_turn: Callable[[], None] = lambda: None
        """Called again and again by the thread that accepts, as long as it does."""
        self._lock = threading.Lock()
        self._hosts: Counter[str] = Counter()
        self._open: dict[Association, Provider] = {}
        # The base class gets no TLS context: it would shake hands on the thread that accepts.
        contexts = _Shared(ae.supported_contexts)
        super().__init__(ae, address, ae.ae_title, contexts, ssl_context=None, request_handler=GuardedHandler)

    @property
    def associations(self) -> dict[Association, Provider]:
        """Those that live."""
        with self._lock:
            return dict(self._open)

    def opened(self, association: Association, provider: Provider) -> None:
        """Count an association in."""
        with self._lock:
            self._open[association] = provider

    def closed(self, association: Association) -> None:
        """Count an association out."""
        with self._lock:
            self._open.pop(association, None)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Make a thread for a connection, unless there are enough."""
        host = client_address[0]
        if not self._admit(host):
            log.warning("connection closed peer=%s cause='too many connections'", host)
            self.shutdown_request(request)
            return
        thread = threading.Thread(target=self._run, args=(request, client_address), name=f"peer {host}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads on this machine
            self._leave(host)
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """Say that the listener has come round once more."""
        super().service_actions()
        self.on_turn()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log without the traceback that socketserver prints."""
        log.error("connection ended by a fault peer=%s", client_address[0], exc_info=True)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; where the machine has no descriptor left, let others finish instead of spinning."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.05)
            raise

    def _run(self, request: Any, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            self._leave(client_address[0])

    def _admit(self, host: str) -> bool:
        with self._lock:
            full = self._hosts.total() >= self.gate.max_connections
            if full or self._hosts[host] >= self.gate.max_connections_per_host:
                return False
            self._hosts[host] += 1
            return True

    def _leave(self, host: str) -> None:
        with self._lock:
            self._hosts[host] -= 1
            if self._hosts[host] <= 0:
                del self._hosts[host]
