"""What `cxr-node bench` computes, what it refuses, and its stages on small drawings."""

from __future__ import annotations

import io
import json
import mmap
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from cxr_node import wiring
from cxr_node.bench import figures, measure
from cxr_node.bench import node as bench_node
from cxr_node.bench.figures import BatchTiming, Bench, Machine, Pipeline, Role, WholeNode
from cxr_node.cli import bench, tables
from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.diagnose import machine
from cxr_node.errors import DataError, ResourceError
from cxr_node.model.predictor import ProfilePredictor
from cxr_node.tools import drawn
from cxr_node.tools.drawn import Plate

RUNNER = CliRunner()
MIB = 1024**2


def settings(**sections: object) -> Config:
    return loader.parse({"spool": {"path": "."}, **sections})


def some_figures() -> Bench:
    """Round numbers, as a run could have found them."""
    stages = figures.stages(measure.STAGES, [(1.0, 20.0, 30.0, 49.0)])
    batches = (figures.batch(1, [30.0, 31.0, 32.0], 400.0), figures.batch(4, [80.0], 500.0))
    pipeline = Pipeline(
        images=1,
        stages=stages,
        ms_per_image=100.0,
        cpu_s_per_1000_images=123.0,
        peak_mib=401.0,
        others_share=0.0,
        batches=batches,
    )
    node = WholeNode(
        started_in_s=2.0,
        one_at_a_time=figures.spread([100.0, 200.0, 300.0]),
        all_at_once=figures.spread([400.0, 500.0]),
        images_per_s=4.5,
        roles=(Role(name="work", cpu_s_per_1000_images=222.0, peak_mib=333.0),),
        peers_cpu_s_per_1000_images=44.0,
    )
    here = Machine(cores=2.0, processor="a", memory_gib=8.0, file_system="ext4", versions={"python": "3.11.7"})
    return Bench(
        at=datetime(2026, 1, 2, tzinfo=UTC),
        version="0",
        machine=here,
        profile="p 1",
        runtime="r",
        threads=0,
        rows=20,
        cols=25,
        bits_stored=12,
        size_mb=10.0,
        results=("report",),
        pipeline=pipeline,
        node=node,
        notes=("Read this.",),
    )


def test_percentiles_are_of_all_times() -> None:
    found = figures.spread([float(number) for number in range(101)])
    assert (found.count, found.p50_ms, found.p95_ms, found.p99_ms) == (101, 50.0, 95.0, 99.0)
    alone = figures.spread([7.0])
    assert (alone.p50_ms, alone.p99_ms, alone.each_ms) == (7.0, 7.0, (7.0,))


def test_a_share_is_of_the_medians_and_one_slow_image_moves_none() -> None:
    found = figures.stages(["a", "b"], [(1.0, 3.0), (1.0, 3.0), (900.0, 3.0)])
    assert [(stage.name, stage.ms, stage.share) for stage in found] == [("a", 1.0, 0.25), ("b", 3.0, 0.75)]


def test_a_batch_is_told_for_one_image() -> None:
    assert figures.batch(4, [80.0, 100.0, 3000.0], 9.0) == BatchTiming(
        size=4, ms_per_image=25.0, images_per_s=40.0, peak_mib=9.0
    )
    assert figures.per_1000(3.0, 20) == 150.0


def test_what_others_had_is_never_less_than_nothing() -> None:
    assert figures.others_share(3.0, 1.0, 4.0) == 0.5
    assert figures.others_share(0.99, 1.0, 4.0) == 0.0
    assert figures.others_share(9.0, 1.0, 4.0) == 1.0


def test_throughput_is_from_the_first_receipt_to_the_last_result() -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)

    def story(received_s: float, *delivered_s: float | None) -> SimpleNamespace:
        at = [None if second is None else began + timedelta(seconds=second) for second in delivered_s]
        received = SimpleNamespace(received_at=began + timedelta(seconds=received_s))
        return SimpleNamespace(instance=received, deliveries=[SimpleNamespace(delivered_at=each) for each in at])

    stories = [story(1.0, 3.0, 9.0), story(2.0, 4.0, None), story(3.0, 5.0)]
    assert bench_node.images_per_s(stories) == pytest.approx(3 / 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "1,", "0", "257", "two", "1;2"])
def test_batch_sizes_are_numbers(text: str) -> None:
    with pytest.raises(ValueError):
        measure.parsed_batches(text)
    refused = RUNNER.invoke(app, ["bench", "--batch", text])
    assert refused.exit_code == 2
    assert "Traceback" not in refused.output


def test_a_disk_without_room_is_said_before_anything_is_drawn(tmp_path: Path) -> None:
    options = measure.BenchOptions(images=1000, size_mb=200.0)
    with pytest.raises(ResourceError, match=r"GiB free, 4\d\d\.\d are needed: name another folder in TMPDIR"):
        measure._require_room(tmp_path, 2 * options.images * int(options.size_mb * 1e6 + 16e6))


@pytest.fixture(scope="module")
def predictor() -> ProfilePredictor:
    plain = settings(model={"threads": 1})
    return wiring.predictor(wiring.profiles(plain)[0], plain)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return list(drawn.write(tmp_path_factory.mktemp("drawn"), Plate.of_size(0.5), 3))


def test_every_stage_and_every_batch_is_measured(files: list[Path], predictor: ProfilePredictor) -> None:
    steps = []
    found = measure.measure_stages(files, predictor, settings(), (1, 4), lambda: steps.append(1))
    assert [stage.name for stage in found.stages] == list(measure.STAGES)
    assert all(stage.ms > 0 for stage in found.stages)
    assert sum(stage.share for stage in found.stages) == pytest.approx(1.0)
    assert found.ms_per_image == pytest.approx(sum(stage.ms for stage in found.stages))
    assert 0 < found.cpu_s_per_1000_images < 1000 * 30
    assert found.peak_mib > 50  # of the whole process, and so of the tests before this one too
    assert [(each.size, each.images_per_s) for each in found.batches] == [
        (size, pytest.approx(1000 / each.ms_per_image)) for size, each in zip((1, 4), found.batches, strict=True)
    ]
    assert len(steps) == measure.steps(3, (1, 4))


def test_a_configuration_that_refuses_them_says_so(files: list[Path], predictor: ProfilePredictor) -> None:
    with pytest.raises(DataError, match="refuses a drawn radiograph: too-small"):
        measure.measure_stages(files, predictor, settings(admission={"min_size_px": 5000}), (1,), lambda: None)


@pytest.mark.parametrize(("ages", "drawn_as"), [((1.0, 5.0), 3), ((18.0, 120.0), 69), ((0.0, 0.5), 0)])
def test_they_are_of_an_age_that_the_profile_judges(ages: tuple[float, float], drawn_as: int) -> None:
    profile = SimpleNamespace(population=SimpleNamespace(age_years=ages))
    assert measure._age_years(profile) == drawn_as  # type: ignore[arg-type]


def test_notes_tell_of_another_disk_of_memory_and_of_others(tmp_path: Path) -> None:
    same = list(measure._notes(loader.parse({"spool": {"path": str(tmp_path / "spool")}}), tmp_path, "ext4", 0.05))
    assert len(same) == 2  # what is said always
    other = list(measure._notes(loader.parse({"spool": {"path": "/proc/spool"}}), tmp_path, "tmpfs", 0.45))
    assert [note for note in other if "another disk" in note]
    assert [note for note in other if "in memory" in note]
    assert [note for note in other if "Other programs had 45 %" in note]


def test_processor_time_of_children_counts() -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    try:
        before, busy_s = machine.cpu_s(child.pid), machine.busy_s()
        child.stdout.readline()
        assert machine.busy_s() - busy_s > 0.3
        assert machine.cpu_s(child.pid) - before > 0.3
        assert machine.cpu_s(child.pid) == pytest.approx(machine.cpu_s(child.pid, children=False), abs=0.05)
    finally:
        child.communicate()
    assert machine.cpu_s(child.pid) == 0.0
    assert machine.peak_bytes(child.pid) == 0


def test_a_peak_is_forgotten() -> None:
    pid = machine.os.getpid()
    machine.forget_peak()
    before = machine.peak_bytes(pid)
    large = mmap.mmap(-1, 200 * MIB)  # past the allocator, which may have kept as much from an earlier test
    for _ in range(200):
        large.write(b"x" * MIB)
    with_it = machine.peak_bytes(pid)
    assert with_it - before > 150 * MIB
    large.close()
    assert machine.peak_bytes(pid) == pytest.approx(with_it, abs=8 * MIB)
    machine.forget_peak()
    assert machine.peak_bytes(pid) < with_it - 150 * MIB


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--images", "0"], 2, "--images"),
        (["--size-mb", "0"], 2, "--size-mb"),
        (["--profile", "nonesuch"], 78, "no profile 'nonesuch'"),
        (["--config", "/nonexistent/node.yaml"], 78, "cannot be read"),
        (["--out", "/proc/version/there"], 2, "cannot be made"),
    ],
)
def test_wrong_use_is_one_sentence(options: list[str], code: int, sentence: str) -> None:
    refused = RUNNER.invoke(app, ["bench", *options])
    assert refused.exit_code == code, refused.output
    assert sentence in refused.output.replace("\n", " ")
    assert "Traceback" not in refused.output


def test_an_unknown_key_of_the_configuration_is_exit_78(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text(yaml.safe_dump({"spool": {"path": "x"}, "model": {"profil": "y"}}))
    refused = RUNNER.invoke(app, ["bench", "--config", str(file)])
    assert refused.exit_code == 78
    assert "model.profil: unknown key" in refused.output.replace("\n", " ")


def test_the_terminal_shows_every_figure() -> None:
    text = io.StringIO()
    Console(file=text, width=100).print(bench.bench_table(some_figures()))
    shown = text.getvalue()
    for word in ("read header", "49.0", "49 %", "10.0 images/s", "123 CPU seconds", "401 MiB", "31.0", "20.0", "50.0"):
        assert word in shown, word
    for word in ("200", "290", "298", "500", "4.5 images/s", "work", "222", "333", "44", "Read this."):
        assert word in shown, word
    explain, header = (
        next(line for line in shown.splitlines() if line.startswith(name)) for name in ("explain", "read")
    )
    assert explain.count("█") == 30  # the largest share fills its bar
    assert header.count("█") == 0


def test_json_says_numbers_as_numbers() -> None:
    told = json.loads(json.dumps(tables.plain(some_figures())))
    assert told["pipeline"]["stages"][3] == {"name": "explain", "ms": 49.0, "share": 0.49}
    assert told["node"]["one_at_a_time"]["each_ms"] == [100.0, 200.0, 300.0]
    assert told["at"] == "2026-01-02T00:00:00+00:00"
