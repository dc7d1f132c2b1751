"""What the page costs the node: turnaround and throughput without it, with it, and with it under constant load.

Three nodes on the same machine take turns, so that none of them has the quiet hours; the other two wait meanwhile.
Visitors ask for Today and Queue without a pause. Radiographs of 10 MB.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from rich.progress import Progress

from benchmarks import peers, record
from benchmarks.destination import Destination
from benchmarks.images import TEN_MB, Images
from benchmarks.record import ratio, spread
from cxr_node.tools.send import free_port

WITHOUT, IDLE, BUSY = "without the page", "with the page", "with the page, asked without a pause"
RESULTS = 3
VISITORS = 4
_PAGES = ("/", "/queue?view=dead")


def measure(folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """Rounds of one image at a time, then of several at once, by turns."""
    images, numbers = Images(TEN_MB), itertools.count(1)
    task = bar.add_task("page", total=3 * options.rounds * (options.images + 1))
    alone: dict[str, list[float]] = {name: [] for name in (WITHOUT, IDLE, BUSY)}
    together: dict[str, list[float]] = {name: [] for name in alone}
    with contextlib.ExitStack() as stack:
        nodes: dict[str, tuple[peers.Peer, Destination]] = {}
        ports = {IDLE: free_port("127.0.0.1"), BUSY: free_port("127.0.0.1")}
        for name in alone:
            to = stack.enter_context(Destination())
            node = stack.enter_context(peers.starting(folder / str(len(nodes)), to.port, web=ports.get(name)))
            nodes[name] = (node, to)
            peers.flood(node, images.several(next(numbers), 1), 1)
            to.wait(RESULTS)
        sent = dict.fromkeys(alone, 1)
        for _ in range(options.rounds):
            for name, (node, to) in nodes.items():
                with _visited(ports[BUSY] if name == BUSY else None):
                    for number, times in ((1, alone), (options.images, together)):
                        found = [images.numbered(next(numbers)) for _ in range(number)]
                        answered = peers.flood(node, found, 1, lambda: bar.advance(task))
                        sent[name] += number
                        last_ns = max(one.acknowledged_ns for one in to.wait(RESULTS * sent[name]))
                        times[name].append((last_ns - min(one.begun_ns for one in answered)) / 1e6 / number)
    return {
        "visitors": VISITORS,
        "images": options.images,
        "turnaround_ms": {name: spread(values) for name, values in alone.items()},
        "ms_per_image": {name: spread(values) for name, values in together.items()},
        "ratio": {
            name: {
                "turnaround": ratio(spread(alone[name])["p50"], spread(alone[WITHOUT])["p50"]),
                "ms_per_image": ratio(spread(together[name])["p50"], spread(together[WITHOUT])["p50"]),
            }
            for name in (IDLE, BUSY)
        },
    }


@contextlib.contextmanager
def _visited(port: int | None) -> Iterator[None]:
    """Ask for pages from several threads while the block runs."""
    if port is None:
        yield
        return
    stop = threading.Event()

    def visit() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as client:
            for path in itertools.cycle(_PAGES):
                if stop.is_set():
                    return
                client.get(path)

    visitors = [threading.Thread(target=visit) for _ in range(VISITORS)]
    for each in visitors:
        each.start()
    try:
        yield
    finally:
        stop.set()
        for each in visitors:
            each.join()


def main() -> None:
    """Run, and write the figures."""
    record.run("web", record.options(__doc__, images=8, rounds=6), measure)


if __name__ == "__main__":
    main()
