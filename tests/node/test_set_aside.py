"""What an operator ends stays known, with the reason and who it was, and can be taken back."""

from __future__ import annotations

import pytest

from cxr_node.domain import Reason
from cxr_node.node.deliver import removed_destinations
from cxr_node.node.ledger import listing, operator_moves, queries, results, set_aside
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.lookup import matching
from cxr_node.node.ledger.set_aside import SetAside
from cxr_node.node.ledger.stages import Stage
from cxr_node.node.ledger.states import DeadReason, DeliveryState, InstanceState, SetAsideReason
from cxr_node.outcome import Rejected
from tests.node import ledgers
from tests.node.ledgers import Clock, retried
from tests.node.test_ledger import PACS, add, claimed, clock, due, ledger, reported, state

__all__ = ["clock", "ledger"]  # fixtures

BOTH = PACS | {"second": PACS["pacs"]}
WRONG = SetAsideReason.WRONG_PATIENT


def aside(ledger: Ledger, *ids: int, to: str | None = None) -> SetAside:
    return set_aside.set_aside(ledger, ids or (1,), WRONG, by="anna", destination=to)


def found(ledger: Ledger) -> list[int]:
    return [row.id for row in listing.find(ledger, listing.Wanted(stage=Stage.SET_ASIDE), 50)]


def story(ledger: Ledger, number: int = 1) -> queries.Story:
    return queries.trace(ledger, f"#{number}")[0]


def test_an_image_that_waits_is_never_judged_until_it_is_taken_back(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    assert aside(ledger) == SetAside(ids=(1,))
    assert ledger.claim_instance("work", 60.0) is None
    row = story(ledger).instance
    assert (row.state, row.reason, row.sentence) == ("SET_ASIDE", WRONG, "by anna, 2026-03-01 12:00:00 UTC")
    assert (story(ledger).events[-1].what, story(ledger).events[-1].detail) == ("set-aside", f"{WRONG}, by anna")
    assert found(ledger) == [1]
    assert retried(ledger, "1.2.1", "pacs") == 1
    assert claimed(ledger).instance_id == 1
    assert story(ledger).events[-1].detail == "by anna, back to RECEIVED"
    assert story(ledger).instance.reason is None


def test_what_died_is_no_longer_dead(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    assert ledger.settle_dead(claimed(ledger), DeadReason.FAULT, "a fault")
    assert aside(ledger, to="pacs") == SetAside(), "no destination is concerned"
    assert aside(ledger) == SetAside(ids=(1,))
    assert queries.counts(ledger)[InstanceState.DEAD] == 0
    all_dead = operator_moves.Again(destinations=["pacs"], by="anna")
    assert operator_moves.retry(ledger, matching("1.2.1"), all_dead).instances == 0, "`retry --dead` leaves it"
    assert retried(ledger, "1.2.1") == 1


def test_what_is_in_hand_is_left_as_it_is(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    job = claimed(ledger)
    assert aside(ledger) == SetAside(in_hand=1)
    assert ledger.settle_reported(job, ledgers.finding(), ledgers.results(), PACS)
    sending = due(ledger)
    assert aside(ledger) == SetAside(ids=(1,), deliveries=2, in_hand=1)
    assert ledger.settle_delivered(sending, 0x0000)
    assert state(ledger) is InstanceState.SET_ASIDE


def test_a_worker_whose_lease_is_over_cannot_bring_it_back(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    job = claimed(ledger)
    clock.forward(3600)
    assert aside(ledger) == SetAside(ids=(1,))
    assert not ledger.settle_reported(job, ledgers.finding(), ledgers.results(), PACS)
    assert state(ledger) is InstanceState.SET_ASIDE


def test_one_destination_is_left_out_and_the_others_get_it(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, BOTH)
    assert aside(ledger, to="second") == SetAside(ids=(1,), deliveries=3)
    assert (state(ledger), found(ledger)) == (InstanceState.REPORTED, [1])
    for _ in range(3):
        assert ledger.settle_delivered(due(ledger), 0x0000)
    row = story(ledger).instance
    assert (row.state, row.reason, row.sentence) == ("SET_ASIDE", WRONG, "by anna, 2026-03-01 12:00:00 UTC")
    ended = [each for each in story(ledger).deliveries if each.destination == "second"]
    assert {(each.state, each.reason) for each in ended} == {(DeliveryState.SET_ASIDE, WRONG)}
    assert ledger.claim_delivery("second", "courier", 60.0) is None
    assert retried(ledger, "1.2.1", "second") == 1
    assert state(ledger) is InstanceState.REPORTED
    again = due(ledger, "second")
    assert {each.reason for each in story(ledger).deliveries} == {None}
    assert again.attempts == 1


def test_what_a_destination_refused_is_ended_and_what_another_refused_stays_dead(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, BOTH)
    for name in BOTH:
        for _ in range(3):
            assert ledger.settle_delivery_dead(due(ledger, name), status=0x0122, detail="refused")
    assert state(ledger) is InstanceState.DEAD
    assert aside(ledger, to="pacs") == SetAside(ids=(1,), deliveries=3)
    assert state(ledger) is InstanceState.DEAD
    assert queries.dead_deliveries(ledger) == {"second": 3}
    assert aside(ledger) == SetAside(ids=(1,), deliveries=3)
    assert state(ledger) is InstanceState.SET_ASIDE
    assert queries.dead_deliveries(ledger) == {}
    assert aside(ledger) == SetAside(), "there is nothing left to end"


def test_a_rejected_image_stays_rejected_when_its_note_is_set_aside(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    rejected = Rejected(reason=Reason.COLOR, sentence="It is in color.")
    assert ledger.settle_rejected(claimed(ledger), rejected, ledgers.results()[:1], PACS)
    assert aside(ledger) == SetAside(ids=(1,), deliveries=1)
    assert state(ledger) is InstanceState.REJECTED
    assert ledger.claim_delivery("pacs", "courier", 60.0) is None
    assert found(ledger) == [1]


def test_a_result_that_two_images_share_ends_for_both(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock)
    add(ledger, clock, 1, content=77)
    assert ledger.settle_reported(claimed(ledger), ledgers.finding(), ledgers.results(), PACS)
    assert aside(ledger, 1) == SetAside(ids=(1,), deliveries=3)
    assert [story(ledger, number).instance.state for number in (1, 2)] == [InstanceState.SET_ASIDE] * 2


@pytest.mark.parametrize("to", ["pacs", "second"])
def test_results_that_are_sent_again_are_set_aside_no_more(ledger: Ledger, clock: Clock, to: str) -> None:
    reported(ledger, clock)
    assert aside(ledger) == SetAside(ids=(1,), deliveries=3)
    with ledger.database.writing() as connection:
        artifact_id = results.find(connection, 1) and 1
        assert operator_moves._make_due(connection, artifact_id, to, DeliveryState.READY, 2, clock()) is None
        operator_moves._reopen(connection, artifact_id, clock())
    assert state(ledger) is InstanceState.REPORTED


def test_forgetting_a_destination_keeps_what_was_set_aside_for_it(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock)
    assert aside(ledger) == SetAside(ids=(1,), deliveries=3)
    assert removed_destinations.forget(ledger, "pacs", by="bert").deliveries == 0
    assert found(ledger) == [1]


def test_an_image_that_arrives_again_stays_set_aside(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    aside(ledger)
    assert not ledger.add(ledgers.reference(1), ledgers.origin(clock), ledgers.digest(1), 4711)
    assert state(ledger) is InstanceState.SET_ASIDE
