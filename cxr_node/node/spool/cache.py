"""What was stored or read last, on this machine's disk: whoever needs it next need not fetch it. Nothing rests on it.

Bounded in bytes and in minutes: what an operator erases on another machine is gone here soon after.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from cxr_node.errors import ResourceError
from cxr_node.node.spool import disk
from cxr_node.node.spool.part import Part

LONGEST_S = 600.0
"""How long anything stays, and at most twice as long: a study's images are read again for its report, minutes later."""
_SHARE = 1 / 16
"""Of its bytes: how much one process adds before it looks at them all."""


class Cache:
    """Files in one folder; any number of processes may share it."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._grown_bytes = 0
        with disk.faults():
            folder.mkdir(mode=0o700, exist_ok=True)

    def get(self, name: str) -> bytes | None:
        """Read it, every byte checked: a power cut may have left half of it."""
        path = self._path(name)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content).hexdigest() != path.stem:
            self.drop(name)
            return None
        return content

    def take(self, name: str, part: Part) -> None:
        """Keep a part whose bytes are stored; where that fails, its owner discards it."""
        if part.size_bytes <= self._max_bytes:
            with suppress(FileNotFoundError, ResourceError):
                part.move(self._path(name))
                self._grow(part.size_bytes)

    def keep(self, name: str, content: bytes) -> None:
        """Keep what was fetched; a full disk keeps nothing."""
        if len(content) > self._max_bytes:
            return
        with suppress(FileNotFoundError, ResourceError):
            part = Part(self._folder, is_final=False)
            try:
                part.write(content)
                part.move(self._path(name))
            finally:
                part.discard()
            self._grow(len(content))

    def drop(self, name: str) -> None:
        """Forget it."""
        with suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def trim(self) -> None:
        """Delete what is old, and the oldest of what is too much."""
        found, kept_bytes = [], 0
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                with suppress(FileNotFoundError):
                    found.append((entry.stat(), entry.path))
        before = time.time() - LONGEST_S
        for status, path in sorted(found, key=lambda each: -each[0].st_mtime):
            kept_bytes += status.st_size
            if status.st_mtime < before or kept_bytes > self._max_bytes:
                with suppress(OSError):
                    Path(path).unlink(missing_ok=True)

    def _grow(self, nr_bytes: int) -> None:
        """Trim now and then, and once more when the last of it is old."""
        with self._lock:
            self._grown_bytes += nr_bytes
            is_due = self._grown_bytes > _SHARE * self._max_bytes
            if is_due:
                self._grown_bytes = 0
            if self._timer is None or not self._timer.is_alive():
                self._timer = threading.Timer(2 * LONGEST_S, self.trim)
                self._timer.daemon = True
                self._timer.start()
        if is_due:
            self.trim()

    def _path(self, name: str) -> Path:
        area, _, file = name.partition("/")
        return self._folder / f"{file.rpartition('/')[2].removesuffix('.dcm')}.{area}"
