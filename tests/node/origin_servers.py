"""DICOMweb origin servers and token servers of every temper, on free loopback ports: they remember what came."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cxr_node.config.destinations import DicomWebDestination
from cxr_node.node.network import file_meta
from tests.patience import PATIENCE_S

JSON = "application/dicom+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it came; `content` is its body."""

    method: str
    target: str
    headers: Message
    content: bytes = field(repr=False)

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)

    @property
    def file(self) -> bytes:
        """The one part of a multipart/related body."""
        boundary = self.headers.get_param("boundary")
        assert isinstance(boundary, str)
        first, part, last = self.content.split(b"--" + boundary.encode())
        assert (first, last) == (b"", b"--\r\n")
        head, _, body = part.partition(b"\r\n\r\n")
        assert b"Content-Type: application/dicom" in head
        assert body.endswith(b"\r\n")
        return body[:-2]

    @property
    def uid(self) -> str:
        return file_meta.split(self.file)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered; `raw` writes to the socket itself instead."""

    status: int = 200
    body: bytes | dict[str, Any] | list[Any] = b""
    headers: dict[str, str] = field(default_factory=dict)
    keeps: bool = False
    """Whether the object is kept."""
    raw: Callable[[socket.socket], None] | None = None


def reference(uid: str, **more: int) -> dict[str, Any]:
    """One item of a Referenced or Failed SOP Sequence."""
    item: dict[str, Any] = {
        "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.7"]},
        "00081155": {"vr": "UI", "Value": [uid]},
    }
    return item | {tag: {"vr": "US", "Value": [value]} for tag, value in more.items()}


def module(referenced: list[dict[str, Any]] | None = None, failed: list[dict[str, Any]] | None = None) -> Any:
    """A Store Instances Response Module (PS3.18 I.1)."""
    found: dict[str, Any] = {"00081190": {"vr": "UR"}}
    if referenced is not None:
        found["00081199"] = {"vr": "SQ", "Value": referenced}
    if failed is not None:
        found["00081198"] = {"vr": "SQ", "Value": failed}
    return found


def accepts(asked: Asked, number: int) -> Reply:
    """Everything is stored."""
    return Reply(body=module([reference(asked.uid)]), keeps=True)


def fails(status: int, reason: int) -> Callable[[Asked, int], Reply]:
    """Nothing is stored, for that Failure Reason."""
    return lambda asked, number: Reply(
        status=status, body=module(failed=[reference(asked.uid, **{"00081197": reason})])
    )


def says(status: int, keeps: bool = False, **headers: str) -> Callable[[Asked, int], Reply]:
    """A status without a body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda asked, number: Reply(status=status, keeps=keeps, headers=named)


@dataclass(slots=True)
class Origin:
    """An origin server below `/dicom-web`, with a token server at `/token`; `answer` gets each STOW and its number."""

    answer: Callable[[Asked, int], Reply] = accepts
    find: Callable[[Asked], Reply] | None = None
    """Answers QIDO-RS; None: by what is kept."""
    token: Callable[[Asked], Reply] | None = None
    options: int = 404
    let_in: Callable[[Asked], bool] = lambda asked: True
    asked: list[Asked] = field(default_factory=list)
    stored: dict[str, list[bytes]] = field(default_factory=dict)
    """Part 10 files by SOP Instance UID, repeats included."""
    arrived: threading.Condition = field(default_factory=threading.Condition)
    connections: int = 0
    url: str = ""

    def handle(self, asked: Asked) -> Reply:
        with self.arrived:
            self.asked.append(asked)
            self.arrived.notify_all()
        if asked.path == "/token" and self.token is not None:
            return self.token(asked)
        if not self.let_in(asked):
            return Reply(status=401)
        if asked.method == "POST" and asked.path == "/dicom-web/studies":
            return self._store(asked)
        if asked.method == "GET" and asked.path == "/dicom-web/instances":
            return self._find(asked) if self.find is None else self.find(asked)
        return Reply(status=self.options if asked.method == "OPTIONS" else 404)

    def _store(self, asked: Asked) -> Reply:
        with self.arrived:
            reply = self.answer(asked, sum(one.method == "POST" for one in self.asked))
            if reply.keeps:
                self.stored.setdefault(asked.uid, []).append(asked.file)
            self.arrived.notify_all()
        return reply

    def _find(self, asked: Asked) -> Reply:
        (uid,) = asked.query["SOPInstanceUID"]
        with self.arrived:
            kept = uid in self.stored
        return Reply(body=[{"00080018": {"vr": "UI", "Value": [uid]}}]) if kept else Reply(status=204)

    def digests(self) -> dict[str, set[str]]:
        """Different contents of each object: one each, if all is well."""
        return {uid: {hashlib.sha256(one).hexdigest() for one in many} for uid, many in self.stored.items()}

    def wait(self, objects: int, timeout_s: float = PATIENCE_S) -> bool:
        """Wait until so many different objects are there."""
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.stored) >= objects, timeout_s)

    def forget(self, uid: str) -> None:
        """Lose an object."""
        with self.arrived:
            del self.stored[uid]


@contextlib.contextmanager
def serving(origin: Origin, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve an origin server in threads; its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            origin.connections += 1
            super().setup()

        def _serve(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", "0")))
            asked = Asked(method=self.command, target=self.path, headers=self.headers, content=content)
            reply = origin.handle(asked)
            if reply.raw is not None:
                with contextlib.suppress(OSError):
                    reply.raw(self.connection)
                self.close_connection = True
                return
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            headers = {"Content-Length": str(len(body))} | (
                {} if isinstance(reply.body, bytes) else {"Content-Type": JSON}
            )
            self.send_response(reply.status)
            for name, value in (headers | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_OPTIONS = _serve  # noqa: N815 - named by the library

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that goes away is no fault here."""

    server = Server(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    scheme, name = ("http", "127.0.0.1") if tls is None else ("https", "localhost")
    origin.url = f"{scheme}://{name}:{server.server_address[1]}/dicom-web"
    try:
        yield origin.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def destination(url: str, name: str = "cloud", timeout_s: float = 2.0, **more: object) -> DicomWebDestination:
    """A configured destination that gives up early."""
    return DicomWebDestination.model_validate(
        {"kind": "dicomweb", "name": name, "url": url, "timeout_s": timeout_s, **more}
    )
