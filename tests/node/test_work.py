"""The worker: whose fault decides how a job ends, and a job ends once."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config.schema import Config
from cxr_node.errors import ConfigError, InstanceError, ModelError, ResourceError
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.database import utc_now
from cxr_node.node.ledger.lease_keeper import LeaseKeeper, worker_name
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.process.notify import Role, Wakeup, notify
from cxr_node.node.spool.spool import Area, Spool
from cxr_node.node.work import worker
from cxr_node.outcome import Outcome
from tests.node import peers, workplace

Judge = Callable[..., Outcome]
FORKS = multiprocessing.get_context("forkserver")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return workplace.config(tmp_path / "spool", peers.nobody())


@pytest.fixture
def ledger(config: Config) -> Iterator[Ledger]:
    opened = Ledger.open(config.spool.path)
    yield opened
    opened.close()


hands = workplace.worker


def failing(error: Exception) -> Judge:
    def judge(*_: Any) -> Outcome:
        raise error

    return judge


def test_results_are_stored_and_due(config: Config, ledger: Ledger) -> None:
    workplace.receive(config, 1)
    with closing(Wakeup(config.spool.path, Role.DELIVER)) as wakeup:
        assert hands(config, ledger).do_one()
        assert wakeup.wait(1.0)
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
    (row,) = queries.recent(ledger, 1)
    assert (row.state, row.attempts, row.lease_owner) == ("RECEIVED", 0, None)


def test_a_machine_at_fault_gives_the_job_back_uncounted(config: Config, ledger: Ledger) -> None:
    workplace.receive(config, 1)
    with pytest.raises(ResourceError):
        hands(config, ledger, failing(ResourceError("disk full"))).do_one()
    (row,) = queries.recent(ledger, 1)
    assert (row.state, row.attempts) == ("RECEIVED", 0)
    assert (due_s := queries.next_instance_s(ledger)) is not None
    assert 0 < due_s <= 5


def test_a_bug_is_tried_three_times_then_set_aside(config: Config, ledger: Ledger) -> None:
    workplace.receive(config, 1)
    now = ledger.now
    late = [0.0]
    ledger.now = lambda: now() + timedelta(seconds=late[0])
    judging = hands(config, ledger, failing(ZeroDivisionError("CANARY^PATIENT")))
    for attempt in (1, 2, 3):
        late[0] = 3600.0 * attempt
        assert judging.do_one()
        state = "DEAD" if attempt == 3 else "RECEIVED"
        assert [row[0] for row in workplace.states(config)] == [state]
    late[0] += 3600.0
    assert not judging.do_one()


def test_an_image_that_killed_every_worker_is_not_touched_again(config: Config, ledger: Ledger) -> None:
    workplace.receive(config, 1)
    for _ in range(3):  # claimed, and never settled: the process was gone
        job = ledger.claim_instance("dead", -1.0)
        assert job is not None
    hands(config, ledger, failing(AssertionError("judged"))).do_one()
    assert workplace.states(config) == [("DEAD", "fault")]


def test_an_image_that_kills_its_worker_is_dead_after_three_and_costs_no_other(tmp_path: Path) -> None:
    """SIGKILL, as by the kernel when memory is out (FAULTS T30): the attempt was counted before the work began."""
    config = workplace.config(tmp_path / "spool", work={"lanes": 1})  # with others beside it: test_lanes
    workplace.receive(config, 1, content=b"poison")
    workplace.receive(config, 2, 3)
    deaths = 0
    while workplace.states(config)[0][0] == "RECEIVED" and deaths < 6:
        process = FORKS.Process(target=_work_until_poisoned, args=(config,))
        process.start()
        process.join(60)
        deaths += process.exitcode == -signal.SIGKILL
    assert deaths == 3
    assert workplace.states(config) == [("DEAD", "fault"), ("DELIVERED", None), ("DELIVERED", None)]
    ledger = Ledger.open(config.spool.path)
    poison, *others = (queries.trace(ledger, f"1.2.{number}")[0].instance for number in (1, 2, 3))
    ledger.close()
    assert poison.sentence == "3 workers died of it"
    assert [row.attempts for row in others] == [1, 1]


def _work_until_poisoned(config: Config) -> None:
    def judge(content: bytes, *arguments: Any) -> Outcome:
        if content == b"poison":
            os.kill(os.getpid(), signal.SIGKILL)
        return workplace.judge(content, *arguments)

    stop = threading.Event()
    thread = threading.Thread(target=lambda: (_nothing_waits(config), stop.set()))
    thread.start()
    worker.run(config, lambda: workplace.analyser(judge), stop)


def _nothing_waits(config: Config) -> bool:
    return workplace.eventually(lambda: "RECEIVED" not in {state for state, _ in workplace.states(config)}, 30)


def test_a_suspect_goes_last(config: Config, ledger: Ledger) -> None:
    """Ten poisoned images at the head of the queue must not hold up later ones."""
    for number in (1, 2, 3):
        workplace.receive(config, number)
    assert ledger.claim_instance("dead", -1.0) is not None
    order = [job.ref.sop_instance_uid for _ in range(3) if (job := ledger.claim_instance("me", 60.0))]
    assert order == ["1.2.2.1.1", "1.2.3.1.1", "1.2.1.1.1"]


def test_an_outage_of_the_ledger_never_counts_against_an_image(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job can be taken but not be given back: five times over, where three deaths make an image DEAD."""
    workplace.receive(config, 1)
    real = ledger.database.writing

    def full() -> None:
        raise ResourceError("ledger: OperationalError: database or disk is full")

    def judge(*_: Any) -> Outcome:
        monkeypatch.setattr(ledger.database, "writing", full)
        raise ResourceError("spool: full")

    judging = hands(config, ledger, judge)
    for _ in range(5):
        with pytest.raises(ResourceError, match="spool"):
            judging.do_one()
        with pytest.raises(ResourceError, match="disk is full"):
            judging.do_one()  # still out: nothing is claimed
        monkeypatch.setattr(ledger.database, "writing", real)
    good = replace(judging, analyser=workplace.analyser())
    assert good.do_one()
    (row,) = queries.recent(ledger, 1)
    assert (row.state, row.attempts) == ("REPORTED", 1)


def test_the_log_names_the_instance_and_its_verdict(
    config: Config, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    workplace.receive(config, 1)
    workplace.receive(config, 2, content=b"no radiograph")
    with caplog.at_level(logging.INFO):
        assert hands(config, ledger).do_one() and hands(config, ledger).do_one()
    finding = workplace.ledgers.finding()
    verdict = finding.target.word(finding.decision.verdict)
    told = [record.getMessage().partition(" attempt=")[0] for record in caplog.records if "instance=" in record.message]
    assert told == [f"reported verdict={verdict} instance=1", "rejected reason=not-a-chest instance=2"]


def test_what_is_dead_is_logged_as_an_error_with_its_reason(
    config: Config, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    workplace.receive(config, 1)
    Spool(config.spool.path).locate(Area.OBJECTS, workplace.digest(b"radiograph 1")).unlink()
    hands(config, ledger).do_one()
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert "dead reason=spool-corrupt instance=1" in record.message


def test_what_a_machine_that_died_for_good_held_is_taken_when_its_lease_ends(
    config: Config, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process frees it: its name is another machine's. The sleeping worker wakes when the lease is over (T29)."""
    monkeypatch.setattr(worker, "LOOK_AFTER_S", 600.0)
    workplace.receive(config, 1)
    assert ledger.claim_instance("elsewhere/work-0", 1.5) is not None
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(config, workplace.analyser, stop))
    begun = time.monotonic()
    thread.start()
    try:
        assert workplace.eventually(lambda: workplace.states(config) == [("REPORTED", None)])
    finally:
        stop.set()
        thread.join()
    assert time.monotonic() - begun > 1.0


def test_no_patient_data_in_ledger_or_log(config: Config, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    workplace.receive(config, 1)
    with caplog.at_level(logging.DEBUG, "cxr_node"):
        hands(config, ledger, failing(ValueError("bad value CANARY^PATIENT"))).do_one()
    (story,) = queries.trace(ledger, "1.2.1.1.1")
    told = caplog.text + "".join(event.detail for event in story.events)
    assert "ValueError" in told
    assert "test_work.py" in told
    assert "CANARY" not in told


def test_a_worker_that_lost_the_lease_changes_nothing(config: Config, ledger: Ledger) -> None:
    """A worker that slept through its lease comes back with its own results: the other's count."""
    workplace.receive(config, 1)

    def overtaken(*arguments: Any) -> Outcome:
        with ledger.database.writing() as connection:
            connection.exec_driver_sql("UPDATE instances SET lease_until = 0")
        assert hands(config, ledger, owner="other").do_one()
        return workplace.judge(*arguments)

    hands(config, ledger, overtaken).do_one()
    assert workplace.states(config) == [("REPORTED", None)]
    assert queries.queues(ledger)["pacs0"]["READY"] == 3


def test_a_long_job_keeps_its_lease(tmp_path: Path) -> None:
    config = workplace.config(tmp_path / "spool", work={"lease_s": 0.3})
    workplace.receive(config, 1)
    ledger = Ledger.open(config.spool.path)

    def slow(*arguments: Any) -> Outcome:
        threading.Event().wait(1.0)
        assert ledger.claim_instance("thief", 60) is None
        return workplace.judge(*arguments)

    judging = hands(config, ledger, slow)
    with closing(LeaseKeeper(ledger, 0.3)) as keeper, worker.Lanes(judging, keeper, 1) as lanes:
        assert lanes.take_one()
    ledger.close()
    assert workplace.states(config) == [("DELIVERED", None)]  # no destination wants anything


def test_a_job_that_does_not_end_is_reported_and_loses_its_lease(config: Config, ledger: Ledger) -> None:
    workplace.receive(config, 1)
    job = ledger.claim_instance("me", 0.15)
    assert job is not None
    hung = threading.Event()
    with closing(LeaseKeeper(ledger, lease_s=0.15, hung_after_s=0.4, on_hung=hung.set)) as keeper, keeper.keeping(job):
        assert hung.wait(10)
        assert workplace.eventually(lambda: ledger.claim_instance("other", 60) is not None, 5)


def test_a_worker_judges_what_comes_in_at_once_and_stops_when_asked(config: Config) -> None:
    stop, ready = threading.Event(), threading.Event()

    def load() -> worker.Analyser:
        ready.set()
        return workplace.analyser()

    thread = threading.Thread(target=worker.run, args=(config, load, stop))
    thread.start()
    try:
        assert ready.wait(20)
        assert workplace.eventually(lambda: notify(config.spool.path, Role.WORK) == 1)
        workplace.receive(config, 1, 2)
        notify(config.spool.path, Role.WORK)
        assert workplace.eventually(lambda: workplace.states(config) == [("REPORTED", None)] * 2, 5.0)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
    assert not list((config.spool.path / "run").glob("*.sock"))


def test_a_worker_waits_for_a_locked_ledger_and_goes_on_alone(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process holds the write lock for longer than a transaction waits (FAULTS T19)."""
    monkeypatch.setattr("cxr_node.node.ledger.database.BUSY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(worker, "PAUSE_S", 0.1)
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(config, workplace.analyser, stop))
    thread.start()
    assert workplace.eventually(lambda: notify(config.spool.path, Role.WORK) == 1)
    other = sqlite3.connect(config.spool.path / FILE_NAME, isolation_level=None)
    try:
        workplace.receive(config, 1)
        other.execute("BEGIN IMMEDIATE")
        notify(config.spool.path, Role.WORK)
        threading.Event().wait(1.5)
        assert thread.is_alive()
        assert workplace.states(config) == [("RECEIVED", None)]
        other.execute("ROLLBACK")
        assert workplace.eventually(lambda: workplace.states(config) == [("REPORTED", None)], 5.0)
    finally:
        other.close()
        stop.set()
        thread.join(10)


def test_a_successor_frees_what_a_killed_worker_held(config: Config, ledger: Ledger) -> None:
    """The name is a lock of the kernel's: its holder knows that the last one is dead."""
    workplace.receive(config, 1)
    workplace.receive(config, 2)
    with worker_name(ledger, config.spool.path, Role.WORK) as first:
        assert (suspect := ledger.claim_instance(first, 3600)) is not None
        with worker_name(ledger, config.spool.path, Role.WORK) as second:
            assert second != first
            assert (other := ledger.claim_instance(second, 0)) is not None
            assert other.ref != suspect.ref
    with worker_name(ledger, config.spool.path, Role.WORK) as successor:
        assert successor == first
        assert (job := ledger.claim_instance(successor, 3600)) is not None
        assert job.ref == other.ref, "the suspect steps back for a moment"
        later = Ledger(ledger.database, now=lambda: utc_now() + timedelta(seconds=2))
        assert (job := later.claim_instance(successor, 3600)) is not None
        assert (job.ref, job.attempts) == (suspect.ref, 2)


def test_a_profile_that_cannot_be_used_stops_the_worker_before_it_takes_a_job(config: Config) -> None:
    workplace.receive(config, 1)

    def load() -> worker.Analyser:
        raise ConfigError("model.profile: no such profile")

    with pytest.raises(ConfigError):
        worker.run(config, load, threading.Event())
    assert workplace.states(config) == [("RECEIVED", None)]
