"""Waking processes of the same node without polling: on this machine by a datagram, on others by NOTIFY.

As with the datagram, a lost notification costs nothing: the ledger is the truth, and whoever waits polls it now and
then. So nobody waits for the server here, and no fault of it is one of the caller's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_node.errors import ConfigError, ResourceError
from cxr_node.node.process.notify import Role, notify

if TYPE_CHECKING:
    from cxr_node.node.ledger.database import Database
    from cxr_node.node.ledger.ledger import Ledger

log = logging.getLogger(__name__)

_CHANNEL = "cxr_node"
_LOOK_S = 0.5
"""Between looks at the stop event; it is no polling interval, a notification is heard at once."""
_AT_MOST_EVERY_S = 0.01
"""Notifications of one process; the server lets one at a time through."""
_AGAIN_S = 5.0
_FLUSH_S = 2.0


def wake(ledger: Ledger, spool_path: Path, role: Role) -> None:
    """Wake all processes of a role, here and on other machines that share the ledger."""
    notify(spool_path, role)
    ledger.database.tell(role)


class Teller:
    """Tells the other machines, in a thread of its own; what is told twice meanwhile is told once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._roles: set[Role] = set()
        self._lock, self._told, self._closed = threading.Lock(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def tell(self, role: Role) -> None:
        """Let a role be woken soon; returns at once."""
        with self._lock:
            self._roles.add(role)
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="teller", daemon=True)
                self._thread.start()
        self._told.set()

    def close(self) -> None:
        """Tell what is left to be told, and end."""
        self._closed.set()
        self._told.set()
        if self._thread is not None:
            self._thread.join(_FLUSH_S)

    def _run(self) -> None:
        while True:
            try:
                with self._database.apart() as driver:
                    self._tell_over(driver)
            except (ResourceError, ConfigError, self._database.driver_error) as error:
                log.debug("not told: %s", error)
            if self._closed.wait(_AGAIN_S):
                return

    def _tell_over(self, driver: Any) -> None:
        while True:
            self._told.wait()
            self._told.clear()
            with self._lock:
                roles, self._roles = self._roles, set()
            for role in sorted(roles):
                driver.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, f"{role} {self._database.machine}"))
            if self._closed.wait(_AT_MOST_EVERY_S) and not self._told.is_set():
                return


def listening(ledger: Ledger, spool_path: Path, role: Role) -> AbstractContextManager[None]:
    """Pass on to this machine's processes of a role what other machines tell; nothing where there are none."""
    return _listening(ledger.database, spool_path, role) if ledger.database.is_shared else nullcontext()


@contextmanager
def _listening(database: Database, spool_path: Path, role: Role) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=_listen, args=(database, spool_path, role, stop), name="listener", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _listen(database: Database, spool_path: Path, role: Role, stop: threading.Event) -> None:
    while not stop.is_set():
        with suppress(ResourceError, ConfigError, database.driver_error), database.apart() as driver:
            driver.execute(f"LISTEN {_CHANNEL}")
            notify(spool_path, role)  # for all that was told while nobody listened
            while not stop.is_set():
                for heard in driver.notifies(timeout=_LOOK_S, stop_after=1):
                    whom, _, teller = heard.payload.partition(" ")
                    if whom == role and teller != database.machine:  # it has sent datagrams
                        notify(spool_path, role)
        stop.wait(_AGAIN_S)
