"""Waking a process of the same node without polling: one datagram to a socket in the spool.

A lost notification costs nothing: the ledger is the truth, and a waiting process polls it now and then anyway.
So notifying never fails and never blocks. Knows no ledger.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path

from cxr_node.errors import ResourceError

START = "CXR_NODE_START"
"""Environment variable that names a start of the node to processes that begin with it; restarted, they have none."""


class Role(StrEnum):
    """Which process waits."""

    WORK = "work"
    DELIVER = "deliver"


class Wakeup:
    """A socket that wakes its owner, one thread; others find it by its name, `run/<role>-<pid>-<random>.sock`."""

    def __init__(self, spool_path: Path, role: Role) -> None:
        self._folder = spool_path / "run"
        self._name = f"{role}-{os.getpid()}-{secrets.token_hex(4)}.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _short_paths(self._folder) as folder:
                self._socket.bind(str(folder / self._name))
        except OSError as error:
            self._socket.close()
            raise ResourceError(f"wake-up socket: {error.strerror}") from error

    def wait(self, timeout_s: float) -> bool:
        """Sleep until notified; True if so. Earlier notifications count as one."""
        heard, _, _ = select.select([self._socket], [], [], max(0.0, timeout_s))
        if heard:
            with suppress(BlockingIOError):
                while True:
                    self._socket.recv(1)
        return bool(heard)

    def fileno(self) -> int:
        """For a select of the owner's."""
        return self._socket.fileno()

    def close(self) -> None:
        """Remove the socket."""
        self._socket.close()
        (self._folder / self._name).unlink(missing_ok=True)


def listens(spool_path: Path, role: Role) -> bool:
    """Whether a process of this role is ready for work (or died without cleaning up)."""
    return any((spool_path / "run").glob(f"{role}-*.sock"))


def notify(spool_path: Path, role: Role) -> int:
    """Wake all processes of that role; returns how many. Sockets of dead processes are removed."""
    folder = spool_path / "run"
    woken = 0
    with suppress(OSError):
        sockets = [path for path in folder.iterdir() if path.name.startswith(f"{role}-") and path.suffix == ".sock"]
        if sockets:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, _short_paths(folder) as short:
                sender.setblocking(False)
                for path in sockets:
                    woken += _notify_one(sender, path, short / path.name)
    return woken


def _notify_one(sender: socket.socket, path: Path, short: Path) -> bool:
    try:
        sender.sendto(b"\0", str(short))
    except BlockingIOError:
        return True  # its queue is full: it will wake
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)  # bound by a process that is dead
        return False
    except OSError:
        return False
    return True


@contextmanager
def _short_paths(folder: Path) -> Iterator[Path]:
    """Give a folder a name that fits a socket address (108 bytes), however deep it lies."""
    file = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
