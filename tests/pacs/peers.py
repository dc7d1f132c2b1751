"""Real peers on free loopback ports: Orthanc as source and destination, DCMTK's tools, and the node itself.

Each is a context manager; nothing outlives it. Where a peer is not installed its tests skip and name the package.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import yaml

PACKAGES = {
    "Orthanc": "orthanc orthanc-dicomweb",
    "storescu": "dcmtk",
    "storescp": "dcmtk",
    "echoscu": "dcmtk",
    "dcmsend": "dcmtk",
    "dsrdump": "dcmtk",
    "dciodvfy": "dicom3tools",
    "chromium": "chromium",
}
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
"""DCMTK and Orthanc wait 40 ms per C-STORE without it."""


def need(*programs: str) -> None:
    """Skip, naming the package, where a program is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install {PACKAGES[program]}")


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], object], timeout_s: float, what: str) -> None:
    """Poll a peer that has no way to tell."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a peer's tool to its end."""
    words = [str(word) for word in command]
    return subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)


class Process:
    """A child that is stopped, then killed, when its block ends; what it said is in `log`."""

    def __init__(self, command: list[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.command, self.folder, self.log = command, folder, folder / f"{Path(command[0]).name}.log"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, env=ENVIRONMENT, cwd=self.folder
            )

    def stop(self, timeout_s: float = 20.0) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is not None:
            print(f"--- {self.log}\n{self.log.read_text(errors='replace')[-6000:]}")


class Orthanc(Process):
    """An archive that routes what it stores to its modalities, by the Lua rule it is given."""

    ae_title = "ORTHANC"

    def __init__(self, folder: Path, *, modalities: dict[str, tuple[str, int]] | None = None, rule: str = "") -> None:
        need("Orthanc")
        self.http_port, self.dicom_port = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "route.lua").write_text(rule)
        configuration = {
            "Name": "test",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "Plugins": [str(DICOMWEB_PLUGIN)] if DICOMWEB_PLUGIN.exists() else [],
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": self.ae_title,
            "RemoteAccessAllowed": False,
            "OverwriteInstances": True,
            "LuaScripts": [str(folder / "route.lua")] if rule else [],
            "DicomModalities": {
                name: {"AET": ae_title, "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
                for name, (ae_title, port) in (modalities or {}).items()
            },
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(configuration))
        super().__init__([shutil.which("Orthanc") or "Orthanc", str(folder / "orthanc.json")], folder)

    def __enter__(self) -> Orthanc:
        self.start()
        wait_until(self._answers, 30, "Orthanc does not start")
        return self

    @property
    def address(self) -> str:
        return f"{self.ae_title}@127.0.0.1:{self.dicom_port}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=30) as answer:
            return json.load(answer)

    def file(self, instance: str) -> bytes:
        url = f"http://127.0.0.1:{self.http_port}/instances/{instance}/file"
        with urllib.request.urlopen(url, timeout=30) as answer:
            content: bytes = answer.read()
            return content

    def delete(self, instance: str) -> None:
        url = f"http://127.0.0.1:{self.http_port}/instances/{instance}"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30).close()

    def count(self) -> int:
        return int(self.get("/statistics")["CountInstances"])

    def _answers(self) -> bool:
        try:
            self.get("/system")
            socket.create_connection(("127.0.0.1", self.dicom_port), 1).close()
        except OSError:
            return False
        return True


class Node(Process):
    """`cxr-node serve`, as a hospital runs it."""

    ae_title = "CXR_NODE"

    def __init__(self, folder: Path, destinations: list[dict[str, Any]], **sections: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.spool = folder / "spool"
        self.config = folder / "node.yaml"
        self.content = {
            "listen": {"ae_title": self.ae_title, "host": "127.0.0.1", "port": self.port},
            "spool": {"path": str(self.spool), "min_free_mib": 16},
            "destinations": destinations,
            **sections,
        }
        super().__init__([sys.executable, "-m", "cxr_node", "serve", "--config", str(self.config)], folder)

    def with_destinations(self, destinations: list[dict[str, Any]]) -> Node:
        """Tell the node where to deliver, before it starts: peers that know each other need that."""
        self.content["destinations"] = destinations
        return self

    def __enter__(self) -> Node:
        self.config.write_text(yaml.safe_dump(self.content))
        self.start()
        wait_until(self._answers, 60, "the node does not start")
        return self

    def json(self, *command: str) -> list[Any]:
        """What a `cxr-node ... --json` command of this node prints."""
        done = run(sys.executable, "-m", "cxr_node", *command, "--config", self.config, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def roles(self) -> dict[str, int]:
        """Process identifiers of receive, work and deliver, by role, as far as they live at this moment."""
        found: dict[str, int] = {}
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            try:
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            found |= {role: int(child) for role in ("receive", "work", "deliver") if role.encode() in words}
        return found

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text(errors="replace")[-4000:])
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True
