"""The process `web`: TLS, a proxy before it, silent clients, and how it starts and stops."""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from cxr_node.config import loader
from cxr_node.web import guard, server
from cxr_node.web.identity.users import Role, Scope, UserFile
from tests.node.certificates import Authority
from tests.patience import PATIENCE_S
from tests.processes import Program, answers, configured, cxr_node, free_port, run
from tests.web.site import Visitor, opened


def test_with_tls_the_cookie_is_bound_to_host_and_tls(tmp_path: Path) -> None:
    identity = Authority(tmp_path).issue("page")
    tls = {"certificate": str(identity.certificate), "key": str(identity.key)}
    with opened(tmp_path, web={"tls": tls}) as site:
        address = site.address.replace("http:", "https:")
        believing = ssl.create_default_context(cafile=identity.ca)
        with Visitor(address, verify=believing) as visitor:
            answer = visitor.log_in("olga")
            assert answer.headers["set-cookie"].startswith("__Host-cxr-node=")
            assert "Secure" in answer.headers["set-cookie"]
            assert "strict-transport-security" in answer.headers
            assert "olga (operator)" in visitor.get("/").text


def test_a_named_proxy_says_who_asks_and_how(tmp_path: Path) -> None:
    with opened(tmp_path, web={"proxies": ["127.0.0.1"]}) as site:
        forwarded = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
        origin = site.address.replace("http:", "https:")
        content = {"name": "olga", "password": "wrong, and slowed down"}
        visitor = site.visitor()
        assert visitor.post("/login", data=content, headers=forwarded | {"origin": origin}).status_code == 401
        assert visitor.post("/login", data=content, headers=forwarded | {"origin": site.address}).status_code == 403
        assert "203.0.113.9" in site.audited()


def test_another_proxy_is_not_believed(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        content = {"name": "olga", "password": "wrong, and slowed down"}
        forwarded = {"x-forwarded-for": "203.0.113.9", "origin": site.address}
        assert site.visitor().post("/login", data=content, headers=forwarded).status_code == 401
        assert "203.0.113.9" not in site.audited() and "127.0.0.1" in site.audited()


def test_silent_clients_shut_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_IDLE_S", 1)
    with opened(tmp_path) as site, ExitStack() as stack:
        port = httpx.URL(site.address).port
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port or 0), PATIENCE_S))
            for _ in range(server._AT_A_TIME)
        ]
        silent[0].sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert all(one.recv(1) == b"" for one in silent), "they are closed"
        assert site.visitor().get("/login").status_code == 200


def test_a_request_that_stops_halfway_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_PIECE_S", 0.5)
    with opened(tmp_path) as site:
        port = httpx.URL(site.address).port or 0
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as slow:
            head = (
                f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: {site.address}\r\nContent-Length: 100\r\n"
            )
            kind = "Content-Length: 100\r\nContent-Type: application/x-www-form-urlencoded"
            slow.sendall(f"{head}{kind}\r\n\r\nname=".encode())
            assert slow.recv(64).startswith(b"HTTP/1.1 408")


def test_the_process_starts_and_stops_as_systemd_wants_it(tmp_path: Path) -> None:
    port = free_port()
    config = configured(tmp_path, "node", 0, web={"port": port})

    class Page(Program):
        def is_ready(self) -> bool:
            return answers(port)

    with Page(tmp_path, *cxr_node("web", config)) as page:
        found = httpx.get(f"http://127.0.0.1:{port}/")
        assert found.status_code == 200 and "has not run yet" in found.text
        taken = run(*cxr_node("web", config))
        assert taken.returncode == 1 and "cannot be listened on" in taken.stderr
        assert page.stop() == 0
    assert "web listening" in page.said() or "listening address=" in page.said()


@pytest.mark.parametrize(
    ("web", "sentence"),
    [
        (None, "web: is null"),
        ({"users": "missing.yaml"}, "cxr-node user add"),
        ({"tls": {"certificate": "missing.pem", "key": "missing.key"}}, "web.tls"),
    ],
)
def test_a_page_that_cannot_start_says_why(tmp_path: Path, web: dict[str, object] | None, sentence: str) -> None:
    config = configured(tmp_path, "node", 0, web=web and {"port": 0, **web})
    ended = run(*cxr_node("web", config))
    assert ended.returncode == 78 and sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_metrics_are_for_prometheus_with_a_key(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        visitor = site.visitor()
        assert visitor.get("/metrics").status_code == 401
        for scope, status in ((Scope.PREDICT, 403), (Scope.METRICS, 200)):
            answer = visitor.get("/metrics", headers={"authorization": f"Bearer {site.key(scope)}"})
            assert answer.status_code == status
        assert "cxr_node_instances" in answer.text and answer.headers["content-type"].startswith("text/plain")
        assert visitor.get("/metrics", headers={"authorization": "Bearer guess"}).status_code == 401


def checked(config: Path) -> dict[str, tuple[bool, str]]:
    """What `check` says of the page."""
    return {
        found.subject: (found.ok, found.figure)
        for found in server.readings(loader.load(config))
        if "page" in found.subject
    }


def test_check_looks_at_the_page(tmp_path: Path) -> None:
    users = tmp_path / "users.yaml"
    section = {"port": free_port(), "users": str(users)}
    config = configured(tmp_path, "node", 0, web=section)
    assert "cannot be read" in checked(config)["page"][1]
    UserFile(users).add_key("ris", (Scope.PREDICT,))
    assert "has no user" in checked(config)["page"][1]
    UserFile(users).add("olga", Role.OPERATOR, "correct horse battery")
    assert checked(config)["page users"] == (True, f"{users}: 1 operators, 0 readers, 0 viewers")
    assert checked(config)["page port"][0]
    with socket.create_server(("127.0.0.1", section["port"])):
        assert not checked(config)["page port"][0]
    assert checked(configured(tmp_path, "none", 0)) == {}
