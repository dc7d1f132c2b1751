"""What `cxr-node bench` finds out, and the arithmetic of it. Measures nothing; JSON is made of these fields' names.

Times in ms are of a clock on the wall, seconds of CPU are of all threads and child processes. 1 MiB = 2^20 bytes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Times of single radiographs."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    each_ms: tuple[float, ...]
    """All of them, in the order of their sending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of the pipeline."""

    name: str
    ms: float
    """Median over the radiographs."""
    share: float
    """Of all stages' medians, in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTiming:
    """The network and its explanation for several radiographs at once."""

    size: int
    ms_per_image: float
    images_per_s: float
    peak_mib: float
    """Of the process, the decoded radiographs included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """One process, one radiograph after the other, without network and spool."""

    images: int
    stages: tuple[Stage, ...]
    ms_per_image: float
    cpu_s_per_1000_images: float
    peak_mib: float
    others_share: float
    """Of all cores' time, what other programs had meanwhile, in [0, 1]; of an idle machine they have none."""
    batches: tuple[BatchTiming, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One process of the node, and those that it started."""

    name: str
    cpu_s_per_1000_images: float
    peak_mib: float
    """Since its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeNode:
    """From a modality to a PACS, everything durable."""

    started_in_s: float
    """Until the port answered and the worker had its weights."""
    one_at_a_time: Spread
    """Turnaround: from the durable receipt to the last result acknowledged, where nothing else is to do."""
    all_at_once: Spread
    """The same where all were sent in one go: the waiting in the queue is in it."""
    images_per_s: float
    """Of those sent in one go: from the first receipt to the last result acknowledged."""
    roles: tuple[Role, ...]
    peers_cpu_s_per_1000_images: float
    """Of sender and PACS, which take their part of the same cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What it was measured on."""

    cores: float
    processor: str
    memory_gib: float
    file_system: str
    versions: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One run of `cxr-node bench`."""

    at: datetime
    version: str
    machine: Machine
    profile: str
    runtime: str
    threads: int
    """Of inference; 0: all cores."""
    rows: int
    cols: int
    bits_stored: int
    size_mb: float
    """Of one drawn radiograph's pixel data, 10^6 bytes."""
    results: tuple[str, ...]
    pipeline: Pipeline
    node: WholeNode
    notes: tuple[str, ...]
    """What one must know to read the figures."""


def spread(each_ms: Sequence[float]) -> Spread:
    """Percentiles, interpolated between neighbours; of few times the last ones are their largest."""
    p50, p95, p99 = np.percentile(each_ms, [50, 95, 99]).tolist()
    return Spread(count=len(each_ms), p50_ms=p50, p95_ms=p95, p99_ms=p99, each_ms=tuple(each_ms))


def stages(names: Sequence[str], each_ms: Sequence[Sequence[float]]) -> tuple[Stage, ...]:
    """Median of each stage, and its share of their sum.

    `each_ms` : for each radiograph, the times of all stages
    """
    medians = [statistics.median(column) for column in zip(*each_ms, strict=True)]
    total = sum(medians)
    return tuple(
        Stage(name=name, ms=ms, share=ms / total if total else 0.0) for name, ms in zip(names, medians, strict=True)
    )


def batch(size: int, calls_ms: Sequence[float], peak_mib: float) -> BatchTiming:
    """Median call for `size` radiographs, for each of them."""
    ms = statistics.median(calls_ms) / size
    return BatchTiming(size=size, ms_per_image=ms, images_per_s=1000.0 / ms, peak_mib=peak_mib)


def per_1000(seconds: float, images: int) -> float:
    """Seconds that 1,000 images take, of those that so many took."""
    return 1000.0 * seconds / images


def others_share(busy_s: float, own_s: float, cores_s: float) -> float:
    """Share of the cores' time that was not ours; counters that tick 100 times a second may cross, so never below 0."""
    return min(1.0, max(0.0, (busy_s - own_s) / cores_s))
