"""A whole node on loopback for a while: `cxr-node serve`, as processes of its own, on a spool of its own.

It is sent files, and its ledger tells what became of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from socketserver import BaseServer
from types import TracebackType
from typing import Any

import yaml
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.transport import ThreadedAssociationServer

from cxr_node.config import loader
from cxr_node.config.network import Address
from cxr_node.errors import CxrNodeError, DeliveryError
from cxr_node.node.ledger import queries, studies
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.queries import Story
from cxr_node.node.ledger.states import DeliveryState, InstanceState
from cxr_node.node.network import verification
from cxr_node.node.process import notify, supervisor
from cxr_node.tools import send

TURN_S = 0.02
"""How often the server looks whether it shall stop; pynetdicom's own start_server looks twice a second."""


def close(server: ThreadedAssociationServer) -> None:
    """Stop a server made by `make_server`; pynetdicom's own shutdown wants one made by `start_server`."""
    BaseServer.shutdown(server)
    server.server_close()


class Recorder:
    """Context manager; listens on a free loopback port and counts what was stored, repeats included."""

    def __init__(self, folder: Path | None, ae_title: str = "RECORDER") -> None:
        self.folder = folder
        """None: what is stored is counted, and not kept."""
        self.ae_title = ae_title
        self.stored: list[str] = []
        """SOP Instance UIDs in the order of their arrival."""
        self._arrived = threading.Condition()

    def __enter__(self) -> Recorder:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        entity = AE(self.ae_title)
        entity.supported_contexts = AllStoragePresentationContexts
        entity.add_supported_context("1.2.840.10008.1.1")
        entity.maximum_pdu_size = 131072
        self._server = entity.make_server(
            ("127.0.0.1", 0),
            evt_handlers=[(evt.EVT_C_STORE, self._store)],
            server_class=ThreadedAssociationServer,
        )
        threading.Thread(target=self._server.serve_forever, args=(TURN_S,), daemon=True).start()
        self.address = Address(ae_title=self.ae_title, host="127.0.0.1", port=self._server.server_address[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close(self._server)

    def wait(self, count: int, timeout_s: float) -> bool:
        """Wait until so many objects have been stored; False when time is up."""
        with self._arrived:
            return self._arrived.wait_for(lambda: len(self.stored) >= count, timeout_s)

    def path(self, sop_instance_uid: str) -> Path:
        """Where an object is kept."""
        assert self.folder is not None  # noqa: S101 - who keeps nothing is not asked for it
        return self.folder / f"{sop_instance_uid}.dcm"

    def _store(self, event: Event) -> int:
        uid = str(event.file_meta.MediaStorageSOPInstanceUID)
        if self.folder is not None:
            temporary = self.folder / f".{uid}.{threading.get_ident()}"
            temporary.write_bytes(event.encoded_dataset())
            temporary.replace(self.path(uid))
        with self._arrived:
            self.stored.append(uid)
            self._arrived.notify_all()
        return 0x0000


START_S = 180.0
"""On a machine with much else to do; a role that ends is not waited for."""
STOP_S = 40.0
ANSWER_S = 120.0
"""For one radiograph; the first one waits for the weights to be loaded."""
_OPEN = (InstanceState.RECEIVED, InstanceState.REPORTED)
_DUE = (DeliveryState.READY, DeliveryState.WAIT)


class TrialError(CxrNodeError):
    """The trial did not come to its end; says what the node said last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node at work."""

    address: Address
    folder: Path
    """Where its spool, its configuration and its log are."""
    pid: int
    """Of `serve`, whose children do the work."""
    ledger: Ledger
    calling_ae_title: str
    started_in_s: float
    """Until the port answered and the worker had its weights."""

    @property
    def last_words(self) -> str:
        """The end of its log."""
        return _last_words(self.folder)

    def end(self) -> None:
        """Ask it to end; the block waits until it has."""
        os.kill(self.pid, signal.SIGTERM)


@contextlib.contextmanager
def node(folder: Path, settings: Mapping[str, Any], calling_ae_title: str) -> Iterator[Node]:
    """Run `cxr-node serve` until the block ends.

    `folder` : its spool, configuration and log are made there
    `settings` : sections of the configuration beside `listen` and `spool`
    `calling_ae_title` : who sends to it
    Raises TrialError: it does not start.
    """
    address = Address(ae_title="CXR_NODE", host="127.0.0.1", port=send.free_port("127.0.0.1"))
    listen = {"ae_title": address.ae_title, "host": address.host, "port": address.port}
    spool = {"path": str(folder / "spool"), "min_free_mib": 64}
    file = folder / "node.yaml"
    file.write_text(yaml.safe_dump({"listen": listen, "spool": spool, **settings}))
    started = time.monotonic()
    command = [sys.executable, "-m", "cxr_node", "serve", "--config", str(file)]
    with running(command, folder / "node.log") as process:
        _listening(process, address, calling_ae_title, folder)
        started_in_s = time.monotonic() - started
        with contextlib.closing(Ledger.of_node(loader.load(file))) as ledger:
            yield Node(
                address=address,
                folder=folder,
                pid=process.pid,
                ledger=ledger,
                calling_ae_title=calling_ae_title,
                started_in_s=started_in_s,
            )


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends; what it prints is appended to a file."""
    with log.open("ab") as lines:
        process = subprocess.Popen(command, stdout=lines, stderr=lines, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_page(there: Node) -> None:
    """Wait until the process `web` of a node that was configured to have a page listens.

    Raises
    ------
    TrialError : it does not.
    """
    deadline = time.monotonic() + START_S
    while not supervisor.look(there.folder / "spool", ("web",))["web"].running:
        if time.monotonic() > deadline:
            raise TrialError(f"the page did not start; the node's last words:\n{there.last_words}")
        time.sleep(0.1)


def store(there: Node, files: Sequence[Path], arrived: Callable[[Path], None]) -> None:
    """Send files over one association, and tell of each that the node has acknowledged.

    Raises TrialError: it refuses one; DeliveryError: it cannot be reached.
    """

    def told(sent: send.Sent) -> None:
        if not sent.ok:
            raise TrialError(f"the node refused {sent.path.name}: {sent.sentence}")
        arrived(sent.path)

    send.store(files, told, there.address, there.calling_ae_title)


def settled(there: Node, uids: Iterable[str], waiting: Callable[[int], None], look_every_s: float) -> dict[str, Story]:
    """Wait until every instance is DELIVERED, REJECTED or DEAD, tell how many are not, and then their stories.

    Studies are waited for too: their report may list an instance that was REJECTED long before.

    Raises TrialError: not every one is settled in time.
    """
    wanted = list(uids)
    deadline = time.monotonic() + ANSWER_S + len(wanted)
    while (left := sum(count for state, count in queries.counts(there.ledger).items() if state in _OPEN)) or _reports(
        there.ledger
    ):
        waiting(left)
        if time.monotonic() > deadline:
            raise TrialError(f"{left} radiographs are not settled in time; its last words:\n{there.last_words}")
        time.sleep(look_every_s)
    waiting(0)
    return {uid: queries.trace(there.ledger, uid)[0] for uid in wanted}


def _reports(ledger: Ledger) -> bool:
    """Whether a study waits for its report, or a result for its delivery."""
    due = (states.get(state, 0) for states in queries.queues(ledger).values() for state in _DUE)
    return studies.next_study_s(ledger) is not None or any(due)


def turnaround_ms(*stories: Story) -> float | None:
    """From the durable receipt of an image, the last of several, to the last result acknowledged; None without any."""
    times = [one.delivered_at for story in stories for one in story.deliveries if one.delivered_at is not None]
    if not times:
        return None
    received_at = max(story.instance.received_at for story in stories)
    return (max(times) - received_at).total_seconds() * 1000


def _listening(process: subprocess.Popen[bytes], address: Address, calling_ae_title: str, folder: Path) -> None:
    """Wait until the port answers and the worker has its weights: the times shown are of a node at work."""
    deadline = time.monotonic() + START_S
    while not (notify.listens(folder / "spool", notify.Role.WORK) and _answers(address, calling_ae_title)):
        ended = process.poll() is not None or " ended role=" in _said(folder)
        if ended or time.monotonic() > deadline:
            raise TrialError(f"the node did not start; its last words:\n{_last_words(folder)}")
        time.sleep(0.1)


def _answers(address: Address, calling_ae_title: str) -> bool:
    try:
        verification.echo(address, calling_ae_title)
    except DeliveryError:
        return False
    return True


def _last_words(folder: Path) -> str:
    return "\n".join(_said(folder).splitlines()[-8:])


def _said(folder: Path) -> str:
    return (folder / "node.log").read_text(errors="replace")
