"""Login and logout, by a password or by the hospital's identity provider; each is an audit message."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from cxr_node.node.audit.messages import Authentication, Outcome
from cxr_node.web import access, rendering
from cxr_node.web.identity import cookies, person
from cxr_node.web.identity.oidc import Provider
from cxr_node.web.identity.sessions import Session, Via
from cxr_node.web.problem import Problem
from cxr_node.web.services import Services, services

router = APIRouter(include_in_schema=False)
HOME = "/"
CALLBACK = "/login/oidc/callback"


@router.get("/login")
def login_page(request: Request) -> Response:
    """Ask for name and password, or offer the identity provider."""
    if not services(request).has_users:
        return RedirectResponse(HOME, 303)
    return rendering.page(request, "login.html", person=None, failure=None, oidc=services(request).web.oidc is not None)


@router.post("/login")
def log_in(
    request: Request,
    name: Annotated[str, Form(max_length=64)],
    password: Annotated[str, Form(max_length=1024)],
    found: Annotated[Services, Depends(services)],
) -> Response:
    """Begin a session."""
    access.check_origin(request)
    client = access.client_of(request)
    keys = (f"user {name}", f"from {client}")
    access.slow_down(found, *keys)
    user = found.users.with_password(name, password) if found.users is not None else None
    if user is None:
        found.attempts.failed(*keys)
        known = name if found.users is not None and found.users.user(name) is not None else "unknown"
        found.people.authenticated(Authentication.LOGIN, known, client, Outcome.SERIOUS_FAILURE)
        return rendering.page(
            request,
            "login.html",
            person=None,
            status=401,
            failure="Name or password is wrong.",
            oidc=found.web.oidc is not None,
        )
    found.attempts.succeeded(*keys)
    found.people.authenticated(Authentication.LOGIN, user.name, client, Outcome.SUCCESS)
    session = Session(name=user.name, role=user.role, via=Via.PASSWORD, password_hash=user.password)
    return welcome(request, found, session)


def welcome(request: Request, found: Services, session: Session) -> Response:
    """Begin a session, and show the first page."""
    found.sessions.end(request.cookies.get(cookies.name(request.url.scheme), ""))
    response = RedirectResponse(HOME, 303)
    cookies.give(response, request.url.scheme, found.sessions.begin(session).token)
    return response


@router.post("/logout")
async def log_out(request: Request, person: Annotated[person.Person, Depends(access.viewer)]) -> Response:
    """End the session."""
    access.check_origin(request)
    await access.check_token(request, person)
    found = services(request)
    found.sessions.end(request.cookies.get(cookies.name(request.url.scheme), ""))
    found.people.authenticated(Authentication.LOGOUT, person.name, access.client_of(request), Outcome.SUCCESS)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(cookies.name(request.url.scheme), path="/")
    return response


def _provider(found: Services) -> Provider:
    if found.oidc is None:
        raise Problem(404, "not-found", "no identity provider is configured")
    return found.oidc


@router.get("/login/oidc")
def begin(request: Request, found: Annotated[Services, Depends(services)]) -> Response:
    """Send the browser to the provider."""
    browser = secrets.token_urlsafe(32)
    response = RedirectResponse(_provider(found).begin(_redirect_uri(request), browser), 303)
    cookies.give_to_provider(response, request.url.scheme, browser)
    return response


@router.get(CALLBACK)
def finish(
    request: Request, found: Annotated[Services, Depends(services)], state: str = "", code: str = ""
) -> Response:
    """Begin the session; a page of our own leads on, or the strict cookie would not come along."""
    client = access.client_of(request)
    try:
        browser = request.cookies.get(cookies.PROVIDER, "")
        session = _provider(found).finish(state, code, _redirect_uri(request), browser)
    except Problem:
        found.people.authenticated(Authentication.LOGIN, "unknown", client, Outcome.SERIOUS_FAILURE)
        raise
    found.people.authenticated(Authentication.LOGIN, session.name, client, Outcome.SUCCESS)
    response = rendering.page(request, "welcome.html", person=None)
    cookies.give(response, request.url.scheme, found.sessions.begin(session).token)
    response.delete_cookie(cookies.PROVIDER, path="/login")
    return response


def _redirect_uri(request: Request) -> str:
    return str(request.url.replace(path=CALLBACK, query=""))
