"""Processes that are kept alive, ended in order, and never outlive their supervisor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cxr_node.node.process import supervisor
from cxr_node.node.process.service_manager import Notifier
from cxr_node.node.process.supervisor import Command, supervise
from tests.node import peers
from tests.node.test_signals import heard, program
from tests.node.workplace import eventually
from tests.patience import PATIENCE_S


def command(name: str, folder: Path, body: str, **more: Any) -> Command:
    """A small program that may append lines to `diary` with `say(...)`."""
    script = folder / f"{name}.py"
    script.write_text(
        "import os, signal, sys, threading, time\n"
        f"def say(word):\n    with open({str(folder / 'diary')!r}, 'a') as file: file.write(f'{name} {{word}}\\n')\n"
        + textwrap.dedent(body)
    )
    return Command(name=name, argv=(sys.executable, "-I", str(script)), **more)


def diary(folder: Path) -> list[str]:
    path = folder / "diary"
    return path.read_text().splitlines() if path.exists() else []


OBEDIENT = """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    say("up")
    stop.wait()
    say("down")
"""


@contextmanager
def supervised(*commands: Command) -> Iterator[list[int]]:
    stop, status = threading.Event(), []
    thread = threading.Thread(target=lambda: status.append(supervise(commands, stop)))
    thread.start()
    try:
        yield status
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_roles_stop_one_after_the_other_in_order(tmp_path: Path) -> None:
    with supervised(*(command(name, tmp_path, OBEDIENT) for name in ("receive", "work", "deliver"))) as status:
        assert eventually(lambda: len(diary(tmp_path)) == 3)
    assert status == [0]
    assert diary(tmp_path)[3:] == ["receive down", "work down", "deliver down"]


def test_who_dies_is_started_again_after_a_growing_delay(tmp_path: Path) -> None:
    with supervised(command("work", tmp_path, "say(time.monotonic()); sys.exit(1)")):
        assert eventually(lambda: len(diary(tmp_path)) >= 3)
    first, second, third = (float(line.split()[1]) for line in diary(tmp_path)[:3])
    assert second - first >= 0.5
    assert third - second >= 1.0


def test_a_refused_configuration_ends_everything_with_its_own_status(tmp_path: Path) -> None:
    healthy = command("receive", tmp_path, OBEDIENT)
    wrong = command("work", tmp_path, "time.sleep(1); sys.exit(78)")
    assert supervise([healthy, wrong], threading.Event()) == supervisor.EXIT_CONFIG
    assert diary(tmp_path) == ["receive up", "receive down"]


def test_a_page_that_refuses_its_configuration_ends_nobody_else(tmp_path: Path) -> None:
    healthy = command("receive", tmp_path, OBEDIENT)
    page = command("web", tmp_path, "say('refuses'); sys.exit(78)", is_vital=False)
    with supervised(healthy, page) as status:
        assert eventually(lambda: diary(tmp_path).count("web refuses") >= 2), "it is tried again"
        assert not status
    assert diary(tmp_path)[-1] == "receive down" and status == [0]


def test_who_does_not_stop_is_killed_after_its_grace(tmp_path: Path) -> None:
    deaf = command(
        "work",
        tmp_path,
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); say(os.getpid()); time.sleep(600)",
        grace_s=0.5,
    )
    with supervised(deaf) as status:
        assert eventually(lambda: len(diary(tmp_path)) == 1)
        began = time.monotonic()
    assert status == [0]
    assert time.monotonic() - began < PATIENCE_S
    assert not alive(int(diary(tmp_path)[0].split()[1]))


def test_a_second_signal_is_passed_on(tmp_path: Path) -> None:
    patient = command(
        "receive",
        tmp_path,
        "signal.signal(signal.SIGTERM, lambda *_: say('told') or told.append(1)); told = []; say('up')\n"
        "while len(told) < 2: time.sleep(0.01)",
    )
    stop, hurry, status = threading.Event(), threading.Event(), list[int]()
    thread = threading.Thread(target=lambda: status.append(supervise([patient], stop, hurry=hurry)))
    thread.start()
    assert eventually(lambda: diary(tmp_path) == ["receive up"])
    stop.set()
    assert eventually(lambda: diary(tmp_path)[1:] == ["receive told"])
    hurry.set()
    thread.join(20)
    assert (status, diary(tmp_path)[1:]) == ([0], ["receive told"] * 2)


def test_children_die_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    child = command("work", tmp_path, "say(os.getpid()); time.sleep(60)")
    script = tmp_path / "supervisor.py"
    script.write_text(
        "import threading\nfrom cxr_node.node.process.supervisor import Command, supervise\n"
        f"supervise([Command(name='work', argv={child.argv!r})], threading.Event())\n"
    )
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": root})
    try:
        assert eventually(lambda: len(diary(tmp_path)) == 1)
    finally:
        process.kill()
        process.wait()
    pid = int(diary(tmp_path)[0].split()[1])
    assert eventually(lambda: not alive(pid))


def alive(pid: int) -> bool:
    """A zombie, which only waits to be reaped, is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_set_the_event(number: signal.Signals) -> None:
    """In a process of its own: whatever worked in this one has no part in it."""
    body = "stop = supervisor.stop_event(lambda: say('called')); say(stop.is_set()); stop.wait(); say('stopped')"
    with program(body) as process:
        assert heard(process) == "False"
        process.send_signal(number)
        told, complaints = process.communicate(timeout=60)
    assert (sorted(told.split()), complaints, process.returncode) == (["called", "stopped"], "", 0)


def test_the_service_manager_hears_of_progress_but_not_too_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notifier = Notifier()
        notifier.progress()  # a start that takes its time asks for more of it (sd_notify(3))
        notifier._fed_at = float("-inf")
        notifier.ready()
        for _ in range(100):
            notifier.progress()
        notifier.stopping()
        expected = [b"EXTEND_TIMEOUT_USEC=60000000", b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]
        assert [manager.recv(100) for _ in range(4)] == expected
        notifier._systemd.socket.close()  # type: ignore[union-attr]  # sdnotify leaves it to the collector


TELL = """
    import faulthandler, socket
    faulthandler.enable()
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.connect("\\0" + os.environ["NOTIFY_SOCKET"][1:])
    tell = lambda word: manager.send(word.encode())
    say("up")
"""
HANGS = "say('hangs'); threading.Event().wait()"


@pytest.mark.parametrize(
    "before",
    ["", "tell('READY=1')", "tell('READY=1'); tell('WATCHDOG=1')", "tell('EXTEND_TIMEOUT_USEC=500000')"],
    ids=["at its start", "once it is ready", "after progress", "after more time"],
)
def test_who_hangs_says_where_and_is_started_again(
    before: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body = textwrap.dedent(TELL) + f"{before}\n{HANGS}"
    with supervised(command("work", tmp_path, body, start_s=1.0, watchdog_s=1.0)):
        assert eventually(lambda: diary(tmp_path).count("work hangs") >= 2)
    said = capfd.readouterr().err
    assert "Fatal Python error: Aborted" in said and "work.py" in said


def test_whose_hang_no_signal_ends_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_LAST_WORDS_S", 0.2)
    body = f"signal.signal(signal.SIGABRT, signal.SIG_IGN); say('up'); {HANGS}"
    with supervised(command("work", tmp_path, body, start_s=1.0)):
        assert eventually(lambda: diary(tmp_path).count("work up") >= 2)


def test_who_makes_progress_is_left_alone(tmp_path: Path) -> None:
    """For longer than the start may take, and than the watchdog waits."""
    body = textwrap.dedent(TELL) + (
        "tell('EXTEND_TIMEOUT_USEC=60000000'); time.sleep(6); say('is slow'); tell('READY=1')\n"
        "for _ in range(30):\n    time.sleep(0.2); tell('WATCHDOG=1')\n"
        "say('works'); tell('STOPPING=1'); time.sleep(2); say('stops'); time.sleep(60)"
    )
    with supervised(command("work", tmp_path, body, start_s=5.0, watchdog_s=5.0)):
        assert eventually(lambda: "work stops" in diary(tmp_path))
    assert diary(tmp_path) == ["work up", "work is slow", "work works", "work stops"]


def test_while_one_stops_the_others_are_not_held_up_by_what_they_tell(tmp_path: Path) -> None:
    """A socket takes ten messages that nobody reads, and the sender of the next one waits."""
    slow = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2), sys.exit())); say('up'); threading.Event().wait()"
    works = textwrap.dedent(TELL) + (
        "stop = threading.Event(); signal.signal(signal.SIGTERM, lambda *_: stop.set())\n"
        "from contextlib import suppress\n"
        "while not stop.wait(0.02):\n    with suppress(OSError): tell('WATCHDOG=1')\n"
        "say('down')"
    )
    commands = (
        command("receive", tmp_path, slow),
        command("work", tmp_path, works, start_s=60.0, grace_s=5.0),
    )
    with supervised(*commands):
        assert eventually(lambda: len(diary(tmp_path)) == 2)
    assert diary(tmp_path)[2:] == ["work down"]


def test_a_service_manager_that_reads_nothing_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        for _ in range(2000):  # more than any kernel's net.unix.max_dgram_qlen keeps
            notifier.stopping()
        notifier._systemd.socket.close()  # type: ignore[union-attr]  # sdnotify leaves it to the collector


def test_without_a_service_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = Notifier()
    notifier.ready()
    notifier.progress()
    notifier.stopping()


@pytest.mark.parametrize("room", ["receive.server", "deliver.courier"])
def test_receiving_and_delivering_never_load_torch(room: str) -> None:
    """torch costs 1.1 s and 276 MiB, and a crash in it must not close the port (measured; DESIGN 2)."""
    code = (
        f"import sys; import cxr_node.node.{room}, cxr_node.node.process.supervisor, cxr_node.cli.node\n"
        "from cxr_node.dicom.pixels import codecs\n"
        "from cxr_node.dicom.read import header\n"  # what the command line hands to the receiver
        "foreign = {'torch', 'torchvision', 'sklearn', 'scipy', 'matplotlib', 'highdicom', 'httpx'}\n"  # httpx: 0.2 s
        "print(*sorted(foreign & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", [])


@pytest.mark.parametrize("role", ["receive", "deliver"])
def test_a_role_says_when_it_is_ready_feeds_the_watchdog_and_obeys_sigterm(role: str, tmp_path: Path) -> None:
    """As its systemd unit runs it."""
    port, path = peers.nobody().port, tmp_path / "notify"
    file = tmp_path / "node.yaml"
    file.write_text(f"listen: {{port: {port}}}\nspool: {{path: {tmp_path / 'spool'}, min_free_mib: 0}}\n")
    root = Path(__file__).parents[2]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(0.2)
        process = subprocess.Popen(
            [sys.executable, "-m", "cxr_node", role, "--config", str(file)],
            cwd=root,
            env=os.environ | {"NOTIFY_SOCKET": str(path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        heard: list[bytes] = []
        try:
            while process.poll() is None and b"WATCHDOG=1" not in heard:
                with suppress(TimeoutError):
                    heard.append(manager.recv(100))
        finally:
            process.terminate()
            _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    longer = b"EXTEND_TIMEOUT_USEC=60000000"  # as often as a slow start asks for it, and only before it is over
    assert [state for state in heard if state != longer] == [b"READY=1", b"WATCHDOG=1"]
    assert longer not in heard[heard.index(b"READY=1") :]
    assert all(line.split()[1] in {"INFO", "WARNING"} for line in told.splitlines()), told
