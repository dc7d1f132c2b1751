"""What a local disk is asked for: locked files, durable folders, and the errors of both in the node's words."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr_node.errors import ResourceError

MIB = 1024 * 1024
_MAKING = threading.Lock()
"""Held while a folder is created, so that files in it wait until it is durable."""
_MADE: set[Path] = set()
"""Folders that this process has made or found, all of them durable."""


@contextmanager
def faults() -> Iterator[None]:
    """Translate OS errors; a missing file is left to the caller."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        cause = "full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise ResourceError(f"spool: {cause}") from error


def create_locked(folder: Path) -> tuple[int, Path]:
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


def remove_unlocked(path: Path) -> bool:
    """Delete a file; False if its writer lives, or the file is gone already.

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


def make_folder(folder: Path) -> None:
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


def make_hex_folders(parent: Path) -> None:
    """Make the folders 00 to ff with one wait for the disk, so that no sender waits for one of them."""
    with _MAKING:
        folders = [parent / f"{number:02x}" for number in range(256)]
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)
        sync(parent)  # existing ones too: their maker may have been killed before its fsync
        _MADE.update(folders)


def forget_folder(folder: Path) -> None:
    """It was deleted: the next caller makes it again."""
    _MADE.discard(folder)


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
