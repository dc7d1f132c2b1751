"""An alert is told once when it begins and once when it ends: by real servers, over outages and restarts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from cxr_node.errors import ResourceError
from cxr_node.node.ledger import alerts as book
from cxr_node.node.ledger import destination_health
from cxr_node.web.monitoring import alert_loop, announce
from cxr_node.web.monitoring.alert_loop import HOLD_S, AlertLoop, LedgerStore
from cxr_node.web.monitoring.alerts import Rule, Snapshot
from cxr_node.web.monitoring.watch import Watch
from tests.node.ledgers import Clock
from tests.patience import eventually
from tests.web.ledgers import PACS, Node, node
from tests.web.sinks import MailServer, WebHook

HOUR_S = 3600.0


class Memory:
    """A store that forgets nothing while a test runs, as `node.ledger.alerts` does for longer."""

    def __init__(self) -> None:
        self.rows: dict[str, book.Alert] = {}

    def open_alerts(self) -> tuple[book.Alert, ...]:
        return tuple(self.rows.values())

    def begin_alert(self, key: str, rule: str, subject: str, now: datetime) -> bool:
        fresh = book.Alert(key=key, rule=rule, subject=subject, began_at=now, announced_at=None, ended_at=None)
        self.rows[key] = replace(self.rows.get(key, fresh), ended_at=None)
        return True

    def mark_announced(self, key: str, now: datetime) -> None:
        self.rows[key] = replace(self.rows[key], announced_at=now)

    def end_alert(self, key: str, now: datetime) -> None:
        self.rows[key] = replace(self.rows[key], ended_at=now)

    def forget_alert(self, key: str) -> None:
        del self.rows[key]


class World:
    """What a loop sees, as a test wants it."""

    def __init__(self, made: Node, *files: Path) -> None:
        self.clock, self.seen, self.store = Clock(), Snapshot(), Memory()
        alerts = made.config.alerts.model_copy(update={"to": files})
        self.config = made.config.model_copy(update={"alerts": alerts})
        self.loop = self.started()

    def started(self) -> AlertLoop:
        return AlertLoop(self.config, lambda _: self.seen, self.store)

    def down(self) -> None:
        self.seen = Snapshot(down_since={PACS: self.clock()})
        self.clock.forward(HOUR_S)
        self.loop.evaluate(self.clock())

    def up(self) -> None:
        self.seen = Snapshot()
        self.loop.evaluate(self.clock())
        self.clock.forward(HOLD_S)
        self.loop.evaluate(self.clock())

    def told(self, holds: Callable[[], object]) -> bool:
        def turned() -> object:
            self.loop.tell(self.clock())
            return holds()

        return eventually(turned)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once: how long it waits has a test of its own."""
    monkeypatch.setattr(alert_loop, "_FIRST_DELAY_S", 0.0)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Node]:
    with node(tmp_path / "spool") as found:
        yield found


def test_begin_once_end_once_by_every_way(made: Node, tmp_path: Path) -> None:
    with MailServer(tmp_path, "mail") as mail, WebHook(tmp_path) as hook:
        world = World(made, mail.file, hook.file)
        world.down()
        assert world.told(lambda: all(row.announced_at for row in world.store.rows.values()))
        world.down()
        world.up()
        assert world.told(lambda: not world.store.rows)
        world.loop.evaluate(world.clock())
        world.loop.tell(world.clock())
        for sink in (mail, hook):
            begin, end = sink.taken
            assert begin.startswith("cxr-node cxr-node: 1 began\n")
            assert "Destination pacs has not answered since 2026-03-01 12:00 UTC (1 h)." in begin
            assert "What to do: `cxr-node status`" in begin
            assert end.startswith("cxr-node cxr-node: 1 ended\n")
            assert "Ended: destination-down pacs: from 2026-03-01 13:00" in end


def test_what_began_while_the_server_was_down_is_told_when_it_is_back(
    made: Node, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = WebHook(tmp_path)
    world = World(made, hook.file)
    world.down()
    assert world.told(lambda: "alerts not taken channel=hook.url" in caplog.text)
    world.seen = replace(world.seen, dead={"fault": 2})
    world.loop.evaluate(world.clock())
    assert "pa55w0rd" not in caplog.text
    with hook:
        assert world.told(lambda: all(row.announced_at for row in world.store.rows.values()))
        told = "\n".join(hook.taken)
        assert (told.count("Destination pacs"), told.count("2 images are DEAD")) == (1, 1)
    assert "alerts are taken again" in caplog.text


def test_what_came_and_went_while_the_server_was_down_is_told_too(made: Node, tmp_path: Path) -> None:
    hook = WebHook(tmp_path)
    world = World(made, hook.file)
    world.down()
    world.up()
    with hook:
        assert world.told(lambda: not world.store.rows)
        (text,) = hook.taken
        assert "Ended: destination-down pacs" in text


def test_a_restart_tells_nothing_twice_and_forgets_nothing(made: Node, tmp_path: Path) -> None:
    with WebHook(tmp_path) as hook:
        world = World(made, hook.file)
        world.down()
        assert world.told(lambda: hook.taken and all(row.announced_at for row in world.store.rows.values()))
        world.loop = world.started()
        world.loop.evaluate(world.clock())
        world.loop.tell(world.clock())
        assert not any(channel.is_sending for channel in world.loop._channels)
        world.up()
        world.loop = world.started()
        assert world.told(lambda: not world.store.rows)
        assert len(hook.taken) == 2


def test_a_server_that_hangs_holds_nobody_up(
    made: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with WebHook(tmp_path, "deaf", hangs=True) as deaf, WebHook(tmp_path) as hook:
        world = World(made, deaf.file, hook.file)
        world.down()
        assert world.told(deaf.asked.is_set)
        assert world.told(lambda: hook.taken), "the other way is free"
        monkeypatch.setattr(announce, "TIMEOUT_S", 0.0)
        assert world.told(lambda: "channel=deaf.url" in caplog.text)
        assert "no answer within" in caplog.text
        for channel in world.loop._channels:
            channel.close()
    assert len(hook.taken) == 1


def test_what_cannot_be_looked_at_ends_nothing(made: Node) -> None:
    world = World(made)
    world.seen = Snapshot(free_bytes={"spool": 0}, watermark_bytes=1)
    world.loop.evaluate(world.clock())
    world.seen = Snapshot(unread=frozenset({Rule.DISK}))
    for _ in range(3):
        world.clock.forward(HOUR_S)
        world.loop.evaluate(world.clock())
    assert [row.ended_at for row in world.store.open_alerts()] == [None]


def test_what_comes_and_goes_is_one_alert(made: Node) -> None:
    world = World(made)
    world.down()
    for _ in range(5):
        seen, world.seen = world.seen, Snapshot()
        world.clock.forward(HOLD_S / 2)
        world.loop.evaluate(world.clock())
        world.seen = seen
        world.clock.forward(HOLD_S / 2)
        world.loop.evaluate(world.clock())
    (row,) = world.store.open_alerts()
    assert row.ended_at is None


def test_others_can_read_a_url(made: Node, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hook = WebHook(tmp_path)
    hook.file.chmod(0o644)
    world = World(made, hook.file)
    world.down()
    world.loop.tell(world.clock())
    assert "others may read this URL with a password (mode 0644); chmod 0600" in caplog.text


def test_without_a_way_alerts_are_remembered_for_the_page(made: Node) -> None:
    world = World(made)
    world.down()
    world.loop.tell(world.clock())
    assert [row.key for row in world.store.open_alerts()] == [f"destination-down:{PACS}"]
    world.up()
    world.loop.tell(world.clock())
    assert not world.store.open_alerts()


def test_the_ledger_remembers_and_a_fault_of_it_is_survived(made: Node, tmp_path: Path) -> None:
    """The loop as the process runs it: its own thread, the ledger's rows, a look at a real ledger."""
    with WebHook(tmp_path) as hook:
        config = World(made, hook.file).config
        destination_health.down(made.ledger, PACS, 30.0, "no answer")
        made.clock.forward(HOUR_S)
        stop, faults = threading.Event(), iter([ResourceError("ledger: busy")])
        watch = Watch(config, lambda: made.ledger)

        def look(now: datetime) -> Snapshot:
            for fault in faults:
                raise fault
            return watch.look(now)

        loop = AlertLoop(config, look, LedgerStore(lambda: made.ledger))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(alert_loop, "EVERY_S", 0.1)
            thread = threading.Thread(target=loop.run, args=(stop, made.clock))
            thread.start()
            try:
                assert eventually(lambda: hook.taken)
            finally:
                stop.set()
                thread.join()
        assert "Destination pacs has not answered" in hook.taken[0]
        rows = {row.key: row for row in book.open_alerts(made.ledger)}
        assert f"destination-down:{PACS}" in rows


def test_the_delay_grows_up_to_half_an_hour(
    made: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alert_loop, "_FIRST_DELAY_S", 15.0)
    channel = alert_loop.Channel(tmp_path / "nowhere.url", "node")
    for _ in range(10):
        channel._failed("it is down")
    delays = [float(record.args[1]) for record in caplog.records if isinstance(record.args, tuple)]  # type: ignore[arg-type]
    assert delays[:3] == [15.0, 30.0, 60.0]
    assert delays[-1] == 1800.0
