"""Where the processor time of one image goes: receive, work and deliver one after the other, each part of each counted.

10 MB radiographs, a report, measurements and a picture of each, to one destination; the first are not counted.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks import peers, record
from benchmarks.destination import Destination
from benchmarks.images import TEN_MB, Images
from benchmarks.node import RESULTS, settled_at_s, until
from benchmarks.peers import OURS
from benchmarks.traced import EVERY_S, PARTS, REST

WARM_UP = 6


def measure(folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """Milliseconds of an image by part, for each role; and how many images."""
    images, count = Images(TEN_MB), options.images
    task = bar.add_task("where the milliseconds go", total=3 * (count + WARM_UP))
    found: dict[str, Any] = {}
    with peers.traced(folder, "receive", None) as (receiver, told):
        peers.flood(receiver, images.several(1, WARM_UP), 1, lambda: bar.advance(task))
        before = _read(told)
        peers.flood(receiver, images.several(1 + WARM_UP, count), options.associations, lambda: bar.advance(task))
        found["receive"] = _each(before, _read(told), count)
    with Destination() as to:
        with peers.traced(folder, "work", to.port) as (_, told):
            until(lambda: settled_at_s(folder), WARM_UP)
            before = _read(told)
            until(lambda: settled_at_s(folder), count + WARM_UP)
            done = sum(at_s > before["at_s"] for at_s in settled_at_s(folder))
            found["work"] = _each(before, _read(told), done)
            bar.advance(task, count + WARM_UP)
        with peers.traced(folder, "deliver", to.port) as (_, told):
            to.wait(WARM_UP * RESULTS[OURS])
            before = _read(told)
            arrived = to.wait((count + WARM_UP) * RESULTS[OURS])
            done = sum(one.acknowledged_ns > before["monotonic_ns"] for one in arrived)
            found["deliver"] = _each(before, _read(told), done / RESULTS[OURS])
            bar.advance(task, count + WARM_UP)
    require_all(found)
    return {"images": count, "ms": found}


def _read(file: Path) -> dict[str, Any]:
    """What a traced role tells after now."""
    time.sleep(2.0 * EVERY_S)
    told: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return told


def _each(before: dict[str, Any], after: dict[str, Any], images: float) -> dict[str, float]:
    parts = {
        part: (spent - before["parts_ms"].get(part, 0.0)) / images for part, spent in sorted(after["parts_ms"].items())
    }
    whole = (after["process_ms"] - before["process_ms"]) / images
    return parts | {REST: max(0.0, whole - sum(parts.values()))}


def require_all(found: dict[str, dict[str, float]]) -> None:
    """Raise ValueError where a part was never entered: its function has another name by now."""
    missing = [f"{role}: {part}" for role, parts in PARTS.items() for part in parts if part not in found[role]]
    if missing:
        raise ValueError(f"nothing was counted of {', '.join(missing)}")


def main() -> None:
    """Run, and write the figures."""
    record.run("milliseconds", record.options(__doc__, images=120, associations=8), measure)


if __name__ == "__main__":
    main()
