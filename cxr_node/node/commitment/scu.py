"""Storage Commitment Push Model as SCU: the request, and the N-EVENT-REPORT that answers it (PS3.4 Annex J).

The report comes on the association of the request, or on another one that the destination opens (`event_report`), to
another process perhaps. Data sets are written here by hand and read by pynetdicom.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

from pynetdicom import dsutils, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import build_context

from cxr_node.config.destinations import DicomDestination
from cxr_node.config.schema import Config
from cxr_node.errors import CxrNodeError, DeliveryError, ResourceError
from cxr_node.node.ledger import commitments
from cxr_node.node.ledger.commitments import Report, Transaction
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.wake import wake
from cxr_node.node.network.association import (
    EXPLICIT,
    IMPLICIT,
    Entity,
    TlsClient,
    ask,
    associate,
    broken,
    deadline,
    end,
    fault,
    said,
)
from cxr_node.node.network.rejections import Cause, Refusals
from cxr_node.node.network.statuses import SUCCESS, Response
from cxr_node.node.process.notify import Role
from cxr_node.node.retry import backoff_s

log = logging.getLogger(__name__)

SOP_CLASS, SOP_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
SYNTAXES = (EXPLICIT, IMPLICIT)
REQUEST = 1
"""Action Type ID of Request Storage Commitment (PS3.4 J.3.2)."""
MESSAGE_ID = 1
_TO_COMMIT = (REQUEST, SOP_CLASS, SOP_INSTANCE)
SUCCESSFUL, FAILURES_EXIST = 1, 2
"""Event Type IDs (PS3.4 J.3.3)."""
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT = 0x0115
RESOURCE_LIMITATION = 0x0213
DEFAULT_REASON = 0x0110
"""Processing failure, for an item that gives no Failure Reason."""
NEVER = {
    0x0118: "no such SOP Class",
    0x0122: "SOP Class not supported",
    0x0123: "no such action",
    0x0211: "unrecognized operation",
}
"""Statuses of an N-ACTION (PS3.7 10.1.4.1.10) of a destination that does not support Storage Commitment."""


class ReportError(CxrNodeError):
    """An N-EVENT-REPORT that is refused, with the status to answer (PS3.7 10.1.1.1.8)."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status = status
        super().__init__(sentence)


class CommitmentScu:
    """Requests commitment from one destination. For one thread; pynetdicom calls `take_report` in another."""

    words = "asked for commitment"
    by_query = False

    def __init__(
        self,
        destination: DicomDestination,
        node_ae_title: str,
        take_report: Callable[[Report], int],
        refusals: Refusals | None = None,
    ) -> None:
        self._destination = destination
        self._tls = TlsClient(destination)
        self._entity = Entity(destination.calling_ae_title or node_ae_title, destination.timeout_s, refusals)
        self._take_report = take_report
        self._association: Association | None = None

    def request(self, asked: Transaction) -> None:
        """N-ACTION; the association stays open, for some destinations report on it.

        Raises
        ------
        DeliveryError : the request was not accepted; permanent if this destination does not support Storage Commitment.
        """
        association = self._association
        if association is None or not association.is_established:
            contexts = [build_context(SOP_CLASS, list(SYNTAXES))]
            handlers: Any = [(evt.EVT_N_EVENT_REPORT, self._reported)]
            association = associate(self._entity, self._destination, contexts, self._tls, handlers)
            self._association = association
        limit_s = self._destination.timeout_s
        association.dimse_timeout = 2 * limit_s  # the deadline comes first and ends even a stuck send()
        information = dsutils.decode(BytesIO(action_information(asked)), True, True)
        with deadline(association, limit_s) as passed:
            try:
                reply = ask(association, lambda: association.send_n_action(information, *_TO_COMMIT, MESSAGE_ID))
            except RuntimeError as error:  # released by the peer a moment ago
                raise DeliveryError("the association was ended by the destination", permanent=False) from error
        status = reply[0].get("Status") if reply is not None else None
        words = fault(association, Response.N_ACTION, MESSAGE_ID)
        if status is None or words:
            raise self._unanswered(association, words, passed.is_set())
        _judge(int(status))

    def _unanswered(self, association: Association, words: str, is_late: bool) -> DeliveryError:
        self._association = None
        end(association)
        if words:
            cause = Cause.DESTINATION_CONFUSED
        elif is_late or not said(association):
            cause, words = Cause.DESTINATION_MUTE, "no answer to the request for commitment"
        else:
            cause, words = Cause.DESTINATION_ABORTED, f"no answer to the request for commitment: {said(association)}"
        broken(self._entity, self._destination.address, cause, words)
        return DeliveryError(words, permanent=False)

    def close(self) -> None:
        """Release the association."""
        association, self._association = self._association, None
        if association is not None and association.is_established:
            with deadline(association, self._destination.timeout_s):
                association.release()

    def _reported(self, event: Event) -> tuple[int, None]:
        try:
            return self._take_report(read(event.event_type, event.event_information)), None
        except ReportError as error:
            return error.status, None


def action_information(asked: Transaction) -> bytes:
    """Encode Transaction UID and Referenced SOP Sequence in Implicit VR Little Endian (PS3.4 Table J.3-1)."""
    items = b"".join(
        _element(0xFFFE, 0xE000, _uid(0x1150, sop_class_uid) + _uid(0x1155, sop_instance_uid))
        for sop_class_uid, sop_instance_uid in asked.references
    )
    return _uid(0x1195, asked.uid) + _element(0x0008, 0x1199, items)


def read(event_type: int | None, information: Any) -> Report:
    """Read Event Type ID and Event Information of an N-EVENT-REPORT (PS3.4 Table J.3-2).

    Raises
    ------
    ReportError : it is not a Storage Commitment report.
    """
    if event_type not in (SUCCESSFUL, FAILURES_EXIST):
        raise ReportError(NO_SUCH_EVENT_TYPE, "the Event Type ID is neither 1 nor 2")
    transaction_uid = str(information.get("TransactionUID") or "")
    if not transaction_uid:
        raise ReportError(INVALID_ARGUMENT, "Transaction UID is missing")
    committed = information.get("ReferencedSOPSequence") or ()
    failed = information.get("FailedSOPSequence") or ()
    return Report(
        transaction_uid=transaction_uid,
        committed=tuple(str(item.get("ReferencedSOPInstanceUID")) for item in committed),
        failed={str(item.get("ReferencedSOPInstanceUID")): _reason(item) for item in failed},
    )


def _reason(item: Any) -> int:
    reason = item.get("FailureReason")
    return reason if isinstance(reason, int) else DEFAULT_REASON


def _judge(status: int) -> None:
    if status in NEVER:
        words = f"0x{status:04X}: {NEVER[status]}: it takes no request for commitment"
        raise DeliveryError(words, permanent=True, status=status)
    if status != SUCCESS:
        raise DeliveryError(f"0x{status:04X} to the request for commitment", permanent=False, status=status)


def _uid(element: int, value: str) -> bytes:
    encoded = value.encode("ascii")
    return _element(0x0008, element, encoded + b"\0" * (len(encoded) % 2))


def _element(group: int, element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, element, len(value)) + value


class Reports:
    """Applies N-EVENT-REPORTs to the ledger, whichever association and process they came to. Threads share it."""

    def __init__(self, config: Config, ledger: Callable[[], Ledger]) -> None:
        self._config = config
        self._ledger = ledger

    def take(self, report: Report, ae_title: str) -> int:
        """Apply a report of the destination that was asked, and of no other; the status to answer.

        PS3.4 J.3.3, PS3.7 10.1.1.1.8.
        """
        try:
            return self._take(report, ae_title)
        except ResourceError as error:
            log.error("commitment report refused ae=%r %s", ae_title, error)
            return RESOURCE_LIMITATION

    def _take(self, report: Report, ae_title: str) -> int:
        ledger = self._ledger()
        asked = commitments.find(ledger, report.transaction_uid)
        titles = {to.name: to.ae_title for to in self._config.destinations if to.kind == "dicom"}
        if asked is None or titles.get(asked.destination) != ae_title:
            log.warning("commitment report refused ae=%r cause='no such transaction of this peer'", ae_title)
            return INVALID_ARGUMENT
        self.apply(asked, report)
        return SUCCESS

    def apply(self, asked: Transaction, report: Report) -> None:
        """Settle what it is about, and wake who sends again what was lost.

        Raises
        ------
        ResourceError : the ledger cannot be written now.
        """
        ledger = self._ledger()
        done = commitments.answer(ledger, asked, report, lambda asks: backoff_s(self._config.delivery, max(1, asks)))
        log.log(
            logging.ERROR if done["given up"] else logging.WARNING if done["sent again"] else logging.INFO,
            "%s destination=%s committed=%d sent_again=%d accepted_not_committed=%d transaction=%s",
            *("looked up" if asked.by_query else "commitment reported", asked.destination),
            *(done["committed"], done["sent again"], done["given up"], asked.uid),
        )
        if done["sent again"]:
            wake(ledger, self._config.spool.path, Role.DELIVER)
