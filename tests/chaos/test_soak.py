"""Thousands of images, five in a hundred with something wrong: nothing grows (FAULTS T36, T5, T10, T16, T22).

Grows what? Resident memory, threads and open files of every role, files in the spool, and the ledger, with
`spool.retention_days` and `spool.history_days` short enough to matter while it runs.
"""

from __future__ import annotations

import dataclasses
import math
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cxr_node.node.ledger.ledger import FILE_NAME
from tests.chaos.accounting import settle
from tests.chaos.conftest import Listening, Report
from tests.chaos.node import ROLES, Node
from tests.chaos.senders import SOAK, Modality
from tests.node.wire import P_DATA, Wire, pdu, pdv
from tests.patience import wait_until

SHORT = (160, 3.0)
"""Images, and seconds that their bytes stay."""
FAULT_SHARE = 0.05
BATCH = 20
LOOKS = 5
"""Looks at a node at rest, of which the lowest counts: what it holds because it works is no leak."""
WARM_UP_SHARE = 0.4
NOISE = {"rss_mib": 16.0, "threads": 2.0, "open_files": 4.0, "ledger_kib": 1024.0, "wal_kib": 6144.0}
"""Growth after the warm-up that is not told from none; the ledger would grow by 4 MiB if it kept its rows.

A role that kept one result of each image would grow by 40 MiB; a few MiB come and go with the C library's arenas.
One more connection to the ledger is two files, and comes once.
SQLite begins its write-ahead log again at 1,000 pages (4 MiB) and a transaction more, and never shortens the file.
"""
SECONDS_PER_DAY = 86400.0
FOREIGN = 1_000_000
"""Numbers from here on are images that are not for us."""


@dataclass(frozen=True, slots=True)
class Samples:
    """What was seen after how many images."""

    images: list[int] = field(default_factory=list)
    seen: dict[str, list[float]] = field(default_factory=dict)

    def add(self, node: Node, images: int) -> None:
        self.images.append(images)
        for role in ROLES:
            looks = []
            for _ in range(LOOKS):
                looks.append(node.usage(role))
                time.sleep(0.05)
            for name, *values in zip(("rss_mib", "threads", "open_files"), *looks, strict=True):
                self.seen.setdefault(f"{role} {name}", []).append(min(values))
        self.seen.setdefault("spool_files", []).append(spool_files(node))
        self.seen.setdefault("ledger_kib", []).append(ledger_kib(node.spool / FILE_NAME))
        log = (node.spool / f"{FILE_NAME}-wal").stat().st_size / 1024
        self.seen.setdefault("wal_kib", []).append(log)

    @property
    def _start(self) -> int:
        """The first sample after the warm-up."""
        return int(len(self.images) * WARM_UP_SHARE)

    @property
    def judged(self) -> int:
        """Images from the first sample after the warm-up to the last."""
        return self.images[-1] - self.images[self._start]

    def slope(self, name: str) -> tuple[float, float, float]:
        """Growth per 1,000 images, half of its 95 % interval, and the scatter about the line (standard deviation)."""
        x, y = np.array(self.images[self._start :]) / 1000, np.array(self.seen[name][self._start :])
        line = stats.linregress(x, y)
        half = float(stats.t.ppf(0.975, len(x) - 2) * line.stderr)
        return float(line.slope), half, float(np.std(y - line.intercept - line.slope * x))


def spool_files(node: Node) -> int:
    """Objects and results on disk; as many as were settled within `retention_days`, so more on a faster machine."""
    return sum(1 for area in ("objects", "results", "incoming") for _ in (node.spool / area).rglob("*.*"))


def ledger_kib(database: Path) -> float:
    """Pages in use: those of removed rows stay in the file, and are taken again."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        size, pages, free = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
        )
    return float(size * (pages - free)) / 1024


@pytest.mark.parametrize(
    "is_long",
    [False, pytest.param(True, marks=[pytest.mark.chaos, pytest.mark.timeout(40_000)])],
    ids=["short", "long"],
)
def test_soak(
    tmp_path: Path,
    profile: Path,
    chance: random.Random,
    listening: Listening,
    report: Report,
    request: pytest.FixtureRequest,
    is_long: bool,
) -> None:
    images, kept_s = (request.config.getoption("--soak-images"), 20.0) if is_long else SHORT
    archives = listening("steady", "weary")
    days = {"retention_days": kept_s / SECONDS_PER_DAY, "history_days": 2 * kept_s / SECONDS_PER_DAY}
    samples, faults = Samples(), Counter[str]()
    with Node(tmp_path / "node", profile, archives, spool=days) as node:
        modality = Modality(tmp_path / "modality", node.address, SOAK)
        for first in range(0, images, BATCH):
            files = modality.take(*range(first, first + BATCH))
            with modality.sending(files):
                for number in range(first, first + BATCH):
                    if chance.random() < FAULT_SHARE:
                        faults[misbehave(node, modality, number, chance)] += 1
            for file in files:
                file.unlink()
            wait_until(node.is_idle, "the node keeps up", 600)
            samples.add(node, first + BATCH)
        wait_until(node.is_idle, "everything is settled", 600)
        wait_until(lambda: not spool_files(node), "retention takes every file", 10 * kept_s + 30)
        rejected = node.log("work").count(" rejected ")
        node.shut_down()
    kept = [archive.kept() for archive in archives]
    own = [uid for uid in modality.acknowledged if int(uid.rpartition(".")[2]) < FOREIGN]
    accounting = settle(node.spool, modality.sources, own, kept, forgets=True)
    foreign = len(modality.acknowledged) - len(own)
    assert rejected == faults["send_foreign"] == foreign
    report(
        dataclasses.replace(accounting, acknowledged=len(modality.acknowledged), rejected=foreign),
        faults=dict(faults),
        restarts=node.restarts.total(),
    )
    judge(samples, report)
    assert accounting.is_clean
    assert accounting.delivered == images
    assert not node.deaths


def misbehave(node: Node, modality: Modality, number: int, chance: random.Random) -> str:
    """Do one thing that goes wrong in hospitals."""
    fault = chance.choice((abort_midway, send_garbage, send_foreign, repeat))
    fault(node, modality, number, chance)
    return fault.__name__


def abort_midway(node: Node, _: Modality, number: int, chance: random.Random) -> None:
    with suppress(OSError), Wire(node.address.port) as peer:
        peer.associate()
        peer.begin_store(f"1.2.3.{number}")
        peer.send(pdu(P_DATA, pdv(chance.randbytes(chance.randrange(60_000)), is_last=False)))


def send_garbage(node: Node, _: Modality, number: int, chance: random.Random) -> None:
    with Wire(node.address.port) as peer:
        peer.associate()
        assert peer.store(f"1.2.3.{number}", chance.randbytes(chance.randrange(200_000))) != 0x0000


def send_foreign(_: Node, modality: Modality, number: int, __: random.Random) -> None:
    """Something that is no frontal chest: acknowledged, and REJECTED."""
    (file,) = modality.take(FOREIGN + number, ViewPosition="LL", ViewCodeSequence=None)
    modality.send([file])
    file.unlink()


def repeat(_: Node, modality: Modality, number: int, __: random.Random) -> None:
    (file,) = modality.take(number)
    modality.send([file])


def judge(samples: Samples, report: Report) -> None:
    """Print every slope; none may be more than noise."""
    grows = []
    for name in samples.seen:
        slope, half, scatter = samples.slope(name)
        growth, noise = slope * samples.judged / 1000, max(2 * scatter, NOISE.get(name.split()[-1], math.inf))
        report(f"  {name}: slope={slope:+.3f}+-{half:.3f}/1000 scatter={scatter:.3f} last={samples.seen[name][-1]:.1f}")
        if slope - half > 0 and growth > noise:
            grows.append(name)
    assert not grows
