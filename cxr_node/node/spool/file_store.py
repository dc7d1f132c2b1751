"""A folder of the local disk as the store: one machine. A part is renamed to what is stored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cxr_node.errors import ResourceError
from cxr_node.node.spool import disk
from cxr_node.node.spool.part import Part, from_nanoseconds
from cxr_node.node.spool.store import Found


class FileStore:
    """Files below a folder, each named as it is called.

    Raises
    ------
    ResourceError : the folder cannot be made.
    """

    writers = 4
    takes_files = True

    def __init__(self, folder: Path, areas: tuple[str, ...]) -> None:
        self.folder = folder
        self._areas = areas
        with disk.faults():
            for area in areas:
                (folder / area).mkdir(mode=0o700, exist_ok=True)

    def prepare(self) -> None:
        """Create all folders for objects at once, so that no sender waits for one."""
        with disk.faults():
            disk.make_hex_folders(self.folder / self._areas[0])

    def put(self, name: str, part: Part, at: datetime, *, replace: bool = False) -> datetime:
        """Make the bytes durable, then the name: fsync, rename, fsync of the folder."""
        target = self.folder / name
        with disk.faults():
            disk.make_folder(target.parent)
            if not replace:
                with suppress(FileNotFoundError):
                    at = from_nanoseconds(target.stat().st_mtime_ns)
            part.date(at)
            part.sync()
            try:
                part.move(target)
            except FileNotFoundError as error:
                disk.forget_folder(target.parent)
                raise ResourceError("spool: one of its folders was deleted") from error
            disk.sync(target.parent)
        return at

    def get(self, name: str) -> bytes:
        """Read a file."""
        try:
            with disk.faults():
                return (self.folder / name).read_bytes()
        except FileNotFoundError:
            self._require(name)
            raise

    def exists(self, name: str) -> Found | None:
        """Look at a file."""
        try:
            with disk.faults():
                found = (self.folder / name).stat()
        except FileNotFoundError:
            self._require(name)
            return None
        return Found(
            size_bytes=found.st_size, at=from_nanoseconds(found.st_mtime_ns), placed_at_s=found.st_ctime
        )  # of the name: the kernel sets it, and the file's own time may be any

    def list(self, prefix: str) -> Iterator[str]:
        """Walk through folders."""
        above, _, start = prefix.rpartition("/")
        try:
            with disk.faults():
                found = sorted((entry.name, entry.is_dir()) for entry in os.scandir(self.folder / above))
        except FileNotFoundError:
            self._require(prefix)
            return
        for name, is_folder in found:
            if not name.startswith(start):
                continue
            if is_folder:
                yield from self.list(f"{above}/{name}/")
            else:
                yield f"{above}/{name}"

    def delete(self, name: str) -> None:
        """Delete a file."""
        with disk.faults():
            (self.folder / name).unlink(missing_ok=True)

    def _require(self, name: str) -> None:
        """Tell a missing file from a disk that is not there."""
        if not (self.folder / name.partition("/")[0]).is_dir():
            raise ResourceError("spool: its folders are not there")
