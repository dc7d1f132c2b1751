"""The session's cookie: HttpOnly, SameSite=Strict, and Secure wherever the page has TLS."""

from __future__ import annotations

from starlette.responses import Response

PROVIDER = "cxr-node-login"
"""Binds a login by an identity provider to the browser that began it; Lax, since the provider's page leads back."""


def give_to_provider(response: Response, scheme: str, browser: str) -> None:
    """Remember for ten minutes which browser began."""
    response.set_cookie(
        PROVIDER, browser, max_age=600, secure=scheme == "https", httponly=True, samesite="lax", path="/login"
    )


def name(scheme: str) -> str:
    """`__Host-` binds a cookie to this host and to TLS (RFC 6265bis 4.1.3.2); plain loopback has another name."""
    return "__Host-cxr-node" if scheme == "https" else "cxr-node"


def give(response: Response, scheme: str, token: str) -> None:
    """Give the browser its session."""
    response.set_cookie(name(scheme), token, secure=scheme == "https", httponly=True, samesite="strict", path="/")


def header(scheme: str, token: str) -> tuple[bytes, bytes]:
    """The same, as a header."""
    response = Response()
    give(response, scheme, token)
    return next(each for each in response.raw_headers if each[0] == b"set-cookie")
