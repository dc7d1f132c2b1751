"""Studies: ripe when no image has come for a while, reported once, and again when another image comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config.schema import Config
from cxr_node.domain import InstanceRef, Origin, Precedent, Priority, Reason, Verdict
from cxr_node.node.ledger import operator_moves, queries, ripening, set_aside, studies
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import InstanceState, SetAsideReason, StudyJob
from cxr_node.node.spool.spool import Spool
from cxr_node.node.work.worker import Analyser, Worker
from cxr_node.outcome import Outcome, Rejected, Reported, StudyCase, StudyReport
from cxr_node.result_kinds import ResultKind
from tests.node import ledgers, peers, workplace
from tests.node.ledgers import Clock

QUIET_S, MAX_WAIT_S = 15.0, 120.0
PACS = {"name": "pacs", "address": "PACS@127.0.0.1:104"}
WARD = {"name": "ward", "address": "WARD@127.0.0.1:104", "report_per": "image"}


@dataclass
class Node:
    """A worker on a ledger whose clock stands still, and what it was asked to report."""

    config: Config
    ledger: Ledger
    clock: Clock
    cases: list[StudyCase] = field(default_factory=list)
    fault: Exception | None = None
    during: Any = None
    """Called while a report is made."""

    @property
    def worker(self) -> Worker:
        analyser = Analyser(process=judge, report=self.report)
        return Worker(self.config, self.ledger, Spool(self.config.spool.path), "me", analyser)

    def report(self, case: StudyCase, _: Config) -> StudyReport | None:
        self.cases.append(case)
        if self.during is not None:
            happens, self.during = self.during, None
            happens()
        if self.fault is not None:
            raise self.fault
        if not case.images:
            return None
        number = sum(image.judgement.rows for image in case.images) + 1000 * len(case.earlier_reports)
        made = [workplace.artifact(kind, number) for kind in (ResultKind.REPORT, ResultKind.MEASUREMENTS)]
        return StudyReport(verdict=Verdict.POSITIVE, artifacts=tuple(made))

    def comes(self, number: int, *, priority: Priority = Priority.MEDIUM, content: str = "radiograph") -> None:
        """Image `number` of the one study is received."""
        part = (spool := Spool(self.config.spool.path)).begin()
        part.write(f"{content} {number}".encode())
        stored = spool.store_object(part, self.clock())
        origin = Origin(calling_ae_title="MODALITY", peer_host="10.0.0.7", received_at=self.clock())
        assert self.ledger.add(reference(number), origin, stored.sha256, stored.size_bytes, priority)

    def works(self) -> int:
        """Do all that is due; how many studies were reported meanwhile."""
        before = len(self.cases)
        while self.worker.do_one():
            pass
        return len(self.cases) - before

    def due(self, destination: str = "pacs") -> list[str]:
        """Kinds that are due there, and taken by it."""
        sent = []
        while (job := self.ledger.claim_delivery(destination, "sender", 60.0)) is not None:
            sent.append(job.artifact.kind.value)
            assert self.ledger.settle_delivered(job, 0x0000)
        return sent

    def states(self) -> list[str]:
        return [row.state.value for row in reversed(queries.recent(self.ledger, 100))]


def reference(number: int) -> InstanceRef:
    return replace(ledgers.reference(1), sop_instance_uid=f"1.2.1.1.{number}")


def judge(content: bytes, origin: Origin, _: Config, __: Precedent) -> Outcome:
    """`radiograph N` has a picture; `lateral N` is listed; anything else is none of our business."""
    word, _, number = content.decode().partition(" ")
    if word == "radiograph":
        kept = workplace.judgement(int(number))
        own = (workplace.artifact(ResultKind.REPORT, 500 + int(number)),)
        picture = (workplace.artifact(ResultKind.HEATMAP, int(number)),)
        return Reported(finding=ledgers.finding(), artifacts=own, pictures=picture, judgement=kept)
    listed = None
    if word == "lateral":
        listed = workplace.lateral(int(number))
    return Rejected(reason=Reason.NOT_FRONTAL, sentence="It is lateral.", listed=listed)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    clock = Clock(datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    config = workplace.config(tmp_path, destinations=[PACS, WARD])
    with closing(Ledger.open(tmp_path, now=clock)) as ledger:
        yield Node(config, ledger, clock)


def test_a_study_is_reported_once_when_no_image_has_come_for_a_while(node: Node) -> None:
    node.comes(1)
    assert node.works() == 0
    node.clock.forward(10)
    node.comes(2)
    node.comes(3, content="lateral")
    node.works()
    node.clock.forward(QUIET_S - 0.1)
    assert node.works() == 0
    assert node.states() == ["REPORTED", "REPORTED", "REJECTED"]
    assert node.due() == [], "its pictures wait for the report"
    node.clock.forward(0.2)
    assert node.works() == 1
    (case,) = node.cases
    assert [image.judgement.rows for image in case.images] == [1, 2]
    assert [other.sentence for other in case.others] == ["It is lateral."]
    assert sorted(node.due()) == ["heatmap", "heatmap", "measurements", "report"]
    assert node.due("ward") == ["report", "report"], "one of each image"
    assert node.states() == ["DELIVERED", "DELIVERED", "REJECTED"]
    node.clock.forward(3600)
    assert node.works() == 0


def test_images_that_follow_each_other_are_not_waited_for_for_ever(node: Node) -> None:
    for number in range(1, 13):
        node.comes(number)
        node.works()
        node.clock.forward(10)
    assert len(node.cases) == 0
    node.clock.forward(0.1)
    assert node.works() == 1
    assert len(node.cases[0].images) == 12


def test_an_urgent_image_shortens_the_wait(node: Node) -> None:
    node.comes(1, priority=Priority.HIGH)
    node.works()
    node.clock.forward(ripening.URGENT_QUIET_S)
    assert node.works() == 1


def test_a_late_image_makes_a_new_report_that_names_the_earlier_ones(node: Node) -> None:
    for number in (1, 2, 3):
        node.comes(number)
        node.works()
        node.clock.forward(QUIET_S)
        assert node.works() == 1
        assert sorted(node.due()) == ["heatmap", "measurements", "report"], "no picture goes twice"
        assert node.due("ward") == ["report"]
        assert set(node.states()) == {"DELIVERED"}
    assert [len(case.images) for case in node.cases] == [1, 2, 3]
    assert [len(case.earlier_reports) for case in node.cases] == [0, 1, 2]
    documents = {ref.sop_instance_uid for report in node.cases[2].earlier_reports for ref in report}
    assert {peers.uid(ResultKind.REPORT, 1, 0), peers.uid(ResultKind.REPORT, 1003, 0)} <= documents


def test_images_that_are_still_judged_are_waited_for(node: Node) -> None:
    node.comes(1)
    node.works()
    node.comes(2)
    node.clock.forward(QUIET_S + 1)
    assert studies.claim_study(node.ledger, "other", 60.0) is None
    assert node.works() == 1
    assert len(node.cases[0].images) == 2


def test_an_image_that_is_judged_while_the_report_is_made_is_in_it(node: Node) -> None:
    node.comes(1)
    node.works()
    node.clock.forward(QUIET_S)
    node.during = lambda: (node.comes(2), node.works())
    node.works()
    assert node.due() == [], "the report without it was not made due"
    node.clock.forward(QUIET_S)
    node.works()
    assert sorted(node.due()) == ["heatmap", "heatmap", "measurements", "report"]
    assert [len(case.earlier_reports) for case in node.cases] == [0] * len(node.cases)


def test_a_worker_that_lost_its_lease_reports_nothing(node: Node) -> None:
    node.comes(1)
    node.works()
    node.clock.forward(QUIET_S)
    slow = studies.claim_study(node.ledger, "slow", 60.0)
    node.clock.forward(61)
    assert node.works() == 1
    assert isinstance(slow, StudyJob)
    assert not studies.settle_study(node.ledger, slow, Verdict.POSITIVE, [], node.config.wishes)
    assert sorted(node.due()) == ["heatmap", "measurements", "report"]


def test_judged_again_with_the_same_answer_nothing_is_sent_twice(node: Node) -> None:
    node.comes(1)
    node.works()
    node.clock.forward(QUIET_S)
    node.works()
    node.due()
    operator_moves.rejudge(node.ledger, [1], by="anna")
    node.works()
    assert [len(case.earlier_reports) for case in node.cases] == [0, 0]
    assert node.due() == []
    assert node.due("ward") == ["report"]
    assert node.states() == ["DELIVERED"]


def test_an_image_that_was_set_aside_is_in_no_later_report(node: Node) -> None:
    for number, content in ((1, "radiograph"), (2, "radiograph")):
        node.comes(number, content=content)
        node.works()
    node.clock.forward(QUIET_S)
    node.works()
    set_aside.set_aside(node.ledger, [2], SetAsideReason.WRONG_PATIENT, by="anna")
    node.comes(3)
    node.works()
    node.clock.forward(QUIET_S)
    node.works()
    assert [image.judgement.rows for image in node.cases[-1].images] == [1, 3]


def test_a_study_that_cannot_be_reported_is_seen_and_may_be_retried(node: Node) -> None:
    node.comes(1)
    node.works()
    node.fault = ValueError("a bug")
    for _ in range(node.config.work.max_attempts):
        node.clock.forward(60)
        node.works()
    assert node.states() == ["DEAD"]
    node.fault = None
    assert ledgers.retried(node.ledger, "1.2.1.1.1", "pacs") == 1
    node.works()
    assert node.due("ward") == ["report"]
    assert sorted(node.due()) == ["heatmap", "measurements", "report"]
    assert node.states() == ["DELIVERED"]


def test_a_study_of_which_nothing_is_said_ends(node: Node) -> None:
    node.comes(1, content="lateral")
    node.works()
    node.clock.forward(QUIET_S)
    assert node.works() == 1
    node.clock.forward(QUIET_S)
    assert node.works() == 0
    assert node.due() == []


def test_an_image_of_another_kind_keeps_no_study_waiting(node: Node) -> None:
    node.comes(1, content="scout")
    node.works()
    node.clock.forward(3600)
    assert node.works() == 0
    assert studies.next_study_s(node.ledger) is None


def test_a_clock_that_is_put_back_does_not_hold_a_study_for_ever(node: Node) -> None:
    node.comes(1)
    node.works()
    node.clock.time -= timedelta(days=1)
    assert node.works() == 1


def test_what_waits_for_its_study_is_not_delivered_yet(node: Node) -> None:
    node.comes(1)
    node.works()
    assert node.due("ward") == ["report"]
    assert queries.counts(node.ledger)[InstanceState.REPORTED] == 1
