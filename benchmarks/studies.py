"""One report for a study beside one for each image, on two nodes that are otherwise equal: turnaround and throughput.

Turnaround of a study: from the answer to the C-STORE of its last image to the acknowledgement of its last object.
Throughput: waves of studies of one to four images over several associations, to one node and then to the other, from
the first byte to the last object; the wait for late images (`quiet_s`) at the end of a wave is part of it.
"""

from __future__ import annotations

import argparse
import itertools
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks import peers, record
from benchmarks.destination import Destination
from benchmarks.images import TEN_MB, Images, Numbered
from benchmarks.peers import Peer
from benchmarks.record import ratio, spread
from benchmarks.wire import Sent
from cxr_node.node.ledger.ledger import FILE_NAME
from cxr_node.result_kinds import ReportPer

SIZES = (2, 1, 3, 4)
"""Images of one study and the next."""
DOCUMENTS = 2
"""Report and measurements: of a study, or of each image."""
QUIET_S = 2.0
"""`study.quiet_s` of both nodes; the default would be most of every measurement."""
_OPEN = "SELECT count(*) FROM instances WHERE state NOT IN ('DELIVERED', 'REJECTED')"
_LOOK_S = 0.05

Study = list[Numbered]


@dataclass(slots=True)
class Contender:
    """A node, where its results go, and what it makes of each drawing."""

    per: ReportPer
    node: Peer
    folder: Path
    to: Destination
    images: Images
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    pictures: list[int] = field(default_factory=list)
    """Of each drawing, how many pictures go with the report: none for NORMAL."""
    expected: int = 0

    def next(self, size: int) -> Study:
        """Take a study that it has not seen, and expect its objects."""
        number = next(self.numbers)
        documents = DOCUMENTS if self.per is ReportPer.STUDY else DOCUMENTS * size
        self.expected += documents + size * self.pictures[number % len(self.pictures)]
        return self.images.study(number, size)

    def learn(self) -> None:
        """Send each drawing once, and count what comes of it."""
        for drawing in range(len(self.images.drawings)):
            before = len(self.to.arrivals)
            with self.node.sender() as association:
                association.store(self.images.study(drawing, 1)[0])
            _until(lambda: self._open() == 0, "a drawing is settled")
            self.pictures.append(len(self.to.arrivals) - before - DOCUMENTS)
        self.expected = len(self.to.arrivals)
        self.numbers = itertools.count(len(self.pictures))

    def last_object_ns(self) -> int:
        """Wait for all that is expected; when the last one was acknowledged."""
        return max(arrival.acknowledged_ns for arrival in self.to.wait(self.expected))

    def _open(self) -> int:
        with closing(sqlite3.connect(f"file:{self.folder / 'spool' / FILE_NAME}?mode=ro", uri=True)) as ledger:
            return int(ledger.execute(_OPEN).fetchone()[0])


def measure(folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """Both parts."""
    images = Images(TEN_MB)
    with ExitStack() as stack:
        nodes = []
        for per in (ReportPer.STUDY, ReportPer.IMAGE):
            to = stack.enter_context(Destination())
            place = folder / per.value
            sections = {"study": {"quiet_s": QUIET_S}, "results": {}}
            node = stack.enter_context(peers.serve(place, to.port, report_per=per.value, sections=sections))
            nodes.append(Contender(per, node, place, to, images))
            nodes[-1].learn()
        took_s = turnaround(nodes[0], options.one_by_one, bar)
        figures = {"object_bytes": images.size_bytes, "quiet_s": QUIET_S, "sizes": SIZES}
        figures |= {"turnaround_s": spread(took_s), "beyond_quiet_s": spread([each - QUIET_S for each in took_s])}
        figures["throughput"] = throughput(nodes, options, bar)
        figures["pictures"] = nodes[0].pictures
        figures["unexpected"] = {one.per.value: len(one.to.arrivals) - one.expected for one in nodes}
    return figures


def turnaround(one: Contender, studies: int, bar: Progress) -> list[float]:
    """One study at a time, its images over one association."""
    task = bar.add_task("turnaround, one study at a time", total=studies)
    took_s = []
    for _, size in zip(range(studies), itertools.cycle(SIZES), strict=False):
        with one.node.sender() as association:
            sent = [association.store(image) for image in one.next(size)]
        took_s.append((one.last_object_ns() - sent[-1].answered_ns) / 1e9)
        bar.advance(task)
    return took_s


def throughput(nodes: Sequence[Contender], options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """Waves, to one node and then to the other, and to the other first in the next round."""
    task = bar.add_task("throughput", total=2 * options.rounds * options.studies)
    rates: dict[ReportPer, list[float]] = {one.per: [] for one in nodes}
    cpu_s: dict[ReportPer, list[float]] = {one.per: [] for one in nodes}
    for number in range(options.rounds):
        for one in nodes if number % 2 == 0 else reversed(nodes):
            wave = [one.next(size) for _, size in zip(range(options.studies), itertools.cycle(SIZES), strict=False)]
            used, count = one.node.cpu_s(), sum(map(len, wave))
            sent = _flood(one.node, wave, options.associations, lambda: bar.advance(task))
            took_s = (one.last_object_ns() - min(each.begun_ns for each in sent)) / 1e9
            rates[one.per].append(count / took_s)
            cpu_s[one.per].append((one.node.cpu_s() - used) / count)
    by_round = [ratio(study, image) for study, image in zip(*(rates[one.per] for one in nodes), strict=True)]
    return {
        "associations": options.associations,
        "studies": options.studies,
        "images_per_s": {per.value: spread(values) for per, values in rates.items()},
        "cpu_s_per_image": {per.value: spread(values) for per, values in cpu_s.items()},
        "ratio": spread(by_round),
        "cpu_ratio": ratio(*(spread(cpu_s[one.per])["p50"] for one in nodes)),
    }


def _flood(peer: Peer, studies: Sequence[Study], associations: int, done: Callable[[], object]) -> list[Sent]:
    """Send all; a study over one association, one image after the other."""

    def send(part: Sequence[Study]) -> list[Sent]:
        told = []
        with peer.sender() as association:
            for study in part:
                told += [association.store(image) for image in study]
                done()
        return told

    with ThreadPoolExecutor(associations) as pool:
        parts = [studies[start::associations] for start in range(associations)]
        return [one for part in pool.map(send, parts) for one in part]


def _until(holds: Callable[[], bool], what: str, timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(_LOOK_S)


def main() -> None:
    """Run, and write the figures."""
    record.run("studies", record.options(__doc__, one_by_one=40, studies=60, rounds=3, associations=8), measure)


if __name__ == "__main__":
    main()
