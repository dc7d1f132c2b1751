"""What was answered and how long it took, by time and by sender, from the node's own moves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from cxr_node.domain import Decision, Reason, Verdict
from cxr_node.node.ledger import commitments, quality
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.quality import Every, Turnaround
from cxr_node.outcome import Rejected
from tests.node import ledgers
from tests.node.ledgers import Clock
from tests.node.test_ledger import add, claimed, clock, due, ledger, reported

__all__ = ["clock", "ledger"]  # fixtures


def delivered(ledger: Ledger, clock: Clock, number: int, after_s: float) -> None:
    reported(ledger, clock, number)
    clock.forward(after_s)
    for _ in range(3):
        assert ledger.settle_delivered(due(ledger), 0x0000)


def uncertain(ledger: Ledger, clock: Clock, number: int) -> None:
    add(ledger, clock, number)
    doubtful = Decision(verdict=Verdict.INDETERMINATE, abstain_reason="views-disagree")  # type: ignore[arg-type]
    assert ledger.settle_reported(claimed(ledger), replace(ledgers.finding(), decision=doubtful), [], {})


def test_verdicts_reasons_and_turnaround_by_day_and_sender(ledger: Ledger, clock: Clock) -> None:
    begun = clock()
    for number in range(1, 6):
        delivered(ledger, clock, number, float(number))
    add(ledger, clock, 6)
    assert ledger.settle_rejected(claimed(ledger), Rejected(reason=Reason.COLOR, sentence="It is in color."))
    clock.forward(86_400)
    uncertain(ledger, clock, 7)
    add(ledger, clock, 8)
    clock.forward(1)
    found = quality.report(ledger, begun, every=Every.DAY, senders=True)
    assert found.since == begun
    today, yesterday = found.groups
    assert today.begins_at == yesterday.begins_at + timedelta(days=1) if yesterday.begins_at else False
    assert (yesterday.sender, yesterday.images) == ("MODALITY", 6)
    assert yesterday.verdicts == {"PNEUMONIA": 5, "REJECTED": 1}
    assert yesterday.rejections == {"color": 1}
    assert yesterday.turnaround == Turnaround(p50_s=3.0, p95_s=pytest.approx(4.8), number=5)
    assert (today.images, today.verdicts) == (2, {"UNCERTAIN": 1})
    assert today.abstain_reasons == {"views-disagree": 1}
    (whole,) = quality.report(ledger, begun).groups
    assert (whole.begins_at, whole.sender, whole.images) == (None, None, 8)


def test_what_is_sent_again_was_not_slow(ledger: Ledger, clock: Clock) -> None:
    """The archive lost an object a week later."""
    reported(ledger, clock)
    clock.forward(4)
    for _ in range(3):
        assert ledger.settle_delivered(due(ledger), 0x0000, promised=True)
    clock.forward(7 * 86_400)
    asked = commitments.begin(ledger, "pacs")
    assert asked is not None
    lost = commitments.Report(transaction_uid=asked.uid, committed=(), failed={asked.references[0][1]: 0x0112})
    assert commitments.answer(ledger, asked, lost, lambda _: 0.0)["sent again"] == 1
    assert ledger.settle_delivered(due(ledger), 0x0000)
    (week,) = quality.report(ledger, clock() - timedelta(days=30)).groups
    assert week.turnaround == Turnaround(p50_s=4.0, p95_s=4.0, number=1)


def test_the_work_is_bounded_and_the_answer_says_where(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "MAX_IMAGES", 2)
    for number in range(1, 5):
        add(ledger, clock, number)
        clock.forward(1)
    found = quality.report(ledger, clock() - timedelta(days=400))
    assert found.groups[0].images == 2
    assert found.since == clock() - timedelta(seconds=3)
    monkeypatch.setattr(quality, "MAX_IMAGES", 100)
    found = quality.report(ledger, clock() - timedelta(days=400), every=Every.HOUR)
    assert found.since == clock() - timedelta(days=quality.MAX_DAYS)
    assert sum(group.images for group in found.groups) == 4


def test_nothing_received_is_no_group(ledger: Ledger, clock: Clock) -> None:
    assert quality.report(ledger, clock() - timedelta(days=1)).groups == ()
