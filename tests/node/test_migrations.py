"""A ledger of an older version, with work in flight, goes on where it was."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from cxr_node.domain import ResultKind
from cxr_node.node.ledger import commitments, queries
from cxr_node.node.ledger.database import Database, _engine, alembic_config
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.ledger.states import DeliveryJob, DeliveryState, InstanceState, PromiseState
from tests.node.ledgers import POSTGRES, Clock, digest, emptied, finding, ladder, origin, reference, retried

FORKS = multiprocessing.get_context("forkserver")
ENGINES = ["sqlite", "postgresql"] if POSTGRES in os.environ else ["sqlite"]
KINDS = ("report", "measurements", "heatmap")
LATER = {"station_name"}
"""Of an instance; no column of the first tables."""
WORKER, SENDER = "old/work-0", "old/deliver-0"


def url(engine: str, folder: Path) -> str:
    return emptied(os.environ[POSTGRES]) if engine == "postgresql" else f"sqlite:///{folder / FILE_NAME}"


def micros(clock: Clock, seconds: float = 0.0) -> int:
    return int(clock().timestamp() * 1_000_000 + seconds * 1_000_000)


def instance(clock: Clock, number: int, state: str, **more: Any) -> dict[str, Any]:
    ref = reference(number)
    row: dict[str, Any] = {name: getattr(ref, name) for name in ref.__dataclass_fields__ if name not in LATER}
    row |= {"id": number, "content_sha256": digest(number), "calling_ae_title": "OLD", "peer_host": "10.0.0.7"}
    row |= {"received_at": micros(clock), "size_bytes": 4711, "state": state, "attempts": 1, "fence": 3}
    return row | {"not_before": micros(clock), "updated_at": micros(clock)} | more


def delivery(clock: Clock, artifact_id: int, state: str, destination: str = "pacs", **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"artifact_id": artifact_id, "destination": destination, "state": state, "attempts": 1}
    row |= {"fence": 7, "not_before": micros(clock), "first_due_at": micros(clock)}
    return row | more


def insert(connection: sa.Connection, table: str, row: dict[str, Any]) -> None:
    names = ", ".join(row)
    connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES (:{', :'.join(row)})"), row)


def first_version(address: str, clock: Clock) -> None:
    """Tables of 0001: one instance being judged, one on its way, one delivered."""
    database = Database(_engine(sa.make_url(address)))
    with database.writing() as connection:
        command.upgrade(alembic_config(connection), "0001")
        lease = {"lease_owner": WORKER, "lease_until": micros(clock, 60)}
        insert(connection, "instances", instance(clock, 1, "RECEIVED", **lease))
        for number, state in ((2, "REPORTED"), (3, "DELIVERED")):
            insert(connection, "instances", instance(clock, number, state, verdict="PNEUMONIA", probability=0.9))
            for place, kind in enumerate(KINDS):
                artifact = {"id": 10 * number + place, "kind": kind, "sop_class_uid": "1.2.3", "size_bytes": 100}
                artifact |= {
                    "sop_instance_uid": f"2.25.{number}.{place}",
                    "content_sha256": digest(10 * number + place),
                }
                insert(connection, "artifacts", artifact)
                insert(connection, "instance_artifacts", {"instance_id": number, "artifact_id": artifact["id"]})
        done = {"last_status": 0, "delivered_at": micros(clock)}
        leased = {"lease_owner": SENDER, "lease_until": micros(clock, 60)}
        waits = {"not_before": micros(clock, 600), "last_status": 0xA700, "last_error": "out of resources"}
        insert(connection, "deliveries", delivery(clock, 20, "DELIVERED", **done))
        insert(connection, "deliveries", delivery(clock, 21, "READY", **leased))
        insert(connection, "deliveries", delivery(clock, 22, "WAIT", **waits))
        insert(connection, "deliveries", delivery(clock, 21, "DEAD", "gone", last_error="no presentation context"))
        for artifact_id in (30, 31, 32):
            insert(connection, "deliveries", delivery(clock, artifact_id, "DELIVERED", **done))
    database.close()


def due(ledger: Ledger, destination: str = "pacs") -> DeliveryJob:
    job = ledger.claim_delivery(destination, "new", 60.0)
    assert job is not None
    return job


@pytest.mark.parametrize("engine", ENGINES)
def test_a_first_ledger_with_work_in_flight_goes_on(tmp_path: Path, engine: str) -> None:
    clock, address = Clock(), url(engine, tmp_path)
    first_version(address, clock)
    ledger = Ledger.open(tmp_path, address, clock)
    try:
        _all_is_as_it_was(ledger)
        _the_rest_is_judged_and_delivered(ledger, clock)
    finally:
        ledger.close()


def _all_is_as_it_was(ledger: Ledger) -> None:
    (waiting,), (on_its_way,), (done,) = (queries.trace(ledger, f"1.2.{number}") for number in (1, 2, 3))
    assert [story.instance.state for story in (waiting, on_its_way, done)] == ["RECEIVED", "REPORTED", "DELIVERED"]
    rows = [(one.kind, one.destination, one.state, one.sop_instance_uid) for one in on_its_way.deliveries]
    assert rows == [
        ("report", "pacs", "DELIVERED", "2.25.2.0"),
        ("measurements", "pacs", "READY", "2.25.2.1"),
        ("heatmap", "pacs", "WAIT", "2.25.2.2"),
        ("measurements", "gone", "DEAD", "2.25.2.1"),
    ]
    assert [one.sop_class_uid for one in done.deliveries] == ["1.2.3"] * 3
    assert ledger.claim_instance("new", 60.0) is None, "an old lease holds"
    assert ledger.claim_delivery("pacs", "new", 60.0) is None, "an old lease holds, and a delay"


def _the_rest_is_judged_and_delivered(ledger: Ledger, clock: Clock) -> None:
    clock.forward(61)
    job = ledger.claim_instance("new", 60.0)
    assert job is not None
    assert (job.ref, job.claim.fence, job.attempts) == (reference(1), 4, 2)
    assert ledger.settle_reported(job, finding(), ladder(), {"pacs": tuple(ResultKind)})
    old = due(ledger)
    assert (old.artifact.sop_instance_uid, old.artifact.alternatives, old.rung) == ("2.25.2.1", (), 0)
    assert (old.claim.fence, old.attempts) == (8, 2)
    assert ledger.settle_delivered(old, 0x0000)
    new = [due(ledger) for _ in range(3)]
    assert [job.artifact for job in new] == ladder()
    assert ledger.choose(new[1], 2)
    assert all(ledger.settle_delivered(job, 0x0000) for job in new)
    clock.forward(600)
    assert ledger.settle_delivered(due(ledger), 0x0000)
    assert retried(ledger, "1.2.2", "gone") == 1  # what was dead before comes back
    assert ledger.settle_delivered(due(ledger, "gone"), 0x0000)
    assert queries.counts(ledger)[InstanceState.DELIVERED] == 3
    assert {state for states in queries.queues(ledger).values() for state, number in states.items() if number} == {
        DeliveryState.DELIVERED
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_what_an_older_version_delivered_is_asked_about_only_on_demand(tmp_path: Path, engine: str) -> None:
    clock, address = Clock(), url(engine, tmp_path)
    first_version(address, clock)
    ledger = Ledger.open(tmp_path, address, clock)
    try:
        assert queries.uncommitted(ledger) == {}
        assert [row.commitment for row in queries.trace(ledger, "1.2.3")[0].deliveries] == [None] * 3
        assert commitments.begin(ledger, "pacs") is None
        assert commitments.renew(ledger, "1.2.3", ["pacs"]) == 3
        asked = commitments.begin(ledger, "pacs")
        assert asked is not None
        assert [uid for _, uid in asked.references] == ["2.25.3.0", "2.25.3.1", "2.25.3.2"]
        report = commitments.Report(transaction_uid=asked.uid, committed=("2.25.3.0", "2.25.3.1"))
        assert commitments.answer(ledger, asked, report, float) == {"committed": 2}
        assert queries.uncommitted(ledger) == {"pacs": {PromiseState.ASKED: 1}}
    finally:
        ledger.close()


def test_a_migration_that_breaks_leaves_the_first_ledger_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, address = Clock(), url("sqlite", tmp_path)
    first_version(address, clock)
    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.add_column", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Ledger.open(tmp_path, address, clock)
    engine = sa.create_engine(address)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == "0001"
        assert not sa.inspect(connection).has_table("alternatives")
    engine.dispose()
    ledger = Ledger.open(tmp_path, address, clock)
    _all_is_as_it_was(ledger)
    ledger.close()


KILLED_AT = ["alembic.op.create_table", "alembic.op.add_column", "alembic.command.upgrade"]


@pytest.mark.parametrize("place", KILLED_AT)
def test_killed_in_the_middle_of_a_migration_the_next_process_goes_on(tmp_path: Path, place: str) -> None:
    """SIGKILL right after a step, before the commit (FAULTS T27)."""
    clock, address = Clock(), url("sqlite", tmp_path)
    first_version(address, clock)
    process = FORKS.Process(target=_migrate_and_die, args=(tmp_path, place))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    ledger = Ledger.open(tmp_path, address, clock, repair=True)
    try:
        _all_is_as_it_was(ledger)
        _the_rest_is_judged_and_delivered(ledger, clock)
    finally:
        ledger.close()
    assert not list(tmp_path.glob("*damaged*"))


def _migrate_and_die(folder: Path, place: str) -> None:
    module_name, _, name = place.rpartition(".")
    module: Any = importlib.import_module(module_name)
    genuine = getattr(module, name)

    def dying(*arguments: Any, **keywords: Any) -> None:
        genuine(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, dying)
    Ledger.open(folder)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_version_before_can_write_into_the_tables_of_this_one(tmp_path: Path, engine: str) -> None:
    """A version is taken back while work is in flight: its INSERTs name none of the columns that came since."""
    clock, address = Clock(), url(engine, tmp_path)
    ledger = Ledger.open(tmp_path, address, clock)
    try:
        with ledger.database.writing() as connection:
            insert(connection, "instances", instance(clock, 1, "RECEIVED"))
            insert(connection, "instances", instance(clock, 2, "REPORTED", verdict="NORMAL", probability=0.1))
            artifact = {"id": 20, "kind": "report", "sop_class_uid": "1.2.3", "size_bytes": 100}
            insert(connection, "artifacts", artifact | {"sop_instance_uid": "2.25.2.0", "content_sha256": digest(20)})
            insert(connection, "instance_artifacts", {"instance_id": 2, "artifact_id": 20})
            insert(connection, "deliveries", delivery(clock, 20, "READY"))
            event = {"instance_id": 1, "at": micros(clock), "what": "received", "detail": "from OLD at 10.0.0.7"}
            insert(connection, "events", event)
        job = ledger.claim_instance("new", 60.0)
        assert job is not None
        assert ledger.settle_reported(job, finding(), ladder(), {"pacs": tuple(ResultKind)})
        assert all(ledger.settle_delivered(due(ledger), 0x0000) for _ in range(4))
        assert queries.counts(ledger)[InstanceState.DELIVERED] == 2
    finally:
        ledger.close()


def test_a_version_that_was_taken_back_works_on_what_the_newer_one_added(tmp_path: Path) -> None:
    """Within a thousand, migrations only add; the next thousand is refused (`test_ledger`)."""
    clock, address = Clock(), url("sqlite", tmp_path)
    Ledger.open(tmp_path, address, clock).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as file:
        file.execute("ALTER TABLE deliveries ADD COLUMN of_a_later_version TEXT")
        file.execute("UPDATE alembic_version SET version_num = '0999'")
    file.close()
    ledger = Ledger.open(tmp_path, address, clock)
    assert ledger.add(reference(1), origin(clock), digest(1), 4711)
    ledger.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as file:
        assert file.execute("SELECT version_num FROM alembic_version").fetchall() == [("0999",)]
    file.close()
