"""Who may not come in over TLS does not, again and again, while one who may is served as ever (T1, T13, T14).

Short: every stranger twice, 20 silent and 20 garbage connections. Long: every stranger 25 times, 100 of each.
"""

from __future__ import annotations

import ssl
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from tests.chaos.conftest import Report
from tests.chaos.crowd import GARBAGE, LEGAL_HOST, SILENT, Crowd, LegalPeer
from tests.chaos.roles import Peak, Role, is_back
from tests.chaos.test_crowds import hosts, radiographs
from tests.node import wire
from tests.node.certificates import Authority, Identity
from tests.node.wire import Wire
from tests.patience import PATIENCE_S, eventually

Stranger = Callable[[Wire], int]
"""Tries to get in; the kind of the PDU that it was answered with, 0 for none."""


def strangers(folder: Path, known: Authority) -> dict[str, Stranger]:
    """One for each way of not being who one should be."""
    other = Authority(folder, "other")
    legal, second = (known.issue(name, hosts=(f"{name}.example.org",)) for name in ("legal", "second"))
    expired = known.issue("expired", hosts=("legal.example.org",), ends_in=timedelta(days=-1))
    foreign = other.issue("foreign", hosts=("legal.example.org",))
    return {
        "plain text": lambda peer: peer.associate(calling="LEGAL")[0],
        "no certificate": lambda peer: _call(peer, _trusting(known)),
        "expired": lambda peer: _call(peer, _showing(expired, known)),
        "foreign CA": lambda peer: _call(peer, _showing(foreign, known)),
        "TLS 1.0": lambda peer: _call(peer, _old(legal, ssl.TLSVersion.TLSv1)),
        "TLS 1.1": lambda peer: _call(peer, _old(legal, ssl.TLSVersion.TLSv1_1)),
        "anonymous": lambda peer: _call(peer, _with_ciphers(legal, "aNULL:@SECLEVEL=0")),
        "NULL": lambda peer: _call(peer, _with_ciphers(legal, "eNULL:@SECLEVEL=0")),
        "CBC, no forward secrecy": lambda peer: _call(peer, _with_ciphers(legal, "AES256-SHA:AES128-SHA:@SECLEVEL=0")),
        "right certificate, unknown AE title": lambda peer: _call(peer, legal.client(), "NOBODY"),
        "right certificate, another's AE title": lambda peer: _call(peer, legal.client(), "SECOND"),
        "another's certificate, right AE title": lambda peer: _call(peer, second.client(), "LEGAL"),
        "right certificate, wrong host": lambda peer: _call(peer, legal.client(), "LEGAL"),
    }


def _call(peer: Wire, context: ssl.SSLContext, calling: str = "LEGAL") -> int:
    peer.socket = context.wrap_socket(peer.socket)
    return peer.associate(calling=calling)[0]


def _trusting(known: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=known.pem)
    context.check_hostname = False
    return context


def _showing(identity: Identity, known: Authority) -> ssl.SSLContext:
    context = _trusting(known)
    context.load_cert_chain(identity.certificate, identity.key)
    return context


def _old(identity: Identity, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = identity.client()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    return context


def _with_ciphers(identity: Identity, ciphers: str) -> ssl.SSLContext:
    context = identity.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    return context


def _try(port: int, stranger: Stranger) -> str:
    try:
        with Wire(port) as peer:
            kind = stranger(peer)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        return type(error).__name__
    return {0: "closed", wire.ASSOCIATE_AC: "LET IN", wire.ASSOCIATE_RJ: "rejected", wire.ABORT: "aborted"}[kind]


def test_the_old_and_the_weak_would_be_let_in_by_a_lax_listener(tmp_path: Path) -> None:
    """Else they would have been stopped by their own library, and the matrix would prove nothing."""
    known = Authority(tmp_path)
    server, legal = known.issue("lax"), known.issue("legal")
    lax = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    lax.load_cert_chain(server.certificate, server.key)
    lax.set_ciphers("ALL:eNULL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        lax.minimum_version = ssl.TLSVersion.TLSv1
    clients = {
        "TLSv1": _old(legal, ssl.TLSVersion.TLSv1),
        "TLSv1.1": _old(legal, ssl.TLSVersion.TLSv1_1),
        "AECDH": _with_ciphers(legal, "aNULL:@SECLEVEL=0"),
        "NULL": _with_ciphers(legal, "eNULL:@SECLEVEL=0"),
    }
    for name, client in clients.items():
        seen = _shake_hands(lax, client)
        assert any(name in word for word in seen), (name, seen)


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[str, str]:
    """Version and cipher that both agree on, without a network."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [server.wrap_bio(to_server, to_client, server_side=True), client.wrap_bio(to_client, to_server)]
    for _ in range(10):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    cipher = ends[1].cipher()
    assert cipher is not None
    return str(ends[1].version()), cipher[0]


@pytest.mark.parametrize(("rounds", "each"), [(2, 20), pytest.param(25, 100, marks=pytest.mark.chaos)])
def test_tls_lets_in_who_may_and_nobody_else(tmp_path: Path, report: Report, rounds: int, each: int) -> None:
    known = Authority(tmp_path)
    server = known.issue("node")
    people = strangers(tmp_path, known)
    legal = Identity(certificate=tmp_path / "legal.pem", key=tmp_path / "legal.key", ca=known.pem)
    peers = [
        {"ae_title": "LEGAL", "hosts": [LEGAL_HOST], "certificate": ["legal.example.org"]},
        {"ae_title": "SECOND", "hosts": ["127.0.0.1"], "certificate": ["second.example.org"]},
    ]
    with Role(tmp_path / "node", "receive", listen={"tls": server.tls(), "peers": peers}) as node:
        with LegalPeer(node.port, radiographs(5_000_000), legal.client()) as first:
            assert eventually(lambda: len(first.stored) >= 3, PATIENCE_S)
        eventually(lambda: node.usage().threads <= 2, 2)  # the last association is on its way out
        base = node.usage()
        crowd = [(manner, host) for manner in (SILENT, GARBAGE) for host in hosts(each, spread=True)]
        answers: dict[str, Counter[str]] = {name: Counter() for name in people}
        with Peak(node.pid) as peak, Crowd(node.port, crowd) as others:
            with LegalPeer(node.port, radiographs(), legal.client()) as peer:
                for _ in range(rounds):
                    for name, stranger in people.items():
                        answers[name][_try(node.port, stranger)] += 1
                gone = eventually(lambda: others.left() == 0, PATIENCE_S)
                assert eventually(lambda: len(peer.stored) >= 10, PATIENCE_S)
            back = eventually(lambda: is_back(node.usage(), base), PATIENCE_S)
            longest_s = others.longest_s()
        report(
            f"strangers={len(people)} rounds={rounds} answers={ {name: dict(seen) for name, seen in answers.items()} }",
            silent_and_garbage=len(crowd),
            longest_borne_s=round(longest_s, 1),
            legal=f"'{peer.fared}'",
            base=f"'{base}'",
            peak=f"'{peak}'",
        )
        assert node.lives()
    assert not [name for name, seen in answers.items() if "LET IN" in seen], answers
    assert peer.fared.failures == []
    assert peer.fared.median_s() < longest_s
    assert gone and back
