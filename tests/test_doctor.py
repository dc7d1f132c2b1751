"""What each figure of a machine means for the node: every verdict from injected figures, and one machine as it is."""

from __future__ import annotations

import configparser
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.config.schema import Listen, SpoolSection
from cxr_node.diagnose import doctor, machine, thresholds
from cxr_node.diagnose.disk import Disk, Traffic
from cxr_node.diagnose.machine import Clock, Confinement, Limits, Memory, Processor
from cxr_node.diagnose.thresholds import GIB, CheckResult, Verdict
from cxr_node.dicom.pixels.codecs import Trial
from cxr_node.errors import ResourceError

UNITS = Path(__file__).parent.parent / "systemd"
DISK = Disk(
    folder=Path("/var/lib/cxr-node"),
    kind="ext4",
    store_ms=(4.0,) * 47 + (20.0,) * 3,
    free_bytes=400 * GIB,
    free_inodes=10_000_000,
    clock_ahead_s=0.001,
    sqlite_version="3.51.3",
    journal_mode="wal",
)
SPOOL = SpoolSection(path=Path("/var/lib/cxr-node"))
BUSY = Traffic(radiographs_per_day=500.0, bytes_each=20 * 1024**2, kept_bytes=50 * GIB)


def only(results: Iterable[CheckResult], subject: str) -> CheckResult:
    (found,) = (result for result in results if result.subject == subject)
    assert bool(found.advice) == (found.verdict is not Verdict.WELL)
    assert len(found.advice) <= 160
    return found


def test_a_good_disk_is_well_in_all() -> None:
    assert {result.verdict for result in thresholds.disk(DISK, SPOOL, trial=False)} == {Verdict.WELL}


@pytest.mark.parametrize(
    ("subject", "figures", "verdict", "word"),
    [
        ("file system", {"kind": "nfs4"}, Verdict.STOP, "over a network"),
        ("file system", {"kind": "cifs"}, Verdict.STOP, "over a network"),
        ("file system", {"kind": "fuse.sshfs"}, Verdict.STOP, "over a network"),
        ("file system", {"kind": "tmpfs"}, Verdict.STOP, "power cut"),
        ("file system", {"kind": "overlay"}, Verdict.CHANGE, "mount a volume"),
        ("file system", {"kind": "9p"}, Verdict.CHANGE, "local disk"),
        ("file system", {"kind": "xfs"}, Verdict.WELL, ""),
        ("durable write", {"store_ms": (4.0,) * 40 + (80.0,) * 10}, Verdict.CHANGE, "slow answers"),
        ("durable write", {"store_ms": (0.1,) * 50}, Verdict.CHANGE, "too fast to be true"),
        ("durable write", {"store_ms": (6000.0,) * 50}, Verdict.STOP, "time out"),
        ("free space", {"free_bytes": GIB}, Verdict.STOP, "0xA700"),
        ("free space", {"free_bytes": 10 * GIB}, Verdict.CHANGE, "larger disk"),
        ("free space", {"traffic": BUSY}, Verdict.WELL, ""),
        ("free space", {"traffic": BUSY, "free_bytes": 100 * GIB}, Verdict.CHANGE, "spool.retention_days: 12"),
        ("inodes", {"free_inodes": 5000}, Verdict.CHANGE, "create the file system with more inodes"),
        ("inodes", {"free_inodes": 10}, Verdict.STOP, "make room"),
        ("disk's clock", {"clock_ahead_s": -5.0}, Verdict.CHANGE, "synchronise"),
        ("SQLite", {"journal_mode": "delete"}, Verdict.STOP, "local disk"),
        ("SQLite", {"sqlite_version": "3.34.1"}, Verdict.STOP, "3.51.3"),
        ("SQLite", {"sqlite_version": "3.51.2"}, Verdict.CHANGE, "3.51.3"),
        ("SQLite", {"sqlite_version": "3.50.6"}, Verdict.CHANGE, "3.51.3"),
        ("SQLite", {"sqlite_version": "3.50.7"}, Verdict.WELL, ""),
        ("SQLite", {"sqlite_version": "3.53.0"}, Verdict.WELL, ""),
    ],
)
def test_a_disk(subject: str, figures: dict[str, object], verdict: Verdict, word: str) -> None:
    measured = replace(DISK, **figures)  # type: ignore[arg-type]  # fields by name, from the table above
    found = only(thresholds.disk(measured, SPOOL, trial=False), subject)
    assert (found.verdict, word in found.advice) == (verdict, True)


def test_room_is_told_in_radiographs_and_in_days() -> None:
    assumed = only(thresholds.disk(DISK, SPOOL, trial=False), "free space")
    assert "17024 radiographs of 24 MiB" in assumed.figure  # (400 - 1) GiB / 24 MiB
    measured = replace(DISK, free_bytes=100 * GIB, traffic=BUSY)
    told = only(thresholds.disk(measured, SPOOL, trial=False), "free space")
    assert "15 days of 500 radiographs, 20.0 MiB each" in told.figure  # (99 + 50) GiB / 9.77 GiB a day


def test_a_disk_that_is_only_at_hand_is_no_verdict_on_the_spool_s() -> None:
    found = only(thresholds.disk(replace(DISK, kind="tmpfs"), SPOOL, trial=True), "file system")
    assert (found.verdict, "--config" in found.advice) == (Verdict.CHANGE, True)
    inodes = [result.subject for result in thresholds.disk(replace(DISK, free_inodes=None), SPOOL, trial=True)]
    assert "inodes" not in inodes


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Clock(year=2026, synchronised=True, max_error_ms=20.0), Verdict.WELL),
        (Clock(year=2026, synchronised=True, max_error_ms=None), Verdict.WELL),
        (Clock(year=2026, synchronised=True, max_error_ms=4000.0), Verdict.CHANGE),
        (Clock(year=2026, synchronised=False, max_error_ms=16000.0), Verdict.CHANGE),
        (Clock(year=2026, synchronised=None, max_error_ms=None), Verdict.CHANGE),
        (Clock(year=1970, synchronised=True, max_error_ms=1.0), Verdict.STOP),
    ],
)
def test_a_clock(found: Clock, verdict: Verdict) -> None:
    assert only([thresholds.clock(found)], "clock").verdict is verdict


@pytest.mark.parametrize(
    ("found", "associations", "verdicts"),
    [
        (Limits(open_files=1024, threads=None), 32, (Verdict.WELL, Verdict.WELL)),
        (Limits(open_files=1024, threads=256), 32, (Verdict.WELL, Verdict.CHANGE)),
        (Limits(open_files=1024, threads=1200), 512, (Verdict.CHANGE, Verdict.CHANGE)),
        (Limits(open_files=64, threads=64), 32, (Verdict.STOP, Verdict.STOP)),
        (Limits(open_files=120, threads=120), 1, (Verdict.WELL, Verdict.WELL)),
    ],
)
def test_limits(found: Limits, associations: int, verdicts: tuple[Verdict, Verdict]) -> None:
    results = list(thresholds.limits(found, Listen(max_associations=associations), "the unit"))
    assert (only(results, "open files").verdict, only(results, "threads").verdict) == verdicts


@pytest.mark.parametrize(("associations", "enough"), [(32, True), (181, True), (182, False)])
def test_the_receiver_s_unit_is_large_enough_for_what_it_says(associations: int, enough: bool) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(UNITS / "cxr-node-receive.service")
    service = unit["Service"]
    given = Limits(open_files=int(service["LimitNOFILE"]), threads=int(service["TasksMax"]))
    results = thresholds.limits(given, Listen(max_associations=associations), "the unit")
    assert ({result.verdict for result in results} == {Verdict.WELL}) == enough


@pytest.mark.parametrize(
    ("gib", "free_gib", "readable", "verdicts"),
    [
        (8.0, 6.0, (), (Verdict.WELL, Verdict.WELL)),
        (8.0, 1.0, ("/swapfile",), (Verdict.CHANGE, Verdict.CHANGE)),
        (1.0, 1.0, ("/dev/sda2",), (Verdict.STOP, Verdict.CHANGE)),
    ],
)
def test_memory(gib: float, free_gib: float, readable: tuple[str, ...], verdicts: tuple[Verdict, Verdict]) -> None:
    swaps = ("/dev/zram0", *readable)
    found = Memory(
        limit_bytes=int(gib * GIB), available_bytes=int(free_gib * GIB), swaps=swaps, readable_swaps=readable
    )
    results = list(thresholds.memory(found))
    assert (only(results, "memory").verdict, only(results, "swap").verdict) == verdicts


@pytest.mark.parametrize(
    ("cores", "features", "threads", "verdict"),
    [
        (4.0, {"avx2", "avx512f"}, 0, Verdict.WELL),
        (4.0, {"asimd"}, 4, Verdict.WELL),
        (4.0, {"avx2"}, 8, Verdict.CHANGE),
        (4.0, {"sse2"}, 0, Verdict.CHANGE),
        (0.5, {"avx2"}, 0, Verdict.CHANGE),
    ],
)
def test_a_processor(cores: float, features: set[str], threads: int, verdict: Verdict) -> None:
    found = Processor(cores=cores, features=frozenset(features))
    assert only([thresholds.processor(found, threads)], "processor").verdict is verdict


CONFINED = Confinement(
    core_pattern="core",
    random=True,
    unit="cxr-node-work.service",
    no_new_privileges=True,
    seccomp=True,
    capabilities=0,
)


@pytest.mark.parametrize(
    ("figures", "subject", "verdict"),
    [
        ({}, "core files", Verdict.WELL),
        ({"core_pattern": "|/usr/lib/systemd/systemd-coredump %P"}, "core files", Verdict.WELL),
        ({"core_pattern": "|/usr/share/apport/apport %p"}, "core files", Verdict.CHANGE),
        ({"random": False}, "random numbers", Verdict.STOP),
        ({}, "systemd", Verdict.WELL),
        ({"unit": None, "seccomp": False}, "systemd", Verdict.WELL),
        ({"no_new_privileges": False, "capabilities": 1}, "systemd", Verdict.CHANGE),
    ],
)
def test_confinement(figures: dict[str, object], subject: str, verdict: Verdict) -> None:
    found = replace(CONFINED, **figures)  # type: ignore[arg-type]  # fields by name, from the table above
    assert only(thresholds.confinement(found), subject).verdict is verdict


def test_versions() -> None:
    tested = {name: f"{version}.9" for name, version in thresholds.TESTED.items()}
    assert only(thresholds.versions(tested), "libraries").verdict is Verdict.WELL
    newer = list(thresholds.versions(tested | {"openvino": "9.9.0+cpu"}))
    assert only(newer, "libraries").figure == f"openvino 9.9.0+cpu (tested: {thresholds.TESTED['openvino']})"
    assert [result.verdict for result in thresholds.versions(tested | {"openvino": None})] == [Verdict.STOP]


def test_decoders() -> None:
    right = Trial(uid="1", name="JPEG-LS", right=True, took_ms=2.0)
    wrong = Trial(uid="2", name="JPEG 2000", right=False, took_ms=2.0)
    good = list(thresholds.decoders([right], []))
    assert [(result.verdict, result.figure[:1]) for result in good] == [(Verdict.WELL, "1")]
    bad = list(thresholds.decoders([wrong, right], ["RLE Lossless"]))
    assert [result.verdict for result in bad] == [Verdict.STOP, Verdict.CHANGE, Verdict.WELL]
    assert bad[0].figure.startswith("JPEG 2000")


def test_what_cannot_be_measured_is_a_stop_and_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ResourceError("it is broken")

    monkeypatch.setattr(doctor.disk, "measure", broken)
    monkeypatch.setattr(doctor.codecs, "trials", broken)
    results = list(doctor.examine(loader.parse({"spool": {"path": str(tmp_path)}})))
    assert doctor.stops(results) == 2
    assert only(results, "spool").figure == only(results, "decoders").figure == "it is broken"
    assert only(results, "libraries")


def test_a_spool_that_this_account_cannot_write_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    found = only(doctor.examine(loader.parse({"spool": {"path": str(tmp_path / "spool")}})), "spool")
    assert (found.verdict, "sudo -u cxr-node" in found.advice) == (Verdict.STOP, True)


@pytest.mark.parametrize(("stops", "code"), [(0, 0), (1, 1)])
def test_the_exit_code_says_whether_the_node_can_live_here(
    stops: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [CheckResult(subject="clock", figure="well"), thresholds.change("swap", "a", "b")]
    results += [thresholds.stop("file system", "nfs4", "a local disk")] * stops
    monkeypatch.setattr(doctor, "examine", lambda _: iter(results))
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == code
    last = shown.output.strip().splitlines()[-1]
    assert last == (
        "This machine cannot hold the node yet: 1 to put right first, 1 could be better."
        if stops
        else "This machine can hold the node; 1 could be better."
    )


def test_this_machine_with_a_configuration_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real figures; what they are depends on the machine, that each is there does not."""
    monkeypatch.setattr(machine, "unit_limits", lambda _: None)
    file = tmp_path / "node.yaml"
    file.write_text(yaml.safe_dump({"spool": {"path": str(tmp_path / "spool"), "min_free_mib": 1}}))
    shown = CliRunner().invoke(app, ["doctor", "--json", "--config", str(file)])
    found = {line["subject"]: line for line in map(json.loads, shown.output.splitlines())}
    assert set(found) >= {
        "file system", "durable write", "free space", "disk's clock", "SQLite", "clock", "decoders", "open files",
        "threads", "memory", "swap", "processor", "core files", "random numbers", "systemd", "libraries",
    }  # fmt: skip
    assert found["decoders"]["verdict"] == "well"
    assert found["durable write"]["figure"].startswith("50 x 1 MiB: p50 ")
    assert shown.exit_code == int(any(line["verdict"] == "stop" for line in found.values()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node.yaml"]  # it cleaned up
