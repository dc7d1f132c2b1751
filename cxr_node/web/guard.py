"""What holds for every request, before any page sees it: the host's name, the size, the headers of the answer, a log.

Pure ASGI. A log line has the route and the status, never the URL: somebody may have typed a name into it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cxr_node.config.consistency import is_loopback
from cxr_node.config.page import Web
from cxr_node.web import problems
from cxr_node.web.identity import cookies
from cxr_node.web.problem import Problem

log = logging.getLogger(__name__)

MAX_FORM_BYTES = 64 * 1024
_PIECE_S = 30.0
"""Between two pieces of a request."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_HSTS = "max-age=31536000"


class TooLargeError(HTTPException):
    """More bytes came than the page takes."""

    def __init__(self) -> None:
        super().__init__(413)


class TooSlowError(HTTPException):
    """The rest of a request did not come."""

    def __init__(self) -> None:
        super().__init__(408)


class Guard:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, web: Web, uploads: Collection[str] = ()) -> None:
        """`uploads` are the paths that take files to try; `web.try` says how many bytes, and `web.stow` for STOW-RS."""
        self._app, self._web, self._uploads = app, web, uploads
        self._names = _names(web)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        scope.setdefault("state", {})

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *_headers(scope)]}
                if (token := scope["state"].get("new_session")) is not None:
                    message["headers"].append(cookies.header(scope["scheme"], token))
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await _refuse(scope, answer, *refused)
        else:
            await self._app(scope, self._counted(scope, receive), answer)
        if scope["method"] not in ("GET", "HEAD") or status >= 400:
            _tell(scope, status, time.perf_counter() - begun)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        name = _host(headers.get(b"host", b""))
        if self._names is not None and name not in self._names and not is_loopback(name):
            return 421, "this node does not answer to that host name; web.names lists those it does"
        if self._web.users is None and self._web.oidc is None and b"x-forwarded-for" in headers:
            return 403, "a proxy passes others on to a page without users; configure web.users and web.proxies"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._limit(scope):
            return 413, "the request is larger than this page takes"
        return None

    def _limit(self, scope: Scope) -> int:
        if scope["path"] in self._uploads:
            return self._web.try_files.max_file_mib * self._web.try_files.max_files * 1024 * 1024 + MAX_FORM_BYTES
        if self._web.stow is not None and scope["path"].startswith(f"{problems.DICOMWEB}/"):
            return self._web.stow.max_request_mib * 1024 * 1024
        return MAX_FORM_BYTES

    def _counted(self, scope: Scope, receive: Receive) -> Receive:
        left, is_whole = self._limit(scope), False

        async def counted() -> Message:
            nonlocal left, is_whole
            if is_whole:  # what comes now is that the client has gone
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), _PIECE_S)
            except TimeoutError:
                raise TooSlowError from None
            is_whole = not message.get("more_body", False)
            left -= len(message.get("body", b""))
            if left < 0:
                raise TooLargeError
            return message

        return counted


def _names(web: Web) -> frozenset[str] | None:
    """Host names that are answered to, against DNS rebinding; None: any, where people log in anyway."""
    if web.users is not None or web.oidc is not None:
        return None if not web.names else frozenset({*web.names, web.host, socket.gethostname(), socket.getfqdn()})
    return frozenset({web.host, *web.names})


def _host(header: bytes) -> str:
    try:
        return urlsplit(f"//{header.decode('latin-1')}").hostname or ""
    except ValueError:
        return ""


def _headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    found = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
    if scope["scheme"] == "https":
        found.append((b"strict-transport-security", _HSTS.encode()))
    return found


async def _refuse(scope: Scope, send: Send, status: int, sentence: str) -> None:
    request = Request(scope)
    if problems.wants_json(request):
        response: Response = problems.answer(request, Problem(status, "refused", sentence))
    else:
        response = PlainTextResponse(sentence, status)
    await response(scope, request.receive, send)


def _tell(scope: Scope, status: int, took_s: float) -> None:
    route: Any = scope.get("route")
    level = logging.WARNING if status >= 500 else logging.INFO
    path = getattr(route, "path", "unknown")
    log.log(level, "http method=%s route=%s status=%d took_ms=%d", scope["method"], path, status, took_s * 1000)
