"""A REJECTED image whose note is delivered: its state stays, its note is sent as every result is, and is not lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cxr_node.domain import Reason
from cxr_node.node.ledger import expiry, queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import DeliveryState, InstanceState, StoredArtifact
from cxr_node.outcome import Rejected
from cxr_node.result_kinds import ResultKind
from tests.node.ledgers import Clock, digest, opened, reference, wishes
from tests.node.test_ledger import add, claimed, due

REFUSED = Rejected(reason=Reason.NOT_FRONTAL, sentence="The view is lateral.")
NOTE = StoredArtifact(
    kind=ResultKind.NOT_ANALYSED,
    sop_class_uid="1.2.840.10008.5.1.4.1.1.88.11",
    sop_instance_uid="2.25.8",
    content_sha256=digest(8),
    size_bytes=8,
)
WANTED = wishes(pacs=(ResultKind.REPORT, ResultKind.NOT_ANALYSED), ward=(ResultKind.REPORT,))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with opened("sqlite", tmp_path, clock) as opened_:
        add(opened_, clock)
        assert opened_.settle_rejected(claimed(opened_), REFUSED, [NOTE], WANTED)
        yield opened_


def state(ledger: Ledger) -> tuple[InstanceState, str | None]:
    (row,) = queries.recent(ledger, 1)
    return row.state, row.reason


def test_it_is_due_where_it_is_wanted_and_the_image_stays_rejected(ledger: Ledger) -> None:
    assert ledger.claim_delivery("ward", "sender", 60.0) is None
    job = due(ledger)
    assert job.artifact == NOTE
    assert ledger.settle_delivered(job, 0x0000)
    assert state(ledger) == (InstanceState.REJECTED, "view-not-frontal")
    (story,) = queries.trace(ledger, reference().sop_instance_uid)
    assert [(row.kind, row.state) for row in story.deliveries] == [("not-analysed", DeliveryState.DELIVERED)]


def test_it_is_tried_again_and_a_dead_note_does_not_kill_the_image(ledger: Ledger, clock: Clock) -> None:
    assert ledger.postpone(due(ledger), delay_s=5.0, status=0xA700, detail="out of resources")
    clock.forward(5)
    again = due(ledger)
    assert again.attempts == 2
    assert ledger.settle_delivery_dead(again, status=0xA900, detail="data set does not match")
    assert state(ledger) == (InstanceState.REJECTED, "view-not-frontal")


def test_retention_waits_for_a_note_on_its_way(ledger: Ledger, clock: Clock) -> None:
    clock.forward(100)
    assert expiry.expired(ledger, clock() + timedelta(days=1)) == []
    assert ledger.settle_delivered(due(ledger), 0x0000)
    (old,) = expiry.expired(ledger, clock() + timedelta(days=1))
    assert (old.content_sha256, old.artifact_sha256s) == (digest(1), (digest(8),))


def test_who_lost_the_lease_makes_nothing_due(tmp_path: Path, clock: Clock) -> None:
    with opened("sqlite", tmp_path / "other", clock) as ledger:
        add(ledger, clock)
        slow = claimed(ledger)
        clock.forward(61)
        assert ledger.settle_rejected(claimed(ledger), REFUSED)
        assert not ledger.settle_rejected(slow, REFUSED, [NOTE], WANTED)
        assert ledger.claim_delivery("pacs", "sender", 60.0) is None
