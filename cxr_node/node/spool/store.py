"""Where finished bytes are: five verbs, which a folder, a share and an object store answer alike.

A name is `area/ab/<sha256>.dcm`, or that of a note beside it. What a name stands for never changes but for notes and
for the time of an object, so a put that is repeated is harmless, and a reader finds all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cxr_node.node.spool.part import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a store holds under a name."""

    size_bytes: int
    at: datetime
    """The time that the first put gave it."""
    placed_at_s: float
    """When the name was last put, by the store's clock, since 1970."""


class Store(Protocol):
    """Holds bytes under names; any number of processes may share it.

    Raises
    ------
    ResourceError : from every verb, where the store is full, away or broken: it never says then that a name is missing.
    """

    writers: int
    """Puts at a time; more do not make it faster, but every one of them slower."""
    takes_files: bool
    """A part itself becomes what is stored; else a copy of it."""

    def prepare(self) -> None:
        """Make ready, before the first object is accepted.

        Raises
        ------
        ConfigError : there is no such store, it refuses this node, or it does not do what it must.
        """
        ...

    def put(self, name: str, part: Part, at: datetime, *, replace: bool = False) -> datetime:
        """Put if absent; its bytes and its name are durable when this returns, and the part is over.

        A name that is there has the same bytes: they are renewed, and its time is kept. With `replace` it gets what is
        put, and its time (a note says something else; an object that came again after its retention).

        Returns
        -------
        The time that it has: that of the first put.
        """
        ...

    def get(self, name: str) -> bytes:
        """Read all of it. Raises FileNotFoundError where there is nothing of that name."""
        ...

    def exists(self, name: str) -> Found | None:
        """Look it up; None where there is nothing of that name."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Walk over the names that begin so, in order; those put or deleted meanwhile may be among them or not."""
        ...

    def delete(self, name: str) -> None:
        """Delete; a missing one is not an error."""
        ...
