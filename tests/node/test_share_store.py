"""A share as the store: in which order it writes, and what a machine that dies in the middle leaves."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config import loader
from cxr_node.errors import ConfigError
from cxr_node.node.spool.opening import open_spool
from cxr_node.node.spool.part import Part
from cxr_node.node.spool.share_store import ShareStore
from cxr_node.node.spool.spool import Area
from tests.node.stores import AREAS, NOON, Folder, name_of

CONTENT = b"not a radiograph" * 1000


def test_the_name_comes_after_the_bytes_and_is_durable_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, link, rename, unlink = os.fsync, Path.hardlink_to, Path.rename, Path.unlink

    def noted(word: str, step: Any) -> Any:
        return lambda *given, **more: (steps.append(word), step(*given, **more))[1]

    def synced(file: int) -> None:
        steps.append(f"fsync {Path(f'/proc/self/fd/{file}').readlink().suffix or 'folder'}")
        sync(file)

    place = Folder(tmp_path, "posix")
    store, parts = place.open(), [place.part(CONTENT) for _ in range(2)]
    store.prepare()
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "hardlink_to", noted("link", link))
    monkeypatch.setattr(Path, "rename", noted("rename", rename))
    monkeypatch.setattr(Path, "unlink", noted("unlink", unlink))
    store.put(name_of(CONTENT), parts[0], NOON)
    assert steps == ["fsync .part", "link", "fsync folder", "unlink"]
    steps.clear()
    store.put(name_of(CONTENT), parts[1], NOON)
    assert steps == ["fsync .part", "link", "fsync .part", "rename", "fsync folder", "unlink"]
    monkeypatch.undo()
    for part in parts:
        part.discard()


def _write(folder: Path, local: Path, pipe: Any) -> None:
    store = ShareStore(folder, AREAS)
    pipe.send("begins")
    for number in range(10_000):
        content = bytes([number % 256]) * 3_000_000
        part = Part(local, is_final=False)
        part.write(content)
        store.put(f"objects/{part.sha256[:2]}/{part.sha256}.dcm", part, NOON)
        part.discard()


@pytest.mark.parametrize("after_s", [0.02, 0.05, 0.11])
def test_a_killed_writer_leaves_nothing_that_a_reader_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_s: float
) -> None:
    place, context = Folder(tmp_path, "posix"), multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    writer = context.Process(target=_write, args=(place.folder, place.local, there))
    writer.start()
    there.close()
    assert here.recv() == "begins"
    time.sleep(after_s)
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    here.close()
    store = place.open()
    for name in store.list("objects/"):
        assert hashlib.sha256(store.get(name)).hexdigest() in name
    store.prepare()
    left = [name for name in place.names() if name.startswith("incoming/")]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 90_000)
    store.prepare()
    assert [name for name in place.names() if name.startswith("incoming/")] == []
    assert len(left) <= 1


def test_a_living_writer_of_another_machine_keeps_its_part(tmp_path: Path) -> None:
    """Nobody's lock is asked: it is younger than a day."""
    place = Folder(tmp_path, "posix")
    part = place.folder / "incoming"
    place.open()
    (part / "other.part").write_bytes(b"half")
    os.utime(part / "other.part", (0, 0))  # dated as what it becomes
    place.open().prepare()
    assert place.names() == ["incoming/other.part"]


def test_a_share_that_is_not_mounted_stops_the_node(tmp_path: Path) -> None:
    mount = tmp_path / "share"
    mount.mkdir(mode=0o700)
    store = {"kind": "posix", "path": str(mount / "cxr")}
    settings = loader.parse({"spool": {"path": str(tmp_path / "spool"), "store": store}})
    with pytest.raises(ConfigError, match=r"spool\.store\.path: .*/share/cxr is not there; mount the share"):
        open_spool(settings.spool)
    assert list(mount.iterdir()) == []


def test_a_configured_share_is_used_and_the_rest_stays_here(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir(mode=0o755)
    store = {"kind": "posix", "path": str(share)}
    settings = loader.parse({"spool": {"path": str(tmp_path / "spool"), "min_free_mib": 7, "store": store}})
    spool = open_spool(settings.spool)
    spool.store_result(CONTENT)
    assert spool.min_free_bytes == 7 * 2**20
    assert [path.name for path in (tmp_path / "spool").iterdir() if path.name in (*Area, "cache")] == []
    assert (share / name_of(CONTENT, Area.RESULTS)).read_bytes() == CONTENT
    assert share.stat().st_mode & 0o777 == 0o700, "patients' images were open to others"
