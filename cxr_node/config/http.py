"""How a service that speaks HTTP is reached, believed and convinced: URL, certificates, authentication."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cxr_node.config import permissions
from cxr_node.config.network import Tls
from cxr_node.config.section import File, Section, by_kind


def _base_url(value: str) -> str:
    """Require a URL below which paths stand; without query, fragment or password.

    Raises
    ------
    ValueError : it is none.
    """
    url = value.strip().rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in url:
        raise ValueError("is not the URL of a service; write https://HOST/PATH, without user, query and fragment")
    _ = parts.port  # a ValueError where it is none
    return url


Url = Annotated[str, AfterValidator(_base_url)]
"""Without a slash at its end."""


class HttpTls(Section):
    """Whom to believe, and what to show; PEM files."""

    ca: File | None = None
    """Authority of the server's certificate; None: those of the machine."""
    certificate: File | None = None
    """Shown where the server asks for one, with `key`."""
    key: File | None = None
    crl: File | None = None
    """Certificates that the CA has revoked, as PEM, renewed before it expires; None: revocation is not checked."""

    @model_validator(mode="after")
    def _a_certificate_has_a_key(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together; write both, or none")
        if self.crl is not None and self.ca is None:
            raise ValueError("crl needs ca: a list revokes certificates of one authority")
        return self

    def located(self) -> Self:
        """Name the files where they are: credentials looked up, the key closed to others.

        Raises
        ------
        ConfigError : there is no such credential, or others may read the key.
        """
        places = {"certificate": self.certificate, "ca": self.ca, "crl": self.crl}
        found = {name: permissions.place(path) for name, path in places.items() if path is not None}
        key = {} if self.key is None else {"key": permissions.private_key(self.key)}
        return self.model_copy(update=found | key)


AnyTls = Tls | HttpTls
"""Of a listener or a destination."""


class BasicAuthentication(Section):
    """A user with a password (RFC 7617)."""

    kind: Literal["basic"] = "basic"
    user: str = Field(pattern=r"^[^:\x00-\x1f\x7f]+$")
    password: File


class BearerAuthentication(Section):
    """A token that somebody else renews (RFC 6750); its file is read again for each request."""

    kind: Literal["bearer"] = "bearer"
    token: File


class OAuth2Authentication(Section):
    """Client credentials (RFC 6749 4.4), for a token that is kept until it expires."""

    kind: Literal["oauth2"] = "oauth2"
    token_url: Url
    client_id: str = Field(min_length=1)
    client_secret: File
    scope: str | None = None
    ca: File | None = None
    """Authority of the token server's certificate; None: those of the machine."""


Authentication = Annotated[
    BasicAuthentication | BearerAuthentication | OAuth2Authentication,
    BeforeValidator(
        by_kind(
            {"basic": BasicAuthentication, "bearer": BearerAuthentication, "oauth2": OAuth2Authentication}, "bearer"
        )
    ),
]
"""Validated by its kind, so that an error names that kind's keys only."""


def secret_of(authentication: Authentication) -> File:
    """Its file that nobody else may read."""
    match authentication:
        case BasicAuthentication():
            return authentication.password
        case BearerAuthentication():
            return authentication.token
        case OAuth2Authentication():
            return authentication.client_secret
