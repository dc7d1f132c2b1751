"""What this machine does with the profile and configuration that it will run: stage by stage, and the whole node.

Everything is drawn, sent and stored in a temporary folder; of a configuration, spool, ports and destinations are
replaced and never touched. The stages are the functions of `pipeline.process` in the same order.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.progress import Progress

from cxr_node import __version__, pipeline, wiring
from cxr_node.bench import figures
from cxr_node.bench import node as bench_node
from cxr_node.bench.figures import BatchTiming, Bench, Pipeline
from cxr_node.config.schema import Config
from cxr_node.diagnose import disk, machine
from cxr_node.dicom.read import header
from cxr_node.domain import NO_PRECEDENT, Origin, Radiograph
from cxr_node.errors import DataError, ResourceError
from cxr_node.model.profile import Profile
from cxr_node.outcome import Rejected
from cxr_node.result_kinds import ReportPer
from cxr_node.tools import drawn
from cxr_node.tools.drawn import Plate

GIB = 1024**3
LIBRARIES = ("numpy", "openvino", "torch", "pydicom", "pynetdicom")
_RESULTS_BYTES = 16 * 10**6
"""Of one radiograph's results, in spool and memory; the picture is the largest."""
_BUSY_SHARE = 0.1
"""More than this was more than housekeeping."""
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What is measured."""

    images: int = 30
    """One at a time, and the same number at once."""
    size_mb: float = 10.0
    bits_stored: int = 12
    batches: tuple[int, ...] = (1, 4, 16)


def run(config: Config, options: BenchOptions, bar: Progress) -> Bench:
    """Measure; takes as long as twice `options.images` radiographs take, and some 15 seconds.

    Raises ConfigError, ModelError: the profile is not there, or does not work here; DataError: the configuration
    refuses the drawn radiographs; ResourceError: the temporary folder has too little room; TrialError: the node does
    not start, or leaves radiographs unanswered.
    """
    profile = wiring.profiles(config)[0]
    plate = Plate.of_size(options.size_mb, options.bits_stored, _age_years(profile))
    count = bench_node.WARM_UP + 2 * options.images
    with tempfile.TemporaryDirectory(prefix="cxr-node-bench-") as scratch:
        folder = Path(scratch)
        _require_room(folder, count * (2 * plate.size_bytes + _RESULTS_BYTES))
        files = list(bar.track(_drawn(folder, plate, count), total=count, description="drawing"))
        task = bar.add_task("loading the profile", total=None)
        predictor = wiring.predictor(profile, config)
        total = steps(options.images, options.batches)
        bar.update(task, description="stage by stage", total=total)
        some = files[: options.images]
        by_stage = measure_stages(some, predictor, config, options.batches, lambda: bar.advance(task))
        task = bar.add_task("the whole node", total=count)
        node = bench_node.measure(folder, files, config, lambda number: bar.advance(task, number))
        here = disk.kind(folder)
        return Bench(
            at=datetime.now(UTC),
            version=__version__,
            machine=figures.Machine(
                cores=machine.processor().cores,
                processor=machine.processor_name(),
                file_system=here,
                memory_gib=round(machine.memory().limit_bytes / GIB, 1),
                versions=machine.versions(LIBRARIES),
            ),
            profile=f"{profile.name} {profile.version}",
            runtime=predictor.runtime.name,
            threads=config.model.threads,
            rows=plate.rows,
            cols=plate.cols,
            bits_stored=plate.bits_stored,
            size_mb=plate.size_bytes / 1e6,
            results=tuple(sorted(kind.value for kind in config.kinds(ReportPer.IMAGE) | config.kinds(ReportPer.STUDY))),
            pipeline=by_stage,
            node=node,
            notes=tuple(_notes(config, folder, here, by_stage.others_share)),
        )


def parsed_batches(text: str) -> tuple[int, ...]:
    """Read "1,4,16". Raises ValueError: it is something else, or a size is not 1 to 256."""
    sizes = tuple(int(word) for word in text.split(","))
    if not all(1 <= size <= 256 for size in sizes):
        raise ValueError("1 to 256")
    return sizes


def _age_years(profile: Profile) -> int:
    return min(999, int(sum(profile.population.age_years) / 2))


def _drawn(folder: Path, plate: Plate, count: int) -> Iterator[Path]:
    """Files that are on the disk, so that no later fsync of the node's waits for them."""
    for file in drawn.write(folder, plate, count):
        with file.open("rb") as written:
            os.fsync(written.fileno())
        yield file


def _require_room(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise ResourceError(
            f"{folder.parent} has {free_bytes / GIB:.1f} GiB free, {needed_bytes / GIB:.1f} are needed: "
            "name another folder in TMPDIR, or give a smaller --images"
        )


def _notes(config: Config, folder: Path, file_system: str, others_share: float) -> Iterator[str]:
    if others_share > _BUSY_SHARE:
        yield f"Other programs had {100.0 * others_share:.0f} % of the processor meanwhile: measure again without them."
    yield "Sender and PACS ran on the same cores; the node is quicker where they have machines of their own."
    yield (
        "Spool, ports and destinations were the measurement's own (temporary, on loopback, without TLS); "
        "those of a configuration are not touched."
    )
    spool = next(path for path in (config.spool.path, *config.spool.path.absolute().parents) if path.exists())
    if spool.stat().st_dev != folder.stat().st_dev:
        yield f"The spool of the configuration is on another disk than {folder.parent}: set TMPDIR to a folder there."
    if file_system in _IN_MEMORY:
        yield f"{folder.parent} is in memory: durable writes cost nothing there; set TMPDIR to a folder on a disk."


if TYPE_CHECKING:
    from cxr_node.model.predictor import ProfilePredictor

STAGES = ("read header", "decode", "examine", "explain")
WARM_UP = 2
MOST_IMAGES = 30
"""More of them change no median."""
_LEAST_CALLS = 3
_LEAST_IMAGES = 12
"""At every batch size."""
_MIB = 1024**2

Kind = TypeVar("Kind")
Advance = Callable[[], object]
"""Called after every step, for a bar."""


def steps(files: int, batches: Sequence[int]) -> int:
    """How many steps `measure_stages` calls `advance` for."""
    return min(files, MOST_IMAGES) + sum(_calls(size) for size in batches)


def measure_stages(
    files: Sequence[Path], predictor: ProfilePredictor, config: Config, batches: Sequence[int], advance: Advance
) -> Pipeline:
    """Measure every stage, then the network at each batch size.

    Raises DataError: the configuration refuses the drawn radiographs.
    """
    for number in range(WARM_UP):
        _stages_ms(files[number % len(files)].read_bytes(), predictor, config)
    machine.forget_peak()
    busy_s, cpu_s, started, each_ms = machine.busy_s(), machine.cpu_s(os.getpid()), time.perf_counter(), []
    for file in files[:MOST_IMAGES]:
        each_ms.append(_stages_ms(file.read_bytes(), predictor, config))
        advance()
    busy_s, cpu_s = machine.busy_s() - busy_s, machine.cpu_s(os.getpid()) - cpu_s
    cores_s = (time.perf_counter() - started) * (os.cpu_count() or 1)
    peak_mib = machine.peak_bytes(os.getpid()) / _MIB
    found = figures.stages(STAGES, each_ms)
    return Pipeline(
        images=len(each_ms),
        stages=found,
        ms_per_image=sum(stage.ms for stage in found),
        cpu_s_per_1000_images=figures.per_1000(cpu_s, len(each_ms)),
        peak_mib=peak_mib,
        others_share=figures.others_share(busy_s, cpu_s, cores_s),
        batches=tuple(_batch(size, files, predictor, config, advance) for size in batches),
    )


def _stages_ms(content: bytes, predictor: ProfilePredictor, config: Config) -> tuple[float, ...]:
    """Milliseconds of each of `STAGES` for one Part 10 file."""
    origin = Origin(calling_ae_title="BENCH", peer_host="localhost", received_at=datetime.now(UTC))
    clock = [time.perf_counter()]
    source = _admitted(header.read(content))
    clock.append(time.perf_counter())
    radiograph = _admitted(pipeline.admit(source, predictor.profile, config.admission, NO_PRECEDENT))
    clock.append(time.perf_counter())
    examination = predictor.examine(radiograph)
    clock.append(time.perf_counter())
    finding = pipeline.conclude(examination, predictor.profile, config)
    pipeline.report(pipeline.Analysis(source=source, radiograph=radiograph, finding=finding), origin, config)
    clock.append(time.perf_counter())
    return tuple(1000.0 * (end - start) for start, end in itertools.pairwise(clock))


def _admitted(found: Kind | Rejected) -> Kind:
    if isinstance(found, Rejected):
        raise DataError(f"this configuration refuses a drawn radiograph: {found.reason}: {found.sentence}")
    return found


def _batch(
    size: int, files: Sequence[Path], predictor: ProfilePredictor, config: Config, advance: Advance
) -> BatchTiming:
    radiographs = [_radiograph(files[number % len(files)], predictor, config) for number in range(size)]
    machine.forget_peak()
    predictor.examine_all(radiographs)
    calls_ms = []
    for _ in range(_calls(size)):
        started = time.perf_counter()
        predictor.examine_all(radiographs)
        calls_ms.append(1000.0 * (time.perf_counter() - started))
        advance()
    return figures.batch(size, calls_ms, machine.peak_bytes(os.getpid()) / _MIB)


def _calls(size: int) -> int:
    return max(_LEAST_CALLS, math.ceil(_LEAST_IMAGES / size))


def _radiograph(file: Path, predictor: ProfilePredictor, config: Config) -> Radiograph:
    source = _admitted(header.read(file.read_bytes()))
    return _admitted(pipeline.admit(source, predictor.profile, config.admission, NO_PRECEDENT))
