"""A log file that was moved away: after SIGHUP the process writes into a new file of the old name.

The node itself writes to stderr. Where a shell sent that into a file (`serve 2>> node.log`), logrotate renames the file
and signals; without reopening, all later lines would follow the renamed file.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_STREAMS = (1, 2)
"""stdout and stderr."""
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class _Stream:
    number: int
    path: Path
    mode: int


class LogFiles:
    """The files that stdout and stderr were sent into when the process began."""

    def __init__(self) -> None:
        self._streams = [stream for number in _STREAMS if (stream := _file_behind(number)) is not None]

    def reopen(self) -> bool:
        """Write on into a new file where the old one bears another name now, and tell whether one did."""
        moved = [stream for stream in self._streams if _is_moved(stream)]
        opened: list[Path] = []
        for stream in moved:
            try:
                _reopen(stream)
                opened.append(stream.path)
            except OSError as error:
                log.error("SIGHUP: the log file cannot be opened again, the old one stays in use: %s", error.strerror)
        if opened:
            log.info("SIGHUP: the log file was moved away and is opened again")
        elif not moved:
            log.info("SIGHUP is ignored: no log file was moved away, and the configuration is read at the start only")
        return bool(opened)


def on_hangup(then: Callable[[], None] | None = None) -> Callable[[], None]:
    """Make what SIGHUP does in this process; `then` is called after a file was opened again."""
    files = LogFiles()

    def hang_up() -> None:
        if files.reopen() and then is not None:
            then()

    return hang_up


def _file_behind(number: int) -> _Stream | None:
    """The regular file that a descriptor writes to, if it still bears the name it was opened under."""
    try:
        found, path = os.fstat(number), Path(f"/proc/self/fd/{number}").readlink()
        named = path.lstat()
    except OSError:  # closed, or deleted, or no /proc
        return None
    if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) != (named.st_dev, named.st_ino):
        return None
    return _Stream(number, path, stat.S_IMODE(found.st_mode))


def _is_moved(stream: _Stream) -> bool:
    written = os.fstat(stream.number)
    try:
        named = stream.path.lstat()
    except OSError:
        return True
    return (written.st_dev, written.st_ino) != (named.st_dev, named.st_ino)


def _reopen(stream: _Stream) -> None:
    file = os.open(stream.path, _FLAGS, stream.mode)
    try:
        os.dup2(file, stream.number, inheritable=True)
    finally:
        os.close(file)
