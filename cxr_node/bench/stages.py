"""The pipeline's stages one by one, in this process, and the network at several batch sizes.

The same functions in the same order as `pipeline.process`; what lies between them (choosing who answers) costs nothing.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cxr_node import pipeline
from cxr_node.bench import figures
from cxr_node.bench.figures import Batch, Pipeline
from cxr_node.config.schema import Config
from cxr_node.diagnose import machine
from cxr_node.dicom.read import header
from cxr_node.domain import NO_PRECEDENT, Origin, Radiograph, Rejected
from cxr_node.errors import DataError

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
Told = Callable[[], object]
"""Called after every step, for a bar."""


def steps(files: int, batches: Sequence[int]) -> int:
    """How many steps `measure` will tell of."""
    return min(files, MOST_IMAGES) + sum(_calls(size) for size in batches)


def measure(
    files: Sequence[Path], predictor: ProfilePredictor, config: Config, batches: Sequence[int], told: Told
) -> Pipeline:
    """Measure every stage, then the network at each batch size.

    Raises
    ------
    DataError : the configuration refuses the drawn radiographs.
    """
    for number in range(WARM_UP):
        _stages_ms(files[number % len(files)].read_bytes(), predictor, config)
    machine.forget_peak()
    busy_s, cpu_s, started, each_ms = machine.busy_s(), machine.cpu_s(os.getpid()), time.perf_counter(), []
    for file in files[:MOST_IMAGES]:
        each_ms.append(_stages_ms(file.read_bytes(), predictor, config))
        told()
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
        batches=tuple(_batch(size, files, predictor, config, told) for size in batches),
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
    pipeline.explain(pipeline.Analysis(source=source, radiograph=radiograph, finding=finding), origin, config)
    clock.append(time.perf_counter())
    return tuple(1000.0 * (end - start) for start, end in itertools.pairwise(clock))


def _admitted(found: Kind | Rejected) -> Kind:
    if isinstance(found, Rejected):
        raise DataError(f"this configuration refuses a drawn radiograph: {found.reason}: {found.sentence}")
    return found


def _batch(size: int, files: Sequence[Path], predictor: ProfilePredictor, config: Config, told: Told) -> Batch:
    radiographs = [_radiograph(files[number % len(files)], predictor, config) for number in range(size)]
    machine.forget_peak()
    predictor.examine_all(radiographs)
    calls_ms = []
    for _ in range(_calls(size)):
        started = time.perf_counter()
        predictor.examine_all(radiographs)
        calls_ms.append(1000.0 * (time.perf_counter() - started))
        told()
    return figures.batch(size, calls_ms, machine.peak_bytes(os.getpid()) / _MIB)


def _calls(size: int) -> int:
    return max(_LEAST_CALLS, math.ceil(_LEAST_IMAGES / size))


def _radiograph(file: Path, predictor: ProfilePredictor, config: Config) -> Radiograph:
    source = _admitted(header.read(file.read_bytes()))
    return _admitted(pipeline.admit(source, predictor.profile, config.admission, NO_PRECEDENT))
