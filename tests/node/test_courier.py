"""Delivery against destinations that are away, slow, moody or gone: nothing lost, nothing twice, no other delayed."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from rich.console import Console

from cxr_node.cli import ledger_tables
from cxr_node.config.network import Address
from cxr_node.config.schema import Config, Delivery
from cxr_node.node.deliver import courier, removed_destinations, retention
from cxr_node.node.deliver.link import link_to
from cxr_node.node.deliver.loop import DeliveryContext
from cxr_node.node.ledger import queries, tables
from cxr_node.node.ledger.database import Database
from cxr_node.node.ledger.lease_keeper import LeaseKeeper
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import DeliveryJob, DeliveryState
from cxr_node.node.process.notify import Role, notify
from cxr_node.node.retry import NO_PAUSE, backoff_s
from cxr_node.node.spool.spool import Area, Spool
from tests.node import peers, workplace
from tests.node.ledgers import Clock, retried
from tests.patience import FOR_EVER_S

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
    worker = workplace.worker(config, ledger)
    while worker.do_one():
        pass
    ledger.close()


@contextmanager
def delivering(config: Config) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=courier.run, args=(config, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def reading(config: Config) -> Iterator[Ledger]:
    ledger = Ledger.open(config.spool.path)
    try:
        yield ledger
    finally:
        ledger.close()


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


def test_a_new_result_goes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The courier sleeps on a wakeup, not on a clock."""
    monkeypatch.setattr(courier, "LOOK_AFTER_S", FOR_EVER_S)
    archive = peers.Archive()
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address)
        with delivering(config):
            assert workplace.eventually(lambda: notify(config.spool.path, Role.DELIVER) == 1)
            judged(config, 1)
            assert archive.wait(3)


def test_only_what_a_destination_wants_is_sent(tmp_path: Path) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        wants = {
            "name": "viewer",
            "address": str(address),
            "report_per": "image",
            "send": ["heatmap"],
            "timeout_s": 2.0,
        }
        config = workplace.config(tmp_path / "spool", destinations=[wants])
        judged(config, 1, 2)
        with delivering(config):
            assert settled(config, "DELIVERED", 2)
    assert len(archive.datasets) == 2


def test_a_dead_and_a_stalling_destination_delay_no_other(tmp_path: Path) -> None:
    archive, over = peers.Archive(), threading.Event()

    def stall(connection: socket.socket) -> None:
        over.wait(FOR_EVER_S)
        connection.close()

    with peers.listening(archive) as healthy, peers.raw_peer(stall) as stalling:
        addresses = (healthy, stalling, peers.nobody())
        named = [
            {"name": f"pacs{number}", "address": str(each), "report_per": "image"}
            for number, each in enumerate(addresses)
        ]
        patient = [each | {"timeout_s": FOR_EVER_S} for each in named]
        config = workplace.config(tmp_path / "spool", destinations=patient)
        judged(config, *range(5))
        with delivering(config):
            assert archive.wait(15)
            over.set()
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
        assert workplace.eventually(lambda: queries.queues(ledger)["pacs0"][DeliveryState.WAIT] > 0)
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
    (story,) = queries.trace(ledgers(config), "1.2.1.1.1")
    (dead,) = [row for row in story.deliveries if row.state is DeliveryState.DEAD]
    assert (dead.kind, dead.attempts) == ("measurements", 1)
    assert "no presentation context" in (dead.last_error or "")


@pytest.mark.parametrize("choice", range(3))
def test_measurements_go_in_the_first_sop_class_that_the_destination_takes(
    tmp_path: Path, ledgers: Opened, choice: int
) -> None:
    archive = peers.Archive()
    with peers.listening(archive, measurement_classes=peers.MEASUREMENT_CLASSES[choice:]) as address:
        config = workplace.config(tmp_path / "spool", address)
        judged(config, 1)
        with delivering(config):
            assert settled(config, "DELIVERED")
    assert len(archive.datasets) == 3
    assert archive.sop_classes[peers.MEASUREMENT_CLASSES[choice]] == 1
    (story,) = queries.trace(ledgers(config), "1.2.1.1.1")
    (row,) = [one for one in story.deliveries if one.kind == "measurements"]
    assert (row.sop_class_uid, row.attempts) == (peers.MEASUREMENT_CLASSES[choice], 1)
    assert row.sop_instance_uid in archive.datasets
    told = [event.detail for event in story.events if event.what == "delivery-sop-class"]
    assert told == ([f"measurements to pacs0: as SOP Class {peers.MEASUREMENT_CLASSES[choice]}"] if choice else [])
    console = Console(file=io.StringIO(), width=200)
    console.print(ledger_tables.story(story, {}))
    name = ("measurements ", "measurements as Comprehensive SR", "measurements as Enhanced SR")[choice]
    assert name in console.file.getvalue()
    assert "88." not in console.file.getvalue().split("when (UTC)")[0]
    for place in range(3):  # the UID in each SOP Class leads to the story
        uid = row.sop_instance_uid.removesuffix(f".{choice}") + (f".{place}" if place else "")
        assert [one.instance.id for one in queries.trace(ledgers(config), uid)] == [story.instance.id]


def test_each_destination_gets_its_own_sop_class(tmp_path: Path) -> None:
    new, old = peers.Archive(), peers.Archive()
    with (
        peers.listening(new) as one,
        peers.listening(old, measurement_classes=peers.MEASUREMENT_CLASSES[1:], ae_title="OLD") as two,
    ):
        config = workplace.config(tmp_path / "spool", one, two)
        judged(config, 1, 2)
        with delivering(config):
            assert settled(config, "DELIVERED", 2)
    assert (new.sop_classes[peers.MEASUREMENT_CLASSES[0]], old.sop_classes[peers.MEASUREMENT_CLASSES[1]]) == (2, 2)
    assert (len(new.datasets), len(old.datasets)) == (6, 6)


def test_a_destination_that_takes_no_such_sop_class_gets_the_rest(tmp_path: Path, ledgers: Opened) -> None:
    archive = peers.Archive()
    with peers.listening(archive, measurement_classes=()) as address:
        config = workplace.config(tmp_path / "spool", address)
        judged(config, 1)
        with delivering(config):
            assert settled(config, "DEAD")
    assert not set(peers.MEASUREMENT_CLASSES) & set(archive.sop_classes)
    assert len(archive.datasets) == 2
    (story,) = queries.trace(ledgers(config), "1.2.1.1.1")
    (dead,) = [row for row in story.deliveries if row.state is DeliveryState.DEAD]
    assert (dead.kind, dead.attempts) == ("measurements", 1)
    assert all(sop_class_uid in (dead.last_error or "") for sop_class_uid in peers.MEASUREMENT_CLASSES)


def test_a_warning_is_a_delivery_and_its_status_is_kept(tmp_path: Path, ledgers: Opened) -> None:
    with peers.listening(peers.Archive(lambda _: 0xB000)) as address:
        config = workplace.config(tmp_path / "spool", address)
        judged(config, 1)
        with delivering(config):
            assert settled(config, "DELIVERED")
    (story,) = queries.trace(ledgers(config), "1.2.1.1.1")
    assert {row.last_status for row in story.deliveries} == {0xB000}


@pytest.fixture
def make_courier(
    tmp_path: Path, ledgers: Opened, request: pytest.FixtureRequest
) -> Iterator[Callable[[Config], courier.Courier]]:
    made: list[courier.Courier] = []

    def build(config: Config) -> courier.Courier:
        ledger, spool = ledgers(config), Spool(config.spool.path)
        keeper = LeaseKeeper(ledger, 60.0)
        request.addfinalizer(keeper.close)
        context = DeliveryContext(config=config, ledger=ledger, spool=spool, owner="me", keeper=keeper)
        (destination,) = config.destinations
        made.append(courier.Courier(context, destination, link_to(destination, "CXR_NODE")))
        return made[-1]

    yield build
    for each in made:
        each._link.close()


def only_measurements(tmp_path: Path, address: Address) -> Config:
    wants = {"name": "pacs", "address": str(address), "report_per": "image", "send": ["measurements"], "timeout_s": 2.0}
    return workplace.config(tmp_path / "spool", destinations=[wants])


@pytest.mark.parametrize(
    ("then", "sent"),
    [((0, 1, 2), 1), ((1, 2), 1), ((2,), 2), ((0,), 0)],
    ids=["takes more now", "the same", "takes it no more", "takes only a better one"],
)
def test_a_sop_class_that_was_tried_stays_chosen_while_it_is_taken(
    tmp_path: Path, make_courier: Callable[[Config], courier.Courier], then: tuple[int, ...], sent: int
) -> None:
    """The answer was lost: where the archive kept the object, another SOP Class would be a second one."""
    kept, archive = peers.Archive(lambda _: None), peers.Archive()
    with peers.listening(kept, measurement_classes=peers.MEASUREMENT_CLASSES[1:]) as address:
        config = only_measurements(tmp_path, address)
        judged(config, 1)
        before = make_courier(config)
        assert before.do_one().is_fixed
        before._link.close()
    assert kept.sop_classes == {peers.MEASUREMENT_CLASSES[1]: 1}
    with peers.listening(
        archive, measurement_classes=tuple(peers.MEASUREMENT_CLASSES[choice] for choice in then), port=address.port
    ):
        with delivering(config):  # another process, after a restart
            assert settled(config, "DELIVERED")
        assert archive.sop_classes == {peers.MEASUREMENT_CLASSES[sent]: 1}
        for _ in range(2):  # what was delivered once is final
            assert before.do_one().seconds > 0
        assert retried(before._context.ledger, "1.2.1.1.1", "pacs") == 0
    assert sum(archive.sop_classes.values()) == 1
    (story,) = queries.trace(before._context.ledger, "1.2.1.1.1")
    assert [row.sop_class_uid for row in story.deliveries] == [peers.MEASUREMENT_CLASSES[sent]]


def test_a_courier_that_lost_the_lease_sends_in_no_other_sop_class(
    tmp_path: Path, make_courier: Callable[[Config], courier.Courier], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = peers.Archive()
    with peers.listening(archive, measurement_classes=peers.MEASUREMENT_CLASSES[1:]) as address:
        config = only_measurements(tmp_path, address)
        judged(config, 1)
        slow = make_courier(config)
        genuine = Ledger.choose

        def overtaken(ledger: Ledger, job: DeliveryJob, choice: int) -> bool:
            with ledger.database.writing() as connection:
                connection.exec_driver_sql("UPDATE deliveries SET lease_until = 0")
            assert ledger.claim_delivery("pacs", "other", 60) is not None
            return genuine(ledger, job, choice)

        monkeypatch.setattr(Ledger, "choose", overtaken)
        slow.do_one()
    assert archive.datasets == {}
    assert workplace.states(config) == [("REPORTED", None)]


def test_after_72_hours_a_delivery_is_dead_and_says_why(
    tmp_path: Path, make_courier: Callable[[Config], courier.Courier]
) -> None:
    config = workplace.config(tmp_path / "spool", peers.nobody())
    judged(config, 1)
    one = make_courier(config)
    rest = one.do_one()
    assert rest.is_fixed, "an unreachable destination is left alone for a while"
    now = one._context.ledger.now
    one._context.ledger.now = lambda: now() + timedelta(hours=72)
    for _ in range(3):
        one.do_one()
    assert workplace.states(config) == [("DEAD", "undelivered")]
    (story,) = queries.trace(one._context.ledger, "1.2.1.1.1")
    assert all("gave up after 72 h" in (row.last_error or "") for row in story.deliveries)


def stored_as(spool: Spool, sop_class_uid: str) -> Path:
    """The file of the one result object of that SOP Class."""
    (digest,) = (one for one in spool.digests(Area.RESULTS) if sop_class_uid.encode() in spool.read(Area.RESULTS, one))
    return spool.locate(Area.RESULTS, digest)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"other"), lambda path: path.unlink()])
def test_bytes_that_changed_in_the_spool_never_leave(
    tmp_path: Path, make_courier: Callable[[Config], courier.Courier], damage: Callable[[Path], None]
) -> None:
    """A SOP Class that another destination would have got does not count: it is not about to leave."""
    archive = peers.Archive()
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address)
        judged(config, 1)
        spoiled = (peers.SOP_CLASS[peers.ResultKind.REPORT], peers.MEASUREMENT_CLASSES[2])
        for path in [stored_as(Spool(config.spool.path), sop_class_uid) for sop_class_uid in spoiled]:
            damage(path)
        one = make_courier(config)
        for _ in range(3):
            one.do_one()
        one._link.close()
    assert len(archive.datasets) == 2
    assert [row[0] for row in workplace.states(config)] == ["DEAD"]


def test_a_destination_that_is_down_costs_no_object_an_attempt(
    tmp_path: Path, make_courier: Callable[[Config], courier.Courier]
) -> None:
    """One of them knocks, again and again and ever more rarely; the others wait untried."""
    delivery = {"first_delay_s": 4.0, "max_delay_s": 1800.0}
    config = workplace.config(tmp_path / "spool", peers.nobody(), delivery=delivery)
    judged(config, *range(1, 6))
    one, clock = make_courier(config), Clock(datetime.now(UTC))
    one._context.ledger.now = clock
    pauses = []
    for _ in range(8):
        rest = one.do_one()
        assert rest.is_fixed
        pauses.append(rest.seconds)
        clock.forward(rest.seconds)
    assert 60 / 2 <= pauses[-1] <= 60
    assert pauses[0] <= 4
    rows = [row for number in range(1, 6) for row in queries.trace(one._context.ledger, f"1.2.{number}")[0].deliveries]
    assert [row.attempts for row in rows] == [0] * 15
    assert [row.destination for row in rows if row.last_error] == ["pacs0"]


def test_what_is_too_old_for_a_destination_that_is_down_is_dead_at_once(
    tmp_path: Path, make_courier: Callable[[Config], courier.Courier]
) -> None:
    """Not one every minute: of a thousand the last would be reported a day late."""
    config = workplace.config(tmp_path / "spool", peers.nobody())
    judged(config, *range(5))
    one, clock = make_courier(config), Clock(datetime.now(UTC))
    one._context.ledger.now = clock
    assert one.do_one().is_fixed
    clock.forward(72 * 3600)
    assert [one.do_one() for _ in range(15)] == [NO_PAUSE] * 15
    assert workplace.states(config) == [("DEAD", "undelivered")] * 5


def test_a_destination_without_room_is_left_alone_after_three_answers(
    tmp_path: Path, make_courier: Callable[[Config], courier.Courier]
) -> None:
    archive = peers.Archive(lambda _: 0xA700)
    with peers.listening(archive) as address:
        config = workplace.config(tmp_path / "spool", address)
        judged(config, *range(3))
        one = make_courier(config)
        assert [one.do_one().is_fixed for _ in range(4)] == [False, False, True, True]
        archive.answer = lambda _: 0x0000
        assert [one.do_one() for _ in range(5)] == [NO_PAUSE] * 5


def test_deliveries_to_a_destination_that_was_removed_are_dead_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive, other = peers.Archive(), peers.Archive()
    with peers.listening(archive) as address, peers.listening(other) as elsewhere:
        both = workplace.config(tmp_path / "spool", peers.nobody(), elsewhere)
        judged(both, 1)
        renamed = [
            {"name": "pacs1", "address": str(elsewhere), "report_per": "image"},
            {"name": "new", "address": str(address), "report_per": "image"},
        ]
        without = workplace.config(tmp_path / "spool", destinations=renamed)
        with delivering(without):
            assert settled(without, "DEAD")
        assert len(other.datasets) == 3
        assert "no longer configured" in caplog.text
        with reading(without) as ledger:
            (story,) = queries.trace(ledger, "1.2.1.1.1")
            dead = [row for row in story.deliveries if row.state is DeliveryState.DEAD]
            assert [(row.destination, (row.last_error or "").split(":")[0]) for row in dead] == [
                ("pacs0", "destination-removed")
            ] * 3
        back = [
            {"name": "pacs1", "address": str(elsewhere), "report_per": "image"},
            {"name": "pacs0", "address": str(address), "report_per": "image"},
        ]
        with delivering(workplace.config(tmp_path / "spool", destinations=back)):
            assert settled(both, "DELIVERED")
    assert len(archive.datasets) == 3
    assert all(len(many) == 1 for many in (archive.datasets | other.datasets).values())


def test_what_is_dead_for_another_reason_does_not_come_back_by_itself(tmp_path: Path) -> None:
    with peers.listening(peers.Archive(lambda _: 0xC000)) as address:
        config = workplace.config(tmp_path / "spool", address)
        judged(config, 1)
        with delivering(config):
            assert settled(config, "DEAD")
        with delivering(config), reading(config) as ledger:
            assert removed_destinations.revive(ledger, ["pacs0"]) == {}
    assert workplace.states(config) == [("DEAD", "undelivered")]


def test_the_delay_doubles_to_its_ceiling_with_jitter() -> None:
    delivery = Delivery(first_delay_s=4, max_delay_s=1800)
    for attempt, longest in ((1, 4), (2, 8), (5, 64), (12, 1800), (10_000, 1800)):
        delays = [backoff_s(delivery, attempt) for _ in range(200)]
        assert longest / 2 <= min(delays) < max(delays) <= longest
        assert len(set(delays)) > 100


def test_an_idle_association_is_released(tmp_path: Path) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        once = {"name": "pacs", "address": str(address), "report_per": "image", "idle_close_s": 0.1, "timeout_s": 2.0}
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
    assert len(list(spool.digests(Area.RESULTS))) == 5  # measurements in three SOP Classes
    assert workplace.states(config) == [("DELIVERED", None), ("REPORTED", None)]


def test_history_takes_rows_whose_bytes_are_gone_and_a_repeat_is_a_new_instance(
    tmp_path: Path, ledgers: Opened
) -> None:
    with peers.listening(peers.Archive()) as address:
        config = workplace.config(tmp_path / "spool", address)
        judged(config, 1, 2)
        with delivering(config):
            assert settled(config, "DELIVERED", 2)
    ledger, spool = ledgers(config), Spool(config.spool.path)
    now = ledger.now
    ledger.now = lambda: now() + timedelta(days=400)
    assert retention.forget(ledger, 365.0) == 0, "bytes first"
    assert retention.sweep(ledger, spool, 30.0) == 2
    workplace.receive(config, 2)  # its bytes are back
    assert retention.forget(ledger, 365.0) == 1
    assert retention.forget(ledger, 365.0) == 0
    assert workplace.states(config) == [("DELIVERED", None)]
    emptied = (tables.instances, tables.artifacts, tables.instance_artifacts, tables.alternatives, tables.deliveries)
    with ledger.database.reading() as connection:
        left = [connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in emptied]
        owners = set(connection.scalars(sa.select(tables.events.c.instance_id)))
    assert (left, len(owners)) == ([1, 5, 5, 2, 3], 1)  # measurements in three SOP Classes, one delivery
    workplace.receive(config, 1)
    assert workplace.states(config) == [("DELIVERED", None), ("RECEIVED", None)]


def test_sweeps_come_as_often_as_retention_needs() -> None:
    assert retention.pause_s(30.0) == retention.pause_s(3650.0) == 3600.0
    assert retention.pause_s(0.001) == pytest.approx(8.64)
    assert retention.pause_s(0.0) == 1.0


def test_a_courier_that_ends_by_itself_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = workplace.config(tmp_path / "spool", peers.nobody())
    monkeypatch.setattr(courier.Courier, "run", lambda *_: None)
    with pytest.raises(courier.ResourceError, match="pacs0 ended by itself"):
        courier.run(config, threading.Event())


def test_a_thread_that_obeys_while_the_ledger_is_looked_at_has_not_ended_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()

    def sends() -> bool:
        return any(thread.name == "pacs0" for thread in threading.enumerate())

    def looks_until_it_has_ended(_: Database) -> None:
        if sends() and threading.current_thread() is threading.main_thread():
            stop.set()
            assert workplace.eventually(lambda: not sends())

    monkeypatch.setattr(Database, "require_whole", looks_until_it_has_ended)
    courier.run(workplace.config(tmp_path / "spool", peers.nobody()), stop)
    assert stop.is_set()
