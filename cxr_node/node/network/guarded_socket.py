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
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NoReturn, Protocol, cast

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
_ONE_PDV_HEAD = struct.Struct(">BxIIBB")  # of a PDU and its only PDV, with the message control header of that (E.2)
_DATA, _LAST_DATA = 0x00, 0x02
_RUN_BYTES = 256 * 1024 + 1024
"""Of a data set, taken at a time: two of the PDUs that are usual with peers of our own kind."""
_RUN_S = 1.0
"""After so long a run is taken, however short it is: the pace of its message is looked at then."""


class PdvTaker(Protocol):
    """Takes what P-DATA-TF PDUs carry."""

    @property
    def awaited(self) -> int | None:
        """The presentation context of the data set that has begun, and is not over; None where none has."""

    def take(self, pdvs: list[tuple[int, memoryview]]) -> None:
        """Take PDVs, each with its presentation context; they are valid during the call."""


class GuardedSocket(WaitingSocket):
    """A connection whose PDUs have a longest length, a deadline, and so a slowest rate."""

    def __init__(
        self, assoc: Association, client_socket: socket.socket, max_pdu_bytes: int, refusals: Refusals
    ) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self.wake = Wake()
        self.taker: PdvTaker | None = None
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
        self._ahead = bytearray()
        """Read already; comes before what the connection has."""
        self._buffer = bytearray()
        self._is_plain = not isinstance(client_socket, ssl.SSLSocket)
        if self._is_plain:
            # The kernel waits: to ask it for each piece costs a call, and each call the interpreter's lock.
            client_socket.settimeout(None)
            client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_LOOK_S))
            client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_TIMEOUT_S))

    def pump(self) -> bool:
        """Wait as the base class, and hand each P-DATA-TF straight to `taker`: pynetdicom does not see them.

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
                    self._ahead[:0] = head
                    return True
                self._take_p_data(int.from_bytes(head[2:]))
                while self._is_plain and self._take_run():
                    pass
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
        return bool(dul._kill_thread or dul.to_provider_queue.queue or self.event_queue.queue)

    def _begun(self) -> bytearray | None:
        """Read the head of a PDU that has come already; None where none has."""
        if self._ahead:
            return self.recv(_HEAD_BYTES)
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
            if self.taker is not None:
                self.taker.take(pdvs)

    def _take_run(self) -> bool:
        """Hand more of a data set on, that comes without a pause; False where nothing of it was there.

        PDUs of one PDV each are read side by side, so that they are taken as one: each with the head of the next one,
        which the content of that replaces. Whatever else comes is left to be read as usual.
        """
        context_id = self.taker.awaited if self.taker is not None else None
        if context_id is None or self._is_wanted():
            return False
        if len(self._buffer) < _RUN_BYTES:
            self._buffer = bytearray(_RUN_BYTES)
        nr_pdus, control, end, until = 0, _DATA, 1, time.monotonic() + _RUN_S  # in front: the control header of all
        with memoryview(self._buffer) as run:
            ahead = self._fill(run[end : end + _ONE_PDV_HEAD.size], 0)
            while control == _DATA and ahead == _ONE_PDV_HEAD.size and time.monotonic() < until:
                kind, nr_bytes, length, context, pdv = _ONE_PDV_HEAD.unpack_from(run, end)
                behind = end + nr_bytes - 6  # of its content, which has no head of its own any more
                is_more = kind == _P_DATA_TF and length == nr_bytes - 4 and context == context_id
                if not is_more or pdv not in (_DATA, _LAST_DATA) or behind + ahead > len(run) or self._is_wanted():
                    break
                self._require_room(nr_bytes)
                wanted = behind + (ahead if pdv == _DATA else 0)
                if (there := end + self._fill(run[end:wanted], behind - end)) < behind:
                    raise OSError("the peer has closed in the middle of a PDU")
                nr_pdus, control, end, ahead = nr_pdus + 1, pdv, behind, there - behind
            self._ahead[:0] = run[end : end + ahead]
            if nr_pdus and self.taker is not None:
                run[0] = control
                self.taker.take([(context_id, run[:end])])
        return nr_pdus > 0

    def _require_room(self, nr_bytes: int) -> None:
        established = bool(self.assoc.is_established)
        longest = self._max_pdu_bytes + PDU_SLACK_BYTES if established else REQUEST_PDU_BYTES
        if nr_bytes > longest:
            self._refuse(Cause.PDU_TOO_LONG, f"a PDU of {nr_bytes} bytes; {longest} are allowed")
        if self.assoc.dul.state_machine.current_state == "Sta13":
            self._after_abort_bytes += nr_bytes
            if self._after_abort_bytes > AFTER_ABORT_BYTES:
                self._refuse(Cause.PROTOCOL, "the peer goes on after an abort")

    def _fill(self, rest: memoryview, least: int | None = None) -> int:
        """Read until it is full, or the peer has closed, or pauses after the `least`; how many bytes there were."""
        length, received = len(rest), min(len(self._ahead), len(rest))
        if received:
            rest[:received] = self._ahead[:received]
            del self._ahead[:received]
        least = length if least is None else least
        deadline = time.monotonic() + PDU_GRACE_S + length / SLOWEST_BYTES_PER_S
        while received < length and (got := self._recv_some(rest[received:], deadline)) != 0:
            if got < 0 and received >= least:
                break
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
