"""What a request to a destination shows to be let in: a password, a token, or one that a token server gives.

Secrets and tokens are never in a log line, an exception or a URL.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
from pathlib import Path
from typing import Protocol
from urllib.parse import quote_plus, urlsplit

import httpx

from cxr_node.config import permissions
from cxr_node.config.http import (
    Authentication,
    BasicAuthentication,
    BearerAuthentication,
    HttpTls,
    OAuth2Authentication,
)
from cxr_node.errors import UnreachableError
from cxr_node.node.network import tls

_MAX_SECRET_BYTES = 65536
_MAX_ANSWER_BYTES = 1 << 20
_EARLY_S = 30.0  # a token ends at the server's clock, in the middle of a long object perhaps
_UNSTATED_S = 300.0  # RFC 6749 5.1: expires_in may be missing
_ERROR = re.compile(r"[a-z_]{1,40}")  # RFC 6749 5.2: invalid_client and its like; anything else is not repeated
_TOKEN = re.compile(r"[!-~]+")


class Authorization(Protocol):
    """Makes the header Authorization. For one thread."""

    def header(self) -> str | None:
        """The header's value; None: there is none to show.

        Raises
        ------
        UnreachableError : there is no secret or no token now; no object is to blame.
        """
        ...

    def renew(self) -> bool:
        """The destination did not accept it; whether the next `header` may be another one."""
        ...


def authorization(authentication: Authentication | None, timeout_s: float) -> Authorization:
    """Make what shows it.

    Raises
    ------
    ConfigError : others may read the secret, there is no such credential, or the authority cannot be used.
    """
    match authentication:
        case None:
            return _Nothing()
        case BasicAuthentication():
            return _Basic(authentication)
        case BearerAuthentication():
            return _Bearer(authentication)
        case OAuth2Authentication():
            return _ClientCredentials(authentication, timeout_s)


class _Nothing:
    def header(self) -> str | None:
        return None

    def renew(self) -> bool:
        return False


class _Basic:
    def __init__(self, settings: BasicAuthentication) -> None:
        self._user = settings.user
        self._file = permissions.private_key(settings.password, "password")

    def header(self) -> str | None:
        encoded = base64.b64encode(f"{self._user}:{_secret(self._file)}".encode())
        return f"Basic {encoded.decode('ascii')}"

    def renew(self) -> bool:
        return False


class _Bearer:
    def __init__(self, settings: BearerAuthentication) -> None:
        self._file = permissions.private_key(settings.token, "token")
        self._shown = ""

    def header(self) -> str | None:
        self._shown = _token(_secret(self._file), str(self._file))
        return f"Bearer {self._shown}"

    def renew(self) -> bool:
        """Somebody may have put another one there since."""
        return _secret(self._file) != self._shown


class _ClientCredentials:
    """RFC 6749 4.4; the client is authenticated by HTTP Basic, which every token server must support (2.3.1)."""

    def __init__(self, settings: OAuth2Authentication, timeout_s: float) -> None:
        self._settings = settings
        self._file = permissions.private_key(settings.client_secret, "client secret")
        self._context = tls.Renewed(HttpTls(ca=settings.ca), tls.client_tls)
        self._timeout_s = timeout_s
        self._token = ""
        self._ends_at = 0.0

    def header(self) -> str | None:
        if not self._token or time.monotonic() >= self._ends_at:
            self._fetch()
        return f"Bearer {self._token}"

    def renew(self) -> bool:
        had, self._token = self._token, ""
        return bool(had)

    def _fetch(self) -> None:
        asked_at, where = time.monotonic(), urlsplit(self._settings.token_url).hostname
        try:
            answer = self._ask(self._context.context())
            found = json.loads(answer.content[:_MAX_ANSWER_BYTES])
        except (httpx.HTTPError, OSError) as error:
            raise UnreachableError(f"no token: {where} cannot be asked ({type(error).__name__})") from error
        except (ValueError, RecursionError) as error:
            raise UnreachableError(f"no token: {where} answers HTTP {answer.status_code}, and no JSON") from error
        if answer.status_code != httpx.codes.OK or not isinstance(found, dict) or "access_token" not in found:
            raise UnreachableError(f"no token: {where} answers HTTP {answer.status_code}{_reason(found)}")
        self._token = _token(found["access_token"], f"the answer of {where}")
        lasts_s = found.get("expires_in")
        known_s = float(lasts_s) if isinstance(lasts_s, int | float) and lasts_s > 0 else _UNSTATED_S
        self._ends_at = asked_at + max(known_s - _EARLY_S, known_s / 2)

    def _ask(self, context: ssl.SSLContext) -> httpx.Response:
        form = {"grant_type": "client_credentials"} | ({"scope": self._settings.scope} if self._settings.scope else {})
        client = quote_plus(self._settings.client_id), quote_plus(_secret(self._file))
        with httpx.Client(verify=context, trust_env=False, timeout=self._timeout_s) as http:
            return http.post(self._settings.token_url, data=form, auth=client)


def _secret(file: Path) -> str:
    """What a file holds, without the white space around it."""
    try:
        with file.open("rb") as opened:
            found = opened.read(_MAX_SECRET_BYTES).decode("utf-8").strip()
    except OSError as error:
        raise UnreachableError(f"{file}: {(error.strerror or 'cannot be read').lower()}") from error
    except UnicodeDecodeError as error:
        raise UnreachableError(f"{file}: is not text") from error
    if not found:
        raise UnreachableError(f"{file}: is empty")
    return found


def _token(value: object, where: str) -> str:
    """RFC 6750 2.1: visible ASCII characters; a line break would end the header."""
    if not isinstance(value, str) or _TOKEN.fullmatch(value) is None:
        raise UnreachableError(f"{where}: holds no token of visible ASCII characters")
    return value


def _reason(answer: object) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    return f", {error}" if isinstance(error, str) and _ERROR.fullmatch(error) else ""
