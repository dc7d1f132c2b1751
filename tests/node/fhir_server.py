"""A FHIR server of any temper, which records what it was asked, and makes resources once (ifNoneExist)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
Reply = tuple[int, Any, dict[str, str]]
"""Status, body, headers; a body that is bytes is sent as it is."""
CAPABILITIES: Json = {
    "resourceType": "CapabilityStatement",
    "fhirVersion": "4.0.1",
    "rest": [{"mode": "server", "interaction": [{"code": "transaction"}]}],
}


def outcome(*codes: str) -> Json:
    """An OperationOutcome with texts that must get nowhere."""
    issues = [{"severity": "error", "code": code, "diagnostics": "CANARY^TEST"} for code in codes]
    return {"resourceType": "OperationOutcome", "issue": issues}


@dataclass
class Server:
    """What came, and what was made of it."""

    temper: Callable[[Json], Reply] | None = None
    capabilities: Any = field(default_factory=lambda: CAPABILITIES)
    bodies: list[bytes] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    resources: dict[tuple[str, str], Json] = field(default_factory=dict)
    """By type and the search of ifNoneExist."""

    def transaction(self, bundle: Json) -> Reply:
        """Make what is not there."""
        found = []
        for entry in bundle["entry"]:
            key = entry["request"]["url"], entry["request"]["ifNoneExist"]
            found.append({"response": {"status": "200 OK" if key in self.resources else "201 Created"}})
            self.resources.setdefault(key, entry["resource"])
        return 200, {"resourceType": "Bundle", "type": "transaction-response", "entry": found}, {}


@contextmanager
def serving(server: Server) -> Iterator[str]:
    """Serve on loopback; its base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.targets.append(self.path)
            self._reply(200, server.capabilities, {})

        def do_POST(self) -> None:
            server.targets.append(self.path)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            bundle = json.loads(server.bodies[-1])
            self._reply(*(server.temper or server.transaction)(bundle))

        def _reply(self, status: int, body: Any, headers: dict[str, str]) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/fhir+json", **headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/fhir"
        finally:
            http.shutdown()
            thread.join(10)
