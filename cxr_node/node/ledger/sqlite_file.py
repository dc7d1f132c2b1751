"""The SQLite file of a ledger: whether it is damaged, and how it is set aside, never deleted."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

from cxr_node.errors import ResourceError
from cxr_node.node.spool.disk import sync

log = logging.getLogger(__name__)

FULL_CHECK_BYTES = 512 * 1024 * 1024
"""Up to here the full check: 1.9 s for the 286 MiB of 100,000 images. Beyond, quick_check, which leaves the indexes
out and takes 0.6 s for the same."""
_LOCKED_S = 15.0
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PRIMARY = 0xFF  # of an extended result code


def set_damaged_aside(file: Path, now: datetime) -> Path | None:
    """Set a damaged file aside, under the caller's lock; returns its new path, None if it is intact.

    A process that still has it open notices at its next transaction and ends (`Database.require_whole`).

    Raises
    ------
    ResourceError : the file cannot be read or renamed, which is not damage.
    """
    damage = find_damage(file)
    if damage is None:
        return None
    aside = set_aside(file, now)
    log.error("ledger damaged cause=%r set_aside=%s", damage, aside.name)
    return aside


def find_damage(file: Path) -> str | None:
    """First fault of an SQLite file; None if it is intact, empty or missing."""
    if not file.exists():
        return None
    full = file.stat().st_size <= FULL_CHECK_BYTES
    try:
        with closing(sqlite3.connect(file, timeout=_LOCKED_S)) as connection:
            (found,) = connection.execute(f"PRAGMA {'integrity' if full else 'quick'}_check(1)").fetchone()
    except sqlite3.Error as error:
        if tells_damage(error):
            return str(error)
        raise ResourceError(f"ledger: {type(error).__name__}: {error}") from error
    return None if found == "ok" else str(found).splitlines()[-1]


def tells_damage(error: object) -> bool:
    """Whether a driver error means that the file is damaged."""
    return kind(error) in _DAMAGE


def kind(error: object) -> int:
    """SQLite's result code of a fault, without its details; 0 where it is none of SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY if isinstance(error, sqlite3.Error) else 0


def set_aside(file: Path, now: datetime, why: str = "damaged") -> Path:
    """Rename the file with its log, the log first: SQLite deletes a log whose file is empty."""
    aside = file.with_name(f"{file.name}.{why}-{now:%Y%m%dT%H%M%S.%fZ}")
    try:
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                file.with_name(file.name + suffix).rename(aside.with_name(aside.name + suffix))
        file.touch(mode=0o600)
        sync(file.parent)
    except OSError as error:
        raise ResourceError(f"ledger: cannot be set aside: {error.strerror}") from error
    return aside
