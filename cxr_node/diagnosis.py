"""What figures of a machine mean for the node, and what to do about each. Measures nothing, imports no room.

Figures of the node itself were measured on it: an association costs the receiver three threads and three open files
(two of them sockets), the worker at a radiograph of 15 megapixels 1.1 GiB, the other processes 0.1 GiB each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from cxr_node.config import Listen

if TYPE_CHECKING:
    from cxr_node.machine import Clock, Confinement, Limits, Memory, Processor

GIB = 1024**3
THREADS_EACH = 3
FILES_EACH = 3
BASE_THREADS = 64
BASE_FILES = 64
FEWEST = 128
"""Of files and of threads: with less the receiver cannot serve a handful of senders."""
MIN_MEMORY_BYTES = 3 * GIB // 2
GOOD_MEMORY_BYTES = 5 * GIB // 2
FIRST_YEAR = 2025
LAST_YEAR = 2100
MAX_CLOCK_ERROR_MS = 1000.0
TESTED = {
    "python": "3.11",
    "pynetdicom": "3.0",
    "pydicom": "3.0",
    "python-gdcm": "3.2",
    "pylibjpeg-openjpeg": "2.6",
    "pillow": "13.0",
    "numpy": "2.4",
    "openvino": "2026.4",
    "safetensors": "0.8",
    "sqlalchemy": "2.1",
    "pydantic": "2.14",
}
"""Major and minor versions with which all tests of this release ran."""


class Verdict(StrEnum):
    """What a figure means."""

    WELL = "well"
    CHANGE = "change"
    """The node runs, worse or less safely than it could."""
    STOP = "stop"
    """The node cannot keep what it promises here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One thing that was measured."""

    subject: str
    figure: str
    verdict: Verdict = Verdict.WELL
    advice: str = ""
    """What to do; empty where all is well."""

    def as_json(self) -> dict[str, str]:
        """One line of `cxr-node doctor --json`."""
        return {"subject": self.subject, "figure": self.figure, "verdict": self.verdict, "advice": self.advice}


def change(subject: str, figure: str, advice: str) -> Reading:
    """Say what could be better."""
    return Reading(subject=subject, figure=figure, verdict=Verdict.CHANGE, advice=advice)


def stop(subject: str, figure: str, advice: str) -> Reading:
    """Say what must be mended first."""
    return Reading(subject=subject, figure=figure, verdict=Verdict.STOP, advice=advice)


def clock(found: Clock) -> Reading:
    """The content time of every result is the time of receipt, and leases and repeats are dated."""
    subject = "clock"
    if not FIRST_YEAR <= found.year <= LAST_YEAR:
        return stop(subject, f"year {found.year}", "set the clock: every result would bear a wrong date")
    if found.synchronised is None:
        return change(subject, "not to be seen here", "look at it outside of this sandbox: timedatectl")
    error = f", at most {found.max_error_ms:.0f} ms off" if found.max_error_ms is not None else ""
    if not found.synchronised:
        return change(subject, "not synchronised", "start a time service: timedatectl set-ntp true, or chrony")
    if (found.max_error_ms or 0.0) > MAX_CLOCK_ERROR_MS:
        return change(subject, f"synchronised{error}", "give the time service a nearer or better server")
    return Reading(subject=subject, figure=f"synchronised{error}")


def limits(found: Limits, listen: Listen, whose: str) -> Iterator[Reading]:
    """Open files and threads, for as many connections as the listener lets in."""
    connections = 2 * listen.max_associations + 16
    need = f"for listen.max_associations: {listen.max_associations}"
    yield _limit("open files", found.open_files, BASE_FILES + FILES_EACH * connections, f"{need}, of {whose}")
    yield _limit("threads", found.threads, BASE_THREADS + THREADS_EACH * connections, f"{need}, of {whose}")


def _limit(subject: str, most: int | None, need: int, why: str) -> Reading:
    figure = f"{'no limit' if most is None else most}, {need} needed {why}"
    key = {"open files": "LimitNOFILE", "threads": "TasksMax"}[subject]
    if most is not None and most < min(need, FEWEST):
        return stop(subject, figure, f"raise it: {key}={need} in the unit, ulimit in a shell")
    if most is not None and most < need:
        return change(subject, figure, f"{key}={need} in cxr-node-receive.service, or fewer listen.max_associations")
    return Reading(subject=subject, figure=figure)


def memory(found: Memory) -> Iterator[Reading]:
    """Three processes and a decoder; and where pixels go when memory is short."""
    figure = f"{found.limit_bytes / GIB:.1f} GiB, {found.available_bytes / GIB:.1f} GiB of it free"
    if found.limit_bytes < MIN_MEMORY_BYTES:
        yield stop("memory", figure, "give it 3 GiB: the worker alone takes 1.1 GiB for a radiograph of 15 megapixels")
    elif min(found.limit_bytes, found.available_bytes) < GOOD_MEMORY_BYTES:
        yield change("memory", figure, "free or add some: 3 GiB for the node, or large images end in the OOM killer")
    else:
        yield Reading(subject="memory", figure=figure)
    if found.readable_swaps:
        advice = "encrypt it or swapoff: pixels of patients may reach it; under the systemd units they do not"
        yield change("swap", f"{', '.join(found.readable_swaps)}, not seen to be encrypted", advice)
    else:
        yield Reading(subject="swap", figure=", ".join(found.swaps) or "none")


def processor(found: Processor, threads: int) -> Reading:
    """Cores against `model.threads`, and the instructions that oneDNN wants."""
    fast = [name for name in ("avx2", "avx512f", "amx_bf16", "asimd") if name in found.features]
    named = {"avx2": "AVX2", "avx512f": "AVX-512", "amx_bf16": "AMX", "asimd": "NEON"}
    figure = f"{found.cores:g} cores, {', '.join(named[name] for name in fast) or 'neither AVX2 nor NEON'}"
    figure += f", model.threads: {threads or 'all'}"
    if threads > found.cores:
        return change("processor", figure, f"model.threads: {int(found.cores) or 1}; more threads than cores wait")
    if not fast:
        return change("processor", figure, "show it AVX2, which a virtual machine may hide: images take longer without")
    if found.cores < 2:
        return change("processor", figure, "give it two cores: the receiver waits while an image is judged")
    return Reading(subject="processor", figure=figure)


def confinement(found: Confinement) -> Iterator[Reading]:
    """Crash dumps, random numbers, and what systemd forbids."""
    program = found.core_pattern.removeprefix("|").split(" ")[0]
    if found.core_pattern.startswith("|") and "systemd-coredump" not in program:
        advice = "switch it off: it is handed the memory of a process that crashed, whatever its limit says"
        yield change("core files", f"taken by {program}", advice)
    else:
        yield Reading(subject="core files", figure="none: the node's processes allow themselves no core file")
    if found.random:
        yield Reading(subject="random numbers", figure="seeded")
    else:
        yield stop("random numbers", "not seeded", "wait, or give the virtual machine a virtio-rng: TLS needs them")
    yield _unit(found)


def _unit(found: Confinement) -> Reading:
    if found.unit is None:
        figure = "not run by it; for service take the units of docs/deployment.md, or `cxr-node serve` in a container"
        return Reading(subject="systemd", figure=figure)
    missing = [
        name
        for name, there in (
            ("NoNewPrivileges=yes", found.no_new_privileges),
            ("SystemCallFilter=", found.seccomp),
            ("CapabilityBoundingSet=", found.capabilities == 0),
        )
        if not there
    ]
    if missing:
        return change("systemd", f"{found.unit} without {', '.join(missing)}", "take the unit that comes with the node")
    return Reading(subject="systemd", figure=f"{found.unit}: no new privilege, filtered system calls, no capability")


def versions(found: Mapping[str, str | None]) -> Iterator[Reading]:
    """Libraries against those that were tested; one line where all are."""
    missing = sorted(name for name, version in found.items() if version is None)
    other = [
        f"{name} {version} (tested: {TESTED[name]})"
        for name, version in found.items()
        if version is not None and version.split(".")[:2] != TESTED[name].split(".")
    ]
    if missing:
        yield stop("libraries", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    if other:
        yield change("libraries", ", ".join(other), "install the tested versions, or run the tests with these")
    if not missing and not other:
        yield Reading(subject="libraries", figure=f"python {found['python']} and {len(found) - 1} libraries as tested")
