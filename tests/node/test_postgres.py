"""PostgreSQL as the ledger: refused in one sentence, waited for where it is away, and never half done."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.dicom.read import header
from cxr_node.errors import ConfigError, LedgerLostError, ResourceError
from cxr_node.node.ledger import destination_health, opening, postgres, queries, server_clock
from cxr_node.node.ledger.database import HEAD
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.receipts import Arrival, arrive
from cxr_node.node.ledger.server_clock import ServerClock
from cxr_node.node.ledger.states import InstanceState
from cxr_node.node.receive import receiver, server
from tests import builders
from tests import postgres as servers
from tests.node import wire
from tests.node.certificates import Authority
from tests.node.ledgers import Clock, digest, origin, reference
from tests.node.receivers import SYNTAXES
from tests.node.wire import Wire
from tests.patience import PATIENCE_S, eventually, wait_until
from tests.processes import free_port

pytestmark = pytest.mark.skipif(servers.programs() is None, reason=servers.HINT)


class Site:
    """A node's configuration whose ledger is an empty database."""

    def __init__(self, folder: Path, url: str | sa.URL) -> None:
        self.folder, self.url = folder, sa.make_url(url)
        self.section = servers.section(folder, self.url.render_as_string(hide_password=False))
        self.password = Path(self.section["password"])

    def config(self, **changes: Any) -> Config:
        url = sa.make_url(self.section["url"]).set(**changes).render_as_string()
        return loader.parse({"spool": {"path": str(self.folder / "spool")}, "ledger": self.section | {"url": url}})

    def file(self) -> Path:
        """The same, as a file."""
        path, ledger = self.folder / "node.yaml", self.config().ledger
        path.write_text(
            f"spool: {{path: {self.folder / 'spool'}, min_free_mib: 0}}\n"
            f"ledger: {{url: '{ledger.url}', password: {self.password}}}\n"
        )
        return path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, servers.new_database())


@pytest.fixture(scope="module")
def own_server() -> Iterator[servers.Server]:
    """A server that tests may stop and start."""
    with servers.server() as server:
        yield server


@pytest.fixture(scope="module")
def authority(own_server: servers.Server, tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Vouches for `own_server`, under the name of localhost alone."""
    authority = Authority(tmp_path_factory.mktemp("ca"))
    shown = authority.issue("db", hosts=["localhost"])
    own_server.stop()
    own_server.show(shown.certificate, shown.key)
    own_server.start()
    return authority


def refused(config: Config) -> str:
    with pytest.raises(ConfigError) as raised:
        Ledger.of_node(config).close()
    (mistake,) = raised.value.mistakes
    return mistake


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://db/cxr", "'mysql' is no database that is known"),
        ("postgresql://db/cxr", "'postgresql' is no database that is known"),
        ("db.example.org", "is no database that is known"),
        ("postgresql+psycopg://db", "names no database"),
        ("postgresql+psycopg:///cxr", "names no host"),
        ("postgresql+psycopg://db:port/cxr", "is not a URL"),
        ("postgresql+psycopg://db/cxr?password=hunter2", "holds a password"),
    ],
)
def test_a_wrong_url_is_told_in_one_sentence(url: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loader.parse({"spool": {"path": "."}, "ledger": {"url": url}})
    (mistake,) = raised.value.mistakes
    assert sentence in mistake
    assert mistake.startswith("configuration: ledger.url: ")
    assert "hunter2" not in mistake


def test_a_password_without_a_server_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="password: is given without url"):
        loader.parse({"spool": {"path": "."}, "ledger": {"password": "/etc/cxr-node/ledger"}})


def test_a_node_keeps_its_ledger_on_the_server(site: Site) -> None:
    config, clock = site.config(), Clock()
    with closing(Ledger.of_node(config)) as ledger:
        assert ledger.add(reference(1), origin(clock), digest(1), 4711)
    with closing(Ledger.of_node(config, must_exist=True)) as ledger:
        assert queries.counts(ledger)[InstanceState.RECEIVED] == 1
    assert not list((site.folder / "spool").glob("*sqlite*"))


def test_a_wrong_password_is_told_in_one_sentence(site: Site) -> None:
    site.password.write_text("wrong")
    assert refused(site.config()).endswith('127.0.0.1: password authentication failed for user "cxr"')


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"database": "absent"}, 'absent at 127.0.0.1: database "absent" does not exist'),
        ({"host": "db.invalid"}, "db.invalid': [Errno -2] Name or service not known"),
        ({"query": {"sslmode": "require"}}, "server does not support SSL, but SSL was required"),
        ({"query": {"sslmode": "odd"}}, 'invalid sslmode value: "odd"'),
        ({"query": {"colour": "red"}}, 'invalid connection option "colour"'),
    ],
)
def test_what_the_server_refuses_is_told_in_one_sentence(site: Site, changes: dict[str, str], sentence: str) -> None:
    assert sentence in refused(site.config(**changes))


def test_the_servers_certificate_is_checked_by_libpqs_own_options(
    own_server: servers.Server, authority: Authority, tmp_path: Path
) -> None:
    site = Site(tmp_path, sa.make_url(own_server.url()).set(host="localhost"))
    strict = {"sslmode": "verify-full", "sslrootcert": str(authority.pem)}
    with closing(Ledger.of_node(site.config(query=strict))) as ledger, ledger.database.reading() as connection:
        mine = sa.text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert connection.scalar(mine) is True
    assert "certificate" in refused(site.config(query=strict, host="127.0.0.1"))
    other = Authority(tmp_path, "other")
    assert "certificate verify failed" in refused(site.config(query=strict | {"sslrootcert": str(other.pem)}))
    assert 'root certificate file "/absent.pem"' in refused(site.config(query=strict | {"sslrootcert": "/absent.pem"}))


def test_a_missing_open_or_empty_password_file_is_told(site: Site) -> None:
    config = site.config()
    site.password.chmod(0o644)
    assert "others may read this password (mode 0644)" in refused(config)
    site.password.chmod(0o600)
    site.password.write_text("")
    assert "holds 0 lines" in refused(config)
    site.password.unlink()
    assert "cannot be read: No such file or directory" in refused(config)


def test_a_renewed_password_is_used_without_a_restart(site: Site) -> None:
    with closing(Ledger.of_node(site.config())) as ledger:
        with servers.past_the_node(site.url) as connection:
            connection.execute(sa.text("CREATE ROLE renewed LOGIN SUPERUSER PASSWORD 'first'"))
        config = site.config(username="renewed")
        site.password.write_text("first")
        with closing(Ledger.of_node(config)) as other:
            with ledger.database.writing() as connection:
                connection.execute(sa.text("ALTER ROLE renewed PASSWORD 'second'"))
            other.database.engine.dispose()
            with pytest.raises(ResourceError, match="password authentication failed"):  # at run time: wait
                queries.counts(other)
            site.password.write_text("second")
            assert queries.counts(other)
        with ledger.database.writing() as connection:
            connection.execute(sa.text("DROP ROLE renewed"))


def test_a_ledger_of_a_newer_version_is_refused(site: Site) -> None:
    with closing(Ledger.of_node(site.config())) as ledger, ledger.database.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '2001'"))
    assert "written by a newer version of cxr-node" in refused(site.config())


def test_a_clock_that_is_far_off_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for by_s, which in ((400.0, "400 s ahead of"), (-400.0, "400 s behind")):
        monkeypatch.setattr(server_clock.ServerClock, "ahead_s", by_s)
        assert f"clock is {which} the database's, more than 300; let NTP set both" in refused(site.config())


def test_a_role_exits_with_78_and_one_line(site: Site) -> None:
    site.password.write_text("wrong")
    told = CliRunner().invoke(app, ["status", "--config", str(site.file())])
    assert told.exit_code == 78
    assert told.stderr.count("\n") == 1, told.stderr


def test_commands_say_that_nothing_has_run_and_make_no_tables(site: Site) -> None:
    told = CliRunner().invoke(app, ["status", "--config", str(site.file())])
    assert (told.exit_code, "there is no ledger yet" in told.stderr) == (78, True), told.output
    with servers.past_the_node(site.url) as connection:
        assert sa.inspect(connection).get_table_names() == []


def test_a_process_that_serves_waits_for_its_server(own_server: servers.Server, tmp_path: Path) -> None:
    site, stop, opened = Site(tmp_path, own_server.url()), threading.Event(), list[Ledger]()
    own_server.stop()
    with pytest.raises(ResourceError, match="Connection refused"):
        Ledger.of_node(site.config())
    progress = threading.Semaphore(0)
    waiting = threading.Thread(
        target=lambda: opened.append(opening.await_ledger(site.config(), stop, progress.release))
    )
    waiting.start()
    assert all(progress.acquire(timeout=PATIENCE_S) for _ in range(2)), "it gave up"
    own_server.start()
    waiting.join(PATIENCE_S)
    assert queries.counts(opened[0])
    opened[0].close()


def test_it_stops_waiting_when_it_is_told_to_stop(own_server: servers.Server, tmp_path: Path) -> None:
    stop = threading.Event()
    config = Site(tmp_path, own_server.url()).config(port="1")
    with pytest.raises(SystemExit) as ended:
        opening.await_ledger(config, stop, stop.set)
    assert ended.value.code == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restarted", "crashed"])
def test_a_lost_server_is_this_machines_fault_until_it_is_back(
    own_server: servers.Server, tmp_path: Path, how: signal.Signals
) -> None:
    clock = Clock()
    with closing(Ledger.of_node(Site(tmp_path, own_server.url()).config())) as ledger:
        number = int(time.monotonic() * 1000)
        assert ledger.add(reference(number), origin(clock), digest(number), 1)
        own_server.stop(how)
        with pytest.raises(ResourceError):
            ledger.add(reference(number + 1), origin(clock), digest(number + 1), 1)
        own_server.start()
        assert ledger.add(reference(number + 1), origin(clock), digest(number + 1), 1)
        assert not ledger.add(reference(number), origin(clock), digest(number), 1), "a committed row is gone"


def test_a_connection_that_breaks_in_a_transaction_undoes_it(site: Site) -> None:
    clock = Clock()
    with closing(Ledger.of_node(site.config())) as ledger:
        with pytest.raises(ResourceError), ledger.database.writing() as connection:
            arrive(connection, [Arrival(reference(1), origin(clock), digest(1), 1)], clock())
            own = connection.scalar(sa.text("SELECT pg_backend_pid()"))
            with servers.past_the_node(site.url) as other:
                other.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": own})
            connection.execute(sa.text("SELECT 1"))
        assert queries.counts(ledger)[InstanceState.RECEIVED] == 0
        assert ledger.add(reference(1), origin(clock), digest(1), 1)


def test_a_listener_whose_connection_breaks_lets_it_go_without_a_word(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so itself, where that matters, and connects again; a rollback that fails too is nobody's news."""
    with closing(Ledger.of_node(site.config())) as ledger:
        with pytest.raises(ledger.database.driver_error), ledger.database.apart() as driver:
            with servers.past_the_node(site.url) as other:
                other.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": driver.info.backend_pid})
            driver.execute("SELECT 1")
        assert driver.closed
    assert not [each for each in caplog.records if each.name.startswith("sqlalchemy")]


def test_what_has_become_a_standby_is_left(site: Site) -> None:
    """After a failover the old server, or what answers in its place, takes no writes."""
    clock = Clock()
    with closing(Ledger.of_node(site.config())) as ledger:
        with servers.past_the_node(site.url) as connection:
            connection.execute(sa.text(f"ALTER DATABASE {site.url.database} SET default_transaction_read_only = on"))
        ledger.database.engine.dispose()
        with pytest.raises(ResourceError, match="read-only"):
            ledger.add(reference(1), origin(clock), digest(1), 1)
        with servers.past_the_node(site.url) as connection:
            connection.execute(sa.text("SET default_transaction_read_only = off"))
            connection.execute(sa.text(f"ALTER DATABASE {site.url.database} RESET default_transaction_read_only"))
        assert ledger.add(reference(1), origin(clock), digest(1), 1), "it kept the connection to the standby"


def test_a_statement_that_waits_for_too_long_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "STATEMENT_S", 0.2)
    clock = Clock()
    with (
        closing(Ledger.of_node(site.config())) as ledger,
        servers.past_the_node(site.url, "READ COMMITTED") as holder,
        pytest.raises(ResourceError, match="timeout"),
    ):
        holder.execute(sa.text("LOCK TABLE instances IN ACCESS EXCLUSIVE MODE"))
        ledger.add(reference(1), origin(clock), digest(1), 1)


def test_two_receivers_in_each_others_way_lose_nothing(site: Site) -> None:
    """Both insert the same two objects, in the other order: the server undoes one of them (40P01)."""
    clock, config = Clock(), site.config()
    both = [Arrival(reference(number), origin(clock), digest(number), 1) for number in (1, 2)]
    with closing(Ledger.of_node(config)) as one, closing(Ledger.of_node(config)) as other:
        met = threading.Barrier(2)

        def crosswise(ledger: Ledger, order: list[Arrival], found: list[bool]) -> None:
            with ledger.database.writing() as connection:
                arrive(connection, order[:1], clock())
                met.wait(PATIENCE_S)
                found += arrive(connection, order[1:], clock())

        told: list[list[bool]] = [[], []]
        errors: list[Exception] = []

        def run(number: int, ledger: Ledger) -> None:
            try:
                crosswise(ledger, both[::-1] if number else both, told[number])
            except ResourceError as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=each) for each in enumerate((one, other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(errors) == 1
        assert type(errors[0]).__name__ == "ConflictError"
        assert queries.counts(one)[InstanceState.RECEIVED] == 2


def test_who_is_halted_in_a_transaction_holds_nobody_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was cut off has inserted an object and says nothing more; its sender brings it to another one."""
    assert postgres._IDLE_S < postgres.STATEMENT_S
    monkeypatch.setattr(postgres, "_IDLE_S", 0.3)
    clock, config = Clock(), site.config()
    same = Arrival(reference(1), origin(clock), digest(1), 1)
    with closing(Ledger.of_node(config)) as halted, closing(Ledger.of_node(config)) as other:
        with pytest.raises(ResourceError), halted.database.writing() as connection:
            arrive(connection, [same], clock())
            assert other.add(same.ref, same.origin, same.content_sha256, 1)
            connection.execute(sa.text("SELECT 1"))
        assert queries.counts(other)[InstanceState.RECEIVED] == 1


def test_two_deliverers_may_be_the_first_at_a_destination(site: Site) -> None:
    clock, config = Clock(), site.config()
    with closing(Ledger.of_node(config)) as one, closing(Ledger.of_node(config)) as other:

        def second() -> None:
            with other.database.writing() as connection:
                destination_health.succeeded(connection, "pacs", clock())

        with ThreadPoolExecutor(1) as thread:
            with one.database.writing() as connection:
                destination_health.nudge(connection, "pacs")
                ending = thread.submit(second)
                wait_until(lambda: _waits(site), "the second waits for the row of the first")
            ending.result(PATIENCE_S)
        (found,) = destination_health.look(one).values()
        assert found.last_success_at == clock()
        assert destination_health.nudges(one, "pacs") == 1


def _waits(site: Site) -> bool:
    with servers.past_the_node(site.url) as connection:
        return bool(connection.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


def test_one_view_sees_one_moment(site: Site) -> None:
    clock = Clock()
    with closing(Ledger.of_node(site.config())) as ledger, closing(Ledger.of_node(site.config())) as other:
        with ledger.database.one_view():
            before = queries.counts(ledger)
            other.add(reference(1), origin(clock), digest(1), 1)
            assert queries.counts(ledger) == before
        assert queries.counts(ledger)[InstanceState.RECEIVED] == 1


def test_machines_that_start_at_once_make_the_tables_once(site: Site) -> None:
    config, errors = site.config(), list[Exception]()
    spools = [replace_spool(config, site.folder / f"machine{number}") for number in range(4)]
    met = threading.Barrier(len(spools))

    def start(each: Config) -> None:
        met.wait(PATIENCE_S)
        try:
            Ledger.of_node(each).close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=(each,)) for each in spools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not errors
    with servers.past_the_node(site.url) as connection:
        assert connection.scalars(sa.text("SELECT version_num FROM alembic_version")).all() == [HEAD]


def replace_spool(config: Config, path: Path) -> Config:
    return config.model_copy(update={"spool": config.spool.model_copy(update={"path": path})})


def test_whoever_migrates_is_waited_for(site: Site) -> None:
    """Longer than a statement may take."""
    done = threading.Event()
    waiting = threading.Thread(target=lambda: (Ledger.of_node(site.config()).close(), done.set()))
    with servers.past_the_node(site.url, "READ COMMITTED") as migrating:
        postgres.wait_to_migrate(migrating)
        waiting.start()
        queue = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        with servers.past_the_node(site.url) as watching:
            assert eventually(lambda: watching.scalar(queue))
        assert not done.is_set()
    waiting.join(PATIENCE_S)
    assert done.is_set()


def test_tables_that_were_dropped_end_the_process(site: Site) -> None:
    with closing(Ledger.of_node(site.config())) as ledger:
        with servers.past_the_node(site.url) as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
        with pytest.raises(LedgerLostError):
            queries.counts(ledger)
        with pytest.raises(LedgerLostError):
            ledger.database.require_whole()


def test_leases_are_dated_by_the_servers_clock_whatever_this_machines_says(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines, one a minute ahead: neither takes the other's lease before it ends."""
    clock = Clock()
    with closing(Ledger.of_node(site.config())) as ledger:
        ledger.add(reference(1), origin(clock), digest(1), 1)
        assert ledger.claim_instance("here", 30.0) is not None
        genuine = time.time
        monkeypatch.setattr(time, "time", lambda: genuine() + 60.0)
        with closing(Ledger.of_node(site.config())) as ahead:
            assert ahead.claim_instance("there", 30.0) is None
            assert abs((ahead.now() - ledger.now()).total_seconds()) < 5.0


def test_the_clock_counts_on_between_two_looks_and_takes_over_what_the_server_says() -> None:
    steady, wall, told = [100.0], [1000.0], [1000.0]

    class Server:
        asked = 0

        def execute(self, _: object) -> Server:
            self.asked += 1
            return self

        def scalar_one(self) -> float:
            return told[0]

    clock, server = ServerClock(lambda: steady[0], lambda: wall[0]), Server()
    assert clock().timestamp() == 1000.0
    clock.follow(server)  # type: ignore[arg-type]  # it asks the time only
    wall[0] += 3600.0  # this machine's clock is set
    steady[0] += 1.0
    clock.follow(server)  # type: ignore[arg-type]
    assert (clock().timestamp(), server.asked) == (1001.0, 1)
    steady[0] += server_clock.LOOK_EVERY_S
    told[0] = 1007.0
    clock.follow(server)  # type: ignore[arg-type]
    assert (clock().timestamp(), server.asked) == (1007.0, 2)
    assert clock.ahead_s == pytest.approx(3593.0)


def test_check_tells_what_is_behind_the_url(site: Site) -> None:
    shown = CliRunner().invoke(app, ["check", "--json", "--config", str(site.file())])
    assert "the node makes its tables when it starts" in shown.stdout
    Ledger.of_node(site.config()).close()
    shown = CliRunner().invoke(app, ["check", "--json", "--config", str(site.file())])
    assert "127.0.0.1: PostgreSQL 1" in shown.stdout
    with servers.past_the_node(site.url) as connection:
        connection.execute(sa.text(f"ALTER DATABASE {site.url.database} SET synchronous_commit = off"))
    shown = CliRunner().invoke(app, ["check", "--json", "--config", str(site.file())])
    assert (shown.exit_code, "synchronous_commit is off" in shown.stdout) == (78, True)


def test_a_receiver_acknowledges_nothing_while_its_server_is_away(
    own_server: servers.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its start, and later; it listens all the time, and goes on by itself."""
    monkeypatch.setattr(receiver, "PATIENCE_S", 0.1)
    monkeypatch.setattr(opening, "_LONGEST_S", 0.1)
    port, stop = free_port(), threading.Event()
    content = {"listen": {"port": port}, "spool": {"path": str(tmp_path / "spool"), "min_free_mib": 0}}
    config = loader.parse(content | {"ledger": servers.section(tmp_path, own_server.url())})
    hooks = server.Hooks(stop=stop, ready=lambda _: None)
    own_server.stop()
    thread = threading.Thread(target=server.serve, args=(config, header.identify, SYNTAXES, hooks))
    thread.start()
    try:
        assert eventually(lambda: stored(port, 1) == 0xA700), "it listens, and refuses"
        own_server.start()
        assert eventually(lambda: stored(port, 1) == 0x0000)
        own_server.stop()
        assert stored(port, 2) == 0xA700
        own_server.start()
        assert eventually(lambda: stored(port, 2) == 0x0000)
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    with closing(Ledger.of_node(config)) as ledger:
        assert len(queries.trace(ledger, str(builders.radiograph(1).SOPInstanceUID))) == 1
        assert len(queries.trace(ledger, str(builders.radiograph(2).SOPInstanceUID))) == 1


def stored(port: int, number: int) -> int | None:
    """What a C-STORE is answered; None where there is no connection yet."""
    dataset = builders.radiograph(number)
    try:
        with Wire(port) as peer:
            peer.associate()
            return peer.store(str(dataset.SOPInstanceUID), wire.data_set_of(builders.part10(dataset)))
    except ConnectionError:
        return None
