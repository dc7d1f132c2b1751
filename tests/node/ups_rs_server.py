"""The same manager over HTTP (PS3.18 11), with an origin server's statuses."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydicom import Dataset

from tests.node.ups_manager import UpsManager, dataset, kind_of_update, named

JSON = "application/dicom+json"
Reply = tuple[int, Any, str]
"""Status, body, media type."""


@dataclass
class Server:
    """How it answers."""

    manager: UpsManager
    way: str = "transaction-uid"
    """Query parameter in which an update has its Transaction UID; "": it is in the body."""
    matches_codes: bool = True
    instead: Callable[[str, str], Reply | None] = lambda method, path: None
    """What a proxy before it answers."""
    targets: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)


def status_of(dimse: int) -> int:
    if dimse == 0x0000 or dimse >> 12 == 0xB:
        return 200
    return {0xC307: 404, 0xC300: 400, 0xC301: 400, 0x0105: 400, 0x0106: 400, 0x0110: 500}.get(dimse, 409)


@contextmanager
def listening(manager: UpsManager, **how: Any) -> Iterator[str]:
    """Serve on loopback; its base URL."""
    with serving(Server(manager, **how)) as url:
        yield url


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Server

    def do_GET(self) -> None:
        self._handle("GET")

    def do_PUT(self) -> None:
        self._handle("PUT")

    def do_POST(self) -> None:
        self._handle("POST")

    def _handle(self, method: str) -> None:
        parts = urlsplit(self.path)
        query = parse_qsl(parts.query)
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        told = Dataset.from_json(json.loads(content)[0]) if content else Dataset()
        self.served.targets.append(self.path)
        self.served.bodies.append(content)
        if (reply := self.served.instead(method, self.path)) is not None:
            self._reply(*reply)
            return
        names = parts.path.removeprefix("/dicom-web/").split("/")
        with self.served.manager.lock:
            reply = self._done(*_request(self.served, method, names, query, told))
        if reply is None:
            self.close_connection = True
        else:
            self._reply(*reply)

    def _done(self, what: str, do: Callable[[], Reply]) -> Reply | None:
        status = self.served.manager.about_to(what)
        if status == -1:
            return None
        made = (status_of(status), b"", JSON) if status is not None else do()
        return None if self.served.manager.loses_answer(what) else made

    def _reply(self, status: int, body: Any, media_type: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if content:
            self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(server: Server) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"served": server})) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/dicom-web"
        finally:
            http.shutdown()
            thread.join(10)


def _request(
    server: Server, method: str, names: list[str], query: list[tuple[str, str]], told: Dataset
) -> tuple[str, Callable[[], Reply]]:
    """What a request is called, and what it does."""
    manager = server.manager
    if method == "GET" and len(names) == 1:
        return "find", lambda: _found(server, dict(query))
    if method == "GET":
        return "get", lambda: _item(manager, names[1])
    if method == "PUT":
        assert names[2:] == ["state"]
        state, transaction = str(told.ProcedureStepState), str(told.get("TransactionUID", ""))
        return named(state), lambda: (status_of(manager.change(names[1], state, transaction)), b"", JSON)

    def update() -> Reply:
        if server.way:
            if "TransactionUID" in told:
                return 400, b"", JSON
            told.TransactionUID = dict(query).get(server.way, "")
        elif query:
            return 400, b"", JSON
        return status_of(manager.update(names[1], told)), b"", JSON

    return kind_of_update(told), update


def _item(manager: UpsManager, uid: str) -> Reply:
    item = manager.items.get(uid)
    return (404, b"", JSON) if item is None else (200, [item.attributes.to_json_dict()], JSON)


def _found(server: Server, query: dict[str, str]) -> Reply:
    if (uid := query.get("00080018")) is not None:
        item = server.manager.items.get(uid)
        return (204, b"", JSON) if item is None else (200, [item.attributes.to_json_dict()], JSON)
    keys = dataset(ProcedureStepState=query["00741000"], ScheduledWorkitemCodeSequence=[])
    for keyword, tag in (
        ("ScheduledWorkitemCodeSequence", "00404018"),
        ("ScheduledStationNameCodeSequence", "00404025"),
    ):
        if f"{tag}.00080100" in query:
            if not server.matches_codes:
                return 400, b"", JSON
            code = dataset(CodeValue=query[f"{tag}.00080100"], CodingSchemeDesignator=query[f"{tag}.00080102"])
            setattr(keys, keyword, [code])
    for keyword in ("SOPInstanceUID", "InputReadinessState", "ScheduledProcedureStepPriority"):
        setattr(keys, keyword, "")
    found = [each.to_json_dict() for each in server.manager.found(keys)]
    return (200, found, JSON) if found else (204, b"", JSON)
