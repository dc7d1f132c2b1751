"""What figures of a machine mean for the node, and what to do about each. Measures nothing, imports no room.

Figures of the node itself were measured on it: an association costs the receiver three threads and three open files
(two of them sockets), the worker at a radiograph of 15 megapixels 1.1 GiB, the other processes 0.1 GiB each.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxr_node.config.schema import Listen, SpoolSection
    from cxr_node.diagnose.disk import Disk
    from cxr_node.diagnose.machine import Clock, Confinement, Limits, Memory, Processor
    from cxr_node.dicom.pixels.codecs import Trial


class Verdict(StrEnum):
    """What a result means."""

    WELL = "well"
    CHANGE = "change"
    """The node runs, but slower or less safely than it could."""
    STOP = "stop"
    """The node cannot keep what it promises here."""


class Fault(StrEnum):
    """What to fix if a result says STOP."""

    FILE = "file"
    """The configuration, or a file that it names: the node would not start, or could not do its work (78)."""
    WORLD = "world"
    """An archive is down, a port is taken, a disk is full: nothing in the configuration is wrong (1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """Outcome of one check or measurement."""

    subject: str
    figure: str
    """What was found, as a figure or as a sentence."""
    verdict: Verdict = Verdict.WELL
    advice: str = ""
    """What to do; empty where all is well, or where the figure says it."""
    fault: Fault = Fault.FILE

    @property
    def ok(self) -> bool:
        """The node can work with it."""
        return self.verdict is not Verdict.STOP

    @property
    def warning(self) -> bool:
        """It works, but an operator should know."""
        return self.verdict is Verdict.CHANGE

    def as_json(self) -> dict[str, str]:
        """One line of `cxr-node doctor --json`."""
        return {"subject": self.subject, "figure": self.figure, "verdict": self.verdict, "advice": self.advice}


def well(subject: str, figure: str) -> CheckResult:
    """Make a result that is fine."""
    return CheckResult(subject=subject, figure=figure)


def change(subject: str, figure: str, advice: str = "") -> CheckResult:
    """Make a result that asks for a change."""
    return CheckResult(subject=subject, figure=figure, verdict=Verdict.CHANGE, advice=advice)


def stop(subject: str, figure: str, advice: str = "", fault: Fault = Fault.FILE) -> CheckResult:
    """Make a result that stops the node."""
    return CheckResult(subject=subject, figure=figure, verdict=Verdict.STOP, advice=advice, fault=fault)


_MIB = 1024**2
ASSUMED_BYTES_EACH = 24 * _MIB
"""A DX image of 10 megapixels, uncompressed, with its heat map picture; while the spool is empty."""
FEW_RADIOGRAPHS = 1000
GOOD_P95_MS = 50.0
STOP_P95_MS = 5000.0
"""Archives wait some 30 s for an answer, and four stores may be ahead in the queue."""
TOO_FAST_P50_MS = 0.3
"""1 MiB at 3 GB/s: nothing can have reached the disk."""
MAX_CLOCK_DIFFERENCE_S = 2.0
FEW_INODES = 100_000
NO_INODES = 1000
FIRST_SQLITE = (3, 35)
"""UPDATE ... RETURNING."""
_WAL_RESET_FIXED = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""First releases of their lines without the WAL-reset bug of 3.7.0 and later (sqlite.org/wal.html)."""
_NETWORK = frozenset({"afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3"})
_MEMORY = frozenset({"tmpfs", "ramfs"})
_HOST_S = frozenset({"9p", "virtiofs", "vboxsf", "vmhgfs", "prl_fs"})


def disk(found: Disk, spool: SpoolSection, *, trial: bool) -> Iterator[CheckResult]:
    """Judge a disk; `trial` where it is only what was at hand, for no configuration names a spool."""
    yield _kind(found, trial)
    yield _durable_write(found)
    yield _room(found, spool)
    if found.free_inodes is not None:
        yield _inodes(found.free_inodes)
    yield _time(found.clock_ahead_s)
    yield _sqlite(found)


def is_network(kind: str) -> bool:
    """Whether a file system of that type lies on another machine: SQLite's WAL does not work there."""
    return kind in _NETWORK or kind in ("fuse.sshfs", "fuse.glusterfs", "fuse.s3fs")


def _kind(found: Disk, trial: bool) -> CheckResult:
    subject, figure = "file system", f"{found.kind} at {found.folder}"
    if trial:
        return change(subject, f"{figure}, only at hand", "give --config FILE: then the spool's own disk is measured")
    if is_network(found.kind):
        return stop(subject, figure, "put spool.path on a local disk: SQLite's ledger does not work over a network")
    if found.kind in _MEMORY:
        return stop(subject, figure, "put spool.path on a disk: a power cut takes what was acknowledged")
    if found.kind in ("overlay", "aufs"):
        return change(
            subject, figure, "mount a volume at spool.path: the container's own layer goes with the container"
        )
    if found.kind in _HOST_S or found.kind.startswith("fuse") or found.kind == "unknown":
        return change(
            subject, figure, "put spool.path on a local disk: here fsync means what another program makes of it"
        )
    return well(subject, figure)


def _durable_write(found: Disk) -> CheckResult:
    p50, p95 = statistics.median(found.store_ms), _percentile(found.store_ms, 0.95)
    figure = f"{len(found.store_ms)} x 1 MiB: p50 {p50:.1f} ms, p95 {p95:.1f} ms"
    subject = "durable write"
    if p95 > STOP_P95_MS:
        return stop(subject, figure, "find out what slows this disk down: senders would time out")
    if p50 < TOO_FAST_P50_MS:
        return change(subject, figure, "too fast to be true: look for cache=unsafe, or a write cache without a battery")
    if p95 > GOOD_P95_MS:
        return change(subject, figure, "expect slow answers to C-STORE; a solid state disk of its own takes a few ms")
    return well(subject, figure)


def _room(found: Disk, spool: SpoolSection) -> CheckResult:
    subject, usable_bytes = "free space", found.free_bytes - spool.min_free_mib * _MIB
    free = f"{found.free_bytes / GIB:.1f} GiB free"
    if usable_bytes <= 0:
        advice = f"make room: below spool.min_free_mib ({spool.min_free_mib}) every C-STORE is answered 0xA700"
        return stop(subject, free, advice)
    if found.traffic is None:
        number = usable_bytes // ASSUMED_BYTES_EACH
        figure = f"{free}: {number} radiographs of {ASSUMED_BYTES_EACH // _MIB} MiB with their results (assumed)"
        if number < FEW_RADIOGRAPHS:
            return change(subject, figure, "give the spool a larger disk")
        return well(subject, figure)
    traffic = found.traffic
    bytes_a_day = traffic.radiographs_per_day * traffic.bytes_each
    days = (usable_bytes + traffic.kept_bytes) / bytes_a_day
    figure = (
        f"{free}: room for {days:.0f} days of {traffic.radiographs_per_day:.0f} radiographs, "
        f"{traffic.bytes_each / _MIB:.1f} MiB each with results; kept for {spool.retention_days:g}"
    )
    if days < spool.retention_days:
        return change(subject, figure, f"a larger disk, or spool.retention_days: {max(1, int(days * 0.8))}")
    return well(subject, figure)


def _inodes(free: int) -> CheckResult:
    if free < NO_INODES:
        return stop("inodes", f"{free} free", "make room for files: each radiograph takes about six")
    if free < FEW_INODES:
        return change(
            "inodes", f"{free} free", "create the file system with more inodes: each radiograph takes about six"
        )
    return well("inodes", f"{free} free")


def _time(ahead_s: float) -> CheckResult:
    figure = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    if abs(ahead_s) > MAX_CLOCK_DIFFERENCE_S:
        return change("disk's clock", figure, "synchronise the clock of the machine that holds the disk")
    return well("disk's clock", "that of this machine")


def _sqlite(found: Disk) -> CheckResult:
    figure = f"{found.sqlite_version}, journal mode {found.journal_mode}"
    version = tuple(int(part) for part in found.sqlite_version.split("."))
    if found.journal_mode != "wal":
        return stop("SQLite", figure, "put spool.path on a local disk that supports shared memory maps")
    if version < FIRST_SQLITE:
        return stop("SQLite", figure, "install Python with SQLite 3.51.3 or newer")
    if not _wal_reset_fixed(version):
        advice = "update to 3.51.3 or newer: when two processes write at once this one can, rarely, damage a ledger"
        return change("SQLite", figure, advice)
    return well("SQLite", figure)


def _wal_reset_fixed(version: tuple[int, ...]) -> bool:
    return version >= _WAL_RESET_FIXED[-1] or any(
        version[:2] == first[:2] and version >= first for first in _WAL_RESET_FIXED
    )


def decoders(trials: Sequence[Trial], missing: Sequence[str]) -> Iterator[CheckResult]:
    """Judge the decoders: one line where each decodes its sample, else one for each that does not."""
    for wrong in (one for one in trials if not one.right):
        advice = "reinstall the node's libraries: senders are offered this, and every such image would be refused"
        yield stop("decoder", f"{wrong.name}: its sample comes out wrong", advice)
    for name in missing:
        yield change("decoder", f"{name}: not installed", "pip install python-gdcm pylibjpeg-openjpeg pillow")
    if right := [one for one in trials if one.right]:
        slowest_ms = max(one.took_ms for one in right)
        figure = f"{len(right)} transfer syntaxes decode their sample, in {slowest_ms:.1f} ms at most"
        yield well("decoders", figure)


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


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


def clock(found: Clock) -> CheckResult:
    """The content time of every result is the time of receipt, and leases and repeats are dated."""
    subject = "clock"
    if not FIRST_YEAR <= found.year <= LAST_YEAR:
        return stop(subject, f"year {found.year}", "set the clock: every result would have a wrong date")
    if found.synchronised is None:
        return change(subject, "not to be seen here", "check outside this sandbox: timedatectl")
    error = f", at most {found.max_error_ms:.0f} ms off" if found.max_error_ms is not None else ""
    if not found.synchronised:
        return change(subject, "not synchronised", "start a time service: timedatectl set-ntp true, or chrony")
    if (found.max_error_ms or 0.0) > MAX_CLOCK_ERROR_MS:
        return change(subject, f"synchronised{error}", "give the time service a nearer or better server")
    return CheckResult(subject=subject, figure=f"synchronised{error}")


def limits(found: Limits, listen: Listen, whose: str) -> Iterator[CheckResult]:
    """Open files and threads, for as many connections as the listener lets in."""
    connections = 2 * listen.max_associations + 16
    need = f"for listen.max_associations: {listen.max_associations}"
    yield _limit("open files", found.open_files, BASE_FILES + FILES_EACH * connections, f"{need}, of {whose}")
    yield _limit("threads", found.threads, BASE_THREADS + THREADS_EACH * connections, f"{need}, of {whose}")


def _limit(subject: str, most: int | None, need: int, why: str) -> CheckResult:
    figure = f"{'no limit' if most is None else most}, {need} needed {why}"
    key = {"open files": "LimitNOFILE", "threads": "TasksMax"}[subject]
    if most is not None and most < min(need, FEWEST):
        return stop(subject, figure, f"raise it: {key}={need} in the unit, ulimit in a shell")
    if most is not None and most < need:
        return change(subject, figure, f"{key}={need} in cxr-node-receive.service, or fewer listen.max_associations")
    return well(subject, figure)


def memory(found: Memory) -> Iterator[CheckResult]:
    """Three processes and a decoder; and where pixels go when memory is short."""
    figure = f"{found.limit_bytes / GIB:.1f} GiB, {found.available_bytes / GIB:.1f} GiB of it free"
    if found.limit_bytes < MIN_MEMORY_BYTES:
        yield stop("memory", figure, "give it 3 GiB: the worker alone takes 1.1 GiB for a radiograph of 15 megapixels")
    elif min(found.limit_bytes, found.available_bytes) < GOOD_MEMORY_BYTES:
        yield change("memory", figure, "free or add some: 3 GiB for the node, or large images end in the OOM killer")
    else:
        yield well("memory", figure)
    if found.readable_swaps:
        advice = "encrypt it or swapoff: pixels of patients may reach it; under the systemd units they do not"
        yield change("swap", f"{', '.join(found.readable_swaps)}, not seen to be encrypted", advice)
    else:
        yield well("swap", ", ".join(found.swaps) or "none")


def processor(found: Processor, threads: int) -> CheckResult:
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
    return well("processor", figure)


def confinement(found: Confinement) -> Iterator[CheckResult]:
    """Crash dumps, random numbers, and what systemd forbids."""
    program = found.core_pattern.removeprefix("|").split(" ")[0]
    if found.core_pattern.startswith("|") and "systemd-coredump" not in program:
        advice = "switch it off: it is handed the memory of a process that crashed, whatever its limit says"
        yield change("core files", f"taken by {program}", advice)
    else:
        yield well("core files", "none: the node's processes allow themselves no core file")
    if found.random:
        yield well("random numbers", "seeded")
    else:
        yield stop("random numbers", "not seeded", "wait, or give the virtual machine a virtio-rng: TLS needs them")
    yield _unit(found)


def _unit(found: Confinement) -> CheckResult:
    if found.unit is None:
        figure = "not run by it; for service take the units of docs/install.md, or `cxr-node serve` in a container"
        return well("systemd", figure)
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
        return change("systemd", f"{found.unit} without {', '.join(missing)}", "use the unit that comes with the node")
    return well("systemd", f"{found.unit}: no new privilege, filtered system calls, no capability")


def versions(found: Mapping[str, str | None]) -> Iterator[CheckResult]:
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
        yield well("libraries", f"python {found['python']} and {len(found) - 1} libraries as tested")
