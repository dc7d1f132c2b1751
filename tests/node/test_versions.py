"""Where one feature meets another: several versions of an image, answers that were replaced, notes, what was removed.

On the code before, an answer that another one had replaced was still sent, by the queue, by a destination that came
back, or because its archive had lost it; an image that died when it was judged again could not be retried; the note
about a rejected image could not be sent again; and who waited for an earlier version was called "the next".
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from cxr_node.cli import ledger_tables
from cxr_node.node.deliver import removed_destinations
from cxr_node.node.ledger import commitments, operator_moves, status
from cxr_node.node.ledger.states import DeadReason, InstanceState
from cxr_node.node.ledger.tables import deliveries, instances
from cxr_node.node.receive.receiver import Receiver
from tests.node.test_operator_moves import ADULT, PACS, SECOND, SOP, WARN, Node, opened_node, rules

AGAIN = operator_moves.Again(destinations=["pacs"], by="anna")
OTHER = {"results": {"installation_id": "other"}}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with opened_node(tmp_path) as opened:
        yield opened


def judged_again(node: Node, tmp_path: Path, *destinations: dict[str, object], **sections: object) -> None:
    node.config = rules(tmp_path, *destinations, **sections)
    assert operator_moves.rejudge(node.ledger, node.rows(), by="anna").queued == 1
    node.judge()


def died(node: Node) -> None:
    """A delivery after the other is refused for good."""
    while (job := node.ledger.claim_delivery("pacs", "courier", 60.0)) is not None:
        assert node.ledger.settle_delivery_dead(job, status=None, detail="gone")


def test_an_answer_that_was_not_sent_yet_is_withdrawn_by_another_one(node: Node, tmp_path: Path) -> None:
    node.receive()
    node.judge()
    judged_again(node, tmp_path, **OTHER)
    assert node.deliver() == 3
    assert node.states() == [("DELIVERED", None)]
    assert {event.what for event in node.stories()[0].events} >= {"delivery-withdrawn"}
    judged_again(node, tmp_path)
    assert node.deliver() == 3, "the first answer is the instance's again, and nobody has it"
    assert sorted(map(len, node.archive.values())) == [1] * 6


def test_what_a_courier_has_begun_to_send_is_not_withdrawn(node: Node, tmp_path: Path) -> None:
    node.receive()
    node.judge()
    job = node.ledger.claim_delivery("pacs", "courier", 60.0)
    assert job is not None
    judged_again(node, tmp_path, **OTHER)
    assert node.ledger.settle_delivered(job, 0x0000)
    assert node.deliver() == 3


def test_a_rejection_withdraws_the_answer_before_it(node: Node, tmp_path: Path) -> None:
    node.config = rules(tmp_path, **WARN)
    node.receive(**ADULT)
    node.judge()
    judged_again(node, tmp_path)
    assert node.deliver() == 0
    assert node.states() == [("REJECTED", "age-outside-population")]


def test_an_image_that_died_when_it_was_judged_again_is_retried(node: Node) -> None:
    node.receive()
    assert node.answered() == 3
    assert operator_moves.rejudge(node.ledger, node.rows(), by="anna").queued == 1
    job = node.ledger.claim_instance("worker", 60.0)
    assert job is not None
    assert node.ledger.settle_dead(job, DeadReason.FAULT, "a fault")
    assert operator_moves.retry(node.ledger, sa.true(), AGAIN) == operator_moves.Retried(instances=1)
    assert node.stories()[0].instance.state is InstanceState.RECEIVED
    assert node.answered() == 0
    assert node.states() == [("DELIVERED", None)]


def test_answers_that_were_replaced_do_not_come_back_with_their_destination(node: Node, tmp_path: Path) -> None:
    node.receive()
    node.judge()
    removed_destinations.settle(node.ledger, [])
    judged_again(node, tmp_path, SECOND, **OTHER)
    assert node.deliver() == 1
    assert not removed_destinations.revive(node.ledger, ["pacs", "second"])
    assert node.states() == [("DELIVERED", None)]


def test_a_replaced_answer_that_died_is_nothing_to_retry(node: Node, tmp_path: Path) -> None:
    node.receive()
    node.judge()
    died(node)
    judged_again(node, tmp_path, **OTHER)
    assert operator_moves.retry(node.ledger, sa.true(), AGAIN) == operator_moves.Retried()


@pytest.mark.parametrize("corrected", [True, False], ids=["corrected", "judged again"])
def test_what_was_replaced_is_not_sent_again_to_an_archive_that_lost_it(
    node: Node, tmp_path: Path, corrected: bool
) -> None:
    node.receive(PatientName="Wrong^Name")
    node.judge()
    sent = []
    while (job := node.ledger.claim_delivery("pacs", "courier", 60.0)) is not None:
        assert node.ledger.settle_delivered(job, 0x0000, promised=True)
        sent.append(job.artifact.sop_instance_uid)
    if corrected:
        node.receive(PatientName="Right^Name")
        assert node.answered() == 3
    else:
        judged_again(node, tmp_path, **OTHER)
        assert node.deliver() == 3
    now = node.ledger.now
    node.ledger.now = lambda: now() + timedelta(minutes=5)
    asked = commitments.begin(node.ledger, "pacs")
    assert asked is not None
    report = commitments.Report(transaction_uid=asked.uid, committed=(), failed=dict.fromkeys(sent, 0x0112))
    done = commitments.answer(node.ledger, asked, report, lambda _: 0.0)
    assert done == {"given up": 3, "committed": 0}
    assert node.deliver() == 0


def test_the_note_about_a_rejected_image_is_sent_again(node: Node, tmp_path: Path) -> None:
    node.config = rules(tmp_path, PACS | {"send": ["report", "not-analysed"]})
    node.receive(**ADULT)
    assert node.answered() == 1
    assert node.resend().due == {"pacs": 1}
    assert node.deliver() == 1
    assert node.states() == [("REJECTED", "age-outside-population")]
    node.config = rules(tmp_path)
    assert not node.resend().due


def test_a_version_that_waits_for_an_earlier_one_says_so(node: Node) -> None:
    node.receive()
    node.receive(PatientName="Right^Name")
    first, second = (
        status.explained(node.ledger, story, status.surroundings(node.ledger, node.config.spool.path, ["pacs"]))
        for story in node.stories()
    )
    assert first.instance.why is not None and first.instance.why.endswith("it is the next")
    assert second.instance.why is not None
    assert second.instance.why.endswith("image #1, an earlier version of it, is to be judged first")


def test_an_earlier_version_that_comes_again_is_told_with_what_sends_it(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.receive()
    node.receive(PatientName="Right^Name")
    assert node.answered() == 6
    node.receive()
    assert node.answered() == 0, "the archive has it"
    receiver = Receiver(node.config, lambda _: None, node.spool, lambda: node.ledger)  # type: ignore[arg-type, return-value]
    with caplog.at_level(logging.WARNING, logger="cxr_node"):
        receiver._tell_of_later(2)
        assert not caplog.records
        receiver._tell_of_later(1)
    assert "instance=1 replaced_by=2 (cxr-node resend 1 " in caplog.text
    (first, second) = node.stories()
    assert first.instance.repeated_at is not None
    assert "`cxr-node resend 1`" in ledger_tables._versions(first)["replaced by"]
    assert "resend" not in str(ledger_tables._versions(second))
    assert node.resend(rows=[1]).due == {"pacs": 3}


def test_nothing_of_a_withdrawn_answer_is_left_in_the_queue(node: Node, tmp_path: Path) -> None:
    node.receive()
    node.judge()
    judged_again(node, tmp_path, **OTHER)
    with node.ledger.database.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(deliveries)) == 3
        assert connection.scalar(sa.select(instances.c.sop_instance_uid)) == SOP
