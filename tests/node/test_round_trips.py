"""What an image costs the ledger in statements and transactions: each is a round trip to a server, on every engine."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.sql.elements import BinaryExpression

from benchmarks import moves
from cxr_node.node.ledger.lease_keeper import LeaseKeeper
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.work.worker import Lanes
from tests import postgres
from tests.node import ledgers, workplace

MOST = {"statements": 70, "transactions": 12}
"""Of an image that is a study of its own, with three results at one destination; raise it knowingly."""
IMAGES = 3


@pytest.mark.parametrize("engine", postgres.ENGINES)
def test_an_image_costs_no_more_round_trips(engine: str, tmp_path: Path) -> None:
    clock = ledgers.Clock(datetime.now(UTC) + timedelta(minutes=1))  # all is due, and no second passes
    with ledgers.opened(engine, tmp_path, clock) as ledger:
        costs = moves.Moves(ledger, IMAGES).run()
    for what, most in MOST.items():
        assert sum(cost[what] for cost in costs.values()) <= most + 2 / IMAGES, costs  # what is made once


@pytest.mark.parametrize("engine", postgres.ENGINES)
def test_no_image_has_statements_built_for_it(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To build one takes ten times as long as to execute it: each is built once, for all images."""
    built = 0
    compare = BinaryExpression.__init__

    def counted(*given: Any, **named: Any) -> None:
        nonlocal built
        built += 1
        compare(*given, **named)

    seen = []
    clock = ledgers.Clock(datetime.now(UTC) + timedelta(minutes=1))
    for images in (1, 2, 5):
        with ledgers.opened(engine, folder(tmp_path, images), clock) as ledger:
            monkeypatch.setattr(BinaryExpression, "__init__", counted)
            moves.Moves(ledger, images).run()
            monkeypatch.setattr(BinaryExpression, "__init__", compare)
        seen.append(built)
        built = 0
    assert seen[1] == seen[2] < 20, seen


def folder(above: Path, number: int) -> Path:
    made = above / str(number)
    made.mkdir()
    return made


def test_a_look_for_studies_costs_no_transaction_for_each_image(tmp_path: Path) -> None:
    """While images wait, a worker looks now and then; once none waits, at once."""
    settings = workplace.config(tmp_path / "spool")
    workplace.receive(settings, *range(1, 6))
    with closing(Ledger.open(settings.spool.path)) as ledger, closing(LeaseKeeper(ledger, 60.0)) as keeper:
        worker, meter = workplace.worker(settings, ledger), moves.Meter(ledger, lambda: 0.0)
        with Lanes(worker, keeper, 1) as lanes, meter.of("five images"):
            while lanes.take_one():
                pass
    assert meter.costs["five images"].transactions < 6 * 4  # with a look for each: 6 x (look, claim, precedent, settle)
