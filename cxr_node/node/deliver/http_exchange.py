"""One HTTP exchange that always ends: a deadline for all of it, a bounded answer, no redirect, no proxy by surprise.

httpx limits each read and write alone: a peer that sends a byte now and then would hold it for ever. Knows neither
DICOM nor who is asked. No header, URL or content is in a log line or an exception.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from cxr_node import __version__
from cxr_node.config.http import HttpTls
from cxr_node.errors import DeliveryError, UnreachableError
from cxr_node.node.deliver.link import StaleConnectionError
from cxr_node.node.network import tls

MAX_ANSWER_BYTES = 1 << 20
"""An answer is about one object; what is longer is none."""
_PIECE_BYTES = 1 << 16
_COMMON = {"user-agent": f"cxr_node/{__version__}", "accept-encoding": "identity"}
_SENT = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.CloseError)

for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they tell each URL


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Iterator[bytes]] | None = field(default=None, repr=False)
    """Makes its pieces, once more for a repeat; their sum is Content-Length in `headers`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    media_type: str
    """In lower case and without parameters; "" where it has none."""
    content: bytes = field(repr=False)
    after_s: float | None
    """Retry-After (RFC 9110 10.2.3)."""

    @property
    def words(self) -> str:
        """For people: HTTP 503."""
        return f"HTTP {self.status}"


class LateError(DeliveryError):
    """No answer within the time that is allowed: the object may have arrived or not."""


class TlsFailedError(UnreachableError):
    """The peers do not trust each other."""


def in_pieces(content: bytes) -> Iterator[bytes]:
    """A body, made while it leaves: a large one is never there twice."""
    for start in range(0, len(content), _PIECE_BYTES):
        yield content[start : start + _PIECE_BYTES]


class Exchanger:
    """HTTP/1.1 with one server, over one connection that stays open. For one thread.

    Raises
    ------
    ConfigError : a certificate or key cannot be used.
    """

    def __init__(self, settings: HttpTls | None, timeout_s: float, proxy: str | None = None) -> None:
        self._renewed = tls.Renewed(settings or HttpTls(), tls.client_tls)
        self._timeout_s = timeout_s
        self._proxy = proxy
        self._client: httpx.Client | None = None
        self._stream: Any = None  # httpcore's, of the connection in use
        self._is_fresh = True

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def exchange(self, request: Request, limit_s: float) -> Answer:
        """Send a request and read its answer, whatever that says.

        Raises
        ------
        UnreachableError : there was no connection, so nothing was sent.
        StaleConnectionError : the connection had been kept, and was lost.
        DeliveryError : no answer, or one that is none.
        """
        if self._client is None:
            limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)
            self._client = httpx.Client(
                verify=self._renewed.context(),
                trust_env=False,
                proxy=self._proxy,
                timeout=self._timeout_s,
                limits=limits,
                headers=_COMMON,
            )
        self._is_fresh = False
        with self._deadline(limit_s) as passed:
            try:
                return self._exchange(self._client, request)
            except DeliveryError:
                self.close()
                raise
            except (httpx.HTTPError, httpx.StreamError, OSError) as error:
                self.close()
                if passed.is_set() or isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
                    waited_s = limit_s if passed.is_set() else self._timeout_s
                    raise LateError(f"no answer within {waited_s:.0f} s", permanent=False) from error
                raise self._told(error) from error

    def _exchange(self, client: httpx.Client, request: Request) -> Answer:
        content = request.body() if request.body is not None else None
        built = client.build_request(
            request.method, request.url, headers=request.headers, content=content, extensions={"trace": self._trace}
        )
        response = client.send(built, stream=True, follow_redirects=False)
        try:
            return Answer(
                status=response.status_code,
                media_type=response.headers.get("content-type", "").split(";")[0].strip().lower(),
                content=_bounded(response),
                after_s=retry_after_s(response.headers.get("retry-after", ""), datetime.now(UTC)),
            )
        finally:
            response.close()

    def _told(self, error: Exception) -> DeliveryError:
        """What an exception means; in our own words, for httpx's quote the peer."""
        cause = _cause(error)
        if isinstance(cause, ssl.SSLError) and (self._is_fresh or isinstance(error, httpx.ConnectError)):
            return TlsFailedError(f"no connection: TLS failed: {tls.why(cause)}")
        if isinstance(error, httpx.ProxyError):
            return UnreachableError(f"no connection: the proxy refuses it ({_status(error)})")
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            words = cause.strerror if cause is not None else None
            return UnreachableError(f"no connection: {(words or 'timed out').lower()}")
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol | httpx.StreamError):
            return DeliveryError(f"the request cannot be sent ({type(error).__name__})", permanent=False)
        words = "no answer: the connection was lost"
        if isinstance(error, _SENT) and not self._is_fresh:
            return StaleConnectionError(words)
        return DeliveryError(words, permanent=False)

    def _trace(self, event: str, told: dict[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):  # to the server, or through a proxy
            self._is_fresh, self._stream = True, told["return_value"]

    @contextmanager
    def _deadline(self, limit_s: float) -> Iterator[threading.Event]:
        """End even a stuck write when time is up; set if it was."""
        passed = threading.Event()

        def cut() -> None:
            passed.set()
            connection = self._stream.get_extra_info("socket") if self._stream is not None else None
            if isinstance(connection, socket.socket):
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)  # an SSLSocket's own would go on in plain text

        timer = threading.Timer(limit_s, cut)
        timer.daemon = True
        timer.start()
        try:
            yield passed
        finally:
            timer.cancel()


def _bounded(response: httpx.Response) -> bytes:
    """As it came, not decompressed.

    Raises
    ------
    DeliveryError : it is longer than an answer may be.
    """
    content = bytearray()
    for piece in response.iter_raw():
        content += piece
        if len(content) > MAX_ANSWER_BYTES:
            words = f"HTTP {response.status_code} with more than {MAX_ANSWER_BYTES} bytes"
            raise DeliveryError(words, permanent=False, answered=True)
    return bytes(content)


def retry_after_s(value: str, now: datetime) -> float | None:
    """Seconds, or a date (RFC 9110 10.2.3); None where it is neither."""
    value = value.strip()
    if value.isdecimal() and value.isascii():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())


def _status(error: httpx.ProxyError) -> str:
    """The status of a proxy, without its words."""
    status = str(error)[:3]
    return f"HTTP {status}" if status.isdecimal() else "no HTTP"


def _cause(error: BaseException) -> OSError | None:
    """What the operating system, or OpenSSL, said."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
