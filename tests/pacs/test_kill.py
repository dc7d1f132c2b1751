"""kill -9 of each of the node's processes in a loop while 200 images are sent: none is lost, none comes twice."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from cxr_node.node.recorder import Recorder
from tests import builders
from tests.pacs.peers import Node, need, run, wait_until
from tests.pacs.test_routing import counts

pytestmark = pytest.mark.pacs

IMAGES = 200
BATCH = 10
SEED = 20240601


def killer(node: Node, stop: threading.Event, killed: Counter[str]) -> None:
    """SIGKILL one role after the other, at random moments; the supervisor starts it again."""
    chance = random.Random(SEED)
    while not stop.wait(chance.uniform(1.0, 4.0)):
        roles = node.roles()
        if roles:
            role = chance.choice(sorted(roles))
            os.kill(roles[role], signal.SIGKILL)
            killed[role] += 1


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
    stop, killed = threading.Event(), Counter[str]()
    with Recorder(tmp_path / "pacs", "PACS") as pacs:
        destination = {"name": "pacs", "address": str(pacs.address)}
        work, delivery = {"lease_s": 5}, {"first_delay_s": 0.2, "max_delay_s": 1}
        with Node(tmp_path / "node", [destination], work=work, delivery=delivery) as node:
            thread = threading.Thread(target=killer, args=(node, stop, killed))
            thread.start()
            try:
                tries = sum(store_until_acknowledged(node, files[at : at + BATCH]) for at in range(0, IMAGES, BATCH))
                threading.Event().wait(20.0)
            finally:
                stop.set()
                thread.join()
            wait_until(lambda: counts(node)["DELIVERED"] == IMAGES, 240, f"all delivered, not {counts(node)}")
            states = counts(node)
        kept = sorted(path.name for path in (tmp_path / "pacs").glob("*.dcm"))
        repeats = len(pacs.stored) - len(kept)
    print(f"kills {dict(killed)}, batches sent {tries}, states {states}, objects {len(kept)}, repeats {repeats}")
    assert killed.total() >= 6
    assert {state: number for state, number in states.items() if number} == {"DELIVERED": IMAGES}
    assert len(kept) == 3 * IMAGES
