"""The Storage and Verification SCP: a C-ECHO is answered at once, a C-STORE when its object is durable (`receiver`).

Knows no pixel and no model; `inspect` reads headers and comes from the `dicom` room by way of `cli`.
PS3.4 B (Storage), A (Verification); PS3.7 9.1.1 and 9.1.5.

Offered are all Storage SOP Classes, not only those of radiographs: an archive that routes a whole study sees
its job fail if one SR or one scanned letter in it is refused, and then sends nothing or everything again. What
is not a radiograph is taken, and the pipeline refuses it with a reason that `cxr-node trace` shows. Where whole CT
studies are routed that fills the disk: `listen.sop_classes: radiographs` offers no context for them.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from socketserver import BaseServer

from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import AllStoragePresentationContexts, VerificationPresentationContexts

from cxr_node import domain
from cxr_node.config import consistency
from cxr_node.config.schema import Config, Listen, SopClasses
from cxr_node.errors import ConfigError, CxrNodeError, ResourceError
from cxr_node.node.audit.recorder import SILENT, Audit, alert
from cxr_node.node.commitment import scu
from cxr_node.node.ledger import duties
from cxr_node.node.ledger.duties import Duty
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.machines import telling
from cxr_node.node.ledger.opening import await_ledger
from cxr_node.node.network.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from cxr_node.node.network.guarded_socket import GuardedSocket
from cxr_node.node.network.rejections import Cause, Refusals
from cxr_node.node.receive.listener import ARTIM_S, GuardedServer
from cxr_node.node.receive.receiver import Inspect, LedgerGate, Receiver
from cxr_node.node.receive.recovery import discard_orphans, rebuild
from cxr_node.node.receive.storage_scp import EventReportProvider, StorageProvider
from cxr_node.node.spool.opening import open_spool
from cxr_node.node.spool.spool import Spool

log = logging.getLogger(__name__)

GRACE_S = 15.0
"""How long associations may go on sending after a stop."""
IDLE_GRACE_S = 1.0
"""After a stop, an association silent for this long is aborted."""
_OPERATORS_FAULT = (errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
TURN_S = 0.25
"""How often the listener checks for a stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """How the process that receives is run and watched."""

    stop: threading.Event
    ready: Callable[[int], None]
    """Called with the port once it listens."""
    progress: Callable[[], None] = lambda: None
    """Called by the thread that accepts, about four times a second."""
    stopping: Callable[[], None] = lambda: None
    """Called once the stop was seen, before anybody is refused."""
    hurry: threading.Event = field(default_factory=threading.Event)
    """Set to end at once what the stop would wait for."""
    audit: Audit = SILENT


def supported(transfer_syntaxes: Sequence[str], offered: SopClasses = SopClasses.ALL) -> dict[str, tuple[str, ...]]:
    """Give what is negotiated: UIDs of SOP Classes, each with the transfer syntaxes that are accepted for it."""
    verification = [str(context.abstract_syntax) for context in VerificationPresentationContexts]
    return dict.fromkeys((*verification, *storage_classes(offered)), tuple(transfer_syntaxes))


def storage_classes(offered: SopClasses) -> tuple[str, ...]:
    """UIDs of the SOP Classes whose objects are taken."""
    match offered:
        case SopClasses.ALL:
            return tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
        case SopClasses.RADIOGRAPHS:
            return tuple(domain.STORAGE)


def serve(config: Config, inspect: Inspect, transfer_syntaxes: Sequence[str], hooks: Hooks) -> None:
    """Listen until `hooks.stop` is set, for `listen.drain_s` let nobody in, then let associations finish.

    Parameters
    ----------
    config : `listen` and `spool` are read
    inspect : the header check
    transfer_syntaxes : UIDs to accept, the preferred first
    hooks : stop, ready, progress

    Raises
    ------
    ConfigError : the node has no such address or no right to it, or TLS files or the store cannot be used.
    ResourceError : the port is taken, spool or ledger cannot be opened, or the listener died.
    """
    # pynetdicom's own lines cost time, quote what peers send, and come by the thousand from a peer that sends garbage.
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    for sentence in consistency.doubtful(config):
        log.warning("configuration %s", sentence)
    spool, gate = open_spool(config.spool), LedgerGate()
    refusals = Refusals(partial(alert, hooks.audit))
    reports = scu.Reports(config, gate.ledger) if wants_commitment(config) else None
    receiver = Receiver(config, inspect, spool, gate.ledger, hooks.audit)
    server = _listen(config, partial(_provider, receiver, reports, refusals), transfer_syntaxes, refusals)
    listener = threading.Thread(target=server.serve_forever, args=(TURN_S,), name="listener", daemon=True)
    listener.start()  # a C-ECHO is answered from now on; a C-STORE waits until the ledger is open
    try:
        ledger = gate.admit(partial(_open, config, spool, inspect, hooks))
        server.on_turn = hooks.progress
        with telling(ledger, spool.path):
            _run(server, listener, ledger, hooks)
            _refuse_newcomers(server, hooks)
    finally:
        gate.give_up()
        BaseServer.shutdown(server)  # the base class's own also forgets the server in a list it is not in
        server.server_close()
        _drain(server, hooks.hurry)
        gate.close()
    refusals.close()


def _open(config: Config, spool: Spool, inspect: Inspect, hooks: Hooks) -> Ledger:
    spool.store.prepare()
    ledger = await_ledger(config, hooks.stop, hooks.progress)
    try:
        _tidy(spool, ledger, inspect, hooks.progress)
    except BaseException:
        ledger.close()
        raise
    return ledger


def _tidy(spool: Spool, ledger: Ledger, inspect: Inspect, progress: Callable[[], None]) -> None:
    """Clean up after dead processes before the first object is accepted."""
    if swept := spool.sweep():
        log.warning("swept unfinished files=%d", swept)
    found = rebuild(ledger, spool, inspect, progress)
    if not found.received and (orphans := _discard_orphans(spool, ledger)):
        log.warning("discarded results without an instance files=%d", orphans)


def _discard_orphans(spool: Spool, ledger: Ledger) -> int:
    """Machines that start at once would go through the same store for nothing: one does."""
    held = duties.take(ledger, Duty.ORPHANS, f"{ledger.database.machine}/receive")
    if isinstance(held, float):
        return 0
    number = discard_orphans(ledger, spool)
    duties.done(ledger, held)
    return number


def wants_commitment(config: Config) -> bool:
    """Whether a destination may open an association to report commitment."""
    return any(to.kind == "dicom" and to.is_asked_to_commit for to in config.destinations)


def _provider(
    receiver: Receiver, reports: scu.Reports | None, refusals: Refusals, association: Association
) -> StorageProvider:
    if reports is None:
        return StorageProvider(association, receiver, refusals)
    return EventReportProvider(association, receiver, refusals, reports.take)


def _listen(
    config: Config,
    make_provider: Callable[[Association], StorageProvider],
    transfer_syntaxes: Sequence[str],
    refusals: Refusals,
) -> GuardedServer:
    listen = config.listen
    try:
        server = GuardedServer(_entity(config, transfer_syntaxes), listen, make_provider, refusals)
    except OSError as error:
        raise _unusable(listen, error) from error
    server.bind(evt.EVT_C_ECHO, lambda _: 0x0000)
    return server


def _unusable(listen: Listen, error: OSError) -> CxrNodeError:
    """A port that is in use may be free after a restart; a wrong address stays wrong."""
    sentence = f"listen: {listen.host}:{listen.port} cannot be used: {error.strerror}"
    return ConfigError(sentence) if error.errno in _OPERATORS_FAULT else ResourceError(sentence)


def _entity(config: Config, transfer_syntaxes: Sequence[str]) -> ApplicationEntity:
    entity = ApplicationEntity(config.listen.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = config.listen.max_pdu_bytes
    entity.maximum_associations = 2**31 - 1  # counted by `acse`, which leaves half-open ones out
    entity.acse_timeout = ARTIM_S
    entity.network_timeout = config.listen.idle_timeout_s
    for sop_class_uid, offered in supported(transfer_syntaxes, config.listen.sop_classes).items():
        entity.add_supported_context(sop_class_uid, list(offered))
    if wants_commitment(config):  # for this class alone the caller is the SCP, and we are the SCU (PS3.7 D.3.3.4)
        entity.add_supported_context(scu.SOP_CLASS, list(scu.SYNTAXES), scu_role=False, scp_role=True)
    return entity


def _run(server: GuardedServer, listener: threading.Thread, ledger: Ledger, hooks: Hooks) -> None:
    port = int(server.server_address[1])
    log.info("listening port=%d", port)
    hooks.ready(port)
    while not hooks.stop.wait(TURN_S):
        if not listener.is_alive():
            raise ResourceError("the listener died")
        ledger.database.require_whole()


def _refuse_newcomers(server: GuardedServer, hooks: Hooks) -> None:
    """Let a load balancer see that nobody is let in, while those that are here go on."""
    hooks.stopping()
    server.is_draining = True
    if server.listen.drain_s:
        log.info("draining seconds=%g associations=%d", server.listen.drain_s, server.established().total())
        hooks.hurry.wait(server.listen.drain_s)


def _drain(server: GuardedServer, hurry: threading.Event) -> None:
    """Let busy associations finish; abort the silent ones, and after the grace period all, or when told to hurry."""
    deadline = time.monotonic() + GRACE_S
    aborted: set[Association] = set()
    while associations := server.associations:
        now = time.monotonic()
        deadline = min(deadline, now) if hurry.is_set() else deadline
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
    connection = association.dul.socket
    if not isinstance(connection, GuardedSocket):
        return
    if association.is_established:
        connection.end(Cause.STOPPING, "the receiver stops")
        association.abort()
    else:
        connection.has_ended = True
        connection.drop()
