"""Bytes on disk that survive a power cut: received objects and result objects, named by their sha256.

Knows no DICOM and no ledger. Layout below the spool folder, all of it readable by its owner only:

    incoming/<random>.part      being written; the writer holds a lock on it as long as it lives
    objects/ab/<sha256>.dcm     received; the file's time is the time of receipt
    results/ab/<sha256>.dcm     made here
    priors/ab/<sha256>.dcm      earlier radiographs, fetched for the report of a study; nobody sent them
    .../<sha256>.<digest>.note  next to a received or made object: what a rebuilt ledger must not forget of it
    run/                        wake-up sockets and locks
    audit/                      the audit trail, unless it is configured elsewhere (`audit.trail`)

Names never come from outside: no UID of a peer is ever part of a path.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cxr_node.config import permissions
from cxr_node.errors import InstanceError, ResourceError

_WRITE_BYTES = 256 * 1024
"""Of one call of the system: 7.5 MB at once took 15 ms on ext4, and in pieces of this size 1.7 ms (measured)."""
MIB = 1024 * 1024
_MAKING = threading.Lock()
"""Held while a folder is created, so that files in it wait until it is durable."""
_MADE: set[Path] = set()
"""Folders that this process has made or found, all of them durable."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Area(StrEnum):
    """Where finished files live."""

    OBJECTS = "objects"
    RESULTS = "results"
    PRIORS = "priors"


OWN_NAMES = ("incoming", *Area, "run", "audit")
"""Folders of a spool."""


class SpoolCorruptError(InstanceError):
    """The bytes in the spool are not those that were stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file whose bytes and name are on stable storage."""

    sha256: str
    size_bytes: int


class Part:
    """A file that is being written; one thread at a time. It is stored whole or discarded, never half."""

    def __init__(self, folder: Path) -> None:
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        with _disk():
            self._file, self.path = create_locked(folder)

    def write(self, content: bytes | memoryview) -> None:
        """Append.

        Raises
        ------
        ResourceError : the disk is full, gone or broken.
        """
        self._digest.update(content)
        self._append(content)

    def fill(self, content: bytes) -> None:
        """As `write`, for the whole content, with fsync; another core computes the digest meanwhile."""
        with ThreadPoolExecutor(1, "digest") as thread:
            thread.submit(self._digest.update, content)
            self._append(content)
            with _disk():
                os.fsync(self._file)

    def _append(self, content: bytes | memoryview) -> None:
        rest = memoryview(content)
        self.size_bytes += len(rest)
        with _disk():
            while rest:
                rest = rest[os.write(self._file, rest[:_WRITE_BYTES]) :]

    def discard(self) -> None:
        """Delete the file, if it was not stored."""
        if self._file >= 0:
            self.path.unlink(missing_ok=True)
            self._close()

    def store(self, folder: Path, modified_at: datetime | None = None) -> StoredFile:
        """Make the bytes durable, then the name: fsync, rename, fsync of the folder.

        A file of that name already there has the same bytes; its time is kept, its bytes are renewed.
        """
        stored = StoredFile(sha256=self._digest.hexdigest(), size_bytes=self.size_bytes)
        target = _place(folder, stored.sha256)
        with _disk():
            make_folder(target.parent)
            with suppress(FileNotFoundError):
                modified_ns = target.stat().st_mtime_ns
                os.utime(self._file, ns=(modified_ns, modified_ns))
                modified_at = None
            if modified_at is not None:
                os.utime(self._file, ns=_nanoseconds(modified_at))
            self.settle(target)
        return stored

    def settle(self, target: Path) -> None:
        """Make the bytes durable under a name."""
        with _disk():
            os.fsync(self._file)
            try:
                self.path.rename(target)
            except FileNotFoundError as error:
                forget_folder(target.parent)
                raise ResourceError("spool: one of its folders was deleted") from error
            self._close()
            sync(target.parent)

    def _close(self) -> None:
        file, self._file = self._file, -1
        os.close(file)


class Spool:
    """The folders of one node; any number of processes may share them.

    Raises
    ------
    ConfigError : the folder is open to others and cannot be closed.
    ResourceError : from every method, where the disk is full, gone or broken.
    """

    def __init__(self, path: Path, min_free_mib: int = 0) -> None:
        self.path = path
        self.min_free_bytes = min_free_mib * MIB
        with _disk():
            permissions.close(path, OWN_NAMES)
            for folder in (path, *(path / name for name in OWN_NAMES)):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def lay_out(self) -> None:
        """Create all folders for objects at once, so that no sender waits for one."""
        with _disk():
            make_hex_folders(self.path / Area.OBJECTS)

    def free_bytes(self) -> int:
        """Count the bytes that may still be written, those for the superuser left out."""
        with _disk():
            disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def has_room(self) -> bool:
        """Whether the disk is above the watermark."""
        return self.free_bytes() >= self.min_free_bytes

    def begin(self) -> Part:
        """Open a file to be written."""
        return Part(self.path / "incoming")

    def store_object(self, part: Part, received_at: datetime) -> StoredFile:
        """Store a received object; its file keeps the time of the first receipt."""
        return part.store(self.path / Area.OBJECTS, received_at)

    def store_result(self, content: bytes) -> StoredFile:
        """Store a result object."""
        part = self.begin()
        try:
            (part.fill if len(content) >= MIB else part.write)(content)
            return part.store(self.path / Area.RESULTS)
        finally:
            part.discard()

    def store_prior(self, part: Part) -> StoredFile:
        """Store an earlier radiograph."""
        return part.store(self.path / Area.PRIORS)

    def locate(self, area: Area, sha256: str) -> Path:
        """Name the file of a digest; it need not exist."""
        return _place(self.path / area, sha256)

    def read(self, area: Area, sha256: str) -> bytes:
        """Read a stored file and check every byte of it.

        Raises
        ------
        SpoolCorruptError : the file is missing, truncated or changed.
        """
        content = self.load(area, sha256)
        self.require_whole(area, sha256, content)
        return content

    def load(self, area: Area, sha256: str) -> bytes:
        """As `read`, unchecked: `require_whole` comes before anything is made of it."""
        try:
            with _disk():
                return self.locate(area, sha256).read_bytes()
        except FileNotFoundError as error:
            raise SpoolCorruptError(f"{area}/{sha256[:12]} is missing in the spool") from error

    @staticmethod
    def require_whole(area: Area, sha256: str, content: bytes) -> None:
        """Refuse what was truncated or changed since it was stored: SpoolCorruptError."""
        if hashlib.sha256(content).hexdigest() != sha256:
            raise SpoolCorruptError(f"{area}/{sha256[:12]} does not have the bytes that were stored")

    def received_at(self, sha256: str) -> datetime:
        """When an object was first received, to the microsecond, as its results repeat it.

        Raises FileNotFoundError where it is not there.
        """
        with _disk():
            modified_ns = self.locate(Area.OBJECTS, sha256).stat().st_mtime_ns
        return _EPOCH + timedelta(microseconds=round(modified_ns / 1000))

    def date(self, sha256: str, received_at: datetime) -> None:
        """Restore the time of first receipt of an object that came again after its retention."""
        with _disk():
            file = os.open(self.locate(Area.OBJECTS, sha256), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.utime(file, ns=_nanoseconds(received_at))
                os.fsync(file)
            finally:
                os.close(file)

    def note(self, sha256: str, about: str, words: str, area: Area = Area.RESULTS) -> None:
        """Keep a note next to a file, so that it outlives the ledger; deleted with the file."""
        part = self.begin()
        try:
            part.write(words.encode())
            part.settle(self._note(sha256, about, area))
        finally:
            part.discard()

    def noted(self, sha256: str, about: str, area: Area = Area.RESULTS) -> str:
        """Read such a note; "" if there is none."""
        try:
            with _disk():
                return self._note(sha256, about, area).read_text()
        except FileNotFoundError:
            return ""

    def delete(self, area: Area, sha256: str) -> None:
        """Delete a file and its notes; a missing file is not an error."""
        path = self.locate(area, sha256)
        with _disk():
            for note in path.parent.glob(f"{sha256}.*.note"):
                note.unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def digests(self, area: Area) -> Iterator[str]:
        """Walk over what is stored."""
        for folder in sorted((self.path / area).iterdir()):
            for file in sorted(folder.glob("*.dcm")):
                yield file.stem

    def _note(self, sha256: str, about: str, area: Area) -> Path:
        name = hashlib.sha256(about.encode()).hexdigest()[:16]  # of any length and any character
        return self.locate(area, sha256).with_suffix(f".{name}.note")

    def sweep(self) -> int:
        """Delete the unfinished files of dead writers; returns how many."""
        swept = 0
        with _disk():
            for path in (self.path / "incoming").glob("*.part"):
                swept += remove_unlocked(path)
        return swept


def _place(folder: Path, sha256: str) -> Path:
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ValueError("a file of the spool is named by a sha256")
    return folder / sha256[:2] / f"{sha256}.dcm"


def _nanoseconds(at: datetime) -> tuple[int, int]:
    """Times of access and change for a file; not by way of a float, which loses the last microsecond."""
    since = (at - _EPOCH) // timedelta(microseconds=1) * 1000
    return since, since


@contextmanager
def _disk() -> Iterator[None]:
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
