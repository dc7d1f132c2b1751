"""kill -9 of each of the node's processes in a loop while 200 images are sent: none is lost, none comes twice."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from cxr_node.node.recorder import Recorder
from tests import builders
from tests.pacs.peers import Node, need, run, wait_until
from tests.pacs.test_routing import counts, is_idle

pytestmark = pytest.mark.pacs

IMAGES = 200
BATCH = 10
SEED = 20240601
LIFE_S = {"receive": 2.0, "work": 4.0, "deliver": 3.0}
"""Mean time that a role lives on after it was seen at work; the worker loads its weights before that."""
KILLS_EACH = 4


class Killer(threading.Thread):
    """SIGKILLs every role again and again, at random moments of its work; the supervisor starts it anew."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.kills: Counter[str] = Counter()
        self.done = threading.Event()
        self._node = node
        self._chance = random.Random(SEED)
        self._due_at: dict[int, float] = {}

    def run(self) -> None:
        while not self.done.wait(0.05):
            for role, process in self._node.roles().items():
                self._visit(role, process)

    def enough(self) -> bool:
        return all(self.kills[role] >= KILLS_EACH for role in LIFE_S)

    def _visit(self, role: str, process: int) -> None:
        if process not in self._due_at:
            if role == "receive" or any((self._node.spool / "run").glob(f"{role}-{process}-*.sock")):
                self._due_at[process] = time.monotonic() + self._chance.expovariate(1 / LIFE_S[role])
        elif time.monotonic() >= self._due_at[process]:
            os.kill(process, signal.SIGKILL)
            self._due_at[process] = float("inf")
            self.kills[role] += 1


def store_until_acknowledged(node: Node, files: list[Path]) -> int:
    """What a PACS does: send, and send again what was not answered with success. Returns the tries."""
    for tries in range(1, 200):
        done = run("storescu", "-R", "-to", "5", "-aec", node.ae_title, "127.0.0.1", node.port, *files)
        if done.returncode == 0:
            return tries
        threading.Event().wait(0.2)
    raise AssertionError("the node never took a batch")


@pytest.mark.timeout(600)
def test_two_hundred_images_survive_kills(tmp_path: Path) -> None:
    need("storescu")
    files = []
    for number in range(IMAGES):
        file = tmp_path / f"{number:03d}.dcm"
        file.write_bytes(builders.part10(builders.radiograph(number + 1)))
        files.append(file)
    with Recorder(tmp_path / "pacs", "PACS") as pacs:
        destination = {"name": "pacs", "address": str(pacs.address)}
        work, delivery = {"lease_s": 10}, {"first_delay_s": 0.2, "max_delay_s": 1}
        with Node(tmp_path / "node", [destination], work=work, delivery=delivery) as node:
            killer = Killer(node)
            killer.start()
            try:
                tries = sum(store_until_acknowledged(node, files[at : at + BATCH]) for at in range(0, IMAGES, BATCH))
                wait_until(lambda: killer.enough() or is_idle(node), 300, f"enough kills, not {killer.kills}")
            finally:
                killer.done.set()
                killer.join()
            wait_until(lambda: counts(node)["DELIVERED"] == IMAGES, 240, "everything delivered")
            states = counts(node)
        kept = sorted(path.name for path in (tmp_path / "pacs").glob("*.dcm"))
        repeats = len(pacs.stored) - len(kept)
    print(f"kills {dict(killer.kills)}, batches sent {tries}, states {states}, objects {len(kept)}, repeats {repeats}")
    assert all(killer.kills[role] for role in LIFE_S)
    assert {state: number for state, number in states.items() if number} == {"DELIVERED": IMAGES}
    assert len(kept) == 3 * IMAGES
