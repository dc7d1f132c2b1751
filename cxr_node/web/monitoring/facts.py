"""What metrics and alerts look at beside the ledger: disk, certificates, audit trail, profiles; and how often."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

from cxr_node import resources
from cxr_node.config import permissions
from cxr_node.config.http import AnyTls
from cxr_node.config.schema import Config
from cxr_node.config.storage import PosixStore
from cxr_node.diagnose import certificates
from cxr_node.errors import ConfigError, ModelError
from cxr_node.model import profile
from cxr_node.node.audit import trail
from cxr_node.node.audit.recorder import trail_folder

Value = TypeVar("Value")
REST = 20.0
"""A reading is repeated after so many times what it took: at a million rows too, five per cent of one core."""


class Paced(Generic[Value]):
    """A reading that keeps its last value for a while. Its caller holds a lock where threads share it."""

    def __init__(self, read: Callable[[], Value], least_s: float = 0.0) -> None:
        self._read = read
        self._least_s = least_s
        self._due_at = float("-inf")

    def __call__(self) -> Value:
        """The last value, or a new one where it is time for that."""
        started = time.monotonic()
        if started >= self._due_at:
            self._value = self._read()
            ended = time.monotonic()
            self._due_at = ended + max(self._least_s, REST * (ended - started))
        return self._value


def free_bytes(config: Config) -> int:
    """Of the spool's file system."""
    return shutil.disk_usage(config.spool.path).free


def store_free_bytes(config: Config) -> int | None:
    """Of a share that holds what is stored; None where it is on the spool's file system, or in a bucket."""
    store = config.spool.store
    return shutil.disk_usage(store.path).free if isinstance(store, PosixStore) else None


def watermark_bytes(config: Config) -> int:
    """Below this a C-STORE is refused."""
    return config.spool.min_free_mib * 1024 * 1024


def certificate_ends(config: Config) -> dict[str, datetime]:
    """When the first certificate of each role ends: those that the node shows, with their chains, and the CA's.

    Raises
    ------
    ConfigError : a file cannot be read, or holds none.
    """
    return {role: min(_ends(files)) for role, files in _sides(config)}


def _sides(config: Config) -> Iterator[tuple[str, tuple[Path, ...]]]:
    collector = config.audit.syslog.tls if config.audit.syslog else None
    sides: list[tuple[str, AnyTls | None]] = [("listen", config.listen.tls), ("audit", collector)]
    sides += [(f"destination-{destination.name}", destination.tls_files) for destination in config.destinations]
    sides += [(f"worklist-{worklist.name}", worklist.tls) for worklist in config.worklists]
    for role, shown in sides:
        named = (shown.certificate, shown.ca) if shown is not None else ()
        if files := tuple(file for file in named if file is not None):
            yield role, files
    if config.web is not None and config.web.tls is not None:
        yield "web", (config.web.tls.certificate,)


def _ends(files: Iterable[Path]) -> Iterator[datetime]:
    for file in files:
        yield from (found.ends_at for found in certificates.read(permissions.place(file)))


def backlog(config: Config) -> trail.Backlog | None:
    """What the collector of audit messages does not have; None where there is no collector."""
    if not config.audit.enabled or config.audit.syslog is None:
        return None
    return trail.backlog(trail_folder(config))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFacts:
    """One configured profile."""

    name: str
    version: str
    weights_sha256: str
    abstention: tuple[float, float] | None
    """Share of UNCERTAIN that its own evaluation predicts, a 95 % interval; None where it has none."""


def profiles(config: Config) -> list[ProfileFacts]:
    """Read the profiles, and the candidate, which may be live; what cannot be read is left out: the worker says so."""
    found = []
    beside = [] if config.model.candidate is None else [config.model.candidate]
    for name in (config.model.profile, *config.model.others, *beside):
        with suppress(ConfigError, ModelError):
            folder = resources.profile_folder(name)
            described = profile.described_in(folder)
            weights = described.sha256.get("weights.safetensors", "")
            band = None
            with suppress(OSError, ValueError, LookupError, TypeError):
                answered = json.loads((folder / "metrics.json").read_text("utf-8"))["predicted"]["answered"]
                band = 1.0 - float(answered["high"]), 1.0 - float(answered["low"])
            facts = ProfileFacts(
                name=described.name, version=described.version, weights_sha256=weights, abstention=band
            )
            found.append(facts)
    return found
