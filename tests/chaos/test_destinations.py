"""Nine destinations, of which one is well: it gets everything in time, and so do the others when they recover.

FAULTS T20 and T21. What answers 0x0000 and throws the object away cannot be noticed by a Storage SCU (PS3.4 B.2.3):
only storage commitment (PS3.4 J) or a query would tell; the account below shows it, and nothing is expected of it.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import DeliveryState
from tests.chaos.accounting import complete, settle
from tests.chaos.archive import Archive, flapping
from tests.chaos.conftest import Listening, Report
from tests.chaos.node import Node
from tests.chaos.senders import Modality
from tests.patience import NODE_S, wait_until

TEMPERS = ("steady", "steady", "full", "strict", "mute", "lying", "aborting", "slow", "steady")
NAMES = ("steady", "flapping", "full", "strict", "mute", "lying", "aborting", "slow", "dead")


@pytest.mark.parametrize("images", [6, pytest.param(200, marks=[pytest.mark.chaos, pytest.mark.timeout(3600)])])
def test_destinations_of_every_temper(
    tmp_path: Path, profile: Path, chance: random.Random, listening: Listening, report: Report, images: int
) -> None:
    archives = listening(*TEMPERS)
    by_name = dict(zip(NAMES, archives, strict=True))
    by_name["dead"].kill()
    with Node(tmp_path / "node", profile, archives) as node:
        modality = Modality(tmp_path / "modality", node.address)
        with flapping(by_name["flapping"], chance):
            began = time.monotonic()
            with modality.sending(modality.take(*range(images))):
                pass
            wait_until(lambda: _has(by_name["steady"], images), "the steady one has everything", NODE_S + images)
            steady_s = time.monotonic() - began
            assert not by_name["dead"].kept()
            assert not node.is_idle()  # others still wait, and it did not wait for them
        by_name["dead"].start()
        by_name["slow"].kill()
        by_name["slow"].temper = "steady"
        by_name["slow"].start()
        wait_until(node.is_idle, "everybody has everything", NODE_S + 3 * images)
        node.shut_down()
    honest = [archive for name, archive in by_name.items() if name != "lying"]
    accounting = settle(node.spool, modality.sources, modality.acknowledged, [one.kept() for one in honest])
    dead = _dead(node.spool)
    report(accounting, restarts=node.restarts.total(), steady_s=f"{steady_s:.1f}")
    for number, (name, archive) in enumerate(by_name.items()):
        sends, due = [one.sop_instance_uid for one in archive.kept()], 3 * images
        report(f"  {name}: due={due} kept={len(set(sends))} sends={len(sends)} dead={dead.get(f'archive{number}', 0)}")
    assert accounting.is_clean
    assert accounting.delivered + accounting.dead == images
    for number, (name, archive) in enumerate(by_name.items()):
        if name not in ("lying", "strict"):
            assert _has(archive, images), name
        assert name == "strict" or not dead.get(f"archive{number}")


def _has(archive: Archive, images: int) -> bool:
    return len(complete(archive.kept())) == images


def _dead(spool: Path) -> dict[str, int]:
    ledger = Ledger.open(spool)
    try:
        return {name: states[DeliveryState.DEAD] for name, states in queries.queues(ledger).items()}
    finally:
        ledger.close()
