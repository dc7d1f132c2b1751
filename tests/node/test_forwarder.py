"""Audit messages reach their collector: at least once, in order, however often anybody dies (FAULTS T34)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cxr_node.config.schema import Syslog
from cxr_node.errors import ConfigError, DeliveryError
from cxr_node.node.audit import forwarder
from cxr_node.node.audit.forwarder import Forwarder, reach
from cxr_node.node.audit.trail import Segments, TrailFolder
from tests.node import workplace
from tests.node.certificates import Authority, Identity
from tests.node.collectors import Temper, collecting


def shelf(folder: Path) -> TrailFolder:
    return TrailFolder(folder=folder, keep_days=30.0, max_bytes=1 << 30, is_collected=True)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Authority(tmp_path_factory.mktemp("ca")).issue("collector")


def built(folder: Path, identity: Identity, port: int, host: str = "localhost") -> Forwarder:
    settings = Syslog.model_validate({"host": host, "port": port, "tls": identity.tls()})
    return Forwarder(settings, shelf(folder))


def write(folder: Path, role: str, *contents: bytes) -> None:
    segments = Segments(shelf(folder), role)
    segments.append([b"<85>1 - - - - - - " + content for content in contents])
    segments.close()


@pytest.mark.parametrize("temper", [Temper.POLITE, Temper.BRUSQUE, Temper.SILENT])
def test_messages_arrive_once_and_in_order(
    tmp_path: Path, identity: Identity, temper: Temper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "_CLOSE_S", 0.5)
    big = b"x" * 32768
    write(tmp_path, "receive", b"1", b"2", big)
    write(tmp_path, "work", b"3")
    with collecting(identity, temper) as collector:
        sender = built(tmp_path, identity, collector.port)
        assert [sender.forward(), sender.forward()] == [4, 0]
        write(tmp_path, "work", b"4")
        assert sender.forward() == 1
        assert collector.wait(5)
        assert [message.removeprefix(b"<85>1 - - - - - - ") for message in collector.messages] == [
            b"1",
            b"2",
            big,
            b"3",
            b"4",
        ]


def test_a_batch_that_was_not_read_whole_goes_again(
    tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once, in order: a reset in the middle repeats the batch, a deaf collector is not believed."""
    monkeypatch.setattr(forwarder, "_CLOSE_S", 1.0)
    contents = [f"{number:04d}".encode() * 5000 for number in range(40)]
    write(tmp_path, "receive", *contents)
    with collecting(identity, Temper.DYING) as collector:
        sender = built(tmp_path, identity, collector.port)
        for collector.dies_after in (1, 7, 39):
            with pytest.raises(OSError):
                sender.forward()
        collector.temper = Temper.DEAF
        with pytest.raises(OSError):
            sender.forward()
        collector.temper = Temper.POLITE
        assert sender.forward() == 40
        bodies_ = collector.bodies()
    assert [body.rsplit(b" ", 1)[-1] for body in bodies_] == contents
    assert len(collector.messages) > 40


def test_a_month_without_a_collector(tmp_path: Path, identity: Identity, caplog: pytest.LogCaptureFixture) -> None:
    """Down, then back on the same port; two processes want to forward, one does; order kept (FAULTS T34)."""
    with collecting(identity) as collector:
        port = collector.port
    folder = tmp_path / "audit"
    senders = [built(folder, identity, port) for _ in range(2)]
    stop = threading.Event()
    threads = [threading.Thread(target=sender.run, args=(stop,)) for sender in senders]
    for thread in threads:
        thread.start()
    segments = Segments(shelf(folder), "receive")
    for number in range(500):
        segments.append([f"<85>1 - - - - - - {number}".encode()])
    assert workplace.eventually(lambda: "does not take messages" in caplog.text)
    with collecting(identity, port=port) as collector:
        assert collector.wait(500, 40)
        assert [int(body.rsplit(b" ", 1)[-1]) for body in collector.bodies()] == list(range(500))
        stop.set()
        for thread in threads:
            thread.join(30)
    segments.close()
    cursor = json.loads((folder / "cursor.json").read_text())
    assert list(cursor.values()) == [path.stat().st_size for path in folder.glob("*.log")]


def test_only_a_collector_of_our_ca_and_name_gets_messages(tmp_path: Path, identity: Identity) -> None:
    write(tmp_path / "audit", "receive", b"secret")
    stranger = Authority(tmp_path, "other").issue("stranger")
    with collecting(stranger) as collector:
        with pytest.raises(OSError, match="certificate verify failed"):
            built(tmp_path / "audit", identity, collector.port).forward()
        assert collector.messages == []
    elsewhere = Authority(tmp_path, "third").issue("elsewhere", hosts=("audit.example.org",))
    with collecting(elsewhere) as collector:
        with pytest.raises(OSError, match="certificate verify failed"):
            built(tmp_path / "audit", elsewhere, collector.port).forward()
        assert collector.messages == []


def test_a_collector_that_refuses_us_is_no_proof(
    tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In TLS 1.3 a client learns after its handshake that its certificate is not wanted."""
    monkeypatch.setattr(forwarder, "_CLOSE_S", 1.0)
    write(tmp_path / "audit", "receive", b"1")
    stranger = Authority(tmp_path, "other").issue("stranger")
    ours = Identity(certificate=stranger.certificate, key=stranger.key, ca=identity.ca)
    with collecting(identity) as collector:
        for _ in range(20):  # whether the alert or our bytes come first is chance
            with pytest.raises(OSError):
                built(tmp_path / "audit", ours, collector.port).forward()
        assert collector.messages == []


def test_a_mistake_names_the_key_of_the_collector(tmp_path: Path, identity: Identity) -> None:
    tls = identity.tls() | {"ca": str(tmp_path / "none.pem")}
    settings = Syslog.model_validate({"host": "localhost", "tls": tls})
    with pytest.raises(ConfigError, match=r"^audit\.syslog\.tls: "):
        Forwarder(settings, shelf(tmp_path))


def test_check_reaches_the_collector_and_sends_nothing(identity: Identity) -> None:
    with collecting(identity) as collector:
        settings = Syslog.model_validate({"host": "localhost", "port": collector.port, "tls": identity.tls()})
        assert reach(settings) == f"localhost:{collector.port} answers over TLS"
    assert collector.messages == []
    with pytest.raises(DeliveryError, match=r"localhost:\d+: Connection refused"):
        reach(settings)


_WRITER = """
import sys, pathlib
from cxr_node.node.audit.trail import Segments, TrailFolder
shelf = TrailFolder(folder=pathlib.Path(sys.argv[1]), keep_days=1.0, max_bytes=1 << 30, is_collected=True)
segments = Segments(shelf, "receive")
for number in range(10**9):
    segments.append([b"<85>1 - - - - - - " + sys.argv[2].encode() + b"-%d" % number])
    print(number, flush=True)
"""
_FORWARDER = """
import sys, pathlib, threading
from cxr_node.config.schema import Syslog
from cxr_node.node.audit.forwarder import Forwarder
from cxr_node.node.audit.trail import TrailFolder
shelf = TrailFolder(folder=pathlib.Path(sys.argv[1]), keep_days=1.0, max_bytes=1 << 30, is_collected=True)
Forwarder(Syslog.model_validate_json(sys.argv[2]), shelf).run(threading.Event())
"""


def test_kill_9_of_writer_and_forwarder_loses_no_written_message(tmp_path: Path, identity: Identity) -> None:
    written: list[bytes] = []
    folder = tmp_path / "audit"
    with collecting(identity) as collector:
        settings = json.dumps({"host": "localhost", "port": collector.port, "tls": identity.tls()})
        for round_ in range(3):
            sender = subprocess.Popen([sys.executable, "-c", _FORWARDER, folder, settings])
            writer = subprocess.Popen([sys.executable, "-c", _WRITER, folder, str(round_)], stdout=subprocess.PIPE)
            before = len(collector.messages)
            assert writer.stdout is not None
            for _ in range(20):
                writer.stdout.readline()
            assert collector.wait(before + 1)
            writer.send_signal(signal.SIGKILL)
            sender.send_signal(signal.SIGKILL)
            last = 19 + len(writer.stdout.read().splitlines())
            written += [b"%d-%d" % (round_, number) for number in range(last + 1)]
            for process in (writer, sender):
                process.wait(10)
            writer.stdout.close()
        closing = built(folder, identity, collector.port)
        while closing.forward():
            pass
        told = [body.rsplit(b" ", 1)[-1] for body in collector.bodies()]
    assert set(written) <= set(told)
    for round_ in range(3):
        mine = [body for body in told if body.startswith(b"%d-" % round_)]
        assert mine == sorted(mine, key=lambda body: int(body.split(b"-")[1]))
