"""What several tests of Try and the API ask with: files, their answers, and the process behind the page."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from cxr_node import resources
from tests import builders
from tests.patience import NODE_S
from tests.processes import Program, answers, configured, cxr_node, descendants, free_port, words_of

JPEG = (resources.DRAWN / "opacity-1.jpg").read_bytes()
DICOM = builders.part10(builders.radiograph(1))
LATERAL = builders.part10(builders.radiograph(2, ViewPosition="LL", PatientOrientation=["A", "F"]))
CANARY = {"PatientName": "Zimtschnecke^Kim", "PatientID": "ZIMT-4711"}
"""In no answer, log line, address or audit message."""


def png() -> bytes:
    """A drawn chest as a PNG of 16 bits."""
    buffer = io.BytesIO()
    Image.fromarray(builders.chest().astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def post(client: httpx.Client, content: bytes, path: str = "/api/v1/predict", **more: Any) -> httpx.Response:
    """One file to the API."""
    return client.post(path, files={"file": ("chest.dcm", content)}, **more)


def judge_of(pid: int) -> int | None:
    """The process with the network, of a web process; None where none runs."""
    return next((each for each in descendants(pid) if "cxr_node.web.judging.judge" in words_of(each)), None)


def lives(pid: int) -> bool:
    """Whether a process has not ended, reaped or not; it has when the last of its threads has."""
    try:
        found = psutil.Process(pid)
        return found.status() != psutil.STATUS_ZOMBIE or found.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


def memory_mb(pid: int, what: str = "VmRSS") -> float:
    """Memory of a process (proc_pid_status(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def scratch_files(pid: int, spool: Path) -> int:
    """Files without a name that a process holds in a spool."""
    links = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed in the meantime
            links.append(str(each.readlink()))
    return sum(link.startswith(f"{spool}/run/") and link.endswith("(deleted)") for link in links)


class Page(Program):
    """`cxr-node web` in a process of its own, without users."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.port = free_port()
        section = {"port": self.port, "try": {"per_minute": 1_000_000} | limits}
        config = configured(folder, "node", 0, web=section)
        self.spool = folder / "spool"
        self.address = f"http://127.0.0.1:{self.port}"
        super().__init__(folder, *cxr_node("web", config), name="web")

    def is_ready(self) -> bool:
        return answers(self.port)

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A program that asks."""
        with httpx.Client(base_url=self.address, timeout=NODE_S) as client:
            yield client
