"""The connection of one incoming association: how long and how slow a PDU may be, and data past pynetdicom.

Knows no DIMSE message. pynetdicom 3.0.4 reads a PDU with no deadline and no limit, and copies each piece of an object
three times. What is overridden here is internal to it: the version is pinned, and `tests/node/test_waiting_socket.py`
holds each name that we rely on. PS3.8 9.1 (transport), 9.3.1 (PDU length), 9.3.5 (P-DATA-TF).
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn, cast

from pynetdicom.association import Association

from cxr_node.node.network import associate_pdu
from cxr_node.node.network.rejections import Cause, Heard, Refusal, Refusals, judge
from cxr_node.node.network.tls import PeerCertificate
from cxr_node.node.network.waiting_socket import SLOWEST_BYTES_PER_S, WaitingSocket, Wake
from cxr_node.node.process.logs import describe

PDU_GRACE_S = 5.0
"""A PDU that was begun must be complete after this and its length over the slowest rate."""
SEND_TIMEOUT_S = 30.0
REQUEST_PDU_BYTES = 128 * 1024
"""Longest PDU before the association; 128 contexts with 40 transfer syntaxes each fit."""
PDU_SLACK_BYTES = 1024
"""Some senders count the headers of the PDVs from the length that was negotiated."""
AFTER_ABORT_BYTES = 1024 * 1024
"""Most bytes discarded while waiting for the peer to close (PS3.8 9.2, Sta13)."""
_LOOK_S = 0.25
"""How often a wait for the rest of a PDU checks its deadline."""
_HEAD_BYTES = 6  # PS3.8 9.3.1: type, reserved, length
_P_DATA_TF = 0x04
_PDV_HEAD = struct.Struct(">IB")  # PS3.8 9.3.5.1: length, presentation context


PdvHandler = Callable[[list[tuple[int, memoryview]]], None]
"""Takes the PDVs of one P-DATA-TF, each with its presentation context; they are valid during the call."""


class GuardedSocket(WaitingSocket):
    """A connection whose PDUs have a longest length, a deadline, and so a slowest rate."""

    def __init__(
        self, assoc: Association, client_socket: socket.socket, max_pdu_bytes: int, refusals: Refusals
    ) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self.wake = Wake()
        self.take_pdvs: PdvHandler | None = None
        """Set before the association is established."""
        self.peer_certificate: PeerCertificate | None = None
        self.called_ae_title = self.calling_ae_title = ""
        """As the A-ASSOCIATE-RQ has them, escaped where they are not ASCII; "" before it came."""
        self.has_ended = False
        """The cause is logged already; its consequences are not worth a line."""
        self._request = self._first = b""
        self._refusals = refusals
        self._max_pdu_bytes = max_pdu_bytes
        self._after_abort_bytes = 0
        self._head = bytearray()
        """Read already, for pynetdicom."""
        self._buffer = bytearray()
        self._is_plain = not isinstance(client_socket, ssl.SSLSocket)
        if self._is_plain:
            # The kernel waits: to ask it for each piece costs a call, and each call the interpreter's lock.
            client_socket.settimeout(None)
            client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_LOOK_S))
            client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_TIMEOUT_S))

    def pump(self) -> bool:
        """Wait as the base class, and hand each P-DATA-TF straight to `take_pdvs`: pynetdicom does not see them.

        A C-STORE may be received, made durable and answered in here, on the association's reading thread.
        """
        if self.assoc.dul.state_machine.current_state != "Sta6":  # PS3.8 9.2: ready for data transfer
            # What is known comes before what can be read: after an invalid request nothing waits for a few more bytes.
            return self.event_queue.empty() and super().pump()
        try:
            while not self._is_wanted():
                head = self._begun()
                if head is None:
                    if not super().pump():
                        return False
                    head = self.recv(_HEAD_BYTES)
                if len(head) < _HEAD_BYTES or head[0] != _P_DATA_TF:
                    self._head = head
                    return True
                self._take_p_data(int.from_bytes(head[2:]))
                self.assoc.dul._idle_timer.restart()
        except OSError:
            self.event_queue.put("Evt17")  # PS3.8 9.2: transport connection closed
        return False

    def hear(self, content: bytes) -> None:
        """Observe a PDU; the first one is the request."""
        super().hear(content)
        if content[:1] == bytes([associate_pdu.RQ]) and not self._request:
            self._request = content[: associate_pdu.FIXED_BYTES]
            self.called_ae_title, self.calling_ae_title = associate_pdu.titles(content)

    def meet(self, event: str, state: str) -> None:
        """Report why the association ends, if this event ends it and it was not reported yet."""
        is_idle = self.assoc.dul.idle_timer_expired()
        ending = judge(event, state, Heard(first=self._first, said=self.said, fault=self.fault, is_idle=is_idle))
        if ending is not None:
            self.end(ending.cause, ending.detail)

    def fail(self, error: Exception) -> None:
        """Report a fault of our own."""
        self.end(Cause.FAULT, describe(error))

    def end(self, cause: Cause, detail: str) -> None:
        """Report why the association ends: the first of several reasons."""
        if self.has_ended:
            return
        self.has_ended = True
        if cause is Cause.PROBE:
            self._refusals.count(cause)
        else:
            self.report(cause, detail)

    def report(self, cause: Cause, detail: str) -> None:
        """Count and report what the peer did, or why it was refused."""
        host, ae_title = str(self.assoc.requestor.address), self.calling_ae_title
        self._refusals.add(Refusal(cause=cause, host=host, ae_title=ae_title, detail=detail))

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly `nr_bytes`, or fewer where the peer closed.

        Raises
        ------
        OSError : the PDU is too long or too slow; the connection is closed.
        """
        if self._head and nr_bytes == _HEAD_BYTES:
            head, self._head = self._head, bytearray()
            return head
        self._require_room(nr_bytes)
        content = bytearray(nr_bytes)
        with memoryview(content) as rest:
            received = self._fill(rest)
        self._first = self._first or bytes(content[: min(received, _HEAD_BYTES)])
        return content[:received] if received < nr_bytes else content

    def send(self, bytestream: bytes) -> None:
        """As the base class, but give up on a peer that does not read."""
        if self.socket is not None:
            if not self._is_plain:
                with suppress(OSError):
                    self.socket.settimeout(SEND_TIMEOUT_S)
            super().send(self._completed(bytestream))

    def _completed(self, content: bytes) -> bytes:
        """An A-ASSOCIATE-AC repeats what it answers; pynetdicom does not report another protocol version."""
        if content[:1] == bytes([associate_pdu.AC]) and self._request:
            return associate_pdu.with_echo(content, self._request)
        if content[:1] == bytes([associate_pdu.RJ]) and associate_pdu.is_about_version(content):
            self.end(Cause.VERSION, "bit 0 of the protocol version is not set")
        return content

    def drop(self) -> None:
        """Close the connection, and wake the thread that waits for its A-ASSOCIATE-RQ."""
        self._shutdown_socket()
        if not self.assoc.is_established:
            self.assoc.dul.to_user_queue.put(cast(Any, None))  # what the queue's reader makes of a timeout

    def release(self) -> None:
        """Release what it holds besides the connection; the object itself may be collected much later."""
        self.wake.close()
        self._buffer = bytearray()

    def _is_wanted(self) -> bool:
        """Whether the thread has something to do besides reading."""
        dul = self.assoc.dul
        return bool(dul._kill_thread or dul.to_provider_queue.queue) or not self.event_queue.empty()

    def _begun(self) -> bytearray | None:
        """Read the head of a PDU that has come already; None where none has."""
        if not self._is_plain or self.socket is None:
            return None
        try:
            head = bytearray(self.socket.recv(_HEAD_BYTES, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return None
        return head if len(head) in (0, _HEAD_BYTES) else head + self.recv(_HEAD_BYTES - len(head))

    def _take_p_data(self, length: int) -> None:
        """Read the rest of a P-DATA-TF and hand it on."""
        self._require_room(length)
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        with memoryview(self._buffer)[:length] as content:
            if self._fill(content) < length:
                raise OSError("the peer has closed in the middle of a PDU")
            try:
                pdvs = list(_pdvs(content))
            except (ValueError, struct.error):
                self.event_queue.put("Evt19")  # PS3.8 9.2: invalid PDU, A-ABORT
                return
            if self.take_pdvs is not None:
                self.take_pdvs(pdvs)

    def _require_room(self, nr_bytes: int) -> None:
        established = bool(self.assoc.is_established)
        longest = self._max_pdu_bytes + PDU_SLACK_BYTES if established else REQUEST_PDU_BYTES
        if nr_bytes > longest:
            self._refuse(Cause.PDU_TOO_LONG, f"a PDU of {nr_bytes} bytes; {longest} are allowed")
        if self.assoc.dul.state_machine.current_state == "Sta13":
            self._after_abort_bytes += nr_bytes
            if self._after_abort_bytes > AFTER_ABORT_BYTES:
                self._refuse(Cause.PROTOCOL, "the peer goes on after an abort")

    def _fill(self, rest: memoryview) -> int:
        """Read until it is full, or the peer has closed; how many bytes there were."""
        length, received = len(rest), 0
        deadline = time.monotonic() + PDU_GRACE_S + length / SLOWEST_BYTES_PER_S
        while received < length and (got := self._recv_some(rest[received:], deadline)) != 0:
            received += max(got, 0)
        return received

    def _recv_some(self, rest: memoryview, deadline: float) -> int:
        """Read; 0 if the peer has closed, -1 if nothing came for a while."""
        connection, remaining_s = self.socket, deadline - time.monotonic()
        if connection is None:
            return 0
        if remaining_s <= 0:
            self._refuse(Cause.TOO_SLOW, "a PDU that came too slowly")
        try:
            if self._is_plain:
                return connection.recv_into(rest, 0, socket.MSG_WAITALL)
            connection.settimeout(remaining_s)
            return connection.recv_into(rest)
        except (BlockingIOError, TimeoutError):
            return -1

    def _refuse(self, cause: Cause, detail: str) -> NoReturn:
        self.end(cause, detail)
        self.drop()
        raise OSError(detail)


def calling_ae_title(association: Association) -> str:
    """The peer's AE title: stripped of padding, escaped where it is not ASCII."""
    connection = association.dul.socket
    if isinstance(connection, GuardedSocket):
        return connection.calling_ae_title
    return str(association.requestor.ae_title).strip()


def _pdvs(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Walk over the PDVs of a P-DATA-TF.

    Raises
    ------
    ValueError, struct.error : one does not fit.
    """
    place = 0
    while place < len(content):
        length, context_id = _PDV_HEAD.unpack_from(content, place)
        start, place = place + _PDV_HEAD.size, place + 4 + length
        if length < 2 or place > len(content):
            raise ValueError("a PDV that does not fit into its PDU")
        yield context_id, content[start:place]


def _timeval(seconds: float) -> bytes:
    """As the kernel reads it (socket(7))."""
    return struct.pack("@ll", int(seconds), round(seconds % 1 * 1_000_000))
