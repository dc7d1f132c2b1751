"""A result that comes after the read is kept and not sent: from when on, and what a person or a clock does."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from cxr_node.cli import ledger_tables
from cxr_node.domain import Reason
from cxr_node.node.deliver import courier
from cxr_node.node.ledger import browse, commitments, holds, lateness, operator_moves, queries, status
from cxr_node.node.ledger.browse import Group
from cxr_node.node.ledger.commitments import Report
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.listing import Wanted
from cxr_node.node.ledger.lookup import matching
from cxr_node.node.ledger.stages import Stage
from cxr_node.node.ledger.states import DeadReason, DeliveryState, InstanceState, OwnReason, SetAsideReason
from cxr_node.node.retry import NO_PAUSE
from cxr_node.outcome import Rejected
from tests.node import peers, workplace
from tests.node.ledgers import Clock, finding, results, retried
from tests.node.test_clock import Clocks
from tests.node.test_courier import judged, ledgers, make_courier
from tests.node.test_ledger import PACS, add, claimed, clock, due, ledger, reported, state

__all__ = ["clock", "ledger", "ledgers", "make_courier"]  # fixtures

BOTH = PACS | {"second": PACS["pacs"]}
HOUR = 3600.0
KEPT = "kept, not sent, after 61 min"
Courier = Callable[..., courier.Courier]


def late(ledger: Ledger, destination: str = "pacs", number: int = 3) -> None:
    for _ in range(number):
        assert ledger.settle_unsent(due(ledger, destination), OwnReason.TOO_LATE, KEPT)


def age_s(ledger: Ledger, clock: Clock, destination: str = "pacs") -> float | None:
    job = due(ledger, destination)
    return None if job.late_from is None else (clock() - job.late_from).total_seconds()


def test_it_is_final_counted_and_no_choice_of_an_operator(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock)
    late(ledger)
    (story,) = queries.trace(ledger, "#1")
    assert (story.instance.state, story.instance.reason, story.instance.sentence) == ("SET_ASIDE", "too-late", KEPT)
    assert {(row.state, row.reason, row.attempts) for row in story.deliveries} == {("SET_ASIDE", "too-late", 0)}
    assert ("too-late", f"report to pacs: {KEPT}") in {(event.what, event.detail) for event in story.events}
    assert ledger.claim_delivery("pacs", "courier", 60.0) is None
    assert queries.late_deliveries(ledger) == {"pacs": 3}
    assert queries.dead_deliveries(ledger) == {}
    there = Wanted(stage=Stage.SET_ASIDE)
    assert {name: total.number for name, total in browse.groups(ledger, there, Group.REASON).items()} == {"too-late": 1}
    assert OwnReason.TOO_LATE not in {word.value for word in SetAsideReason}


def test_one_destination_has_it_in_time_and_another_does_not(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, BOTH)
    late(ledger, "second")
    assert state(ledger) is InstanceState.REPORTED
    for _ in range(3):
        assert ledger.settle_delivered(due(ledger), 0x0000)
    assert state(ledger) is InstanceState.SET_ASIDE
    assert queries.late_deliveries(ledger) == {"second": 3}


def test_retry_sends_it_and_time_counts_from_then(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock)
    late(ledger)
    clock.forward(HOUR)
    all_dead = operator_moves.Again(destinations=["pacs"], by="anna")
    assert operator_moves.retry(ledger, matching("1.2.1"), all_dead).instances == 0, "`retry --dead` leaves it"
    assert retried(ledger, "1.2.1", "pacs") == 1
    assert (state(ledger), queries.late_deliveries(ledger)) == (InstanceState.REPORTED, {})
    clock.forward(60)
    assert age_s(ledger, clock) == 60


def test_time_counts_from_the_receipt_through_the_queue_and_a_repeat_changes_nothing(
    ledger: Ledger, clock: Clock
) -> None:
    add(ledger, clock)
    clock.forward(HOUR)
    assert not add(ledger, clock)
    assert ledger.settle_reported(claimed(ledger), finding(), results(), PACS)
    clock.forward(60)
    assert age_s(ledger, clock) == HOUR + 60


def test_a_rejected_image_that_comes_again_counts_from_then(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    rejected = Rejected(reason=Reason.COLOR, sentence="It is in color.")
    assert ledger.settle_rejected(claimed(ledger), rejected, rules_sha256="a" * 64)
    clock.forward(HOUR)
    assert not add(ledger, clock)
    clock.forward(60)
    assert ledger.settle_reported(claimed(ledger), finding(), results(), PACS)
    assert age_s(ledger, clock) == 60


@pytest.mark.parametrize("wish", ["rejudge", "retry"])
def test_what_a_person_has_judged_again_counts_from_then(ledger: Ledger, clock: Clock, wish: str) -> None:
    add(ledger, clock)
    if wish == "retry":
        assert ledger.settle_dead(claimed(ledger), DeadReason.FAULT, "a fault")
    else:
        rejected = Rejected(reason=Reason.COLOR, sentence="It is in color.")
        assert ledger.settle_rejected(claimed(ledger), rejected)
    clock.forward(HOUR)
    if wish == "retry":
        assert retried(ledger, "1.2.1") == 1
    else:
        assert operator_moves.rejudge(ledger, [1], by="anna").queued == 1
    clock.forward(60)
    assert ledger.settle_reported(claimed(ledger), finding(), results(), PACS)
    assert age_s(ledger, clock) == 60


def test_a_result_of_several_images_counts_from_the_last_of_them(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock, 1)
    clock.forward(HOUR)
    add(ledger, clock, 2)
    with ledger.database.reading() as connection:
        assert lateness.since(connection, [1, 2]) == clock()
        assert lateness.since(connection, [1]) == clock() - timedelta(seconds=HOUR)


@pytest.mark.parametrize("is_due", [True, False])
def test_what_is_sent_again_counts_from_then_even_where_it_waits(ledger: Ledger, clock: Clock, is_due: bool) -> None:
    reported(ledger, clock)
    if not is_due:
        late(ledger)
    clock.forward(HOUR)
    with ledger.database.writing() as connection:
        came = operator_moves._make_due(connection, 1, "pacs", DeliveryState.READY, 2, clock())
    assert (came is None) is not is_due
    assert age_s(ledger, clock) == 0


def test_a_hold_stops_nothing(ledger: Ledger, clock: Clock) -> None:
    """What gave it time to become DEAD gives it none to be late."""
    reported(ledger, clock)
    holds.hold(ledger, "pacs", "anna")
    clock.forward(HOUR)
    assert holds.release(ledger, "pacs", by="anna") == 3
    job = due(ledger)
    assert (job.first_due_at, job.late_from) == (clock(), clock() - timedelta(seconds=HOUR))


def test_what_an_archive_lost_is_never_too_late(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock)
    for _ in range(3):
        assert ledger.settle_delivered(due(ledger), 0x0000, promised=True)
    clock.forward(commitments.GATHER_S)
    asked = commitments.begin(ledger, "pacs")
    assert asked is not None
    lost = Report(transaction_uid=asked.uid, committed=(), failed={"2.25.1.0": 0x0112})
    assert commitments.answer(ledger, asked, lost, lambda _: 0.0)["sent again"] == 1
    assert age_s(ledger, clock) is None


@pytest.mark.parametrize("step_s", [86_400.0, -86_400.0])
def test_a_step_of_the_clock_makes_nothing_late(ledger: Ledger, clock: Clock, step_s: float) -> None:
    reported(ledger, clock)
    clocks = Clocks(clock)
    watch = clocks.watch(ledger)
    clocks.passes(60.0)
    assert watch.follow(ledger) == 0.0
    clock.forward(step_s)
    assert watch.follow(ledger) == pytest.approx(step_s)
    clocks.passes(60.0)
    assert watch.age(ledger, due(ledger)) == timedelta(seconds=120)


def test_nor_does_one_between_receipt_and_judgement(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1)
    add(ledger, clock, 2)
    clocks = Clocks(clock)
    watch = clocks.watch(ledger)
    clocks.passes(60.0)
    assert watch.follow(ledger) == 0.0
    clock.forward(86_400.0)
    watch.follow(ledger)
    assert ledger.settle_reported(claimed(ledger), finding(), results(2), PACS)
    reported(ledger, clock, 3)
    holds.hold(ledger, "pacs", "anna")
    clocks.passes(60.0)
    holds.release(ledger, "pacs", by="anna")
    ages = [watch.age(ledger, due(ledger)).total_seconds() for _ in range(9)]
    assert ages == [120.0] * 3 + [120.0] * 3 + [60.0] * 3


@pytest.mark.parametrize(
    ("after_min", "passes_min", "step_min", "sent"),
    [(60.0, 61.0, 0.0, 0), (60.0, 58.0, 0.0, 3), (60.0, 1.0, 600.0, 3), (60.0, 61.0, 600.0, 1), (None, 6e3, 0.0, 3)],
    ids=["too late", "in time", "the clock stepped", "too late and the clock stepped", "none is too late"],
)
def test_what_is_due_too_late_is_not_sent(
    tmp_path: Path,
    make_courier: Courier,
    caplog: pytest.LogCaptureFixture,
    after_min: float | None,
    passes_min: float,
    step_min: float,
    sent: int,
) -> None:
    """Of what may be too late the first is sent where the clock is found to have stepped."""
    archive, steady = peers.Archive(), Clock(datetime.now(UTC))
    with peers.listening(archive) as address, caplog.at_level(logging.INFO):
        config = workplace.config(tmp_path / "spool", address, delivery={"not_after_min": after_min, "max_age_h": 9e3})
        judged(config, 1)
        one, wall = make_courier(config), Clock(datetime.now(UTC))
        one._context.ledger.now = wall
        one._context.clock._steady = lambda: steady().timestamp()
        one._context.clock.follow(one._context.ledger)
        for each in (wall, steady):
            each.forward(60 * passes_min)
        wall.forward(60 * step_min)
        for _ in range(3):
            assert one.do_one() == NO_PAUSE
    ledger = one._context.ledger
    (story,) = queries.trace(ledger, "#1")
    assert len(archive.datasets) == sent
    assert sorted(row.state for row in story.deliveries) == ["DELIVERED"] * sent + ["SET_ASIDE"] * (3 - sent)
    lines = [each for each in caplog.records if each.getMessage().startswith("too late destination=pacs0 instance=1")]
    assert [each.levelno for each in lines] == [logging.INFO] * (3 - sent)
    assert status.look(ledger, config).late_deliveries == ({"pacs0": 3 - sent} if sent < 3 else {})


def test_what_was_tried_before_says_so(tmp_path: Path, make_courier: Courier) -> None:
    archive = peers.Archive(lambda _: 0xA700)
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address, delivery={"not_after_min": 60.0, "first_delay_s": 0.05})
        judged(config, 1)
        one, clock = make_courier(config), Clock(datetime.now(UTC))
        one._context.ledger.now = clock
        one._context.clock._steady = lambda: clock().timestamp()
        one.do_one()
        clock.forward(61 * 60)
        while one.do_one() == NO_PAUSE:
            pass
    (story,) = queries.trace(one._context.ledger, "#1")
    assert [row.attempts for row in story.deliveries] == [1, 0, 0]
    told = [row.last_error for row in story.deliveries]
    assert told[1:] == [KEPT] * 2
    assert told[0] == f"{KEPT}; tried 1 time before, and not known to have arrived"
    assert archive._count == 1
    shown = io.StringIO()
    Console(file=shown, width=200).print(ledger_tables.story(story, {}))
    assert f"too late: {KEPT}" in shown.getvalue()
    shown = io.StringIO()
    Console(file=shown, width=200).print(ledger_tables.status(status.look(one._context.ledger, config), {}))
    (heading,) = [line.split() for line in shown.getvalue().splitlines() if "deliveries to" in line]
    (numbers,) = [line.split() for line in shown.getvalue().splitlines() if line.startswith("│ pacs0")]
    assert (heading[-2], numbers[-2]) == ("late", "3")
    assert f"too late: {KEPT}" in shown.getvalue()
