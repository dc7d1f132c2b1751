"""A receiver answers a C-ECHO while its ledger is still being looked at, and takes no object before it is good."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cxr_node.dicom.read import header
from cxr_node.errors import ResourceError
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.receive import receiver, server
from cxr_node.node.spool.spool import Spool
from tests.node import peers
from tests.node.receivers import SYNTAXES, config
from tests.node.test_receive import eventually, instance
from tests.node.wire import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Checking:
    """A receiver whose ledger is being checked until `checked` is set."""

    port: int
    spool: Spool
    checked: threading.Event = field(default_factory=threading.Event)
    ready: threading.Event = field(default_factory=threading.Event)
    died_of: list[BaseException] = field(default_factory=list)


@contextmanager
def checking(folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception | None = None) -> Iterator[Checking]:
    node, stop = Checking(port=peers.nobody().port, spool=Spool(folder)), threading.Event()
    genuine = server._tidy

    def tidy(*arguments: object) -> None:
        assert node.checked.wait(30)
        if fault is not None:
            raise fault
        genuine(*arguments)  # type: ignore[arg-type]  # handed on as they came

    def run() -> None:
        hooks = server.Hooks(stop=stop, ready=lambda _: node.ready.set())
        try:
            server.serve(config(folder, port=node.port), header.identify, SYNTAXES, hooks)
        except ResourceError as error:
            node.died_of.append(error)

    monkeypatch.setattr(server, "_tidy", tidy)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert eventually(lambda: echo(node) == 0x0000)
        yield node
    finally:
        node.checked.set()
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def echo(node: Checking) -> int | None:
    try:
        with Wire(node.port) as peer:
            peer.associate()
            return peer.echo()
    except ConnectionRefusedError:  # it does not listen yet
        return None


def store(node: Checking, number: int) -> int | None:
    with Wire(node.port) as peer:
        peer.associate()
        return peer.store(*instance(number))


def test_who_sends_while_the_ledger_is_checked_waits_and_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with checking(tmp_path, monkeypatch) as node, ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(store, node, number) for number in (1, 2)]
        assert echo(node) == 0x0000
        assert not node.ready.is_set()
        assert not list((tmp_path / "incoming").iterdir()), "nothing is taken before the ledger is good"
        assert not any(one.done() for one in sent)
        node.checked.set()
        assert [one.result(20) for one in sent] == [0x0000, 0x0000]
        assert node.ready.is_set()
    ledger = Ledger.open(tmp_path)
    assert len(queries.recent(ledger, 10)) == 2
    ledger.close()


def test_who_has_waited_long_enough_is_told_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "PATIENCE_S", 0.1)
    with checking(tmp_path, monkeypatch) as node:
        assert store(node, 1) == 0xA700
        assert not node.checked.is_set()
        node.checked.set()
        assert node.ready.wait(20)
        assert store(node, 1) == 0x0000


def test_a_ledger_that_cannot_be_opened_sends_everybody_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with checking(tmp_path, monkeypatch, ResourceError("ledger: gone")) as node, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(store, node, 1)
        assert not sent.done()
        node.checked.set()
        assert sent.result(20) == 0xA700
    assert [str(error) for error in node.died_of] == ["ledger: gone"]
    assert not node.ready.is_set()
    assert not list((tmp_path / "incoming").iterdir())
