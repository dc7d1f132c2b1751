"""What a role's command opens for its audit: the recorder of this process, and for `deliver` the forwarder.

Wires the audit's parts to the configuration. Where the trail lies on disk: `audit_trail`; what it says:
`audit_messages`; when: `auditor`; how it reaches the collector: `audit_forwarder`.
"""

from __future__ import annotations

import getpass
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from cxr_node.config.schema import Config
from cxr_node.node.audit.messages import Act, Outcome, Participant, Reporter, operator_act
from cxr_node.node.audit.recorder import SILENT, Audit, Auditor
from cxr_node.node.audit.syslog import Sender, Severity
from cxr_node.node.audit.trail import Segments, TrailFolder
from cxr_node.node.network.rejections import ALERTS, Refusal, told_as
from cxr_node.node.spool.spool import Spool

_MIB = 1024 * 1024


def shelf(config: Config) -> TrailFolder:
    """Where the trail lies. In a spool: it is made, and closed to others, before the first message is in it.

    Raises
    ------
    ConfigError : the spool is the shared folder of somebody else. ResourceError : its disk is full, gone or broken.
    """
    audit = config.audit
    return TrailFolder(
        folder=audit.folder or Spool(config.spool.path).path / "audit",
        keep_days=audit.keep_days,
        max_bytes=audit.max_mib * _MIB,
        is_collected=audit.syslog is not None,
    )


def alert(audit: Audit, refusal: Refusal) -> None:
    """Who was not let in, and what ended without a release, is in the trail; a refused C-STORE is in the log."""
    if refusal.cause in ALERTS:
        peer, word = Participant(ae_title=refusal.ae_title, host=refusal.host), told_as(refusal.cause)
        audit.refused(peer, refusal.cause, refusal.times, word)


@contextmanager
def recording(config: Config, role: str) -> Iterator[Audit]:
    """Record that a role started, what it reports, and that it stopped, or died of an error.

    Raises
    ------
    ConfigError : the folder cannot be used.
    """
    if not config.audit.enabled:
        yield SILENT
        return
    auditor = Auditor(_reporter(config, role), Segments(shelf(config), role))
    outcome = Outcome.MAJOR_FAILURE
    try:
        yield auditor
        outcome = Outcome.SUCCESS
    finally:
        auditor.close(outcome)


@contextmanager
def by_operator(config: Config, command: str) -> Iterator[Callable[[Act], None]]:
    """Record what an operator does by a command, each deed when it is done; the trail is open before the first.

    Raises
    ------
    ConfigError, ResourceError : it cannot be written, and nothing may be done that nobody can look up.
    """
    if not config.audit.enabled:
        yield lambda _: None
        return
    reporter, segments = _reporter(config, command), Segments(shelf(config), command)
    sender, person = Sender(host=reporter.host, pid=reporter.pid), _account()

    def tell(act: Act) -> None:
        at = datetime.now(UTC)
        segments.append([sender.message(operator_act(reporter, person, act, at), Severity.NOTICE, at)])

    try:
        segments.append([])
        yield tell
    finally:
        segments.close()


def _reporter(config: Config, role: str) -> Reporter:
    return Reporter(
        source_id=config.audit.source_id or config.results.installation_id,
        role=role,
        pid=os.getpid(),
        host=socket.gethostname(),
        ae_title=config.listen.ae_title,
    )


def _account() -> str:
    """Who asked: of `sudo -u cxr-node` the person behind it."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # no such account: a container
        return f"uid {os.getuid()}"


@contextmanager
def forwarding(config: Config) -> Iterator[None]:
    """Forward the trail of all roles to the collector while the block runs.

    Raises
    ------
    ConfigError : certificate, key or CA cannot be used, or the folder cannot.
    """
    if not config.audit.enabled or config.audit.syslog is None:
        yield
        return
    from cxr_node.node.audit.forwarder import Forwarder  # with it comes TLS, which the other roles do not need

    forwarder, stop = Forwarder(config.audit.syslog, shelf(config)), threading.Event()
    thread = threading.Thread(target=forwarder.run, args=(stop,), name="audit-forwarder", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
