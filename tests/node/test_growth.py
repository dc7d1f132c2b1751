"""What the ledger does for one image does not grow with what it knows already: counted in SQLite's own steps.

A clock would tell of the machine; the steps of the virtual machine tell of a table that is read from end to end.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import rows
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import Ledger
from tests.node.ledgers import ALL, Clock, digest, finding, opened, origin, reference, results, wishes

FEW, MANY = 100, 5_000
PACS = "archive"
MOST_GROWTH = 1.1


class Steps:
    """Counts the virtual machine's instructions, by what they were done for."""

    def __init__(self, ledger: Ledger) -> None:
        self.spent: Counter[str] = Counter()
        self._now = ""
        sa.event.listen(ledger.database.engine, "checkout", self._watch)

    def _watch(self, connection: Any, *_: object) -> None:
        driver: sqlite3.Connection = connection
        driver.set_progress_handler(self._step, 1)

    def _step(self) -> int:
        self.spent[self._now] += 1
        return 0

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        self._now = what
        yield
        self._now = ""


def course(ledger: Ledger, clock: Clock, steps: Steps, number: int) -> None:
    """One image from its receipt to the last of its deliveries."""
    with steps.of("arrive"):
        assert ledger.add(reference(number), origin(clock), digest(number), 4711)
    with steps.of("claim"):
        job = ledger.claim_instance("work", 60.0)
    assert job is not None
    with steps.of("precedent"):
        queries.precedent(ledger, job)
    with steps.of("settle"):
        assert ledger.settle_reported(job, finding(), results(number), wishes(archive=ALL))
    for _ in ALL:
        with steps.of("claim delivery"):
            delivery = ledger.claim_delivery(PACS, "deliver", 60.0)
        assert delivery is not None
        with steps.of("settle delivery"):
            assert ledger.settle_delivered(delivery, 0x0000)
    with steps.of("what is next"):
        assert queries.next_instance_s(ledger) is None
        assert queries.next_delivery_s(ledger, PACS) is None


def spent(folder: Path, known: int, prepare: Callable[[Ledger, Clock], None]) -> Counter[str]:
    clock = Clock()
    folder.mkdir()
    rows.fill(folder, known)
    with opened("sqlite", folder, clock) as ledger:
        prepare(ledger, clock)
        steps = Steps(ledger)
        course(ledger, clock, steps, known + 1)
        return steps.spent


def test_an_image_costs_the_same_whatever_is_settled_already(tmp_path: Path) -> None:
    few, many = (spent(tmp_path / str(known), known, lambda *_: None) for known in (FEW, MANY))
    assert set(few) == set(many) and min(few.values()) > 0
    for what, steps in many.items():
        assert steps <= MOST_GROWTH * few[what], f"{what}: {few[what]} steps became {steps}"


def test_the_steps_are_counted_at_all(tmp_path: Path) -> None:
    """A table that is read from end to end shows."""
    seen = []
    for known in (FEW, MANY):
        rows.fill(tmp_path / str(known), known)
        with opened("sqlite", tmp_path / str(known), Clock()) as ledger:
            steps = Steps(ledger)
            with steps.of("counts"):
                queries.counts(ledger)
            seen.append(steps.spent["counts"])
    assert seen[1] > 10 * seen[0]


def test_a_claim_costs_the_same_whatever_waits(tmp_path: Path) -> None:
    seen = []
    for waiting in (10, 500):
        clock = Clock()
        (tmp_path / str(waiting)).mkdir()
        with opened("sqlite", tmp_path / str(waiting), clock) as ledger:
            for number in range(1, waiting + 1):
                ledger.add(reference(number), origin(clock), digest(number), 4711)
            steps = Steps(ledger)
            for _ in range(3):
                with steps.of("claim"):
                    assert ledger.claim_instance("work", 60.0) is not None
            seen.append(steps.spent["claim"])
    assert seen[1] <= MOST_GROWTH * seen[0]
