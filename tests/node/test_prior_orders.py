"""Earlier radiographs of a study: ordered once, waited for within bounds, judged once, told in every report of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cxr_node import judgement_text
from cxr_node.config.schema import Config
from cxr_node.domain import Reason
from cxr_node.errors import InstanceError, ModelError
from cxr_node.node.deliver import prior_files, retention
from cxr_node.node.ledger import prior_orders, studies, tables
from cxr_node.node.ledger.clock_watch import ClockWatch
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.prior_orders import PriorOrder, PriorOutcome
from cxr_node.node.ledger.states import OrderState
from cxr_node.node.spool.spool import Area, Spool
from cxr_node.node.work.worker import Analyser, Worker
from cxr_node.outcome import Judgement, Rejected, StudyCase, StudyReport
from cxr_node.result_kinds import ResultKind
from tests.node import ledgers, test_studies, workplace
from tests.node.ledgers import Clock
from tests.node.test_studies import MAX_WAIT_S, PACS, QUIET_S

STUDY = ledgers.reference(1).study_instance_uid


@dataclass
class Node(test_studies.Node):
    """As there, with an archive of earlier radiographs, and who judges them."""

    judged: list[bytes] = field(default_factory=list)
    says: Any = None
    """What is said of an earlier radiograph; None: a judgement."""

    @property
    def worker(self) -> Worker:
        analyser = Analyser(process=test_studies.judge, report=self.report, prior=self.judge_prior)
        return Worker(self.config, self.ledger, self.spool, "me", analyser)

    @property
    def spool(self) -> Spool:
        return Spool(self.config.spool.path)

    def judge_prior(self, content: bytes, current: bytes, _: Config) -> Judgement | Rejected:
        assert current.startswith(b"radiograph ")
        self.judged.append(content)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says or workplace.judgement(len(content))

    def report(self, case: StudyCase, config: Config) -> StudyReport | None:
        made = super().report(case, config)
        if made is None:
            return None
        number = sum(100_000 * each.judgement.rows for each in case.priors) + sum(
            image.judgement.rows for image in case.images
        )
        kinds = (ResultKind.REPORT, ResultKind.MEASUREMENTS)
        return replace(made, artifacts=tuple(workplace.artifact(kind, number) for kind in kinds))

    def kept(self, content: bytes) -> PriorOutcome:
        part = self.spool.begin()
        part.write(content)
        return PriorOutcome(content_sha256=self.spool.store_prior(part).sha256)

    def fetches(self, *contents: bytes) -> None:
        """The order is claimed, and settled with these."""
        order = self.order()
        assert order is not None
        assert prior_orders.settle_order(self.ledger, order, [self.kept(each) for each in contents], "some")

    def order(self, owner: str = "fetcher") -> PriorOrder | None:
        return prior_orders.claim_order(self.ledger, owner, 60.0)

    def outcomes(self) -> list[PriorOutcome]:
        found = prior_orders.prior_of(self.ledger, STUDY)
        return [] if found is None else list(found.outcomes)

    @property
    def told(self) -> list[list[int]]:
        """Of each report the sizes of its earlier radiographs."""
        return [[each.judgement.rows for each in case.priors] for case in self.cases]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    clock = Clock(datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    config = workplace.config(tmp_path, destinations=[PACS], priors={"from": "pacs", "studies": 3})
    with closing(Ledger.open(tmp_path, now=clock)) as ledger:
        yield Node(config, ledger, clock)


def test_without_priors_in_the_configuration_nothing_is_ordered(node: Node) -> None:
    node.config = node.config.model_copy(update={"priors": None})
    node.comes(1)
    node.works()
    assert node.order() is None
    assert prior_orders.prior_of(node.ledger, STUDY) is None
    assert prior_orders.next_order_s(node.ledger) is None
    node.clock.forward(QUIET_S)
    assert node.works() == 1


def test_a_study_has_one_order_and_waits_for_it(node: Node) -> None:
    for number in (1, 2):
        node.comes(number)
        node.works()
    order = node.order()
    assert order is not None
    assert (order.study_instance_uid, order.instance_id) == (STUDY, 1)
    assert node.spool.read(Area.OBJECTS, order.content_sha256 or "") == b"radiograph 1"
    assert node.order("other") is None, "one order for both images"
    node.clock.forward(QUIET_S + 1)
    assert node.works() == 0
    assert prior_orders.settle_order(node.ledger, order, [node.kept(b"then")], "1 fetched")
    assert node.works() == 1
    assert node.told == [[4]]
    assert node.judged == [b"then"]
    for number in (1, 2):
        image = workplace.digest(f"radiograph {number}".encode())
        assert node.spool.noted(image, prior_orders.NOTE, Area.OBJECTS) == workplace.digest(b"then")
    (outcome,) = node.outcomes()
    assert judgement_text.load_judgement(outcome.judgement or "").rows == 4
    assert sorted(node.due()) == ["heatmap", "heatmap", "measurements", "report"]


def test_settled_before_the_study_is_ripe_nothing_is_waited_for(node: Node) -> None:
    node.comes(1)
    node.works()
    node.fetches(b"then", b"before")
    assert studies.next_study_s(node.ledger) == pytest.approx(QUIET_S)
    node.clock.forward(QUIET_S)
    assert node.works() == 1
    assert node.told == [[4, 6]]


def test_a_lateral_alone_orders_nothing(node: Node) -> None:
    node.comes(1, content="lateral")
    node.works()
    assert node.order() is None
    node.comes(2)
    node.works()
    order = node.order()
    assert order is not None
    assert order.instance_id == 2, "whose header is asked for is the analysed image's"


@pytest.mark.parametrize("is_leased", [False, True])
def test_a_study_never_waits_for_longer_than_for_its_images(node: Node, is_leased: bool) -> None:
    node.comes(1)
    node.works()
    order = node.order() if is_leased else None
    node.clock.forward(QUIET_S)
    assert studies.next_study_s(node.ledger) == pytest.approx(MAX_WAIT_S - QUIET_S)
    node.clock.forward(MAX_WAIT_S - QUIET_S - 0.1)
    assert node.works() == 0
    node.clock.forward(0.1)
    assert node.works() == 1
    assert node.told == [[]]
    assert [each.reason for each in node.outcomes()] == ["timeout"]
    if order is not None:
        assert not prior_orders.settle_order(node.ledger, order, [node.kept(b"then")], "too late")
    assert node.order() is None
    node.comes(2)
    node.works()
    assert node.order() is None, "what was not there in time is not looked for again"
    node.clock.forward(QUIET_S)
    assert node.works() == 1
    assert node.told == [[], []]


def test_a_late_image_s_report_says_the_same_of_the_earlier_radiograph(node: Node) -> None:
    node.comes(1)
    node.works()
    node.fetches(b"then")
    node.clock.forward(QUIET_S)
    node.works()
    node.says = workplace.judgement(77)
    node.comes(2)
    node.works()
    node.clock.forward(QUIET_S)
    assert node.works() == 1
    assert node.told == [[4], [4]]
    assert node.judged == [b"then"], "judged once"
    assert [len(case.earlier_reports) for case in node.cases] == [0, 1]


def test_what_an_earlier_radiograph_says_is_part_of_what_a_report_is_made_of(node: Node) -> None:
    node.comes(1)
    node.works()
    node.fetches(b"then")
    node.clock.forward(QUIET_S)
    with_it = studies.claim_study(node.ledger, "other", 60.0)
    assert with_it is not None
    judged = {each.prior_id: PriorOutcome(judgement="one") for each in with_it.priors or ()}
    one = studies.settle_priors(node.ledger, with_it, judged)
    other = studies.settle_priors(node.ledger, with_it, {number: PriorOutcome(judgement="other") for number in judged})
    none = studies.settle_priors(node.ledger, with_it, {number: PriorOutcome(reason="fault") for number in judged})
    assert one is not None
    assert other is not None
    assert none is not None
    assert len({one.made_of_sha256, other.made_of_sha256, none.made_of_sha256}) == 3
    assert none.priors == ()


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (Rejected(reason=Reason.NOT_FRONTAL, sentence="It is lateral."), "view-not-frontal"),
        (Rejected(reason=Reason.IDENTITY_CONFLICT, sentence="Somebody else."), "identity-conflict"),
        (InstanceError("it cannot be decoded"), "fault"),
        (
            replace(
                workplace.judgement(1),
                finding=replace(ledgers.finding(), identity=replace(ledgers.finding().identity, profile="adult")),
            ),
            "other-profile",
        ),
    ],
)
def test_what_cannot_be_said_is_left_out_for_good(node: Node, says: Any, reason: str) -> None:
    node.comes(1)
    node.works()
    node.says = says
    node.fetches(b"then")
    node.clock.forward(QUIET_S)
    assert node.works() == 1
    node.says = None
    node.comes(2)
    node.works()
    node.clock.forward(QUIET_S)
    assert node.works() == 1
    assert node.told == [[], []]
    assert [each.reason for each in node.outcomes()] == [reason]
    assert len(node.judged) == 1


def test_a_file_that_is_lost_is_left_out(node: Node) -> None:
    node.comes(1)
    node.works()
    node.fetches(b"then")
    node.spool.delete(Area.PRIORS, workplace.digest(b"then"))
    node.clock.forward(QUIET_S)
    assert node.works() == 1
    assert node.told == [[]]
    assert [each.reason for each in node.outcomes()] == ["spool-corrupt"]


def test_a_profile_that_was_replaced_judges_it_again(node: Node) -> None:
    node.comes(1)
    node.works()
    old = replace(ledgers.finding(), identity=replace(ledgers.finding().identity, version="0"))
    node.fetches(b"then")
    (told,) = studies_priors(node)
    with node.ledger.database.writing() as connection:
        text = judgement_text.dump(replace(workplace.judgement(9), finding=old))
        prior_orders.answer(connection, told, PriorOutcome(judgement=text))
    node.clock.forward(QUIET_S)
    assert node.works() == 1
    assert node.told == [[4]]
    assert node.judged == [b"then"]


def studies_priors(node: Node) -> list[int]:
    with node.ledger.database.reading() as connection:
        return [each.prior_id for each in prior_orders.fetched(connection, STUDY) or ()]


def test_an_earlier_radiograph_never_costs_a_study_its_report(node: Node) -> None:
    node.comes(1)
    node.works()
    node.says = ValueError("a bug")
    node.fetches(b"then")
    node.clock.forward(QUIET_S)
    for _ in range(node.config.work.max_attempts):
        node.works()
        node.clock.forward(60)
    assert node.told == [[]]
    assert [each.reason for each in node.outcomes()] == ["fault"]
    assert "report" in node.due()


def test_a_classifier_that_fails_blames_nobody(node: Node) -> None:
    node.comes(1)
    node.works()
    node.says = ModelError("out of memory")
    node.fetches(b"then")
    node.clock.forward(QUIET_S)
    for _ in range(5):
        with pytest.raises(ModelError):
            node.works()
        node.clock.forward(60)
    node.says = None
    assert node.works() == 1
    assert node.told == [[4]]


def test_a_worker_that_lost_its_study_settles_no_priors(node: Node) -> None:
    node.comes(1)
    node.works()
    node.fetches(b"then")
    node.clock.forward(QUIET_S)
    slow = studies.claim_study(node.ledger, "slow", 60.0)
    assert slow is not None
    node.clock.forward(61)
    assert node.works() == 1
    stale = {prior_id: PriorOutcome(judgement="{}") for prior_id in studies_priors(node)}
    assert studies.settle_priors(node.ledger, slow, stale) is None
    assert judgement_text.load_judgement(node.outcomes()[0].judgement or "").rows == 4


def test_killed_between_fetch_and_settle_the_order_is_fetched_once_more_to_the_same_report(node: Node) -> None:
    node.comes(1)
    node.works()
    dead = node.order("host/deliver-0")
    assert dead is not None
    node.kept(b"then")
    assert node.order("other") is None
    assert prior_orders.free(node.ledger, "host/deliver-0") == 1
    order = node.order("host/deliver-0")
    assert order is not None
    assert order.attempts == 2
    assert prior_orders.settle_order(node.ledger, order, [node.kept(b"then")], "1 fetched")
    assert not prior_orders.settle_order(node.ledger, dead, [node.kept(b"then")], "1 fetched")
    node.clock.forward(QUIET_S)
    assert node.works() == 1
    assert node.told == [[4]]
    assert list(node.spool.digests(Area.PRIORS)) == [workplace.digest(b"then")]


def test_a_clock_that_steps_keeps_no_study_waiting(node: Node) -> None:
    steady = iter([0.0, 1.0])
    watch = ClockWatch(lambda: next(steady))
    watch.follow(node.ledger)
    node.comes(1)
    node.works()
    node.clock.time -= timedelta(days=1) - timedelta(seconds=1)
    watch.follow(node.ledger)
    node.clock.forward(QUIET_S)
    assert node.works() == 0
    node.clock.forward(MAX_WAIT_S)
    assert node.works() == 1


def test_a_clock_that_was_put_back_unseen_does_neither(node: Node) -> None:
    node.comes(1)
    node.works()
    node.clock.time -= timedelta(days=1)
    assert node.order() is not None
    assert node.works() == 1


def test_files_go_with_the_images_of_their_study(node: Node) -> None:
    node.comes(1)
    node.works()
    node.fetches(b"then", b"before")
    node.clock.forward(QUIET_S)
    node.works()
    node.due()
    assert prior_files.sweep(node.ledger, node.spool) == 0
    node.clock.forward(8 * 86400)
    assert retention.sweep(node.ledger, node.spool, 7) == 1
    assert prior_files.sweep(node.ledger, node.spool) == 2
    assert list(node.spool.digests(Area.PRIORS)) == []
    assert prior_orders.prior_of(node.ledger, STUDY) is None


def test_an_erasure_takes_them_along(node: Node) -> None:
    for number in (1, 2):
        node.comes(number)
        node.works()
    node.fetches(b"then")
    node.clock.forward(QUIET_S)
    node.works()
    node.due()
    with node.ledger.database.writing() as connection:
        assert prior_orders.forget(connection, [STUDY]) == [], "its images are kept"
    retention.erase(node.ledger, node.spool, 1, 0.0)
    assert len(list(node.spool.digests(Area.PRIORS))) == 1
    retention.erase(node.ledger, node.spool, 2, 0.0)
    assert list(node.spool.digests(Area.PRIORS)) == []


def test_a_file_that_another_study_has_stays(node: Node) -> None:
    node.comes(1)
    node.works()
    node.fetches(b"then")
    with node.ledger.database.writing() as connection:
        of_other = {"study_instance_uid": "1.2.2", "state": OrderState.SETTLED, "until": node.clock(), "fence": 0}
        of_other |= {"not_before": node.clock(), "updated_at": node.clock(), "attempts": 0}
        connection.execute(tables.prior_orders.insert().values(of_other))
        number = connection.scalar(
            tables.prior_orders.select()
            .where(tables.prior_orders.c.study_instance_uid == "1.2.2")
            .with_only_columns(tables.prior_orders.c.id)
        )
        shared = {"order_id": number, "content_sha256": workplace.digest(b"then"), "settled_at": node.clock()}
        connection.execute(tables.priors.insert().values(shared))
        assert prior_orders.forget(connection, ["1.2.2"]) == []


def test_an_orphan_goes_after_a_day(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.kept(b"orphan")
    assert prior_files.sweep(node.ledger, node.spool) == 0
    monkeypatch.setattr("cxr_node.node.deliver.prior_files.time.time", lambda: time.time_ns() / 1e9 + 90_000)
    assert prior_files.sweep(node.ledger, node.spool) == 1
    assert list(node.spool.digests(Area.PRIORS)) == []
