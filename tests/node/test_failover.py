"""A server's place is taken by its replica: what that lacks is in the store, and is received again by itself."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cxr_node.config.schema import STANDARD_KINDS, Config
from cxr_node.dicom.read import header
from cxr_node.domain import Origin, Precedent
from cxr_node.errors import LedgerLostError, ResourceError
from cxr_node.node.deliver import courier
from cxr_node.node.ledger import machines, postgres, queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.receive import receiver, recovery, server
from cxr_node.node.work import worker
from cxr_node.outcome import Outcome, Reported
from cxr_node.web.services import assembled
from tests import builders
from tests import postgres as servers
from tests.node import ledgers, peers, wire, workplace
from tests.node.ledgers import Clock, digest, origin, reference
from tests.node.receivers import SYNTAXES
from tests.node.test_recovery import inspect
from tests.node.wire import Wire
from tests.patience import PATIENCE_S, eventually
from tests.processes import free_port

pytestmark = pytest.mark.skipif(servers.programs() is None, reason=servers.HINT)


@dataclass(frozen=True)
class Pair:
    """A server, and a replica of it, behind one URL."""

    primary: servers.Server
    replica: servers.Server

    @property
    def url(self) -> sa.URL:
        ports = [f"127.0.0.1:{each.port}" for each in (self.primary, self.replica)]
        whole = sa.make_url(self.primary.url())
        return whole._replace(host=None, port=None, query={"host": tuple(ports), "target_session_attrs": "read-write"})

    def is_level(self) -> bool:
        """Whether the replica has all that the first one has."""
        end = self.primary.asked("SELECT pg_current_wal_lsn()")
        return bool(self.replica.asked(f"SELECT pg_last_wal_replay_lsn() >= '{end}'"))

    def fail_over(self) -> None:
        """The first one dies for good."""
        self.primary.stop(signal.SIGQUIT)
        self.replica.promote()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with servers.server() as primary, servers.replica(primary) as replica:
        yield Pair(primary, replica)


def judge(content: bytes, origin: Origin, config: Config, precedent: Precedent) -> Outcome:
    """Three results, made of the image's bytes and of when it was received."""
    number = int(hashlib.sha256(content).hexdigest()[:6], 16) * 1_000_000 + origin.received_at.microsecond
    made = tuple(workplace.artifact(kind, number) for kind in STANDARD_KINDS)
    return Reported(finding=ledgers.finding(), artifacts=made)


class Role:
    """A process of a machine, as its service manager keeps it: begun again whenever it ends by itself."""

    def __init__(self, body: Callable[[threading.Event], None]) -> None:
        self._body, self._over, self._stop = body, threading.Event(), threading.Event()
        self.losses = 0
        """How often it ended for its ledger was lost."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            self._stop = threading.Event()  # a role that ends by itself sets it for its own threads
            try:
                self._body(self._stop)
            except LedgerLostError:
                self.losses += 1
            except ResourceError:
                self._over.wait(0.1)

    def end(self) -> None:
        self._over.set()
        while self._thread.is_alive():
            self._stop.set()
            self._thread.join(0.1)


class Machine:
    """One of several machines of a node, with a disk of its own."""

    def __init__(self, folder: Path, share: Path, ledger: dict[str, str], address: Any) -> None:
        self.port = free_port()
        store = {"kind": "posix", "path": str(share)}
        self.config = workplace.config(
            folder,
            address,
            listen={"port": self.port},
            spool={"path": str(folder), "min_free_mib": 0, "store": store},
            ledger=ledger,
        )

    def receives(self) -> Role:
        return Role(self._receive)

    def _receive(self, stop: threading.Event) -> None:
        hooks = server.Hooks(stop=stop, ready=lambda _: None)
        server.serve(self.config, header.identify, SYNTAXES, hooks)

    def works(self) -> Role:
        return Role(partial(worker.run, self.config, partial(workplace.analyser, judge)))

    def delivers(self) -> Role:
        return Role(partial(courier.run, self.config))

    def stored(self, number: int, patience_s: float = PATIENCE_S) -> int | None:
        """What a C-STORE of that radiograph is answered; None where there is no connection, or no answer."""
        dataset = builders.radiograph(number)
        try:
            with Wire(self.port, timeout_s=patience_s) as peer:
                peer.associate()
                return peer.store(str(dataset.SOPInstanceUID), wire.data_set_of(builders.part10(dataset)))
        except (ConnectionError, TimeoutError):
            return None

    def states(self) -> list[str]:
        return [state for state, _ in workplace.states(self.config)]


@contextmanager
def three(folder: Path, ledger: dict[str, str], address: Any) -> Iterator[list[Machine]]:
    share = folder / "share"
    share.mkdir(mode=0o700)
    yield [Machine(folder / f"machine{number}", share, ledger, address) for number in range(3)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "PATIENCE_S", 0.5)
    monkeypatch.setattr(server, "GRACE_S", 1.0)
    monkeypatch.setattr(machines, "TOLD_EVERY_S", 0.5)
    monkeypatch.setattr(worker, "LOOK_AFTER_S", 0.5)


@pytest.mark.timeout(180)
def test_what_an_asynchronous_replica_lacks_is_found_and_delivered_by_itself(
    tmp_path: Path, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address, ExitStack() as running:
        ledger = servers.section(tmp_path, pair.url.render_as_string(hide_password=False))
        here, *others = machines_ = running.enter_context(three(tmp_path, ledger, address))
        receiving = [each.receives() for each in machines_]
        working, delivering = here.works(), others[0].delivers()
        for role in (*receiving, delivering):
            running.callback(role.end)
        try:
            for number in (1, 2, 3):
                assert eventually(lambda number=number: machines_[number % 3].stored(number) == 0x0000)  # type: ignore[misc]
            assert eventually(lambda: here.states() == ["DELIVERED"] * 3)
            assert eventually(pair.is_level)
            pair.replica.cut()
            for number in (4, 5):
                assert machines_[number % 3].stored(number) == 0x0000
            assert eventually(lambda: here.states() == ["DELIVERED"] * 5), "delivered, and the replica knows nothing"
        finally:
            working.end()
        assert others[1].stored(6) == 0x0000, "acknowledged, and not judged yet"
        before = archive.digests()
        pair.fail_over()
        working = here.works()
        running.callback(working.end)
        assert eventually(lambda: here.states() == ["DELIVERED"] * 6)
        assert [each.stored(7) for each in machines_] == [0x0000] * 3, "they receive again, and know each other's"
        assert eventually(lambda: here.states() == ["DELIVERED"] * 7)
        assert [role.losses for role in (*receiving, delivering)] == [1] * 4
    after = archive.digests()
    assert len(before) == 5 * len(STANDARD_KINDS)
    assert len(after) == 7 * len(STANDARD_KINDS)
    assert all(len(contents) == 1 for contents in after.values()), "other bytes under the same UID"
    assert {uid: after[uid] for uid in before} == before
    twice = [uid for uid, many in archive.datasets.items() if len(many) == 2]
    assert len(twice) == 2 * len(STANDARD_KINDS), "what was delivered and forgotten goes again, under its UID"
    assert [record.args for record in caplog.records if "received again" in record.msg] == [(3, 6)]


@pytest.mark.timeout(180)
def test_a_synchronous_replica_has_all_that_was_acknowledged(
    tmp_path: Path, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    with peers.listening(peers.Archive()) as address, ExitStack() as running:
        ledger = servers.section(tmp_path, pair.url.render_as_string(hide_password=False))
        machines_ = running.enter_context(three(tmp_path, ledger, address))
        here = machines_[0]
        pair.primary.set(synchronous_standby_names="*")
        receiving = [each.receives() for each in machines_]
        for role in receiving:
            running.callback(role.end)
        for number in range(1, 7):
            assert eventually(lambda number=number: machines_[number % 3].stored(number) == 0x0000)  # type: ignore[misc]
        pair.fail_over()
        assert here.states() == ["RECEIVED"] * 6
        assert eventually(lambda: [role.losses for role in receiving] == [1] * 3)
        assert eventually(lambda: here.stored(7) == 0x0000)
        assert here.states() == ["RECEIVED"] * 7
    assert not [record for record in caplog.records if "received again" in record.msg]


@pytest.mark.timeout(180)
def test_while_the_synchronous_replica_is_away_nothing_is_acknowledged(tmp_path: Path, pair: Pair) -> None:
    with peers.listening(peers.Archive()) as address, ExitStack() as running:
        ledger = servers.section(tmp_path, pair.url.render_as_string(hide_password=False))
        here = running.enter_context(three(tmp_path, ledger, address))[0]
        pair.primary.set(synchronous_standby_names="*")
        running.callback(here.receives().end)
        assert eventually(lambda: here.stored(1) == 0x0000)
        pair.replica.stop(signal.SIGQUIT)
        assert here.stored(2, patience_s=1.0) is None, "it waits for the replica"
        pair.replica.start()
        assert eventually(lambda: here.stored(2) == 0x0000)


def test_what_was_claimed_before_a_failover_is_not_settled_after_it(tmp_path: Path, pair: Pair) -> None:
    """A number may stand for another image on the replica, and a first claim of it looks the same."""
    clock, config = (
        Clock(),
        workplace.config(tmp_path, ledger=servers.section(tmp_path, pair.url.render_as_string(hide_password=False))),
    )
    with closing(Ledger.of_node(config)) as ledger:
        assert eventually(pair.is_level)
        pair.replica.cut()
        ledger.add(reference(1), origin(clock), digest(1), 1)
        job = ledger.claim_instance("me", 3600.0)
        assert job is not None
        pair.fail_over()
        with closing(Ledger.of_node(config)) as other:
            other.add(reference(2), origin(clock), digest(2), 1)
            again = other.claim_instance("me", 3600.0)
            assert again is not None and again.ref.sop_instance_uid == "1.2.2.1.1"
            for _ in range(2):
                with pytest.raises(LedgerLostError, match="another server has taken over"):
                    eventually(lambda: _settled(ledger, job))
            assert ledger.database.is_lost
            assert other.extend(again, 3600.0), "it is as it was"
            assert [row.state for row in queries.recent(other, 9)] == ["RECEIVED"]


def _settled(ledger: Ledger, job: Any) -> bool:
    try:
        return ledger.settle_reported(job, ledgers.finding(), ledgers.results(), {})
    except ResourceError:  # the connection was to the server that died
        return False


def test_an_account_without_rights_sees_a_failover_too(tmp_path: Path, pair: Pair) -> None:
    with servers.past_the_node(pair.primary.url()) as connection:
        connection.execute(sa.text("CREATE ROLE plain LOGIN PASSWORD 'plain'"))
        connection.execute(sa.text("CREATE DATABASE plain OWNER plain"))
    url = pair.url.set(username="plain", password="plain", database="plain")
    config = workplace.config(tmp_path, ledger=servers.section(tmp_path, url.render_as_string(hide_password=False)))
    with closing(Ledger.of_node(config)) as ledger:
        with ledger.database.reading() as connection:
            system, timeline = postgres.history(connection)
        assert (bool(system), timeline) == (True, "00000001")
        assert eventually(pair.is_level)
        pair.fail_over()

        def sees() -> bool:
            with pytest.raises((ResourceError, LedgerLostError)):
                queries.counts(ledger)
            return ledger.database.is_lost

        assert eventually(sees)


def test_a_server_that_keeps_its_log_to_itself_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_ASK_HISTORY", "SELECT pg_no_such_function()")
    clock, config = Clock(), workplace.config(tmp_path, ledger=servers.section(tmp_path))
    with closing(Ledger.of_node(config)) as ledger:
        assert ledger.add(reference(1), origin(clock), digest(1), 1)
        ledger.database.engine.dispose()
        assert ledger.add(reference(2), origin(clock), digest(2), 1)


@pytest.mark.timeout(180)
def test_three_receivers_start_at_once_after_all_rows_were_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One of them makes the tables and fills them; the same results go, under the same UIDs."""
    archive, images = peers.Archive(), 6
    with peers.listening(archive) as address, three(tmp_path, servers.section(tmp_path), address) as machines_:
        here = machines_[0]
        with ExitStack() as running:
            for role in (machines_[1].receives(), here.works(), here.delivers()):
                running.callback(role.end)
            for number in range(images):
                assert eventually(lambda number=number: machines_[1].stored(number) == 0x0000)  # type: ignore[misc]
            assert eventually(lambda: here.states() == ["DELIVERED"] * images)
        before, received_at = archive.digests(), times(here.config)
        workplace.lose(here.config)
        with ExitStack() as running:
            for each in machines_:
                running.callback(each.receives().end)
            assert eventually(lambda: told(here.config) == received_at)
            for role in (here.works(), here.delivers()):
                running.callback(role.end)
            assert eventually(lambda: here.states() == ["DELIVERED"] * images)
    assert len(before) == images * len(STANDARD_KINDS)
    assert archive.digests() == before, "another UID, or other bytes"
    assert [record.args for record in caplog.records if "received again" in record.msg] == [(images, images)]


def times(config: Config) -> list[Any]:
    """When each image was received, in the order of the rows; how often it came again is always 0."""
    with closing(Ledger.of_node(config)) as ledger:
        rows = queries.recent(ledger, 99)
        assert all(row.repeats == 0 for row in rows)
        return [row.received_at for row in reversed(rows)]


def told(config: Config) -> list[Any]:
    try:
        return times(config)
    except (ResourceError, LedgerLostError):
        return []


def test_a_receiver_waits_for_whoever_leads_on_another_machine(tmp_path: Path) -> None:
    with three(tmp_path, servers.section(tmp_path), peers.nobody()) as (here, there, _):
        workplace.receive(here.config, 1, 2)
        workplace.lose(here.config)
        progress, met, found = threading.Semaphore(0), threading.Event(), list[recovery.Rebuilt]()

        def slow(path: Path) -> Any:
            met.wait(PATIENCE_S)
            return inspect(path)

        def rebuild(machine: Machine, inspect: receiver.Inspect) -> None:
            with closing(Ledger.of_node(machine.config)) as ledger:
                spool = server.open_spool(machine.config.spool)
                found.append(recovery.rebuild(ledger, spool, inspect, progress.release))

        leading = threading.Thread(target=rebuild, args=(there, slow))
        leading.start()
        assert progress.acquire(timeout=PATIENCE_S), "it leads"
        waiting = threading.Thread(target=rebuild, args=(here, inspect))
        waiting.start()
        for _ in range(3):
            assert progress.acquire(timeout=PATIENCE_S), "who waits makes progress, for the watchdog"
        met.set()
        for each in (leading, waiting):
            each.join(PATIENCE_S)
        assert [each.received for each in found] == [2, 0]


def test_what_another_machine_received_meanwhile_is_no_repetition(tmp_path: Path, engine: dict[str, Any]) -> None:
    """It was in the store before its row was there: whoever is second leaves it as it is, but for the sender."""
    config, clock = workplace.config(tmp_path, **engine), Clock()
    workplace.receive(config, 1)
    workplace.lose(config)
    with closing(Ledger.of_node(config)) as ledger:
        spool = server.open_spool(config.spool)

        def interrupted(path: Path) -> Any:
            workplace.receive(config, 1)
            return inspect(path)

        assert recovery.rebuild(ledger, spool, interrupted).received == 0
        (row,) = queries.recent(ledger, 9)
        assert (row.repeats, row.calling_ae_title) == (0, "MODALITY")
    workplace.lose(config)
    with closing(Ledger.of_node(config)) as ledger:
        assert recovery.rebuild(ledger, spool, inspect).received == 1
        (row,) = queries.recent(ledger, 9)
        assert (row.repeats, row.calling_ae_title) == (0, "")
        ledger.add(reference(1), origin(clock), row.content_sha256, 1)
        (row,) = queries.recent(ledger, 9)
        assert (row.repeats, row.calling_ae_title) == (1, "MODALITY")


def test_who_is_second_discards_no_result_before_all_are_made_again(
    tmp_path: Path, engine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notes beside results say what was sent, in which SOP Class."""
    config = workplace.config(tmp_path, peers.nobody(), **engine)
    workplace.receive(config, 1)
    spool = server.open_spool(config.spool)
    with closing(Ledger.of_node(config)) as ledger:
        workplace.worker(config, ledger).do_one()
    workplace.lose(config)
    results = set(spool.digests(recovery.Area.RESULTS))
    now = recovery.time.time()
    monkeypatch.setattr(recovery.time, "time", lambda: now + 90_000)
    with closing(Ledger.of_node(config)) as ledger:
        assert recovery.rebuild(ledger, spool, inspect).received == 1
        assert recovery.discard_orphans(ledger, spool) == 0
        orphan = spool.store_result(b"of nobody").sha256
        workplace.worker(config, ledger).do_one()
        monkeypatch.setattr(recovery.time, "time", lambda: now + 180_000)
        assert recovery.discard_orphans(ledger, spool) == 1
    assert set(spool.digests(recovery.Area.RESULTS)) == results
    assert orphan not in results


def test_who_is_slow_lets_the_rows_out_in_between(
    tmp_path: Path, engine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else images of one study might come further apart than `study.quiet_s`, and be reported in pieces."""
    monkeypatch.setattr(recovery, "_BATCH_S", 0.0)
    config = workplace.config(tmp_path, **engine)
    workplace.receive(config, 1, 2, 3)
    workplace.lose(config)
    seen: list[int] = []
    with closing(Ledger.of_node(config)) as ledger:

        def counting(path: Path) -> Any:
            seen.append(len(queries.recent(ledger, 9)))
            return inspect(path)

        assert recovery.rebuild(ledger, server.open_spool(config.spool), counting).received == 3
    assert seen == [0, 1, 2]


def test_the_page_opens_the_ledger_that_has_taken_the_place_of_the_old(tmp_path: Path, engine: dict[str, Any]) -> None:
    config = workplace.config(tmp_path, web={}, **engine)
    workplace.receive(config, 1)
    with closing(assembled(config)) as services:
        old = services.ledger()
        workplace.lose(config)
        with pytest.raises(LedgerLostError):
            queries.counts(old)
            old.database.require_whole()
        Ledger.of_node(config, repair=True).close()
        assert services.ledger() is not old
        assert queries.counts(services.ledger())
