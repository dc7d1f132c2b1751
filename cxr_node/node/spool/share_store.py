"""A folder that several machines share (NFS 4.1, CephFS) as the store. A part is copied to it, and gets its name there.

Relies on: fsync of a file and of a folder, link(2) that refuses a name that is there, rename(2) that replaces one at
once, and times to the microsecond. Relies on no lock: what a dead writer left is known by its age.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cxr_node.config import permissions
from cxr_node.errors import ConfigError, ResourceError
from cxr_node.node.spool import disk
from cxr_node.node.spool.file_store import FileStore
from cxr_node.node.spool.part import Part, from_nanoseconds, nanoseconds

_INCOMING = "incoming"
_ABANDONED_AFTER_S = 86_400.0
"""No put takes a day: the part of one that did belongs to a machine that died."""


class ShareStore(FileStore):
    """Files below a folder of a share, each named as it is called.

    Raises
    ------
    ConfigError : the folder is not there, or it is open to others and cannot be closed.
    ResourceError : the share cannot be used.
    """

    writers = 16
    takes_files = False

    def __init__(self, folder: Path, areas: tuple[str, ...]) -> None:
        if not folder.is_dir():  # never made: on a machine without the mount it would be a folder of the wrong disk
            raise ConfigError(f"spool.store.path: {folder} is not there; mount the share, or make the folder on it")
        permissions.close(folder, (_INCOMING, *areas))
        super().__init__(folder, (*areas, _INCOMING))

    def prepare(self) -> None:
        """As for a local folder; and delete what dead writers left."""
        super().prepare()
        before = time.time() - _ABANDONED_AFTER_S
        with disk.faults():
            for path in (self.folder / _INCOMING).glob("*.part"):
                with suppress(FileNotFoundError):  # another machine was faster
                    if path.stat().st_ctime < before:
                        path.unlink()

    def put(self, name: str, part: Part, at: datetime, *, replace: bool = False) -> datetime:
        """Make a copy durable, then the name: fsync, link or, where that is there, rename, fsync of the folder."""
        target = self.folder / name
        copied = self.folder / _INCOMING / f"{secrets.token_hex(16)}.part"
        try:
            with disk.faults():
                disk.make_folder(target.parent)
                try:
                    _copy(part.path, copied, at)
                    if replace or not _link(copied, target):
                        at = at if replace else _date_as(copied, target, at)
                        copied.rename(target)
                    disk.sync(target.parent)
                finally:
                    copied.unlink(missing_ok=True)
        except FileNotFoundError as error:
            disk.forget_folder(target.parent)
            raise ResourceError("spool: one of its folders is not there") from error
        return at


def _copy(source: Path, target: Path, at: datetime) -> None:
    file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as read, os.fdopen(file, "wb") as written:
        shutil.copyfileobj(read, written, disk.MIB)
        written.flush()
        _date(file, at)


def _date(file: int, at: datetime) -> None:
    since = nanoseconds(at)
    os.utime(file, ns=(since, since))
    os.fsync(file)


def _link(path: Path, target: Path) -> bool:
    """Give a file a second name; False if the name is there."""
    try:
        target.hardlink_to(path)
        return True
    except FileExistsError:
        return False


def _date_as(path: Path, target: Path, at: datetime) -> datetime:
    """Take over the time of what is to be replaced, where it is still there."""
    with suppress(FileNotFoundError):
        at = from_nanoseconds(target.stat().st_mtime_ns)
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _date(file, at)
    finally:
        os.close(file)
    return at
