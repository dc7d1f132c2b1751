"""Certificates and revocation lists as `check` and the metrics show them: whose they are, and when they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from cxr_node.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One certificate of a file."""

    subject: str
    """Distinguished name, RFC 4514."""
    issuer: str
    names: Sequence[str]
    """subjectAltName: DNS names and IP addresses."""
    fingerprint: str
    """SHA-256."""
    begins_at: datetime
    ends_at: datetime
    is_rsa: bool
    for_servers: bool
    """Valid as a server certificate (extended key usage)."""
    for_clients: bool


def read(path: Path) -> list[Certificate]:
    """All certificates of a PEM file, the one that is shown first.

    Raises
    ------
    ConfigError : it cannot be read or holds none.
    """
    return parse(_content(path), path)


def parse(content: bytes, source: object) -> list[Certificate]:
    """All certificates of PEM text.

    Raises
    ------
    ConfigError : there is none; names the source.
    """
    try:
        return [_described(found) for found in x509.load_pem_x509_certificates(content)]
    except ValueError as error:
        raise ConfigError(f"{source}: holds no certificate in PEM") from error


def crl_ends_at(path: Path) -> datetime | None:
    """When the issuer's next list is due; None: it does not say. From then on every peer is refused.

    Raises
    ------
    ConfigError : it cannot be read or is not a certificate revocation list.
    """
    try:
        return x509.load_pem_x509_crl(_content(path)).next_update_utc
    except ValueError as error:
        raise ConfigError(f"{path}: holds no certificate revocation list in PEM") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _described(found: x509.Certificate) -> Certificate:
    return Certificate(
        subject=found.subject.rfc4514_string() or "(no subject)",
        issuer=found.issuer.rfc4514_string(),
        names=_names(found),
        fingerprint=found.fingerprint(hashes.SHA256()).hex(),
        begins_at=found.not_valid_before_utc,
        ends_at=found.not_valid_after_utc,
        is_rsa=isinstance(found.public_key(), rsa.RSAPublicKey),
        for_servers=_allows(found, ExtendedKeyUsageOID.SERVER_AUTH),
        for_clients=_allows(found, ExtendedKeyUsageOID.CLIENT_AUTH),
    )


def _names(found: x509.Certificate) -> tuple[str, ...]:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*names.get_values_for_type(x509.DNSName), *(str(address) for address in addresses))


def _allows(found: x509.Certificate, usage: x509.ObjectIdentifier) -> bool:
    try:
        allowed = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage in allowed or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in allowed
