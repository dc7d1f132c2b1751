"""What the disk below the spool does with a file, measured by the spool's own code. Judges nothing; knows no DICOM."""

from __future__ import annotations

import os
import secrets
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from cxr_node.errors import ResourceError
from cxr_node.node.spool.disk import MIB
from cxr_node.node.spool.spool import Area, Spool

WRITES = 50
RECENT_DAYS = 7.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the last days brought, read off the spool."""

    radiographs_per_day: float
    bytes_each: float
    """Of one radiograph with its results."""
    kept_bytes: int
    """All that the spool holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One file system as the node would use it."""

    folder: Path
    kind: str
    """As mount(8) names it."""
    store_ms: tuple[float, ...]
    """Each: 1 MiB written, fsync, rename, fsync of the folder."""
    free_bytes: int
    free_inodes: int | None
    """None where the file system makes them as it needs them."""
    clock_ahead_s: float
    """Time of the file system less that of this machine."""
    sqlite_version: str
    journal_mode: str
    """What SQLite answers to WAL."""
    traffic: Traffic | None = None
    """None where there is no spool yet, or nothing came lately."""


def measure(folder: Path, writes: int = WRITES) -> Disk:
    """Write into a folder of its own below `folder`, and take it away again.

    Raises
    ------
    ResourceError : the folder cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="doctor-", dir=folder) as scratch:
            place = Path(scratch)
            ahead_s = _clock_ahead_s(place)
            store_ms = _store_ms(Spool(place), writes)
            journal_mode = _journal_mode(place)
        disk = os.statvfs(folder)
        return Disk(
            folder=folder,
            kind=kind(folder),
            store_ms=store_ms,
            free_bytes=disk.f_bavail * disk.f_frsize,
            free_inodes=disk.f_favail if disk.f_files else None,
            clock_ahead_s=ahead_s,
            sqlite_version=sqlite3.sqlite_version,
            journal_mode=journal_mode,
            traffic=_traffic(folder),
        )
    except OSError as error:
        raise ResourceError(f"{folder}: {error.strerror}") from error


def kind(folder: Path) -> str:
    """Name the type of the file system on which a folder lies."""
    place = folder.resolve()
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[parent] for parent in (place, *place.parents) if parent in mounts), "unknown")


def _clock_ahead_s(place: Path) -> float:
    file = place / "clock"
    before = time.time()
    file.write_bytes(b"")
    return file.stat().st_mtime - (before + time.time()) / 2


def _store_ms(spool: Spool, writes: int) -> tuple[float, ...]:
    taken = []
    for _ in range(writes):
        content = secrets.token_bytes(MIB)  # nothing to compress, nothing to share
        started = time.perf_counter()
        part = spool.begin()
        part.write(content)
        spool.store_object(part, datetime.now(UTC))
        taken.append((time.perf_counter() - started) * 1000)
    return tuple(taken)


def _journal_mode(place: Path) -> str:
    try:
        with closing(sqlite3.connect(place / "ledger.sqlite3")) as connection:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            connection.execute("CREATE TABLE written (number INTEGER)")  # WAL is opened by the first write
            connection.commit()
            return str(mode)
    except sqlite3.Error as error:
        return f"none: {error}"


def _traffic(folder: Path) -> Traffic | None:
    """Read off the files' times: a received object's is that of its receipt."""
    since = time.time() - RECENT_DAYS * 86400
    objects, results = _files(folder / Area.OBJECTS), _files(folder / Area.RESULTS)
    times = [found.st_mtime for found in objects if found.st_mtime >= since]
    if not times:
        return None
    days = max(1.0, (time.time() - min(times)) / 86400)
    recent_bytes = sum(found.st_size for found in (*objects, *results) if found.st_mtime >= since)
    return Traffic(
        radiographs_per_day=len(times) / days,
        bytes_each=recent_bytes / len(times),
        kept_bytes=sum(found.st_size for found in (*objects, *results)),
    )


def _files(area: Path) -> list[os.stat_result]:
    found = []
    for path in area.glob("*/*.dcm"):
        with suppress(FileNotFoundError):  # retention was faster
            found.append(path.stat())
    return found
