"""A bomb, or a decoder that crashes, costs one image: the worker lives, stays small, and goes on (T8, T9).

Short: bombs of 16 megapixels, one crash. Long: bombs of 100 megapixels, the largest that are decoded; ten crashes.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from cxr_node.node.ledger.states import SETTLED, InstanceState
from tests import builders
from tests.chaos.bombs import bombs
from tests.chaos.conftest import Report
from tests.chaos.corpus import SYNTAXES
from tests.chaos.mutations import Mutant
from tests.chaos.roles import Peak, Role
from tests.chaos.test_corpus import Sender
from tests.node import wire
from tests.patience import eventually
from tests.processes import children

WORKER_LIMIT_MIB = 4096
"""MemoryMax of systemd/cxr-node-work.service, for the worker and its decoder together."""
SHORT_OR_LONG = [False, pytest.param(True, marks=[pytest.mark.chaos, pytest.mark.timeout(900)])]


@pytest.mark.parametrize("is_long", SHORT_OR_LONG, ids=["short", "long"])
def test_bombs(tmp_path: Path, profile: Path, report: Report, is_long: bool) -> None:
    model = {"profile": str(profile), "threads": 1}
    with Role(tmp_path, "receive") as node, Role(tmp_path, "work", model=model) as worker:
        base = node.usage()
        with Peak(node.pid) as peak, Peak(worker.pid, with_children=True) as worked:
            sender, names, refused = Sender(node.port), dict[str, str](), list[str]()
            for bomb in bombs(is_long):
                status = sender.send(_plain(bomb.sop_instance_uid, bomb.syntax, bomb.data_set))
                names[bomb.sop_instance_uid] = bomb.name
                if status != 0x0000:
                    refused.append(f"{bomb.name}: 0x{status or 0:04X}")
                else:
                    print(f"{bomb.name}: {len(bomb.data_set):,} bytes claim {bomb.claims_bytes:,}")
            after = _radiograph(990)
            assert sender.send(after) == 0x0000
            sender.close()
            assert eventually(lambda: all(row.state in SETTLED for row in node.rows()), 300)
        rows = {row.sop_instance_uid: row for row in node.rows()}
        lived = node.lives() and worker.lives()
    fates = [f"{names[uid]}: {row.state}({row.reason})" for uid, row in rows.items() if uid in names]
    report(
        f"bombs={len(names)} refused={refused} fates={fates}",
        worker_rss_mib=round(worked.rss_mib),
        decoder_rss_mib=round(worked.child_rss_mib),
        limit_mib=WORKER_LIMIT_MIB,
        receiver_rss_growth_mib=round(peak.rss_mib - base.rss_mib),
    )
    assert lived, "a process ended"
    assert worked.rss_mib + worked.child_rss_mib <= WORKER_LIMIT_MIB
    assert peak.rss_mib - base.rss_mib <= 50
    assert all(row.state is InstanceState.REJECTED for uid, row in rows.items() if uid in names), fates
    assert rows[after.affected_uid.decode()].state is InstanceState.DELIVERED
    assert len(rows) + len(refused) == len(names) + 1


@pytest.mark.parametrize("is_long", SHORT_OR_LONG, ids=["short", "long"])
def test_a_decoder_that_crashes_costs_at_most_its_image(
    tmp_path: Path, profile: Path, report: Report, is_long: bool
) -> None:
    """SIGSEGV to the child that decodes, in the middle of a batch: what else is in the batch is judged as ever."""
    images, crashes = (40, 10) if is_long else (8, 1)
    model = {"profile": str(profile), "threads": 1}
    with Role(tmp_path, "receive") as node, Role(tmp_path, "work", model=model) as worker:
        killed: set[int] = set()
        done = threading.Event()

        def crash() -> None:
            while len(killed) < crashes and not done.is_set():
                for child in children(worker.pid):
                    if child not in killed:
                        os.kill(child, signal.SIGSEGV)
                        killed.add(child)
                time.sleep(0.01)

        sender = Sender(node.port)
        killer = threading.Thread(target=crash, daemon=True)
        killer.start()
        for number in range(images):
            assert sender.send(_radiograph(1000 + number, SYNTAXES[4])) == 0x0000
        sender.close()
        settled = eventually(lambda: all(row.state in SETTLED for row in node.rows()), 240)
        done.set()
        killer.join()
        rows, lives = node.rows(), worker.lives()
    unjudged = [row for row in rows if row.state is not InstanceState.DELIVERED]
    report(
        f"images={images} delivered={images - len(unjudged)} decoder_crashes={len(killed)} worker_restarts={not lives}"
    )
    assert lives
    assert settled
    assert len(killed) == crashes
    assert len(rows) == images
    assert len(unjudged) <= crashes


def _radiograph(number: int, syntax: str = SYNTAXES[0]) -> Mutant:
    dataset = builders.radiograph(number, builders.chest(rows=320, columns=288))
    return _plain(str(dataset.SOPInstanceUID), syntax, wire.data_set_of(builders.part10(dataset, syntax)))


def _plain(uid: str, syntax: str, data_set: bytes) -> Mutant:
    return Mutant(number=0, changes=(), syntax=syntax, affected_uid=uid.encode(), data_set=data_set)
