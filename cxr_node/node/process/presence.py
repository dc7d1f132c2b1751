"""Which roles of the node run, since when, and when they last gave a sign of life; seen from any other process.

A role holds a lock on a file in the spool. The kernel opens it when the process dies, however it dies, so neither
kill -9 nor a process number that is given again can deceive; what stands in the file only says since when.
Knows no ledger.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from cxr_node.node.process.supervisor import Notifier

log = logging.getLogger(__name__)

ROLES = ("receive", "work", "deliver")
SIGN_EVERY_S = 15.0
_SUFFIX = ".alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleState:
    """One role, whichever processes do it."""

    running: bool
    processes: int
    since: datetime | None
    """When it became ready, or, where it does not run, ended; None where it never ran with this spool."""
    in_order: bool
    """It ended as it was asked to; where it was killed, `since` is its last sign of life."""
    seen_at: datetime | None
    """When its main loop last came round, to `SIGN_EVERY_S`."""


class Presence(Notifier):
    """Tells the service manager, and every process that looks into the spool, how this one fares.

    What cannot be written is not told: no role ends for it.
    """

    def __init__(self, spool_path: Path, role: str) -> None:
        super().__init__()
        self._folder, self._role = spool_path / "run", role
        self._file: int | None = None
        self._signed_at = float("-inf")
        self._told: dict[str, str | int] = {"pid": os.getpid()}

    def ready(self) -> None:
        """The process does its work from now on."""
        if self._file is None:
            with self._forgiving():
                self._appear()
        super().ready()

    def progress(self) -> None:
        """The main loop has come round once more."""
        super().progress()
        if self._file is not None and (now := time.monotonic()) - self._signed_at >= SIGN_EVERY_S:
            self._signed_at = now
            with self._forgiving():
                os.utime(self._file)

    def close(self) -> None:
        """The process ends as it was asked to."""
        if self._file is not None:
            with self._forgiving():
                self._tell(ended_at=_now())
            os.close(self._file)
            self._file = None

    def _appear(self) -> None:
        """Lock the file before anybody can see it; what dead processes of the role left is taken away."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        dead = [path for path in _files(self._folder, self._role) if not _is_held(path)]
        path = self._folder / f"{self._role}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        hidden = path.with_suffix(".new")
        self._file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._tell(ready_at=_now())
        hidden.rename(path)
        for each in dead:
            each.unlink(missing_ok=True)

    def _tell(self, **more: str) -> None:
        self._told |= more
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(self._told).encode(), 0)

    def _forgiving(self) -> suppress:
        return suppress(OSError)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not issubclass(kind, Exception):
            self.close()
        elif self._file is not None:  # it died of a fault: the file says so by what it does not say
            os.close(self._file)
            self._file = None


def look(spool_path: Path) -> dict[str, RoleState]:
    """Tell of each role."""
    return {role: _state(spool_path / "run", role) for role in ROLES}


def _state(folder: Path, role: str) -> RoleState:
    alive: list[tuple[datetime | None, datetime]] = []
    ended: list[tuple[datetime, bool]] = []
    for path in _files(folder, role):
        with suppress(OSError):
            held, told = _is_held(path), _read(path)
            seen_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            if held:
                alive.append((told.get("ready_at"), seen_at))
            else:
                ended.append((told.get("ended_at") or seen_at, "ended_at" in told))
    if alive:
        begun = [at for at, _ in alive if at is not None]
        since, seen = min(begun, default=None), max(seen_at for _, seen_at in alive)
        return RoleState(running=True, processes=len(alive), since=since, in_order=True, seen_at=seen)
    at, in_order = max(ended, default=(None, True), key=lambda one: one[0])
    return RoleState(running=False, processes=0, since=at, in_order=in_order, seen_at=at)


def _files(folder: Path, role: str) -> Iterator[Path]:
    with suppress(OSError):
        yield from folder.glob(f"{role}-*{_SUFFIX}")


def _is_held(path: Path) -> bool:
    """Whether a living process holds it; False where it is gone."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _read(path: Path) -> dict[str, datetime]:
    """Times of the file; without those that cannot be read, as of one that is just being written."""
    try:
        told = json.loads(path.read_text("utf-8"))
        return {name: datetime.fromisoformat(at) for name, at in told.items() if name.endswith("_at")}
    except (ValueError, AttributeError, TypeError):
        return {}


def _now() -> str:
    return datetime.now(UTC).isoformat()
