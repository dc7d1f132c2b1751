"""Compiled graphs, kept from one start to the next: to compile takes three times as long as to read what was compiled.

A convenience and nothing more: a graph that is not there, not whole or not ours is compiled again, and each start tries
its network on the golden inputs, wherever it came from. Knows no runtime.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

from blake3 import blake3

log = logging.getLogger(__name__)

_SUFFIX = ".graph"
_FORGOTTEN_AFTER_S = 30 * 86400.0
"""A graph that no start has read for so long is of a version, a processor or a profile that is gone."""
_DIGEST_BYTES = 32


def name_of(*told: object) -> str:
    """Name a compiled graph after all that it depends on."""
    return sha256(repr(told).encode()).hexdigest()


def read(name: str) -> bytes | None:
    """What was kept under a name; None: nothing, or something else than was written."""
    folder = _folder()
    if folder is None or not _is_ours(folder):
        return None
    path = folder / (name + _SUFFIX)
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    digest, graph = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if blake3(graph).digest() == digest:
        return graph
    log.warning("%s is damaged; its graph is compiled again", path)
    return None


def keep(name: str, graph: bytes) -> None:
    """Keep a graph for the next start, where that is possible; and forget those that nobody reads."""
    if (folder := _folder()) is None:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(folder):
            return
        with NamedTemporaryFile(dir=folder, prefix=".", delete=False) as file:
            try:
                file.write(blake3(graph).digest() + graph)
                file.flush()
                Path(file.name).replace(folder / (name + _SUFFIX))
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        for path in folder.iterdir():
            if time.time() - path.stat().st_mtime > _FORGOTTEN_AFTER_S:
                path.unlink()
    except OSError as error:
        log.debug("a compiled graph is not kept in %s: %s", folder, error.strerror)


def _folder() -> Path | None:
    """Where systemd says (`CacheDirectory=`), else where the user's caches are (XDG Base Directory Specification)."""
    if given := os.environ.get("CACHE_DIRECTORY"):
        return Path(given) / "graphs"
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "cxr-node" / "graphs"
    with suppress(RuntimeError):  # a user without a home
        return Path.home() / ".cache" / "cxr-node" / "graphs"
    return None


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can write there: what is read there is run."""
    try:
        found = folder.stat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022
