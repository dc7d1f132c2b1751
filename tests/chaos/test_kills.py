"""kill -9 of receive, work and deliver at random and at named places while images come in: FAULTS T16, T17, T21."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from cxr_node.node import send
from tests.chaos.accounting import settle
from tests.chaos.archive import Archive
from tests.chaos.conftest import Report
from tests.chaos.node import ROLES, Node, wait
from tests.chaos.senders import Modality

SHORT, LONG = (60, 8), (1000, 50)
"""Images, and kills."""
_LIFE_S = (2.0, 6.0)
"""Mean time that a role lives on after it was seen at work, in the short and in the long run."""


class Killer(threading.Thread):
    """SIGKILLs roles at random moments of their work until it has done so often enough."""

    def __init__(self, node: Node, chance: random.Random, number: int, life_s: float) -> None:
        super().__init__(name="killer")
        self.kills: Counter[str] = Counter()
        self.done = threading.Event()
        self._node, self._chance, self._number, self._life_s = node, chance, number, life_s
        self._due_at: dict[int, float] = {}

    def run(self) -> None:
        while self.kills.total() < self._number and not self.done.wait(0.02):
            for role in ROLES:
                self._visit(role)

    def _visit(self, role: str) -> None:
        pid = self._node.pid(role)
        if pid is None:
            return
        if pid not in self._due_at:
            self._due_at[pid] = time.monotonic() + self._chance.expovariate(1 / self._life_s)
        elif time.monotonic() >= self._due_at[pid] and self.kills.total() < self._number:
            os.kill(pid, signal.SIGKILL)
            self._due_at[pid] = float("inf")
            self.kills[role] += 1


@pytest.mark.parametrize(
    ("images", "kills"), [SHORT, pytest.param(*LONG, marks=[pytest.mark.chaos, pytest.mark.timeout(3600)])]
)
def test_random_kills(
    tmp_path: Path, profile: Path, chance: random.Random, report: Report, images: int, kills: int
) -> None:
    archives = [Archive(tmp_path / f"archive{number}.jsonl", send.free_port("127.0.0.1")) for number in range(2)]
    for archive in archives:
        archive.start()
    life_s = _LIFE_S[images == LONG[0]]
    with Node(tmp_path / "node", profile, archives) as node:
        modality = Modality(tmp_path / "modality", node.address)
        killer = Killer(node, chance, kills, life_s)
        killer.start()
        try:
            with modality.sending(modality.take(*range(1, images + 1))):
                pass
            wait(lambda: not killer.is_alive(), 60.0 * kills, f"{kills} kills")
        finally:
            killer.done.set()
            killer.join()
        wait(node.is_idle, 60.0 + images, "everything is settled")
        took_s = node.stop()
    kept = [archive.kept() for archive in archives]
    accounting = settle(node.spool, modality.sources, modality.acknowledged, kept)
    repeats = [len(one) - 3 * images for one in kept]
    report(
        accounting,
        kills=dict(killer.kills),
        restarts=node.restarts.total(),
        broken_associations=modality.broken,
        repeated_sends=repeats,
        stop_s=round(took_s, 1),
    )
    assert accounting.is_clean
    assert accounting.delivered == images
