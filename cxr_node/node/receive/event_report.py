"""N-EVENT-REPORT of Storage Commitment on an association that the destination opened to us.

Comes beside C-STORE and C-ECHO (`intake`), and only in a presentation context of this SOP Class, for which the
caller is the SCP (PS3.7 D.3.3.4). Read and answered on the association's reading thread, like an object.
PS3.4 J.3.3, PS3.7 10.1.1 and 10.3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import decode

from cxr_node.node.commitment.scu import SOP_CLASS, SOP_INSTANCE, SUCCESS, ReportError, read
from cxr_node.node.ledger.commitments import Report
from cxr_node.node.network.association import IMPLICIT
from cxr_node.node.network.guarded_socket import calling_ae_title
from cxr_node.node.network.rejections import Cause, Refusals
from cxr_node.node.network.statuses import MISMATCH
from cxr_node.node.receive.receiver import Receiver, RefusedError, StoreRequest
from cxr_node.node.receive.storage_scp import CommandField, ProtocolError, StorageProvider, control, has_data_set

MAX_INFORMATION_BYTES = 1024 * 1024
"""Of the Event Information; that of a hundred objects, as many as we ask about at once, has 20 KiB."""

Take = Callable[[Report, str], int]
"""Takes a report and the AE title of who sent it; tells the status to answer."""


class EventReportProvider(StorageProvider):
    """C-STORE, C-ECHO, and N-EVENT-REPORT, of one association."""

    def __init__(self, assoc: Association, receiver: Receiver, refusals: Refusals, take: Take) -> None:
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

    def _read(self, context_id: int, command: dict[str, Any]) -> StoreRequest:
        request = super()._read(context_id, command)
        if request.sop_class_uid == SOP_CLASS:
            self._refusal = RefusedError(MISMATCH, "Storage Commitment stores nothing")
        return request

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
