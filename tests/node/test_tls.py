"""Who gets in over TLS and who does not, seen by openssl, DCMTK and pynetdicom; and certificates that are renewed."""

from __future__ import annotations

import logging
import shutil
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from cxr_node.config.network import Tls
from cxr_node.config.schema import Listen
from cxr_node.errors import ConfigError
from cxr_node.node.ledger import queries
from cxr_node.node.network.rejections import Cause
from cxr_node.node.network.tls import PeerCertificate, server_tls
from cxr_node.node.receive.acse import Call, judge
from cxr_node.node.receive.listener import HANDSHAKE_S
from tests import builders
from tests.node import wire
from tests.node.certificates import Authority, Identity
from tests.node.receivers import Receiving, receiving
from tests.node.test_receive import eventually
from tests.node.wire import ASSOCIATE_AC, ASSOCIATE_RJ, Wire

RQ = wire.associate_rq({1: (wire.VERIFICATION, (wire.IMPLICIT,))})
AEAD = ["AES256-GCM-SHA384", "AES128-GCM-SHA256", "CHACHA20-POLY1305"]
NOT_AEAD = ["AES256-SHA384", "AES128-SHA256", "AES256-SHA", "AES128-SHA"]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def node(ca: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiving]:
    with receiving(tmp_path_factory.mktemp("node") / "spool", tls=ca.issue("node").tls()) as node:
        yield node


@pytest.fixture(scope="module")
def rsa_node(ca: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiving]:
    with receiving(tmp_path_factory.mktemp("rsa") / "spool", tls=ca.issue("rsa", is_rsa=True).tls()) as node:
        yield node


def s_client(port: int, ca: Authority, identity: Identity | None, *words: str) -> int:
    """Type of the PDU that answers an A-ASSOCIATE-RQ over `openssl s_client`; 0 where none comes."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    command: list[Any] = [openssl, "s_client", "-quiet", "-verify_return_error", "-CAfile", ca.pem, *words]
    command += ["-connect", f"127.0.0.1:{port}"]
    if identity is not None:
        command += ["-cert", identity.certificate, "-key", identity.key]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(RQ)
        process.stdin.flush()
        return int.from_bytes(process.stdout.read(1), "big")
    except BrokenPipeError:
        return 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("words", [(), ("-tls1_3",), ("-tls1_2",)], ids=str)
def test_tls_1_3_and_1_2_get_in(node: Receiving, ca: Authority, words: tuple[str, ...]) -> None:
    assert s_client(node.port, ca, ca.issue("client"), *words) == ASSOCIATE_AC


@pytest.mark.parametrize("cipher", AEAD)
def test_aead_ciphers_of_tls_1_2_get_in(node: Receiving, rsa_node: Receiving, ca: Authority, cipher: str) -> None:
    client = ca.issue("client")
    assert s_client(node.port, ca, client, "-tls1_2", "-cipher", f"ECDHE-ECDSA-{cipher}") == ASSOCIATE_AC
    assert s_client(rsa_node.port, ca, client, "-tls1_2", "-cipher", f"ECDHE-RSA-{cipher}") == ASSOCIATE_AC


@pytest.mark.parametrize("cipher", NOT_AEAD)
def test_other_ciphers_of_tls_1_2_do_not(node: Receiving, rsa_node: Receiving, ca: Authority, cipher: str) -> None:
    client = ca.issue("client")
    for port, kinds in ((node.port, "ECDHE-ECDSA"), (rsa_node.port, "ECDHE-RSA")):
        assert s_client(port, ca, client, "-tls1_2", "-cipher", f"{kinds}-{cipher}:@SECLEVEL=0") == 0


@pytest.mark.parametrize("cipher", ["AES256-GCM-SHA384", "AES128-SHA", "aNULL", "eNULL", "DHE-RSA-AES256-GCM-SHA384"])
def test_no_forward_secrecy_no_encryption_no_authentication_do_not(
    rsa_node: Receiving, ca: Authority, cipher: str
) -> None:
    assert s_client(rsa_node.port, ca, ca.issue("client"), "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0") == 0


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_older_versions_do_not(node: Receiving, ca: Authority, version: str) -> None:
    assert s_client(node.port, ca, ca.issue("client"), version, "-cipher", "ALL:@SECLEVEL=0") == 0


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_who_cannot_be_believed_does_not_get_in(
    node: Receiving, ca: Authority, stranger: Authority, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    late = ca.issue("late", ends_in=timedelta(days=-1))
    server = ca.issue("server", usages=[ExtendedKeyUsageOID.SERVER_AUTH])
    assert s_client(node.port, ca, None, version) == 0
    assert s_client(node.port, ca, late, version) == 0
    assert s_client(node.port, ca, server, version) == 0
    assert s_client(node.port, ca, stranger.issue("client"), version) == 0
    assert s_client(node.port, ca, ca.issue("client"), version) == ASSOCIATE_AC


def test_plain_text_does_not_get_in(node: Receiving) -> None:
    with Wire(node.port) as peer:
        assert peer.associate()[0] != ASSOCIATE_AC


def test_the_journal_says_why(tmp_path: Path, ca: Authority, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cxr_node")

    def refused() -> list[str]:
        return [line for record in caplog.records if (line := record.getMessage()).startswith("refused")]

    with receiving(tmp_path / "spool", tls=ca.issue("node").tls()) as node:
        assert not is_let_in(node, ca.issue("late", ends_in=timedelta(days=-1)))
        assert eventually(refused)  # the client hears it before the journal does
        with Wire(node.port) as peer:
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
            while peer.socket.recv(1000):
                pass
    assert refused() == [
        "refused peer=127.0.0.1 ae='' cause=tls certificate not accepted: certificate has expired",
        "refused peer=127.0.0.1 ae='' cause=tls … and 1 more",
        "refused or ended since the start tls=2",
    ]


@contextmanager
def over_tls(node: Receiving, identity: Identity) -> Iterator[Wire]:
    with Wire(node.port) as peer:
        peer.socket = identity.client().wrap_socket(peer.socket)
        yield peer


def answer(node: Receiving, identity: Identity, calling: str = "WIRE") -> tuple[int, tuple[int, ...]]:
    with over_tls(node, identity) as peer:
        kind, content = peer.associate(calling=calling)
        return kind, tuple(content[1:4])


def is_let_in(node: Receiving, identity: Identity) -> bool:
    try:
        return answer(node, identity)[0] == ASSOCIATE_AC
    except OSError:  # of TLS 1.3 a client hears of its refusal when it reads, or finds the connection reset
        return False


def test_an_ae_title_belongs_to_its_certificate(
    tmp_path: Path, ca: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """The right CA is not enough: who has XR2's certificate is not XR1."""
    one, two = ca.issue("xr1", hosts=["xr1.example.org"]), ca.issue("xr2", hosts=[])
    peers = [
        {"ae_title": "XR1", "certificate": ["XR1.example.org"]},
        {"ae_title": "XR2", "certificate": ["nobody", "xr2"]},  # a Common Name, for want of another name
        {"ae_title": "XR3", "certificate": [":".join(two.fingerprint[i : i + 2].upper() for i in range(0, 64, 2))]},
        {"ae_title": "XR4", "hosts": ["10.9.9.9"]},
    ]
    with receiving(tmp_path / "spool", tls=ca.issue("node").tls(), peers=peers) as node:
        for identity, calling in ((one, "XR1"), (two, "XR2"), (two, "XR3")):
            assert answer(node, identity, calling)[0] == ASSOCIATE_AC
        for identity, calling in ((two, "XR1"), (one, "XR2"), (one, "XR3"), (one, "XR4"), (one, "XR5")):
            assert answer(node, identity, calling) == (ASSOCIATE_RJ, (1, 1, 3))
    lines = [record.getMessage() for record in caplog.records if "refused peer" in record.getMessage()]
    assert lines[0] == (f"refused peer=127.0.0.1 ae='XR1' cause=certificate names='xr2' sha256={two.fingerprint}")
    assert [line.split("cause=")[1].split()[0] for line in lines[1:]] == ["host", "calling-ae-title", "certificate"]
    assert lines[-1].endswith("… and 2 more")


@pytest.mark.parametrize(
    ("calling", "host", "names", "cause"),
    [
        ("XR1", "10.0.0.1", {"xr1.example.org"}, None),
        ("XR1", "10.0.0.1", {"xr1.example.org", "other"}, None),
        ("XR1", "10.0.0.1", {"other"}, Cause.CERTIFICATE),
        ("XR1", "10.0.0.1", None, Cause.CERTIFICATE),
        ("XR1", "10.0.0.2", {"xr1.example.org"}, Cause.CERTIFICATE),
        ("XR1", "10.0.0.3", {"xr1.example.org"}, Cause.HOST),
        ("XR1", "10.0.0.2", {"spare"}, None),
        ("XR9", "10.0.0.1", {"xr1.example.org"}, Cause.CALLING_AE_TITLE),
    ],
)
def test_title_host_and_certificate_are_of_one_and_the_same_peer(
    calling: str, host: str, names: set[str] | None, cause: Cause | None
) -> None:
    tls = {"certificate": "a", "key": "b", "ca": "c"}
    first = {"ae_title": "XR1", "hosts": ["10.0.0.1"], "certificate": ["xr1.example.org"]}
    second = {"ae_title": "XR1", "hosts": ["10.0.0.2"], "certificate": ["spare"]}
    listen = Listen.model_validate({"tls": tls, "peers": [first, second]})
    shown = PeerCertificate(fingerprint="", names=frozenset(names)) if names is not None else None
    call = Call(called_ae_title="CXR_NODE", calling_ae_title=calling, host=host, certificate=shown)
    assert judge(call, listen, Counter()) is cause


def test_revoked_certificates_do_not_get_in(tmp_path: Path) -> None:
    """Neither one that was revoked before the start, nor one that is revoked while the node listens."""
    ca = Authority(tmp_path)
    first, second, third = (ca.issue(name) for name in ("first", "second", "third"))
    ca.revoke(first)
    with receiving(tmp_path / "spool", tls=ca.issue("node").tls(crl=str(ca.crl))) as node:
        assert s_client(node.port, ca, first) == 0
        assert s_client(node.port, ca, second) == ASSOCIATE_AC
        ca.revoke(second)
        assert s_client(node.port, ca, second) == 0
        assert s_client(node.port, ca, third) == ASSOCIATE_AC


def presented(node: Receiving, client: Identity) -> bytes | None:
    with over_tls(node, client) as peer:
        assert isinstance(peer.socket, ssl.SSLSocket)
        return peer.socket.getpeercert(binary_form=True)


def der(identity: Identity) -> bytes:
    return identity.x509.public_bytes(serialization.Encoding.DER)


def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca = Authority(tmp_path)
    client, ours = ca.issue("client"), ca.issue("node")
    first = der(ours)
    with receiving(tmp_path / "spool", tls=ours.tls()) as node, over_tls(node, client) as before:
        assert before.associate()[0] == ASSOCIATE_AC
        assert presented(node, client) == first
        second = der(ca.issue("node"))
        assert presented(node, client) == second != first
        assert before.echo() == 0x0000  # an association lives on with the certificate that it began with
        whole = ours.certificate.read_bytes()
        for broken in (b"", whole[:200], client.certificate.read_bytes()):
            ours.certificate.write_bytes(broken)
            assert presented(node, client) == second
            assert presented(node, client) == second
        ours.certificate.unlink()
        assert presented(node, client) == second
        ours.certificate.write_bytes(whole)
        ca.issue("node")
        assert presented(node, client) == der(ours) != second
        assert answer(node, client)[0] == ASSOCIATE_AC
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 4  # one each, however many shook hands meanwhile
    assert all("the previous certificates stay in use: listen.tls: " in one.getMessage() for one in errors)


def test_a_renewed_ca_is_believed_without_a_restart(tmp_path: Path, stranger: Authority) -> None:
    ca = Authority(tmp_path)
    node_certificate, theirs = ca.issue("node"), stranger.issue("client")
    theirs = Identity(certificate=theirs.certificate, key=theirs.key, ca=ca.pem)
    old = ca.issue("client")
    both = tmp_path / "both.pem"
    both.write_bytes(ca.pem.read_bytes())
    with receiving(tmp_path / "spool", tls=node_certificate.tls() | {"ca": str(both)}) as node:
        assert not is_let_in(node, theirs)
        both.write_bytes(ca.pem.read_bytes() + stranger.pem.read_bytes())
        assert answer(node, theirs)[0] == answer(node, old)[0] == ASSOCIATE_AC


def test_files_that_cannot_be_used_are_the_operators_mistake(tmp_path: Path, ca: Authority) -> None:
    good, other = ca.issue("good"), ca.issue("other")
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key(good.key.read_bytes(), None)
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    locked.touch(0o600)
    locked.write_bytes(key.private_bytes(*pem, serialization.BestAvailableEncryption(b"secret")))
    for change in (
        {"certificate": tmp_path / "missing.pem"},
        {"key": other.key},
        {"key": locked},  # nobody is there to type the pass phrase
        {"ca": good.key},
        {"crl": ca.pem},
        {"crl": tmp_path / "missing.crl"},
    ):
        with pytest.raises(ConfigError, match=r"^listen\.tls.*(cannot be used: |holds no certificate revocation)"):
            server_tls(Tls.model_validate(good.tls() | change))


def test_security_level_and_options(ca: Authority) -> None:
    context = server_tls(Tls.model_validate(ca.issue("node").tls()))
    assert context.security_level >= 2  # 112 bits: RSA of 2048
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert {cipher["aead"] for cipher in context.get_ciphers()} == {True}


@pytest.mark.parametrize(("silent", "from_hosts"), [(50, 1), (50, 50), (200, 200)])
def test_silent_clients_keep_nobody_waiting(tmp_path: Path, ca: Authority, silent: int, from_hosts: int) -> None:
    """Fewer places than silent clients, from one host or from each a few: others shake hands, associate and echo.

    The first to come after them waits until they have been let in, which is the machine's speed; no other does.
    """
    client = ca.issue("client").client()
    with receiving(tmp_path / "spool", tls=ca.issue("node").tls()) as node, ExitStack() as stack:
        alone_s = sorted(echo_s(node, client) for _ in range(20))
        for number in range(silent):
            host = f"127.0.1.{1 + number % from_hosts}"
            stack.enter_context(socket.create_connection(("127.0.0.1", node.port), 20, source_address=(host, 0)))
        first_s = echo_s(node, client)
        among_s = sorted(echo_s(node, client) for _ in range(20))
    print(f"{silent} silent clients: first {first_s:.3f} s, then {among_s} s; {alone_s} s alone")
    assert first_s < silent * HANDSHAKE_S / 5  # they were not waited for, one after the other
    assert among_s[len(among_s) // 2] < max(HANDSHAKE_S, 3 * alone_s[-2])  # nor for any one of them


def echo_s(node: Receiving, client: ssl.SSLContext) -> float:
    started = time.monotonic()
    with Wire(node.port) as peer:
        peer.socket = client.wrap_socket(peer.socket)
        assert peer.associate()[0] == ASSOCIATE_AC
        assert peer.echo() == 0x0000
        assert peer.release() == wire.RELEASE_RP
    return time.monotonic() - started


def dcmtk(program: str, node: Receiving, identity: Identity, *words: Any) -> subprocess.CompletedProcess[str]:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed: apt-get install dcmtk")
    tls = ["+tla"] if "+tla" in words else ["+tls", identity.key, identity.certificate, "+cf", identity.ca]
    command = [found, *tls, "-aec", "CXR_NODE", *words[:-1], "127.0.0.1", str(node.port), words[-1]]
    return subprocess.run([one for one in command if one], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.pacs
@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_dcmtk_stores_by_the_profiles_of_bcp_195(tmp_path: Path, ca: Authority, profile: str) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(builders.part10(builders.radiograph()))
    peers = [{"ae_title": "DCMTK", "certificate": ["dcmtk.example.org"]}]
    dcmtk_, other = ca.issue("dcmtk", hosts=["dcmtk.example.org"]), ca.issue("other")
    with receiving(tmp_path / "spool", tls=ca.issue("rsa", is_rsa=True).tls(), peers=peers) as node:
        assert dcmtk("echoscu", node, dcmtk_, "-aet", "DCMTK", profile, "").returncode == 0
        done = dcmtk("storescu", node, dcmtk_, "-aet", "DCMTK", profile, file)
        assert done.returncode == 0, done.stderr
        assert len(queries.recent(node.ledger, 10)) == 1
        refused = dcmtk("echoscu", node, other, "-aet", "DCMTK", profile, "")
        assert refused.returncode != 0
        assert "Calling AE Title Not Recognized" in refused.stderr


@pytest.mark.pacs
@pytest.mark.parametrize("profile", ["+pn", "+tla"])
def test_dcmtk_without_encryption_or_certificate_does_not_get_in(node: Receiving, ca: Authority, profile: str) -> None:
    assert dcmtk("echoscu", node, ca.issue("client"), "-aet", "DCMTK", profile, "").returncode != 0


@pytest.mark.pacs
def test_dcmtk_of_a_foreign_ca_or_too_late_does_not_get_in(node: Receiving, ca: Authority, stranger: Authority) -> None:
    theirs = stranger.issue("dcmtk")
    late = ca.issue("late", ends_in=timedelta(days=-1))
    for identity in (Identity(certificate=theirs.certificate, key=theirs.key, ca=ca.pem), late):
        assert dcmtk("echoscu", node, identity, "-aet", "DCMTK", "").returncode != 0
    assert eventually(lambda: dcmtk("echoscu", node, ca.issue("client"), "-aet", "DCMTK", "").returncode == 0)
