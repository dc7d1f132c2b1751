"""The audit trail on disk: one append-only file per process, a line per message, durable before it is sent anywhere.

Knows no XML and no network. Layout of the folder, readable by its owner only:

    <start>-<role>-<random>.log     a writer's segment; the writer holds a lock on it as long as it lives
    cursor.json                     how far the collector has each segment
    forward.lock                    held by the one process that forwards

The trail is bounded: a segment is deleted when it is old and the collector has it, or when all of them together
are larger than they may be, then the oldest first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cxr_node.errors import ConfigError, ResourceError
from cxr_node.node.spool.disk import remove_unlocked, sync

log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 * 1024 * 1024
_DAY_S = 86400.0
_CURSOR = "cursor.json"
_OPERATORS_FAULT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailFolder:
    """The folder, and how much may lie in it."""

    folder: Path
    keep_days: float
    max_bytes: int
    is_collected: bool
    """True where a collector is configured: what it does not have yet is kept as long as there is room."""

    def make(self) -> None:
        """Make the folder.

        Raises
        ------
        ConfigError : it cannot be made or written. ResourceError : the disk is full, gone or broken.
        """
        try:
            for folder in (self.folder.parent, self.folder):  # the spool may not be there yet
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _fault(error, self.folder) from error
        if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            raise ConfigError(f"audit.folder: {self.folder} is not writable for this user")

    def segments(self) -> list[Path]:
        """Name the segments, in the order of their beginning."""
        return sorted(self.folder.glob("*.log"))

    def cursor(self) -> dict[str, int]:
        """How many bytes of each segment the collector has; an unreadable cursor sends everything again."""
        try:
            content = json.loads((self.folder / _CURSOR).read_text())
            return {str(name): int(offset) for name, offset in content.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError):
            log.warning("audit cursor unreadable, everything is sent again")
            return {}

    def move_cursor(self, offsets: Mapping[str, int]) -> None:
        """Remember durably what the collector has; segments that are gone are forgotten.

        Raises
        ------
        ResourceError : the disk is full, gone or broken.
        """
        kept = {path.name: offsets[path.name] for path in self.segments() if path.name in offsets}
        temporary = self.folder / f".{_CURSOR}"
        try:
            with temporary.open("w") as file:
                json.dump(kept, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / _CURSOR)
            sync(self.folder)
        except OSError as error:
            raise _fault(error, self.folder) from error

    def sweep(self) -> None:
        """Delete what is old and collected, and whatever is too much."""
        cursor = self.cursor() if self.is_collected else {}
        sizes = {path: _size(path) for path in self.segments()}
        total = sum(sizes.values())
        before = time.time() - self.keep_days * _DAY_S
        for path, size in sizes.items():
            has_gone = not self.is_collected or next(_lines(path, cursor.get(path.name, 0)), None) is None
            if not (total > self.max_bytes or (has_gone and _modified_at(path) < before)):
                continue
            if not remove_unlocked(path) and path.exists():
                continue
            total -= size
            if not has_gone:
                log.error("audit messages deleted uncollected segment=%s: audit.max_mib is reached", path.name)


class Segments:
    """What one process appends to; one thread at a time."""

    def __init__(self, trail: TrailFolder, role: str) -> None:
        self._trail = trail
        self._role = role
        self._file = -1
        self._size = 0
        trail.make()

    def append(self, lines: Sequence[bytes]) -> None:
        """Make messages durable: one write, one fsync. All of them, or none.

        Raises
        ------
        ResourceError : the disk is full, gone or broken.
        """
        content = b"".join(line + b"\n" for line in lines)
        try:
            if self._file < 0 or self._size + len(content) > SEGMENT_BYTES or os.fstat(self._file).st_nlink == 0:
                self._begin()
            try:
                _write(self._file, content)
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, self._size)
                raise
        except OSError as error:
            raise _fault(error, self._trail.folder, is_running=True) from error
        self._size += len(content)

    def close(self) -> None:
        """End the segment: from now on it may be deleted when its time has come."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _begin(self) -> None:
        self.close()
        self._trail.make()
        self._trail.sweep()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        path = self._trail.folder / f"{stamp}-{self._role}-{secrets.token_hex(4)}.log"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._size = 0
        sync(self._trail.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Messages that the collector has not, in their order, and where the cursor stands once it has them."""

    lines: tuple[bytes, ...]
    offsets: Mapping[str, int]


def next_batch(trail: TrailFolder, offsets: Mapping[str, int], max_bytes: int) -> Batch:
    """Read on, segment by segment, whole lines only; at least one line where there is one."""
    lines: list[bytes] = []
    moved, room = dict(offsets), max_bytes
    for path in trail.segments():
        for line, end in _lines(path, moved.get(path.name, 0)):
            if lines and len(line) > room:
                return Batch(lines=tuple(lines), offsets=moved)
            lines.append(line)
            room -= len(line)
            moved[path.name] = end
    return Batch(lines=tuple(lines), offsets=moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What the collector does not have yet."""

    nr_bytes: int
    since: datetime | None
    """When the first of it was written, as its own head says (RFC 5424 6.2.3); None where the collector has all."""


def backlog(trail: TrailFolder) -> Backlog:
    """Look what waits for the collector."""
    cursor = trail.cursor()
    nr_bytes = sum(max(0, _size(path) - cursor.get(path.name, 0)) for path in trail.segments())
    first = next_batch(trail, cursor, 1).lines
    return Backlog(nr_bytes=nr_bytes, since=_written_at(first[0]) if first else None)


def _written_at(line: bytes) -> datetime | None:
    with contextlib.suppress(ValueError, IndexError):
        return datetime.fromisoformat(line.split(b" ", 2)[1].decode("ascii"))
    return None


def _lines(path: Path, offset: int) -> Iterator[tuple[bytes, int]]:
    """Whole lines behind an offset, each with the offset of its end; a segment just deleted has none."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return  # being written, or torn when its writer died
            offset += len(line)
            yield line[:-1], offset


def _write(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _modified_at(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _fault(error: OSError, folder: Path, is_running: bool = False) -> ConfigError | ResourceError:
    """Whose fault it is: before the node runs, a folder that may not be written is the operator's."""
    if error.errno in _OPERATORS_FAULT and not is_running:
        return ConfigError(f"audit.folder: {folder}: {error.strerror}")
    cause = "full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
    return ResourceError(f"audit: {cause}")
