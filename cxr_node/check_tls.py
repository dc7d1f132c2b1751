"""What a peer would see of the node's TLS, whom the node would believe, and when certificates end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cxr_node.config import Address, Config, Tls
from cxr_node.errors import ConfigError
from cxr_node.line import Fault, Line
from cxr_node.node import certificates, send, tls
from cxr_node.node.certificates import Certificate

SOON_DAYS = 30


def tls_lines(config: Config) -> Iterator[Line]:
    """Look at the listener's TLS, its peers, and at what is shown to destinations."""
    listen, seen = config.listen, set[Path]()
    if listen.tls is not None:
        yield from _side("listen.tls", listen.tls, True, seen)
    for peer in listen.peers:
        certificate = ", ".join(peer.certificate) or ("any of the CA" if listen.tls is not None else "none")
        sentence = f"{peer.ae_title} may call from {', '.join(peer.hosts) or 'any host'}, certificate: {certificate}"
        yield Line(ok=True, subject="peer", sentence=sentence)
    for destination in config.destinations:
        if destination.tls is not None:
            yield from _side(f"destination {destination.name} tls", destination.tls, False, seen)


def is_shown_at(ours: Tls, where: Address) -> bool:
    """Tell whether somebody listens there who shows the listener's own certificate."""
    shown = send.certificate_at(where.host, where.port)
    return shown is not None and certificates.parse(shown, where)[0] == certificates.read(ours.located().certificate)[0]


def _side(subject: str, side: Tls, listens: bool, seen: set[Path]) -> Iterator[Line]:
    """One `tls` section; files that another one names too are told of once."""
    try:
        yield from _shown(subject, side, listens, seen)
    except ConfigError as error:
        yield Line(ok=False, subject=subject, sentence=str(error))


def _shown(subject: str, side: Tls, listens: bool, seen: set[Path]) -> Iterator[Line]:
    files = side.located()
    context = tls.server_tls(side) if listens else tls.client_tls(side)
    shown, *chain = certificates.read(files.certificate)
    for version, ciphers in tls.offered(context, shown.is_rsa).items():
        yield Line(ok=True, subject=subject, sentence=f"{version} with {', '.join(ciphers)}")
    usable = shown.for_servers if listens else shown.for_clients
    if not usable:
        side_name = "server" if listens else "client"
        yield Line(ok=False, subject=subject, sentence=f"{files.certificate}: is not for TLS {side_name}s (key usage)")
    if files.certificate not in seen:
        yield from (_dated(f"{subject} certificate", found) for found in (shown, *chain))
    if files.ca not in seen:
        yield from (_dated(f"{subject} CA", found) for found in certificates.read(files.ca))
    if files.crl is not None and files.crl not in seen:
        yield _crl(subject, files.crl)
    seen.update(file for file in (files.certificate, files.ca, files.crl) if file is not None)


def _dated(subject: str, found: Certificate) -> Line:
    names = f", for {', '.join(found.names)}" if found.names else ""
    issuer = "itself" if found.issuer == found.subject else found.issuer
    whose = f"{found.subject}{names}, by {issuer}, sha256 {found.fingerprint}"
    now = datetime.now(UTC)
    if found.begins_at > now:
        sentence = f"{whose}, is valid only from {found.begins_at:%Y-%m-%d %H:%M}Z"
        return Line(ok=False, subject=subject, sentence=sentence, fault=Fault.WORLD)
    return _ending(subject, whose, found.ends_at, now)


def _crl(subject: str, path: Path) -> Line:
    ends_at = certificates.crl_ends_at(path)
    if ends_at is None:
        return Line(ok=True, subject=f"{subject} crl", sentence=f"{path}: does not say when the next one is due")
    return _ending(f"{subject} crl", f"{path}", ends_at, datetime.now(UTC), soon_days=0)


def _ending(subject: str, what: str, ends_at: datetime, now: datetime, soon_days: int = SOON_DAYS) -> Line:
    if ends_at <= now:
        sentence = f"{what}, ended {ends_at:%Y-%m-%d %H:%M}Z: peers refuse it"
        return Line(ok=False, subject=subject, sentence=sentence, fault=Fault.WORLD)
    days = (ends_at - now).days
    sentence = f"{what}, ends {ends_at:%Y-%m-%d %H:%M}Z, in {days} days"
    return Line(ok=True, warning=days < soon_days, subject=subject, sentence=sentence)
