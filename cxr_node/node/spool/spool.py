"""Objects, results and notes, named by their sha256, in a store; and the files of one machine that go with them.

Knows no DICOM and no ledger. Layout below the spool folder, all of it readable by its owner only:

    incoming/<random>.part      being written; the writer holds a lock on it as long as it lives
    run/                        wake-up sockets and locks
    audit/                      the audit trail, unless it is configured elsewhere (`audit.trail`)
    cache/                      copies of what is in a bucket; `cache`

and in the store, which is the same folder where nothing else is configured:

    objects/ab/<sha256>.dcm     received; its time is that of the first receipt
    results/ab/<sha256>.dcm     made here
    priors/ab/<sha256>.dcm      earlier radiographs, fetched for the report of a study; nobody sent them
    .../<sha256>.<digest>.note  next to a received or made object: what a rebuilt ledger must not forget of it

Names never come from outside: no UID of a peer is ever part of a path.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from cxr_node.config import permissions
from cxr_node.errors import InstanceError
from cxr_node.node.spool import disk
from cxr_node.node.spool.disk import MIB
from cxr_node.node.spool.file_store import FileStore
from cxr_node.node.spool.part import Part
from cxr_node.node.spool.store import Store


class Area(StrEnum):
    """What is stored."""

    OBJECTS = "objects"
    RESULTS = "results"
    PRIORS = "priors"


_LOCAL = ("incoming", "run", "audit")
OWN_NAMES = (*_LOCAL, *Area)
"""Folders of a spool."""


class SpoolCorruptError(InstanceError):
    """The bytes in the spool are not those that were stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """Something whose bytes and name are on stable storage."""

    sha256: str
    size_bytes: int
    at: datetime
    """When it was stored first; of an object, when it was first received."""


class Spool:
    """What one node keeps; any number of processes may share it.

    Parameters
    ----------
    path : a folder of this machine's disk
    min_free_mib : watermark of that disk
    store : where finished bytes are; None: in that folder

    Raises
    ------
    ConfigError : the folder is open to others and cannot be closed.
    ResourceError : from every method, where the disk or the store is full, gone or broken.
    """

    def __init__(self, path: Path, min_free_mib: int = 0, store: Store | None = None) -> None:
        self.path = path
        self.min_free_bytes = min_free_mib * MIB
        make_folders(path)
        self.store = store or FileStore(path, tuple(Area))

    def free_bytes(self) -> int:
        """Count the bytes that may still be written, those for the superuser left out."""
        with disk.faults():
            found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def has_room(self) -> bool:
        """Whether the disk is above the watermark."""
        return self.free_bytes() >= self.min_free_bytes

    def begin(self) -> Part:
        """Open a file to be written."""
        return Part(self.path / "incoming", is_final=self.store.takes_files)

    def store_object(self, part: Part, received_at: datetime) -> StoredFile:
        """Store a received object; it keeps the time of the first receipt."""
        return self._store(part, Area.OBJECTS, received_at)

    def store_result(self, content: bytes) -> StoredFile:
        """Store a result object."""
        part = self.begin()
        try:
            (part.fill if len(content) >= MIB else part.write)(content)
            return self._store(part, Area.RESULTS, datetime.now(UTC))
        finally:
            part.discard()

    def store_prior(self, part: Part) -> StoredFile:
        """Store an earlier radiograph."""
        return self._store(part, Area.PRIORS, datetime.now(UTC))

    def _store(self, part: Part, area: Area, at: datetime) -> StoredFile:
        sha256 = part.sha256
        first = self.store.put(_name(area, sha256), part, at)
        return StoredFile(sha256=sha256, size_bytes=part.size_bytes, at=first)

    def locate(self, area: Area, sha256: str) -> Path:
        """Name the file of a digest, where the store is this machine's folder; it need not exist."""
        return self.path / _name(area, sha256)

    @contextmanager
    def as_file(self, area: Area, sha256: str) -> Iterator[Path]:
        """A file with the bytes, for as long as it is read; unchecked, as `load`."""
        if isinstance(self.store, FileStore):
            yield self.store.folder / _name(area, sha256)
            return
        part = self.begin()
        try:
            part.write(self.load(area, sha256))
            yield part.path
        finally:
            part.discard()

    def read(self, area: Area, sha256: str) -> bytes:
        """Read what is stored and check every byte of it.

        Raises
        ------
        SpoolCorruptError : it is missing, truncated or changed.
        """
        content = self.load(area, sha256)
        self.require_whole(area, sha256, content)
        return content

    def load(self, area: Area, sha256: str) -> bytes:
        """As `read`, unchecked: `require_whole` comes before anything is made of it."""
        try:
            return self.store.get(_name(area, sha256))
        except FileNotFoundError as error:
            raise SpoolCorruptError(f"{area}/{sha256[:12]} is missing in the spool") from error

    @staticmethod
    def require_whole(area: Area, sha256: str, content: bytes) -> None:
        """Refuse what was truncated or changed since it was stored: SpoolCorruptError."""
        if hashlib.sha256(content).hexdigest() != sha256:
            raise SpoolCorruptError(f"{area}/{sha256[:12]} does not have the bytes that were stored")

    def has(self, area: Area, sha256: str) -> bool:
        """Whether it is stored."""
        return self.store.exists(_name(area, sha256)) is not None

    def placed_before(self, area: Area, sha256: str, at_s: float) -> bool:
        """Whether it was last stored before a time, in seconds since 1970; False where it is gone."""
        found = self.store.exists(_name(area, sha256))
        return found is not None and found.placed_at_s < at_s

    def received_at(self, sha256: str) -> datetime | None:
        """When an object was first received, to the microsecond, as its results repeat it; None where it is gone."""
        found = self.store.exists(_name(Area.OBJECTS, sha256))
        return None if found is None else found.at

    def date(self, sha256: str, received_at: datetime) -> None:
        """Restore the time of first receipt of an object that came again after its retention."""
        name = _name(Area.OBJECTS, sha256)
        part = self.begin()
        try:
            part.write(self.store.get(name))
            self.store.put(name, part, received_at, replace=True)
        finally:
            part.discard()

    def note(self, sha256: str, about: str, words: str, area: Area = Area.RESULTS) -> None:
        """Keep a note next to a file, so that it outlives the ledger; deleted with the file."""
        part = self.begin()
        try:
            part.write(words.encode())
            self.store.put(_note(area, sha256, about), part, datetime.now(UTC), replace=True)
        finally:
            part.discard()

    def noted(self, sha256: str, about: str, area: Area = Area.RESULTS) -> str:
        """Read such a note; "" if there is none."""
        try:
            return self.store.get(_note(area, sha256, about)).decode()
        except FileNotFoundError:
            return ""

    def delete(self, area: Area, sha256: str) -> None:
        """Delete a file and its notes; a missing file is not an error."""
        name = _name(area, sha256)
        for each in self.store.list(name.removesuffix("dcm")):
            if each != name:
                self.store.delete(each)
        self.store.delete(name)

    def digests(self, area: Area) -> Iterator[str]:
        """Walk over what is stored."""
        for name in self.store.list(f"{area}/"):
            if name.endswith(".dcm"):
                yield name.rpartition("/")[2].removesuffix(".dcm")

    def sweep(self) -> int:
        """Delete the unfinished files of dead writers; returns how many."""
        swept = 0
        with disk.faults():
            for path in (self.path / "incoming").glob("*.part"):
                swept += disk.remove_unlocked(path)
        return swept


def make_folders(path: Path) -> None:
    """Make what of a spool is on this machine whatever the store is, or close it to others.

    Raises
    ------
    ConfigError : it is open to others and cannot be closed.
    ResourceError : the disk is full, gone or broken.
    """
    with disk.faults():
        permissions.close(path, OWN_NAMES)
        for folder in (path, *(path / name for name in _LOCAL)):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _name(area: Area, sha256: str) -> str:
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ValueError("a file of the spool is named by a sha256")
    return f"{area}/{sha256[:2]}/{sha256}.dcm"


def _note(area: Area, sha256: str, about: str) -> str:
    digest = hashlib.sha256(about.encode()).hexdigest()[:16]  # of any length and any character
    return f"{_name(area, sha256).removesuffix('dcm')}{digest}.note"
