"""The database is lost: every image that was acknowledged is received again, and its results are those they were."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config.destinations import STANDARD_KINDS
from cxr_node.config.schema import Config
from cxr_node.dicom.read import header
from cxr_node.domain import InstanceRef, Precedent, Reason
from cxr_node.errors import InstanceError, LedgerLostError
from cxr_node.node.deliver import courier
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.database import utc_now
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.ledger.states import InstanceState
from cxr_node.node.receive import server
from cxr_node.node.receive.recovery import Rebuilt, discard_orphans, rebuild
from cxr_node.node.spool.spool import Area, Spool
from cxr_node.node.work import worker
from cxr_node.outcome import Rejected
from tests import builders, postgres
from tests.node import ledgers, peers, wire, workplace
from tests.node.receivers import SYNTAXES, config, receiving
from tests.node.test_crash import all_delivered, running
from tests.node.test_ledger import claimed
from tests.node.wire import Wire
from tests.postgres import ENGINES

IMAGES = 12
NO_CHEST = Rejected(reason=Reason.NOT_CHEST, sentence="This is no chest.")


def inspect(path: Path) -> InstanceRef:
    """The header check for `workplace`'s radiographs."""
    content = path.read_bytes()
    if not content.startswith(b"radiograph "):
        raise InstanceError("it is not encoded as DICOM")
    return ledgers.reference(int(content.removeprefix(b"radiograph ")))


def lose_all(file: Path) -> None:
    for path in file.parent.glob(f"{FILE_NAME}*"):
        path.unlink()


def spoil_pages(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2 // 4096 * 4096)
        opened.write(os.urandom(3 * 4096))


LOSSES: dict[str, Callable[[Path], None]] = {
    "deleted": lose_all,
    "empty": lambda file: os.truncate(file, 0),
    "cut short": lambda file: os.truncate(file, file.stat().st_size // 2),
    "pages in the middle": spoil_pages,
}


def mended(config: Config) -> Rebuilt:
    """What the receiver does at its start."""
    ledger = Ledger.of_node(config, repair=True)
    try:
        return rebuild(ledger, Spool(config.spool.path), inspect)
    finally:
        ledger.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_all_is_delivered_again_under_the_same_uids_with_the_same_bytes(
    tmp_path: Path, loss: Callable[[Path], None]
) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address)
        workplace.receive(config, *range(IMAGES))
        with running(config, "work", "deliver"):
            assert all_delivered(config, IMAGES)
        before = archive.digests()
        loss(config.spool.path / FILE_NAME)
        assert mended(config) == Rebuilt(objects=IMAGES, received=IMAGES, unreadable=0)
        with running(config, "work", "deliver"):
            assert all_delivered(config, IMAGES)
    assert len(before) == IMAGES * len(STANDARD_KINDS)
    assert archive.digests() == before, "another UID, or other bytes"
    assert all(len(many) == 2 for many in archive.datasets.values())


@pytest.mark.timeout(120)
@pytest.mark.skipif(postgres.programs() is None, reason=postgres.HINT)
def test_after_the_tables_of_a_server_are_lost_the_same_bytes_go(tmp_path: Path) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address, ledger=postgres.section(tmp_path))
        workplace.receive(config, *range(IMAGES))
        with running(config, "work", "deliver"):
            assert all_delivered(config, IMAGES)
        before = archive.digests()
        workplace.lose(config)
        assert mended(config) == Rebuilt(objects=IMAGES, received=IMAGES, unreadable=0)
        with running(config, "work", "deliver"):
            assert all_delivered(config, IMAGES)
    assert archive.digests() == before, "another UID, or other bytes"


@pytest.mark.skipif(postgres.programs() is None, reason=postgres.HINT)
def test_what_a_promoted_replica_lacks_is_received_again(tmp_path: Path) -> None:
    """With asynchronous replication the last commits went with the server that died: its dump of a moment before."""
    config = workplace.config(tmp_path / "spool", ledger=postgres.section(tmp_path))
    workplace.receive(config, 1, 2)
    replica = postgres.copied(str(config.ledger.url))
    workplace.receive(config, 3, 4)
    promoted = workplace.config(tmp_path / "spool", ledger=postgres.section(tmp_path, replica))
    assert workplace.states(promoted) == [("RECEIVED", None)] * 2
    assert mended(promoted) == Rebuilt(objects=4, received=2, unreadable=0)
    workplace.receive(promoted, 1, 2, 3, 4)
    assert workplace.states(promoted) == [("RECEIVED", None)] * 4


@pytest.mark.timeout(120)
def test_what_stood_in_a_lost_log_only_is_received_again(tmp_path: Path) -> None:
    """The file is whole and older: its last transactions were in the log, which is gone."""
    archive = peers.Archive()
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address)
        workplace.receive(config, 1, 2)
        reader = Ledger.open(config.spool.path)
        with reader.database.reading():  # who reads keeps the log from being written back
            queries.counts(reader)
            workplace.receive(config, 3, 4)
            copy = (config.spool.path / FILE_NAME).read_bytes()
        reader.close()
        lose_all(config.spool.path / FILE_NAME)
        (config.spool.path / FILE_NAME).write_bytes(copy)
        assert mended(config) == Rebuilt(objects=4, received=2, unreadable=0)
        with running(config, "work", "deliver"):
            assert all_delivered(config, 4)
    assert len(archive.datasets) == 4 * len(STANDARD_KINDS)


@pytest.mark.timeout(120)
def test_the_sop_class_that_went_is_the_one_that_goes_again(tmp_path: Path, engine: dict[str, Any]) -> None:
    """The archive takes more SOP Classes by now; another SOP Class would be a second object in it."""
    old, new = peers.Archive(), peers.Archive()
    with peers.listening(old, measurement_classes=peers.MEASUREMENT_CLASSES[2:]) as address:
        config = workplace.config(tmp_path / "spool", address, **engine)
        workplace.receive(config, 1)
        with running(config, "work", "deliver"):
            assert all_delivered(config, 1)
    workplace.lose(config)
    assert mended(config).received == 1
    with peers.listening(new, measurement_classes=peers.MEASUREMENT_CLASSES) as address:
        config = workplace.config(tmp_path / "spool", address, **engine)
        with running(config, "work", "deliver"):
            assert all_delivered(config, 1)
    assert new.digests() == old.digests()
    ledger = Ledger.of_node(config)
    (story,) = queries.trace(ledger, "1.2.1.1.1")
    ledger.close()
    assert peers.MEASUREMENT_CLASSES[2] in {row.sop_class_uid for row in story.deliveries}


def test_real_objects_keep_their_identity_and_their_time(tmp_path: Path) -> None:
    """Through the receiver, twice: what it knew of each image is there again, but for who sent it."""
    folder = tmp_path / "spool"
    with receiving(folder) as node:
        with Wire(node.port) as peer:
            peer.associate()
            for number in (1, 2, 3):
                dataset = builders.radiograph(number)
                content = wire.data_set_of(builders.part10(dataset))
                assert peer.store(str(dataset.SOPInstanceUID), content) == 0x0000
        before = queries.recent(node.ledger, 9)
    lose_all(folder / FILE_NAME)
    with receiving(folder) as node:
        after = queries.recent(node.ledger, 9)
        (story,) = queries.trace(node.ledger, before[0].sop_instance_uid)
    names = (*InstanceRef.__dataclass_fields__.keys() - {"patient_key", "accession_key"}, "received_at", "size_bytes")
    assert [[getattr(row, name) for name in names] for row in after] == [
        [getattr(row, name) for name in names] for row in before
    ]
    assert [event.detail for event in story.events] == ["found in the spool"]
    with receiving(folder) as node:
        assert len(queries.recent(node.ledger, 9)) == 3, "received again once"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_first_received_comes_first(tmp_path: Path, engine: str) -> None:
    """It says whose study it is; so the order must not be that of the digests."""
    clock, spool = ledgers.Clock(), Spool(tmp_path)
    for number in (5, 3, 8, 1):
        part = spool.begin()
        part.write(f"radiograph {number}".encode())
        clock.forward(0.000001)
        spool.store_object(part, clock())
    with ledgers.opened(engine, tmp_path, clock) as ledger:
        assert rebuild(ledger, spool, inspect) == Rebuilt(objects=4, received=4, unreadable=0)
        assert rebuild(ledger, spool, inspect) == Rebuilt(objects=4, received=0, unreadable=0)
        rows = list(reversed(queries.recent(ledger, 9)))
        assert [row.sop_instance_uid for row in rows] == [f"1.2.{number}.1.1" for number in (5, 3, 8, 1)]
        assert [clock() - row.received_at for row in rows] == [timedelta(microseconds=us) for us in (3, 2, 1, 0)]
        assert queries.precedent(ledger, claimed(ledger)) == Precedent()


def test_an_object_that_was_never_acknowledged_is_received_too(
    tmp_path: Path, engine: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The receiver died between the name and the commit: the sender will come again, and finds it known."""
    config = workplace.config(tmp_path / "spool", **engine)
    workplace.receive(config, 1)
    spool = Spool(config.spool.path)
    part = spool.begin()
    part.write(b"radiograph 2")
    spool.store_object(part, utc_now())
    assert mended(config).received == 1
    assert workplace.states(config) == [("RECEIVED", None)] * 2
    assert "received again objects=1 of=2" in caplog.text
    workplace.receive(config, 2)
    assert workplace.states(config) == [("RECEIVED", None)] * 2


def test_an_object_without_a_readable_header_is_told_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = workplace.config(tmp_path / "spool")
    workplace.receive(config, 1, 2)
    lose_all(config.spool.path / FILE_NAME)
    spool = Spool(config.spool.path)
    path = spool.locate(Area.OBJECTS, workplace.digest(b"radiograph 1"))
    path.write_bytes(b"bit rot")
    assert mended(config) == Rebuilt(objects=2, received=1, unreadable=1)
    assert path.exists()
    assert [record.levelname for record in caplog.records if "lost object" in record.message] == ["ERROR"]


def test_a_damaged_object_with_a_whole_header_is_dead_and_not_judged(tmp_path: Path) -> None:
    config = workplace.config(tmp_path / "spool")
    workplace.receive(config, 1)
    lose_all(config.spool.path / FILE_NAME)
    Spool(config.spool.path).locate(Area.OBJECTS, workplace.digest(b"radiograph 1")).write_bytes(b"radiograph 2")
    assert mended(config).received == 1
    with running(config, "work"):
        assert workplace.eventually(lambda: workplace.states(config) == [("DEAD", "spool-corrupt")])


def test_what_retention_took_stays_gone(tmp_path: Path) -> None:
    config = workplace.config(tmp_path / "spool")
    workplace.receive(config, 1)
    ledger, spool = Ledger.open(config.spool.path), Spool(config.spool.path)
    assert ledger.settle_rejected(claimed(ledger), NO_CHEST)
    spool.delete(Area.OBJECTS, workplace.digest(b"radiograph 1"))
    ledgers.purge(ledger, 1)
    ledger.close()
    assert mended(config) == Rebuilt(objects=0, received=0, unreadable=0)


def test_an_image_that_came_back_after_its_retention_keeps_its_first_time(tmp_path: Path) -> None:
    """Its results repeat that time; a ledger made anew must find it."""
    dataset = builders.radiograph(1)
    with receiving(tmp_path / "spool") as node, Wire(node.port) as peer:
        peer.associate()
        content = wire.data_set_of(builders.part10(dataset))
        assert peer.store(str(dataset.SOPInstanceUID), content) == 0x0000
        (row,) = queries.recent(node.ledger, 9)
        node.spool.delete(Area.OBJECTS, row.content_sha256)
        assert node.ledger.settle_rejected(claimed(node.ledger), NO_CHEST)
        ledgers.purge(node.ledger, row.id)
        assert peer.store(str(dataset.SOPInstanceUID), content) == 0x0000
        assert node.spool.received_at(row.content_sha256) == row.received_at


def test_results_that_nobody_has_are_discarded_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = workplace.config(tmp_path / "spool", peers.nobody())
    workplace.receive(config, 1)
    spool, ledger = Spool(config.spool.path), Ledger.open(config.spool.path)
    workplace.worker(config, ledger).do_one()
    wanted = set(spool.digests(Area.RESULTS))
    orphan = spool.store_result(b"of a worker that died").sha256
    assert discard_orphans(ledger, spool) == 0, "it may be a worker's that lives"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 90_000)
    assert discard_orphans(ledger, spool) == 1
    assert set(spool.digests(Area.RESULTS)) == wanted
    assert orphan not in wanted
    ledger.close()


def test_two_that_start_at_once_receive_each_object_once(tmp_path: Path, engine: dict[str, Any]) -> None:
    config = workplace.config(tmp_path / "spool", **engine)
    workplace.receive(config, *range(40))
    workplace.lose(config)
    found: list[Rebuilt] = []
    threads = [threading.Thread(target=lambda: found.append(mended(config))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(each.received for each in found) == [0, 0, 40]
    assert workplace.states(config) == [("RECEIVED", None)] * 40


def test_killed_half_way_it_goes_on(tmp_path: Path, engine: dict[str, Any]) -> None:
    config = workplace.config(tmp_path / "spool", **engine)
    workplace.receive(config, *range(150))
    workplace.lose(config)
    child = multiprocessing.get_context("fork").Process(target=_rebuild_and_die, args=(config,))
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert len(workplace.states(config)) == 100, "one transaction was done"
    assert mended(config) == Rebuilt(objects=150, received=50, unreadable=0)


def _rebuild_and_die(config: Config) -> None:
    seen = 0

    def dying(path: Path) -> InstanceRef:
        nonlocal seen
        seen += 1
        if seen == 120:
            os.kill(os.getpid(), signal.SIGKILL)
        return inspect(path)

    rebuild(Ledger.of_node(config), Spool(config.spool.path), dying)


def ended(run: Callable[[threading.Event], None], file: Path, ready: Callable[[], bool]) -> BaseException | None:
    """Run a role in a thread, take the ledger away when it is ready, and tell how it ended."""
    told: list[BaseException] = []
    stop = threading.Event()

    def body() -> None:
        try:
            run(stop)
        except Exception as error:
            told.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    assert workplace.eventually(ready)
    lose_all(file)
    thread.join(20)
    stop.set()
    thread.join(20)
    return told[0] if told else None


def test_every_role_ends_when_the_ledger_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would work on a file that nobody else sees; its successor makes a new one."""
    monkeypatch.setattr(worker, "LOOK_AFTER_S", 0.2)
    config = workplace.config(tmp_path / "spool", peers.nobody())
    workplace.receive(config, 1)
    file, run_folder = config.spool.path / FILE_NAME, config.spool.path / "run"
    assert isinstance(
        ended(
            lambda stop: worker.run(config, workplace.analyser, stop),
            file,
            lambda: workplace.states(config) == [("REPORTED", None)],
        ),
        LedgerLostError,
    )
    workplace.receive(config, 2)
    assert isinstance(
        ended(lambda stop: courier.run(config, stop), file, lambda: any(run_folder.glob("deliver-*.sock"))),
        LedgerLostError,
    )


def test_a_receiver_whose_ledger_is_taken_away_says_out_of_resources_and_ends(tmp_path: Path) -> None:
    told: list[BaseException] = []
    ports: list[int] = []
    stop = threading.Event()

    def run() -> None:
        try:
            hooks = server.Hooks(stop=stop, ready=ports.append)
            server.serve(config(tmp_path / "spool"), header.identify, SYNTAXES, hooks)
        except LedgerLostError as error:
            told.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert workplace.eventually(lambda: bool(ports))
    dataset = builders.radiograph(1)
    with Wire(ports[0]) as peer:
        peer.associate()
        lose_all(tmp_path / "spool" / FILE_NAME)
        content = wire.data_set_of(builders.part10(dataset))
        assert peer.store(str(dataset.SOPInstanceUID), content) == 0xA700
    thread.join(30)
    stop.set()
    assert not thread.is_alive()
    assert [type(error) for error in told] == [LedgerLostError]
    with receiving(tmp_path / "spool") as node:  # its successor finds what it could not write down
        assert queries.counts(node.ledger)[InstanceState.RECEIVED] == 1
