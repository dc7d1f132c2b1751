"""The guard against slow, silent, huge and many peers, and the names inside pynetdicom that it stands on."""

from __future__ import annotations

import inspect
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pynetdicom
import pytest
from pynetdicom import acse, association, dimse, dul, transport

from cxr_node.config import Tls
from cxr_node.errors import ConfigError
from cxr_node.node import history
from cxr_node.node import transport as guarded
from cxr_node.node.tls import server_tls
from tests.node import wire
from tests.node.receivers import Receiving, receiving
from tests.node.test_receive import assert_clean, eventually, instance
from tests.node.wire import ASSOCIATE_AC, Wire


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiving]:
    """A receiver whose patience is short, but longer than a busy machine keeps an honest peer waiting."""
    monkeypatch.setattr(guarded, "PDU_GRACE_S", 0.6)
    monkeypatch.setattr("cxr_node.node.listener.HANDSHAKE_S", 0.6)
    monkeypatch.setattr("cxr_node.node.receive.ARTIM_S", 0.6)
    with receiving(tmp_path / "spool") as node:
        yield node


def ended(peer: Wire) -> bool:
    """The node has closed, or aborted and closed."""
    while (answer := peer.receive())[0]:
        assert answer[0] in (wire.ABORT, wire.ASSOCIATE_RJ)
    return True


def threads() -> int:
    return threading.active_count()


def test_what_is_overridden_is_what_pynetdicom_calls() -> None:
    """Fails when an update of the pinned library renames or changes what the guard replaces."""
    assert pynetdicom.__version__ == "3.0.4"
    for owner, name in [
        (transport.AssociationSocket, "recv"),
        (transport.AssociationSocket, "send"),
        (transport.AssociationSocket, "ready"),
        (transport.AssociationSocket, "_shutdown_socket"),
        (transport.RequestHandler, "_create_association"),
        (transport.AssociationServer, "get_request"),
        (transport.AssociationServer, "service_actions"),
        (transport.ThreadedAssociationServer, "process_request_thread"),
        (transport.ThreadedAssociationServer, "process_request"),
        (acse.ACSE, "_negotiate_as_acceptor"),
        (dimse.DIMSEServiceProvider, "receive_primitive"),
        (dul.DULServiceProvider, "kill_dul"),
    ]:
        assert hasattr(owner, name), name
    assert "self.socket.recv(6)" in inspect.getsource(dul.DULServiceProvider._read_pdu_data)
    assert "self.socket.recv(pdu_length)" in inspect.getsource(dul.DULServiceProvider._read_pdu_data)
    assert "self.socket.ready" in inspect.getsource(dul.DULServiceProvider._is_transport_event)
    assert "self._negotiate_as_acceptor()" in inspect.getsource(acse.ACSE.negotiate_association)
    assert "dul.assoc.dimse.receive_primitive(" in inspect.getsource(pynetdicom.fsm.DT_2)
    assert "self.acse.negotiate_association()" in inspect.getsource(association.Association.run_reactor)
    assert "self._reactor_checkpoint.wait()" in inspect.getsource(association.Association._run_reactor)
    assert "self.to_provider_queue.queue[0]" in inspect.getsource(dul.DULServiceProvider._process_recv_primitive)
    assert "self.to_user_queue.get(" in inspect.getsource(dul.DULServiceProvider.receive_pdu)
    assert "self.msg_queue.put(" in inspect.getsource(dimse.DIMSEServiceProvider.receive_primitive)
    assert "deepcopy(self.server.contexts)" in inspect.getsource(transport.RequestHandler._create_association)
    assert '"Evt5"' in inspect.getsource(transport.AssociationSocket.__init__)


@pytest.mark.parametrize("length", [0xFFFFFFF0, guarded.REQUEST_PDU_BYTES + 1])
def test_a_huge_request_is_not_read(node: Receiving, length: int) -> None:
    with Wire(node.port) as peer:
        peer.send(struct.pack(">BBI", 1, 0, length))
        assert ended(peer)
    assert_clean(node)


@pytest.mark.parametrize("length", [0xFFFFFFF0, 131072 + guarded.PDU_SLACK_BYTES + 1])
def test_a_huge_pdu_is_not_read(node: Receiving, length: int) -> None:
    with Wire(node.port) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.send(struct.pack(">BBI", 4, 0, length))
        assert ended(peer)
    assert_clean(node)


def test_the_longest_pdu_we_offer_is_read(node: Receiving) -> None:
    with Wire(node.port) as peer:
        _, content = peer.associate()
        assert struct.pack(">BBHI", 0x51, 0, 4, 131072) in content  # PS3.8 D.1: what we told
        peer.begin_store("1.2.3")
        peer.send(wire.pdu(wire.P_DATA, wire.pdv(bytes(131072 - 6))))
        assert peer.status() == 0xC000


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x01",
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(1000),
        b"\xff" * 1000,
        struct.pack(">BBI", 1, 0, 1000) + bytes(10),
        wire.pdu(1, bytes(10)),
        wire.pdu(4, wire.pdv(b"early")),
        wire.pdu(2, bytes(100)),
    ],
    ids=["nothing", "a byte", "http", "zeros", "ones", "half a PDU", "a short request", "data first", "an answer"],
)
def test_who_is_no_dicom_peer_is_let_go(node: Receiving, said: bytes) -> None:
    before = threads()
    with Wire(node.port) as peer:
        peer.send(said)
        assert ended(peer)
    assert_clean(node)
    assert eventually(lambda: threads() <= before)


def test_half_a_pdu_and_then_silence(node: Receiving) -> None:
    before = threads()
    with ExitStack() as stack:
        peers = [stack.enter_context(Wire(node.port)) for _ in range(8)]
        for peer in peers:
            assert peer.associate()[0] == ASSOCIATE_AC
            peer.begin_store("1.2.3")
            peer.send(struct.pack(">BBI", 4, 0, 5000) + wire.pdv(bytes(100), is_last=False)[:50])
        assert all(ended(peer) for peer in peers)
    assert eventually(lambda: threads() <= before)
    assert_clean(node)


def test_a_trickle_is_cut_however_steady(node: Receiving) -> None:
    with Wire(node.port) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.send(struct.pack(">BBI", 4, 0, 5000))
        started = time.monotonic()
        with pytest.raises(OSError, match=r"."):
            while time.monotonic() - started < 20:
                peer.send(b"\0")
                time.sleep(0.02)
        assert time.monotonic() - started < 10
    assert_clean(node)


def test_damaged_conversations_end_alone(node: Receiving) -> None:
    """Bytes changed, left out and put in anywhere in a whole conversation; the same ones in every run."""
    uid, data_set = instance()
    store = wire.command(0x0001, sop_class=wire.DX.encode(), sop_instance=uid.encode())
    whole = b"".join(
        (
            wire.associate_rq({1: (wire.DX, (wire.EXPLICIT,))}),
            wire.pdu(wire.P_DATA, wire.pdv(store, is_command=True)),
            wire.pdu(wire.P_DATA, wire.pdv(data_set[:3000], is_last=False)),
            wire.pdu(wire.P_DATA, wire.pdv(data_set[3000:9000])),
            wire.pdu(0x05, bytes(4)),
        )
    )
    before, dice = threads(), random.Random(7)
    for _ in range(100):
        with Wire(node.port) as peer, suppress(OSError):
            peer.send(_damaged(whole, dice))
            peer.socket.shutdown(socket.SHUT_WR)
            while peer.receive()[0]:
                pass
    assert eventually(lambda: threads() <= before)
    assert history.recent(node.ledger, 10) == []  # it was cut short from the beginning
    assert_clean(node)


def _damaged(content: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(dice.choice((1, 2, 5, 20))):
        at = dice.randrange(min(len(damaged), dice.choice((250, 600, len(damaged)))))
        match dice.randrange(4):
            case 0:
                damaged[at] = dice.randrange(256)
            case 1:
                del damaged[at : at + dice.randrange(1, 20)]
            case 2:
                damaged[at:at] = dice.randbytes(dice.randrange(1, 20))
            case _:
                damaged[at : at + 4] = dice.choice((b"\xff\xff\xff\xf0", bytes(4)))
    return bytes(damaged)


def test_silent_connections_do_not_keep_others_out(tmp_path: Path) -> None:
    with receiving(tmp_path / "spool", max_associations=20) as node, ExitStack() as stack:
        for _ in range(27):  # one less than one host may have
            stack.enter_context(Wire(node.port))
        with Wire(node.port) as peer:
            assert peer.associate()[0] == ASSOCIATE_AC
            assert peer.echo() == 0x0000


def test_one_host_gets_no_more_than_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxr_node.node.receive.ARTIM_S", 3.0)  # the nine must still be there when the flood comes
    with receiving(tmp_path / "spool", max_associations=1) as node:
        before = threads()
        with ExitStack() as stack:
            for _ in range(9):
                stack.enter_context(Wire(node.port))
            flood = [stack.enter_context(Wire(node.port)) for _ in range(50)]
            assert all(ended(peer) for peer in flood)
            assert threads() <= before + 3 * 9  # none was made for them
            with socket.create_connection(("127.0.0.1", node.port), 20, source_address=("127.0.0.2", 0)) as other:
                other.sendall(wire.associate_rq({1: (wire.DX, (wire.EXPLICIT,))}))
                assert other.recv(1) == bytes([ASSOCIATE_AC])
        assert eventually(lambda: _heard(node))


def _heard(node: Receiving) -> bool:
    with Wire(node.port) as peer:
        return peer.associate()[0] == ASSOCIATE_AC


def test_many_associations_leave_nothing_behind(node: Receiving) -> None:
    before, files = threads(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        with Wire(node.port) as peer:
            peer.associate()
            assert peer.release() == wire.RELEASE_RP
    assert eventually(lambda: threads() <= before)
    assert eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= files + 2)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server and a client of it, and a client of another CA."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        try:
            subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)
        except FileNotFoundError:
            pytest.skip("install OpenSSL (Debian: openssl)")

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for ca in ("ca", "other"):
        extension = ("-addext", "keyUsage=critical,keyCertSign")
        openssl("req", "-x509", *key, "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-subj", f"/CN={ca}", *extension)
    for name, ca in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed_by = ("-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed_by, "-out", f"{name}.pem")
    return folder


def _tls(folder: Path, name: str = "server") -> dict[str, str]:
    parts = {"certificate": f"{name}.pem", "key": f"{name}.key", "ca": "ca.pem"}
    return {part: str(folder / file) for part, file in parts.items()}


def _client(folder: Path, name: str | None = "client") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.check_hostname = False
    if name is not None:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


@pytest.mark.parametrize("silent", [0, 8])
def test_tls_with_a_known_certificate(tmp_path: Path, certificates: Path, silent: int) -> None:
    """A client that opens a connection and says nothing holds up nobody's handshake."""
    with receiving(tmp_path / "spool", tls=_tls(certificates)) as node, ExitStack() as stack:
        for _ in range(silent):
            stack.enter_context(Wire(node.port))
        with Wire(node.port) as peer:
            peer.socket = _client(certificates).wrap_socket(peer.socket)
            assert peer.socket.version() == "TLSv1.3"
            assert peer.associate()[0] == ASSOCIATE_AC
            assert peer.echo() == 0x0000
            assert peer.store("1.2.3", bytes(300_000)) == 0xC000  # larger than a TLS record


@pytest.mark.parametrize("who", ["nobody", "stranger", "old", "weak", "plain"])
def test_tls_lets_no_other_in(tmp_path: Path, certificates: Path, who: str) -> None:
    context = _client(certificates, {"nobody": None, "stranger": "stranger"}.get(who, "client"))
    if who == "weak":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AES256-SHA:ECDHE-ECDSA-AES256-SHA:@SECLEVEL=0")
    with receiving(tmp_path / "spool", tls=_tls(certificates)) as node:
        with Wire(node.port) as peer, pytest.raises((OSError, AssertionError)):
            if who == "old":
                with pytest.warns(DeprecationWarning):
                    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
            if who != "plain":
                peer.socket = context.wrap_socket(peer.socket)
            assert peer.associate()[0] == ASSOCIATE_AC
        with Wire(node.port) as peer:
            peer.socket = _client(certificates).wrap_socket(peer.socket)
            assert peer.associate()[0] == ASSOCIATE_AC


def test_missing_certificates_are_the_operators_mistake(tmp_path: Path) -> None:
    missing = Tls(certificate=tmp_path / "a.pem", key=tmp_path / "a.key", ca=tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match=r"listen\.tls"):
        server_tls(missing)
