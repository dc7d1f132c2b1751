"""The worker: whose fault decides how a job ends, and a job ends once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config import Config
from cxr_node.domain import Outcome
from cxr_node.errors import ConfigError, InstanceError, ModelError, ResourceError
from cxr_node.node import history, work
from cxr_node.node.database import utc_now
from cxr_node.node.ledger import Ledger
from cxr_node.node.spool import Area, Spool
from cxr_node.node.tenure import kept, office
from cxr_node.node.wakeup import Bell, Role, ring
from tests.node import peers, workplace

Judge = Callable[..., Outcome]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return workplace.config(tmp_path / "spool", peers.nobody())


@pytest.fixture
def ledger(config: Config) -> Iterator[Ledger]:
    opened = Ledger.open(config.spool.path)
    yield opened
    opened.close()


def hands(config: Config, ledger: Ledger, judge: Judge = workplace.judge, owner: str = "me") -> work.Worker[object]:
    return work.Worker(config, ledger, Spool(config.spool.path), owner, object(), judge)


def failing(error: Exception) -> Judge:
    def judge(*_: Any) -> Outcome:
        raise error

    return judge


def test_results_are_stored_and_due(config: Config, ledger: Ledger) -> None:
    workplace.receive(config, 1)
    with Bell(config.spool.path, Role.DELIVER) as bell:
        assert hands(config, ledger).do_one()
        assert bell.wait(1.0)
    assert workplace.states(config) == [("REPORTED", None)]
    digests = []
    while job := ledger.claim_delivery("pacs0", "me", 60):
        digests.append(workplace.digest(Spool(config.spool.path).read(Area.RESULTS, job.artifact.content_sha256)))
        assert digests[-1] == job.artifact.content_sha256
    assert len(digests) == 3
    assert not hands(config, ledger).do_one()


def test_a_rejection_is_a_settled_answer(config: Config, ledger: Ledger) -> None:
    workplace.receive(config, 1, content=b"a knee")
    hands(config, ledger).do_one()
    assert workplace.states(config) == [("REJECTED", "not-a-chest")]


def test_an_instance_at_fault_is_dead_at_once(config: Config, ledger: Ledger) -> None:
    workplace.receive(config, 1)
    hands(config, ledger, failing(InstanceError("no header"))).do_one()
    assert workplace.states(config) == [("DEAD", "fault")]


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"radiograph 2"), lambda path: path.unlink()])
def test_bytes_that_changed_in_the_spool_are_never_judged(
    config: Config, ledger: Ledger, damage: Callable[[Path], None]
) -> None:
    workplace.receive(config, 1)
    damage(Spool(config.spool.path).locate(Area.OBJECTS, workplace.digest(b"radiograph 1")))
    hands(config, ledger, failing(AssertionError("judged"))).do_one()
    assert workplace.states(config) == [("DEAD", "spool-corrupt")]


def test_a_classifier_at_fault_gives_the_job_back_uncounted_and_ends_the_worker(config: Config, ledger: Ledger) -> None:
    workplace.receive(config, 1)
    with pytest.raises(ModelError):
        hands(config, ledger, failing(ModelError("weights broke"))).do_one()
    (row,) = history.recent(ledger, 1)
    assert (row.state, row.attempts, row.lease_owner) == ("RECEIVED", 0, None)


def test_a_machine_at_fault_gives_the_job_back_uncounted(config: Config, ledger: Ledger) -> None:
    workplace.receive(config, 1)
    with pytest.raises(ResourceError):
        hands(config, ledger, failing(ResourceError("disk full"))).do_one()
    (row,) = history.recent(ledger, 1)
    assert (row.state, row.attempts) == ("RECEIVED", 0)
    assert (due_s := history.next_instance_s(ledger)) is not None
    assert 0 < due_s <= 5


def test_a_bug_is_tried_three_times_then_set_aside(config: Config, ledger: Ledger) -> None:
    workplace.receive(config, 1)
    now = ledger.now
    late = [0.0]
    ledger.now = lambda: now() + timedelta(seconds=late[0])
    worker = hands(config, ledger, failing(ZeroDivisionError("CANARY^PATIENT")))
    for attempt in (1, 2, 3):
        late[0] = 3600.0 * attempt
        assert worker.do_one()
        state = "DEAD" if attempt == 3 else "RECEIVED"
        assert [row[0] for row in workplace.states(config)] == [state]
    late[0] += 3600.0
    assert not worker.do_one()


def test_an_image_that_killed_every_worker_is_not_touched_again(config: Config, ledger: Ledger) -> None:
    workplace.receive(config, 1)
    for _ in range(3):  # claimed, and never settled: the process was gone
        job = ledger.claim_instance("dead", -1.0)
        assert job is not None
    hands(config, ledger, failing(AssertionError("judged"))).do_one()
    assert workplace.states(config) == [("DEAD", "fault")]


def test_no_patient_data_in_ledger_or_log(config: Config, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    workplace.receive(config, 1)
    with caplog.at_level(logging.DEBUG, "cxr_node"):
        hands(config, ledger, failing(ValueError("bad value CANARY^PATIENT"))).do_one()
    (story,) = history.trace(ledger, "1.2.1.1.1")
    told = caplog.text + "".join(event.detail for event in story.events)
    assert "ValueError" in told
    assert "test_work.py" in told
    assert "CANARY" not in told


def test_who_lost_the_lease_changes_nothing(config: Config, ledger: Ledger) -> None:
    """A worker that slept through its lease comes back with its own results: the other's word counts."""
    workplace.receive(config, 1)

    def overtaken(*arguments: Any) -> Outcome:
        with ledger.database.writing() as connection:
            connection.exec_driver_sql("UPDATE instances SET lease_until = 0")
        assert hands(config, ledger, owner="other").do_one()
        return workplace.judge(*arguments)

    hands(config, ledger, overtaken).do_one()
    assert workplace.states(config) == [("REPORTED", None)]
    assert history.queues(ledger)["pacs0"]["READY"] == 3


def test_a_long_job_keeps_its_lease(tmp_path: Path) -> None:
    config = workplace.config(tmp_path / "spool", work={"lease_s": 0.3})
    workplace.receive(config, 1)
    ledger = Ledger.open(config.spool.path)

    def slow(*arguments: Any) -> Outcome:
        threading.Event().wait(1.0)
        assert ledger.claim_instance("thief", 60) is None
        return workplace.judge(*arguments)

    hands(config, ledger, slow).do_one()
    ledger.close()
    assert workplace.states(config) == [("DELIVERED", None)]  # no destination wants anything


def test_a_job_that_does_not_end_is_reported_and_loses_its_lease(config: Config, ledger: Ledger) -> None:
    workplace.receive(config, 1)
    job = ledger.claim_instance("me", 0.15)
    assert job is not None
    hung = threading.Event()
    with kept(ledger, job, lease_s=0.15, hung_after_s=0.4, on_hung=hung.set):
        assert hung.wait(10)
        assert workplace.eventually(lambda: ledger.claim_instance("other", 60) is not None, 5)


def test_a_worker_judges_what_comes_in_at_once_and_stops_when_told(config: Config) -> None:
    stop, ready = threading.Event(), threading.Event()

    def load() -> object:
        ready.set()
        return object()

    thread = threading.Thread(target=work.run, args=(config, load, workplace.judge, stop))
    thread.start()
    try:
        assert ready.wait(20)
        assert workplace.eventually(lambda: ring(config.spool.path, Role.WORK) == 1)
        workplace.receive(config, 1, 2)
        ring(config.spool.path, Role.WORK)
        assert workplace.eventually(lambda: workplace.states(config) == [("REPORTED", None)] * 2, 5.0)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
    assert not list((config.spool.path / "run").glob("*.sock"))


def test_a_successor_frees_what_a_killed_worker_held(config: Config, ledger: Ledger) -> None:
    """The name is a lock of the kernel's; who holds it knows that its last holder is dead."""
    workplace.receive(config, 1)
    workplace.receive(config, 2)
    with office(ledger, config.spool.path, Role.WORK) as first:
        assert (suspect := ledger.claim_instance(first, 3600)) is not None
        with office(ledger, config.spool.path, Role.WORK) as second:
            assert second != first
            assert (other := ledger.claim_instance(second, 0)) is not None
            assert other.ref != suspect.ref
    with office(ledger, config.spool.path, Role.WORK) as successor:
        assert successor == first
        assert (job := ledger.claim_instance(successor, 3600)) is not None
        assert job.ref == other.ref, "the suspect steps back for a moment"
        later = Ledger(ledger.database, now=lambda: utc_now() + timedelta(seconds=2))
        assert (job := later.claim_instance(successor, 3600)) is not None
        assert (job.ref, job.attempts) == (suspect.ref, 2)


def test_a_profile_that_cannot_be_used_stops_the_worker_before_it_takes_a_job(config: Config) -> None:
    workplace.receive(config, 1)

    def load() -> object:
        raise ConfigError("model.profile: no such profile")

    with pytest.raises(ConfigError):
        work.run(config, load, workplace.judge, threading.Event())
    assert workplace.states(config) == [("RECEIVED", None)]
