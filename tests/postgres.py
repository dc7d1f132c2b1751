"""A throw-away PostgreSQL for the tests of one process: started when the first of them needs it, gone at the end.

Where its programs are not installed, what needs it is skipped with a hint; `.ci/run` installs them.
"""

from __future__ import annotations

import ctypes
import functools
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.patience import PATIENCE_S, eventually
from tests.processes import free_port

MARK = "cxr_node_tests"
"""Stands in the command line of the server and of each of its processes (`tests.leftovers`)."""
ADMIN = "cxr"
PASSWORD = "not-a-secret"
_PR_SET_PDEATHSIG = 1
_DEBIAN = Path("/usr/lib/postgresql")


@functools.cache
def programs() -> Path | None:
    """Folder of the newest server's programs; None where there is none."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    return max(_DEBIAN.glob("*/bin"), key=lambda folder: int(folder.parent.name), default=None)


HINT = "PostgreSQL is not installed: apt-get install postgresql"
ENGINES = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.skipif(programs() is None, reason=HINT)),
]
"""Of the ledger, for tests that hold each engine to the same contract."""


class Server:
    """One server with its data in a folder of its own; it can be stopped, killed and started again."""

    def __init__(
        self, folder: Path, mark: str, *settings: str, host: str = "127.0.0.1", within: Sequence[str] = ()
    ) -> None:
        self.folder, self.host, self._mark, self._settings = folder, host, mark, settings
        self._within = within  # a command that runs another: of a machine of its own (tests/chaos/network.py)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", password: str = PASSWORD, host: str | None = None) -> str:
        """URL with its password, which a configuration may not hold."""
        return f"postgresql+psycopg://{ADMIN}:{password}@{host or self.host}:{self.port}/{database}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        program = programs()
        assert program is not None, HINT
        settings = {"port": self.port, "listen_addresses": self.host, "cluster_name": self._mark}
        settings |= {"unix_socket_directories": self.folder, "fsync": "off", "max_connections": 200, "jit": "off"}
        settings |= {"shared_buffers": "32MB", "autovacuum": "off", "lc_messages": "C"}
        written = [f"-c{name}={value}" for name, value in settings.items()] + [f"-c{each}" for each in self._settings]
        with (self.folder / "log").open("ab") as log:
            self.process = run([program / "postgres", "-D", self.folder / "data", *written], log, self._within)
        eventually(self.answers, PATIENCE_S)
        assert self.answers(), (self.folder / "log").read_text("utf-8")[-2000:]

    def show(self, certificate: Path, key: Path) -> None:
        """Offer TLS from its next start on."""
        for file, name in ((certificate, "server.crt"), (key, "server.key")):
            copied = self.folder / "data" / name
            shutil.copy(file, copied)
            copied.chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(copied, "postgres")
        self._settings = (*self._settings, "ssl=on")

    def answers(self) -> bool:
        """Whether it takes connections."""
        program = programs()
        assert program is not None
        asked = [program / "pg_isready", "-q", "-h", self.host, "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0

    def set(self, **settings: str) -> None:
        """Change settings while it runs."""
        with past_the_node(self.url()) as connection:
            for name, value in settings.items():
                connection.exec_driver_sql(f"ALTER SYSTEM SET {name} = '{value}'")
            connection.exec_driver_sql("SELECT pg_reload_conf()")

    def asked(self, query: str) -> Any:
        """The one value that a query gives."""
        with past_the_node(self.url()) as connection:
            return connection.exec_driver_sql(query).scalar()

    def cut(self) -> None:
        """Of a replica: let it hear no more of its primary."""
        self.set(primary_conninfo="")
        assert eventually(lambda: self.asked("SELECT count(*) FROM pg_stat_wal_receiver") == 0)

    def promote(self) -> None:
        """Of a replica: let it take writes from now on."""
        assert self.asked("SELECT pg_promote()")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it: by default its connections at once, and nothing that was committed is lost (fast shutdown)."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE_S)
            self.process = None


@contextmanager
def server(mark: str = MARK, *settings: str) -> Iterator[Server]:
    """A server of its own; it runs until the block ends."""
    with new_folder() as folder:
        made = Server(folder, mark, *settings)
        initialise(folder)
        try:
            made.start()
            yield made
        finally:
            made.stop(signal.SIGQUIT)


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder for a server's data, which goes with the block."""
    if programs() is None:
        pytest.skip(HINT)
    folder = Path(tempfile.mkdtemp(prefix="cxr-postgres-"))
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def initialise(folder: Path) -> None:
    """Make the data of a server, which knows one account."""
    password = folder / "password"
    password.write_text(PASSWORD)
    asked = ["-D", folder / "data", "-U", ADMIN, "--pwfile", password, "-A", "scram-sha-256"]
    _run_to_its_end("initdb", [*asked, "--no-sync", "--no-locale", "-E", "UTF8"], folder)


@contextmanager
def replica(primary: Server) -> Iterator[Server]:
    """Another server that repeats all that the first one does, until it is cut off or promoted."""
    with new_folder() as folder:
        made = Server(folder, primary._mark)
        source = f"host={primary.host} port={primary.port} user={ADMIN} password={PASSWORD}"
        asked = ["-D", folder / "data", "-d", source, "--write-recovery-conf", "--wal-method=stream"]
        _run_to_its_end("pg_basebackup", [*asked, "--checkpoint=fast", "--no-sync"], folder)
        try:
            made.start()
            yield made
        finally:
            made.stop(signal.SIGQUIT)


_shared: list[tuple[Server, object]] = []


def shared() -> Server:
    """The server of this process."""
    if not _shared:
        opened = server()
        _shared.append((opened.__enter__(), opened))
    return _shared[0][0]


def close() -> None:
    """End the server of this process."""
    while _shared:
        _, opened = _shared.pop()
        opened.__exit__(None, None, None)  # type: ignore[attr-defined]  # a context manager


@functools.cache
def database() -> str:
    """URL of the database that tests of this process fill and empty."""
    return new_database()


def new_database() -> str:
    """URL of another, empty database."""
    found, name = shared(), f"test_{secrets.token_hex(4)}"
    with past_the_node(found.url()) as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return found.url(name)


def copied(url: str) -> str:
    """URL of a copy of a database, as it is now; whoever is connected to it must connect again."""
    found, name, source = shared(), f"test_{secrets.token_hex(4)}", sa.make_url(url).database
    with past_the_node(found.url()) as connection:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
        connection.execute(sa.text(ended), {"name": source})
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {source}"))
    return found.url(name)


def drop(url: str) -> None:
    """Delete a database."""
    with past_the_node(shared().url()) as connection:
        connection.execute(sa.text(f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)"))


@contextmanager
def past_the_node(url: str | sa.URL, isolation: Any = "AUTOCOMMIT") -> Iterator[sa.Connection]:
    """A connection of ours; the password of a URL without one is that of all servers here."""
    found = sa.make_url(url)
    whole = found.set(password=found.password or PASSWORD)
    engine = sa.create_engine(whole, isolation_level=isolation, poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


def section(folder: Path, url: str | None = None) -> dict[str, str]:
    """Section `ledger` of a configuration, its password in a file of that folder; of an empty database, or that one."""
    found = sa.make_url(url or new_database())
    file = folder / "ledger.password"
    file.write_text(f"{found.password}\n")
    file.chmod(0o600)
    return {"url": found._replace(password=None).render_as_string(), "password": str(file)}


def _run_to_its_end(name: str, arguments: list[str | Path], folder: Path) -> None:
    program = programs()
    assert program is not None
    with (folder / "log").open("wb") as log:
        code = run([program / name, *arguments], log).wait(PATIENCE_S)
    assert code == 0, (folder / "log").read_text("utf-8")


def run(argv: list[str | Path], log: object, within: Sequence[str] = (), **more: str) -> subprocess.Popen[bytes]:
    """Run as another account than root; it ends with this process, however that ends.

    `within` is what it runs under, as root: then setpriv(1) makes it the other account.
    """
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"} | more
    words = [str(each) for each in argv]
    as_other: dict[str, Any] = {}
    if within:
        words = [
            *within,
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--pdeathsig=QUIT",
            *words,
        ]
    elif os.geteuid() == 0:
        as_other = {"user": "postgres", "group": "postgres", "extra_groups": []}
    return subprocess.Popen(words, stdout=log, stderr=log, env=environment, preexec_fn=_end_with_parent, **as_other)  # type: ignore[call-overload]


_PRCTL = ctypes.CDLL(None).prctl


def _end_with_parent() -> None:
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGQUIT)
