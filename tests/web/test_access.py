"""Who may do what on the page, and what it says to whom it refuses."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cxr_node.config import loader
from cxr_node.errors import ConfigError, DataError
from cxr_node.web import guard
from cxr_node.web.identity.sessions import (
    FREE_FAILURES,
    LONGEST_WAIT_S,
    MAX_SESSIONS,
    Attempts,
    Rate,
    Session,
    Sessions,
    Via,
)
from cxr_node.web.identity.users import Role, Scope, UserFile
from tests.web.site import PASSWORDS, Site, opened


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with opened(tmp_path_factory.mktemp("site")) as site:
        yield site


def test_without_a_login_there_is_only_the_login_page(site: Site) -> None:
    visitor = site.visitor()
    answer = visitor.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "Password" in visitor.get("/login").text


def test_a_login_gives_a_strict_cookie_and_an_audit_message(site: Site) -> None:
    visitor = site.visitor()
    cookie = visitor.log_in("olga").headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert "olga (operator)" in visitor.get("/").text
    visitor.submit("/logout")
    assert visitor.get("/").status_code == 303
    trail = site.audited()
    assert trail.count('csd-code="110122"') >= 1 and trail.count('csd-code="110123"') == 1
    assert "olga" in trail


def test_a_wrong_password_is_refused_and_recorded_without_what_was_typed(site: Site) -> None:
    visitor = site.visitor()
    answer = visitor.log_in("Mustermann^Max", "a patient's name")
    assert answer.status_code == 401
    assert "Name or password is wrong" in answer.text
    assert "Mustermann" not in answer.text + site.audited()
    assert 'EventOutcomeIndicator="8"' in site.audited()


def test_guessing_is_slowed_down(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        visitor = site.visitor()
        statuses = [visitor.log_in("olga", f"wrong guess {number}").status_code for number in range(FREE_FAILURES + 1)]
        assert statuses == [401] * FREE_FAILURES + [429]
        refused = visitor.log_in("olga")
        assert refused.status_code == 429, "the right password has to wait too, or it would be found by waiting for it"
        assert int(refused.headers["retry-after"]) >= 1


def test_another_password_or_role_holds_at_once(tmp_path: Path) -> None:
    with opened(tmp_path) as site:
        visitor = site.viewer()
        site.users.add("vito", Role.OPERATOR, PASSWORDS["vito"] + "!")
        assert visitor.get("/").status_code == 303, "a new password ends the sessions of the old one"
        again = site.visitor()
        assert again.log_in("vito", PASSWORDS["vito"] + "!").status_code == 303
        site.users.remove("vito")
        assert again.get("/").status_code == 303


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"origin": "http://evil.example"}, "origin"),
        ({"origin": "null"}, "origin"),
        ({"origin": "", "referer": ""}, "origin"),
        ({"sec-fetch-site": "cross-site"}, "origin"),
    ],
)
def test_a_form_of_another_site_changes_nothing(site: Site, headers: dict[str, str], code: str) -> None:
    visitor = site.operator()
    answer = visitor.submit("/logout", headers=headers)
    assert answer.status_code == 403 and code in answer.text
    assert visitor.get("/").status_code == 200


def test_a_form_without_its_token_changes_nothing(site: Site) -> None:
    visitor = site.operator()
    for csrf in ("", "guess", site.operator().token()):
        answer = visitor.submit("/logout", csrf=csrf)
        assert answer.status_code == 403 and "csrf" in answer.text
    assert visitor.get("/").status_code == 200


def test_every_answer_carries_the_headers(site: Site) -> None:
    visitor = site.operator()
    for path in ("/", "/login", "/nothing", "/static/style.css", "/static/htmx.min.js"):
        headers = visitor.get(path).headers
        assert all(headers[name] == value for name, value in guard.HEADERS.items()), path
        assert "server" not in headers
    assert "no-store" in visitor.get("/").headers["cache-control"]
    page = visitor.get("/").text
    assert "<script>" not in page and "style=" not in page and " onclick" not in page


def test_without_users_this_machine_operates_and_no_other_name_is_answered(tmp_path: Path) -> None:
    with opened(tmp_path, users=False) as site:
        visitor = site.visitor()
        assert visitor.get("/").status_code == 200
        assert visitor.get("/", headers={"host": "rebound.example"}).status_code == 421
        assert visitor.get("/", headers={"x-forwarded-for": "203.0.113.9"}).status_code == 403
        port = httpx.URL(site.address).port
        assert visitor.get("/", headers={"host": f"localhost:{port}"}).status_code == 200


def test_a_form_may_not_be_endless(site: Site) -> None:
    visitor = site.visitor()
    whole = {"name": "olga", "password": "x" * guard.MAX_FORM_BYTES}
    assert visitor.post("/login", data=whole, headers={"origin": site.address}).status_code == 413

    def chunks() -> Iterator[bytes]:
        yield from (b"x" * 1024 for _ in range(2 * guard.MAX_FORM_BYTES // 1024))

    kind = {"content-type": "application/x-www-form-urlencoded", "origin": site.address}
    assert visitor.post("/login", content=chunks(), headers=kind).status_code == 413


@pytest.mark.parametrize(
    ("web", "key"),
    [
        ({"host": "0.0.0.0"}, "web.users"),
        ({"host": "192.0.2.1", "users": "users.yaml"}, "web.tls"),
        ({"proxies": ["192.0.2.1"]}, "web.users"),
    ],
)
def test_a_page_that_would_be_open_is_refused(web: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        loader.parse({"spool": {"path": "spool"}, "web": web})


def test_a_user_file_that_others_read_stops_the_page(tmp_path: Path) -> None:
    file = UserFile(tmp_path / "users.yaml")
    file.add("olga", Role.OPERATOR, PASSWORDS["olga"])
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 0600"):
        UserFile(file.path).users()


@pytest.mark.parametrize("content", ["users: 3", "users: [{name: x}]", "a: b: c", "\xff"])
def test_a_damaged_user_file_is_a_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "users.yaml"
    path.write_text(content, "latin-1")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="cxr-node user"):
        UserFile(path).users()


def test_passwords_and_names_have_bounds(tmp_path: Path) -> None:
    file = UserFile(tmp_path / "users.yaml")
    for name, password in (("olga", "short"), ("olga", "x" * 2000), ("no spaces", PASSWORDS["olga"])):
        with pytest.raises(DataError):
            file.add(name, Role.VIEWER, password)
    assert file.with_password("nobody", "whatever") is None if file.path.exists() else True


def test_a_key_is_never_written_down(tmp_path: Path) -> None:
    file = UserFile(tmp_path / "users.yaml")
    text = file.add_key("ris", (Scope.PREDICT,))
    assert text not in file.path.read_text()
    found = file.with_key(text)
    assert found is not None and found.scopes == (Scope.PREDICT,)
    assert file.with_key(text[:-1]) is None


def test_sessions_end_when_they_are_not_used_and_are_bounded() -> None:
    now = [0.0]
    sessions = Sessions(60.0, lambda: now[0])
    first = sessions.begin(Session(name="olga", role=Role.OPERATOR, via=Via.PASSWORD))
    now[0] = 59.0
    assert sessions.find(first.token) is first
    now[0] = 118.0
    assert sessions.find(first.token) is first, "using it prolongs it"
    now[0] = 179.0
    assert sessions.find(first.token) is None
    begun = [sessions.begin(Session(name="x", role=Role.VIEWER, via=Via.LOOPBACK)) for _ in range(MAX_SESSIONS + 1)]
    assert sessions.find(begun[0].token) is None and sessions.find(begun[-1].token) is begun[-1]


def test_waiting_doubles_and_is_bounded() -> None:
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    waits = []
    for _ in range(30):
        attempts.failed("user olga")
        waits.append(attempts.wait_s("user olga", "from 192.0.2.1"))
    assert waits[: FREE_FAILURES - 1] == [0.0] * (FREE_FAILURES - 1)
    assert waits[FREE_FAILURES - 1 : FREE_FAILURES + 2] == [2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_WAIT_S
    now[0] += LONGEST_WAIT_S
    assert attempts.wait_s("user olga") == 0.0


def test_a_minute_has_room_for_so_many() -> None:
    now = [0.0]
    rate = Rate(3, lambda: now[0])
    assert [rate.wait_s("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    now[0] = 20.0
    assert rate.wait_s("a") == pytest.approx(40.0)
    assert rate.wait_s("b", 3) == 0.0
    assert rate.wait_s("b", 4) > 0.0
    now[0] = 61.0
    assert rate.wait_s("a", 3) == 0.0
