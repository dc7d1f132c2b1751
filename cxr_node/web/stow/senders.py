"""Who stores over HTTP: a key that is shown, the host that asks, and the certificate of the TLS handshake.

A key is a file that only the node reads; it is kept in memory as its SHA-256. Knows no request and no object.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_node.config import permissions
from cxr_node.config.page import StowSender
from cxr_node.errors import ConfigError
from cxr_node.node.network.rejections import Cause
from cxr_node.node.network.tls import PeerCertificate
from cxr_node.node.receive.acse import is_host

log = logging.getLogger(__name__)

MIN_KEY_CHARACTERS = 16
_NOTHING = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """What a request shows of who sends it."""

    host: str
    authorization: str = ""
    """The header field, as it came."""
    certificate: PeerCertificate | None = None


class Senders:
    """All that are configured; threads may share it.

    Raises
    ------
    ConfigError : a key cannot be used.
    """

    def __init__(self, settings: Sequence[StowSender]) -> None:
        self._keys = [(each, _Key(each.key) if each.key is not None else None) for each in settings]

    def recognize(self, visitor: Visitor) -> StowSender | Cause:
        """Who it is, or which of key, host and certificate is wrong."""
        user, shown = _shown(visitor.authorization)
        named = [
            each
            for each, key in self._keys
            if (key is None or key.is_(shown)) and user in (_NOTHING, each.name)  # compared with every key
        ]
        there = [each for each in named if not each.hosts or any(is_host(visitor.host, host) for host in each.hosts)]
        for each in there:
            if not each.certificate or (visitor.certificate and visitor.certificate.is_one_of(each.certificate)):
                return each
        return Cause.CERTIFICATE if there else Cause.HOST if named else Cause.KEY


class _Key:
    """The key in a file; while a new one cannot be used the old one holds, and the log says so once."""

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, threading.Lock()
        self._stamp, self._digest = _stamp(file), _digest(file)

    def is_(self, shown: str) -> bool:
        with self._lock:
            stamp = _stamp(self._file)
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._digest = _digest(self._file)
                except ConfigError as error:
                    log.error("the previous key stays in use: %s", error)
            return hmac.compare_digest(self._digest, hashlib.sha256(shown.encode("utf-8", "replace")).digest())


def _stamp(file: Path) -> tuple[int, int, int, int] | None:
    try:
        found = permissions.place(file).stat()
    except (OSError, ConfigError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


def _digest(file: Path) -> bytes:
    place = permissions.private_key(file, "key")
    try:
        key = place.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read; `openssl rand -hex 32 > {file}` makes a key") from error
    if len(key) < MIN_KEY_CHARACTERS or any(char.isspace() for char in key):
        raise ConfigError(f"{file}: holds no key of at least {MIN_KEY_CHARACTERS} characters on one line")
    return hashlib.sha256(key.encode()).digest()


def _shown(authorization: str) -> tuple[str, str]:
    """User and key: of RFC 6750, which names no user, or of RFC 7617."""
    scheme, _, text = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return _NOTHING, text.strip()
        case "basic":
            try:
                user, _, key = base64.b64decode(text.strip(), validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError, ValueError):
                return "?", _NOTHING
            return user or "?", key
        case _:
            return _NOTHING, _NOTHING
