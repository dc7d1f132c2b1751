"""One node on three machines, and what happens to its images while database, store, network and a machine fail: T37."""

from __future__ import annotations

import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cxr_node.node.network.statuses import OUT_OF_RESOURCES
from cxr_node.node.process.supervisor import EXIT_CONFIG
from tests.chaos.accounting import draw_up
from tests.chaos.archive import Archive
from tests.chaos.cluster import ASSOCIATIONS, Cluster, cluster
from tests.chaos.conftest import Report
from tests.chaos.network import Network, network
from tests.chaos.node import LEASE_S, waiting
from tests.chaos.senders import Modality
from tests.patience import wait_until
from tests.processes import free_port

MACHINES, DELIVERERS = 3, 2
DRAINED_S = LEASE_S + 30.0
"""After the last fault: what a dead machine had in hand is free, and was found by the slowest poll."""
AT_ONCE = ASSOCIATIONS
"""Images that may wait to be judged or delivered before the next are sent, and the next fault begins."""
LAST = ASSOCIATIONS
"""Images that are sent while the last fault lasts."""
PROBES = 4
BEGINS_S = 1.5
"""Mean time from the first image of a lot to its fault."""


@dataclass
class Faults:
    """What is done to the node; each is over when its method returns."""

    node: Cluster
    probe: Modality
    """Sends past HAProxy, to a machine that is cut off."""
    chance: random.Random
    away_s: float

    def restart(self) -> None:
        """End the database in order, or as a crash does."""
        self.node.forget()
        how = self.chance.choice((signal.SIGINT, signal.SIGQUIT))
        self.node.databases.restart(how, self.chance.uniform(0.2, 3.0))

    def promote(self) -> None:
        """Lose the database's host, and go on with the replica."""
        self.node.forget()
        self.node.databases.promote()

    def lose(self) -> None:
        """Lose a machine for good."""
        self.node.lose(self.chance.choice(self.node.machines))

    def store(self) -> None:
        """Unplug the store."""
        with self.node.store_away():
            time.sleep(self.away_s)

    def cut(self) -> None:
        """Cut a machine off from the database, and not from the senders: it must acknowledge nothing."""
        machine, probe = self.chance.choice(self.node.machines), self.probe
        probe.address = machine.address
        with self.node.cut_off(machine):
            began, began_at, heard = time.monotonic(), datetime.now(UTC), len(machine.log("receive"))
            with probe.sending(probe.files, associations=PROBES):
                wait_until(lambda: self.node.balancer.state(machine.host) == "DOWN", "HAProxy takes it out")
                wait_until(lambda: probe.refused[OUT_OF_RESOURCES], "it refuses an object")
                time.sleep(max(0.0, began + self.away_s - time.monotonic()))
                probe.stop.set()
            stored = list(stored_from(began_at, machine.log("receive")[heard:]))
        assert not probe.acknowledged
        assert not stored, stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is done, and how long everybody waits for who does not answer."""

    images: int
    restarts: int
    away_s: float
    url: str = ""
    """More of it: libpq's own waits."""
    answer_s: float = 20.0
    """How long a sender waits."""
    drained_s: float = DRAINED_S
    """After the last fault all is delivered; the short form shares its cores with the rest of the suite."""


SHORT = Scale(
    images=56,
    restarts=1,
    away_s=5.0,
    url="&connect_timeout=2&tcp_user_timeout=2000",
    answer_s=6.0,
    drained_s=3 * DRAINED_S,
)
LONG = Scale(images=1000, restarts=5, away_s=30.0)


@pytest.mark.parametrize(
    "scale",
    [
        pytest.param(SHORT, id="short"),
        pytest.param(LONG, id="long", marks=[pytest.mark.chaos, pytest.mark.timeout(3600)]),
    ],
)
def test_cluster(tmp_path: Path, profile: Path, chance: random.Random, report: Report, scale: Scale) -> None:
    """All that was acknowledged is at both destinations, once and whole; soon after the last fault nothing waits."""
    images = scale.images
    planned = ["restart"] * scale.restarts + ["promote", "lose", "store", "cut"]
    chance.shuffle(planned)
    with (
        network() as net,
        archives(tmp_path, net, 2) as destinations,
        cluster(net, tmp_path / "node", profile, destinations, MACHINES, DELIVERERS, scale.url) as node,
    ):
        modality, probe = (
            Modality(tmp_path / name, node.address, pause_s=0.5, answer_s=scale.answer_s)
            for name in ("modality", "probe")
        )
        faults = Faults(node, probe, chance, scale.away_s)
        last = range(images - LAST, images)
        lots = [*divided(images - LAST, len(planned) - 1), last]
        probe.take(*last[:PROBES])
        for fault, lot in zip(planned, lots, strict=True):
            wait_until(lambda: waiting(node.counts()) <= AT_ONCE, "images are judged and delivered")
            with modality.sending(modality.take(*lot), ASSOCIATIONS):
                time.sleep(min(chance.expovariate(1 / BEGINS_S), 4 * BEGINS_S))
                getattr(faults, fault)()
                over_at = time.monotonic()
            print(f"{fault}: all is acknowledged {time.monotonic() - over_at:.1f} s after it")
        wait_until(lambda: not waiting(node.counts()), "everything is settled")
        drained_s = time.monotonic() - over_at
        node.shut_down()
        kept = [archive.kept() for archive in destinations]
        accounting = draw_up(node.held(), modality.sources, modality.acknowledged, kept)
        ends = [end for machine in node.started for end in machine.deaths]
    report(
        accounting,
        faults=",".join(planned),
        drained_s=round(drained_s, 1),
        refused_when_cut_off=probe.refused[OUT_OF_RESOURCES],
        broken_associations=modality.broken,
        refused=modality.refused.total(),
        repeated_sends=[len(one) - 3 * images for one in kept],
        restarts=Counter(f"{role} {code}" for role, code in ends),
    )
    assert all(code not in (0, EXIT_CONFIG) for _, code in ends), ends
    assert accounting.is_clean
    assert accounting.delivered == accounting.acknowledged == images
    assert drained_s <= scale.drained_s


def stored_from(at: datetime, said: str) -> Iterator[str]:
    """Lines about objects whose storing began from then on; the time of a line is that of its end, in whole seconds."""
    for line, ended, took_ms in re.findall(r"^((\S+) INFO receive stored .* ms=(\d+))$", said, re.MULTILINE):
        if datetime.fromisoformat(ended) - timedelta(milliseconds=int(took_ms)) >= at:
            yield line


def divided(images: int, parts: int) -> list[range]:
    """Consecutive numbers in parts of about the same size."""
    return [range(each * images // parts, (each + 1) * images // parts) for each in range(parts)]


@contextmanager
def archives(folder: Path, net: Network, number: int) -> Iterator[list[Archive]]:
    """Destinations outside of every machine, as the senders are."""
    made = [
        Archive(folder / f"archive{each}.jsonl", free_port(), seed=each, host=net.address) for each in range(number)
    ]
    try:
        for archive in made:
            archive.start()
        yield made
    finally:
        for archive in made:
            archive.kill()
