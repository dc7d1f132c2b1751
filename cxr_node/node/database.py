"""The ledger's connection: engine, transactions, migrations, and errors by whose fault they are.

Knows no table. SQLite runs in WAL with synchronous=FULL: a commit that returned survives a power cut.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cxr_node.errors import ConfigError, ResourceError

HEAD = "0003"
"""The newest migration; a test compares it with the folder."""
BUSY_TIMEOUT_S = 15.0
"""How long one process waits for another's write; a commit takes milliseconds."""
POOL_SIZE = 4
"""Connections of one process; SQLite has one writer at a time anyway."""
_READ_ONLY = "cxr_node_read_only"


def utc_now() -> datetime:
    """Read this machine's wall clock; with several machines it must be the database's (FAULTS T24)."""
    return datetime.now(UTC)


class Database:
    """Transactions on one ledger database; threads may share it, processes may not."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._reading = engine.execution_options(**{_READ_ONLY: True})

    @classmethod
    def open(cls, url: str, lock_path: Path) -> Database:
        """Connect, and bring the tables up to date.

        Raises
        ------
        ResourceError : the database does not answer.
        ConfigError : the database was written by a newer version of this package.
        """
        database = cls(_engine(sa.make_url(url)))
        with _migration_lock(lock_path):
            if database._revision() != HEAD:
                database._migrate()
        return database

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction that holds the write lock from its first statement (SQLite: BEGIN IMMEDIATE)."""
        with _faults(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One consistent view that blocks nobody."""
        with _faults(), self._reading.begin() as connection:
            yield connection

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    def _revision(self) -> str | None:
        with self.reading() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()

    def _migrate(self) -> None:
        # Imported here: a command that finds its tables up to date need not pay for it.
        from alembic import command
        from alembic.util.exc import CommandError

        with self.writing() as connection:
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


def _engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(
        url, hide_parameters=True, pool_size=POOL_SIZE, max_overflow=0, pool_timeout=BUSY_TIMEOUT_S, pool_pre_ping=True
    )
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own; _begin_sqlite does
    for pragma in (
        f"busy_timeout={int(BUSY_TIMEOUT_S * 1000)}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


@contextmanager
def _migration_lock(path: Path) -> Iterator[None]:
    """Three processes of one node start at once; one of them makes the tables."""
    try:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise ResourceError(f"ledger: {path.name}: {error.strerror}") from error


@contextmanager
def _faults() -> Iterator[None]:
    """Name the machine's faults; the driver's first line carries no values, its later ones may."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        if isinstance(error, (sa.exc.ProgrammingError, sa.exc.IntegrityError)):
            raise
        first_line = (str(error.orig).splitlines() or [""])[0]
        raise ResourceError(f"ledger: {type(error.orig).__name__}: {first_line}") from error
    except sa.exc.TimeoutError as error:
        raise ResourceError("ledger: no free database connection") from error
