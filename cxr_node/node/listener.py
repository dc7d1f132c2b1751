"""The listener below pynetdicom's acceptor: it counts before it makes a thread, and shakes hands after.

Knows no DIMSE message and no rule about callers. pynetdicom 3.0.4 makes a thread for every connection and shakes
TLS hands on the thread that accepts: one silent client stops all others. Pinned and tested as `transport` is.
"""

from __future__ import annotations

import logging
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
from pynetdicom.fsm import InvalidEventError, StateMachine
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from cxr_node.node.audit_messages import Participant
from cxr_node.node.transport import Checkpoint, GuardedSocket, NotifyingQueue

log = logging.getLogger(__name__)

HANDSHAKE_S = 5.0
"""From the connection to the end of the TLS handshake."""
ARTIM_S = 5.0
"""From the connection to its A-ASSOCIATE-RQ, and from a refusal to its end (PS3.8 9.1.5)."""
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
    refused: Callable[[Participant, str], None] = lambda participant, cause: None
    """Told of each connection that is closed before it is an association: for the audit."""


class GuardedHandler(RequestHandler):
    """One connection, from the handshake to the last trace of it; runs in a thread of its own."""

    server: GuardedServer

    def handle(self) -> None:
        """Run the association to its end."""
        try:
            self._prepare()
        except OSError as error:  # ssl.SSLError is one
            log.warning("connection closed peer=%s cause=%s", self.client_address[0], type(error).__name__)
            if self.server.tls is not None:
                self.server.gate.refused(Participant(ae_title="", host=self.client_address[0]), "TLS handshake failed")
            return
        association = self._create_association()
        provider = association.dimse = self.server.gate.make_provider(association)
        self._end_polling(association)
        self.server.opened(association, provider)
        try:
            association.start()
            association.join()
            association.dul.join(ARTIM_S)  # it has something to send yet, or waits for the peer to close
            association.dul.kill_dul()  # it has ended already, unless the association died of a fault
            association.dul.join()
        finally:
            provider.discard()
            self._connection.wake.close()
            self.server.closed(association)

    def finish(self) -> None:
        """Close the connection, whatever came before."""
        with suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)
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
        self._connection = GuardedSocket(association, self.request, gate.max_pdu_bytes)
        association.set_socket(self._connection)
        association.dul.state_machine = _GuardedStateMachine(association.dul)
        association.acse = gate.make_acse(association)
        return association

    def _end_polling(self, association: Association) -> None:
        """Let both threads of an association wait until the other, or the peer, has something for them."""
        checkpoint = association._reactor_checkpoint = Checkpoint()
        checkpoint.set()
        association.dul.to_user_queue = NotifyingQueue(checkpoint.tell)
        association.dimse.msg_queue = NotifyingQueue(checkpoint.tell)
        association.dul.to_provider_queue = NotifyingQueue(self._connection.wake.set)


class _GuardedStateMachine(StateMachine):
    """PS3.8 9.2; an event that has no place in it ends its own connection, and nothing else."""

    def do_action(self, event: str) -> None:
        try:
            super().do_action(event)
        except InvalidEventError:  # our answer to a peer that has broken the protocol meanwhile
            self.dul.kill_dul()  # the association's thread sees it, and the handler closes the connection
        except Exception:  # one association's fault, whatever it is, must not end the others
            log.exception("association ended peer=%s", self.dul.assoc.requestor.address)
            self.dul.kill_dul()


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
            self.gate.refused(Participant(ae_title="", host=host), "too many connections")
            self._hang_up(request)
            return
        thread = threading.Thread(target=self._run, args=(request, client_address), name=f"peer {host}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads on this machine
            self._leave(host)
            self._hang_up(request)

    def shutdown_request(self, request: Any) -> None:
        """Do nothing: an association calls this before its last PDU is out; the handler closes after it."""

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

    def _hang_up(self, request: Any) -> None:
        super().shutdown_request(request)

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
