"""What a request to a destination shows to be let in: a password, a token, or one that a token server gives.

Secrets and tokens are never in a log line, an exception or a URL.
"""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import Protocol
from urllib.parse import quote_plus, urlencode, urlsplit

from cxr_node.config import permissions
from cxr_node.config.http import (
    Authentication,
    BasicAuthentication,
    BearerAuthentication,
    HttpTls,
    OAuth2Authentication,
)
from cxr_node.errors import DeliveryError, UnreachableError
from cxr_node.node.deliver.http_exchange import Answer, Exchanger, Request

_MAX_SECRET_BYTES = 65536
_EARLY_S = 30.0  # a token ends at the server's clock, in the middle of a long object perhaps
_UNSTATED_S = 300.0  # RFC 6749 5.1: expires_in may be missing
_ERRORS = (
    *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client"),
    *("unsupported_grant_type", "invalid_scope"),
)  # RFC 6749 5.2; other words of a token server are not repeated
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


def authorization(authentication: Authentication | None, timeout_s: float, proxy: str | None = None) -> Authorization:
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
            return _ClientCredentials(authentication, timeout_s, proxy)


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

    def __init__(self, settings: OAuth2Authentication, timeout_s: float, proxy: str | None) -> None:
        self._settings = settings
        self._file = permissions.private_key(settings.client_secret, "client secret")
        self._exchanger = Exchanger(HttpTls(ca=settings.ca), timeout_s, proxy)
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
            answer = self._ask()
            found = json.loads(answer.content)
        except DeliveryError as error:
            raise UnreachableError(f"no token of {where}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise UnreachableError(f"no token of {where}: {answer.words}, and no JSON") from error
        if answer.status != 200 or not isinstance(found, dict) or "access_token" not in found:
            raise UnreachableError(f"no token of {where}: {answer.words}{_reason(found)}", answer.after_s)
        self._token = _token(found["access_token"], f"the answer of {where}")
        lasts_s = found.get("expires_in")
        known_s = float(lasts_s) if isinstance(lasts_s, int | float) and lasts_s > 0 else _UNSTATED_S
        self._ends_at = asked_at + max(known_s - _EARLY_S, known_s / 2)

    def _ask(self) -> Answer:
        form = {"grant_type": "client_credentials"} | ({"scope": self._settings.scope} if self._settings.scope else {})
        content = urlencode(form).encode()
        client = f"{quote_plus(self._settings.client_id)}:{quote_plus(_secret(self._file))}"
        headers = {
            "authorization": f"Basic {base64.b64encode(client.encode()).decode()}",
            "accept": "application/json",
            "content-type": "application/x-www-form-urlencoded",
            "content-length": str(len(content)),
        }
        request = Request(method="POST", url=self._settings.token_url, headers=headers, body=lambda: iter([content]))
        try:
            return self._exchanger.exchange(request, self._timeout_s)
        finally:
            self._exchanger.close()


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
    return f", {error}" if error in _ERRORS else ""
