"""Receivers to send to: in this process on a free port, or in one of their own that can be killed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from pynetdicom import _config

from cxr_node.config.loader import parse
from cxr_node.config.schema import Config
from cxr_node.dicom.read import header
from cxr_node.node.audit.recorder import SILENT, Audit
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.receive import receiver, server
from cxr_node.node.spool.opening import open_spool
from cxr_node.node.spool.spool import Spool

SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiving:
    """A receiver that runs, and what it wrote."""

    port: int
    spool: Spool
    ledger: Ledger
    stop: threading.Event
    hurry: threading.Event
    thread: threading.Thread

    def parts(self) -> list[Path]:
        """Unfinished files."""
        return list((self.spool.path / "incoming").iterdir())


def config(
    folder: Path, destinations: Sequence[Any] = (), store: dict[str, Any] | None = None, **listen: Any
) -> Config:
    spool = {"path": str(folder), "min_free_mib": 1, "store": store or {"kind": "file"}}
    return parse({"listen": {"port": 0, **listen}, "spool": spool, "destinations": destinations})


@contextmanager
def receiving(
    folder: Path,
    inspect: receiver.Inspect = header.identify,
    audit: Audit = SILENT,
    **listen: Any,
) -> Iterator[Receiving]:
    """Run a receiver in a thread; it is stopped, and must stop, at the end."""
    level = _config.LOG_HANDLER_LEVEL
    stop, listening, ports = threading.Event(), threading.Event(), list[int]()
    hurry = threading.Event()

    def ready(port: int) -> None:
        ports.append(port)
        listening.set()

    def run() -> None:
        try:
            with mock.patch.object(server, "TURN_S", 0.02):  # a stop is seen at the next turn
                hooks = server.Hooks(stop=stop, ready=ready, audit=audit, hurry=hurry)
                server.serve(config(folder, **listen), inspect, SYNTAXES, hooks)
        finally:
            listening.set()

    thread = threading.Thread(target=run, name="receiver")
    thread.start()
    assert listening.wait(30)
    assert ports, "the receiver did not start"
    ledger = Ledger.open(folder)
    try:
        spool = open_spool(config(folder, **listen).spool)
        yield Receiving(port=ports[0], spool=spool, ledger=ledger, stop=stop, hurry=hurry, thread=thread)
    finally:
        stop.set()
        thread.join(60)
        ledger.close()
        _config.LOG_HANDLER_LEVEL = level  # a receiver sets both for its whole process
        logging.getLogger("pynetdicom").setLevel(logging.NOTSET)
        assert not thread.is_alive()


def run_process(folder: Path, told: Any) -> None:
    """Run a receiver as the whole of a process that will be killed; `told.send(port)` when it listens."""
    hooks = server.Hooks(stop=threading.Event(), ready=told.send)
    server.serve(config(folder), header.identify, SYNTAXES, hooks)
