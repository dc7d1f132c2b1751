"""PostgreSQL as the ledger's engine: how it is reached, how long it is waited for, and whose fault a refusal is.

Knows no table. A commit that returned survives a crash of the server (its own default, synchronous_commit=on).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cxr_node.config import permissions
from cxr_node.errors import ConfigError

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
_IDLE_MS = 60_000  # a process that was halted in a transaction must not hold its rows
_TRUSTED_S = 0.5
"""A connection that was in use so short a time ago needs no question whether the server has hung up."""
_USED_AT = "cxr_node_used_at"
_MIGRATING = 0x637872_01
"""Number of the advisory lock of whoever brings the tables up to date."""

_OPERATORS = re.compile(
    r"password authentication failed|no password supplied|authentication failed for user|no pg_hba\.conf entry"
    r"|(?:role|database) \"[^\"]*\" does not exist|permission denied|certificate|private key"
    r"|server does not support SSL|invalid (?:\w+ value|connection option|port)|Name or service not known"
    r"|is not permitted to log in"
)
"""What no waiting mends. libpq gives a refused connection no SQLSTATE, and words only."""
_READ_ONLY = "25006"
"""SQLSTATE of a server that was made a standby: what is connected to it must look for the new one."""
_NO_TABLE = "42P01"


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
    timeouts += f" -c idle_in_transaction_session_timeout={_IDLE_MS}"
    missing = {name: value for name, value in _REACHED.items() if name not in url.query}
    return url.update_query_dict(missing | {"options": f"{timeouts} {given}".rstrip()})


def prepare(engine: sa.Engine, password: Callable[[], str] | None) -> None:
    """Read the password at each connection, ask one that was idle, and leave a server that takes no writes any more."""

    def connect(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
        if password is not None:
            parameters["password"] = password()

    def leave(context: sa.engine.ExceptionContext) -> None:
        if _state(context.original_exception) == _READ_ONLY:
            context.is_disconnect = True

    def used(_connection: Any, record: Any) -> None:
        record.info[_USED_AT] = time.monotonic()

    def ask(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get(_USED_AT, time.monotonic()) < _TRUSTED_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise sa.exc.DisconnectionError("the server has hung up") from error  # the pool connects anew

    sa.event.listen(engine, "checkin", used)
    sa.event.listen(engine, "checkout", ask)
    sa.event.listen(engine, "do_connect", connect)
    sa.event.listen(engine, "handle_error", leave)


def refusal(error: BaseException | None) -> str | None:
    """Why the operator must act before the server lets us in, in the server's words; None where waiting may help."""
    lines = [line.strip() for line in str(error).splitlines()]
    found = next((line for line in lines if _OPERATORS.search(line)), None)
    return None if found is None else found.rpartition("failed: ")[2].removeprefix("FATAL:").strip()


def tells_loss(error: BaseException | None) -> bool:
    """Whether the tables that were there at the start are gone."""
    return _state(error) == _NO_TABLE


def tells_conflict(error: BaseException | None) -> bool:
    """Whether transactions stood in each other's way: this one is undone, and may be tried again at once."""
    return _state(error) in ("40001", "40P01")


def wait_to_migrate(connection: sa.Connection) -> None:
    """Let one of several starting machines change the tables; the others wait here until it has committed."""
    connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
    connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:number)"), {"number": _MIGRATING})


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
