"""A page to test: a spool with a ledger, local users, and the real server on a loopback port.

`opened` starts it; a `Visitor` is one browser without JavaScript, with its cookies, its Origin and its CSRF token.
"""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.process.supervisor import Presence
from cxr_node.node.spool.spool import Spool
from cxr_node.web import server
from cxr_node.web.identity.users import Role, Scope, UserFile
from cxr_node.web.services import MakeDoor
from tests.patience import PATIENCE_S, wait_until
from tests.processes import answers, free_port

PASSWORDS = {"olga": "correct horse battery", "vito": "staple correct horse"}
"""Of the operator and of the viewer."""
_CSRF = re.compile(r'name="csrf" value="([^"]+)"')


class Visitor(httpx.Client):
    """One browser."""

    def __init__(self, address: str, verify: ssl.SSLContext | bool = True) -> None:
        super().__init__(base_url=address, timeout=PATIENCE_S, verify=verify)
        self.address = address

    def log_in(self, name: str, password: str | None = None) -> httpx.Response:
        """Send the form of the login page."""
        content = {"name": name, "password": PASSWORDS.get(name, "") if password is None else password}
        return self.post("/login", data=content, headers={"origin": self.address})

    def token(self, path: str = "/") -> str:
        """The CSRF token that the forms of a page carry."""
        found = _CSRF.search(self.get(path).text)
        assert found is not None, f"{path} has no form"
        return found[1]

    def submit(self, path: str, /, headers: Mapping[str, str] | None = None, **fields: Any) -> httpx.Response:
        """Send a form of the page, as a browser does."""
        content = {"csrf": self.token()} | fields
        return self.post(path, data=content, headers={"origin": self.address} | dict(headers or {}))


@dataclass(slots=True, kw_only=True)
class Site:
    """One node's page, and what lies behind it."""

    address: str
    config: Config
    ledger: Ledger
    _visitors: list[Visitor] = field(default_factory=list)

    @property
    def spool(self) -> Path:
        """Its spool's folder."""
        return self.config.spool.path

    @property
    def users(self) -> UserFile:
        """Its local users."""
        assert self.config.web is not None and self.config.web.users is not None
        return UserFile(self.config.web.users)

    def visitor(self) -> Visitor:
        """A browser that has not logged in."""
        self._visitors.append(Visitor(self.address))
        return self._visitors[-1]

    def operator(self) -> Visitor:
        """A browser of somebody who may change things."""
        return self._known("olga")

    def viewer(self) -> Visitor:
        """A browser of somebody who may look."""
        return self._known("vito")

    def key(self, *scopes: Scope) -> str:
        """An API key of these scopes."""
        return self.users.add_key("program", scopes)

    def audited(self) -> str:
        """All of the audit trail."""
        return "".join(path.read_text() for path in sorted((self.spool / "audit").glob("*.log")))

    def close(self) -> None:
        """Close all browsers."""
        for each in self._visitors:
            each.close()

    def _known(self, name: str) -> Visitor:
        visitor = self.visitor()
        assert visitor.log_in(name).status_code == 303
        return visitor


@contextmanager
def opened(
    folder: Path,
    *,
    users: bool = True,
    web: Mapping[str, Any] | None = None,
    make_door: MakeDoor | None = None,
    **sections: Any,
) -> Iterator[Site]:
    """Start a page over an empty ledger.

    Parameters
    ----------
    users : without them, whoever asks is the operator
    web, sections : more of the configuration
    make_door : where `web.stow` is configured
    """
    spool = folder / "spool"
    section: dict[str, Any] = {"port": free_port()} | dict(web or {})
    if users:
        section["users"] = str(folder / "users.yaml")
        file = UserFile(folder / "users.yaml")
        for (name, password), role in zip(PASSWORDS.items(), (Role.OPERATOR, Role.VIEWER), strict=True):
            file.add(name, role, password)
    config = loader.parse({"spool": {"path": str(spool), "min_free_mib": 16}, "web": section} | sections)
    Spool(spool).store.prepare()
    ledger = Ledger.of_node(config)
    site = Site(address=f"http://127.0.0.1:{section['port']}", config=config, ledger=ledger)
    try:
        with _served(config, section["port"], make_door):
            yield site
    finally:
        site.close()
        ledger.close()


@contextmanager
def _served(config: Config, port: int, make_door: MakeDoor | None) -> Iterator[None]:
    stop, failures = threading.Event(), list[BaseException]()

    def serve() -> None:
        try:
            with Presence(config.spool.path, "web") as present:
                server.run(config, stop, present, make_door)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=serve, name="page")
    thread.start()
    try:
        wait_until(lambda: answers(port) or not thread.is_alive(), "the page answers")
        assert not failures, failures
        yield
    finally:
        stop.set()
        thread.join()
    assert not failures, failures
