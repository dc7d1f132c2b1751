"""kill -9 at every state: after the restart every instance is delivered, each object once, the same bytes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config.destinations import STANDARD_KINDS
from cxr_node.config.schema import Config
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.spool.spool import Area, Spool
from tests.forks import FORKS
from tests.node import crash_child, peers, workplace
from tests.node.committers import Committer, committing, information, later

WORKER_DIES = [
    ("cxr_node.node.ledger.ledger:Ledger.claim_instance", "after"),  # leased, nothing done
    ("cxr_node.node.ledger.queries:precedent", "after"),  # bytes read
    ("tests.node.workplace:judge", "after"),  # judged, nothing stored
    ("cxr_node.node.spool.file_store:FileStore.put", "before"),  # half of a result written
    ("cxr_node.node.spool.spool:Spool.store_result", "after"),  # one of three results stored
    ("cxr_node.node.ledger.ledger:Ledger.settle_reported", "before"),  # all stored, the ledger knows nothing
    ("cxr_node.node.ledger.ledger:_attach", "before"),  # within the transaction
    ("cxr_node.node.ledger.ledger:Ledger.settle_reported", "after"),  # settled, nobody notified
]
DELIVERY_DIES = [
    ("cxr_node.node.ledger.ledger:Ledger.claim_delivery", "after"),  # leased, nothing sent
    ("cxr_node.node.spool.spool:Spool.read", "after"),  # associated, about to send
    ("cxr_node.node.deliver.storage_scu:StorageScu._associate", "after"),  # associated
    (
        "cxr_node.node.deliver.storage_scu:StorageScu.store",
        "after",
    ),  # taken by the destination, the ledger knows nothing
    ("cxr_node.node.ledger.ledger:Ledger._settle_delivery", "before"),  # the same, one step later
    ("cxr_node.node.ledger.ledger:conclude", "before"),  # within the transaction
    ("cxr_node.node.ledger.ledger:Ledger.settle_delivered", "after"),  # settled
]


def child(config: Config, role: str, *point: str) -> BaseProcess:
    process = FORKS.Process(target=crash_child.main, args=(role, config, *point))
    process.start()
    return process


def exit_code(process: BaseProcess) -> int | None:
    process.join(30)
    return process.exitcode


@contextmanager
def running(config: Config, *roles: str) -> Iterator[None]:
    children = [child(config, role) for role in roles]
    try:
        yield
    finally:
        for each in children:
            each.terminate()
        assert [exit_code(each) for each in children] == [0] * len(children)


def all_delivered(config: Config, count: int) -> bool:
    return workplace.eventually(lambda: workplace.states(config) == [("DELIVERED", None)] * count, 30)


def check_archive(archive: peers.Archive, instances: int) -> None:
    assert len(archive.datasets) == instances * len(STANDARD_KINDS)
    assert all(len(contents) == 1 for contents in archive.digests().values()), "an object changed between two sends"


@pytest.mark.timeout(120)
def test_a_worker_killed_at_every_state_loses_and_doubles_nothing(tmp_path: Path, engine: dict[str, Any]) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address, **engine, work={"max_attempts": 10})
        workplace.receive(config, 1, 2)
        for point in WORKER_DIES:
            assert exit_code(child(config, "work", *point)) == -signal.SIGKILL, f"never came to {point}"
        with running(config, "work", "deliver"):
            assert all_delivered(config, 2)
    check_archive(archive, 2)
    assert all(len(many) == 1 for many in archive.datasets.values()), "a result was sent twice"
    assert len(list(Spool(config.spool.path).digests(Area.RESULTS))) == 2 * 5  # measurements in three SOP Classes


@pytest.mark.timeout(120)
def test_a_delivery_killed_at_every_state_loses_nothing_and_repeats_the_same_bytes(
    tmp_path: Path, engine: dict[str, Any]
) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address, **engine)
        workplace.receive(config, 1, 2, 3)
        with running(config, "work"):
            assert workplace.eventually(lambda: [row[0] for row in workplace.states(config)] == ["REPORTED"] * 3)
        for point in DELIVERY_DIES:
            assert exit_code(child(config, "deliver", *point)) == -signal.SIGKILL, f"never came to {point}"
        with running(config, "deliver"):
            assert all_delivered(config, 3)
    check_archive(archive, 3)
    repeats = sum(len(many) - 1 for many in archive.datasets.values())
    assert 1 <= repeats <= 3, "an object is repeated only where its answer was lost or not settled"


NOTED_DIES = [
    ("work", "cxr_node.node.spool.spool:Spool.store_result", "after"),  # the note is stored, the ledger knows nothing
    ("work", "cxr_node.node.ledger.ledger:Ledger.settle_rejected", "before"),
    ("work", "cxr_node.node.ledger.ledger:_attach", "before"),  # within the transaction
    ("work", "cxr_node.node.ledger.ledger:Ledger.settle_rejected", "after"),  # settled, nobody notified
    ("deliver", "cxr_node.node.ledger.ledger:Ledger.claim_delivery", "after"),
    ("deliver", "cxr_node.node.deliver.storage_scu:StorageScu.store", "after"),  # taken, the ledger knows nothing
    ("deliver", "cxr_node.node.ledger.ledger:conclude", "before"),  # within the transaction
]


@pytest.mark.timeout(120)
def test_killed_at_every_state_a_rejected_image_keeps_its_one_note(tmp_path: Path, engine: dict[str, Any]) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        wants = {
            "name": "pacs",
            "address": str(address),
            "report_per": "image",
            "send": ["report", "not-analysed"],
            "timeout_s": 2.0,
        }
        config = workplace.config(tmp_path / "spool", destinations=[wants], work={"max_attempts": 10}, **engine)
        workplace.receive(config, 1, content=b"a hand")
        for role, *point in NOTED_DIES:
            assert exit_code(child(config, role, *point)) == -signal.SIGKILL, f"never came to {point}"
        with running(config, "work", "deliver"):
            assert workplace.eventually(lambda: noted(config), 30)
    assert workplace.states(config) == [("REJECTED", "not-a-chest")]
    assert [len(contents) for contents in archive.digests().values()] == [1]


def noted(config: Config) -> bool:
    ledger = Ledger.of_node(config)
    try:
        (story,) = queries.trace(ledger, "1.2.1.1.1")
        return [row.state for row in story.deliveries] == ["DELIVERED"]
    finally:
        ledger.close()


@pytest.mark.timeout(120)
def test_a_delivery_killed_around_the_choice_of_a_sop_class_sends_no_other(
    tmp_path: Path, engine: dict[str, Any]
) -> None:
    """Killed while the archive accepts the last SOP Class only, then it accepts all: what was chosen stays chosen."""
    old, new = peers.Archive(), peers.Archive()
    points = [
        ("cxr_node.node.ledger.ledger:Ledger.choose", "before"),  # nothing remembered, nothing sent
        ("cxr_node.node.ledger.ledger:Ledger.choose", "after"),  # remembered, nothing sent
        (
            "cxr_node.node.deliver.storage_scu:StorageScu.store",
            "after",
        ),  # taken by the destination, the ledger knows nothing
    ]
    with peers.listening(old, measurement_classes=peers.MEASUREMENT_CLASSES[2:]) as address:
        wants = {
            "name": "pacs",
            "address": str(address),
            "report_per": "image",
            "send": ["measurements"],
            "timeout_s": 2.0,
        }
        config = workplace.config(tmp_path / "spool", destinations=[wants], **engine)
        workplace.receive(config, 1)
        with running(config, "work"):
            assert workplace.eventually(lambda: [row[0] for row in workplace.states(config)] == ["REPORTED"])
        for point in points:
            assert exit_code(child(config, "deliver", *point)) == -signal.SIGKILL, f"never came to {point}"
    with (
        peers.listening(new, measurement_classes=peers.MEASUREMENT_CLASSES, port=address.port),
        running(config, "deliver"),
    ):
        assert all_delivered(config, 1)
    assert old.sop_classes == new.sop_classes == {peers.MEASUREMENT_CLASSES[2]: 1}
    assert old.digests() == new.digests()


@pytest.mark.timeout(120)
def test_a_sender_killed_before_the_answer_sends_the_same_again(tmp_path: Path, engine: dict[str, Any]) -> None:
    """The archive has kept the object when the sender dies: it must not become two."""
    victims: list[BaseProcess] = []

    def kill_and_keep(count: int) -> int:
        if count in (1, 3, 4) and victims:
            victims[-1].kill()
        return 0x0000

    archive = peers.Archive(kill_and_keep)
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address, **engine)
        workplace.receive(config, 1)
        with running(config, "work"):
            assert workplace.eventually(lambda: [row[0] for row in workplace.states(config)] == ["REPORTED"])
        for _ in range(3):
            victims.append(child(config, "deliver"))
            assert exit_code(victims[-1]) == -signal.SIGKILL
        with running(config, "deliver"):
            assert all_delivered(config, 1)
    check_archive(archive, 1)


@pytest.mark.timeout(120)
def test_both_killed_at_random_while_images_come_in(tmp_path: Path, engine: dict[str, Any]) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address, **engine, work={"max_attempts": 10})
        workplace.receive(config, 0)
        for round_ in range(4):
            children = [child(config, role) for role in ("work", "deliver")]
            workplace.receive(config, *range(1 + round_ * 10, 11 + round_ * 10))
            archive.wait(min(100, 8 + 25 * round_), 20)
            for each in children:
                each.kill()
                each.join(30)
        with running(config, "work", "deliver"):
            assert all_delivered(config, 41)
    check_archive(archive, 41)
    assert threading.active_count() < 10


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "point",
    [
        ("cxr_node.node.ledger.commitments:expect", "before"),  # accepted; within the transaction that says so
        (
            "cxr_node.node.ledger.commitments:begin",
            "after",
        ),  # the ledger knows the transaction, the destination does not
        ("cxr_node.node.ledger.commitments:acknowledged", "before"),  # the destination knows it
        ("cxr_node.node.ledger.commitments:_commit", "before"),  # the report has come; within the transaction
    ],
    ids=lambda point: point[0].rpartition(":")[2],
)
def test_a_process_killed_while_it_asks_for_commitment_asks_again(
    tmp_path: Path, engine: dict[str, Any], point: tuple[str, str]
) -> None:
    committer = Committer()
    committer.before = lambda asked: later(asked, information(asked.transaction_uid, asked.uids))
    with committing(committer) as address:
        wants = {
            "name": "pacs",
            "address": str(address),
            "report_per": "image",
            "commitment_wait_h": 24,
            "send": ["heatmap"],
        }
        config = workplace.config(tmp_path / "spool", destinations=[wants], **engine)
        workplace.receive(config, 1)
        with running(config, "work"):
            assert workplace.eventually(lambda: [row[0] for row in workplace.states(config)] == ["REPORTED"])
        assert exit_code(child(config, "deliver", *point)) == -signal.SIGKILL, f"never came to {point}"
        ledger = Ledger.of_node(config)
        with ledger.database.writing() as connection:
            connection.exec_driver_sql("UPDATE promises SET not_before = 0")  # the wait is over
        with running(config, "deliver"):
            assert workplace.eventually(lambda: committed(ledger), 30)
        ledger.close()
    assert [len(contents) for contents in committer.archive.digests().values()] == [1]


def committed(ledger: Ledger) -> bool:
    (story,) = queries.trace(ledger, "1.2.1.1.1")
    return [row.commitment for row in story.deliveries] == ["COMMITTED"]
