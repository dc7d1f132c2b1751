"""Objects into our receiver, Orthanc and DCMTK's storescp: one association, and several at once.

Ours and Orthanc sync what they take before they answer, storescp does not. From the first byte of the first object to
the last answer; the same sender, the same objects under new UIDs each time, one receiver after the other.
"""

from __future__ import annotations

import argparse
import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks import peers, record
from benchmarks.images import ONE_MB, TEN_MB, Images
from benchmarks.peers import ORTHANC, OURS, STORESCP, Peer
from benchmarks.record import ratio, spread

SIZES = {"1 MB": ONE_MB, "10 MB": TEN_MB}
ASSOCIATIONS = (1, 8)
_MB = 1e6


def measure(folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """One row for each size and number of associations."""
    objects = {"1 MB": options.small_objects, "10 MB": options.large_objects}
    task = bar.add_task("ingest", total=3 * options.rounds * len(ASSOCIATIONS) * sum(objects.values()))
    images = {size: Images(plate) for size, plate in SIZES.items()}
    numbers = itertools.count(1)
    rows = []
    with ExitStack() as stack:
        receivers = [
            stack.enter_context(start(folder / name))
            for name, start in ((OURS, peers.receive), (ORTHANC, peers.orthanc), (STORESCP, peers.storescp))
        ]
        for receiver in receivers:
            peers.flood(receiver, [images["1 MB"].numbered(next(numbers)) for _ in range(8)], 8)
        for size, associations in itertools.product(SIZES, ASSOCIATIONS):
            took: dict[str, list[float]] = {one.name: [] for one in receivers}
            for _ in range(options.rounds):
                for receiver in receivers:
                    instances = [images[size].numbered(next(numbers)) for _ in range(objects[size])]
                    sent = peers.flood(receiver, instances, associations, lambda: bar.advance(task))
                    took[receiver.name].append(peers.took_s(sent) / objects[size])
            rows.append(_row(size, associations, images[size].size_bytes, took))
        kept = {one.name: _files(folder / one.name, one) for one in receivers}
    return {"objects": objects, "rows": rows, "files_kept": kept}


def _row(size: str, associations: int, size_bytes: int, took: dict[str, list[float]]) -> dict[str, Any]:
    ms = {name: spread([1000.0 * each for each in values]) for name, values in took.items()}
    return {
        "size": size,
        "object_bytes": size_bytes,
        "associations": associations,
        "ms_per_object": ms,
        "mb_per_s": {name: size_bytes / _MB / (told["p50"] / 1000.0) for name, told in ms.items()},
        "ratio": {name: ratio(ms[name]["p50"], ms[OURS]["p50"]) for name in (ORTHANC, STORESCP)},
    }


def _files(folder: Path, receiver: Peer) -> int:
    """Files as large as an object: a receiver that kept none was not measured."""
    found = sum(file.is_file() and file.stat().st_size > _MB * 0.9 for file in folder.rglob("*"))
    if not found:
        raise ValueError(f"{receiver.name} kept nothing")
    return found


def main() -> None:
    """Run, and write the figures."""
    record.run("ingest", record.options(__doc__, small_objects=80, large_objects=24, rounds=5), measure)


if __name__ == "__main__":
    main()
