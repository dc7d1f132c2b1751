"""One role of the node as a process of its own on loopback, and what it takes of the machine (read from /proc)."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cxr_node.node.ledger import queries
from cxr_node.node.ledger.database import POOL_SIZE
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from tests.processes import Program, children, configured, cxr_node, words_of

MIB = 1024 * 1024
POOLED_FILES = 2 * (POOL_SIZE - 1)
"""The ledger and its write-ahead log, for each connection but the first, which is there from the beginning."""
_SAYS = {
    "receive": r" listening port=(\d+)",
    "work": r" ready owner=()",
    "web": r" listening address=http://127\.0\.0\.1:(\d+)",
}
"""What a role logs when it is ready, and at which port."""
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
            if words_of(child) == words_of(self._pid):
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


def _high_water_mib(pid: int) -> float:
    found = re.search(r"^VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def is_back(now: Usage, base: Usage) -> bool:
    """Tell whether a process holds no more than at rest, but for the database connections it has pooled since."""
    return now.threads <= base.threads and now.files <= base.files + POOLED_FILES


class Role(Program):
    """`cxr-node receive`, `work` or `web` as a unit of systemd runs it; `prefix` is what it runs under: strace."""

    def __init__(self, folder: Path, role: str, *, prefix: Iterable[str] = (), **sections: Any) -> None:
        self.role, self.spool, self.port, self.pid = role, folder / "spool", 0, 0
        config = configured(folder, role, 0, **sections)
        super().__init__(folder, *prefix, *cxr_node(role, config), name=role, OMP_NUM_THREADS="1")

    def is_ready(self) -> bool:
        found = re.search(_SAYS[self.role], self.said())
        if found:
            self.port = int(found[1] or 0)
            inside = children(self.process.pid) if self.command[0] != sys.executable else []
            self.pid = inside[0] if inside else self.process.pid
        return bool(found)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

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
