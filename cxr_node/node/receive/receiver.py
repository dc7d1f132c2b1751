"""Received objects into spool and ledger: Success is answered when bytes, file name and row are durable (PS3.7 9.1.1).

Knows no wire (`reception` stands between) and no pixel; `Inspect` reads headers and comes from the `dicom` room.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cxr_node.config.schema import Config
from cxr_node.domain import InstanceRef, Origin, Priority
from cxr_node.errors import ContradictionError, CxrNodeError, ResourceError
from cxr_node.node.audit.messages import received
from cxr_node.node.audit.recorder import SILENT, Audit
from cxr_node.node.ledger import results
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.receipts import Arrival, first_receipt, number_of
from cxr_node.node.ledger.wake import wake
from cxr_node.node.network.file_meta import file_meta
from cxr_node.node.network.statuses import OUT_OF_RESOURCES
from cxr_node.node.process import metrics
from cxr_node.node.process.notify import Role
from cxr_node.node.spool.disk import MIB
from cxr_node.node.spool.part import Part
from cxr_node.node.spool.spool import Area, Spool

log = logging.getLogger(__name__)

PATIENCE_S = 10.0
"""How long a sender waits for the ledger check; senders themselves wait longer for an answer."""


Inspect = Callable[[Path], InstanceRef]
"""Checks the header of a Part 10 file, and names its SOP Instance; raises InstanceError where it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """What a sender says of the object that follows, and who it is."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    """Over HTTP, the name that the configuration gives to the sender."""
    peer_host: str
    priority: Priority = Priority.MEDIUM
    study_instance_uid: str | None = None
    """The only study that it may belong to; None: any."""


class RefusedError(CxrNodeError):
    """A refused object: the status goes to the sender, the sentence to the log."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status = status
        super().__init__(sentence)


class TooLargeError(RefusedError):
    """An object beyond `listen.max_object_mib`."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(OUT_OF_RESOURCES, f"it is larger than {limit_bytes} bytes")


class LedgerGate:
    """Holds senders back until the ledger is open: the receiver listens before the ledger is checked and complete.

    The check takes 0.8 s for 100,000 images, and longer if objects must be received again.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._ledger: Ledger | None = None

    def admit(self, make: Callable[[], Ledger]) -> Ledger:
        """Open and repair the ledger, then let the waiting senders in."""
        ledger = self._ledger = make()
        self._over.set()
        return ledger

    def ledger(self) -> Ledger:
        """Wait for the ledger.

        Raises
        ------
        ResourceError : it takes too long, or the ledger cannot be opened.
        """
        if self._ledger is None:
            self._over.wait(PATIENCE_S)
        if self._ledger is None:
            raise ResourceError("the ledger is not open yet")
        return self._ledger

    def give_up(self) -> None:
        """Refuse the senders that still wait."""
        self._over.set()

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()


class Receiver:
    """Takes objects into spool and ledger. Threads share it."""

    def __init__(
        self, config: Config, inspect: Inspect, spool: Spool, ledger: Callable[[], Ledger], audit: Audit = SILENT
    ) -> None:
        self.max_object_bytes = config.listen.max_object_mib * MIB
        self._inspect = inspect
        self._spool = spool
        self._ledger = ledger
        self._audit = audit
        self._sync_slots = threading.BoundedSemaphore(spool.store.writers)
        self._notifying, self._is_unheard = threading.Lock(), False

    def require_room(self) -> None:
        """Refuse what could not be kept: without a ledger, or below the watermark.

        Raises
        ------
        RefusedError, ResourceError, LedgerLostError : nothing can be received now.
        """
        self._ledger()
        if not self._spool.has_room():
            raise RefusedError(OUT_OF_RESOURCES, "the disk is below its watermark")

    def begin(self, request: StoreRequest) -> Part:
        """Open a file that begins with our own File Meta Information; below the watermark none is opened."""
        self.require_room()
        part = self._spool.begin()
        try:
            part.write(file_meta(request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid))
        except ResourceError:  # nothing else refers to it: on a full disk an empty file would stay for each refusal
            part.discard()
            raise
        return part

    def finish(self, request: StoreRequest, part: Part) -> None:
        """Check the header, then make durable: file, name, ledger row. Only then wake the worker."""
        started = time.monotonic()
        ref = self._inspect(part.path)
        if ref.sop_instance_uid != request.sop_instance_uid or ref.sop_class_uid != request.sop_class_uid:
            raise ContradictionError("the data set is not the object that was announced")
        if request.study_instance_uid not in (None, ref.study_instance_uid):
            raise ContradictionError("the data set belongs to another study than the one that was announced")
        with self._sync_slots:
            stored = self._spool.store_object(part, self._ledger().now())  # the clock that all machines share
        origin = Origin(
            calling_ae_title=request.calling_ae_title,
            peer_host=request.peer_host,
            received_at=stored.at,
        )
        is_kept = partial(self._spool.has, Area.OBJECTS)
        number = self._ledger().add(ref, origin, stored.sha256, stored.size_bytes, request.priority, is_kept)
        is_new = number is not None
        if not is_new:
            arrival = Arrival(ref, origin, stored.sha256, stored.size_bytes)
            self._keep_date(arrival)
            number = self._number(arrival)
        self._wake_worker()
        self._audit.transferred(received(ref, origin, is_new), ref.sop_class_uid)
        metrics.received(origin.calling_ae_title)
        log.info(
            "stored instance=%s sha256=%s bytes=%d peer=%s ae=%r new=%s ms=%.0f",
            *(number, stored.sha256[:12], stored.size_bytes),
            *(origin.peer_host, origin.calling_ae_title, is_new),
            (time.monotonic() - started) * 1000,
        )
        if not is_new and number is not None:
            self._tell_of_later(number)

    def _tell_of_later(self, number: int) -> None:
        """Log that an earlier version arrived again: nothing is sent; `cxr-node resend` would send it."""
        with suppress(ResourceError), self._ledger().database.reading() as connection:
            later = results.latest(connection, number)
            if later is not None:
                words = (
                    "an earlier version came again instance=%d replaced_by=%d (cxr-node resend %d sends its results)"
                )
                log.warning(words, number, later, number)

    def _number(self, arrival: Arrival) -> int | None:
        """For the log only: a durable object is not refused because the ledger cannot be read."""
        try:
            return number_of(self._ledger().database, arrival)
        except ResourceError:
            return None

    def _wake_worker(self) -> None:
        """Wake the worker; one notification is enough for all rows that were there when it began."""
        self._is_unheard = True
        while self._is_unheard and self._notifying.acquire(blocking=False):
            try:
                self._is_unheard = False
                wake(self._ledger(), self._spool.path, Role.WORK)
            finally:
                self._notifying.release()

    def _keep_date(self, arrival: Arrival) -> None:
        """Keep the first receipt as the file's time: a rebuilt ledger knows nothing else of it."""
        first = first_receipt(self._ledger().database, arrival)
        if first is not None and first != arrival.origin.received_at:
            with suppress(FileNotFoundError):  # an operator erased it a moment ago
                self._spool.date(arrival.content_sha256, first)
