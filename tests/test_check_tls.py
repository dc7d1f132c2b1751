"""`cxr-node check` says what a peer would see of the node's TLS, and when that ends."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from cxr_node.config import loader
from cxr_node.diagnose import check
from cxr_node.diagnose.thresholds import CheckResult
from cxr_node.web.monitoring import facts
from cxr_node.web.pages import surroundings
from tests.node import peers
from tests.node.certificates import Authority, Identity
from tests.node.receivers import receiving


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "hospital")


def look(**sections: Any) -> list[CheckResult]:
    return list(check.tls_lines(loader.parse({"spool": {"path": "/var/lib/cxr-node"}, **sections})))


def listen(identity: Identity, **more: str) -> list[CheckResult]:
    return look(listen={"tls": identity.tls(**more)})


def test_a_peer_would_see_versions_ciphers_and_certificate(ca: Authority) -> None:
    node = ca.issue("node", hosts=["node.example.org", "10.0.0.4"])
    lines = listen(node)
    assert all(line.ok and not line.warning for line in lines)
    said = {f"{line.subject}: {line.figure}" for line in lines}
    assert (
        "listen.tls: TLSv1.3 with TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256, TLS_AES_128_GCM_SHA256" in said
    )
    assert (
        "listen.tls: TLSv1.2 with ECDHE-ECDSA-AES256-GCM-SHA384, ECDHE-ECDSA-AES128-GCM-SHA256, "
        "ECDHE-ECDSA-CHACHA20-POLY1305" in said
    )
    (shown,) = (line.figure for line in lines if line.subject == "listen.tls certificate")
    assert shown.startswith(
        f"CN=node, for node.example.org, 10.0.0.4, by CN=hospital, sha256 {node.fingerprint}, ends 2"
    )
    assert shown.endswith("in 364 days")
    (authority,) = (line.figure for line in lines if line.subject == "listen.tls CA")
    assert authority.startswith("CN=hospital, by itself, sha256 ")


def test_only_ciphers_that_the_certificate_can_serve_are_told(ca: Authority) -> None:
    lines = listen(ca.issue("node", is_rsa=True))
    (ciphers,) = (line.figure for line in lines if "TLSv1.2" in line.figure)
    assert "ECDHE-RSA-AES256-GCM-SHA384" in ciphers
    assert "ECDSA" not in ciphers


@pytest.mark.parametrize(
    ("ends_in", "ok", "warning", "words"),
    [
        (timedelta(days=-1), False, False, "peers refuse it"),
        (timedelta(days=10), True, True, "in 9 days"),
        (timedelta(days=29), True, True, "in 28 days"),
        (timedelta(days=32), True, False, "in 31 days"),
    ],
)
def test_the_end_of_a_certificate_is_told_in_time(
    ca: Authority, ends_in: timedelta, ok: bool, warning: bool, words: str
) -> None:
    (line,) = (one for one in listen(ca.issue("node", ends_in=ends_in)) if one.subject == "listen.tls certificate")
    assert (line.ok, line.warning) == (ok, warning)
    assert line.figure.endswith(words)


def test_a_key_of_another_certificate_is_a_failure(ca: Authority) -> None:
    node, other = ca.issue("node"), ca.issue("other")
    (line,) = look(listen={"tls": node.tls() | {"key": str(other.key)}})
    assert not line.ok
    assert line.figure.endswith("cannot be used: key values mismatch")


def test_a_certificate_for_the_other_side_is_a_failure(ca: Authority) -> None:
    client = ca.issue("client", usages=[ExtendedKeyUsageOID.CLIENT_AUTH])
    server = ca.issue("server", usages=[ExtendedKeyUsageOID.SERVER_AUTH])
    there = {"name": "there", "address": "PACS@127.0.0.1:1"}
    faults = [line for line in listen(client) if not line.ok]
    faults += [line for line in look(destinations=[there | {"tls": server.tls()}]) if not line.ok]
    assert [line.figure.split(": ")[1] for line in faults] == [
        "is not for TLS servers (key usage)",
        "is not for TLS clients (key usage)",
    ]
    assert not [line for line in look(destinations=[there | {"tls": client.tls()}]) if not line.ok]


def test_a_revocation_list_ends_too(ca: Authority, tmp_path: Path) -> None:
    node = ca.issue("node")
    (line,) = (one for one in listen(node, crl=str(ca.crl)) if one.subject == "listen.tls crl")
    assert line.ok
    assert line.figure.endswith("in 29 days")
    (fault,) = listen(node, crl=str(tmp_path / "none"))
    assert not fault.ok


def test_files_that_two_sides_share_are_told_of_once(ca: Authority) -> None:
    node = ca.issue("node")
    there = {"name": "there", "address": "PACS@127.0.0.1:1", "tls": node.tls()}
    lines = look(listen={"tls": node.tls()}, destinations=[there])
    assert sum(node.fingerprint in line.figure for line in lines) == 1


@pytest.mark.parametrize("shows", [True, False])
def test_a_web_server_needs_no_certificate_of_ours(ca: Authority, shows: bool) -> None:
    node = ca.issue("node")
    files = node.tls() if shows else {"ca": str(ca.pem)}
    config = loader.parse(
        {
            "spool": {"path": "/var/lib/cxr-node"},
            "destinations": [{"kind": "dicomweb", "name": "cloud", "url": "https://localhost/x", "tls": files}],
        }
    )
    lines = list(check.tls_lines(config))
    assert all(line.ok for line in lines)
    subjects = {line.subject for line in lines}
    assert "destination cloud tls CA" in subjects
    assert ("destination cloud tls certificate" in subjects) == shows
    assert set(facts.certificate_ends(config)) == {"destination-cloud"}
    assert {one.subject for one in surroundings._certificates(config)} == {
        *({"cloud.tls certificate"} if shows else ()),
        "cloud.tls CA",
    }


def test_without_files_there_is_nothing_to_end() -> None:
    config = loader.parse(
        {
            "spool": {"path": "/var/lib/cxr-node"},
            "destinations": [{"kind": "dicomweb", "name": "cloud", "url": "https://localhost/x", "tls": {}}],
        }
    )
    assert facts.certificate_ends(config) == {}
    assert all(line.ok for line in check.tls_lines(config))


def test_who_may_call_is_a_table(ca: Authority) -> None:
    one = {"ae_title": "XR1", "hosts": ["10.0.0.5", "10.0.1.0/24"], "certificate": ["xr1.example.org"]}
    lines = look(listen={"tls": ca.issue("node").tls(), "peers": [one, {"ae_title": "XR2"}]})
    assert [line.figure for line in lines if line.subject == "peer"] == [
        "XR1 may call from 10.0.0.5, 10.0.1.0/24, certificate: xr1.example.org",
        "XR2 may call from any host, certificate: any of the CA",
    ]


@pytest.mark.whole
def test_check_echoes_over_tls_and_knows_its_own_listener(ca: Authority, tmp_path: Path) -> None:
    node = ca.issue("node")
    archive = peers.listening(peers.Archive(), tls=ca.issue("pacs").server())
    with archive as address, receiving(tmp_path / "spool", tls=node.tls()) as running:
        tls = {"tls": node.tls()}
        good = {"name": "good", "address": str(address), **tls}
        elsewhere = {"name": "elsewhere", "address": str(address), "tls": node.tls(server_name="other.example.org")}
        plain = {"name": "plain", "address": str(address)}
        sections = {"listen": {"port": running.port, **tls}, "destinations": [good, elsewhere, plain]}
        settings = loader.parse({"spool": {"path": str(tmp_path / "spool"), "min_free_mib": 1}, **sections})
        lines = {line.subject: line for line in check.check(settings, "node.yaml")}
        assert lines["port"].figure.endswith("is already served, with our certificate")
        assert lines["destination good"].figure.endswith("answers the C-ECHO over TLS")
        assert "not accepted: Hostname mismatch" in lines["destination elsewhere"].figure
        assert not lines["destination plain"].ok
        stranger = ca.issue("stranger")
        other = loader.parse(
            {"spool": {"path": str(tmp_path)}, "listen": {"port": running.port, "tls": stranger.tls()}}
        )
        assert not next(line for line in check.check(other, "node.yaml") if line.subject == "port").ok
