"""A destination that an operator holds gets nothing until it is released, and then everything, none of it too old."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cxr_node.node.deliver import courier, removed_destinations
from cxr_node.node.ledger import commitments, holds, queries
from cxr_node.node.ledger.holds import HoldReason
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import InstanceState
from cxr_node.node.process.notify import Role, notify
from tests.node import peers, workplace
from tests.node.ledgers import Clock, results
from tests.node.test_courier import delivering, judged, reading, settled
from tests.node.test_ledger import PACS, clock, due, ledger, reported, state
from tests.patience import FOR_EVER_S, eventually

__all__ = ["clock", "ledger"]  # fixtures

DAY_S = 86_400.0


def test_what_is_held_waits_without_an_attempt_and_is_due_at_once_after_it(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, PACS | {"second": PACS["pacs"]})
    held = holds.hold(ledger, "pacs", "anna", HoldReason.MAINTENANCE)
    assert (held.since, held.by, held.reason) == (clock(), "anna", "maintenance")
    assert ledger.claim_delivery("pacs", "courier", 60.0) is None
    assert queries.next_delivery_s(ledger, "pacs") is None, "else its courier would not sleep"
    assert ledger.claim_delivery("second", "courier", 60.0) is not None
    clock.forward(5 * DAY_S)
    assert holds.release(ledger, "pacs", by="bert") == 3
    assert holds.look(ledger) == {}
    job = due(ledger)
    assert (job.attempts, job.first_due_at) == (1, clock()), "five days of a hold do not make it too old"
    assert holds.release(ledger, "pacs", by="bert") is None


def test_a_hold_is_one_however_often_it_is_asked_for(ledger: Ledger, clock: Clock) -> None:
    first = holds.hold(ledger, "pacs", "anna")
    clock.forward(60)
    assert holds.hold(ledger, "pacs", "bert", HoldReason.MIGRATION) == first
    assert holds.look(ledger) == {"pacs": first}


def test_what_is_in_hand_is_finished_and_what_fails_waits(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock)
    taken, other = due(ledger), due(ledger)
    holds.hold(ledger, "pacs", "anna")
    assert ledger.extend(taken, 60.0)
    assert ledger.settle_delivered(taken, 0x0000)
    assert ledger.postpone(other, delay_s=600.0, status=0xA700, detail="out of resources")
    clock.forward(601.0)
    assert ledger.claim_delivery("pacs", "courier", 60.0) is None
    holds.release(ledger, "pacs", by="bert")
    assert due(ledger).first_due_at == clock()


def test_more_than_one_batch_is_released(ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "_BATCH", 2)
    for number in range(1, 4):
        reported(ledger, clock, number)
    assert ledger.postpone(due(ledger), delay_s=600.0, status=None, detail="no answer")
    holds.hold(ledger, "pacs", "anna")
    clock.forward(DAY_S)
    assert holds.release(ledger, "pacs", by="bert") == 9
    assert [due(ledger).first_due_at for _ in range(9)] == [clock()] * 9


def test_commitment_is_not_asked_for_while_held_and_is_not_given_up_for_it(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock)
    for _ in results():
        assert ledger.settle_delivered(due(ledger), 0x0000, promised=True)
    clock.forward(commitments.GATHER_S)
    holds.hold(ledger, "pacs", "anna")
    assert commitments.next_s(ledger, "pacs") is None
    assert commitments.begin(ledger, "pacs") is None
    clock.forward(5 * DAY_S)
    holds.release(ledger, "pacs", by="bert")
    assert commitments.next_s(ledger, "pacs") == 0.0
    assert commitments.give_up(ledger, "pacs", 72.0) == 0
    asked = commitments.begin(ledger, "pacs")
    assert asked is not None
    assert len(asked.references) == 3


def test_a_destination_that_is_forgotten_is_not_held_when_it_comes_back(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock)
    holds.hold(ledger, "pacs", "anna")
    assert removed_destinations.forget(ledger, "pacs", by="anna").deliveries == 3
    assert holds.look(ledger) == {}
    assert state(ledger) is InstanceState.DELIVERED


def test_a_hold_outlives_the_process_and_a_release_wakes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over real associations: nothing arrives while it is held, everything after it is released."""
    monkeypatch.setattr(courier, "LOOK_AFTER_S", FOR_EVER_S)
    closed, free = peers.Archive(), peers.Archive()
    with peers.listening(closed) as one, peers.listening(free, ae_title="SECOND") as two:
        config = workplace.config(tmp_path / "spool", one, two)
        with reading(config) as ledger:
            holds.hold(ledger, "pacs0", "anna")
        for number in (1, 2):  # the second process finds it held, too
            judged(config, number)
            with delivering(config):
                assert free.wait(3 * number)
        assert closed.datasets == {}
        with delivering(config), reading(config) as ledger:
            assert eventually(lambda: notify(config.spool.path, Role.DELIVER) == 2)
            assert holds.release(ledger, "pacs0", by="bert") == 6
            notify(config.spool.path, Role.DELIVER)
            assert closed.wait(6)
            assert settled(config, "DELIVERED", 2)


def test_claims_and_a_hold_at_once_take_nothing_after_the_hold(ledger: Ledger, clock: Clock) -> None:
    for number in range(1, 11):
        reported(ledger, clock, number)
    claimed: list[int] = []
    stop = threading.Event()

    def claim() -> None:
        while not stop.is_set():
            job = ledger.claim_delivery("pacs", "courier", 60.0)
            if job is not None:
                claimed.append(job.claim.row_id)

    thread = threading.Thread(target=claim)
    thread.start()
    holds.hold(ledger, "pacs", "anna")
    known = len(claimed)
    stop.set()
    thread.join()
    assert len(claimed) <= known + 1, "one that had been claimed and not counted yet"
    assert ledger.claim_delivery("pacs", "courier", 60.0) is None
