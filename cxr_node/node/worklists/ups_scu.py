"""UPS Pull SCU: searches, reads and changes work items of one manager over DIMSE (PS3.4 Annex CC).

C-FIND, N-GET, N-SET and N-ACTION on one association that stays open while there is work. Items are instances of UPS
Push, whichever class was negotiated (PS3.4 CC.3.1). No answer of the manager gets into a log or an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

from pynetdicom import _config, dsutils
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from cxr_node.config.worklists import UpsWorklist, Worklist
from cxr_node.errors import DeliveryError
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
from cxr_node.node.worklists import workitem
from cxr_node.node.worklists.attributes import TAGS, DataSet, encode
from cxr_node.node.worklists.workitem import Reply, Said, StepState, Workitem

PULL, PUSH = "1.2.840.10008.5.1.4.34.6.3", "1.2.840.10008.5.1.4.34.6.1"
CHANGE_STATE = 1
"""Action Type ID (PS3.4 CC.2.1)."""
MAX_ANSWERS = 500
"""To one search; those that come after are found when these are no longer SCHEDULED."""
PROBED = "2.25.0"
"""No item has it: read by `check`, so that no answer is about a patient."""
_PENDING = (0xFF00, 0xFF01)
_IS_WARNING = 0xB000
_WARNINGS = (0x0001, 0x0107, 0x0116)
STATUSES = {
    0xC300: (Said.REFUSED, "may no longer be updated"),
    0xC301: (Said.NOT_OURS, "the correct Transaction UID was not provided"),
    0xC302: (Said.REFUSED, "is already IN PROGRESS"),
    0xC303: (Said.REFUSED, "may become SCHEDULED by N-CREATE only"),
    0xC304: (Said.REFUSED, "has not met the requirements of its final state"),
    0xC307: (Said.GONE, "no such item"),
    0xC310: (Said.REFUSED, "is not IN PROGRESS"),
    0xC311: (Said.REFUSED, "is already COMPLETED"),
    0xC314: (Said.REFUSED, "the action is not appropriate"),
    0x0112: (Said.GONE, "no such SOP Instance"),
    0x0105: (Said.REFUSED, "no such attribute"),
    0x0106: (Said.REFUSED, "invalid attribute value"),
    0x0115: (Said.REFUSED, "invalid argument value"),
    0x0120: (Said.REFUSED, "missing attribute"),
    0x0121: (Said.REFUSED, "missing attribute value"),
}
"""What an answer to N-SET or N-ACTION decides (PS3.4 CC.2.1.3, CC.2.6.3; PS3.7 Annex C); any other failure nothing."""


class UpsScu:
    """Asks one manager. For one thread.

    Raises
    ------
    ConfigError : a certificate or key cannot be used.
    """

    def __init__(self, worklist: UpsWorklist, node_ae_title: str, refusals: Refusals | None = None) -> None:
        self._peer = worklist.peer
        self._tls = TlsClient(self._peer)
        self._entity = Entity(worklist.calling_ae_title or node_ae_title, worklist.timeout_s, refusals)
        self._association: Association | None = None
        self._message_id = 0

    def search(self, worklist: Worklist) -> list[Workitem]:
        """C-FIND."""
        identifier = _decoded(workitem.sought(worklist))
        found: list[Workitem] = []
        association = self._opened()
        with deadline(association, self._peer.timeout_s) as passed:
            replies = self._sent(association, "send_c_find", identifier, PULL)
            for reply, answer in replies or ():
                status = self._status(association, Response.C_FIND, reply, passed.is_set())
                if status == SUCCESS:
                    return found
                if status not in _PENDING:
                    raise _refused("search", status)
                if answer is not None and (one := workitem.read(answer)) is not None:
                    found.append(one)
                if len(found) == MAX_ANSWERS:
                    self._association = None
                    end(association)
                    return found
        raise self._unanswered(association, "", passed.is_set())

    def read(self, uid: str) -> Workitem | None:
        """N-GET."""
        tags = [TAGS[keyword][0] for keyword in workitem.READ]
        status, answer = self._ask(Response.N_GET, "send_n_get", tags, PUSH, uid)
        if _decided(status).said is Said.GONE:
            return None
        if status != SUCCESS and status not in _WARNINGS:
            raise _refused("N-GET", status)
        return workitem.read(answer, uid)

    def change(self, uid: str, state: StepState, transaction_uid: str) -> Reply:
        """N-ACTION, Change UPS State."""
        information = _decoded(workitem.claimed(transaction_uid, state))
        status, _ = self._ask(Response.N_ACTION, "send_n_action", information, CHANGE_STATE, PUSH, uid)
        return _reply("N-ACTION", status)

    def update(self, uid: str, transaction_uid: str, told: DataSet) -> Reply:
        """N-SET."""
        content = _decoded({**told, "TransactionUID": transaction_uid})
        status, _ = self._ask(Response.N_SET, "send_n_set", content, PUSH, uid)
        return _reply("N-SET", status)

    def probe(self) -> str:
        """N-GET of an item that nobody has."""
        if self.read(PROBED) is not None:
            raise DeliveryError(f"{self._peer.address}: has an item of a UID that nobody gives", permanent=False)
        return f"{self._peer.address} takes UPS Pull"

    def close(self) -> None:
        """Release the association."""
        association, self._association = self._association, None
        if association is not None and association.is_established:
            with deadline(association, self._peer.timeout_s):
                association.release()

    def _opened(self) -> Association:
        association = self._association
        if association is None or not association.is_established:
            _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False  # they name a patient
            contexts = [build_context(PULL, [EXPLICIT, IMPLICIT])]
            association = self._association = associate(self._entity, self._peer, contexts, self._tls, [])
        return association

    def _ask(self, expected: Response, method: str, *request: Any) -> tuple[int, Any]:
        association = self._opened()
        with deadline(association, self._peer.timeout_s) as passed:
            reply = self._sent(association, method, *request, meta_uid=PULL)
        status = self._status(association, expected, None if reply is None else reply[0], passed.is_set())
        return status, reply[1]

    def _sent(self, association: Association, method: str, *request: Any, **more: Any) -> Any:
        self._message_id = self._message_id % 0xFFFF + 1
        association.dimse_timeout = 2 * self._peer.timeout_s  # the deadline comes first and ends even a stuck send()
        send: Callable[..., Any] = getattr(association, method)
        try:
            return ask(association, lambda: send(*request, msg_id=self._message_id, **more))
        except RuntimeError as error:  # released by the peer a moment ago
            self._association = None
            raise DeliveryError("the association was ended by the manager", permanent=False) from error

    def _status(self, association: Association, expected: Response, reply: Any, is_late: bool) -> int:
        status = None if reply is None else reply.get("Status")
        words = fault(association, expected, self._message_id)
        if status is None or words or is_late:
            raise self._unanswered(association, words, is_late)
        return int(status)

    def _unanswered(self, association: Association, words: str, is_late: bool) -> DeliveryError:
        self._association = None
        end(association)
        if words:
            cause = Cause.DESTINATION_CONFUSED
        elif is_late or not said(association):
            cause, words = Cause.DESTINATION_MUTE, "no answer from the manager"
        else:
            cause, words = Cause.DESTINATION_ABORTED, f"no answer from the manager: {said(association)}"
        broken(self._entity, self._peer.address, cause, words)
        return DeliveryError(words, permanent=False)


def _decoded(content: DataSet) -> Any:
    return dsutils.decode(BytesIO(encode(content)), True, True)


def _decided(status: int) -> Reply:
    kind, words = STATUSES.get(status, (Said.REFUSED, ""))
    return Reply(said=kind, words=f"0x{status:04X}{f': {words}' if words else ''}")


def _reply(what: str, status: int) -> Reply:
    """0xB304 and 0xB306 say that the item is in its final state already (PS3.4 Table CC.1.1-2)."""
    if status == SUCCESS or status & 0xF000 == _IS_WARNING or status in _WARNINGS:
        return Reply(said=Said.DONE, words=f"0x{status:04X}")
    if status not in STATUSES:
        raise _refused(what, status)
    return _decided(status)


def _refused(what: str, status: int) -> DeliveryError:
    return DeliveryError(f"0x{status:04X} to the {what}", permanent=False, status=status)
