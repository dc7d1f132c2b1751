"""The disk is measured with the spool's own writes, and left as it was."""

from __future__ import annotations

import os
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cxr_node.diagnose import disk
from cxr_node.errors import ResourceError
from cxr_node.node.spool.spool import Spool


def test_a_folder_is_measured_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), fsync(file))[1])
    found = disk.measure(tmp_path, writes=3)
    assert len(found.store_ms) == 3
    assert len(synced) >= 6  # each write: the file and its folder
    assert all(taken > 0 for taken in found.store_ms)
    assert found.journal_mode == "wal"
    assert found.sqlite_version == sqlite3.sqlite_version
    assert abs(found.clock_ahead_s) < 1.0
    assert found.free_bytes > 0
    assert found.traffic is None
    assert list(tmp_path.iterdir()) == []


def test_traffic_is_read_off_the_spool(tmp_path: Path) -> None:
    spool, now = Spool(tmp_path), datetime.now(UTC)
    for number, age_days in enumerate((0.5, 1.5, 4.0, 30.0)):
        part = spool.begin()
        part.write(bytes([number]) * 1000)
        spool.store_object(part, now - timedelta(days=age_days))
    spool.store_result(b"r" * 600)
    found = disk.measure(tmp_path, writes=1).traffic
    assert found is not None
    assert found.radiographs_per_day == pytest.approx(3 / 4, rel=0.01)
    assert found.bytes_each == pytest.approx((3000 + 600) / 3)
    assert found.kept_bytes == 4600


def test_the_file_system_of_the_deepest_mount_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mount:
        def __init__(self, mountpoint: str, fstype: str) -> None:
            self.mountpoint, self.fstype = mountpoint, fstype

    mounts = [Mount("/", "ext4"), Mount(str(tmp_path / "a"), "nfs4"), Mount(str(tmp_path / "ab"), "xfs")]
    monkeypatch.setattr(disk.psutil, "disk_partitions", lambda **_: mounts)
    for name in ("a/b", "ab"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    kinds = [disk.kind(tmp_path / name) for name in ("a/b", "ab", "link", ".")]
    assert kinds == ["nfs4", "xfs", "nfs4", "ext4"]
    assert Path("/dev/shm").is_dir()


def test_memory_is_told_from_a_disk() -> None:
    if not Path("/dev/shm").is_mount():
        pytest.skip("/dev/shm is no mount here")
    assert disk.kind(Path("/dev/shm")) == "tmpfs"


def test_a_folder_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No such file or directory"):
        disk.measure(tmp_path / "gone", writes=1)


def test_a_disk_s_own_clock_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(disk.time, "time", lambda: real() - 30.0)
    assert disk.measure(tmp_path, writes=1).clock_ahead_s == pytest.approx(30.0, abs=1.0)
