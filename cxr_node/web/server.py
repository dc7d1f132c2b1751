"""The process `web`: one uvicorn, beside the process's main thread, which takes the signals and feeds the watchdog."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cxr_node.config import permissions
from cxr_node.config.page import StowSender, Web
from cxr_node.config.schema import Config
from cxr_node.diagnose.thresholds import CheckResult, Fault, stop, well
from cxr_node.errors import ConfigError, LedgerLostError, ResourceError
from cxr_node.node.ledger import machines
from cxr_node.node.network.tls import peer_certificate
from cxr_node.node.process import supervisor
from cxr_node.node.process.supervisor import Presence
from cxr_node.web import app
from cxr_node.web.identity.oidc import Provider
from cxr_node.web.identity.users import Role, UserFile
from cxr_node.web.problem import Problem
from cxr_node.web.problems import DICOMWEB
from cxr_node.web.services import MakeDoor, Services, assembled

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_GRACE_S = 5
_AT_A_TIME = 64
"""Requests; more are answered 503."""
_IDLE_S = 15


class _Impatient(H11Protocol):
    """Closes a connection that sends no whole request: uvicorn would let it take one of the places for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._too_late = self.loop.call_later(_IDLE_S, transport.close)
        shown = transport.get_extra_info("ssl_object")
        if shown is not None and shown.getpeercert():
            self.app_state = {**self.app_state, "certificate": peer_certificate(shown)}  # uvicorn tells nobody

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None:
            self._too_late.cancel()

    def on_response_complete(self) -> None:
        """Let a client that was answered before it had sent all of its request read that, and close for it then."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self.loop.call_later(_IDLE_S, self._leave, self.cycle)

    def _leave(self, answered: object) -> None:
        if self.cycle is answered and self.conn.their_state is h11.SEND_BODY:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._too_late.cancel()
        super().connection_lost(exc)


def run(config: Config, stop: threading.Event, present: Presence, make_door: MakeDoor | None = None) -> None:
    """Serve until `stop` is set.

    Parameters
    ----------
    make_door : opens the door for STOW-RS; None: where nobody stores over HTTP

    Raises
    ------
    ConfigError : the section `web`, its files or its users cannot be used.
    ResourceError : the port is taken.
    """
    services, ending = assembled(config, make_door), threading.Event()
    try:
        with _listening(services.web) as listener:
            server = uvicorn.Server(_settings(services.web, app.create(services)))
            thread = threading.Thread(target=_serve, args=(server, listener), name="http", daemon=True)
            thread.start()
            address = f"{'https' if services.web.tls else 'http'}://{services.web.host}:{listener.getsockname()[1]}"
            log.info("listening address=%s users=%s", address, "yes" if services.has_users else "no")
            present.ready()
            now = functools.partial(_now, services)
            alerts = threading.Thread(target=services.watcher.run, args=(ending, now), name="alerts")
            alerts.start()
            while thread.is_alive() and not stop.wait(_LOOK_EVERY_S):
                present.progress()
                if services.stow is not None:
                    services.stow.turn()
            present.stopping()
            ending.set()
            server.should_exit = True
            thread.join()
            alerts.join()
            _say_farewell(services)
            if not stop.is_set():
                raise ResourceError("the HTTP server ended by itself")
    finally:
        services.close()


def _now(services: Services) -> datetime:
    return services.ledger().now()


def _say_farewell(services: Services) -> None:
    """Where several machines share a ledger, the others know that this process was stopped."""
    if services.config.ledger.url is not None:
        with suppress(ConfigError, ResourceError, LedgerLostError):
            machines.tell(services.ledger(), services.config.spool.path)


def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    asyncio.run(server.serve(sockets=[listener]))


def _listening(web: Web) -> socket.socket:
    family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((web.host, web.port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ResourceError(f"web: {web.host}:{web.port} cannot be listened on ({error.strerror})") from error
    return listener


def _settings(web: Web, application: object) -> uvicorn.Config:
    tls: dict[str, Any] = {}
    if web.tls is not None:
        tls = {
            "ssl_certfile": str(permissions.place(web.tls.certificate)),
            "ssl_keyfile": str(permissions.private_key(web.tls.key)),
        }
        if web.tls.ca is not None:
            tls |= {"ssl_ca_certs": str(permissions.place(web.tls.ca)), "ssl_cert_reqs": ssl.CERT_OPTIONAL}
    try:
        settings = uvicorn.Config(
            application,  # type: ignore[arg-type]  # an ASGI application
            http=_Impatient,
            log_config=None,
            access_log=False,  # it would log URLs
            server_header=False,
            lifespan="off",
            limit_concurrency=_AT_A_TIME,
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=_GRACE_S,
            proxy_headers=bool(web.proxies),
            forwarded_allow_ips=list(web.proxies),
            **tls,
        )
        settings.load()
    except (OSError, ValueError) as error:
        raise ConfigError(f"web.tls: certificate or key cannot be used ({type(error).__name__})") from error
    return settings


def readings(config: Config) -> Iterator[CheckResult]:
    """Look at the page before it is served, for `check`: users, certificate, identity provider, port."""
    web = config.web
    if web is None:
        return
    where = f"{web.host}:{web.port}"
    try:
        yield well("page users", _who(web))
        _settings(web, app.create)  # whatever is served: certificate and key are read
    except ConfigError as error:
        yield stop("page", str(error))
        return
    yield from _stow(web, where)
    if web.oidc is not None:
        try:
            Provider(settings=web.oidc).begin(f"http://{where}", "")
            yield well("page identity provider", web.oidc.issuer)
        except (Problem, ConfigError) as error:
            yield stop("page identity provider", f"{web.oidc.issuer}: {error}", fault=Fault.WORLD)
    if supervisor.look(config.spool.path, ("web",))["web"].running:
        yield well("page port", f"{where}: the page runs")
        return
    try:
        _listening(web).close()
        yield well("page port", f"{where} is free")
    except ResourceError as error:
        yield stop("page port", str(error), fault=Fault.WORLD)


def _stow(web: Web, where: str) -> Iterator[CheckResult]:
    """Say whether radiographs come by HTTP, and from whom."""
    if web.stow is None:
        return
    from cxr_node.web.stow.senders import Senders

    try:
        Senders(web.stow.senders)
    except ConfigError as error:
        yield stop("page STOW-RS", str(error))
        return
    senders = ", ".join(f"{each.name} ({_proof(each)})" for each in web.stow.senders)
    yield well("page STOW-RS", f"{'https' if web.tls else 'http'}://{where}{DICOMWEB}/studies takes from {senders}")


def _proof(sender: StowSender) -> str:
    shown = {"key": sender.key is not None, "certificate": bool(sender.certificate), "host": bool(sender.hosts)}
    return ", ".join(name for name, is_shown in shown.items() if is_shown)


def _who(web: Web) -> str:
    if web.users is None:
        return "from the identity provider" if web.oidc is not None else "whoever is at this machine is an operator"
    roles = Counter(user.role for user in UserFile(web.users).users())
    if not roles and web.oidc is None:
        raise ConfigError(f"{web.users}: has no user; `cxr-node user add NAME --role operator` adds one")
    return f"{web.users}: {roles[Role.OPERATOR]} operators, {roles[Role.READER]} readers, {roles[Role.VIEWER]} viewers"
