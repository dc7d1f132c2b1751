"""One outgoing association that always ends: pynetdicom's, with sockets that are tuned, bounded and closed.

pynetdicom 3.0.4 waits without limit where a peer stops reading, and may stop a thread without closing its
socket. Some of its underscored methods are overridden here: its version is pinned, and tests/node/test_storage_scu
notices a change. Knows no object and no schedule.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA, SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from cxr_node.config.destinations import DicomDestination
from cxr_node.config.network import Address
from cxr_node.errors import DeliveryError, UnreachableError
from cxr_node.node.network import associate_pdu, statuses
from cxr_node.node.network.dimse import Message, transmit
from cxr_node.node.network.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from cxr_node.node.network.rejections import Cause, Refusal, Refusals
from cxr_node.node.network.statuses import Response
from cxr_node.node.network.tls import Renewed, client_tls, why
from cxr_node.node.network.waiting_socket import WaitingSocket, Wake, end_polling, understand_more

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


def associate(
    entity: Entity,
    destination: DicomDestination,
    contexts: list[PresentationContext],
    tls_client: TlsClient,
    handlers: list[EventHandlerType],
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Association:
    """Open an association with a destination.

    Raises
    ------
    UnreachableError : there is no association now.
    DeliveryError : the peer accepts no presentation context of ours, permanently.
    """
    address, tls = destination.address, tls_client.arguments()
    try:
        association = entity.open(address, contexts, tls, handlers, roles)
    except OSError as error:  # the host name has no address
        raise UnreachableError(f"{address.host}: {error.strerror}") from error
    if not association.is_established:
        dispose(association)
        raise _refusal(entity, association, destination, tls)
    return association


def _refusal(
    entity: Entity, association: Association, destination: DicomDestination, tls: TlsArguments | None
) -> DeliveryError:
    """Why there is no association. A wrong AE title is the operator's to correct: visible, and retried on schedule."""
    answer = association.acceptor.primitive
    if answer is not None and answer.result == 0 and not association.accepted_contexts:
        return DeliveryError(f"{destination.address}: accepts none of our SOP Classes", permanent=True)
    refusal = why_not(association, destination.address, destination.timeout_s, tls)
    entity.refusals.add(refusal)
    return UnreachableError(f"{destination.address}: {refusal.detail}")


TLS_FAILED = "TLS failed"
_DIAGNOSIS_S = 2.0
_ALERT_S = 0.5  # in TLS 1.3 a server looks at our certificate after our side of the handshake has ended


def fault(association: Association, expected: Response, message_id: int) -> str:
    """Why the last response does not answer the request; "" if it does, or if none came."""
    connection = association.dul.socket
    if not isinstance(connection, Connection):
        return ""
    if connection.answer is None:
        return f"the peer sent {connection.fault}" if connection.fault else ""
    return statuses.fault(connection.answer, expected, message_id)


def said(association: Association) -> str:
    """How the peer ended the association; "" if it did not."""
    connection = association.dul.socket
    return connection.said if isinstance(connection, Connection) else ""


def why_not(association: Association, address: Address, timeout_s: float, tls: TlsArguments | None) -> Refusal:
    """Why there is no association, and what to count."""
    connection = association.dul.socket
    made = functools.partial(Refusal, host=address.host, ae_title=address.ae_title)
    if not isinstance(connection, Connection) or not connection.connected:
        words = diagnose(address, timeout_s, tls)
        cause = Cause.TLS if words.startswith(TLS_FAILED) else Cause.DESTINATION_AWAY
        return made(cause=cause, detail=f"no connection: {words}")
    # pynetdicom's own mark is missing where the peer closed before its thread came to the rejection.
    if association.is_rejected or connection.said.startswith(associate_pdu.REJECTED):
        return made(cause=Cause.DESTINATION_REJECTED, detail=connection.said)
    if connection.fault:
        words = f"the answer to the association request is {connection.fault}"
        return made(cause=Cause.DESTINATION_CONFUSED, detail=words)
    if connection.said:
        return made(cause=Cause.DESTINATION_ABORTED, detail=f"no answer to the association request: {connection.said}")
    return made(cause=Cause.DESTINATION_MUTE, detail=f"no answer to the association request in {timeout_s:g} s")


def broken(entity: Entity, address: Address, cause: Cause, words: str) -> None:
    """Count, and audit, that a destination broke an association off or answered something that was not requested."""
    entity.refusals.add(Refusal(cause=cause, host=address.host, ae_title=address.ae_title, detail=words))


def diagnose(address: Address, timeout_s: float, tls: TlsArguments | None) -> str:
    """Why there is no connection; pynetdicom only logs it."""
    try:
        with socket.create_connection((address.host, address.port), min(timeout_s, _DIAGNOSIS_S)) as connection:
            return _diagnose_tls(connection, *tls) if tls else "the connection was lost"
    except OSError as error:
        return error.strerror or "timed out"


def _diagnose_tls(connection: socket.socket, context: ssl.SSLContext, name: str) -> str:
    try:
        with context.wrap_socket(connection, server_hostname=name) as wrapped:
            wrapped.settimeout(_ALERT_S)
            wrapped.recv(1)
    except TimeoutError:
        return f"{TLS_FAILED}, or the connection was lost"
    except OSError as error:
        return f"{TLS_FAILED}: {why(error)}"
    return f"{TLS_FAILED}: the peer ended the connection"


MAX_PDU_BYTES = 131072
_SLACK_BYTES = 1024  # some count the headers of the PDVs out of it
_LATE = 1.25  # pynetdicom's own limit comes first, and says why
_DISPOSAL_S = 2.0
_OPEN = ("Sta5", "Sta6")  # PS3.8 9.2: awaiting A-ASSOCIATE-AC or -RJ, ready for data transfer

TlsArguments = tuple[ssl.SSLContext, str]
"""What pynetdicom wraps a connection with: a context, and the name that the peer's certificate must bear."""


class TlsClient:
    """TLS of the connections to a destination; its files are read again when they change.

    Raises
    ------
    ConfigError : a certificate or key cannot be used.
    """

    def __init__(self, destination: DicomDestination) -> None:
        tls = destination.tls
        self._renewed = Renewed(tls, client_tls) if tls is not None else None
        self._name = (tls.server_name if tls is not None else None) or destination.address.host

    def arguments(self) -> TlsArguments | None:
        """For the next connection; None: plain text."""
        return (self._renewed.context(), self._name) if self._renewed is not None else None


class Connection(WaitingSocket):
    """pynetdicom's socket, whose writes do not block for ever and which is closed even if it never connected."""

    connected = False
    is_cut = False
    """We ended it at its deadline."""
    answer: statuses.Answer | None = None
    """The last response, for the thread that sent the request."""

    def __init__(self, assoc: Association, address: AddressInformation) -> None:
        super().__init__(assoc, address=address)
        self.wake = Wake()
        assoc.dul._send = self._send  # type: ignore[method-assign]  # where the PDUs of `store` pass
        end_polling(assoc, self)
        understand_more(assoc, self)

    def meet(self, event: str, state: str) -> None:
        """Record how the peer ends the association."""
        if event == "Evt17" and state in _OPEN and not self.is_cut:
            self.said = self.said or "the peer closed the connection"
        elif event == "Evt19" and state in _OPEN:
            self._give_up(self.fault or "a PDU that cannot be read")

    def fail(self, error: Exception) -> None:
        """Record a message that cannot be read."""
        self._give_up(f"a message that cannot be read ({type(error).__name__})")

    def _give_up(self, fault: str) -> None:
        """End every wait for an answer."""
        self.fault = self.fault or fault
        self.assoc.dimse.msg_queue.put((None, None))  # as pynetdicom does where the connection is closed

    def _send(self, pdu: Any) -> None:
        """As pynetdicom's, and all PDUs of a `Message` at once."""
        items = pdu.presentation_data_value_items if isinstance(pdu, P_DATA_TF) else []
        message = items[0].presentation_data_value if items else None
        if not isinstance(message, Message):
            self.send(pdu.encode())
        elif self.socket is not None:
            try:
                transmit(self.socket, message)
            except OSError:
                self.event_queue.put("Evt17")

    def recv(self, nr_bytes: int) -> bytearray:
        """As the base class, but up to our longest PDU, and with the reason why TLS ended.

        Raises
        ------
        OSError : the PDU is too long; the connection is closed.
        """
        if nr_bytes > MAX_PDU_BYTES + _SLACK_BYTES:
            self.fault = f"a PDU of {nr_bytes} bytes; {MAX_PDU_BYTES} are allowed"
            raise OSError(self.fault)
        try:
            return super().recv(nr_bytes)
        except ssl.SSLError as error:
            self.said = self.said or f"the peer ended TLS: {why(error)}"
            raise

    def connect(self, primitive: T_CONNECT) -> None:
        """Connect, and keep the time limit that pynetdicom takes off."""
        super().connect(primitive)
        if self.socket is not None:
            self.connected = True
            self.socket.settimeout(self.assoc.connection_timeout)

    def _create_socket(self, address: AddressInformation) -> socket.socket:
        connection = super()._create_socket(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Nagle's algorithm costs 40 ms an object
        return connection

    def _shutdown_socket(self) -> None:
        connection = self.socket
        super()._shutdown_socket()
        if connection is not None:
            connection.close()
        self.wake.close()


class Entity(AE):
    """An application entity that opens such associations."""

    def __init__(self, ae_title: str, limit_s: float, refusals: Refusals | None = None) -> None:
        super().__init__(ae_title)
        # pynetdicom's own listeners quote what peers send, and stumble over a response without a Status before ours.
        _config.LOG_HANDLER_LEVEL = "none"
        self.refusals = refusals or Refusals(level=logging.DEBUG)
        """Counted and audited here; the journal's line is that of the delivery which failed."""
        self.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._limit_s = limit_s
        self.connection_timeout = self.acse_timeout = limit_s
        self.network_timeout = None  # how long an idle association stays open is not pynetdicom's to say

    def open(
        self,
        address: Address,
        contexts: list[PresentationContext],
        tls: TlsArguments | None,
        handlers: list[EventHandlerType],
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    ) -> Association:
        """Request an association; ends in time even where the peer dribbles its answer byte by byte.

        Raises
        ------
        OSError : the host name has no address.
        """
        timers: list[threading.Timer] = []

        def connected(event: Event) -> None:
            timers.append(_timer(_LATE * self._limit_s, functools.partial(hang_up, event.assoc)))

        try:
            return self.associate(
                address.host,
                address.port,
                contexts=contexts,
                ae_title=address.ae_title,
                max_pdu=MAX_PDU_BYTES,
                ext_neg=list(roles),
                tls_args=tls,
                evt_handlers=[(evt.EVT_CONN_OPEN, connected), (evt.EVT_DIMSE_RECV, _note), *handlers],
            )
        finally:
            for timer in timers:
                timer.cancel()

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: TlsArguments | None
    ) -> AssociationSocket:
        connection = Connection(assoc, address)
        connection.tls_args = tls_args
        return connection


def _note(event: Event) -> None:
    connection = event.assoc.dul.socket
    if isinstance(connection, Connection) and (answer := statuses.read(event)) is not None:
        connection.answer = answer


def ask(association: Association, request: Callable[[], Any]) -> Any:
    """Send one of pynetdicom's own requests, which takes any response for the one it waits for; see `fault`."""
    _forget(association)
    try:
        return request()
    except AttributeError:  # a response of another kind has not what it reads in its own
        return None


def _forget(association: Association) -> None:
    if isinstance(association.dul.socket, Connection):
        association.dul.socket.answer = None


def store(association: Association, message: Message) -> C_STORE | None:
    """Send a C-STORE-RQ and wait for its answer; None where none comes, or none that can be read."""
    _forget(association)
    association._reactor_checkpoint.clear()  # as pynetdicom does: its other thread must not take the answer
    while not association._is_paused:
        if not association.is_alive():  # it ended since its owner looked, and will never pause
            return None
        time.sleep(0.0001)
    try:
        request = P_DATA()
        request.presentation_data_value_list.append((message.context_id, cast(bytes, message)))
        association.dul.send_pdu(request)
        _, answer = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    return answer if isinstance(answer, C_STORE) else None


@contextlib.contextmanager
def deadline(association: Association, limit_s: float) -> Iterator[threading.Event]:
    """Cut the connection when time is up.

    pynetdicom's own timeouts queue an abort behind the data that the peer does not read, and wait for it.
    """
    passed = threading.Event()

    def cut() -> None:
        passed.set()
        hang_up(association)

    timer = _timer(limit_s, cut)
    try:
        yield passed
    finally:
        timer.cancel()


def _timer(after_s: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(after_s, action)
    timer.daemon = True
    timer.start()
    return timer


def end(association: Association) -> None:
    """Abort and clean up."""
    with deadline(association, 1.0):
        association.abort()
    dispose(association)


def hang_up(association: Association) -> None:
    """End the connection whatever state it is in; pynetdicom's threads end with it."""
    if isinstance(association.dul.socket, Connection):
        association.dul.socket.is_cut = True
    if (connection := _socket_of(association)) is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def dispose(association: Association) -> None:
    """Clean up after a failed association: pynetdicom may stop its thread without closing the socket."""
    hang_up(association)
    association.dul.join(_DISPOSAL_S)
    if not association.dul.is_alive() and (connection := _socket_of(association)) is not None:
        connection.close()


def _socket_of(association: Association) -> socket.socket | None:
    wrapper = association.dul.socket
    return wrapper.socket if wrapper is not None else None
