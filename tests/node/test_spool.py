"""What the spool promises of bytes on disk."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cxr_node.errors import ResourceError
from cxr_node.node.spool import disk
from cxr_node.node.spool.spool import Area, Spool, SpoolCorruptError

CONTENT = b"not a radiograph" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def kept(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def receive(kept: Spool, content: bytes = CONTENT, received_at: datetime = NOON) -> str:
    part = kept.begin()
    for start in range(0, len(content), 1000):
        part.write(content[start : start + 1000])
    return kept.store_object(part, received_at).sha256


def test_an_object_comes_back_as_it_came(kept: Spool) -> None:
    assert receive(kept) == SHA256
    assert kept.read(Area.OBJECTS, SHA256) == CONTENT
    file = kept.locate(Area.OBJECTS, SHA256)
    assert file == kept.path / "objects" / SHA256[:2] / f"{SHA256}.dcm"
    assert file.stat().st_mtime == NOON.timestamp()
    assert list(kept.digests(Area.OBJECTS)) == [SHA256]
    assert not list((kept.path / "incoming").iterdir())


def test_only_the_owner_may_look(kept: Spool) -> None:
    receive(kept)
    kept.store_result(CONTENT)
    modes = {path: path.stat().st_mode & 0o777 for path in [kept.path, *kept.path.rglob("*")]}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items())


def test_the_first_receipt_counts(kept: Spool) -> None:
    receive(kept)
    receive(kept, received_at=datetime(2026, 3, 2, tzinfo=UTC))
    assert kept.locate(Area.OBJECTS, SHA256).stat().st_mtime == NOON.timestamp()


def test_a_repeat_heals_a_damaged_file(kept: Spool) -> None:
    receive(kept)
    kept.locate(Area.OBJECTS, SHA256).write_bytes(b"bit rot")
    receive(kept)
    assert kept.read(Area.OBJECTS, SHA256) == CONTENT


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(CONTENT[:-1]),
        lambda file: file.write_bytes(CONTENT[:-1] + b"?"),
    ],
    ids=["missing", "empty", "truncated", "changed"],
)
def test_damage_is_noticed(kept: Spool, damage: Callable[[Path], Any]) -> None:
    kept.store_result(CONTENT)
    damage(kept.locate(Area.RESULTS, SHA256))
    with pytest.raises(SpoolCorruptError):
        kept.read(Area.RESULTS, SHA256)


def test_the_name_is_durable_before_the_object_is_stored(kept: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real_sync, real_rename = os.fsync, Path.rename

    def sync(file: int) -> None:
        steps.append(f"fsync {Path(f'/proc/self/fd/{file}').readlink().suffix or 'folder'}")
        real_sync(file)

    def rename(source: Path, target: Path) -> Path:
        steps.append("rename")
        return real_rename(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", rename)
    receive(kept)
    assert steps == ["fsync folder", "fsync .part", "rename", "fsync folder"]  # the first: a new folder's own name


@pytest.mark.parametrize("failing", ["write", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_full_or_broken_disk_leaves_nothing(
    kept: Spool, monkeypatch: pytest.MonkeyPatch, failing: str, code: int
) -> None:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(ResourceError):
            kept.store_result(CONTENT)
    assert not [path for path in kept.path.rglob("*") if path.is_file()]


def test_the_watermark(tmp_path: Path) -> None:
    free_mib = Spool(tmp_path).free_bytes() // 2**20
    assert Spool(tmp_path, min_free_mib=1).has_room()
    assert not Spool(tmp_path, min_free_mib=free_mib * 2).has_room()


def test_a_path_is_made_of_digests_only(kept: Spool) -> None:
    for name in ("../../etc/passwd", "", "A" * 64, "1.2.840.10008"):
        with pytest.raises(ValueError, match="sha256"):
            kept.locate(Area.OBJECTS, name)


def test_a_note_on_a_result_goes_with_it(kept: Spool) -> None:
    digest = kept.store_result(CONTENT).sha256
    assert kept.noted(digest, "pacs") == ""
    kept.note(digest, "pacs", "1")
    kept.note(digest, "../other", "2")
    kept.note(digest, "pacs", "3")
    assert (kept.noted(digest, "pacs"), kept.noted(digest, "../other")) == ("3", "2")
    assert list(kept.digests(Area.RESULTS)) == [digest]
    kept.store_result(CONTENT)  # the same bytes again
    assert kept.noted(digest, "pacs") == "3"
    kept.delete(Area.RESULTS, digest)
    assert not [path for path in kept.path.rglob("*") if path.is_file()]


def test_retention_may_delete_twice(kept: Spool) -> None:
    receive(kept)
    kept.delete(Area.OBJECTS, SHA256)
    kept.delete(Area.OBJECTS, SHA256)
    assert list(kept.digests(Area.OBJECTS)) == []


def test_the_unfinished_files_of_the_dead_are_swept_and_those_of_the_living_are_not(kept: Spool) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    writer = context.Process(target=_begin_and_wait, args=(kept.path, there))
    writer.start()
    theirs = here.recv()
    mine = kept.begin()
    assert kept.sweep() == 0
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    assert kept.sweep() == 1
    assert not theirs.exists()
    mine.write(CONTENT)
    assert kept.store_object(mine, NOON).sha256 == SHA256
    here.close()
    there.close()


def _begin_and_wait(folder: Path, pipe: Any) -> None:
    part = Spool(folder).begin()
    part.write(b"half")
    pipe.send(part.path)
    pipe.recv()


def test_nobody_stores_in_a_new_folder_before_its_name_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread has made the folder and waits for the disk: the other's file is not safe before."""
    made, go_on = threading.Event(), threading.Event()
    sync = disk.sync

    def slow(folder: Path) -> None:
        if folder.name == "objects":
            made.set()
            assert go_on.wait(10)
        sync(folder)

    monkeypatch.setattr(disk, "sync", slow)
    folder = tmp_path / "objects" / "ab"
    folder.parent.mkdir()
    first = threading.Thread(target=disk.make_folder, args=(folder,))
    second = threading.Thread(target=disk.make_folder, args=(folder,))
    first.start()
    assert made.wait(10)
    second.start()
    second.join(0.2)
    assert folder.is_dir()
    assert second.is_alive()
    go_on.set()
    first.join(10)
    second.join(10)
    assert not second.is_alive()


def test_a_sweep_takes_no_file_of_a_living_writer(tmp_path: Path) -> None:
    """Every process sweeps when it starts, also in the moment between a name and its lock."""
    kept, done = Spool(tmp_path), threading.Event()

    def sweep() -> None:
        while not done.is_set():
            kept.sweep()

    threads = [threading.Thread(target=sweep) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        stored = [kept.store_result(bytes([number]) * 100) for number in range(200)]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert all(kept.read(Area.RESULTS, file.sha256) for file in stored)
