"""Where alerts go in tests: a mail server and a web hook on loopback, that can be down, refuse, or hang."""

from __future__ import annotations

import json
import threading
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.patience import FOR_EVER_S
from tests.processes import free_port


class Sink:
    """What was taken, oldest first."""

    def __init__(self, folder: Path, name: str) -> None:
        self.port = free_port()
        self.taken: list[str] = []
        self.file = folder / f"{name}.url"
        self.file.write_text(f"{self.url}\n")
        self.file.chmod(0o600)

    @property
    def url(self) -> str:
        raise NotImplementedError


class MailServer(Sink):
    """SMTP, each mail as its subject and its text."""

    @property
    def url(self) -> str:
        return f"mailto://127.0.0.1:{self.port}?from=node@example.org&to=ops@example.org&format=text"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - their name
        mail = message_from_bytes(envelope.content or b"", policy=default)  # type: ignore[arg-type]  # bytes here
        body = mail.get_body(("plain",))
        self.taken.append(f"{mail['Subject']}\n{body.get_content() if body is not None else ''}")
        return "250 taken"

    def __enter__(self) -> Self:
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()


class WebHook(Sink):
    """HTTP, each message as its title and its text; `hangs` reads and never answers."""

    def __init__(self, folder: Path, name: str = "hook", *, hangs: bool = False) -> None:
        self.over, self.asked = threading.Event(), threading.Event()
        self._hangs = hangs
        super().__init__(folder, name)

    @property
    def url(self) -> str:
        return f"json://user:pa55w0rd@127.0.0.1:{self.port}/alerts?rto={FOR_EVER_S:.0f}"

    def __enter__(self) -> Self:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                sink.asked.set()
                if sink._hangs:
                    sink.over.wait(FOR_EVER_S)
                    return
                sink.taken.append(f"{content['title']}\n{content['message']}")
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
