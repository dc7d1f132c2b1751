"""The listener below pynetdicom's acceptor: it counts before it makes a thread, and shakes hands on that thread.

Knows no DIMSE message and no rule about callers. pynetdicom 3.0.4 makes a thread for every connection and shakes
TLS hands on the thread that accepts: one silent client stops all others. Pinned and tested as `waiting_socket` is.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from cxr_node.config.schema import Listen
from cxr_node.node.network import proxy_protocol
from cxr_node.node.network.guarded_socket import GuardedSocket
from cxr_node.node.network.proxy_protocol import HeaderError
from cxr_node.node.network.rejections import Cause, Refusal, Refusals
from cxr_node.node.network.tls import PeerCertificate, Renewed, peer_certificate, server_tls, why
from cxr_node.node.network.waiting_socket import end_polling, understand_more
from cxr_node.node.process.logs import describe
from cxr_node.node.receive.acse import GuardedAcse, is_host
from cxr_node.node.receive.storage_scp import StorageProvider

HANDSHAKE_S = 5.0
"""From the connection to the end of the TLS handshake."""
ARTIM_S = 5.0
"""From the connection to its A-ASSOCIATE-RQ, and from a refusal to its end (PS3.8 9.1.5)."""
BACKLOG = 1024
"""Connections that wait to be accepted; beyond that the kernel drops the first packet, which costs a second."""
GIVING_WAY = 64
"""Most connections being closed for newcomers at a time."""


@dataclass(slots=True, eq=False)
class Caller:
    """One connection, from its first byte on."""

    host: str
    """Of the peer; until a proxy has named it, the proxy's."""
    connection: socket.socket
    association: Association | None = None
    gives_way: bool = False

    @property
    def is_associated(self) -> bool:
        """It has requested an association and got it."""
        return self.association is not None and bool(self.association.is_established)

    def give_way(self) -> None:
        """Close the connection under its thread, without another log line."""
        if self.association is not None:
            cast(GuardedSocket, self.association.dul.socket).has_ended = True
        with suppress(OSError):  # past ssl, whose own shutdown() would forget its state under the thread's hands
            socket.socket.shutdown(self.connection, socket.SHUT_RDWR)


class GuardedHandler(RequestHandler):
    """One connection from the handshake to its cleanup; runs in a thread of its own."""

    server: GuardedServer

    def handle(self) -> None:
        """Run the association to its end."""
        self._caller = self.server.caller(self.request)
        try:
            if not self._is_known():
                return
            certificate = self._prepare()
        except HeaderError as error:
            self.server.refuse(Cause.PROXY_HEADER, self._caller.host, str(error))
            return
        except OSError as error:  # ssl.SSLError is one
            self.server.refuse(Cause.TLS, self._caller.host, why(error))
            return
        association = self._caller.association = self._create_association()
        self._connection.peer_certificate = certificate
        provider = association.dimse = self.server.make_provider(association)
        self._connection.taker = provider
        end_polling(association, self._connection)
        understand_more(association, self._connection)
        self.server.opened(association, provider)
        try:
            association.start()
            association.join()
            association.dul.join(ARTIM_S)  # it has something to send yet, or waits for the peer to close
            association.dul.kill_dul()  # it has ended already, unless the association died of a fault
            association.dul.join()
        finally:
            provider.discard()
            self._connection.release()
            self.server.closed(association)

    def finish(self) -> None:
        """Close the connection in any case."""
        with suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)
        self.request.close()

    def _is_known(self) -> bool:
        """Let a proxy name the peer, for whom everything from here on is done; False where that is the end of it."""
        if not self.server.is_proxy(self._caller.host):
            return True
        try:
            source = proxy_protocol.read(self.request)
        except EOFError:
            self.server.refusals.count(Cause.PROBE)
            return False
        if source is None:
            return True
        self.client_address = (source.host, source.port)
        if self.server.named(self._caller, source.host):
            return True
        self.server.refuse(Cause.TOO_MANY_CONNECTIONS, source.host)
        return False

    def _prepare(self) -> PeerCertificate | None:
        """Set the connection up and shake hands; the peer's certificate is judged when it names itself."""
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.request.settimeout(HANDSHAKE_S)
        if self.server.tls is None:
            return None
        began = time.monotonic()
        if proxy_protocol.is_begun(self.request.recv(proxy_protocol.HEAD_BYTES, socket.MSG_PEEK)):
            raise HeaderError(proxy_protocol.UNASKED)
        self.request.settimeout(max(HANDSHAKE_S - (time.monotonic() - began), 0.1))
        context = self.server.tls.context()
        connection = context.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
        self.request = self._caller.connection = connection
        connection.do_handshake()
        return peer_certificate(connection)

    def _create_association(self) -> Association:
        association = super()._create_association()
        server = self.server
        association.dul.daemon = True  # a silent peer must not keep the process from ending
        association.dul.socket = None
        association.dul.event_queue.get_nowait()  # the base class's socket has announced the connection
        self._connection = GuardedSocket(association, self.request, server.listen.max_pdu_bytes, server.refusals)
        association.set_socket(self._connection)
        association.acse = GuardedAcse(association, server, server.refusals)
        return association


class _Shared(list[PresentationContext]):
    """Contexts that all associations read: copying 170 of them took 16 ms of each."""

    def __deepcopy__(self, _: Any) -> _Shared:
        return self


class GuardedServer(ThreadedAssociationServer):
    """A listener that counts before it makes a thread, and shakes hands on that thread."""

    request_queue_size = BACKLOG
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        ae: ApplicationEntity,
        listen: Listen,
        make_provider: Callable[[Association], StorageProvider],
        refusals: Refusals,
    ) -> None:
        self.listen = listen
        self.make_provider = make_provider
        self.refusals = refusals
        self.tls = Renewed(listen.tls, server_tls) if listen.tls is not None else None
        # Twice the associations, and some: calls that will be rejected must be heard, and one host leaves room
        # for others.
        self._max_connections = 2 * listen.max_associations + 16
        self._max_connections_per_host = min(listen.max_associations, listen.max_associations_per_host) + 8
        self.is_draining = False
        """It stops: who calls now is rejected, those that are here go on."""
        self.on_turn: Callable[[], None] = lambda: None
        """Called periodically by the accepting thread."""
        self._lock = threading.Lock()
        self._callers: dict[socket.socket, Caller] = {}
        self._open: dict[Association, StorageProvider] = {}
        # The base class gets no TLS context: it would shake hands on the thread that accepts.
        contexts = _Shared(ae.supported_contexts)
        address = (listen.host, listen.port)
        super().__init__(ae, address, ae.ae_title, contexts, ssl_context=None, request_handler=GuardedHandler)

    @property
    def associations(self) -> dict[Association, StorageProvider]:
        """Those that live."""
        with self._lock:
            return dict(self._open)

    def established(self) -> Counter[str]:
        """Count the associations of each host."""
        return Counter(str(one.requestor.address) for one in self.associations if one.is_established)

    def opened(self, association: Association, provider: StorageProvider) -> None:
        """Count an association in."""
        with self._lock:
            self._open[association] = provider

    def closed(self, association: Association) -> None:
        """Count an association out."""
        with self._lock:
            self._open.pop(association, None)

    def caller(self, request: socket.socket) -> Caller:
        """Find the caller of an accepted connection."""
        with self._lock:
            return self._callers[request]

    def is_proxy(self, host: str) -> bool:
        """Whether a host is one of those that name the peers they pass on."""
        return any(is_host(host, network) for network in self.listen.proxy_protocol)

    def named(self, caller: Caller, host: str) -> bool:
        """Count a connection to the peer that its proxy has named; False beyond that peer's share."""
        with self._lock:
            has_room = self._connections_of(host) < self._max_connections_per_host
            caller.host = host
            return has_room

    def refuse(self, cause: Cause, host: str, detail: str = "") -> None:
        """Count a refusal, and log it."""
        self.refusals.add(Refusal(cause=cause, host=host, detail=detail))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, unless the limit is reached."""
        host = client_address[0]
        if not self._admit(request, host):
            self.refuse(Cause.TOO_MANY_CONNECTIONS, host)
            self._hang_up(request)
            return
        thread = threading.Thread(target=self._run, args=(request, client_address), name=f"peer {host}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads on this machine
            self._leave(request)
            self._hang_up(request)

    def shutdown_request(self, request: Any) -> None:
        """Do nothing: an association calls this before its last PDU is out; the handler closes after it."""

    def service_actions(self) -> None:
        """Report progress of the listener."""
        super().service_actions()
        self.refusals.turn()
        self.on_turn()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a fault without the traceback that socketserver prints."""
        error = sys.exception()
        with self._lock:
            caller = self._callers.get(request)
        host = client_address[0] if caller is None else caller.host
        self.refuse(Cause.FAULT, host, "" if error is None else describe(error))

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; without a free descriptor, wait for others to finish instead of spinning."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.05)
            raise

    def _hang_up(self, request: Any) -> None:
        super().shutdown_request(request)

    def _run(self, request: Any, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            self._leave(request)

    def _admit(self, request: socket.socket, host: str) -> bool:
        """Accept a connection; at the limit, drop the oldest one without an association."""
        is_proxy = self.is_proxy(host)  # its connections are those of many peers: `named` counts them
        with self._lock:
            callers = list(self._callers.values())
            if not is_proxy and self._connections_of(host) >= self._max_connections_per_host:
                return False
            leaving = None
            if len(callers) >= self._max_connections:
                silent = (caller for caller in callers if not caller.gives_way and not caller.is_associated)
                leaving = next(silent, None)
                if leaving is None or len(callers) >= self._max_connections + GIVING_WAY:
                    return False
                leaving.gives_way = True
            self._callers[request] = Caller(host, request)
        if leaving is not None:
            leaving.give_way()
            self.refuse(Cause.GAVE_WAY, leaving.host)
        return True

    def _connections_of(self, host: str) -> int:
        return sum(caller.host == host for caller in self._callers.values())

    def _leave(self, request: socket.socket) -> None:
        with self._lock:
            self._callers.pop(request, None)
