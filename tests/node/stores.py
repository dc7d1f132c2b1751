"""Stores of every kind for the contract suite: each can be opened many times, damaged, and taken away."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cxr_node.node.spool.file_store import FileStore
from cxr_node.node.spool.part import Part
from cxr_node.node.spool.share_store import ShareStore
from cxr_node.node.spool.spool import Area, Spool
from cxr_node.node.spool.store import Store

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AREAS = tuple(Area)


class Folder:
    """A folder of this machine, or one that stands for a share."""

    def __init__(self, place: Path, kind: str) -> None:
        self.kind = kind
        self.place = place
        self.folder = place / "store"
        self.local = place / "local"
        for path in (self.folder, self.local):
            path.mkdir(mode=0o700)

    def open(self) -> Store:
        """As one more process sees it."""
        return FileStore(self.folder, AREAS) if self.kind == "file" else ShareStore(self.folder, AREAS)

    def configured(self) -> dict[str, Any]:
        """The key `spool.store`."""
        return {"kind": "file"} if self.kind == "file" else {"kind": "posix", "path": str(self.folder)}

    def spool(self) -> Spool:
        """A node's spool on it."""
        return Spool(self.folder if self.kind == "file" else self.local, store=self.open())

    def part(self, content: bytes) -> Part:
        """A part of that content; on the same disk, where it becomes what is stored."""
        part = Part(self.folder if self.kind == "file" else self.local, is_final=self.kind == "file")
        part.write(content)
        return part

    def damage(self, name: str, content: bytes) -> None:
        """Change what is stored, past the store."""
        (self.folder / name).write_bytes(content)

    def names(self) -> list[str]:
        """All that is there, past the store."""
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Not there for a while."""
        elsewhere = self.place / "elsewhere"
        self.folder.rename(elsewhere)
        self.folder.mkdir()  # the mount point
        yield
        self.folder.rmdir()
        elsewhere.rename(self.folder)


def name_of(content: bytes, area: Area = Area.OBJECTS) -> str:
    """The name of content."""
    digest = hashlib.sha256(content).hexdigest()
    return f"{area}/{digest[:2]}/{digest}.dcm"
