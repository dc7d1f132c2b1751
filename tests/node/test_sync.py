"""Which transactions wait for the disk: all that anybody relies on, and no lease."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from cxr_node.domain import Reason
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import DeadReason
from cxr_node.outcome import Rejected
from tests.node.ledgers import (
    ALL,
    Clock,
    digest,
    finding,
    measurements_in_three_classes,
    opened,
    origin,
    reference,
    wishes,
)

NORMAL, FULL = 1, 2


def test_leases_alone_do_not_wait_for_the_disk(tmp_path: Path) -> None:
    clock, levels = Clock(), list[int]()

    def note(connection: sa.Connection) -> None:
        levels.append(int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one()))

    @contextmanager
    def commits(*expected: int) -> Iterator[None]:
        levels.clear()
        yield
        assert levels == list(expected)

    with opened("sqlite", tmp_path, clock) as ledger:
        sa.event.listen(ledger.database.engine, "commit", note)
        with commits(FULL, FULL, FULL):
            for number in (1, 2, 3):
                assert ledger.add(reference(number), origin(clock), digest(number), 4711)
        with commits(NORMAL, NORMAL, NORMAL):
            jobs = [job for _ in range(3) if (job := ledger.claim_instance("worker", 60.0))]
        with commits(NORMAL, FULL):
            assert ledger.extend(jobs[0], 60.0)
            assert ledger.release(jobs[0], delay_s=0.0, detail="")
        with commits(FULL, FULL):
            assert ledger.settle_rejected(jobs[1], Rejected(reason=Reason.NOT_CHEST, sentence=""))
            assert ledger.settle_dead(jobs[2], DeadReason.FAULT, "")
        with commits(NORMAL, FULL):
            job = ledger.claim_instance("worker", 60.0)
            assert job is not None
            assert ledger.settle_reported(job, finding(), measurements_in_three_classes(), wishes(pacs=ALL))
        with commits(NORMAL, NORMAL, NORMAL):
            due = [one for _ in range(3) if (one := ledger.claim_delivery("pacs", "sender", 60.0))]
        with commits(FULL, FULL, FULL, FULL):
            assert ledger.choose(due[1], 1)
            assert ledger.settle_delivered(due[0], 0)
            assert ledger.postpone(due[1], delay_s=0.0, status=None, detail="")
            assert ledger.settle_delivery_dead(due[2], status=None, detail="")


ADD_AND_CLAIM = """
import sys
from pathlib import Path
from cxr_node.node.ledger.ledger import Ledger
from tests.node.ledgers import Clock, digest, origin, reference
ledger, clock = Ledger.open(Path(sys.argv[1])), Clock()
def mark(word): print(word, file=sys.stderr, flush=True)
for number in range(5):
    mark("ADD")
    ledger.add(reference(number), origin(clock), digest(number), 1)
    mark("CLAIM")
    assert ledger.claim_instance("me", 60.0)
mark("END")
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt-get install strace")
def test_the_system_is_asked_for_it(tmp_path: Path) -> None:
    """Seen from below: an fdatasync within each receipt, none within a claim."""
    trace = tmp_path / "trace"
    script = [sys.executable, "-c", ADD_AND_CLAIM, str(tmp_path)]
    strace = ["strace", "-f", "-o", str(trace), "-e", "trace=fsync,fdatasync,write"]
    subprocess.run([*strace, *script], check=True, capture_output=True, timeout=60)
    told = [line for line in trace.read_text().splitlines() if re.search('sync[(]|"(ADD|CLAIM|END)', line)]
    synced, word = {"ADD": [0] * 5, "CLAIM": [0] * 5}, ""
    turn = -1
    for line in told:
        if found := re.search('"(ADD|CLAIM|END)', line):
            word, turn = found[1], turn + (found[1] == "ADD")
        elif word in synced:
            synced[word][turn] += 1
    assert min(synced["ADD"]) >= 1
    assert synced["CLAIM"] == [0] * 5


def test_who_settles_makes_its_claim_durable_too(tmp_path: Path) -> None:
    """A connection that took a lease goes back to FULL for the next move, whichever thread takes it."""
    clock = Clock()
    with opened("sqlite", tmp_path, clock) as ledger:
        assert ledger.add(reference(), origin(clock), digest(1), 1)
        assert ledger.claim_instance("me", 60.0)
        assert _level(ledger, leasing=True) == NORMAL
        assert _level(ledger, leasing=False) == FULL
        assert _level(ledger, leasing=True) == NORMAL


def _level(ledger: Ledger, *, leasing: bool) -> int:
    with ledger.database.leasing() if leasing else ledger.database.writing() as connection:
        return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())
