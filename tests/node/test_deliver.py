"""Delivery against destinations that are away, slow, moody or gone: nothing lost, nothing twice, nobody delayed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from cxr_node.config import Config, Delivery
from cxr_node.node import deliver, history, retention, work
from cxr_node.node.jobs import DeliveryState
from cxr_node.node.ledger import Ledger
from cxr_node.node.spool import Area, Spool
from cxr_node.node.wakeup import Role, ring
from tests.node import peers, workplace

Opened = Callable[[Config], Ledger]


@pytest.fixture
def ledgers() -> Iterator[Opened]:
    opened: list[Ledger] = []

    def build(config: Config) -> Ledger:
        opened.append(Ledger.open(config.spool.path))
        return opened[-1]

    yield build
    for each in opened:
        each.close()


def judged(config: Config, *numbers: int) -> None:
    """Instances with their results due."""
    workplace.receive(config, *numbers)
    ledger = Ledger.open(config.spool.path)
    worker = work.Worker(config, ledger, Spool(config.spool.path), "worker", object(), workplace.judge)
    while worker.do_one():
        pass
    ledger.close()


@contextmanager
def delivering(config: Config) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=deliver.run, args=(config, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def settled(config: Config, state: str, count: int = 1) -> bool:
    return workplace.eventually(lambda: [row[0] for row in workplace.states(config)] == [state] * count)


def test_everything_arrives_once_over_one_association_each(tmp_path: Path) -> None:
    first, second = peers.Archive(), peers.Archive()
    with peers.listening(first) as one, peers.listening(second, ae_title="SECOND") as two:
        config = workplace.config(tmp_path / "spool", one, two)
        judged(config, *range(10))
        with delivering(config):
            assert settled(config, "DELIVERED", 10)
    for archive in (first, second):
        assert len(archive.datasets) == 30
        assert all(len(many) == 1 for many in archive.datasets.values())
        assert archive.associations == 1


def test_a_new_result_goes_at_once(tmp_path: Path) -> None:
    """The courier sleeps on a bell, not on a clock."""
    archive = peers.Archive()
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address)
        with delivering(config):
            assert workplace.eventually(lambda: ring(config.spool.path, Role.DELIVER) == 1)
            started = time.monotonic()
            judged(config, 1)
            assert archive.wait(3, 10)
            assert time.monotonic() - started < 5


def test_only_what_a_destination_wants_is_sent(tmp_path: Path) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        wants = {"name": "viewer", "address": str(address), "send": ["heatmap"], "timeout_s": 2.0}
        config = workplace.config(tmp_path / "spool", destinations=[wants])
        judged(config, 1, 2)
        with delivering(config):
            assert settled(config, "DELIVERED", 2)
    assert len(archive.datasets) == 2


def test_a_dead_and_a_stalling_destination_delay_nobody(tmp_path: Path) -> None:
    archive = peers.Archive()

    def stall(connection: object) -> None:
        threading.Event().wait(30)

    with peers.listening(archive) as healthy, peers.raw_peer(stall) as stalling:
        config = workplace.config(tmp_path / "spool", healthy, stalling, peers.nobody())
        judged(config, *range(5))
        with delivering(config):
            assert archive.wait(15, 10)
    assert [row[0] for row in workplace.states(config)] == ["REPORTED"] * 5


def test_a_flapping_destination_gets_each_object_once_in_the_end(tmp_path: Path) -> None:
    """Every third answer is an abort after the object was kept, every fifth says out of resources."""
    archive = peers.Archive(lambda count: None if count % 3 == 0 else 0xA700 if count % 5 == 0 else 0x0000)
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address)
        judged(config, *range(4))
        with delivering(config):
            assert settled(config, "DELIVERED", 4)
    assert len(archive.datasets) == 12
    assert max(len(many) for many in archive.datasets.values()) > 1, "no reply was lost: the test proves nothing"
    assert all(len(contents) == 1 for contents in archive.digests().values())


def test_a_destination_that_comes_back_gets_what_waited(tmp_path: Path) -> None:
    address, archive = peers.nobody(), peers.Archive()
    config = workplace.config(tmp_path / "spool", address)
    judged(config, 1)
    ledger = Ledger.open(config.spool.path)
    with delivering(config):
        assert workplace.eventually(lambda: history.queues(ledger)["pacs0"][DeliveryState.WAIT] > 0)
        with peers.listening(archive, ae_title=address.ae_title, port=address.port):
            assert settled(config, "DELIVERED")
    ledger.close()
    assert len(archive.datasets) == 3


def test_a_permanent_fault_is_dead_at_once_and_spares_the_rest(tmp_path: Path, ledgers: Opened) -> None:
    archive = peers.Archive()
    with peers.listening(archive, kinds=(peers.ResultKind.REPORT, peers.ResultKind.HEATMAP)) as address:
        config = workplace.config(tmp_path / "spool", address)
        judged(config, 1)
        with delivering(config):
            assert settled(config, "DEAD")
    assert len(archive.datasets) == 2
    (story,) = history.trace(ledgers(config), "1.2.1.1.1")
    (dead,) = [row for row in story.deliveries if row.state is DeliveryState.DEAD]
    assert (dead.kind, dead.attempts) == ("measurements", 1)
    assert "no presentation context" in (dead.last_error or "")


def test_a_warning_is_a_delivery_and_its_status_is_kept(tmp_path: Path, ledgers: Opened) -> None:
    with peers.listening(peers.Archive(lambda _: 0xB000)) as address:
        config = workplace.config(tmp_path / "spool", address)
        judged(config, 1)
        with delivering(config):
            assert settled(config, "DELIVERED")
    (story,) = history.trace(ledgers(config), "1.2.1.1.1")
    assert {row.last_status for row in story.deliveries} == {0xB000}


@pytest.fixture
def courier(tmp_path: Path, ledgers: Opened) -> Iterator[Callable[[Config], deliver.Courier]]:
    made: list[deliver.Courier] = []

    def build(config: Config) -> deliver.Courier:
        home = deliver.Home(config=config, ledger=ledgers(config), spool=Spool(config.spool.path), owner="me")
        (destination,) = config.destinations
        made.append(deliver.Courier(home, destination.name, deliver.link(destination, "CXR_NODE"), 1.0))
        return made[-1]

    yield build
    for each in made:
        each._link.close()


def test_after_72_hours_a_delivery_is_dead_and_says_why(
    tmp_path: Path, courier: Callable[[Config], deliver.Courier]
) -> None:
    config = workplace.config(tmp_path / "spool", peers.nobody())
    judged(config, 1)
    one = courier(config)
    rest = one.do_one()
    assert rest.deaf, "an unreachable destination is left alone for a while"
    now = one._home.ledger.now
    one._home.ledger.now = lambda: now() + timedelta(hours=72)
    for _ in range(3):
        one.do_one()
    assert workplace.states(config) == [("DEAD", "undelivered")]
    (story,) = history.trace(one._home.ledger, "1.2.1.1.1")
    assert all("gave up after 72 h" in (row.last_error or "") for row in story.deliveries)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"other"), lambda path: path.unlink()])
def test_bytes_that_changed_in_the_spool_never_leave(
    tmp_path: Path, courier: Callable[[Config], deliver.Courier], damage: Callable[[Path], None]
) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address)
        judged(config, 1)
        spool = Spool(config.spool.path)
        damage(spool.locate(Area.RESULTS, sorted(spool.digests(Area.RESULTS))[0]))
        one = courier(config)
        for _ in range(3):
            one.do_one()
        one._link.close()
    assert len(archive.datasets) == 2
    assert [row[0] for row in workplace.states(config)] == ["DEAD"]


def test_the_delay_doubles_to_its_ceiling_with_jitter() -> None:
    delivery = Delivery(first_delay_s=4, max_delay_s=1800)
    for attempt, longest in ((1, 4), (2, 8), (5, 64), (12, 1800), (10_000, 1800)):
        delays = [deliver.backoff_s(delivery, attempt) for _ in range(200)]
        assert longest / 2 <= min(delays) < max(delays) <= longest
        assert len(set(delays)) > 100


def test_an_idle_association_is_released(tmp_path: Path) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        once = {"name": "pacs", "address": str(address), "idle_close_s": 0.1, "timeout_s": 2.0}
        config = workplace.config(tmp_path / "spool", destinations=[once])
        judged(config, 1)
        with delivering(config):
            assert settled(config, "DELIVERED")
            threading.Event().wait(1.0)
            judged(config, 2)
            assert settled(config, "DELIVERED", 2)
    assert archive.associations == 2


def test_retention_takes_bytes_of_settled_instances_only(tmp_path: Path, ledgers: Opened) -> None:
    with peers.listening(peers.Archive()) as address:
        config = workplace.config(tmp_path / "spool", address)
        judged(config, 1)
        with delivering(config):
            assert settled(config, "DELIVERED")
    judged(config, 2)  # reported, not delivered
    ledger, spool = ledgers(config), Spool(config.spool.path)
    assert retention.sweep(ledger, spool, 30.0) == 0
    now = ledger.now
    ledger.now = lambda: now() + timedelta(days=31)
    assert retention.sweep(ledger, spool, 30.0) == 1
    assert retention.sweep(ledger, spool, 30.0) == 0
    assert list(spool.digests(Area.OBJECTS)) == [workplace.digest(b"radiograph 2")]
    assert len(list(spool.digests(Area.RESULTS))) == 3
    assert workplace.states(config) == [("DELIVERED", None), ("REPORTED", None)]


def test_a_courier_that_ends_by_itself_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = workplace.config(tmp_path / "spool", peers.nobody())
    monkeypatch.setattr(deliver.Courier, "run", lambda *_: None)
    with pytest.raises(deliver.ResourceError, match="pacs0 ended by itself"):
        deliver.run(config, threading.Event())
