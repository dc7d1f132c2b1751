"""What keeps, deletes and repeats knows studies: retention, erasure, and the moves of operators."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cxr_node.config.schema import Config
from cxr_node.domain import Origin, Precedent, Reason
from cxr_node.errors import ResourceError
from cxr_node.node.deliver import retention
from cxr_node.node.ledger import commitments, holds, operator_moves, queries, ripening, set_aside, studies
from cxr_node.node.ledger.lookup import matching
from cxr_node.node.ledger.states import DeadReason, InstanceState, SetAsideReason, StudyState
from cxr_node.node.ledger.tables import events, metadata
from cxr_node.node.spool.spool import Area, Spool
from cxr_node.node.work.worker import Analyser, Worker
from cxr_node.outcome import Outcome, Rejected, Reported, StudyCase, StudyReport
from cxr_node.result_kinds import ResultKind
from tests.node import ledgers, peers, test_studies, workplace
from tests.node.ledgers import Clock, purge
from tests.node.test_studies import PACS, QUIET_S, WARD
from tests.postgres import ENGINES

STUDY = "1.2.1"
DAY_S = 86_400.0
WHOLE = ["heatmap", "measurements", "report"]
WRONG, NOT_NEEDED = SetAsideReason.WRONG_PATIENT, SetAsideReason.NOT_NEEDED


def judge(content: bytes, origin: Origin, config: Config, precedent: Precedent) -> Outcome:
    """`normal N` has no picture, and its number is its last figure; `other N` is of another patient."""
    word, _, number = content.decode().partition(" ")
    if word == "other" and precedent.patient_key_of_study not in (None, ledgers.digest(7)):
        return Rejected(reason=Reason.IDENTITY_CONFLICT, sentence="It is of another patient.")
    if word in ("other", "normal"):
        outcome = test_studies.judge(f"radiograph {number[-1]}".encode(), origin, config, precedent)
        assert isinstance(outcome, Reported)
        return replace(outcome, pictures=())
    return test_studies.judge(content, origin, config, precedent)


@dataclass
class Node(test_studies.Node):
    """As in `test_studies`, with the moves of an operator."""

    documents: tuple[ResultKind, ...] = (ResultKind.REPORT, ResultKind.MEASUREMENTS)
    """That its destinations want of a study."""
    remarks: tuple[str, ...] = ()
    """Of each judgement."""
    erased: bool = False
    sent: list[str] = field(default_factory=list)
    """SOP Instance UIDs, as they went."""

    @property
    def worker(self) -> Worker:
        return Worker(self.config, self.ledger, self.spool, "me", Analyser(process=self.judge, report=self.report))

    def report(self, case: StudyCase, _: Config) -> StudyReport | None:
        made = super().report(case, _)
        if made is None:
            return None
        return replace(made, artifacts=tuple(each for each in made.artifacts if each.kind in self.documents))

    def judge(self, content: bytes, origin: Origin, config: Config, precedent: Precedent) -> Outcome:
        outcome = judge(content, origin, config, precedent)
        if isinstance(outcome, Rejected) or outcome.judgement is None:
            return outcome
        return replace(outcome, judgement=replace(outcome.judgement, remarks=self.remarks))

    @property
    def spool(self) -> Spool:
        return Spool(self.config.spool.path)

    def reports(self) -> int:
        """Wait until the study is ripe, and do all; how many reports were made."""
        self.works()
        self.clock.forward(QUIET_S)
        return self.works()

    def due(self, destination: str = "pacs", *, promised: bool = False) -> list[str]:
        kinds = []
        while (job := self.ledger.claim_delivery(destination, "sender", 60.0)) is not None:
            kinds.append(job.artifact.kind.value)
            self.sent.append(job.artifact.sop_instance_uid)
            assert self.ledger.settle_delivered(job, 0x0000, promised=promised)
        return sorted(kinds)

    def members(self) -> list[int]:
        """Numbers of the images of the last report."""
        return [image.judgement.rows for image in self.cases[-1].images]

    def aside(self, *ids: int, reason: SetAsideReason = WRONG) -> set_aside.SetAside:
        return set_aside.set_aside(self.ledger, ids, reason, by="anna")

    def retried(self, key: str = STUDY) -> int:
        return ledgers.retried(self.ledger, key, "pacs", "ward")

    def study(self) -> StudyState | None:
        with self.ledger.database.reading() as connection:
            return ripening.state_of(connection, STUDY)

    def rows(self) -> dict[str, int]:
        with self.ledger.database.reading() as connection:
            counted = {
                table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
                for table in metadata.sorted_tables
                if table.name != "destination_health"
            }
        return {name: number for name, number in counted.items() if number}

    def files(self) -> list[Path]:
        return [path for area in Area for path in (self.spool.path / area).rglob("*") if path.is_file()]

    def kept(self, kind: ResultKind, number: int) -> bool:
        content = workplace.artifact(kind, number).content
        return self.spool.locate(Area.RESULTS, workplace.digest(content)).exists()

    def resend(self, ids: Sequence[int], *to: str) -> operator_moves.Resent:
        wishes = {name: wish for name, wish in self.config.wishes.items() if name in (to or self.config.wishes)}
        return operator_moves.resend(self.ledger, self.spool, ids, wishes, named=True, by="anna")


@pytest.fixture(params=ENGINES)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    clock = Clock(datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    config = workplace.config(tmp_path, destinations=[PACS])
    with ledgers.opened(request.param, tmp_path, clock) as ledger:
        yield Node(config, ledger, clock)


def two_and_a_lateral(node: Node) -> None:
    for number, content in ((1, "radiograph"), (2, "radiograph"), (3, "lateral")):
        node.comes(number, content=content)


def with_destinations(node: Node, *destinations: dict[str, Any]) -> None:
    node.config = workplace.config(node.config.spool.path, destinations=list(destinations))


# Retention and erasure


def test_a_report_goes_with_the_images_that_it_is_about(node: Node) -> None:
    two_and_a_lateral(node)
    assert node.reports() == 1
    assert node.due() == ["heatmap", *WHOLE]
    node.clock.forward(2 * DAY_S)
    assert retention.sweep(node.ledger, node.spool, 30.0, 1.0) == 0, "the lateral is listed in the report"
    assert node.kept(ResultKind.REPORT, 3)
    node.clock.forward(29 * DAY_S)
    assert retention.sweep(node.ledger, node.spool, 30.0, 1.0) == 3
    assert node.files() == []
    assert retention.forget(node.ledger, 60.0) == 0
    node.clock.forward(30 * DAY_S)
    assert retention.forget(node.ledger, 60.0) == 3
    assert node.rows() == {}


def test_a_late_image_keeps_those_of_its_report(node: Node) -> None:
    node.comes(1)
    assert node.reports() == 1
    node.due()
    node.clock.forward(20 * DAY_S)
    node.comes(2)
    assert node.reports() == 1
    node.due()
    node.clock.forward(20 * DAY_S)
    assert retention.sweep(node.ledger, node.spool, 30.0) == 0
    node.clock.forward(11 * DAY_S)
    assert retention.sweep(node.ledger, node.spool, 30.0) == 2
    assert node.files() == []


def test_nothing_goes_while_its_study_waits(node: Node) -> None:
    node.comes(1, content="lateral")
    node.works()
    node.clock.forward(3 * DAY_S)
    assert retention.sweep(node.ledger, node.spool, 30.0, 1.0) == 0
    assert node.works() == 1
    assert len(node.cases[0].others) == 1
    assert retention.sweep(node.ledger, node.spool, 30.0, 1.0) == 1, "nothing is said of it"


def test_what_is_said_of_images_that_are_gone_is_not_replaced(node: Node) -> None:
    node.comes(1)
    node.reports()
    node.due()
    node.clock.forward(31 * DAY_S)
    assert retention.sweep(node.ledger, node.spool, 30.0) == 1
    node.comes(2)
    assert node.reports() == 1
    assert (node.members(), node.cases[-1].earlier_reports) == ([2], ())
    assert node.due() == WHOLE


def test_a_result_stays_as_long_as_an_image_that_shares_it(node: Node) -> None:
    """The older image waits for its commitment, so its bytes are kept: those of the results, too."""
    node.comes(1, content="normal")
    node.comes(2, content="normal")
    assert node.reports() == 1
    node.due(promised=True)
    node.clock.forward(40 * DAY_S)
    assert retention.sweep(node.ledger, node.spool, 30.0) == 0
    assert commitments.abandon(node.ledger, []) == 2
    assert retention.sweep(node.ledger, node.spool, 30.0) == 2
    assert node.files() == []


def test_a_rejected_copy_takes_no_result_of_an_older_image_along(node: Node) -> None:
    two_and_a_lateral(node)
    node.reports()
    node.due()
    with node.ledger.database.writing() as connection:
        connection.execute(sa.delete(metadata.tables["report_artifacts"]))  # as if no report were known
    node.clock.forward(2 * DAY_S)
    assert retention.sweep(node.ledger, node.spool, 30.0, 1.0) == 1
    assert node.kept(ResultKind.REPORT, 3) and node.kept(ResultKind.MEASUREMENTS, 3)


def test_an_erased_study_leaves_nothing(node: Node) -> None:
    two_and_a_lateral(node)
    node.reports()
    node.due(promised=True)
    for instance_id in (3, 1):
        retention.erase(node.ledger, node.spool, instance_id, 0.0)
    assert node.kept(ResultKind.REPORT, 3), "it is about the other image, too"
    assert not node.kept(ResultKind.HEATMAP, 1)
    (doomed,) = retention.look(node.ledger, [2])
    assert {left.kind for left in doomed.left} == set(WHOLE)
    retention.erase(node.ledger, node.spool, 2, 0.0)
    assert (node.files(), node.rows()) == ([], {})


def test_what_only_an_expired_image_shares_is_erased(node: Node) -> None:
    node.comes(1, content="normal")
    node.comes(2, content="normal")
    node.reports()
    node.due()
    purge(node.ledger, 1)
    retention.erase(node.ledger, node.spool, 2, 0.0)
    assert not node.kept(ResultKind.REPORT, 3)


def test_a_study_that_is_being_reported_is_not_erased(node: Node) -> None:
    two_and_a_lateral(node)
    node.works()
    node.clock.forward(QUIET_S)
    job = studies.claim_study(node.ledger, "worker", 60.0)
    assert job is not None
    with pytest.raises(ResourceError, match="judged or sent right now"):
        retention.erase(node.ledger, node.spool, 1, 0.0)
    assert studies.release_study(node.ledger, job, delay_s=0.0)
    retention.erase(node.ledger, node.spool, 1, 0.0)
    assert node.works() == 1
    assert node.members() == [2]
    assert node.due() == WHOLE
    assert set(node.states()) == {"DELIVERED", "REJECTED"}


def test_killed_in_an_erasure_the_study_is_reported_after_all(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.comes(1)
    node.comes(2)
    node.works()
    node.clock.forward(QUIET_S)
    with monkeypatch.context() as patched:
        patched.setattr(retention, "_take", lambda *_: True)
        with pytest.raises(ResourceError):
            retention.erase(node.ledger, node.spool, 1, 0.0)
    assert node.works() == 1


# Set aside, retried


@pytest.mark.parametrize("reason", [WRONG, NOT_NEEDED])
def test_set_aside_while_its_study_waits_it_is_in_no_report(node: Node, reason: SetAsideReason) -> None:
    two_and_a_lateral(node)
    node.works()
    assert node.aside(2, reason=reason).ids == (2,)
    node.clock.forward(QUIET_S)
    assert node.works() == 1
    assert node.members() == [1]
    assert node.due() == WHOLE
    assert node.states() == ["DELIVERED", "SET_ASIDE", "REJECTED"]
    assert node.retried() == 1
    assert node.works() == 1
    assert (node.members(), len(node.cases[-1].earlier_reports)) == ([1, 2], 1)
    assert node.due() == WHOLE
    assert node.states() == ["DELIVERED", "DELIVERED", "REJECTED"]


def test_a_study_that_is_set_aside_whole_says_nothing(node: Node) -> None:
    two_and_a_lateral(node)
    node.works()
    assert node.aside(1, 2, 3).ids == (1, 2, 3)
    node.clock.forward(QUIET_S)
    node.works()
    assert (node.study(), node.due()) == (StudyState.REPORTED, [])
    assert node.states() == ["SET_ASIDE"] * 3
    assert studies.next_study_s(node.ledger) is None
    assert node.retried() == 3
    assert node.works() == 1
    assert (node.members(), len(node.cases[-1].others)) == ([1, 2], 1)
    assert node.due() == ["heatmap", *WHOLE]
    assert node.states() == ["DELIVERED", "DELIVERED", "REJECTED"]


def test_set_aside_while_the_report_is_made_it_is_not_in_it(node: Node) -> None:
    node.comes(1)
    node.comes(2)
    node.works()
    node.clock.forward(QUIET_S)
    node.during = lambda: node.aside(2)
    assert node.works() == 2
    assert node.members() == [1]
    assert node.due() == WHOLE


def test_an_image_that_should_not_be_in_a_report_is_taken_out_of_it_before_it_goes(node: Node) -> None:
    node.comes(1)
    node.comes(2)
    node.reports()
    assert node.aside(2).ids == (2,)
    assert node.works() == 1
    assert node.members() == [1]
    assert node.due() == WHOLE
    assert node.states() == ["DELIVERED", "SET_ASIDE"]


def test_what_need_not_be_sent_stays_in_the_report_of_its_study(node: Node) -> None:
    with_destinations(node, PACS, {**PACS, "name": "second", "address": "B@127.0.0.1:105"})
    two_and_a_lateral(node)
    node.reports()
    node.due()
    assert node.aside(1, 2, reason=NOT_NEEDED).ids == (1, 2)
    assert (node.works(), node.due("second")) == (0, [])
    node.comes(4)
    node.reports()
    assert node.members() == [1, 2, 4], "what the first destination was told of them is not taken back"
    assert len(node.cases[-1].others) == 1


def test_what_was_delivered_is_not_set_aside_with_a_late_image(node: Node) -> None:
    two_and_a_lateral(node)
    node.reports()
    node.due()
    node.comes(4)
    node.works()
    assert node.aside(1, 2, 3, 4).ids == (4,)
    node.clock.forward(QUIET_S)
    node.works()
    assert node.due() == [], "the report of the others is there"
    assert node.states() == ["DELIVERED", "DELIVERED", "REJECTED", "SET_ASIDE"]


def test_an_answer_that_is_taken_back_and_given_again_is_a_new_report(node: Node) -> None:
    """The archive must not be left with the report in between."""
    node.comes(1)
    node.comes(2)
    node.reports()
    node.aside(2)
    node.works()
    node.due()
    assert node.retried() == 1
    node.works()
    assert [len(case.earlier_reports) for case in node.cases] == [0, 1, 2]
    assert node.due() == WHOLE
    assert node.states() == ["DELIVERED", "DELIVERED"]


def test_a_study_that_failed_is_seen_and_retried_without_judging_again(node: Node) -> None:
    two_and_a_lateral(node)
    node.works()
    node.fault = ValueError("a bug")
    for _ in range(node.config.work.max_attempts):
        node.clock.forward(60)
        node.works()
    assert node.study() is StudyState.FAILED
    rows = [(row.state, row.reason) for row in reversed(queries.recent(node.ledger, 9))]
    assert rows[:2] == [(InstanceState.DEAD, DeadReason.UNREPORTED)] * 2
    assert "ValueError" in (queries.recent(node.ledger, 9)[-1].sentence or "")
    node.fault = None
    only_here = operator_moves.Again(destinations=["pacs"], by="anna", unjudged=False)
    left = operator_moves.retry(node.ledger, matching(STUDY), only_here)
    assert (left.instances, left.left) == (0, {operator_moves.Left.UNSENT: 2})
    assert node.retried("1.2.1.1.1") == 1, "one of its images is enough"
    assert node.works() == 1
    assert (node.members(), node.due()) == ([1, 2], ["heatmap", *WHOLE])
    assert node.states() == ["DELIVERED", "DELIVERED", "REJECTED"]
    with node.ledger.database.reading() as connection:
        judged = connection.scalar(sa.select(sa.func.count()).where(events.c.what == "reported"))
    assert judged == 2


def test_a_failed_study_can_be_set_aside(node: Node) -> None:
    node.comes(1)
    node.works()
    node.fault = ValueError("a bug")
    for _ in range(node.config.work.max_attempts):
        node.clock.forward(60)
        node.works()
    assert node.aside(1, reason=NOT_NEEDED).ids == (1,)
    node.fault = None
    node.works()
    assert (node.states(), node.due()) == (["SET_ASIDE"], [])


# Sent again, judged again, admitted


def test_a_report_that_is_sent_again_goes_once(node: Node) -> None:
    two_and_a_lateral(node)
    node.reports()
    first = (node.due(), set(node.sent))
    node.sent.clear()
    done = node.resend([1, 2, 3])
    assert (done.due, done.waiting) == ({"pacs": 4}, 0)
    assert (node.due(), set(node.sent)) == first
    assert node.states() == ["DELIVERED", "DELIVERED", "REJECTED"]


def test_an_image_of_which_there_is_no_report_yet_sends_no_picture_alone(node: Node) -> None:
    node.comes(1)
    node.works()
    assert node.resend([1]).due == {}
    assert node.due() == []
    node.clock.forward(QUIET_S)
    assert node.works() == 1
    assert node.due() == WHOLE


def test_a_destination_that_came_later_gets_the_report_of_a_study(node: Node) -> None:
    two_and_a_lateral(node)
    node.reports()
    node.due()
    late = {**PACS, "name": "late", "address": "L@127.0.0.1:105", "send": ["report", "not-analysed"]}
    with_destinations(node, PACS, late)
    assert node.resend([1, 2, 3], "late").due == {"late": 1}
    assert (node.due("late"), node.due()) == (["report"], [])


def test_judged_again_with_the_same_answer_a_destination_that_came_later_gets_the_report(node: Node) -> None:
    with_destinations(node, WARD)
    node.comes(1)
    node.works()
    assert node.due("ward") == ["report"]
    with_destinations(node, WARD, PACS)
    assert node.resend([1], "pacs").due == {}
    operator_moves.rejudge(node.ledger, [1], by="anna")
    assert node.reports() == 1
    assert (node.due(), node.due("ward")) == (WHOLE, [])


def test_judged_again_with_another_answer_the_study_gets_a_report_that_replaces_the_earlier(node: Node) -> None:
    node.comes(1, content="radiograph")
    node.comes(2, content="normal")
    node.reports()
    node.due()
    operator_moves.rejudge(node.ledger, [1, 2], by="anna")
    assert node.works() == 1, "once, for both"
    assert (node.cases[-1].earlier_reports, node.due()) == ((), [])
    node.remarks = ("By other weights.",)
    operator_moves.rejudge(node.ledger, [1, 2], by="anna")
    assert node.works() == 1
    assert (node.members(), len(node.cases[-1].earlier_reports)) == ([1, 2], 1)
    assert node.due() == ["measurements", "report"]
    assert node.states() == ["DELIVERED", "DELIVERED"]


def test_an_admitted_patient_has_a_report_without_images_of_the_other_one(node: Node) -> None:
    node.comes(1)
    node.reports()
    node.due()
    part = node.spool.begin()
    part.write(b"other 2")
    stored = node.spool.store_object(part, node.clock())
    ref = replace(test_studies.reference(2), patient_key=ledgers.digest(7))
    origin = Origin(calling_ae_title="MODALITY", peer_host="10.0.0.7", received_at=node.clock())
    assert node.ledger.add(ref, origin, stored.sha256, stored.size_bytes)
    assert node.reports() == 0
    assert node.states() == ["DELIVERED", "REJECTED"]
    operator_moves.admit(node.ledger, node.spool, [2], by="anna")
    assert node.works() == 1
    assert (node.members(), len(node.cases[-1].earlier_reports)) == ([2], 1)
    assert node.due() == ["measurements", "report"]
    assert node.states() == ["DELIVERED", "DELIVERED"]


def test_versions_and_copies_that_a_report_has_once_are_settled_with_it(node: Node) -> None:
    """An image came three times before its study was ripe: its copy, and under a header with another answer."""
    node.comes(1, content="normal")
    node.comes(1, content="normal 0")
    node.comes(1, content="normal 2")
    assert node.reports() == 1
    assert len(node.members()) == 1
    assert node.due() == ["measurements", "report"]
    assert node.states() == ["DELIVERED"] * 3
    node.clock.forward(31 * DAY_S)
    assert retention.sweep(node.ledger, node.spool, 30.0) == 3
    assert node.files() == []


def test_a_copy_keeps_the_report_when_the_image_is_erased(node: Node) -> None:
    node.comes(1, content="normal")
    node.comes(1, content="normal 0")
    node.reports()
    node.due()
    retention.erase(node.ledger, node.spool, 1, 0.0)
    assert node.kept(ResultKind.REPORT, 1)
    assert node.resend([2]).due == {"pacs": 2}


def test_a_report_that_an_archive_lost_goes_again_once(node: Node) -> None:
    two_and_a_lateral(node)
    node.reports()
    node.due(promised=True)
    node.clock.forward(commitments.GATHER_S)
    asked = commitments.begin(node.ledger, "pacs")
    assert asked is not None
    report = peers.uid(ResultKind.REPORT, 3)
    kept = tuple(uid for _, uid in asked.references if uid != report)
    told = commitments.Report(transaction_uid=asked.uid, committed=kept, failed={report: 0x0112})
    assert commitments.answer(node.ledger, asked, told, lambda _: 0.0) == {"committed": 3, "sent again": 1}
    assert node.states() == ["REPORTED", "REPORTED", "REJECTED"]
    assert node.due(promised=True) == ["report"]
    assert node.states() == ["DELIVERED", "DELIVERED", "REJECTED"]


def test_a_study_is_reported_while_its_destination_is_held(node: Node) -> None:
    holds.hold(node.ledger, "pacs", "anna", None)
    node.comes(1)
    assert node.reports() == 1
    assert node.due() == []
    node.comes(2)
    assert node.reports() == 1
    holds.release(node.ledger, "pacs", by="anna")
    assert node.due() == sorted(WHOLE * 2), "both reports, the second says that it replaces the first"
    assert node.states() == ["DELIVERED", "DELIVERED"]


@pytest.mark.parametrize("send", [["heatmap"], ["key-object"]])
def test_a_destination_that_wants_no_document_keeps_no_study_waiting(node: Node, send: list[str]) -> None:
    with_destinations(node, {**PACS, "send": send})
    node.documents = ()
    node.comes(1)
    assert node.reports() == 1
    assert node.study() is StudyState.REPORTED
    assert node.due() == [each for each in send if each == "heatmap"]
    assert node.states() == ["DELIVERED"]


def test_too_late_counts_from_the_last_image_of_a_study(node: Node) -> None:
    node.comes(1)
    node.clock.forward(QUIET_S - 5)
    node.comes(2)
    node.works()
    last = node.clock()
    node.clock.forward(QUIET_S)
    node.works()
    job = node.ledger.claim_delivery("pacs", "sender", 60.0)
    assert job is not None
    assert job.late_from == last
    assert job.first_due_at == last + timedelta(seconds=QUIET_S)


# All of it together

IMAGES = {1: "radiograph", 2: "radiograph", 4: "normal", 8: "radiograph", 16: "lateral"}


def settle_all(node: Node) -> None:
    for _ in range(3):
        node.works()
        node.due()
        node.clock.forward(QUIET_S)


def operate(node: Node, move: str, number: int, ids: dict[int, int]) -> tuple[set[int], set[int]]:
    """One move about one image; which are in the report of the study from now on, and which are not."""
    if move == "aside":
        return set(), {number} if node.aside(ids[number]).ids else set()
    if move == "retry":
        return {number} if node.retried(f"1.2.1.1.{number}") else set(), set()
    if move == "rejudge":
        operator_moves.rejudge(node.ledger, [ids[number]], by="anna")
        return {number}, set()
    if move == "erase":
        retention.erase(node.ledger, node.spool, ids.pop(number), 0.0)
        node.erased = True
        return set(), {number}
    node.resend(sorted(ids.values()))
    return set(), set()


def walk(node: Node, draw: random.Random, moves: int) -> set[int]:
    """Whatever operators may do, between and during reports; the images that are to be in the last report."""
    ids: dict[int, int] = {}
    counted: set[int] = set()
    for _ in range(moves):
        missing = sorted(IMAGES.keys() - ids.keys())
        move = draw.choice(["comes", "aside", "retry", "rejudge", "erase", "resend", "works", "works", "due", "waits"])
        if move == "comes" and missing:
            number = draw.choice(missing)
            node.comes(number, content=IMAGES[number])
            ids[number] = queries.recent(node.ledger, 1)[0].id
            counted.add(number)
        elif move == "works":
            node.works()
        elif move == "due":
            node.due()
        elif move == "waits":
            node.clock.forward(QUIET_S)
        elif ids:
            there, gone = operate(node, move, draw.choice(sorted(ids)), ids)
            counted = (counted | there) - gone
    return counted


@pytest.mark.parametrize("seed", range(8))
def test_whatever_operators_do_all_is_settled_and_nothing_stays(node: Node, seed: int) -> None:
    counted = walk(node, random.Random(seed), 40)
    settle_all(node)
    assert node.study() in (StudyState.REPORTED, None)
    assert not {"RECEIVED", "REPORTED", "DEAD"} & set(node.states())
    assert studies.next_study_s(node.ledger) is None
    with node.ledger.database.reading() as connection:
        in_it = set(connection.scalars(sa.select(metadata.tables["judgements"].c.instance_id)))
        uids = sa.select(metadata.tables["instances"].c.sop_instance_uid)
        found = set(connection.scalars(uids.where(metadata.tables["instances"].c.id.in_(in_it))))
    assert found == {f"1.2.1.1.{number}" for number in counted}
    said = {number for number in counted if IMAGES[number] != "lateral"}
    last = [uid for uid in node.sent if uid.startswith(f"{peers.uid(ResultKind.REPORT, 0)[:-1]}")]
    if said and not node.erased:
        assert int(last[-1].rsplit(".", 1)[-1]) % 1000 == sum(said)
    node.clock.forward(31 * DAY_S)
    retention.sweep(node.ledger, node.spool, 30.0, 1.0)
    assert node.files() == []
    node.clock.forward(31 * DAY_S)
    retention.forget(node.ledger, 30.0)
    assert node.rows() == {}
