"""What `check` and `doctor` say of a store that several machines share: each property that is missing is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.diagnose import disk, store
from cxr_node.diagnose.thresholds import CheckResult, Verdict


def section(folder: Path, share: Path) -> Any:
    given = {"path": str(folder / "spool"), "store": {"kind": "posix", "path": str(share)}}
    return loader.parse({"spool": given}).spool


@pytest.fixture
def share(tmp_path: Path) -> Path:
    path = tmp_path / "share"
    path.mkdir(mode=0o700)
    return path


def found(folder: Path, share: Path) -> dict[str, CheckResult]:
    results = list(store.examine(section(folder, share)))
    assert all(bool(result.advice) == (result.verdict is not Verdict.WELL) for result in results)
    assert list(share.iterdir()) == [], "the trial is left"
    return {result.subject: result for result in results}


def test_a_good_share_is_well_in_all_but_that_it_is_this_machines(tmp_path: Path, share: Path) -> None:
    results = found(tmp_path, share)
    assert set(results) >= {subject for subject, *_ in store.PROPERTIES} | {"store put", "store clock", "store locks"}
    assert {name for name, result in results.items() if result.verdict is not Verdict.WELL} <= {"store", "store put"}
    assert "other machines" in results["store"].advice
    assert list(store.examine(loader.parse({"spool": {"path": str(tmp_path)}}).spool)) == []


def _no(*_: object, **__: object) -> None:
    raise OSError(95, os.strerror(95))


def _overwrites(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(target.read_bytes())


def _rounds(path: Any, ns: tuple[int, int], real: Callable[..., None] = os.utime) -> None:
    real(path, ns=(ns[0] // 10**9 * 10**9,) * 2)


def _copies(path: Path, target: Path) -> Path:
    target.write_bytes(path.read_bytes())
    path.unlink()
    return target


@pytest.mark.parametrize(
    ("subject", "where", "what", "instead"),
    [
        ("store fsync of a file", os, "fsync", _no),
        ("store fsync of a folder", store, "sync", _no),
        ("store link", Path, "hardlink_to", _no),
        ("store link", Path, "hardlink_to", _overwrites),
        ("store rename", Path, "rename", _copies),
        ("store times", os, "utime", _rounds),
    ],
)
def test_a_share_that_does_not_do_what_it_must(
    tmp_path: Path, share: Path, monkeypatch: pytest.MonkeyPatch, subject: str, where: Any, what: str, instead: Any
) -> None:
    monkeypatch.setattr(where, what, instead)
    (result,) = (each for each in store.examine(section(tmp_path, share)) if each.subject == subject)
    assert (result.verdict, result.advice) == (Verdict.STOP, "use NFS 4.1 or later, or CephFS")


@pytest.mark.parametrize(
    ("kind", "options", "verdict", "word"),
    [
        ("nfs4", "rw,vers=4.2,hard,lookupcache=pos", Verdict.WELL, ""),
        ("ceph", "rw", Verdict.WELL, ""),
        ("nfs4", "rw,vers=4.2,soft,lookupcache=pos", Verdict.CHANGE, "mount it hard"),
        ("nfs", "rw,vers=3,hard,lookupcache=pos", Verdict.CHANGE, "vers=4.1"),
        ("nfs4", "rw,vers=4.0,hard,lookupcache=pos", Verdict.CHANGE, "vers=4.1"),
        ("nfs4", "rw,vers=4.1,hard", Verdict.CHANGE, "lookupcache=positive"),
        ("tmpfs", "rw", Verdict.STOP, "power cut"),
    ],
)
def test_a_mount(
    share: Path, monkeypatch: pytest.MonkeyPatch, kind: str, options: str, verdict: Verdict, word: str
) -> None:
    class Mount:
        mountpoint, fstype, opts = str(share), kind, options

    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [Mount])  # noqa: A006 - psutil's own word
    result = store._mount(share)
    assert (result.verdict, word in result.advice) == (verdict, True)
    assert disk.kind(share) == kind


def checked(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    file = folder / "node.yaml"
    file.write_text(yaml.safe_dump({"spool": {"path": str(folder / "spool"), "store": given}, "listen": {"port": 0}}))
    shown = CliRunner().invoke(app, ["check", "--json", "-c", str(file)])
    (line,) = [line for line in map(json.loads, shown.stdout.splitlines()) if line["subject"] == "store"]
    return dict(line)


def test_check_says_in_a_sentence_what_is_wrong(tmp_path: Path, share: Path) -> None:
    line = checked(tmp_path, {"kind": "posix", "path": str(share)})
    assert (line["ok"], "writable" in line["sentence"]) == (True, True)
    assert list(share.iterdir()) == [], "check changes nothing"
    line = checked(tmp_path, {"kind": "posix", "path": str(share / "cxr")})
    assert (line["ok"], line["fault"]) == (False, "file")
    assert line["sentence"].endswith("is not there; mount the share, or make the folder on it")
    line = checked(tmp_path, {"kind": "s3", "bucket": "node", "credentials": str(tmp_path / "nowhere")})
    assert (line["ok"], line["fault"]) == (False, "file")
    assert line["sentence"].endswith("nowhere: cannot be read: No such file or directory")
