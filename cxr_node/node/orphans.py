"""Files whose writer died: a writer holds a lock on its file as long as it lives, and the kernel frees a dead one's."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


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
