"""What is measured, as processes on free loopback ports: our node and its roles, the plain node, Orthanc, storescp.

Many objects go to them over several associations at once; memory and processor time of our node are read by role.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks import destination, wire
from benchmarks.images import Numbered
from benchmarks.record import find
from benchmarks.wire import Sender, Sent, WireError
from cxr_node.bench import node as bench_node
from cxr_node.diagnose import machine
from cxr_node.node.process import notify
from cxr_node.tools import trial_node
from cxr_node.tools.send import free_port

OURS, ORTHANC, STORESCP = "cxr_node", "Orthanc", "DCMTK storescp"
PLAIN, ONE_VIEW = "plain node", "plain node, one view"
"""The first gives our answer, from all views; the second what a tutorial gives, from one."""
TITLES = {OURS: "CXR_NODE", PLAIN: "PLAIN", ONE_VIEW: "PLAIN", ORTHANC: "ORTHANC", STORESCP: "STORESCP"}
_START_S = 300.0
_LINE = re.compile(r"^(Rss|Pss|VmHWM):\s+(\d+) kB", re.MULTILINE)
_KIB_OF_MB = 1e6 / 1024.0
_LOOK_S = 0.01
_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
"""DCMTK and Orthanc wait 40 ms per C-STORE without it."""


class MissingError(Exception):
    """A program that is measured is not installed here."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that listens."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    started_at: float
    """time.monotonic() before the process was made."""

    def sender(self) -> Sender:
        """Open an association to it."""
        return Sender(self.port, TITLES[self.name])

    def cpu_s(self) -> float:
        """CPU seconds of it and its children so far."""
        return machine.cpu_s(self.process.pid)


def cpu_s_by_role(node: Peer) -> dict[str, float]:
    """CPU seconds of each role's process and of its children so far."""
    return {role: bench_node.cpu_s(found) for role, found in bench_node.processes(node.process.pid).items()}


def memory_by_role(node: Peer) -> dict[str, dict[str, float]]:
    """MB (10^6 bytes) of each role's process: resident, proportional (shared pages are divided), highest resident.

    A role's children (decoders in their sandbox) count for it; their highest resident does not.
    """
    return {role: _memory_mb(found[0]) for role, found in bench_node.processes(node.process.pid).items() if found}


def _memory_mb(process: psutil.Process) -> dict[str, float]:
    each = [_status_mb(one) for one in (process, *process.children(recursive=True))]
    summed = {name: sum(one.get(key, 0.0) for one in each) for name, key in (("rss_mb", "Rss"), ("pss_mb", "Pss"))}
    return {**summed, "highest_rss_mb": each[0].get("VmHWM", 0.0)}


def _status_mb(process: psutil.Process) -> dict[str, float]:
    folder = Path("/proc") / str(process.pid)
    text = (folder / "smaps_rollup").read_text() + (folder / "status").read_text()
    return {name: int(kib) / _KIB_OF_MB for name, kib in _LINE.findall(text)}


def flood(
    peer: Peer, instances: Sequence[Numbered], associations: int, sent: Callable[[], object] = lambda: None
) -> list[Sent]:
    """Send all, each association one after the other, as modalities do; `sent` is called after each answer."""

    def send(part: Sequence[Numbered]) -> list[Sent]:
        told = []
        with peer.sender() as association:
            for instance in part:
                told.append(association.store(instance))
                sent()
        return told

    with ThreadPoolExecutor(associations) as pool:
        parts = [instances[start::associations] for start in range(associations)]
        return [one for part in pool.map(send, parts) for one in part]


def took_s(told: Sequence[Sent]) -> float:
    """From the first byte of the first to the last answer."""
    return (max(one.answered_ns for one in told) - min(one.begun_ns for one in told)) / 1e9


def answers(port: int, called: str) -> bool:
    """Tell whether a C-ECHO is answered."""
    try:
        with Sender(port, called, wire.VERIFICATION) as association:
            association.echo()
    except (OSError, WireError):
        return False
    return True


@contextmanager
def serve(
    folder: Path, to: int | None, *, report_per: str = "image", sections: dict[str, Any] | None = None
) -> Iterator[Peer]:
    """Run `cxr-node serve` with the default configuration, but for its ports, paths and destination."""
    with _role(folder, ("cxr_node", "serve"), to, {}, sections, report_per) as peer:
        wait(lambda: notify.listens(folder / "spool", notify.Role.WORK) and _echoes(peer), peer, folder)
        yield peer


@contextmanager
def starting(folder: Path, to: int | None, *, web: int | None = None, **listen: int) -> Iterator[Peer]:
    """Run `cxr-node serve`, with its page on a port, and do not wait for anything but its C-ECHO."""
    with _role(folder, ("cxr_node", "serve"), to, listen, {} if web is None else {"web": {"port": web}}) as peer:
        wait(lambda: _echoes(peer), peer, folder)
        yield peer


@contextmanager
def receive(folder: Path) -> Iterator[Peer]:
    """Run `cxr-node receive` alone."""
    with _role(folder, ("cxr_node", "receive"), None, {}) as peer:
        wait(lambda: _echoes(peer), peer, folder)
        yield peer


@contextmanager
def alone(folder: Path, role: str, to: int | None) -> Iterator[Peer]:
    """Run `cxr-node work` or `cxr-node deliver` alone, on the spool that another role has left."""
    with _role(folder, ("cxr_node", role), to, {}) as peer:
        yield peer


@contextmanager
def traced(folder: Path, role: str, to: int | None) -> Iterator[tuple[Peer, Path]]:
    """As `receive` and `alone`, with the time of its parts counted; and the file that tells them."""
    told = folder / f"{role}.json"
    with _role(folder, ("benchmarks.traced", str(told), role), to, {}) as peer:
        if role == "receive":
            wait(lambda: _echoes(peer), peer, folder)
        wait(told.is_file, peer, folder)
        yield peer, told


@contextmanager
def plain(name: str, folder: Path, to: int, picture: tuple[int, int]) -> Iterator[Peer]:
    """Run a plain node (PLAIN or ONE_VIEW); its Secondary Capture has so many rows and columns."""
    port = free_port("127.0.0.1")
    words = ["--port", port, "--to", to, "--rows", picture[0], "--columns", picture[1], "--folder", folder / "plain"]
    words += ["--one-view"] if name == ONE_VIEW else []
    command = [sys.executable, "-m", "benchmarks.plain_node", *map(str, words)]
    with _process(name, command, port, folder) as peer:
        wait(lambda: _echoes(peer), peer, folder)
        yield peer


@contextmanager
def orthanc(folder: Path) -> Iterator[Peer]:
    """Run Orthanc with its defaults (it syncs its files), and PDUs as large as ours."""
    port, store = free_port("127.0.0.1"), str(folder / "orthanc")
    configuration = {
        "StorageDirectory": store,
        "IndexDirectory": store,
        "HttpServerEnabled": False,
        "DicomPort": port,
        "DicomAet": TITLES[ORTHANC],
        "MaximumPduLength": wire.MAX_PDU_BYTES,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    command = [_installed("Orthanc", "orthanc"), str(folder / "orthanc.json")]
    with _process(ORTHANC, command, port, folder) as peer:
        wait(lambda: _echoes(peer), peer, folder)
        yield peer


@contextmanager
def storescp(folder: Path) -> Iterator[Peer]:
    """Run DCMTK's storescp at its fastest: large PDUs, the data set written as it comes; it does not sync."""
    port, store = free_port("127.0.0.1"), folder / "storescp"
    store.mkdir(parents=True, exist_ok=True)
    program = _installed("storescp", "dcmtk")
    options = ["--fork", "-pdu", str(wire.MAX_PDU_BYTES), "+B", "-od", str(store), "-aet", TITLES[STORESCP]]
    with _process(STORESCP, [program, *options, str(port)], port, folder) as peer:
        wait(lambda: _echoes(peer), peer, folder)
        yield peer


def wait(true: Callable[[], bool], peer: Peer, folder: Path) -> None:
    """Wait for a process that has no way to tell.

    Raises
    ------
    TimeoutError : with the last words of the process.
    """
    deadline = time.monotonic() + _START_S
    while not true():
        if peer.process.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"{peer.name} does not answer:\n{_log(folder, peer.name).read_text()[-3000:]}")
        time.sleep(_LOOK_S)


def _echoes(peer: Peer) -> bool:
    return answers(peer.port, TITLES[peer.name])


@contextmanager
def _role(
    folder: Path,
    program: Sequence[str],
    to: int | None,
    listen: dict[str, int],
    sections: dict[str, Any] | None = None,
    report_per: str = "image",
) -> Iterator[Peer]:
    """Of each image a report and a picture, whatever it shows, unless `sections` or `report_per` say otherwise."""
    port = free_port("127.0.0.1")
    content: dict[str, Any] = {"listen": {"port": port, **listen}, "spool": {"path": str(folder / "spool")}}
    content |= {"results": {"normal_heatmap": "banner"}} | (sections or {})
    if to is not None:
        address = f"{destination.AE_TITLE}@127.0.0.1:{to}"
        content["destinations"] = [{"name": "archive", "address": address, "report_per": report_per}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "node.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", *program, "--config", str(folder / "node.yaml")]
    with _process(OURS, command, port, folder) as peer:
        yield peer


@contextmanager
def _process(name: str, command: Sequence[str], port: int, folder: Path) -> Iterator[Peer]:
    folder.mkdir(parents=True, exist_ok=True)
    started_at = time.monotonic()
    with trial_node.running(command, _log(folder, name), _ENVIRONMENT) as process:
        yield Peer(name, port, process, started_at)


def _log(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(', ', ' ').replace(' ', '-')}.log"


def _installed(program: str, package: str) -> str:
    found = find(program)
    if found is None:
        raise MissingError(f"{program} is not installed: apt-get install {package}")
    return found
