"""Destinations that are asked for Storage Commitment, and answer as a test says: at once, late, twice, elsewhere."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from cxr_node.config.network import Address
from tests.node import peers
from tests.patience import PATIENCE_S

PUSH_MODEL, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
NO_SUCH_OBJECT = 0x0112


@dataclass(slots=True, kw_only=True)
class Asked:
    """One N-ACTION as it came."""

    transaction_uid: str
    references: list[tuple[str, str]]
    association: Association

    @property
    def uids(self) -> list[str]:
        return [uid for _, uid in self.references]


@dataclass(slots=True)
class Committer:
    """An archive that answers every N-ACTION with `status`, after it has done what `before` says."""

    archive: peers.Archive = field(default_factory=peers.Archive)
    status: int = 0x0000
    before: Callable[[Asked], None] = lambda asked: None
    asked: list[Asked] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def act(self, event: Event) -> tuple[int, None]:
        information = event.action_information
        items = information.ReferencedSOPSequence
        references = [(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)) for item in items]
        one = Asked(transaction_uid=str(information.TransactionUID), references=references, association=event.assoc)
        self.before(one)
        with self.arrived:
            self.asked.append(one)
            self.arrived.notify_all()
        return self.status, None

    def wait(self, requests: int, timeout_s: float = PATIENCE_S) -> bool:
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.asked) >= requests, timeout_s)


@contextlib.contextmanager
def committing(
    committer: Committer, *, commits: bool = True, ae_title: str = "PACS", port: int = 0
) -> Iterator[Address]:
    """Serve an archive; where it does not commit, it has no presentation context for Storage Commitment."""
    entity = AE(ae_title)
    for sop_class_uid in {*peers.SOP_CLASS.values(), *peers.MEASUREMENT_CLASSES}:
        entity.add_supported_context(sop_class_uid, list(peers.BOTH_SYNTAXES))
    if commits:
        entity.add_supported_context(PUSH_MODEL)
    handlers = [(evt.EVT_C_STORE, committer.archive), (evt.EVT_N_ACTION, committer.act)]
    with peers.serving(entity, *handlers, port=port) as address:
        yield address


def information(transaction_uid: str, committed: Sequence[str], failed: dict[str, int] | None = None) -> Dataset:
    """Event Information of an N-EVENT-REPORT."""
    data_set = Dataset()
    data_set.TransactionUID = transaction_uid
    data_set.ReferencedSOPSequence = [_item(uid) for uid in committed]
    if failed:
        data_set.FailedSOPSequence = [_item(uid, reason) for uid, reason in failed.items()]
    return data_set


def _item(uid: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    item.ReferencedSOPInstanceUID = uid
    if reason is not None:
        item.FailureReason = reason
    return item


def report_on(association: Association, told: Dataset, event_type: int | None = None) -> int | None:
    """N-EVENT-REPORT on an association that is open; the status that was answered."""
    failed = "FailedSOPSequence" in told
    answer, _ = association.send_n_event_report(told, event_type or 1 + failed, PUSH_MODEL, INSTANCE)
    status = answer.get("Status")
    return None if status is None else int(status)


def later(asked: Asked, told: Dataset) -> None:
    """Report on the association of the request, as soon as that is answered; the node may be dead by then."""

    def report() -> None:
        with contextlib.suppress(RuntimeError):
            report_on(asked.association, told)

    threading.Thread(target=report, daemon=True).start()


def call(port: int, ae_title: str = "PACS", role: bool = True) -> Association:
    """An association that the archive opens to the node, as the SCP of Storage Commitment."""
    entity = AE(ae_title)
    entity.add_requested_context(PUSH_MODEL)
    entity.dimse_timeout = entity.acse_timeout = 10
    roles = [build_role(PUSH_MODEL, scp_role=True)] if role else []
    return entity.associate("127.0.0.1", port, ae_title="CXR_NODE", ext_neg=roles)


def report_to(port: int, told: Dataset, event_type: int | None = None, ae_title: str = "PACS") -> int | None:
    """The same on an association of its own."""
    association = call(port, ae_title)
    assert association.is_established
    assert association.accepted_contexts
    try:
        return report_on(association, told, event_type)
    finally:
        association.release()
