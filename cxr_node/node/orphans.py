"""Files whose writer died: a writer holds a lock on its file as long as it lives, and the kernel frees a dead one's."""

from __future__ import annotations

import fcntl
import os
import secrets
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
