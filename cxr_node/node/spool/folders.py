"""Folders whose own names survive a power cut: a file in one must not be answered for before that. Knows no spool."""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from pathlib import Path


def create(folder: Path) -> tuple[int, Path]:
    """Open a new file for writing, under a name of its own, and hold its lock.

    Between creation and lock another process's sweep may find it and take it for an orphan: then another is made.

    Raises
    ------
    OSError : the disk is full, gone or broken.
    """
    while True:
        path = folder / f"{secrets.token_hex(16)}.part"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file).st_nlink:
                return file, path
        except BlockingIOError:
            pass
        except OSError:
            os.close(file)
            raise
        os.close(file)


def remove(path: Path) -> bool:
    """Take a file away; False where its writer lives, or the file is gone already.

    Raises
    ------
    OSError : the disk is gone or broken.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(file)


_MAKING = threading.Lock()
"""Held while a folder is made: another thread's file in it waits until the folder is durable."""
_MADE: set[Path] = set()
"""Folders that this process has made or found; who finds one finds it durable."""


def make(folder: Path) -> None:
    """Make a folder, durably.

    Raises
    ------
    OSError : the disk is full, gone or broken.
    """
    if folder in _MADE:
        return
    with _MAKING:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            sync(folder.parent)
        _MADE.add(folder)


def make_all(parent: Path) -> None:
    """Make the folders 00 to ff with one wait for the disk, so that no sender waits for one of them."""
    with _MAKING:
        folders = [parent / f"{number:02x}" for number in range(256)]
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)
        sync(parent)  # also of those that were there: who made them may have been killed before
        _MADE.update(folders)


def forget(folder: Path) -> None:
    """Somebody has taken it away: the next one makes it anew."""
    _MADE.discard(folder)


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
