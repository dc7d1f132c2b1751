"""Figures are read where Linux keeps them: limits of control groups, swap, processor, the unit; nothing is guessed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psutil
import pytest

from cxr_node.diagnose import machine


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of files: /proc and the control groups."""
    for name, place in (("_PROC", "proc"), ("_CGROUPS", "cgroup"), ("_BLOCKS", "block")):
        folder = tmp_path / place
        (folder / "self").mkdir(parents=True)
        monkeypatch.setattr(machine, name, folder)
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_control_group_allows_less_than_the_machine(proc: Path) -> None:
    write(proc / "proc/self/cgroup", "0::/system.slice/cxr-node-work.service\n")
    group = proc / "cgroup/system.slice/cxr-node-work.service"
    write(group / "memory.max", str(512 * 1024**2))
    write(group / "memory.current", str(112 * 1024**2))
    write(group / "pids.max", "max")
    write(proc / "cgroup/system.slice/pids.max", "77")
    write(group / "cpu.max", "50000 100000")
    found = machine.memory()
    assert (found.limit_bytes, found.available_bytes) == (512 * 1024**2, 400 * 1024**2)
    assert machine.limits().threads == 77
    assert machine.processor().cores == 0.5


def test_an_old_control_group_too(proc: Path) -> None:
    write(proc / "proc/self/cgroup", "4:memory:/docker/1\n3:pids:/docker/1\n")
    write(proc / "cgroup/memory/docker/1/memory.limit_in_bytes", str(1024**3))
    write(proc / "cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    write(proc / "cgroup/pids/docker/1/pids.max", "200")
    assert machine.memory().limit_bytes == 1024**3
    assert machine.limits().threads == 200


def test_without_control_groups_the_machine_counts(proc: Path) -> None:
    assert machine.memory().limit_bytes == psutil.virtual_memory().total
    assert machine.processor().cores == len(os.sched_getaffinity(0))
    assert machine.processor().features == frozenset()


def test_swap_and_processor_are_named(proc: Path) -> None:
    """dm-1 is a logical volume on an encrypted disk, dm-2 one on a plain disk."""
    names = ("/dev/dm-1", "/dev/dm-2", "/dev/zram0", "/swapfile")
    write(proc / "proc/swaps", "Filename Type Size\n" + "".join(f"{name} partition 1 0 -2\n" for name in names))
    write(proc / "block/dm-0/dm/uuid", "CRYPT-LUKS2-1")
    write(proc / "block/dm-1/dm/uuid", "LVM-1")
    (proc / "block/dm-1/slaves/dm-0").mkdir(parents=True)
    (proc / "block/dm-2/slaves/sda2").mkdir(parents=True)
    write(proc / "proc/cpuinfo", "processor : 0\nflags\t\t: fpu avx2 avx512f\n")
    assert machine.memory().swaps == names
    assert machine.memory().readable_swaps == ("/dev/dm-2", "/swapfile")
    assert machine.processor().features == {"fpu", "avx2", "avx512f"}


def test_the_unit_is_named_where_there_is_one(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(proc / "proc/self/status", "NoNewPrivs:\t1\nSeccomp:\t2\nCapBnd:\t0000000000000000\n")
    write(proc / "proc/self/cgroup", "0::/system.slice/cxr-node-work.service\n")
    monkeypatch.setenv("INVOCATION_ID", "1")
    found = machine.confinement()
    assert found.unit == "cxr-node-work.service"
    assert (found.no_new_privileges, found.seccomp, found.capabilities) == (True, True, 0)
    write(proc / "proc/self/cgroup", "0::/user.slice/user-1000.slice/session-2.scope\n")
    assert machine.confinement().unit is None


def test_limits_of_an_installed_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "LoadState=loaded\nLimitNOFILE=4096\nTasksMax=infinity\n"
    monkeypatch.setattr(machine.shutil, "which", lambda _: "/bin/systemctl")
    monkeypatch.setattr(
        machine.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, said, "")
    )
    assert machine.unit_limits("x.service") == machine.Limits(open_files=4096, threads=None)
    said = "LoadState=not-found\nLimitNOFILE=524288\nTasksMax=4915\n"
    assert machine.unit_limits("x.service") is None
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)
    assert machine.unit_limits("x.service") is None


def test_the_clock_is_the_kernel_s() -> None:
    found = machine.clock()
    assert found.year >= 2025
    assert found.max_error_ms is None or found.max_error_ms >= 0


def test_versions_of_what_is_installed() -> None:
    found = machine.versions(["pydicom", "no-such-library"])
    assert list(found) == ["python", "pydicom", "no-such-library"]
    assert found["pydicom"] is not None
    assert found["no-such-library"] is None
