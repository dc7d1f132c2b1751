"""The contract of the ledger, held by every engine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from cxr_node.domain import Precedent, Reason
from cxr_node.errors import ConfigError, ResourceError
from cxr_node.node.ledger import expiry, queries
from cxr_node.node.ledger.database import HEAD, alembic_config
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.ledger.states import (
    DELIVERY_MOVES,
    INSTANCE_MOVES,
    OPEN,
    SETTLED,
    DeadReason,
    DeliveryJob,
    DeliveryState,
    InstanceState,
    Job,
)
from cxr_node.node.ledger.tables import instances, metadata
from cxr_node.outcome import Rejected
from cxr_node.result_kinds import ResultKind, Wish
from tests.node.ledgers import (
    ALL,
    Clock,
    digest,
    finding,
    measurements_in_three_classes,
    opened,
    origin,
    purge,
    reference,
    results,
    retried,
    wishes,
)
from tests.postgres import ENGINES

PACS = wishes(pacs=ALL)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=ENGINES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with opened(request.param, tmp_path, clock) as ledger:
        yield ledger


def add(ledger: Ledger, clock: Clock, number: int = 1, content: int | None = None, **overrides: str | None) -> bool:
    ref = reference(number, **overrides)
    return ledger.add(ref, origin(clock), digest(number if content is None else content), 4711) is not None


def claimed(ledger: Ledger, owner: str = "worker", lease_s: float = 60.0) -> Job:
    job = ledger.claim_instance(owner, lease_s)
    assert job is not None
    return job


def due(ledger: Ledger, destination: str = "pacs", owner: str = "sender", lease_s: float = 60.0) -> DeliveryJob:
    job = ledger.claim_delivery(destination, owner, lease_s)
    assert job is not None
    return job


def reported(ledger: Ledger, clock: Clock, number: int = 1, destinations: dict[str, Wish] = PACS) -> Job:
    assert add(ledger, clock, number)
    job = claimed(ledger)
    assert ledger.settle_reported(job, finding(), results(number), destinations)
    return job


def state(ledger: Ledger, number: int = 1) -> InstanceState:
    return queries.trace(ledger, f"1.2.{number}.1.1")[0].instance.state


def test_what_goes_in_comes_out(ledger: Ledger, clock: Clock) -> None:
    assert add(ledger, clock)
    job = claimed(ledger)
    assert job.ref == reference()
    assert job.origin == origin(clock)  # to the microsecond: results repeat it
    assert job.content_sha256 == digest(1)
    assert job.attempts == 1


def test_an_object_is_known_by_its_uid_and_its_bytes(ledger: Ledger, clock: Clock) -> None:
    assert add(ledger, clock)
    assert not add(ledger, clock)
    assert add(ledger, clock, content=99)  # same UID, other bytes: another row, nothing overwritten
    assert queries.counts(ledger)[InstanceState.RECEIVED] == 2


def test_a_storm_of_duplicates_is_one_row(ledger: Ledger, clock: Clock) -> None:
    with ThreadPoolExecutor(16) as pool:
        new = list(pool.map(lambda _: add(ledger, clock), range(200)))
    assert sum(new) == 1
    assert queries.counts(ledger)[InstanceState.RECEIVED] == 1


def test_jobs_are_handed_out_once_and_in_order(ledger: Ledger, clock: Clock) -> None:
    for number in range(1, 21):
        add(ledger, clock, number)
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda owner: ledger.claim_instance(f"worker-{owner}", 60.0), range(30)))
    uids = [job.ref.sop_instance_uid for job in jobs if job is not None]
    assert sorted(uids) == sorted(f"1.2.{number}.1.1" for number in range(1, 21))
    assert ledger.claim_instance("late", 60.0) is None


def test_the_oldest_comes_first(ledger: Ledger, clock: Clock) -> None:
    for number in (3, 1, 2):
        add(ledger, clock, number)
    assert [claimed(ledger).ref.sop_instance_uid for _ in range(3)] == ["1.2.3.1.1", "1.2.1.1.1", "1.2.2.1.1"]


def test_a_lease_that_ran_out_is_handed_out_again(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    claimed(ledger, "first", lease_s=60.0)
    clock.forward(59)
    assert ledger.claim_instance("second", 60.0) is None
    clock.forward(1)
    assert claimed(ledger, "second").attempts == 2


def test_an_extended_lease_holds(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    job = claimed(ledger, lease_s=60.0)
    clock.forward(50)
    assert ledger.extend(job, 60.0)
    clock.forward(50)
    assert ledger.claim_instance("second", 60.0) is None


@pytest.mark.parametrize("same_owner", [False, True])
def test_who_lost_the_lease_changes_nothing(ledger: Ledger, clock: Clock, same_owner: bool) -> None:
    add(ledger, clock)
    slow = claimed(ledger, "slow", lease_s=60.0)
    clock.forward(61)
    quick = claimed(ledger, "slow" if same_owner else "quick")
    before = queries.trace(ledger, "1.2.1")
    assert not ledger.extend(slow, 60.0)
    assert not ledger.release(slow, delay_s=0, detail="")
    assert not ledger.settle_rejected(slow, Rejected(reason=Reason.NOT_CHEST, sentence=""))
    assert not ledger.settle_dead(slow, DeadReason.FAULT, "")
    assert not ledger.settle_reported(slow, finding(), results(), PACS)
    assert queries.trace(ledger, "1.2.1") == before
    assert ledger.settle_reported(quick, finding(), results(), PACS)
    assert not ledger.settle_reported(quick, finding(), results(2), PACS)  # settled is settled
    assert len(queries.trace(ledger, "1.2.1")[0].deliveries) == 3


def test_who_lost_a_delivery_changes_nothing(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, destinations=wishes(pacs=(ResultKind.REPORT,)))
    slow = due(ledger, lease_s=60.0)
    clock.forward(61)
    quick = due(ledger)
    assert not ledger.settle_delivered(slow, 0x0000)
    assert not ledger.postpone(slow, delay_s=1, status=None, detail="")
    assert not ledger.settle_delivery_dead(slow, status=None, detail="")
    assert ledger.settle_delivered(quick, 0x0000)
    assert not ledger.settle_delivered(quick, 0x0000)
    assert state(ledger) is InstanceState.DELIVERED


def test_a_released_job_waits_and_its_attempt_counts_or_not(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    assert ledger.release(claimed(ledger), delay_s=30.0, detail="the disk is full", count_attempt=False)
    assert ledger.claim_instance("worker", 60.0) is None
    assert queries.next_instance_s(ledger) == 30.0
    clock.forward(30)
    job = claimed(ledger)
    assert job.attempts == 1
    assert ledger.release(job, delay_s=0.0, detail="a fault")
    assert claimed(ledger).attempts == 2


def test_the_way_to_delivered(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, destinations=wishes(pacs=ALL, viewer=(ResultKind.HEATMAP,)))
    assert state(ledger) is InstanceState.REPORTED
    assert [due(ledger).artifact.kind for _ in range(3)] == list(ALL)
    assert ledger.claim_delivery("pacs", "sender", 60.0) is None
    assert due(ledger, "viewer").artifact == results()[2]


def test_the_last_delivery_settles_the_instance(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock)
    for _ in range(3):
        assert state(ledger) is InstanceState.REPORTED
        assert ledger.settle_delivered(due(ledger), 0x0000)
    assert state(ledger) is InstanceState.DELIVERED
    assert queries.queues(ledger)["pacs"][DeliveryState.DELIVERED] == 3


def test_deliveries_that_end_at_once_settle_the_instance(ledger: Ledger, clock: Clock) -> None:
    for number in range(1, 11):
        reported(ledger, clock, number, wishes(a=ALL, b=ALL, c=ALL))

    def deliver(destination: str) -> None:
        while (job := ledger.claim_delivery(destination, destination, 60.0)) is not None:
            assert ledger.settle_delivered(job, 0x0000)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(deliver, "abc"))
    assert queries.counts(ledger)[InstanceState.DELIVERED] == 10


def test_nothing_to_deliver_is_delivered(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, destinations={})
    assert state(ledger) is InstanceState.DELIVERED


def test_a_dead_delivery_kills_the_instance_only_when_nothing_is_open(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, destinations=wishes(pacs=(ResultKind.REPORT,), gone=(ResultKind.REPORT,)))
    assert ledger.settle_delivery_dead(due(ledger, "gone"), status=0x0122, detail="SOP class not supported")
    assert state(ledger) is InstanceState.REPORTED
    assert ledger.settle_delivered(due(ledger), 0x0000)
    story = queries.trace(ledger, "1.2.1.1.1")[0]
    assert story.instance.state is InstanceState.DEAD
    assert story.instance.reason == DeadReason.UNDELIVERED
    assert {row.destination: row.last_status for row in story.deliveries} == {"pacs": 0x0000, "gone": 0x0122}


def test_a_postponed_delivery_waits(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, destinations=wishes(pacs=(ResultKind.REPORT,)))
    assert queries.next_delivery_s(ledger, "pacs") == 0.0
    first = due(ledger)
    assert queries.next_delivery_s(ledger, "pacs") == 60.0  # when the lease runs out
    assert ledger.postpone(first, delay_s=5.0, status=0xA700, detail="out of resources")
    assert queries.next_delivery_s(ledger, "pacs") == 5.0
    assert ledger.claim_delivery("pacs", "sender", 60.0) is None
    clock.forward(5)
    again = due(ledger)
    assert (again.attempts, again.first_due_at) == (2, first.first_due_at)
    assert ledger.settle_delivered(again, 0x0000)
    assert queries.next_delivery_s(ledger, "pacs") is None


def test_a_rejected_instance_says_why(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    rejected = Rejected(reason=Reason.NOT_FRONTAL, sentence="The view is lateral.")
    assert ledger.settle_rejected(claimed(ledger), rejected)
    row = queries.recent(ledger, 1)[0]
    assert (row.state, row.reason, row.sentence) == (InstanceState.REJECTED, "view-not-frontal", rejected.sentence)
    assert row.verdict == "REJECTED"
    assert ledger.claim_instance("worker", 60.0) is None


def test_a_reencoded_duplicate_shares_the_results(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock)
    assert add(ledger, clock, content=77)
    changed = results()
    assert ledger.settle_reported(claimed(ledger), finding(), changed, PACS)
    stories = queries.trace(ledger, "1.2.1.1.1")
    assert [story.instance.state for story in stories] == [InstanceState.REPORTED] * 2
    assert queries.queues(ledger)["pacs"][DeliveryState.READY] == 3  # not six
    for _ in range(3):
        ledger.settle_delivered(due(ledger), 0x0000)
    assert [story.instance.state for story in queries.trace(ledger, "1.2.1.1.1")] == [InstanceState.DELIVERED] * 2
    assert add(ledger, clock, content=78)  # and once more, after all was delivered
    assert ledger.settle_reported(claimed(ledger), finding(), changed, PACS)
    assert queries.counts(ledger)[InstanceState.DELIVERED] == 3


def test_a_dead_instance_is_judged_again_on_retry(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    job = claimed(ledger)
    assert ledger.settle_dead(job, DeadReason.SPOOL_CORRUPT, "missing")
    assert retried(ledger, "1.2.99", "pacs") == 0
    assert retried(ledger, "1.2.1.1.1", "pacs") == 1
    again = claimed(ledger)
    assert again.attempts == 1
    assert not ledger.settle_dead(job, DeadReason.FAULT, "a dead worker speaks")  # an older fence
    assert ledger.settle_reported(again, finding(), results(), PACS)


def test_dead_deliveries_are_due_again_on_retry(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, destinations=wishes(pacs=(ResultKind.REPORT,), gone=(ResultKind.REPORT,)))
    ledger.settle_delivered(due(ledger), 0x0000)
    ledger.settle_delivery_dead(due(ledger, "gone"), status=None, detail="72 h are over")
    clock.forward(86400)
    assert retried(ledger, "1.2.1", "pacs", "gone") == 1  # by study
    assert state(ledger) is InstanceState.REPORTED
    assert ledger.claim_delivery("pacs", "sender", 60.0) is None  # what was delivered is not sent again
    again = due(ledger, "gone")
    assert (again.attempts, again.first_due_at) == (1, clock())
    ledger.settle_delivered(again, 0x0000)
    assert state(ledger) is InstanceState.DELIVERED


def measured(ledger: Ledger, clock: Clock, destinations: tuple[str, ...] = ("pacs",)) -> DeliveryJob:
    """Claim the delivery of measurements in three SOP Classes."""
    assert add(ledger, clock)
    wanted = wishes(**dict.fromkeys(destinations, (ResultKind.MEASUREMENTS,)))
    assert ledger.settle_reported(claimed(ledger), finding(), measurements_in_three_classes(), wanted)
    return due(ledger)


def test_a_result_in_several_classes_is_one_delivery(ledger: Ledger, clock: Clock) -> None:
    job = measured(ledger, clock)
    assert (job.artifact, job.sop_class_choice) == (measurements_in_three_classes()[1], 0)
    assert [one.sop_class_uid for one in job.artifact.sop_class_choices] == ["1.2.3", "1.2.3.1", "1.2.3.2"]
    assert ledger.claim_delivery("pacs", "other", 60.0) is None
    assert ledger.settle_delivered(job, 0x0000)
    (story,) = queries.trace(ledger, "1.2.1.1.1")
    assert story.instance.state is InstanceState.DELIVERED
    assert [(row.sop_class_uid, row.sop_instance_uid) for row in story.deliveries] == [("1.2.3", "2.25.1.1")]


def test_the_sop_class_that_was_chosen_is_remembered_and_shown(ledger: Ledger, clock: Clock) -> None:
    job = measured(ledger, clock, ("pacs", "other"))
    assert ledger.choose(job, 2)
    assert ledger.postpone(job, delay_s=1, status=None, detail="no answer")
    clock.forward(1)
    again = due(ledger)
    assert (again.sop_class_choice, again.artifact) == (2, job.artifact)
    assert ledger.settle_delivered(again, 0x0000)
    assert ledger.settle_delivered(due(ledger, "other"), 0x0000)
    (story,) = queries.trace(ledger, "2.25.1.1.2")  # by the alternative's own UID
    assert {row.destination: (row.sop_class_uid, row.sop_instance_uid) for row in story.deliveries} == {
        "pacs": ("1.2.3.2", "2.25.1.1.2"),
        "other": ("1.2.3", "2.25.1.1"),
    }
    assert [event.detail for event in story.events if event.what == "delivery-sop-class"] == [
        "measurements to pacs: as SOP Class 1.2.3.2"
    ]


def test_who_lost_a_delivery_chooses_nothing(ledger: Ledger, clock: Clock) -> None:
    slow = measured(ledger, clock)
    clock.forward(61)
    quick = due(ledger)
    assert not ledger.choose(slow, 1)
    assert ledger.settle_delivered(quick, 0x0000)
    assert not ledger.choose(quick, 1)  # an SOP Class once delivered is final
    (story,) = queries.trace(ledger, "1.2.1.1.1")
    assert [row.sop_class_uid for row in story.deliveries] == ["1.2.3"]


def test_a_reencoded_duplicate_shares_all_alternatives(ledger: Ledger, clock: Clock) -> None:
    job = measured(ledger, clock)
    assert add(ledger, clock, content=77)
    assert ledger.settle_reported(
        claimed(ledger), finding(), measurements_in_three_classes(), wishes(pacs=(ResultKind.MEASUREMENTS,))
    )
    assert ledger.choose(job, 1)
    assert ledger.settle_delivered(job, 0x0000)
    assert ledger.claim_delivery("pacs", "sender", 60.0) is None
    stories = queries.trace(ledger, "2.25.1.1.1")
    assert [story.instance.state for story in stories] == [InstanceState.DELIVERED] * 2
    assert [row.sop_class_uid for story in stories for row in story.deliveries] == ["1.2.3.1"] * 2


def test_retention_takes_all_alternatives(ledger: Ledger, clock: Clock) -> None:
    assert ledger.settle_delivered(measured(ledger, clock), 0x0000)
    clock.forward(1)
    (old,) = expiry.expired(ledger, clock())
    kept = {one.content_sha256 for result in measurements_in_three_classes() for one in result.sop_class_choices}
    assert (set(old.artifact_sha256s), len(kept)) == (kept, 5)


def test_retry_leaves_what_is_not_dead(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock)
    ledger.settle_rejected(claimed(ledger), Rejected(reason=Reason.NOT_CHEST, sentence=""))
    assert retried(ledger, "1.2.1.1.1", "pacs") == 0


def test_the_first_instance_of_a_study_names_its_patient(ledger: Ledger, clock: Clock) -> None:
    study = {"study_instance_uid": "1.2.1"}
    add(ledger, clock, 1, patient_key="")
    add(ledger, clock, 2, **study)
    add(ledger, clock, 3, **study)
    jobs = [claimed(ledger) for _ in range(3)]
    known = [queries.precedent(ledger, job) for job in jobs]
    assert known[0] == Precedent() == known[1]  # nobody named a patient before them; they do not name their own
    assert known[2].patient_key_of_study == digest(1002)
    ledger.settle_rejected(jobs[1], Rejected(reason=Reason.NOT_FRONTAL, sentence=""))
    assert queries.precedent(ledger, jobs[2]) == known[2]  # the order of work does not change the answer


def test_the_first_instance_of_a_series_names_its_study(ledger: Ledger, clock: Clock) -> None:
    add(ledger, clock, 1)
    add(ledger, clock, 2, series_instance_uid="1.2.1.1")
    claimed(ledger)
    assert queries.precedent(ledger, claimed(ledger)).study_instance_uid_of_series == "1.2.1"


def test_a_story_is_found_by_every_key(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1)
    add(ledger, clock, 2)
    for key in ("1.2.1", "1.2.1.1", "1.2.1.1.1", "2.25.1.0", digest(2001), digest(1)):
        stories = queries.trace(ledger, key)
        assert [story.instance.sop_instance_uid for story in stories] == ["1.2.1.1.1"], key
    assert [event.what for event in stories[0].events] == ["received", "reported"]
    assert queries.trace(ledger, "1.2.3") == []


def test_retention_takes_what_is_settled_and_old(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, {})
    add(ledger, clock, 2)  # not settled
    clock.forward(100)
    reported_later = clock()
    add(ledger, clock, 3)
    claimed(ledger)
    ledger.settle_rejected(claimed(ledger), Rejected(reason=Reason.NOT_CHEST, sentence=""))
    old = expiry.expired(ledger, reported_later)
    assert [(one.content_sha256, len(one.artifact_sha256s)) for one in old] == [(digest(1), 3)]
    purge(ledger, *(one.instance_id for one in old))
    assert expiry.expired(ledger, reported_later) == []
    assert queries.trace(ledger, "1.2.1")[0].instance.purged_at == clock()
    assert not add(ledger, clock, 1)  # it comes again: its bytes are back, and expire again
    clock.forward(100)
    assert digest(1) in [one.content_sha256 for one in expiry.expired(ledger, clock())]


def test_retention_keeps_results_that_a_younger_instance_shares(ledger: Ledger, clock: Clock) -> None:
    reported(ledger, clock, 1, {})
    clock.forward(100)
    add(ledger, clock, 1, content=77)
    ledger.settle_reported(claimed(ledger), finding(), results(), {})
    old = expiry.expired(ledger, clock())
    assert [(one.content_sha256, one.artifact_sha256s) for one in old] == [(digest(1), ())]
    clock.forward(100)
    both = expiry.expired(ledger, clock())
    assert [len(one.artifact_sha256s) for one in both] == [0, 3]  # the last one takes them along


def test_every_state_is_in_the_table_of_moves() -> None:
    assert set(INSTANCE_MOVES) == set(InstanceState)
    assert set(DELIVERY_MOVES) == set(DeliveryState)
    at_an_end = {one for one, to in INSTANCE_MOVES.items() if InstanceState.DEAD not in to}
    assert set(SETTLED) == at_an_end - {InstanceState.SHADOW}, "what is in shadow waits for a person"
    assert set(OPEN) == {one for one, to in DELIVERY_MOVES.items() if DeliveryState.DELIVERED in to}


def test_the_migrations_make_the_tables_of_the_schema(ledger: Ledger) -> None:
    with ledger.database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        script = ScriptDirectory.from_config(alembic_config(connection))
    assert script.get_current_head() == HEAD


def test_a_ledger_of_a_newer_version_is_refused(tmp_path: Path, clock: Clock) -> None:
    with opened("sqlite", tmp_path, clock) as ledger, ledger.database.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="newer version"):
        Ledger.open(tmp_path)


def test_a_broken_migration_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sqlalchemy.sql.ddl.SchemaGenerator.visit_index", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Ledger.open(tmp_path)
    with sqlite3.connect(tmp_path / FILE_NAME) as file:
        assert file.execute("SELECT name FROM sqlite_master").fetchall() == []
    file.close()
    Ledger.open(tmp_path).close()


def test_processes_that_start_at_once_make_the_tables_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open_and_add, args=(tmp_path, number)) for number in (1, 2, 3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with opened("sqlite", tmp_path, Clock()) as ledger:
        assert queries.counts(ledger)[InstanceState.RECEIVED] == 3


def _open_and_add(folder: Path, number: int) -> None:
    clock = Clock()
    with opened("sqlite", folder, clock) as ledger:
        add(ledger, clock, number)


def test_a_killed_process_loses_no_row_it_was_told_of(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    writer = context.Process(target=_add_forever, args=(tmp_path, tell))
    writer.start()
    tell.close()
    heard = [told.recv() for _ in range(50)]
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    while True:  # what it had said before it died
        try:
            heard.append(told.recv())
        except EOFError:
            break
    told.close()
    with opened("sqlite", tmp_path, Clock()) as ledger, ledger.database.reading() as connection:
        rows = set(connection.scalars(sa.select(instances.c.sop_instance_uid)))
    assert {f"1.2.{number}.1.1" for number in heard} <= rows
    assert len(rows) - len(heard) in (0, 1)  # one may be committed and not yet told


def _add_forever(folder: Path, tell: object) -> None:
    clock = Clock()
    with opened("sqlite", folder, clock) as ledger:
        for number in range(1, 100_000):
            add(ledger, clock, number)
            tell.send(number)  # type: ignore[attr-defined]  # a Connection, which is generic by platform


def test_sqlite_is_safe_against_a_power_cut(tmp_path: Path, clock: Clock) -> None:
    with opened("sqlite", tmp_path, clock) as ledger, ledger.database.reading() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_a_locked_database_is_the_machines_fault(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxr_node.node.ledger.database.BUSY_TIMEOUT_S", 0.05)
    with opened("sqlite", tmp_path, clock) as ledger:
        other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ResourceError, match="locked"):
            add(ledger, clock)
        queries.counts(ledger)  # reading is not held up
        other.execute("ROLLBACK")
        other.close()
        assert add(ledger, clock)


@pytest.mark.parametrize(
    ("pragma", "back", "said"),
    [
        ("max_page_count=1", "max_page_count=1000000", "database or disk is full"),
        ("query_only=ON", "query_only=OFF", "readonly database"),
    ],
)
def test_a_full_and_a_read_only_database_are_the_machines_fault(
    tmp_path: Path, clock: Clock, pragma: str, back: str, said: str
) -> None:
    """And they pass: the file is not taken for damaged, and the first row after it goes in."""
    with opened("sqlite", tmp_path, clock) as ledger:

        def tell(words: str) -> None:
            with ledger.database.reading() as connection:
                connection.exec_driver_sql(f"PRAGMA {words}")

        job = reported(ledger, clock, 1) and due(ledger)
        tell(pragma)
        with pytest.raises(ResourceError, match=said):
            for number in range(2, 1000):  # until the pages at hand are full
                add(ledger, clock, number)
        queries.counts(ledger)
        tell(back)
        ledger.database.require_whole()
        assert add(ledger, clock, 1000)
        assert ledger.settle_delivered(job, 0x0000)


def test_a_folder_that_cannot_be_used_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError):
        Ledger.open(tmp_path / "file" / "spool")


def test_no_message_carries_a_value(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxr_node.node.ledger.database.BUSY_TIMEOUT_S", 0.05)
    with opened("sqlite", tmp_path, clock) as ledger:
        other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ResourceError) as caught:
            add(ledger, clock, accession_key="CANARY")
        other.close()
    assert "CANARY" not in str(caught.value)
    assert "CANARY" not in str(caught.value.__cause__)


def test_readers_do_not_wait_for_a_writer(tmp_path: Path, clock: Clock) -> None:
    with opened("sqlite", tmp_path, clock) as ledger, ledger.database.writing() as connection:
        connection.execute(sa.update(instances).values(attempts=1))
        done = threading.Event()
        thread = threading.Thread(target=lambda: (queries.counts(ledger), done.set()))
        thread.start()
        assert done.wait(5)
        thread.join()


def test_an_instant_survives_to_the_microsecond(ledger: Ledger, clock: Clock) -> None:
    clock.time = datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=UTC) + timedelta(microseconds=0)
    add(ledger, clock)
    assert claimed(ledger).origin.received_at == clock.time
