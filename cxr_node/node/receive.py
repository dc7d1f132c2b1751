"""The Storage and Verification SCP: an object is acknowledged when its bytes and its ledger row are safe.

Knows no pixel and no model; `inspect` reads headers and comes from the `dicom` room by way of `cli`.
PS3.4 B (Storage), A (Verification); PS3.7 9.1.1 and 9.1.5.

Offered are all Storage SOP Classes, not only those of radiographs: an archive that routes a whole study sees
its job fail if one SR or one scanned letter in it is refused, and then sends nothing or everything again. What
is no radiograph is taken, and the pipeline refuses it with a reason that `cxr-node trace` shows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from socketserver import BaseServer
from typing import Protocol

from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import AllStoragePresentationContexts, VerificationPresentationContexts

from cxr_node import contradictions
from cxr_node.config import Config
from cxr_node.domain import InstanceRef, Origin
from cxr_node.errors import ConfigError, ContradictionError, ResourceError
from cxr_node.node import commitment
from cxr_node.node.arrivals import Arrival, first_receipt
from cxr_node.node.audit_messages import Participant, received
from cxr_node.node.auditor import SILENT, Audit
from cxr_node.node.callers import GuardedAcse
from cxr_node.node.filemeta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, file_meta
from cxr_node.node.intake import OUT_OF_RESOURCES, StorageProvider
from cxr_node.node.ledger import Ledger
from cxr_node.node.listener import ARTIM_S, Gate, GuardedServer
from cxr_node.node.notices import NoticeProvider
from cxr_node.node.rebuild import discard_orphans, rebuild
from cxr_node.node.refusals import UNWELCOME, Refusal, Refusals
from cxr_node.node.reports import Reports
from cxr_node.node.spool import MIB, Part, Spool
from cxr_node.node.storing import RefusedError, StoreRequest
from cxr_node.node.tls import Renewed, server_tls
from cxr_node.node.transport import GuardedSocket
from cxr_node.node.wakeup import Role, ring

log = logging.getLogger(__name__)

GRACE_S = 15.0
"""How long associations may go on after a stop, while they send."""
IDLE_GRACE_S = 1.0
"""An association that says nothing for so long after a stop is aborted."""
SYNC_SLOTS = 4
"""Concurrent fsyncs; more do not make a disk faster, but every one of them slower."""
TURN_S = 0.25
"""How often the listener looks for a stop."""


class Inspected(Protocol):
    """What a header check tells."""

    @property
    def ref(self) -> InstanceRef:
        """Which SOP Instance it is."""
        ...


Inspect = Callable[[Path], Inspected]
"""Checks the header of a Part 10 file; raises InstanceError where it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """How the process that receives is run and watched."""

    stop: threading.Event
    ready: Callable[[int], None]
    """Called with the port once it listens."""
    progress: Callable[[], None] = lambda: None
    """Called by the thread that accepts, about four times a second."""
    audit: Audit = SILENT


class SpoolReceiver:
    """Takes objects into spool and ledger. Threads share it."""

    def __init__(self, config: Config, inspect: Inspect, spool: Spool, ledger: Ledger, audit: Audit = SILENT) -> None:
        self.max_object_bytes = config.listen.max_object_mib * MIB
        self._inspect = inspect
        self._spool = spool
        self._ledger = ledger
        self._audit = audit
        self._sync_slots = threading.BoundedSemaphore(SYNC_SLOTS)

    def begin(self, request: StoreRequest) -> Part:
        """Open a file that begins with our own File Meta Information; below the watermark none is opened."""
        if not self._spool.has_room():
            raise RefusedError(OUT_OF_RESOURCES, "the disk is below its watermark")
        part = self._spool.begin()
        try:
            part.write(file_meta(request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid))
        except ResourceError:  # nobody else knows of it: on a full disk an empty file would stay for each refusal
            part.discard()
            raise
        return part

    def finish(self, request: StoreRequest, part: Part) -> None:
        """Check the header, then make durable: file, name, ledger row. Only then the worker is woken."""
        started = time.monotonic()
        ref = self._inspect(part.path).ref
        if ref.sop_instance_uid != request.sop_instance_uid or ref.sop_class_uid != request.sop_class_uid:
            raise ContradictionError("the data set is not the object that the command announced")
        with self._sync_slots:
            stored = self._spool.store_object(part, datetime.now(UTC))
        origin = Origin(
            calling_ae_title=request.calling_ae_title,
            peer_host=request.peer_host,
            received_at=self._spool.received_at(stored.sha256),  # the first receipt's, where the file was there
        )
        is_new = self._ledger.add(ref, origin, stored.sha256, stored.size_bytes, request.priority)
        if not is_new:
            self._keep_date(Arrival(ref, origin, stored.sha256, stored.size_bytes))
        ring(self._spool.path, Role.WORK)
        self._audit.transferred(received(ref, origin, is_new), ref.sop_class_uid)
        log.info(
            "stored sha256=%s bytes=%d peer=%s ae=%r new=%s ms=%.0f",
            *(stored.sha256[:12], stored.size_bytes, origin.peer_host, origin.calling_ae_title, is_new),
            (time.monotonic() - started) * 1000,
        )

    def _keep_date(self, arrival: Arrival) -> None:
        """The file's time is all that a ledger made anew would know of the first receipt, which results repeat."""
        first = first_receipt(self._ledger.database, arrival)
        if first is not None and first != arrival.origin.received_at:
            self._spool.date(arrival.content_sha256, first)


def supported(transfer_syntaxes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Tell what is negotiated: UIDs of SOP classes, each with the transfer syntaxes that are accepted for it."""
    contexts = (*VerificationPresentationContexts, *AllStoragePresentationContexts)
    return {str(context.abstract_syntax): tuple(transfer_syntaxes) for context in contexts}


def serve(config: Config, inspect: Inspect, transfer_syntaxes: Sequence[str], hooks: Hooks) -> None:
    """Listen until `hooks.stop` is set, then let associations finish.

    Parameters
    ----------
    config : `listen` and `spool` are read
    inspect : the header check
    transfer_syntaxes : UIDs to accept, the preferred first
    hooks : stop, ready, progress

    Raises
    ------
    ConfigError : the address cannot be listened on, or TLS files cannot be used.
    ResourceError : spool or ledger cannot be opened, or the listener died.
    """
    # pynetdicom's own lines cost time, quote what peers send, and come by the thousand from a peer that sends garbage.
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    for sentence in contradictions.doubtful(config):
        log.warning("configuration %s", sentence)
    spool = Spool(config.spool.path, config.spool.min_free_mib)
    ledger = Ledger.open(config.spool.path, mend=True)
    try:
        _tidy(spool, ledger, inspect, hooks.progress)
        refusals = Refusals(partial(_alert, hooks.audit))
        reports = Reports(config, ledger) if wants_commitment(config) else None
        receiver = SpoolReceiver(config, inspect, spool, ledger, hooks.audit)
        server = _listen(config, partial(_provider, receiver, reports, refusals), transfer_syntaxes, refusals)
        server.on_turn = hooks.progress
        _run(server, ledger, hooks)
        refusals.close()
    finally:
        ledger.close()


def _tidy(spool: Spool, ledger: Ledger, inspect: Inspect, progress: Callable[[], None]) -> None:
    """Put right what earlier processes left behind when they died, before anybody is heard."""
    if swept := spool.sweep():
        log.warning("swept unfinished files=%d", swept)
    found = rebuild(ledger, spool, inspect, progress)
    if not found.received and (orphans := discard_orphans(ledger, spool)):
        log.warning("discarded results without an instance files=%d", orphans)


def wants_commitment(config: Config) -> bool:
    """Tell whether a destination may open an association to say what it commits itself to."""
    return any(destination.commitment_wait_h is not None for destination in config.destinations)


def _alert(audit: Audit, refusal: Refusal) -> None:
    """Who was let in and then did badly is no matter of security."""
    if refusal.cause in UNWELCOME:
        audit.refused(Participant(ae_title=refusal.ae_title, host=refusal.host), refusal.cause, refusal.times)


def _provider(
    receiver: SpoolReceiver, reports: Reports | None, refusals: Refusals, association: Association
) -> StorageProvider:
    if reports is None:
        return StorageProvider(association, receiver, refusals)
    return NoticeProvider(association, receiver, refusals, reports.take)


def _listen(
    config: Config,
    make_provider: Callable[[Association], StorageProvider],
    transfer_syntaxes: Sequence[str],
    refusals: Refusals,
) -> GuardedServer:
    listen = config.listen
    tls = Renewed(listen.tls, server_tls) if listen.tls is not None else None
    # Twice the associations, and some: calls that will be rejected must be heard, and one host leaves room for others.
    gate = Gate(
        make_acse=lambda association: GuardedAcse(association, listen, lambda: _established(server), refusals),
        make_provider=make_provider,
        max_connections=2 * listen.max_associations + 16,
        max_connections_per_host=min(listen.max_associations, listen.max_associations_per_host) + 8,
        max_pdu_bytes=listen.max_pdu_bytes,
        refusals=refusals,
    )
    try:
        server = GuardedServer(_entity(config, transfer_syntaxes), (listen.host, listen.port), gate, tls)
    except OSError as error:
        raise ConfigError(f"listen: {listen.host}:{listen.port} cannot be used: {error.strerror}") from error
    server.bind(evt.EVT_C_ECHO, lambda _: 0x0000)
    return server


def _entity(config: Config, transfer_syntaxes: Sequence[str]) -> ApplicationEntity:
    entity = ApplicationEntity(config.listen.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = config.listen.max_pdu_bytes
    entity.maximum_associations = 2**31 - 1  # counted by `callers`, which leaves half-open ones out
    entity.acse_timeout = ARTIM_S
    entity.network_timeout = config.listen.idle_timeout_s
    for sop_class_uid, offered in supported(transfer_syntaxes).items():
        entity.add_supported_context(sop_class_uid, list(offered))
    if wants_commitment(config):  # for this class alone the caller is the SCP, and we are the SCU (PS3.7 D.3.3.4)
        entity.add_supported_context(commitment.SOP_CLASS, list(commitment.SYNTAXES), scu_role=False, scp_role=True)
    return entity


def _run(server: GuardedServer, ledger: Ledger, hooks: Hooks) -> None:
    listener = threading.Thread(target=server.serve_forever, args=(TURN_S,), name="listener", daemon=True)
    listener.start()
    port = int(server.server_address[1])
    log.info("listening port=%d", port)
    hooks.ready(port)
    try:
        while not hooks.stop.wait(TURN_S):
            if not listener.is_alive():
                raise ResourceError("the listener died")
            ledger.database.require_whole()
    finally:
        BaseServer.shutdown(server)  # the base class's own also forgets the server in a list it is not in
        server.server_close()
        _drain(server)


def _drain(server: GuardedServer) -> None:
    """Let who sends finish; abort who is silent, and after the grace everybody."""
    deadline = time.monotonic() + GRACE_S
    aborted: set[Association] = set()
    while associations := server.associations:
        now = time.monotonic()
        for association, provider in associations.items():
            if association not in aborted and (now >= deadline or provider.idle_s >= IDLE_GRACE_S):
                aborted.add(association)
                threading.Thread(target=_abort, args=(association,), daemon=True).start()
        if now >= deadline + ARTIM_S:
            log.error("associations left open=%d", len(associations))
            break
        time.sleep(0.02)
    log.info("stopped listening aborted=%d", len(aborted))


def _abort(association: Association) -> None:
    """A-ABORT where there is an association, else close the connection."""
    if association.is_established:
        association.abort()
    elif isinstance(association.dul.socket, GuardedSocket):
        association.dul.socket.drop()


def _established(server: GuardedServer) -> Counter[str]:
    """Associations of each host."""
    return Counter(str(one.requestor.address) for one in server.associations if one.is_established)
