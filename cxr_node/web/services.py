"""What the pages and the API work with, made once for each process."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fastapi import Request

from cxr_node import wiring
from cxr_node.config.page import Web
from cxr_node.config.schema import Config
from cxr_node.errors import ConfigError
from cxr_node.node.audit.recorder import People
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.web.identity.oidc import Provider
from cxr_node.web.identity.sessions import Attempts, Rate, Sessions
from cxr_node.web.identity.users import UserFile
from cxr_node.web.judging.client import Judge
from cxr_node.web.judging.kept import Kept
from cxr_node.web.monitoring import alert_loop, announce
from cxr_node.web.monitoring.alert_loop import AlertLoop
from cxr_node.web.monitoring.metrics import Exposition
from cxr_node.web.problem import Problem

if TYPE_CHECKING:  # the receiver's room, and with it pydicom and pynetdicom, for those that take objects alone
    from cxr_node.web.stow.door import Door

MakeDoor = Callable[[Config, Callable[[], Ledger]], "Door"]
"""Opens the door for STOW-RS on a ledger."""


@dataclass(slots=True, kw_only=True)
class Services:
    """One node's configuration, ledger, users, sessions and audit trail."""

    config: Config
    people: People
    users: UserFile | None
    sessions: Sessions
    attempts: Attempts = field(default_factory=Attempts)
    rate: Rate
    judge: Judge
    kept: Kept = field(default_factory=Kept)
    oidc: Provider | None = None
    stow: Door | None = None
    exposition: Exposition = field(init=False)
    watcher: AlertLoop = field(init=False)
    _ledger: Ledger | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.exposition = Exposition(self.config, self.ledger)
        self.watcher = alert_loop.of_node(self.config, self.ledger)

    @property
    def web(self) -> Web:
        """Its section of the configuration."""
        if self.config.web is None:
            raise ConfigError("web: is null; write `web: {}` to have the page")
        return self.config.web

    @property
    def has_users(self) -> bool:
        """Whether people log in; else whoever is at this machine may do everything."""
        return self.users is not None or self.web.oidc is not None

    @property
    def door(self) -> Door:
        """Where objects come in; routes to it exist only where it does."""
        if self.stow is None:
            raise ConfigError("web.stow: is null")
        return self.stow

    def ledger(self) -> Ledger:
        """The node's ledger, opened when it is first needed, and anew where a process that serves has begun another.

        Raises
        ------
        ConfigError : the node has not run yet.
        """
        with self._lock:
            if self._ledger is not None and self._ledger.database.is_lost:
                self._ledger.close()
                self._ledger = None
            if self._ledger is None:
                self._ledger = wiring.ledger(self.config)
            return self._ledger

    def require_rate(self, client: str, files: int) -> None:
        """Count files that a client wants judged.

        Raises
        ------
        Problem : 429, they are too many for this minute.
        """
        wait_s = math.ceil(self.rate.wait_s(client, files))
        if wait_s > 0:
            limit = f"{self.web.try_files.per_minute} files a minute (web.try.per_minute)"
            raise Problem(429, "too-many", f"at most {limit}; try again in {wait_s} s", {"Retry-After": str(wait_s)})

    def close(self) -> None:
        """Give everything back."""
        if self.stow is not None:
            self.stow.close()
        self.judge.close()
        self.kept.close()
        self.people.close()
        if self._ledger is not None:
            self._ledger.close()


def assembled(config: Config, make_door: MakeDoor | None = None) -> Services:
    """Put together what the configuration asks for.

    Parameters
    ----------
    make_door : None: where nobody stores over HTTP

    Raises
    ------
    ConfigError : there is no `web`, or the users' file or the audit trail cannot be used.
    """
    web = config.web
    if web is None:
        raise ConfigError("web: is null; write `web: {}` to have the page")
    if web.oidc is not None and not (find_spec("authlib") and find_spec("httpx2")):
        raise ConfigError("web.oidc: needs authlib and httpx2: pip install 'cxr-node[oidc]'")
    announce.require_sender(config)
    users = UserFile(web.users) if web.users is not None else None
    if users is not None:
        users.users()
    found = Services(
        config=config,
        people=People(config, "web"),
        users=users,
        sessions=Sessions(web.session_h * 3600),
        rate=Rate(web.try_files.per_minute),
        judge=Judge(config, web.try_files),
        oidc=Provider(settings=web.oidc) if web.oidc is not None else None,
    )
    try:
        found.stow = make_door(config, found.ledger) if make_door is not None else None
    except BaseException:
        found.close()
        raise
    return found


def services(request: Request) -> Services:
    """The services of the application that answers a request."""
    found: Services = request.app.state.services
    return found
