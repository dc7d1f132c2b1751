"""The ledger's connection: engine, transactions, migrations, and errors by whose fault they are.

Knows no table. SQLite runs in WAL with synchronous=FULL: a commit that returned survives a power cut. Only leases are
taken with NORMAL, without an fsync: see `leasing`. What is PostgreSQL's own is in `postgres`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import sqlalchemy as sa

from cxr_node.errors import ConfigError, LedgerLostError, ResourceError
from cxr_node.node.ledger import postgres
from cxr_node.node.ledger.server_clock import ServerClock
from cxr_node.node.ledger.sqlite_file import kind, set_damaged_aside, tells_damage
from cxr_node.node.ledger.wake import Teller
from cxr_node.node.process import metrics
from cxr_node.node.process.notify import START, Role

log = logging.getLogger(__name__)

HEAD = "1010"
"""The newest migration; a test compares it with the folder."""
_UNRELEASED = "0"
"""First digit of the revisions before 0.1.0."""
BUSY_TIMEOUT_S = 15.0
"""How long one process waits for another's write; a commit takes milliseconds."""
_LOOK_EVERY_S = 0.001
"""Polling interval of a waiting writer."""
POOL_SIZE = 4
"""Connections of one process; SQLite has one writer at a time anyway."""
_READ_ONLY = "cxr_node_read_only"
_LEASING = "cxr_node_leasing"
_SYNCHRONOUS = "cxr_node_synchronous"


def utc_now() -> datetime:
    """Read this machine's wall clock; where several share a server, it is the server's (`ServerClock`)."""
    return datetime.now(UTC)


class AbsentLedgerError(ConfigError):
    """There are no tables yet, and whoever asks does not make them."""

    def __init__(self, place: str) -> None:
        self.place = place
        super().__init__(f"{place}: there is no ledger yet; has the node run with this configuration?")


class ConflictError(ResourceError):
    """Two machines changed the same rows in another order, and this transaction was undone: it may be tried again."""


class UnreleasedLedgerError(ConfigError):
    """The ledger was written before 0.1.0: nothing reads its tables, and `cxr-node rebuild` starts a new one."""

    def __init__(self, revision: str) -> None:
        super().__init__(
            f"ledger: its tables ({revision}) are of a version before 0.1.0; "
            "`cxr-node rebuild` sets it aside and receives again what is in the spool"
        )


class Database:
    """Transactions on one ledger database; threads may share it, processes may not."""

    def __init__(self, engine: sa.Engine, machine: str = "") -> None:
        self.engine, self.machine = engine, machine
        self._file = _file(engine.url)
        self._server_clock = ServerClock() if self._file is None else None
        view = {} if self._file is not None else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reading = engine.execution_options(**{_READ_ONLY: True}, **view)
        self._leasing = engine.execution_options(**{_LEASING: True})
        self._shared = threading.local()
        self._teller = Teller(self)
        self._is_open = False
        self._opened: tuple[int, int] | None = None
        self._history: Any = None
        self._lost = ""

    @classmethod
    def open(
        cls,
        url: str,
        lock_path: Path,
        *,
        machine: str = "",
        password: Callable[[], str] | None = None,
        repair: bool = False,
        must_exist: bool = False,
    ) -> Database:
        """Connect, and bring the tables up to date.

        Parameters
        ----------
        machine : whose processes those of other machines need not wake
        password : reads the server's, for each connection
        repair : set a damaged file aside and start a new one
        must_exist : refuse a server's database that has no tables yet

        Raises
        ------
        ResourceError : the database does not answer.
        ConfigError : it was written by a newer version of this package, or by one before 0.1.0; a server refuses us,
            or its clock is far from ours.
        """
        database = cls(_engine(sa.make_url(url), password), machine)
        try:
            with _start_lock(lock_path) as checked_by:
                if repair and database._file is not None:
                    _mend(database._file, checked_by)
                database._bring_up_to_date(must_exist)
                with database.reading() as connection:
                    database._history = postgres.history(connection)
                database._opened, database._is_open = database._identity(), True
        except BaseException:
            database.close()
            raise
        return database

    @property
    def is_shared(self) -> bool:
        """Whether other machines may work on it too."""
        return self._file is None

    @property
    def is_lost(self) -> bool:
        """Whether it must be opened anew."""
        try:
            self.require_whole()
        except LedgerLostError:
            return True
        return False

    @property
    def driver_error(self) -> type[Exception]:
        """Root of all errors of the driver."""
        found: type[Exception] = self.engine.dialect.dbapi.Error  # type: ignore[union-attr]  # the engine has loaded it
        return found

    @contextmanager
    def apart(self) -> Iterator[Any]:
        """A connection of a server's driver, outside the pool and every transaction: to listen, and to tell."""
        with self._faults():
            held = self.engine.connect()
            driver: Any = held.connection.driver_connection
        try:
            held.detach()
            driver.autocommit = True
            yield driver
        finally:
            driver.close()
            held.invalidate()  # else it would be rolled back, and its loss told with a traceback
            held.close()

    def tell(self, role: Role) -> None:
        """Let the processes of a role look into the ledger, on all other machines; does not wait for it."""
        if self.is_shared:
            self._teller.tell(role)

    @property
    def clock(self) -> Callable[[], datetime]:
        """What dates leases and due times: the server's clock where there is one, else this machine's."""
        return self._server_clock or utc_now

    @property
    def place(self) -> str:
        """Where it is, for people."""
        url = self.engine.url
        return str(self._file or f"{url.database} at {url.host or url.query.get('host')}")

    def describe(self) -> postgres.Described:
        """What a server says of itself."""
        with self.reading() as connection:
            found = postgres.describe(connection)
        clock = self._server_clock
        return found if clock is None else replace(found, differs_s=abs(clock.ahead_s))

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction that holds the write lock from its first statement (SQLite: BEGIN IMMEDIATE)."""
        with self._faults(), metrics.transaction(), self.engine.begin() as connection:
            self._enter(connection)
            yield connection
        self.require_whole()  # a commit to a file that was set aside is lost

    @contextmanager
    def leasing(self) -> Iterator[sa.Connection]:
        """As `writing`, for claims and their extension alone: durable against kill -9, not yet against a power cut.

        The kernel has the commit, so it outlives every process. A power cut may forget it, and ends with it whoever
        held the lease: the row is free again at once, which is what a restart makes of it anyhow. The next commit that
        is durable makes this one durable too: the log is written in order, so a lost claim is never settled.
        On a server it is as durable as `writing`: whoever holds the lease outlives the server's power cut.
        """
        with self._faults(), self._leasing.begin() as connection:
            self._enter(connection)
            yield connection
        self.require_whole()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One consistent view that blocks no writer."""
        shared: sa.Connection | None = getattr(self._shared, "connection", None)
        if shared is not None:
            yield shared
            return
        with self._faults(), self._reading.begin() as connection:
            self._enter(connection)
            yield connection

    @contextmanager
    def one_view(self) -> Iterator[None]:
        """Let all that this thread reads meanwhile see the same moment: for figures that are shown side by side."""
        with self.reading() as connection:
            self._shared.connection = connection
            try:
                yield
            finally:
                self._shared.connection = None

    def require_whole(self) -> None:
        """Fail if the file is damaged, or another process has set it aside and started a new one; after a failover too.

        Raises
        ------
        LedgerLostError : the process knows rows that no longer exist; it must end.
        """
        if not self._lost and self._opened is not None and self._identity() != self._opened:
            self._lost = "ledger: its file was removed or replaced"
        if self._lost:
            raise LedgerLostError(self._lost)

    def close(self) -> None:
        """Close all connections."""
        self._teller.close()
        self.engine.dispose()

    def _identity(self) -> tuple[int, int] | None:
        """Device and inode of the ledger's file; None if there is none."""
        try:
            found = self._file.stat() if self._file is not None else None
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found is not None else None

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Name the machine's faults; the driver's first line carries no values, its later ones may."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise self._named(error) from error
        except sa.exc.TimeoutError as error:
            raise ResourceError("ledger: no free database connection") from error

    def _named(self, error: sa.exc.DBAPIError) -> Exception:
        first_line = (str(error.orig).splitlines() or [""])[0]
        sentence = f"ledger: {type(error.orig).__name__}: {first_line}"
        if tells_damage(error.orig) or (self._is_open and postgres.tells_loss(error.orig)):
            self._lost = sentence
            return LedgerLostError(sentence)
        if not self._is_open and self._file is None and (refused := postgres.refusal(error.orig)) is not None:
            return ConfigError(f"ledger: {self.place}: {refused}")
        if isinstance(error, (sa.exc.ProgrammingError, sa.exc.IntegrityError)):
            return error
        return ConflictError(sentence) if postgres.tells_conflict(error.orig) else ResourceError(sentence)

    def _enter(self, connection: sa.Connection) -> None:
        """Follow a server's clock; leave one that was put in another's place, for it may lack the last rows of that.

        A number may even stand for another row there: nobody may settle what was claimed before.
        """
        if self._server_clock is None:
            return
        if self._is_open and postgres.history(connection) != self._history:
            self._lost = "ledger: another server has taken over, which may lack the last rows"
            self.require_whole()
        self._server_clock.follow(connection)

    def _revision(self) -> str | None:
        with self.reading() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()

    def _bring_up_to_date(self, must_exist: bool = False) -> None:
        revision = self._revision()
        if self._server_clock is not None:
            self._server_clock.require_near()
        if revision is None and must_exist:
            raise AbsentLedgerError(self.place)
        if revision is not None and revision[0] == _UNRELEASED:
            raise UnreleasedLedgerError(revision)
        if not _is_known(revision):
            self._migrate()

    def _migrate(self) -> None:
        # Imported here: a command that finds its tables up to date need not pay for it.
        from alembic import command
        from alembic.util.exc import CommandError

        with self.writing() as connection:
            if self._file is None:
                postgres.wait_to_migrate(connection)
            try:
                command.upgrade(alembic_config(connection), "head")
            except CommandError as error:
                raise ConfigError(f"ledger: written by a newer version of cxr-node ({error})") from error


def alembic_config(connection: sa.Connection) -> Any:
    """Configure Alembic in code: the migrations travel inside the package, there is no ini file."""
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def _engine(url: sa.URL, password: Callable[[], str] | None = None) -> sa.Engine:
    is_file = url.get_backend_name() == "sqlite"
    try:
        engine = sa.create_engine(
            url if is_file else postgres.options(url),
            hide_parameters=True,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT_S,
        )
    except ModuleNotFoundError as error:
        raise postgres.require_driver(error) from error
    if is_file:
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    else:
        postgres.prepare(engine, password)
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own; _begin_sqlite does
    for pragma in (
        _busy_timeout(BUSY_TIMEOUT_S),
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if options.get(_READ_ONLY, False):
        connection.exec_driver_sql("BEGIN")
        return
    wanted = "NORMAL" if options.get(_LEASING, False) else "FULL"
    if connection.info.get(_SYNCHRONOUS, "FULL") != wanted:  # it cannot be changed inside a transaction
        connection.exec_driver_sql(f"PRAGMA synchronous={wanted}")
        connection.info[_SYNCHRONOUS] = wanted
    _begin_writing(connection, connection.connection.dbapi_connection)


def _begin_writing(connection: sa.Connection, driver: Any) -> None:
    """Look for the write lock each millisecond: SQLite sleeps up to 100, and so misses a busy writer's short gaps."""
    until = time.monotonic() + BUSY_TIMEOUT_S
    driver.execute(f"PRAGMA {_busy_timeout(0)}")
    try:
        while True:
            try:
                driver.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.Error as error:
                if kind(error) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    break
            time.sleep(_LOOK_EVERY_S)
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # fails again, now in SQLAlchemy's words
    finally:
        driver.execute(f"PRAGMA {_busy_timeout(BUSY_TIMEOUT_S)}")


def _busy_timeout(seconds: float) -> str:
    return f"busy_timeout={int(seconds * 1000)}"


def _file(url: sa.URL) -> Path | None:
    """Name the file of an SQLite database; None for a server's."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _mend(file: Path, checked_by: TextIO) -> None:
    """Set a damaged file aside, unless a process of the same start has looked: 2 s for 100,000 images, one by one."""
    start = os.environ.get(START, "")
    checked_by.seek(0)
    if start and checked_by.read() == start:
        return
    set_damaged_aside(file, utc_now())
    checked_by.truncate(0)
    checked_by.write(start)


def _is_known(revision: str | None) -> bool:
    """Whether this code can work on tables of that revision: its own, or later ones of the same thousand.

    Within a thousand migrations only add what older code may leave alone, so that a version can be taken back
    while work is in flight (reliability.md T27); what takes away or changes begins the next thousand.
    """
    return revision is not None and (revision == HEAD or (revision > HEAD and revision[0] == HEAD[0]))


@contextmanager
def _start_lock(path: Path) -> Iterator[TextIO]:
    """Three processes of one node start at once; one of them repairs the file or makes the tables.

    The lock's file says in which start that was; whoever is started alone checks again.
    """
    try:
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
    except OSError as error:
        raise ResourceError(f"ledger: {path.name}: {error.strerror}") from error
