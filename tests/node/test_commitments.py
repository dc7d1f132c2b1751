"""The contract of promises and of removed destinations, held by every engine of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cxr_node.node.deliver import removed_destinations
from cxr_node.node.ledger import commitments, expiry, queries
from cxr_node.node.ledger.commitments import Report, Transaction
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.lookup import matching
from cxr_node.node.ledger.states import DeliveryState, InstanceState, PromiseState
from tests.node.ledgers import ALL, Clock, purge, wishes
from tests.node.test_ledger import PACS, add, clock, due, ledger, reported, state

__all__ = ["clock", "ledger"]  # fixtures

UIDS = ("2.25.1.0", "2.25.1.1", "2.25.1.2")


@pytest.fixture
def accepted(ledger: Ledger, clock: Clock) -> Iterator[Ledger]:
    """Three results of instance 1, accepted a while ago."""
    reported(ledger, clock)
    for _ in UIDS:
        assert ledger.settle_delivered(due(ledger), 0x0000, promised=True)
    clock.forward(commitments.GATHER_S)
    yield ledger


def asked(ledger: Ledger) -> Transaction:
    transaction = commitments.begin(ledger, "pacs")
    assert transaction is not None
    return transaction


def told(ledger: Ledger, transaction: Transaction, *committed: str, **failed: int) -> dict[str, int]:
    """Report on those results; `failed` names them as kind=reason."""
    kinds = dict(zip(("report", "measurements", "heatmap"), UIDS, strict=True))
    lost = {kinds[kind]: reason for kind, reason in failed.items()}
    report = Report(transaction_uid=transaction.uid, committed=committed, failed=lost)
    return {what: number for what, number in commitments.answer(ledger, transaction, report, float).items() if number}


def stand(ledger: Ledger) -> list[PromiseState | None]:
    return [row.commitment for row in queries.trace(ledger, "1.2.1")[0].deliveries]


def test_all_that_was_accepted_lately_goes_into_one_transaction(accepted: Ledger, clock: Clock) -> None:
    with ThreadPoolExecutor(4) as pool:
        begun = [one for one in pool.map(lambda _: commitments.begin(accepted, "pacs"), range(4)) if one]
    assert [uid for one in begun for _, uid in one.references] == list(UIDS)
    assert stand(accepted) == ["ASKED"] * 3
    assert commitments.next_s(accepted, "pacs") == commitments.UNANSWERED_S
    commitments.acknowledged(accepted, begun[0], 3600.0)
    assert commitments.next_s(accepted, "pacs") == 3600.0
    assert commitments.next_s(accepted, "elsewhere") is None


def test_an_answer_that_overtakes_the_acknowledgement_stands(accepted: Ledger) -> None:
    one = asked(accepted)
    assert told(accepted, one, *UIDS) == {"committed": 3}
    commitments.acknowledged(accepted, one, 3600.0)
    commitments.postpone(accepted, one, 1.0, "the answer to the request was lost")
    assert commitments.refused(accepted, one, "no such SOP Class") == 0
    assert stand(accepted) == ["COMMITTED"] * 3
    assert told(accepted, one, *UIDS) == {}
    assert told(accepted, one, report=0x0112) == {}  # what was promised is not taken back by the same transaction
    assert commitments.next_s(accepted, "pacs") is None


def test_a_lost_object_reopens_its_delivery_and_its_instance_alone(accepted: Ledger, clock: Clock) -> None:
    reported(accepted, clock, 2, {})
    first = asked(accepted)
    assert told(accepted, first, *UIDS[1:], report=0x0112) == {"committed": 2, "sent again": 1}
    assert [state(accepted, number) for number in (1, 2)] == [InstanceState.REPORTED, InstanceState.DELIVERED]
    assert told(accepted, first, report=0x0112) == {}
    assert commitments.begin(accepted, "pacs") is None
    clock.forward(2.0)
    job = due(accepted)
    assert (job.artifact.sop_instance_uid, job.attempts) == (UIDS[0], 1)
    assert accepted.settle_delivered(job, 0x0000, promised=True)
    assert state(accepted) is InstanceState.DELIVERED
    clock.forward(commitments.GATHER_S)
    assert told(accepted, asked(accepted), UIDS[0]) == {"committed": 1}
    assert stand(accepted) == ["COMMITTED"] * 3


def test_a_dead_instance_stays_dead_after_its_lost_object_was_sent_again(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, PACS | wishes(gone=ALL[:1]))
    for _ in UIDS:
        assert ledger.settle_delivered(due(ledger), 0x0000, promised=True)
    assert ledger.settle_delivery_dead(due(ledger, "gone"), status=0x0122, detail="refused")
    assert state(ledger) is InstanceState.DEAD
    clock.forward(commitments.GATHER_S)
    assert told(ledger, asked(ledger), report=0x0112) == {"sent again": 1}
    clock.forward(2.0)
    assert ledger.settle_delivered(due(ledger), 0x0000, promised=True)
    assert state(ledger) is InstanceState.DEAD


def test_what_retention_took_cannot_be_sent_again(accepted: Ledger, clock: Clock) -> None:
    one = asked(accepted)
    purge(accepted, 1)
    assert told(accepted, one, report=0x0112) == {"given up": 1}
    assert state(accepted) is InstanceState.DELIVERED
    assert commitments.renew(accepted, matching("1.2.1"), ["pacs"], by="anna") == 0


def test_without_an_answer_the_number_of_requests_is_bounded(accepted: Ledger, clock: Clock) -> None:
    for _ in range(commitments.MAX_ASKS):
        assert commitments.give_up(accepted, "pacs", 72.0) == 0
        commitments.acknowledged(accepted, asked(accepted), 100 * 3600.0)
        clock.forward(100 * 3600.0)
    assert commitments.begin(accepted, "pacs") is None
    assert commitments.give_up(accepted, "pacs", 72.0) == 3
    assert queries.uncommitted(accepted) == {"pacs": {PromiseState.UNCOMMITTED: 3}}
    assert commitments.renew(accepted, matching("1.2.1"), ["pacs"], by="anna") == 3
    clock.forward(commitments.GATHER_S)
    assert len(asked(accepted).references) == 3


def test_requests_that_do_not_come_through_do_not_count_but_end(accepted: Ledger, clock: Clock) -> None:
    for _ in range(5 * commitments.MAX_ASKS):
        commitments.postpone(accepted, asked(accepted), 60.0, "no connection")
        clock.forward(60.0)
    assert commitments.give_up(accepted, "pacs", 72.0) == 0
    clock.forward(72 * 3600.0)
    assert commitments.give_up(accepted, "pacs", 72.0) == 3


def test_retention_waits_for_the_report_of_a_destination(accepted: Ledger, clock: Clock) -> None:
    clock.forward(1.0)
    assert expiry.expired(accepted, clock()) == []
    assert commitments.abandon(accepted, ["elsewhere"]) == 3
    assert [one.instance_id for one in expiry.expired(accepted, clock())] == [1]


def test_a_removed_destination_settles_and_a_returned_one_opens(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, PACS | wishes(gone=ALL))
    busy = due(ledger, "gone")
    assert removed_destinations.settle(ledger, ["pacs"]) == {"gone": 2}  # another process still sends the third
    assert ledger.settle_delivered(busy, 0x0000)
    for _ in UIDS:
        assert ledger.settle_delivered(due(ledger), 0x0000)
    assert state(ledger) is InstanceState.DEAD
    assert removed_destinations.settle(ledger, ["pacs"]) == removed_destinations.revive(ledger, ["pacs"]) == {}
    assert removed_destinations.revive(ledger, ["pacs", "gone"]) == {"gone": 2}
    assert state(ledger) is InstanceState.REPORTED
    assert queries.queues(ledger)["gone"][DeliveryState.READY] == 2
    for _ in range(2):
        assert ledger.settle_delivered(due(ledger, "gone"), 0x0000)
    assert state(ledger) is InstanceState.DELIVERED


def test_a_returned_destination_gets_nothing_that_retention_took(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, wishes(gone=ALL))
    assert removed_destinations.settle(ledger, []) == {"gone": 3}
    purge(ledger, 1)
    assert removed_destinations.revive(ledger, ["gone"]) == {}
    assert state(ledger) is InstanceState.DEAD


def test_the_same_image_again_is_counted(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, {})
    (story,) = queries.trace(ledger, "1.2.1")
    assert (story.instance.repeats, story.instance.repeated_at) == (0, None)
    for _ in range(3):
        clock.forward(10.0)
        assert not add(ledger, clock)
    (story,) = queries.trace(ledger, "1.2.1")
    assert (story.instance.repeats, story.instance.repeated_at) == (3, clock())
