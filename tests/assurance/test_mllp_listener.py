"""Reports over MLLP: acknowledged when their word is in the ledger, on loopback or by TLS of both sides alone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from cxr_node.assurance import mllp_listener
from cxr_node.assurance.mllp_listener import Listener, acknowledgment, is_loopback
from cxr_node.assurance.report import Readers
from cxr_node.assurance.report_rules import Reader
from cxr_node.cli.node import app
from cxr_node.domain import Verdict
from cxr_node.errors import ResourceError
from cxr_node.node.ledger import readings
from cxr_node.node.ledger.ledger import Ledger
from tests.assurance.studies import accession, answered
from tests.assurance.test_reports import message
from tests.node.ledgers import Clock, opened
from tests.patience import PATIENCE_S
from tests.processes import free_port

READER = Reader()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    clock = Clock()
    with opened("sqlite", tmp_path, clock) as ledger:
        answered(ledger, clock, 1, Verdict.POSITIVE)
        yield ledger


def oru(text: str, number: int = 1, control_id: str = "MSG7") -> str:
    return message(f"TX|^Report||{text}", fields={18: accession(number)}).replace(
        "|1|P|2.5.1", f"|{control_id}|P|2.5.1"
    )


def framed(text: str) -> bytes:
    return b"\x0b" + text.encode() + b"\x1c\r"


def spoken(ledger: Ledger, *sent: bytes, answers: int) -> list[str]:
    """What the listener answers to bytes on one connection."""

    async def talk() -> list[str]:
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        listener = Listener(ledger, Readers(READER))
        serving = asyncio.create_task(listener.serve("127.0.0.1", 0, None, port.set_result, stop.wait))
        reader, writer = await asyncio.open_connection("127.0.0.1", await port)
        heard = []
        try:
            for part in sent:
                writer.write(part)
                await writer.drain()
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(answers):
                    heard.append((await reader.readuntil(b"\x1c\r")).decode())
        finally:
            writer.close()
            await asyncio.sleep(0)
            stop.set()
            await serving
        return heard

    return asyncio.run(talk())


def test_a_report_is_acknowledged_when_its_word_is_kept(ledger: Ledger) -> None:
    one = framed(oru("Left lower lobe pneumonia."))
    heard = spoken(ledger, one[:30], one[30:] + framed(oru("No pneumonia.", 99, "MSG8")), answers=2)
    assert "MSA|AA|MSG7" in heard[0] and "MSA|AA|MSG8" in heard[1]
    kept = readings.said_of(ledger, ["1.2.1"])["1.2.1"]
    assert [(each.source, each.said) for each in kept] == [("oru", "present")]


def test_what_is_no_hl7_is_refused_and_the_next_message_is_taken(ledger: Ledger) -> None:
    heard = spoken(ledger, framed("GET / HTTP/1.1"), framed("MSH"), framed(oru("No pneumonia.")), answers=3)
    assert [each.split("MSA|")[1][:2] for each in heard] == ["AR", "AR", "AA"]


def test_what_the_ledger_cannot_take_is_to_be_sent_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise ResourceError("ledger: no space") from OperationalError("", {}, Exception())

    monkeypatch.setattr(mllp_listener.agreement, "keep", full)
    assert "MSA|AE|MSG7" in spoken(ledger, framed(oru("No pneumonia.")), answers=1)[0]


def test_an_endless_message_ends_its_connection_alone(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllp_listener, "MAX_MESSAGE_BYTES", 4096)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        spoken(ledger, b"\x0bMSH|" + b"x" * 10_000, answers=1)


@pytest.mark.parametrize("text", ["MSH", "MSH|", "MSH|^~\\&|A", "", "PID|1"])
def test_every_message_has_an_answer(text: str) -> None:
    assert "\rMSA|AR|\r" in acknowledgment(text, "AR")


@pytest.mark.parametrize(
    ("host", "known"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("ris", False)]
)
def test_loopback(host: str, known: bool) -> None:
    assert is_loopback(host) is known


def test_beyond_this_machine_there_is_tls_or_nothing(tmp_path: Path) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(yaml.safe_dump({"spool": {"path": str(tmp_path)}}))
    done = CliRunner().invoke(app, ["agreement", "--listen", "0.0.0.0:2576", "-c", str(config)])
    assert done.exit_code == 78 and "listen.tls" in done.output
    done = CliRunner().invoke(app, ["agreement", "--listen", "2576", "-c", str(config)])
    assert done.exit_code == 2 and "HOST:PORT" in done.output


def test_the_command_listens_until_it_is_told_to_stop(tmp_path: Path, ledger: Ledger) -> None:
    config, port = tmp_path / "node.yaml", free_port()
    config.write_text(yaml.safe_dump({"spool": {"path": str(tmp_path)}}))
    command = [sys.executable, "-m", "cxr_node", "agreement", "--listen", f"127.0.0.1:{port}", "-c", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        assert running.stdout.readline() == f"listening on port {port}\n"
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as there:
            there.sendall(framed(oru("Left lower lobe pneumonia.")))
            assert b"MSA|AA|MSG7" in there.recv(4096)
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait(PATIENCE_S) == 0
        logged = running.stderr.read()
    assert "reports taken=1 without_study=0" in logged and "pneumonia" not in logged and "A00001" not in logged
    assert readings.said_of(ledger, ["1.2.1"])["1.2.1"][0].said == "present"
