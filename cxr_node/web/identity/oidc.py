"""Login by the hospital's identity provider: OpenID Connect, authorization code flow with PKCE (RFC 6749, 7636).

The provider's documents and keys are fetched when somebody logs in, and kept for an hour. What a person may do is
said by one claim of the ID token.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cxr_node.config import permissions
from cxr_node.config.page import Oidc
from cxr_node.errors import ConfigError
from cxr_node.web.identity.sessions import Session, Via
from cxr_node.web.identity.users import Role
from cxr_node.web.problem import Problem

_TIMEOUT_S = 10.0
_FRESH_S = 3600.0
_PATIENCE_S = 600.0
_MAX_PENDING = 1_000
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
"""Signatures by a public key only: never "none", never the client's secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A login that the provider has not answered yet."""

    nonce: str
    verifier: str
    browser: str
    at: float


@dataclass(slots=True, kw_only=True)
class Provider:
    """One identity provider; threads may share it."""

    settings: Oidc
    _metadata: dict[str, Any] = field(default_factory=dict)
    _keys: dict[str, Any] = field(default_factory=dict)
    _fetched_at: float = float("-inf")
    _pending: OrderedDict[str, _Pending] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, redirect_uri: str, browser: str) -> str:
        """The provider's address to send the browser to. Raises `Problem` where the provider does not answer."""
        self._learn()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        with self._lock:
            self._pending[state] = _Pending(nonce=nonce, verifier=verifier, browser=browser, at=time.monotonic())
            while len(self._pending) > _MAX_PENDING:
                self._pending.popitem(last=False)
        with self._client(redirect_uri) as client:
            url, _ = client.create_authorization_url(
                self._metadata["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
            )
        return str(url)

    def finish(self, state: str, code: str, redirect_uri: str, browser: str) -> Session:
        """The session of the person whom the provider names. Raises `Problem` where that is not proven."""
        with self._lock:
            pending = self._pending.pop(state, None)
        if (
            pending is None
            or time.monotonic() - pending.at > _PATIENCE_S
            or not hmac.compare_digest(pending.browser.encode(), browser.encode())
        ):
            raise Problem(403, "oidc-state", "this login was not begun here, or took too long; log in again")
        self._learn()
        claims = self._claims(self._token(code, redirect_uri, pending.verifier), pending.nonce)
        name = str(claims.get("preferred_username") or claims["sub"])[:64]
        return Session(name=name, role=self._role(claims), via=Via.OIDC)

    def _token(self, code: str, redirect_uri: str, verifier: str) -> str:
        from authlib.common.errors import AuthlibBaseError
        from httpx2 import HTTPError

        try:
            with self._client(redirect_uri) as client:
                found = client.fetch_token(self._metadata["token_endpoint"], code=code, code_verifier=verifier)
            return str(found["id_token"])
        except (HTTPError, AuthlibBaseError, KeyError, ValueError) as error:
            raise Problem(502, "oidc", "the identity provider did not accept this login; log in again") from error

    def _claims(self, token: str, nonce: str) -> Mapping[str, Any]:
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        try:
            found = jwt.decode(token, KeySet.import_key_set(self._keys), algorithms=_ALGORITHMS)  # type: ignore[arg-type]
            rules = jwt.JWTClaimsRegistry(
                leeway=60,
                iss={"essential": True, "value": self.settings.issuer},
                aud={"essential": True, "value": self.settings.client_id},
                exp={"essential": True},
                sub={"essential": True},
                nonce={"essential": True, "value": nonce},
            )
            rules.validate(found.claims)
        except (JoseError, ValueError) as error:
            raise Problem(502, "oidc-token", "the identity provider's answer is not valid; log in again") from error
        return found.claims

    def _role(self, claims: Mapping[str, Any]) -> Role:
        said = claims.get(self.settings.claim)
        values = {str(each) for each in said} if isinstance(said, list) else {str(said)}
        if values & set(self.settings.operators):
            return Role.OPERATOR
        if values & set(self.settings.readers):
            return Role.READER
        if values & set(self.settings.viewers):
            return Role.VIEWER
        raise Problem(403, "oidc-role", f"your account has no role here; web.oidc.{self.settings.claim} decides")

    def _client(self, redirect_uri: str) -> Any:
        from authlib.integrations.httpx_client import OAuth2Client

        secret = permissions.private_key(self.settings.client_secret)
        try:
            text = secret.read_text("utf-8").strip()
        except OSError as error:
            raise ConfigError(f"web.oidc.client_secret: {secret}: cannot be read ({error.strerror})") from error
        return OAuth2Client(
            client_id=self.settings.client_id,
            client_secret=text,
            redirect_uri=redirect_uri,
            scope="openid profile",
            code_challenge_method="S256",
            timeout=_TIMEOUT_S,
        )

    def _learn(self) -> None:
        """Fetch the provider's metadata and keys where they are older than an hour."""
        import httpx2

        with self._lock:
            if time.monotonic() - self._fetched_at < _FRESH_S:
                return
        issuer = self.settings.issuer.rstrip("/")
        try:
            metadata = httpx2.get(f"{issuer}/.well-known/openid-configuration", timeout=_TIMEOUT_S).raise_for_status()
            found = metadata.json()
            keys = httpx2.get(found["jwks_uri"], timeout=_TIMEOUT_S).raise_for_status().json()
            if found["issuer"] != self.settings.issuer:
                raise ValueError("issuer")  # OpenID Connect Discovery 4.3
        except (httpx2.HTTPError, httpx2.InvalidURL, KeyError, TypeError, ValueError) as error:
            raise Problem(
                502, "oidc", "the identity provider does not answer; try again, or ask for a password"
            ) from error
        with self._lock:
            self._metadata, self._keys, self._fetched_at = found, keys, time.monotonic()
