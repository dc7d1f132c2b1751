"""What an image costs while the ledger grows and associations multiply, and how long the node takes to start.

Small radiographs (512 x 512), so that the ledger's share shows. The ledger is filled beforehand with settled images.
The configuration is the default one but for `listen`, which lets 64 associations of one host in.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks import peers, record, rows
from benchmarks.destination import Destination
from benchmarks.images import SMALL, Images
from benchmarks.record import ratio, spread

ROWS = (100, 1_000, 10_000, 100_000)
ASSOCIATIONS = (1, 8, 64)
RESULTS = 3
_LISTEN = {"max_associations": 64, "max_associations_per_host": 64}


def measure(folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """A node for each number of rows."""
    images = Images(SMALL)
    task = bar.add_task("growth", total=options.rounds * len(ROWS) * len(ASSOCIATIONS) * options.images)
    measured = [_with_rows(folder / str(number), number, images, options, lambda: bar.advance(task)) for number in ROWS]
    return {
        "object_bytes": images.size_bytes,
        "images": options.images,
        "by_rows": measured,
        "growth": growth([[cell["cpu_ms_per_image"] for cell in row["cells"]] for row in measured]),
    }


def growth(costs: Sequence[Sequence[float]]) -> dict[str, float]:
    """How many times dearer an image becomes from the fewest to the most, in the worst case.

    Parameters
    ----------
    costs : for each number of rows, the cost at each number of associations, both ascending
    """
    by_associations = list(zip(*costs, strict=True))
    return {
        "rows": max(ratio(column[-1], column[0]) for column in by_associations),
        "associations": max(ratio(row[-1], row[0]) for row in costs),
    }


def _with_rows(
    folder: Path, number: int, images: Images, options: argparse.Namespace, sent: Callable[[], object]
) -> dict[str, Any]:
    rows.fill(folder / "spool", number)
    done = 0
    with Destination() as to, peers.starting(folder, to.port, **_LISTEN) as node:
        echo_s = time.monotonic() - node.started_at
        peers.flood(node, images.several(1, 1), 1)
        done += 1
        first_answer_s = max(one.acknowledged_ns for one in to.wait(RESULTS)) / 1e9 - node.started_at
        peers.flood(node, images.several(2, 8), 8)
        done += 8
        to.wait(RESULTS * done)
        cells = []
        for associations in ASSOCIATIONS:
            took_ms, used_s = [], node.cpu_s()
            for _ in range(options.rounds):
                answered = peers.flood(node, images.several(done + 1, options.images), associations, sent)
                done += options.images
                last_ns = max(one.acknowledged_ns for one in to.wait(RESULTS * done))
                took_ms.append((last_ns - min(one.begun_ns for one in answered)) / 1e6 / options.images)
            cpu_ms = 1000.0 * (node.cpu_s() - used_s) / (options.rounds * options.images)
            cells.append({"associations": associations, "ms_per_image": spread(took_ms), "cpu_ms_per_image": cpu_ms})
        used = peers.memory_by_role(node)
    return {
        "rows": number,
        "first_echo_s": echo_s,
        "first_answer_s": first_answer_s,
        "cells": cells,
        "memory": used,
    }


def main() -> None:
    """Run, and write the figures."""
    record.run("growth", record.options(__doc__, images=64, rounds=2), measure)


if __name__ == "__main__":
    main()
