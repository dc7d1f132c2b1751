"""PostgreSQL as the ledger's engine: how it is reached, how long it is waited for, and whose fault a refusal is.

Knows no table. A commit that returned survives a crash of the server (its own default, synchronous_commit=on).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cxr_node.config import permissions
from cxr_node.errors import ConfigError

log = logging.getLogger(__name__)

STATEMENT_S = 15.0
"""Longest time that a statement runs or waits for a lock of another; moves of the ledger take milliseconds."""
_REACHED = {
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",  # ms that sent bytes may stay unacknowledged: a cut cable is noticed
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "application_name": "cxr-node",
}
"""libpq's options, where the URL does not say otherwise."""
_IDLE_S = 10.0
"""In a transaction. Less than what others wait for its rows: whoever was halted or cut off there holds nobody up."""
_NOTICED = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
"""Set at the server too: the locks of a machine that was cut off are free after half a minute, not after two hours."""
_TRUSTED_S = 0.5
"""A connection that was in use so short a time ago needs no question whether the server has hung up."""
_USED_AT = "cxr_node_used_at"
_MIGRATING = 0x637872_01
"""Number of the advisory lock of whoever brings the tables up to date."""
_LEADING = 0x637872_02
"""The same of whoever receives again what only the store has."""
_HISTORY = "cxr_node_history"
_ASK_HISTORY = """
    SELECT (SELECT system_identifier FROM pg_control_system()),
           CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END
"""
"""Database cluster, and timeline of its log: a replica that is promoted begins the next one."""

_OPERATORS = re.compile(
    r"password authentication failed|no password supplied|authentication failed for user|no pg_hba\.conf entry"
    r"|(?:role|database) \"[^\"]*\" does not exist|permission denied|certificate|private key"
    r"|server does not support SSL|invalid (?:\w+ value|connection option|port)|Name or service not known"
    r"|is not permitted to log in|received invalid response"
)
"""What no waiting mends. libpq gives a refused connection no SQLSTATE, and words only."""
_READ_ONLY = "25006"
"""SQLSTATE of a server that was made a standby: what is connected to it must look for the new one."""
_NO_TABLE = "42P01"
_CANNOT_TELL = ("42501", "42883", "0A000")
"""SQLSTATE of a server that keeps its log to itself, as some hosted ones do."""


def password_in(file: Path) -> str:
    """Read the one line of a file that only the node may read.

    Raises
    ------
    ConfigError : there is no such file or credential, others may read it, or it holds not one line.
    """
    place = permissions.private_key(file, "password")
    try:
        lines = place.read_text("utf-8").strip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {getattr(error, 'strerror', 'no UTF-8')}") from error
    if len(lines) != 1:
        raise ConfigError(f"{file}: holds {len(lines)} lines; write one, the password of ledger.url")
    return lines[0]


def options(url: sa.URL) -> sa.URL:
    """Add what bounds every wait to a URL; its own options stay."""
    given = str(url.query.get("options", ""))
    timeouts = f"-c statement_timeout={_ms(STATEMENT_S)} -c lock_timeout={_ms(STATEMENT_S)}"
    timeouts += f" -c idle_in_transaction_session_timeout={_ms(_IDLE_S)} {_NOTICED}"
    missing = {name: value for name, value in _REACHED.items() if name not in url.query}
    return url.update_query_dict(missing | {"options": f"{timeouts} {given}".rstrip()})


def prepare(engine: sa.Engine, password: Callable[[], str] | None) -> None:
    """Read the password at each connection, ask whose rows it shows, and leave a server that takes no writes.

    One that was idle is asked again before it is used.
    """

    def connect(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
        if password is not None:
            parameters["password"] = password()

    def leave(context: sa.engine.ExceptionContext) -> None:
        if _state(context.original_exception) == _READ_ONLY:
            context.is_disconnect = True

    sa.event.listen(engine, "do_connect", connect)
    sa.event.listen(engine, "connect", partial(_ask_whose, engine.dialect))
    sa.event.listen(engine, "checkin", _note_use)
    sa.event.listen(engine, "checkout", partial(_ask_idle, engine.dialect))
    sa.event.listen(engine, "handle_error", leave)


def _ask_whose(dialect: sa.Dialect, connection: Any, record: Any) -> None:
    """Note whose rows a new connection shows."""
    try:
        record.info[_HISTORY] = connection.execute(_ASK_HISTORY).fetchone()
    except dialect.loaded_dbapi.DatabaseError as error:
        if _state(error) not in _CANNOT_TELL:
            connection.close()
            raise
        log.debug("a failover will not be noticed: %s", error)
    connection.rollback()


def _note_use(_connection: Any, record: Any) -> None:
    record.info[_USED_AT] = time.monotonic()


def _ask_idle(dialect: sa.Dialect, connection: Any, record: Any, _proxy: Any) -> None:
    """Whether the server has hung up, unless it answered a moment ago; then the pool connects anew."""
    if time.monotonic() - record.info.get(_USED_AT, time.monotonic()) < _TRUSTED_S:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:  # of any kind: where it dies at that moment the driver doubts itself
        raise sa.exc.DisconnectionError("the server has hung up") from error


def refusal(error: BaseException | None) -> str | None:
    """Why the operator must act before the server lets us in, in the server's words; None where waiting may help."""
    lines = [line.strip() for line in str(error).splitlines()]
    found = next((line for line in lines if _OPERATORS.search(line)), None)
    return None if found is None else found.rpartition("failed: ")[2].removeprefix("FATAL:").strip()


def history(connection: sa.Connection) -> Any:
    """Of which server the rows are that a connection shows, and since which promotion; None where nobody can tell."""
    return connection.info.get(_HISTORY)


def tells_loss(error: BaseException | None) -> bool:
    """Whether the tables that were there at the start are gone."""
    return _state(error) == _NO_TABLE


def tells_conflict(error: BaseException | None) -> bool:
    """Whether transactions stood in each other's way: this one is undone, and may be tried again at once."""
    return _state(error) in ("40001", "40P01")


def may_lead(driver: Any) -> bool:
    """Take the lead among all machines, where nobody has it; it is given back when the connection ends."""
    return bool(driver.execute("SELECT pg_try_advisory_lock(%s)", (_LEADING,)).fetchone()[0])


def wait_to_migrate(connection: sa.Connection) -> None:
    """Let one of several starting machines change the tables; the others wait here until it has committed."""
    connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
    connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:number)"), {"number": _MIGRATING})


_BEGINNING = 0x637872_03
"""Number of the advisory lock of a worker that begins, and looks by which rules the others answer."""


def wait_to_begin(connection: sa.Connection) -> None:
    """Let one worker begin at a time, until the transaction ends."""
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:number)"), {"number": _BEGINNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a server says of itself."""

    version: str
    synchronous_commit: str
    differs_s: float = 0.0
    """Its clock, from this machine's."""

    @property
    def loses_commits(self) -> bool:
        """Whether a crash of the server may forget what it said it has."""
        return self.synchronous_commit == "off"


def describe(connection: sa.Connection) -> Described:
    """Ask a server what it is."""
    version, commit = (
        str(connection.scalar(sa.text(f"SHOW {name}"))) for name in ("server_version", "synchronous_commit")
    )
    return Described(version=version, synchronous_commit=commit)


def require_driver(error: ModuleNotFoundError) -> ConfigError:
    """Say what to install."""
    return ConfigError(f"ledger.url: needs {error.name}: pip install 'cxr-node[cluster]'")


def _state(error: BaseException | None) -> str | None:
    """SQLSTATE of a driver error."""
    return getattr(error, "sqlstate", None)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
