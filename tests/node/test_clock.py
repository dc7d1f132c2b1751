"""The wall clock is put forward or back, by a day or by years: nothing dies early, nothing waits, nothing doubles."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from cxr_node.config.schema import MAX_DELAY_S
from cxr_node.errors import ResourceError
from cxr_node.node.deliver import courier
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.clock_watch import ClockWatch
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import DeliveryJob, Job
from cxr_node.node.ledger.tables import deliveries
from tests import postgres
from tests.node import peers, workplace
from tests.node.ledgers import Clock, finding, opened, results
from tests.node.test_ledger import PACS, add, claimed, due, reported
from tests.postgres import ENGINES

DAY = 86_400.0
STEPS = [DAY, -DAY, 20 * 365 * DAY, -20 * 365 * DAY]


class Clocks:
    """A wall clock that can be set, and one that only goes forward."""

    def __init__(self, wall: Clock) -> None:
        self.wall, self.steady_s = wall, 1000.0

    def passes(self, seconds: float) -> None:
        self.wall.forward(seconds)
        self.steady_s += seconds

    def watch(self, ledger: Ledger) -> ClockWatch:
        """One that has looked already."""
        watch = ClockWatch(lambda: self.steady_s)
        assert watch.follow(ledger) == 0.0
        return watch


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=ENGINES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with opened(request.param, tmp_path, clock) as ledger:
        yield ledger


def taken(ledger: Ledger, owner: str = "other") -> Job | None:
    return ledger.claim_instance(owner, 60.0)


@pytest.mark.parametrize("step_s", STEPS)
def test_a_job_of_the_dead_is_not_stuck(ledger: Ledger, clock: Clock, step_s: float) -> None:
    """Its lease would end tomorrow; the next worker takes it."""
    add(ledger, clock)
    claimed(ledger, lease_s=60.0)
    clock.forward(step_s)
    assert taken(ledger) is not None


@pytest.mark.parametrize("step_s", STEPS)
def test_a_job_of_the_living_ends_once(ledger: Ledger, clock: Clock, step_s: float) -> None:
    """Another may have taken it before the heartbeat came: two work, one settles."""
    add(ledger, clock)
    first = claimed(ledger, lease_s=60.0)
    clock.forward(step_s)
    second = taken(ledger)
    assert second is not None
    assert not ledger.extend(first, 60.0)
    assert ledger.settle_reported(second, finding(), results(), PACS)
    assert not ledger.settle_reported(first, finding(), results(), PACS)
    assert queries.queues(ledger)["pacs"]["READY"] == 3


@pytest.mark.parametrize("step_s", STEPS)
def test_a_heartbeat_after_the_step_holds_the_lease(ledger: Ledger, clock: Clock, step_s: float) -> None:
    add(ledger, clock)
    job = claimed(ledger, lease_s=60.0)
    clock.forward(step_s)
    assert ledger.extend(job, 60.0)
    assert taken(ledger) is None


def test_an_honest_lease_and_an_honest_delay_still_hold(ledger: Ledger, clock: Clock) -> None:
    """Other machines' clocks are some seconds apart; nothing near a legal time is mistaken for another clock's."""
    add(ledger, clock)
    job = claimed(ledger, lease_s=60.0)
    clock.forward(-30.0)
    assert taken(ledger) is None
    clock.forward(30.0)
    assert ledger.release(job, delay_s=100.0, detail="later")
    clock.forward(-30.0)
    assert taken(ledger) is None
    clock.forward(130.0)
    assert taken(ledger) is not None


@pytest.mark.parametrize("step_s", [-DAY, -20 * 365 * DAY])
def test_what_waits_does_not_wait_for_a_day_more(ledger: Ledger, clock: Clock, step_s: float) -> None:
    """Even where no process saw the step."""
    add(ledger, clock, 2)
    assert ledger.release(claimed(ledger), delay_s=100.0, detail="later")
    reported(ledger, clock, 1)
    for _ in range(3):
        assert ledger.postpone(due(ledger), delay_s=MAX_DELAY_S, status=None, detail="no answer")
    clock.forward(step_s)
    assert taken(ledger) is not None
    assert due(ledger) is not None


def waiting(ledger: Ledger, clock: Clock) -> list[DeliveryJob]:
    """Three deliveries that failed an hour ago, an hour after they were due."""
    reported(ledger, clock)
    clock.forward(3600.0)
    jobs = [due(ledger) for _ in range(3)]
    for job in jobs:
        assert ledger.postpone(job, delay_s=1800.0, status=None, detail="no answer")
    return jobs


@pytest.mark.parametrize("step_s", STEPS)
def test_a_delivery_is_as_old_and_as_far_from_due_as_before(ledger: Ledger, clock: Clock, step_s: float) -> None:
    waiting(ledger, clock)
    clocks = Clocks(clock)
    watch = clocks.watch(ledger)
    clocks.passes(0.25)
    assert watch.follow(ledger) == 0.0
    clocks.passes(0.25)
    clock.forward(step_s)
    assert watch.follow(ledger) == pytest.approx(step_s)
    clocks.passes(1799.0)
    assert watch.follow(ledger) == 0.0
    assert ledger.claim_delivery("pacs", "sender", 60.0) is None, "it is not due yet"
    clocks.passes(1.0)
    job = due(ledger)
    assert clock() - job.first_due_at == timedelta(seconds=3600.0 + 0.5 + 1800.0)


@pytest.mark.parametrize("step_s", STEPS)
def test_what_became_due_since_the_step_is_dated_right_already(ledger: Ledger, clock: Clock, step_s: float) -> None:
    clocks = Clocks(clock)
    watch = clocks.watch(ledger)
    clocks.passes(0.1)
    clock.forward(step_s)
    clocks.passes(0.1)
    reported(ledger, clock)
    watch.follow(ledger)
    assert clock() - due(ledger).first_due_at == timedelta(0)


@pytest.mark.parametrize("step_s", STEPS)
@pytest.mark.skipif(postgres.programs() is None, reason=postgres.HINT)
def test_a_step_that_all_machines_notice_moves_dates_once(tmp_path: Path, clock: Clock, step_s: float) -> None:
    """It is the server's clock, which all of them look at."""
    with opened("postgresql", tmp_path, clock) as ledger:
        waiting(ledger, clock)
        clock.forward(600.0)
        clocks = Clocks(clock)
        watches = [clocks.watch(ledger) for _ in range(3)]
        before = _ages(ledger, clock)
        clock.forward(step_s)
        for watch in watches:
            assert watch.follow(ledger) == pytest.approx(step_s)
            clocks.passes(1.0)
        assert _ages(ledger, clock) == [age + timedelta(seconds=3) for age in before]
        assert [watch.steps for watch in watches] == [1, 1, 1]


def _ages(ledger: Ledger, clock: Clock) -> list[timedelta]:
    with ledger.database.reading() as connection:
        return [clock() - at for at in connection.scalars(sa.select(deliveries.c.first_due_at))]


def test_a_clock_that_is_slewed_is_left_alone(ledger: Ledger, clock: Clock) -> None:
    waiting(ledger, clock)
    clocks = Clocks(clock)
    watch = clocks.watch(ledger)
    for _ in range(100):
        clocks.passes(0.25)
        clock.forward(0.25 * 0.0005)  # adjtime(3): 500 parts per million
        assert watch.follow(ledger) == 0.0


def test_a_step_that_could_not_be_written_is_seen_again(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clocks(clock)
    watch = clocks.watch(ledger)
    clock.forward(DAY)

    def full() -> None:
        raise ResourceError("ledger: database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ledger.database, "writing", full)
        with pytest.raises(ResourceError):
            watch.follow(ledger)
    assert watch.follow(ledger) == pytest.approx(DAY)


@pytest.mark.parametrize("step_s", [DAY, -DAY])
def test_no_delivery_dies_early_or_stalls_in_a_living_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    """The whole courier: the destination is away, the clock steps by a day of an allowed age of one hour."""
    down = threading.Event()
    archive = peers.Archive(lambda _: 0xA700 if not down.is_set() else 0x0000)
    with peers.listening(archive) as address:
        config = workplace.config(
            tmp_path / "spool",
            address,
            delivery={"first_delay_s": 0.05, "max_delay_s": 0.2, "max_age_h": 1.0},
        )
        workplace.receive(config, 1)
        shift = [0.0]
        genuine = Ledger.open

        def stepped(*arguments: object, **keywords: object) -> Ledger:
            ledger = genuine(*arguments, **keywords)  # type: ignore[arg-type]  # handed on as they came
            now = ledger.now
            ledger.now = lambda: now() + timedelta(seconds=shift[0])
            return ledger

        monkeypatch.setattr(Ledger, "open", stepped)
        ledger = Ledger.open(config.spool.path)
        workplace.worker(config, ledger).do_one()
        stop = threading.Event()
        thread = threading.Thread(target=courier.run, args=(config, stop))
        thread.start()
        try:
            assert workplace.eventually(lambda: archive._count >= 3)
            shift[0] = step_s
            before = archive._count
            assert workplace.eventually(lambda: archive._count >= before + 6, 8.0), "it stalls"
            assert "DEAD" not in {state for state, _ in workplace.states(config)}
            down.set()
            assert workplace.eventually(lambda: workplace.states(config) == [("DELIVERED", None)], 5.0)
        finally:
            stop.set()
            thread.join(20)
            ledger.close()
    assert len(archive.datasets) == 3
    assert all(len(many) == 1 for many in archive.datasets.values())
