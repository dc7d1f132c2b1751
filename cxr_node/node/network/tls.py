"""The node's TLS identity and trust, as server and as client, reloaded when the files change.

PS3.15 B.12 (BCP 195: RFC 8996, RFC 9325). Knows no association.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cxr_node.config.http import AnyTls
from cxr_node.config.network import Tls
from cxr_node.errors import ConfigError

log = logging.getLogger(__name__)

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption; all of TLS 1.3 have both."""


def server_tls(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer with forward secrecy and a client certificate of our CA.

    Raises
    ------
    ConfigError : a certificate or key cannot be used, or others may read the key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _loaded(context, tls, "listen.tls")


def client_tls(tls: AnyTls, section: str = "destinations.tls") -> ssl.SSLContext:
    """The same as a client: the server's certificate is of our CA and names the server, and ours is shown.

    Where an `HttpTls` names no CA, those of the machine are believed; where it names no certificate, none is shown.

    Raises
    ------
    ConfigError : a certificate or key cannot be used, or others may read the key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which checks certificate and name
    return _loaded(context, tls, section)


def _loaded(context: ssl.SSLContext, tls: AnyTls, section: str) -> ssl.SSLContext:
    tls = tls.located()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(CIPHERS)
    try:
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key, password=_nobody_types)
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
        else:
            context.load_default_certs()
        if tls.crl is not None:
            context.load_verify_locations(tls.crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
            if not context.cert_store_stats()["crl"]:
                raise ConfigError(f"{section}.crl: {tls.crl} holds no certificate revocation list")
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or "not PEM"
        files = ", ".join(str(file) for file in _files(tls))
        raise ConfigError(f"{section}: {files}: cannot be used: {str(why).replace('_', ' ').lower()}") from error
    return context


def offered(context: ssl.SSLContext, is_rsa: bool | None) -> dict[str, list[str]]:
    """Cipher suites by protocol version, those that a certificate of this kind (None: of any) can serve."""
    kinds = {None: {"auth-rsa", "auth-ecdsa"}, True: {"auth-rsa"}, False: {"auth-ecdsa"}}[is_rsa] | {"auth-any"}
    found: dict[str, list[str]] = {}
    for cipher in context.get_ciphers():
        if cipher["auth"] in kinds:
            found.setdefault(cipher["protocol"], []).append(cipher["name"])
    return found


def _nobody_types() -> str:
    """Pass phrase of an encrypted key: a service has no terminal to prompt at."""
    return ""


def _files(tls: AnyTls) -> list[Path]:
    return [file for file in (tls.certificate, tls.key, tls.ca, tls.crl) if file is not None]


class Renewed:
    """A context that follows its files, so that a renewed certificate needs no restart. Threads share it."""

    def __init__(self, tls: AnyTls, make: Callable[[Any], ssl.SSLContext]) -> None:
        self._tls = tls
        self._make = make
        self._lock = threading.Lock()
        self._watched = _files(tls.located())
        self._seen = self._look()
        self._context = make(tls)

    def context(self) -> ssl.SSLContext:
        """For the next handshake; unusable files change nothing and are logged once."""
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                try:
                    self._context = self._make(self._tls)
                    log.info("certificates reloaded certificate=%s", self._tls.certificate or self._tls.ca)
                except ConfigError as error:
                    log.error("the previous certificates stay in use: %s", error)
            return self._context

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(file) for file in self._watched]


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCertificate:
    """The names in a peer's certificate, in the form that the configuration uses."""

    fingerprint: str
    """SHA-256."""
    names: frozenset[str]
    """DNS names and IP addresses of the subjectAltName; without any, the Common Names."""

    def is_one_of(self, certificates: tuple[str, ...]) -> bool:
        """Whether a list of fingerprints and names contains it."""
        return self.fingerprint in certificates or not self.names.isdisjoint(certificates)


def peer_certificate(connection: ssl.SSLSocket | ssl.SSLObject) -> PeerCertificate:
    """Read the certificate that a peer has shown in a handshake, which has verified it."""
    encoded, certificate = connection.getpeercert(binary_form=True), cast(dict[str, Any], connection.getpeercert())
    if not encoded or not certificate:
        raise ssl.SSLError("no certificate was shown")
    names = {_name(kind, value) for kind, value in certificate.get("subjectAltName", ()) if kind in _NAMES}
    if not names:
        subject = [pair for part in certificate.get("subject", ()) for pair in part]
        names = {value.lower() for kind, value in subject if kind == "commonName"}
    return PeerCertificate(fingerprint=hashlib.sha256(encoded).hexdigest(), names=frozenset(names))


_NAMES = ("DNS", "IP Address")


def _name(kind: str, value: str) -> str:
    return str(ipaddress.ip_address(value.strip())) if kind == "IP Address" else value.lower()


def why(error: OSError) -> str:
    """Why a handshake failed, in OpenSSL's constant words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return "the handshake took too long" if isinstance(error, TimeoutError) else "the connection was lost"
