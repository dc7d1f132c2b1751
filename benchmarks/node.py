"""The whole node beside plain ones, 10 MB radiographs: turnaround, sustained throughput, and each stage alone.

The nodes, the sender and a destination that keeps nothing share the cores of this machine. Turnaround: from the
moment when the last byte of the data set was handed to the system to the acknowledgement of the last result.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks import peers, record
from benchmarks.destination import Destination
from benchmarks.images import TEN_MB, Images, Numbered
from benchmarks.peers import ONE_VIEW, OURS, PLAIN, Peer
from benchmarks.record import ratio, spread
from cxr_node.bench import node as bench_node
from cxr_node.node.ledger.ledger import FILE_NAME

PICTURE = (1278, 678)
"""Rows and columns of our Secondary Capture of such a radiograph; the plain node makes one of that size too."""
RESULTS = {OURS: 3, PLAIN: 2, ONE_VIEW: 2}
"""Objects of one image: report, measurements and picture; or measurements and picture."""
WARM_UP = 3
_SETTLED = "SELECT at FROM events WHERE what = 'reported' ORDER BY at"


@dataclass(slots=True)
class Contender:
    """A node and where its results go."""

    node: Peer
    to: Destination
    images: Images
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    expected: int = 0

    def next(self, count: int) -> list[Numbered]:
        """Take radiographs that it has not seen, and expect their results."""
        self.expected += count * RESULTS[self.node.name]
        return [self.images.numbered(next(self.numbers)) for _ in range(count)]

    def last_result_ns(self) -> int:
        """Wait for all that is expected; when the last one was acknowledged."""
        return max(arrival.acknowledged_ns for arrival in self.to.wait(self.expected))


def measure(folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """All parts, in the order in which they are read."""
    images = Images(TEN_MB)
    with ExitStack() as stack:
        nodes = []
        for name in RESULTS:
            to = stack.enter_context(Destination())
            nodes.append(Contender(stack.enter_context(_started(name, folder / name, to.port)), to, images))
        figures: dict[str, Any] = {"object_bytes": images.size_bytes}
        figures["result_bytes"] = {one.node.name: _warm_up(one) for one in nodes}
        figures["turnaround"] = turnaround(nodes, options.one_by_one, bar)
        figures |= sustained(nodes, folder, options, bar)
        figures["memory"] = peers.memory_by_role(nodes[0].node)
    return figures


def _started(name: str, folder: Path, to: int) -> AbstractContextManager[Peer]:
    return peers.serve(folder, to) if name == OURS else peers.plain(name, folder, to, PICTURE)


def _warm_up(one: Contender) -> list[int]:
    """A few images; the sizes of one image's results."""
    peers.flood(one.node, one.next(WARM_UP), 1)
    one.last_result_ns()
    return sorted(arrival.size_bytes for arrival in one.to.arrivals[-RESULTS[one.node.name] :])


def turnaround(nodes: list[Contender], images: int, bar: Progress) -> dict[str, Any]:
    """One image at a time, to one node and then to the next, over associations that stay open."""
    task = bar.add_task("turnaround, one image at a time", total=images * len(nodes))
    took: dict[str, list[float]] = {one.node.name: [] for one in nodes}
    with ExitStack() as stack:
        associations = [stack.enter_context(one.node.sender()) for one in nodes]
        for _ in range(images):
            for one, association in zip(nodes, associations, strict=True):
                sent = association.store(one.next(1)[0])
                took[one.node.name].append((one.last_result_ns() - sent.last_byte_ns) / 1e6)
                bar.advance(task)
    ms = {name: spread(values) for name, values in took.items()}
    ratios = {
        share: {name: ratio(ms[name][share], ms[OURS][share]) for name in (PLAIN, ONE_VIEW)} for share in ("p50", "p95")
    }
    return {"ms": ms, "ratio": ratios}


def sustained(nodes: list[Contender], folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """Waves over several associations, to one node and then to the next, then to each stage of ours alone."""
    waves = {OURS: options.images, PLAIN: options.plain_images, ONE_VIEW: options.plain_images}
    task = bar.add_task(
        "throughput, and each stage alone", total=options.rounds * (sum(waves.values()) + options.images)
    )
    alone: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {name: [] for name in waves}
    cpu_s: dict[str, list[float]] = {name: [] for name in waves}
    by_role: dict[str, list[float]] = {role: [] for role in bench_node.ROLES}
    for number in range(options.rounds):
        for one in nodes:
            name, used, roles = one.node.name, one.node.cpu_s(), peers.cpu_s_by_role(one.node)
            sent = peers.flood(one.node, one.next(waves[name]), options.associations, lambda: bar.advance(task))
            took_s = (one.last_result_ns() - min(each.begun_ns for each in sent)) / 1e9
            rates[name].append(waves[name] / took_s)
            cpu_s[name].append((one.node.cpu_s() - used) / waves[name])
            if name == OURS:
                for role, now_s in peers.cpu_s_by_role(one.node).items():
                    by_role[role].append((now_s - roles[role]) / waves[name])
        for stage, rate in stages(folder / str(number), nodes[0].images, options).items():
            alone.setdefault(stage, []).append(rate)
        bar.advance(task, options.images)
    per_s = {name: spread(values) for name, values in rates.items()}
    by_stage = {stage: spread(values) for stage, values in alone.items()}
    throughput = {
        "associations": options.associations,
        "images": waves,
        "images_per_s": per_s,
        "cpu_s_per_image": {name: spread(values) for name, values in cpu_s.items()},
        "cpu_s_by_role": {role: spread(values) for role, values in by_role.items()},
        "ratio": {name: ratio(per_s[OURS]["p50"], per_s[name]["p50"]) for name in (PLAIN, ONE_VIEW)},
    }
    share = ratio(per_s[OURS]["p50"], min(one["p50"] for one in by_stage.values()))
    return {"throughput": throughput, "stages": by_stage, "share_of_slowest_stage": share}


def stages(folder: Path, images: Images, options: argparse.Namespace) -> dict[str, float]:
    """Images a second of receive, work and deliver, each running alone on what the one before left."""
    with peers.receive(folder) as receiver:
        sent = peers.flood(receiver, images.several(1, options.images), options.associations)
    with Destination() as to:
        with peers.alone(folder, "work", to.port):
            settled = until(lambda: settled_at_s(folder), options.images)
        with peers.alone(folder, "deliver", to.port):
            arrivals = to.wait(options.images * RESULTS[OURS])
    shutil.rmtree(folder)
    delivered = sorted(arrival.acknowledged_ns / 1e9 for arrival in arrivals)[:: RESULTS[OURS]]
    return {
        "receive": options.images / peers.took_s(sent),
        "work": (len(settled) - 1) / (settled[-1] - settled[0]),
        "deliver": (len(delivered) - 1) / (delivered[-1] - delivered[0]),
    }


def settled_at_s(folder: Path) -> list[float]:
    """When each image was settled, from the ledger."""
    with closing(sqlite3.connect(f"file:{folder / 'spool' / FILE_NAME}?mode=ro", uri=True)) as ledger:
        return [row[0] / 1e6 for row in ledger.execute(_SETTLED)]


def until(look: Callable[[], list[float]], count: int, timeout_s: float = 300.0) -> list[float]:
    """Look until so many images are settled. Raises TimeoutError: they are not."""
    deadline = time.monotonic() + timeout_s
    while len(found := look()) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(found)} of {count} images were judged")
        time.sleep(0.2)
    return found


def main() -> None:
    """Run, and write the figures."""
    record.run(
        "node", record.options(__doc__, one_by_one=60, images=200, plain_images=40, rounds=2, associations=8), measure
    )


if __name__ == "__main__":
    main()
