"""One role of the node as a process of its own on loopback, and what it takes of the machine (read from /proc)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

import cxr_node
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.database import POOL_SIZE
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger

MIB = 1024 * 1024
POOLED_FILES = 2 * (POOL_SIZE - 1)
"""The ledger and its write-ahead log, for each connection but the first, which is there from the beginning."""
_SAYS = {"receive": r" listening port=(\d+)", "work": r" ready owner="}
"""What a role logs when it is ready."""
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(cxr_node.__file__).parent.parent)}
"""The package that is tested, whatever is installed."""
_START_S = 90.0
_STOP_S = 90.0
_SAMPLE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process holds at one moment; children are not counted in."""

    rss_mib: float
    threads: int
    files: int

    def __str__(self) -> str:
        return f"{self.rss_mib:.0f} MiB, {self.threads} threads, {self.files} files"


def usage(pid: int) -> Usage:
    """Look at a process that lives."""
    status = Path(f"/proc/{pid}/status").read_text()
    numbers = {name: int(value) for name, value in re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.MULTILINE)}
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Usage(rss_mib=numbers["VmRSS"] / 1024, threads=numbers["Threads"], files=files)


def children(pid: int) -> list[int]:
    """Process ids of all that a process has started, from any of its threads."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


class Peak(threading.Thread):
    """The largest of each number while its block lasts, of a process and of its children where asked.

    Its resident memory is the kernel's own high-water mark; the rest is looked at twenty times a second.
    """

    def __init__(self, pid: int, with_children: bool = False) -> None:
        super().__init__(daemon=True)
        self.rss_mib, self.child_rss_mib, self.threads, self.files = 0.0, 0.0, 0, 0
        self._pid, self._with_children, self._done = pid, with_children, threading.Event()

    def run(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            with suppress(OSError, KeyError):
                self._look()

    def _look(self) -> None:
        seen = usage(self._pid)
        self.rss_mib = max(self.rss_mib, _high_water_mib(self._pid))
        self.threads, self.files = max(self.threads, seen.threads), max(self.files, seen.files)
        for child in children(self._pid) if self._with_children else ():
            if _words(child) == _words(self._pid):
                continue  # it has not begun its own program yet, and has its parent's memory
            self.child_rss_mib = max(self.child_rss_mib, _high_water_mib(child))

    def __enter__(self) -> Self:
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")  # the mark starts anew (proc(5))
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
        with suppress(OSError):
            self._look()

    def __str__(self) -> str:
        return f"{self.rss_mib:.0f} MiB, {self.threads} threads, {self.files} files"


def _words(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _high_water_mib(pid: int) -> float:
    found = re.search(r"^VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def is_back(now: Usage, base: Usage) -> bool:
    """Tell whether a process holds no more than at rest, but for the database connections it has pooled since."""
    return now.threads <= base.threads and now.files <= base.files + POOLED_FILES


class Role:
    """`cxr-node receive` or `work` as a unit of systemd runs it; stopped by SIGTERM when its block ends."""

    def __init__(self, folder: Path, role: str, *, prefix: Iterable[str] = (), **sections: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.role, self.spool = folder, role, folder / "spool"
        self.log = folder / f"{role}.log"
        self.port = 0
        config = folder / f"{role}.yaml"
        content = {"spool": {"path": str(self.spool), "min_free_mib": 16}, "model": {"threads": 1}, **sections}
        content["listen"] = {"host": "127.0.0.1", "port": 0, **sections.get("listen", {})}
        config.write_text(yaml.safe_dump(content))
        config.chmod(0o600)
        self._command = [*prefix, sys.executable, "-m", "cxr_node", role, "--config", str(config)]

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=_ENVIRONMENT, cwd=self.folder)
        try:
            said = self._wait_until_ready()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        self.port = int(said[1]) if self.role == "receive" else 0
        self.pid = self._own_pid()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        os.kill(self.pid, 15) if self.lives() else None
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        if kind is not None:
            print(f"--- {self.log}\n{self.said()[-4000:]}")

    def lives(self) -> bool:
        """Tell whether it is still the process that was started."""
        return self._process.poll() is None

    def said(self) -> str:
        """All of its log."""
        return self.log.read_text(errors="replace")

    def usage(self) -> Usage:
        """What it holds now."""
        return usage(self.pid)

    def parts(self) -> list[Path]:
        """Unfinished files."""
        return list((self.spool / "incoming").iterdir())

    def rows(self) -> list[queries.InstanceRow]:
        """All that its ledger knows, oldest first."""
        if not (self.spool / FILE_NAME).exists():
            return []
        ledger = Ledger.open(self.spool)
        try:
            return queries.recent(ledger, 1_000_000)[::-1]
        finally:
            ledger.close()

    def _wait_until_ready(self) -> re.Match[str]:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self.lives():
            if found := re.search(_SAYS[self.role], self.said()):
                return found
            time.sleep(0.02)
        raise RuntimeError(f"{self.role} did not start:\n{self.said()[-4000:]}")

    def _own_pid(self) -> int:
        """Behind a prefix such as strace it is the child's."""
        inside = children(self._process.pid) if self._command[0] != sys.executable else []
        return inside[0] if inside else self._process.pid


def eventually(holds: Callable[[], bool], timeout_s: float) -> float | None:
    """Wait for what another process brings about; how long it took, None where it did not come."""
    started = time.monotonic()
    while time.monotonic() - started < timeout_s:
        if holds():
            return time.monotonic() - started
        time.sleep(0.05)
    return time.monotonic() - started if holds() else None
