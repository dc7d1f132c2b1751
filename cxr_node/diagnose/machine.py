"""What this machine gives to the node: clock, limits, memory, processor, crash dumps. Measures, judges nothing.

Linux: psutil, /proc, cgroup v2 and v1, adjtimex(2). What cannot be read is None. Imports no room.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_BLOCKS = Path("/sys/class/block")
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5
_UNLIMITED = 1 << 60


class _Timex(ctypes.Structure):
    """The beginning of struct timex, and room for its rest (adjtimex(2))."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The wall clock."""

    year: int
    synchronised: bool | None
    max_error_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one process may have, the smallest of all limits; None: no limit is known."""

    open_files: int | None
    threads: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What may be used, of the machine's or of the control group's."""

    limit_bytes: int
    available_bytes: int
    swaps: tuple[str, ...]
    """Devices and files that take what is swapped out."""
    readable_swaps: tuple[str, ...] = ()
    """Those that are neither in memory nor below dm-crypt; for a file it is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """What computes."""

    cores: float
    """That this process may use; a control group may give a share of one."""
    features: frozenset[str]
    """As /proc/cpuinfo names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a crash and a break-in could do."""

    core_pattern: str
    """Where the kernel leaves the memory of a process that crashed (core(5))."""
    random: bool
    """The kernel's random numbers are seeded."""
    unit: str | None
    """Name of the systemd unit that this process belongs to; None outside of one."""
    no_new_privileges: bool
    seccomp: bool
    capabilities: int
    """Bounding set."""


def clock() -> Clock:
    """Ask the kernel whether something steers its clock; nothing is changed (modes = 0)."""
    told = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(told))
    if state < 0:
        return Clock(year=time.gmtime().tm_year, synchronised=None, max_error_ms=None)
    synchronised = state != _TIME_ERROR and not told.status & _STA_UNSYNC
    return Clock(year=time.gmtime().tm_year, synchronised=synchronised, max_error_ms=told.maxerror / 1000)


def limits() -> Limits:
    """Of this process, its account, its control group and the kernel."""
    threads = [_bounded(resource.getrlimit(resource.RLIMIT_NPROC)[0]), _number(_PROC / "sys/kernel/threads-max")]
    threads += [_number(folder / "pids.max") for folder in _groups("pids")]
    return Limits(open_files=_bounded(resource.getrlimit(resource.RLIMIT_NOFILE)[0]), threads=_least(threads))


def unit_limits(unit: str) -> Limits | None:
    """Of a systemd unit that is installed here; None where it is not, or no systemd runs."""
    if (program := shutil.which("systemctl")) is None:
        return None
    properties = ("LoadState", "LimitNOFILE", "TasksMax")
    command = [program, "show", *(f"--property={name}" for name in properties), unit]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    told = dict(line.partition("=")[::2] for line in shown.splitlines())
    if told.get("LoadState") != "loaded":
        return None
    files, threads = (int(value) if value.isdigit() else None for value in (told["LimitNOFILE"], told["TasksMax"]))
    return Limits(open_files=files, threads=threads)


def memory() -> Memory:
    """Of the machine, less where a control group allows less."""
    machine = psutil.virtual_memory()
    limit_bytes, available_bytes = machine.total, machine.available
    for folder in _groups("memory"):
        most = _least([_number(folder / name) for name in ("memory.max", "memory.limit_in_bytes")])
        used = _least([_number(folder / name) for name in ("memory.current", "memory.usage_in_bytes")])
        if most is not None:
            limit_bytes = min(limit_bytes, most)
            available_bytes = min(available_bytes, max(0, most - (used or 0)))
    lines = _text(_PROC / "swaps").splitlines()[1:]
    swaps = tuple(line.split()[0] for line in lines if line.split())
    return Memory(
        limit_bytes=limit_bytes,
        available_bytes=available_bytes,
        swaps=swaps,
        readable_swaps=tuple(name for name in swaps if not _unreadable(Path(name).resolve().name)),
    )


def processor() -> Processor:
    """Cores by affinity and quota."""
    cores = float(len(os.sched_getaffinity(0)))
    for folder in _groups("cpu"):
        quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
        if quota.isdigit() and period.isdigit():
            cores = min(cores, int(quota) / int(period))
    flags = next((line for line in _text(_PROC / "cpuinfo").splitlines() if line.startswith(("flags", "Features"))), "")
    return Processor(cores=cores, features=frozenset(flags.partition(":")[2].split()))


def processor_name() -> str:
    """As /proc/cpuinfo has it; else the architecture."""
    lines = _text(_PROC / "cpuinfo").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, os.uname().machine)


def cpu_s(pid: int, *, children: bool = True) -> float:
    """Seconds of processor time that a process has had, and all whom it started; 0.0 where it is gone."""
    total = 0.0
    for process in _family(pid) if children else _family(pid)[:1]:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
            total += times.children_user + times.children_system if children else 0.0
    return total


def busy_s() -> float:
    """Seconds for which the machine's cores were busy since it started, whoever had them; the host's steal counts."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def peak_bytes(pid: int) -> int:
    """Largest resident memory of a process and of those that it started, since their start or `forget_peak`."""
    total = 0
    for process in _family(pid):
        lines = _text(_PROC / str(process.pid) / "status").splitlines()
        peak = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), "0")
        total += int(peak) * 1024
    return total


def forget_peak() -> None:
    """Let the peak of this process begin again at what it has now (proc(5), clear_refs); where it may."""
    with suppress(OSError):
        (_PROC / "self/clear_refs").write_text("5")


def confinement() -> Confinement:
    """Of this process."""
    told = dict(line.partition(":")[::2] for line in _text(_PROC / "self/status").splitlines())
    try:
        seeded = len(os.getrandom(16, os.GRND_NONBLOCK)) == 16
    except BlockingIOError:
        seeded = False
    return Confinement(
        core_pattern=_text(_PROC / "sys/kernel/core_pattern").strip(),
        random=seeded,
        unit=_unit(),
        no_new_privileges=told.get("NoNewPrivs", "0").strip() == "1",
        seccomp=told.get("Seccomp", "0").strip() not in ("", "0"),
        capabilities=int(told.get("CapBnd", "0").strip() or "0", 16),
    )


def versions(names: Sequence[str]) -> dict[str, str | None]:
    """Installed versions, Python's first; None where a library is not installed."""
    found: dict[str, str | None] = {"python": ".".join(str(part) for part in sys.version_info[:3])}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _family(pid: int) -> list[psutil.Process]:
    """A process and all whom it started, itself first; empty where it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _unreadable(device: str) -> bool:
    """In compressed memory, or encrypted by the device mapper at some level below."""
    folder = _BLOCKS / device
    if device.startswith("zram") or _text(folder / "dm/uuid").startswith("CRYPT-"):
        return True
    below = sorted((folder / "slaves").iterdir()) if (folder / "slaves").is_dir() else []
    return bool(below) and all(_unreadable(slave.name) for slave in below)


def _unit() -> str | None:
    """The control group of a service ends with its unit's name; a login session's does not."""
    for line in _text(_PROC / "self/cgroup").splitlines():
        name = line.rpartition("/")[2]
        if name.endswith(".service") and "INVOCATION_ID" in os.environ and not name.startswith("user@"):
            return name
    return None


def _groups(controller: str) -> list[Path]:
    """Folders of this process's control group and of those above it; a limit of any of them holds."""
    folders: list[Path] = []
    for line in _text(_PROC / "self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            root = _CGROUPS / controller if controllers else _CGROUPS
            place = root / name.lstrip("/")
            folders += [folder for folder in (place, *place.parents) if folder.is_relative_to(root)]
    return folders


def _bounded(value: int) -> int | None:
    return None if value in (resource.RLIM_INFINITY, -1) else value


def _least(values: Sequence[int | None]) -> int | None:
    return min((value for value in values if value is not None and value < _UNLIMITED), default=None)


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text("ascii", "replace")
    except OSError:
        return ""
