"""Memory and processor time of the node's processes, by role."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.peers import Peer

ROLES = ("receive", "work", "deliver")
_LINE = re.compile(r"^(Rss|Pss|VmHWM):\s+(\d+) kB", re.MULTILINE)
_KIB_OF_MB = 1e6 / 1024.0


def by_role(node: Peer) -> dict[str, dict[str, float]]:
    """MB (10^6 bytes) of each role's process: resident, proportional (shared pages are divided), highest resident.

    A role's children (decoders in their sandbox) count for it; their highest resident does not.
    """
    found: dict[str, dict[str, float]] = {}
    for role, process in _processes(node):
        used = {"rss_mb": 0.0, "pss_mb": 0.0, "highest_rss_mb": _of(process).get("VmHWM", 0.0)}
        for one in (process, *process.children(recursive=True)):
            told = _of(one)
            used["rss_mb"] += told.get("Rss", 0.0)
            used["pss_mb"] += told.get("Pss", 0.0)
        if used["rss_mb"] > found.get(role, {}).get("rss_mb", 0.0):  # a forked child has its parent's command line
            found[role] = used
    return found


def cpu_s(node: Peer) -> dict[str, float]:
    """CPU seconds of each role's process and of its children so far."""
    spent = dict.fromkeys(ROLES, 0.0)
    for role, process in _processes(node):
        times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
        spent[role] = max(spent[role], sum(one.user + one.system for one in times))
    return spent


def _processes(node: Peer) -> Iterator[tuple[str, psutil.Process]]:
    for process in node.family():
        role = next((word for word in process.cmdline() if word in ROLES), None)
        if role is not None:
            yield role, process


def _of(process: psutil.Process) -> dict[str, float]:
    folder = Path("/proc") / str(process.pid)
    text = (folder / "smaps_rollup").read_text() + (folder / "status").read_text()
    return {name: int(kib) / _KIB_OF_MB for name, kib in _LINE.findall(text)}
