"""Folders whose own names survive a power cut: a file in one must not be answered for before that. Knows no spool."""

from __future__ import annotations

import os
import threading
from pathlib import Path

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
