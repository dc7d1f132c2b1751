"""Who may do what: the session's cookie, roles, keys, the CSRF token and the Origin of each change; login and logout.

A page is for a person with a session; the API takes a session or a key. Where no users are configured, which is
possible on loopback only, whoever is at this machine is an operator.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from fastapi.responses import RedirectResponse

from cxr_node.web.identity import cookies
from cxr_node.web.identity.person import Person
from cxr_node.web.identity.sessions import Session, Via
from cxr_node.web.identity.users import Role, Scope
from cxr_node.web.problem import Problem
from cxr_node.web.problems import wants_json
from cxr_node.web.services import Services, services


class LoginNeeded(Problem):
    """Nobody is logged in: a person is shown the login page, a program gets 401."""

    def __init__(self) -> None:
        super().__init__(401, "login", "log in first, or send a key", {"WWW-Authenticate": "Bearer"})


def viewer(request: Request, response: Response) -> Person:
    """Whoever may look."""
    session = _session(request)
    if session is None:
        raise LoginNeeded
    return _person(session)


def operator(request: Request, response: Response) -> Person:
    """Whoever may change something."""
    person = viewer(request, response)
    if not person.may_operate:
        raise Problem(403, "role", f"this takes the role operator; yours is {person.role}")
    return person


async def change(request: Request, person: Annotated[Person, Depends(operator)]) -> Person:
    """An operator who meant it: Origin and CSRF token are right."""
    check_origin(request)
    await check_token(request, person)
    return person


async def say(request: Request, person: Annotated[Person, Depends(viewer)]) -> Person:
    """A reader who meant it."""
    if not person.may_say:
        raise Problem(403, "role", f"this takes the role reader; yours is {person.role}")
    check_origin(request)
    await check_token(request, person)
    return person


async def form(request: Request, person: Annotated[Person, Depends(viewer)]) -> Person:
    """Whoever may look, and sent a form of this page."""
    check_origin(request)
    await check_token(request, person)
    return person


def check_origin(request: Request) -> None:
    """Refuse what another site's page sent.

    Raises
    ------
    Problem : 403.
    """
    said = request.headers.get("origin") or request.headers.get("referer") or ""
    there = urlsplit(said)
    site = request.headers.get("sec-fetch-site", "same-origin")
    if (there.scheme, there.netloc) != (request.url.scheme, request.url.netloc) or site != "same-origin":
        raise Problem(403, "origin", "the request does not come from this page; open the page itself and try again")


async def check_token(request: Request, person: Person) -> None:
    """Refuse a form that this page did not make for this person.

    Raises
    ------
    Problem : 403.
    """
    compare_token(request.headers.get("x-csrf-token") or (await request.form()).get("csrf"), person)


def compare_token(token: object, person: Person) -> None:
    """Refuse a token that is not of this person's forms. Raises as `check_token`."""
    if not isinstance(token, str) or not hmac.compare_digest(token.encode(), person.csrf.encode()):
        raise Problem(403, "csrf", "this form has expired; load the page again")


def allowed(*scopes: Scope) -> Any:
    """A program with a key of one of these scopes, or a person with a session; the name of either."""

    def check(request: Request) -> str:
        return _who(request, scopes)

    return Depends(check)


def is_known(request: Request) -> bool:
    """Whether any key or session comes with a request that needs none."""
    try:
        _who(request, tuple(Scope))
    except Problem:
        return False
    return True


def _who(request: Request, scopes: Sequence[Scope]) -> str:
    found = services(request)
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        key = found.users.with_key(text.strip()) if found.users is not None else None
        if key is None:
            raise Problem(401, "key", "this key is unknown", {"WWW-Authenticate": "Bearer"})
        if not set(scopes) & set(key.scopes):
            raise Problem(403, "scope", f"this takes a key with the scope {' or '.join(scopes)}")
        return f"key {key.name}"
    session = _session(request)
    if session is None:
        raise LoginNeeded
    if request.method not in ("GET", "HEAD") and (session.via is not Via.LOOPBACK or _from_browser(request)):
        check_origin(request)
    return session.name


def _from_browser(request: Request) -> bool:
    """Programs such as curl send neither of these."""
    return "origin" in request.headers or "sec-fetch-site" in request.headers


def client_of(request: Request) -> str:
    """The address that asks; a named proxy's word is believed by the server before this is called."""
    return request.client.host if request.client is not None else "unknown"


def _session(request: Request) -> Session | None:
    found = services(request)
    session = found.sessions.find(request.cookies.get(cookies.name(request.url.scheme), ""))
    if session is None:
        if found.has_users:
            return None
        session = found.sessions.begin(Session(name="this machine", role=Role.OPERATOR, via=Via.LOOPBACK))
        request.state.new_session = session.token  # the guard sets its cookie
    if session.via is Via.PASSWORD:
        user = found.users.user(session.name) if found.users is not None else None
        if user is None or user.password != session.password_hash:
            found.sessions.end(session.token)
            return None
        session.role = user.role
    return session


def _person(session: Session) -> Person:
    return Person(name=session.name, role=session.role, csrf=session.csrf, is_known=session.via is not Via.LOOPBACK)


def answer_login(request: Request, problem: LoginNeeded) -> Response | None:
    """Send a person to the login page; None for a program."""
    return None if wants_json(request) else RedirectResponse("/login", 303)


def slow_down(found: Services, *keys: str) -> None:
    """Refuse a client that failed too often. Raises `Problem`, 429."""
    wait_s = math.ceil(found.attempts.wait_s(*keys))
    if wait_s > 0:
        raise Problem(
            429, "slow-down", f"too many failed attempts; try again in {wait_s} s", {"Retry-After": str(wait_s)}
        )
