"""What stops a process, or hangs up on it, never runs on top of a library's code; and no hangup ends a node."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests import builders
from tests.chaos.roles import Role
from tests.node import peers, workplace
from tests.node.workplace import eventually
from tests.processes import children

ROOT = Path(__file__).parents[2]
HELD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PREAMBLE = """
import os, random, signal, sys, threading
from cxr_node.node.process import logs, supervisor
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


@contextmanager
def program(text: str, *words: str, **more: object) -> Iterator[subprocess.Popen[str]]:
    """A process of its own, as every role is: signals are sent to nobody else."""
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(text), *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_signal_counts_that_comes_while_a_role_still_loads_its_libraries() -> None:
    body = """
    with supervisor.held():
        say('loading')
        sys.stdin.readline()
    stop = supervisor.stop_event()
    stop.wait()
    say('stopped')
    """
    with program(body) as process:
        assert heard(process) == "loading"
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate("go on\n", timeout=60)
    assert (told, process.returncode) == ("stopped\n", 0)


def test_a_start_that_fails_leaves_the_process_as_it_was() -> None:
    body = """
    try:
        with supervisor.held():
            raise ValueError
    except ValueError:
        say(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """
    with program(body) as process:
        assert heard(process) == "set()"


BUSY = """
chance, seen, count = random.Random(int(sys.argv[1])), threading.Event(), 0
def on_stop():
    global count
    count += 1
stop = supervisor.stop_event(on_stop)  # threads of what is imported after it inherit what is blocked
logs.configure()
say("up")
from cxr_node import resources
from cxr_node.model import graph_file, profile, torch_runtime
from cxr_node.model.openvino_runtime import OpenVINORuntime
made = profile.load(resources.profile_folder("pneumonia-pediatric"))
shown = graph_file.golden_inputs(made.input)[:1]
makers = (lambda: OpenVINORuntime(made, 1), lambda: torch_runtime.load(made, 1, "cpu"))
def compute():
    while not done.is_set():
        held = [chance.choice(makers)() for _ in range(3)]
        for _ in range(5):
            chance.choice(held).infer(shown)
        while held:
            del held[chance.randrange(len(held))]
        say("round")
done = threading.Event()
threads = [threading.Thread(target=compute) for _ in range(2)]
for thread in threads: thread.start()
sys.stdin.readline()
done.set()
for thread in threads: thread.join()
say("counted", count)
"""


@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=[pytest.mark.chaos, pytest.mark.timeout(1800)])])
def test_signals_at_any_moment_while_runtimes_come_compute_and_go(tmp_path: Path, rounds: int) -> None:
    """OpenVINO and torch in two threads, loaded and dropped, and signal after signal all the while."""
    log = tmp_path / "log"
    with log.open("wb") as file, program(BUSY, "7", stderr=file) as process:
        assert heard(process) == "up"
        done = threading.Event()

        def send() -> None:
            for number in itertools.cycle(HELD):
                if done.wait(0.002) or process.poll() is not None:
                    return
                process.send_signal(number)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            said = [heard(process) for _ in range(rounds)]
        finally:
            done.set()
            sender.join()
        told, _ = process.communicate("\n", timeout=120)
    assert process.returncode == 0, log.read_text()[-2000:]
    assert said == ["round"] * rounds
    assert int(told.split()[-1]) > rounds


def masks(pid: int) -> list[int]:
    """What each thread of a process blocks (proc(5), SigBlk), as bits."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        blocked = re.search(r"^SigBlk:\s+(\w+)", (task / "status").read_text(), re.MULTILINE)
        assert blocked is not None
        found.append(int(blocked[1], 16))
    return found


def require_one_taker(pid: int) -> None:
    caught = re.search(r"^SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert caught is not None
    assert len(masks(pid)) > 1
    for number in HELD:
        bit = 1 << (number - 1)
        assert number == signal.SIGINT or not int(caught[1], 16) & bit, f"{number.name} has a handler"
        open_to = sum(not mask & bit for mask in masks(pid))
        assert open_to == 1, f"{number.name} may reach {open_to} threads"


@pytest.mark.parametrize("role", ["receive", "work"])
def test_one_thread_of_a_role_takes_what_stops_it(role: str, tmp_path: Path) -> None:
    """Whatever threads its libraries started: the kernel has nobody else to give the signal to."""
    with Role(tmp_path, role) as node:
        assert eventually(lambda: len(masks(node.pid)) > 1)
        require_one_taker(node.pid)


@pytest.mark.parametrize("stops", [2, pytest.param(25, marks=[pytest.mark.chaos, pytest.mark.timeout(3600)])])
def test_a_worker_that_is_told_to_stop_ends_with_its_own_status(tmp_path: Path, stops: int) -> None:
    """Told while it computes, with a second profile beside the first, and told twice, as the impatient do."""
    chance = random.Random(11)
    for turn in range(stops):
        folder = tmp_path / str(turn)
        role = Role(folder, "work", work={"lanes": 2})
        settings = workplace.config(role.spool)
        for number in range(1, 9):
            stored = builders.chest(rows=320 + number, columns=288)
            content = builders.part10(builders.radiograph(number, stored))
            workplace.receive(settings, number, content=content)
        with role as node:
            wanted = chance.randint(0, 3)
            assert eventually(lambda: node.said().count(" instance=") >= wanted, 120)  # noqa: B023 - called at once
            time.sleep(chance.uniform(0.0, 0.05))
            for _ in range(2):
                os.kill(node.pid, signal.SIGTERM)
            code = node.process.wait(90)
            assert code == 0, node.said()


FILE = """
stop = supervisor.stop_event()
logs.configure()
import logging
for line in sys.stdin:
    if line.strip() == "stop": break
    logging.getLogger("cxr_node.test").info(line.strip())
    say("logged")
"""


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    assert heard(process) == "logged"


def test_after_a_hangup_a_log_that_was_moved_away_is_written_into_a_new_file(tmp_path: Path) -> None:
    """`serve 2>> node.log`, and logrotate with its usual recipe."""
    log, old = tmp_path / "node.log", tmp_path / "node.log.1"
    with log.open("a") as file, program(FILE, stderr=file) as process:
        log.chmod(0o640)
        tell(process, "one")
        process.send_signal(signal.SIGHUP)  # nothing was moved
        assert eventually(lambda: "SIGHUP is ignored" in log.read_text())
        tell(process, "two")
        log.rename(old)
        tell(process, "three")
        process.send_signal(signal.SIGHUP)
        assert eventually(lambda: log.exists() and "is reopened" in log.read_text())
        tell(process, "four")
        process.communicate("stop\n", timeout=60)
    assert process.returncode == 0
    assert [word for word in old.read_text().split() if word in {"one", "two", "three", "four"}] == [
        *("one", "two", "three"),
    ]
    assert log.read_text().count("\n") == 2 and log.read_text().rstrip().endswith("four")
    assert log.stat().st_mode & 0o777 == 0o640


def test_a_hangup_without_a_log_file_is_one_line() -> None:
    with program(FILE) as process:
        tell(process, "one")
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        assert process.stderr.readline().endswith(" one\n")
        assert "SIGHUP is ignored" in process.stderr.readline()
        told, complaints = process.communicate("stop\n", timeout=60)
    assert (told, complaints, process.returncode) == ("", "", 0)


def test_a_node_survives_a_hangup_and_its_roles_write_into_the_new_log(tmp_path: Path) -> None:
    config, log = tmp_path / "node.yaml", tmp_path / "node.log"
    listen = {"port": peers.nobody().port}
    spool = {"path": str(tmp_path / "spool"), "min_free_mib": 0}
    config.write_text(yaml.safe_dump({"listen": listen, "spool": spool, "model": {"threads": 1}}))
    command = [sys.executable, "-m", "cxr_node", "serve", "--config", str(config)]
    with log.open("a") as file:
        process = subprocess.Popen(command, cwd=ROOT, stderr=file, stdin=subprocess.DEVNULL)
    try:
        ready = ("listening port=", "INFO work ready", "INFO deliver ready")
        assert eventually(lambda: all(words in log.read_text() for words in ready), 120)
        pids = {process.pid, *children(process.pid)}
        for pid in pids:
            require_one_taker(pid)
        log.rename(tmp_path / "node.log.1")
        process.send_signal(signal.SIGHUP)
        assert eventually(lambda: log.exists() and log.read_text().count("is reopened") == 4, 60), log.read_text()
        assert {process.pid, *children(process.pid)} == pids, "a role was lost"
        process.terminate()
        assert process.wait(90) == 0
    finally:
        process.kill()
        process.wait()
    for role in ("receive", "work", "deliver"):
        assert f"stopped role={role} code=0" in log.read_text()
