"""C-STORE requests straight from the wire to a file: PDVs are written as they come, answered when all is safe.

Replaces pynetdicom's DIMSE provider of an acceptor, which collects a data set in memory, or leaves its temporary
file behind on an abort. Knows no ledger and no configuration: a `Receiver` opens the files and judges them.
PS3.7 9.1.1 (C-STORE), 9.3.1 (its messages), E.1 (command elements); PS3.8 Annex E (PDVs).

An N-EVENT-REPORT of Storage Commitment also arrives here, on an association that the destination opened, and only in
a presentation context of this SOP Class, for which the caller is the SCP (PS3.7 D.3.3.4, PS3.4 J.3.3).

All of this runs on the association's reading thread: while an object is made safe nothing more is read, so a
sender that does not wait is held back by TCP.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from io import BytesIO
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import decode
from pynetdicom.pdu_primitives import P_DATA

from cxr_node.domain import Priority
from cxr_node.errors import CxrNodeError
from cxr_node.node.commitment.scu import SOP_CLASS, SOP_INSTANCE, ReportError, read
from cxr_node.node.ledger.commitments import Report
from cxr_node.node.network import dimse
from cxr_node.node.network.association import IMPLICIT
from cxr_node.node.network.dimse import Message
from cxr_node.node.network.guarded_socket import GuardedSocket, calling_ae_title
from cxr_node.node.network.rejections import Cause, Refusal, Refusals
from cxr_node.node.network.statuses import CANNOT_UNDERSTAND, MISMATCH, SUCCESS
from cxr_node.node.network.waiting_socket import Pace
from cxr_node.node.process.logs import describe
from cxr_node.node.receive.receiver import Receiver, RefusedError, StoreRequest
from cxr_node.node.receive.reception import Reception, is_uid, nameless

MAX_COMMAND_BYTES = 16 * 1024
MAX_WAITING = 8
"""Requests of one association that wait for an answer; no peer may send more than one (PS3.7 D.3.3.3)."""
MESSAGE_GRACE_S = 60.0
"""A message that was begun must be complete after this and its length over the slowest rate."""
MAX_INFORMATION_BYTES = 1024 * 1024
"""Of the Event Information; that of a hundred objects, as many as we ask about at once, has 20 KiB."""
TakeReport = Callable[[Report, str], int]
"""Takes a report and its sender's AE title; returns the status to answer."""
_PRIORITIES = {code: priority for priority, code in dimse.PRIORITIES.items()}
_IS_COMMAND, _IS_LAST = 1, 2  # PS3.8 E.2, message control header


class CommandField(IntEnum):
    """PS3.7 E.1-1, those that are obeyed here."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    N_EVENT_REPORT_RQ = 0x0100
    C_CANCEL_RQ = 0x0FFF


class ProtocolError(CxrNodeError):
    """The peer violates the protocol: the association is aborted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A C-STORE-RQ, and the context in which it came."""

    message_id: int
    context_id: int
    request: StoreRequest
    refusal: RefusedError | None = None
    """Why no data set could make it good."""


class StorageProvider(DIMSEServiceProvider):
    """C-STORE and C-ECHO of one association."""

    def __init__(self, assoc: Association, receiver: Receiver, refusals: Refusals) -> None:
        super().__init__(assoc)
        self._receiver = receiver
        self._refusals = refusals
        self._command = bytearray()
        self._announcement: Announcement | None = None
        self._reception: Reception | None = None
        self._busy = False
        self._last_at = time.monotonic()
        self._pace = Pace(MESSAGE_GRACE_S)

    @property
    def idle_s(self) -> float:
        """Seconds since the last message; 0 while one is on its way."""
        return 0.0 if self._busy or self._announcement is not None else time.monotonic() - self._last_at

    @property
    def awaited(self) -> int | None:
        """As `PdvTaker`."""
        return None if self._announcement is None else self._announcement.context_id

    def discard(self) -> None:
        """Drop an incomplete object."""
        dropped_bytes = self._reception.discard() if self._reception is not None else None
        if dropped_bytes is not None:
            self._tell(Cause.DROPPED, f"bytes={dropped_bytes}")

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take what came while the association was being released, or by another way than `GuardedSocket.pump`."""
        self.take([(context_id, memoryview(pdv)) for context_id, pdv in primitive.presentation_data_value_list])

    def take(self, pdvs: list[tuple[int, memoryview]]) -> None:
        """As `PdvTaker`; a fault ends this association only."""
        self._busy = True
        try:
            for context_id, pdv in pdvs:
                self._take(context_id, pdv)
        except ProtocolError as error:
            self._end(Cause.PROTOCOL, str(error))
        except Exception as error:  # a fault of one association must not end the others
            self._end(Cause.FAULT, describe(error))
        finally:
            self._busy = False
            self._last_at = time.monotonic()

    def _end(self, cause: Cause, detail: str) -> None:
        """Abort: PS3.8 9.2, invalid PDU."""
        if isinstance(self.dul.socket, GuardedSocket):
            self.dul.socket.end(cause, detail)
        else:
            self._tell(cause, detail)
        self.dul.event_queue.put("Evt19")

    def _tell(self, cause: Cause, detail: str) -> None:
        host, ae_title = str(self.assoc.requestor.address), calling_ae_title(self.assoc)
        self._refusals.add(Refusal(cause=cause, host=host, ae_title=ae_title, detail=detail))

    def _take(self, context_id: int, pdv: memoryview) -> None:
        if self._announcement is None and not self._command:
            self._pace.begin()
        self._keep_pace(len(pdv))
        is_command, is_last = control(pdv)
        if self._announcement is not None and self._reception is not None:
            if is_command or context_id != self._announcement.context_id:
                raise ProtocolError("another message inside a C-STORE")
            self._take_data(self._reception, pdv[1:])
            if is_last:
                self._answer(self._announcement, self._reception)
        elif not is_command:
            raise ProtocolError("a data set without a command")
        else:
            self._command += pdv[1:]
            if len(self._command) > MAX_COMMAND_BYTES:
                raise ProtocolError("an endless command")
            if is_last:
                encoded, self._command = bytes(self._command), bytearray()
                self._obey(context_id, encoded)

    def _keep_pace(self, nr_bytes: int) -> None:
        if not self._pace.keeps_up(nr_bytes):
            raise ProtocolError("a message that came too slowly")

    def _obey(self, context_id: int, encoded: bytes) -> None:
        try:
            command: dict[str, Any] = dict(dimse.read(encoded))
        except ValueError as error:
            raise ProtocolError(str(error)) from error
        match command.get("CommandField"):
            case CommandField.C_STORE_RQ:
                self._begin(self._read(context_id, command), has_data=has_data_set(command))
            case CommandField.C_ECHO_RQ:
                if self.msg_queue.qsize() >= MAX_WAITING:
                    raise ProtocolError("more requests at a time than allowed")
                echo = P_DATA()
                pdv: Any = [context_id, bytes([_IS_COMMAND | _IS_LAST]) + encoded]  # typed a tuple, checked as a list
                echo.presentation_data_value_list = [pdv]
                super().receive_primitive(echo)
            case CommandField.C_CANCEL_RQ:
                pass  # PS3.7 9.3.2.3: a C-CANCEL that comes too late is not an error
            case _:
                self._obey_other(context_id, command)

    def _obey_other(self, context_id: int, command: dict[str, Any]) -> None:
        raise ProtocolError("a command that is not obeyed here")

    def _read(self, context_id: int, command: dict[str, Any]) -> Announcement:
        context = self.assoc._accepted_cx.get(context_id)
        if context is None:
            raise ProtocolError("a presentation context that was not accepted")
        message_id = command.get("MessageID")
        if not isinstance(message_id, int):
            raise ProtocolError("a C-STORE without Message ID")
        request = StoreRequest(
            sop_class_uid=command.get("AffectedSOPClassUID") or "",
            sop_instance_uid=command.get("AffectedSOPInstanceUID") or "",
            transfer_syntax_uid=str(context.transfer_syntax[0]),
            calling_ae_title=calling_ae_title(self.assoc),
            peer_host=str(self.assoc.requestor.address),
            priority=_priority(command.get("Priority")),
        )
        refusal = None
        if request.sop_class_uid != str(context.abstract_syntax):
            refusal = RefusedError(MISMATCH, "the SOP Class is not that of the presentation context")
        return Announcement(message_id=message_id, context_id=context_id, request=request, refusal=refusal)

    def _begin(self, announced: Announcement, has_data: bool) -> None:
        refusal = announced.refusal
        if not has_data:
            refusal = refusal or nameless(announced.request) or RefusedError(CANNOT_UNDERSTAND, "there is no data set")
        self._announcement = announced
        self._reception = Reception(self._receiver, announced.request, refusal)
        if not has_data:
            self._answer(announced, self._reception)

    def _take_data(self, reception: Reception, content: memoryview) -> None:
        """Write; after a refusal, read on so that the answer comes where the peer expects it."""
        reception.write(content)
        if reception.received_bytes > 2 * self._receiver.max_object_bytes:
            raise ProtocolError("an endless object")

    def _answer(self, announced: Announcement, reception: Reception) -> None:
        status = reception.finish()
        self._announcement = self._reception = None
        refusal = reception.told()
        if refusal is not None:
            self._refusals.add(refusal)
        self._respond(announced, status)

    def _respond(self, announced: Announcement, status: int) -> None:
        """Answer past the queues of pynetdicom: this is the thread that would read them (PS3.8 9.2, DT-1)."""
        connection = self.dul.socket
        if not self.assoc.is_established or connection is None:
            return  # the peer has gone; it will send again
        named = (announced.request.sop_class_uid, announced.request.sop_instance_uid)
        sop_class_uid, sop_instance_uid = (uid if is_uid(uid) else "" for uid in named)
        response = dimse.store_response(sop_class_uid, sop_instance_uid, announced.message_id, status)
        longest = self.maximum_pdu_size or 0
        answer = Message(context_id=announced.context_id, command=response, data_set=memoryview(b""), longest=longest)
        connection.send(b"".join(answer.pieces()))


def control(pdv: memoryview) -> tuple[bool, bool]:
    """Read the message control header of a PDV: is it a piece of a command, and is it the last one (PS3.8 E.2)."""
    return bool(pdv[0] & _IS_COMMAND), bool(pdv[0] & _IS_LAST)


def _priority(code: Any) -> Priority:
    """Read the sender's priority; an absent or unknown one is MEDIUM."""
    return _PRIORITIES.get(code, Priority.MEDIUM)


def has_data_set(command: dict[str, Any]) -> bool:
    """Whether a data set follows the command (PS3.7 E.1)."""
    return command.get("CommandDataSetType") != dimse.NO_DATA_SET


class EventReportProvider(StorageProvider):
    """C-STORE, C-ECHO, and N-EVENT-REPORT, of one association."""

    def __init__(self, assoc: Association, receiver: Receiver, refusals: Refusals, take: TakeReport) -> None:
        super().__init__(assoc, receiver, refusals)
        self._take_report = take
        self._notice: dict[str, Any] | None = None
        self._context_id = 0
        self._information = bytearray()

    def _take(self, context_id: int, pdv: memoryview) -> None:
        if self._notice is None:
            super()._take(context_id, pdv)
            return
        self._keep_pace(len(pdv))
        is_command, is_last = control(pdv)
        if is_command or context_id != self._context_id:
            raise ProtocolError("another message inside an N-EVENT-REPORT")
        self._information += pdv[1:]
        if len(self._information) > MAX_INFORMATION_BYTES:
            raise ProtocolError("an endless N-EVENT-REPORT")
        if is_last:
            self._answer_notice(self._notice)

    def _read(self, context_id: int, command: dict[str, Any]) -> Announcement:
        announced = super()._read(context_id, command)
        if announced.request.sop_class_uid == SOP_CLASS:
            return replace(announced, refusal=RefusedError(MISMATCH, "Storage Commitment stores nothing"))
        return announced

    def _obey_other(self, context_id: int, command: dict[str, Any]) -> None:
        context = self.assoc._accepted_cx.get(context_id)
        is_report = command.get("CommandField") == CommandField.N_EVENT_REPORT_RQ
        if not is_report or context is None or context.abstract_syntax != SOP_CLASS:
            super()._obey_other(context_id, command)
        if not isinstance(command.get("MessageID"), int):
            raise ProtocolError("an N-EVENT-REPORT without Message ID")
        self._notice, self._context_id, self._information = command, context_id, bytearray()
        if not has_data_set(command):
            self._answer_notice(command)

    def _answer_notice(self, command: dict[str, Any]) -> None:
        self._notice = None
        context = self.assoc._accepted_cx[self._context_id]
        information = decode(BytesIO(bytes(self._information)), context.transfer_syntax[0] == IMPLICIT, True)
        ae_title = calling_ae_title(self.assoc)
        try:
            status = self._take_report(read(command.get("EventTypeID"), information), ae_title)
        except ReportError as error:
            self._tell(Cause.COMMITMENT_REPORT, str(error))
            status = error.status
        if self.assoc.is_established:
            self.send_msg(_response(command, status), self._context_id)


def _response(command: dict[str, Any], status: int) -> N_EVENT_REPORT:
    response = N_EVENT_REPORT()
    response.MessageIDBeingRespondedTo = command["MessageID"]
    response.AffectedSOPClassUID = SOP_CLASS
    response.AffectedSOPInstanceUID = SOP_INSTANCE
    if status == SUCCESS:
        response.EventTypeID = command["EventTypeID"]
    response.Status = status
    return response
