"""Storage SCU against peers that take, refuse, break, stall and lie."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import split_dataset

from cxr_node.config.destinations import STANDARD_KINDS
from cxr_node.config.network import Address
from cxr_node.errors import ConfigError, DeliveryError
from cxr_node.node.deliver.link import ResultFile
from cxr_node.node.network import file_meta
from cxr_node.node.network.statuses import TABLE, Action, judge
from cxr_node.result_kinds import DICOM_KINDS, ResultKind
from tests.node import peers
from tests.node.certificates import Authority
from tests.patience import FOR_EVER_S, PATIENCE_S

Wrap = Callable[..., ResultFile]
Connect = Callable[..., peers.Sender]


@pytest.fixture
def wrap() -> Wrap:
    def build(kind: ResultKind = ResultKind.REPORT, number: int = 1, padding: int = 0, choice: int = 0) -> ResultFile:
        content = peers.result_object(kind, number, padding, choice)
        sop_class_uid = peers.MEASUREMENT_CLASSES[choice] if choice else peers.SOP_CLASS[kind]
        return ResultFile(sop_class_uid=sop_class_uid, size_bytes=len(content), content=content)

    return build


@pytest.fixture
def connect() -> Iterator[Connect]:
    opened: list[peers.Sender] = []

    def build(address: Address, **more: object) -> peers.Sender:
        opened.append(peers.Sender(peers.destination(address, **more)))  # type: ignore[arg-type]
        return opened[-1]

    yield build
    for each in opened:
        each.close()


def _data_set(file: ResultFile) -> bytes:
    return bytes(file_meta.split(file.content)[1])


def test_one_association_carries_all_objects_byte_for_byte(wrap: Wrap, connect: Connect) -> None:
    archive = peers.Archive()
    files = [wrap(kind, number) for number in (1, 2) for kind in STANDARD_KINDS]
    with peers.listening(archive) as address:
        pacs = connect(address)
        assert [pacs.send(file).status for file in files] == [0] * 6
        pacs.close()
    assert archive.associations == 1
    assert [many for (many,) in archive.datasets.values()] == [_data_set(file) for file in files]
    assert archive.syntaxes == {ExplicitVRLittleEndian: 6}


def test_a_large_object_arrives_whole(wrap: Wrap, connect: Connect) -> None:
    archive, file = peers.Archive(), wrap(ResultKind.HEATMAP, padding=9_000_000)
    with peers.listening(archive) as address:
        connect(address, timeout_s=20.0).send(file)
    assert list(archive.datasets.values()) == [[_data_set(file)]]


def test_a_peer_of_implicit_vr_only_gets_the_same_elements(wrap: Wrap, connect: Connect) -> None:
    archive, file = peers.Archive(), wrap()
    with peers.listening(archive, syntaxes=(ImplicitVRLittleEndian,)) as address:
        assert connect(address).send(file).status == 0
    assert archive.syntaxes == {ImplicitVRLittleEndian: 1}
    ((sent,),) = archive.datasets.values()
    assert dcmread(BytesIO(sent), force=True) == dcmread(BytesIO(file.content))


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0xB123, 0x0111])
def test_success_and_warnings_are_deliveries(wrap: Wrap, connect: Connect, status: int) -> None:
    with peers.listening(peers.Archive(lambda _: status)) as address:
        assert connect(address).send(wrap()).status == status


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0124, 0x0213, 0xFF00, 0x7777])
def test_what_may_pass_is_temporary(wrap: Wrap, connect: Connect, status: int) -> None:
    with peers.listening(peers.Archive(lambda _: status)) as address, pytest.raises(DeliveryError) as caught:
        connect(address).send(wrap())
    assert (caught.value.permanent, caught.value.status) == (False, status)


@pytest.mark.parametrize("status", [0xA900, 0xA912, 0xC000, 0xC211, 0x0122, 0x0117, 0x0211])
def test_what_cannot_pass_is_permanent(wrap: Wrap, connect: Connect, status: int) -> None:
    with peers.listening(peers.Archive(lambda _: status)) as address, pytest.raises(DeliveryError) as caught:
        connect(address).send(wrap())
    assert (caught.value.permanent, caught.value.status) == (True, status)


def test_a_refused_sop_class_is_permanent_and_spares_the_others(wrap: Wrap, connect: Connect) -> None:
    archive = peers.Archive()
    with peers.listening(archive, kinds=(ResultKind.HEATMAP,)) as address:
        pacs = connect(address)
        with pytest.raises(DeliveryError, match="no presentation context") as caught:
            pacs.send(wrap(ResultKind.MEASUREMENTS))
        assert caught.value.permanent
        assert pacs.send(wrap(ResultKind.HEATMAP)).status == 0
    assert archive.associations == 1


def test_a_peer_that_takes_no_class_at_all_is_permanent(wrap: Wrap, connect: Connect) -> None:
    refused = pytest.raises(DeliveryError, match="accepts none of our SOP Classes")
    with peers.listening(peers.Archive(), kinds=()) as address, refused as caught:
        connect(address).send(wrap())
    assert caught.value.permanent


def test_a_class_never_proposed_before_is_negotiated(wrap: Wrap, connect: Connect) -> None:
    """A new kind of result object needs no code in the sender."""
    archive = peers.Archive()
    dose_sr = "1.2.840.10008.5.1.4.1.1.88.67"
    old = peers.result_object(ResultKind.REPORT, 5)
    new = old.replace(peers.SOP_CLASS[ResultKind.REPORT].encode(), dose_sr.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(peers.SOP_CLASS, ResultKind.MEASUREMENTS, dose_sr)
        with peers.listening(archive) as address:
            pacs = connect(address)
            pacs.send(wrap(ResultKind.REPORT))
            pacs.send(ResultFile(sop_class_uid=dose_sr, size_bytes=len(new), content=new))
    assert (len(archive.datasets), archive.associations) == (2, 2)


def test_kinds_that_a_destination_is_sent_are_negotiated_at_once(wrap: Wrap, connect: Connect) -> None:
    archive = peers.Archive()
    files = [wrap(kind) for kind in DICOM_KINDS]
    with peers.listening(archive, kinds=DICOM_KINDS) as address:
        pacs = connect(address, send=[kind.value for kind in DICOM_KINDS])
        assert {pacs.send(file).status for file in files} == {0}
    assert (len(archive.datasets), archive.associations) == (len(DICOM_KINDS), 1)


def alternatives_of(wrap: Wrap, number: int = 1) -> list[ResultFile]:
    return [wrap(ResultKind.MEASUREMENTS, number, choice=choice) for choice in range(len(peers.MEASUREMENT_CLASSES))]


@pytest.mark.parametrize(
    ("takes", "sent"), [(("34", "33"), "34"), (("33",), "33"), (("22",), "22"), (("22", "33"), "33")]
)
@pytest.mark.parametrize("syntaxes", [peers.BOTH_SYNTAXES, (ImplicitVRLittleEndian,)])
def test_the_first_sop_class_that_is_negotiated_goes_and_no_other(
    wrap: Wrap, connect: Connect, takes: tuple[str, ...], sent: str, syntaxes: tuple[str, ...]
) -> None:
    archive = peers.Archive()
    accepted = tuple(uid for uid in peers.MEASUREMENT_CLASSES if uid.endswith(takes))
    with peers.listening(archive, measurement_classes=accepted, syntaxes=syntaxes) as address:
        pacs = connect(address)
        assert pacs.send(*alternatives_of(wrap)).status == 0
        assert pacs.send(wrap(ResultKind.HEATMAP)).status == 0
        assert pacs.send(*alternatives_of(wrap, 2)).status == 0
    measured = f"1.2.840.10008.5.1.4.1.1.88.{sent}"
    assert archive.sop_classes == {measured: 2, peers.SOP_CLASS[ResultKind.HEATMAP]: 1}
    assert archive.associations == 1


def test_no_sop_class_negotiated_is_permanent_and_spares_the_others(wrap: Wrap, connect: Connect) -> None:
    archive = peers.Archive()
    with peers.listening(archive, measurement_classes=()) as address:
        pacs = connect(address)
        with pytest.raises(DeliveryError, match=r"no presentation context .*88\.34 or .*88\.33 or .*88\.22") as caught:
            pacs.send(*alternatives_of(wrap))
        assert caught.value.permanent
        assert pacs.send(wrap(ResultKind.REPORT)).status == 0
    assert (len(archive.datasets), archive.associations) == (1, 1)


def test_open_says_what_the_destination_accepts_before_a_byte_leaves(wrap: Wrap, connect: Connect) -> None:
    archive, files = peers.Archive(), alternatives_of(wrap)
    with peers.listening(
        archive, measurement_classes=(peers.MEASUREMENT_CLASSES[0], peers.MEASUREMENT_CLASSES[2])
    ) as address:
        link = connect(address).link
        assert link.open(files) == [files[0], files[2]]
        assert not archive.datasets
        link.store(files[2])
    assert archive.sop_classes == {peers.MEASUREMENT_CLASSES[2]: 1}


def test_a_reopened_association_negotiates_again(wrap: Wrap, connect: Connect) -> None:
    """The archive comes back with other presentation contexts while the first association is idle."""
    before, after = peers.Archive(lambda count: None if count == 2 else 0x0000), peers.Archive()
    with peers.listening(before) as address:
        pacs = connect(address)
        assert pacs.send(*alternatives_of(wrap, 1)).status == 0
    with peers.listening(after, measurement_classes=peers.MEASUREMENT_CLASSES[2:], port=address.port):
        assert pacs.send(*alternatives_of(wrap, 2)).status == 0
    assert after.sop_classes == {peers.MEASUREMENT_CLASSES[2]: 1}


def test_a_refused_connection_is_temporary(wrap: Wrap, connect: Connect) -> None:
    with pytest.raises(DeliveryError, match="no connection: Connection refused") as caught:
        connect(peers.nobody()).send(wrap())
    assert not caught.value.permanent


def test_an_unknown_host_is_temporary(wrap: Wrap, connect: Connect) -> None:
    with pytest.raises(DeliveryError, match=r"pacs\.invalid") as caught:
        connect(Address(ae_title="PACS", host="pacs.invalid", port=104)).send(wrap())
    assert not caught.value.permanent


def test_a_rejected_ae_title_is_temporary_and_named(wrap: Wrap, connect: Connect) -> None:
    refused = pytest.raises(DeliveryError, match=r"rejected \(permanent\): Calling AE title not recogni[sz]ed")
    with peers.listening(peers.Archive(), requires="SOMEBODY") as address, refused as caught:
        connect(address).send(wrap())
    assert not caught.value.permanent


def test_an_abort_before_the_answer_is_temporary_and_the_next_send_recovers(wrap: Wrap, connect: Connect) -> None:
    archive = peers.Archive(lambda count: None if count == 1 else 0x0000)
    with peers.listening(archive) as address:
        pacs = connect(address)
        with pytest.raises(DeliveryError) as caught:
            pacs.send(wrap())
        assert not caught.value.permanent
        assert pacs.send(wrap()).status == 0
    ((first, second),) = archive.datasets.values()
    assert first == second


def test_an_association_that_broke_while_idle_costs_no_delivery(wrap: Wrap, connect: Connect) -> None:
    archive = peers.Archive(lambda count: None if count == 2 else 0x0000)
    with peers.listening(archive) as address:
        pacs = connect(address)
        assert pacs.send(wrap(number=1)).status == 0
        assert pacs.send(wrap(number=2)).status == 0
    assert archive.associations == 2
    assert all(len(contents) == 1 for contents in archive.digests().values())


def test_a_restarted_peer_is_found_again(wrap: Wrap, connect: Connect) -> None:
    archive = peers.Archive()
    with peers.listening(archive) as address:
        pacs = connect(address)
        pacs.send(wrap(number=1))
    with peers.listening(archive, port=address.port):
        pacs.send(wrap(number=2))
    assert len(archive.datasets) == 2


def _silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def _hang_up(connection: socket.socket) -> None:
    connection.close()


def _babble(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)


@pytest.mark.parametrize("behave", [_silent, _hang_up, _babble])
def test_a_peer_that_is_no_dicom_scp_is_temporary_and_soon_over(
    wrap: Wrap, connect: Connect, behave: Callable[[socket.socket], None]
) -> None:
    with peers.raw_peer(behave) as address:
        started = time.monotonic()
        with pytest.raises(DeliveryError) as caught:
            connect(address, timeout_s=0.5).send(wrap())
    assert not caught.value.permanent
    assert time.monotonic() - started < PATIENCE_S


@pytest.mark.parametrize(("answers_to", "taken"), [(None, True), (999, False)])
def test_an_answer_to_another_message_is_no_receipt(
    wrap: Wrap, connect: Connect, answers_to: int | None, taken: bool
) -> None:
    def answer(connection: socket.socket) -> None:
        peers.accept_association(connection)
        peers.answer_store(connection, 0x0000, answers_to)
        _silent(connection)

    with peers.raw_peer(answer) as address:
        pacs = connect(address, timeout_s=1.0)
        if taken:
            assert pacs.send(wrap()).status == 0
            return
        with pytest.raises(DeliveryError, match="answered another message") as caught:
            pacs.send(wrap())
    assert not caught.value.permanent


def test_a_peer_that_never_answers_is_cut_off(wrap: Wrap, connect: Connect) -> None:
    def swallow(connection: socket.socket) -> None:
        peers.accept_association(connection)
        _silent(connection)

    with peers.raw_peer(swallow) as address:
        started = time.monotonic()
        with pytest.raises(DeliveryError, match="no answer within") as caught:
            connect(address, timeout_s=0.5).send(wrap())
    assert not caught.value.permanent
    assert time.monotonic() - started < PATIENCE_S


def test_a_peer_that_never_reads_cannot_hold_the_sender(wrap: Wrap, connect: Connect) -> None:
    """The kernel's buffers are full, the sender's write blocks: time is up all the same, and no thread stays."""
    stop = threading.Event()

    def deaf(connection: socket.socket) -> None:
        peers.accept_association(connection)
        stop.wait(FOR_EVER_S)

    file = wrap(ResultKind.HEATMAP, padding=40_000_000)
    small = replace(file, size_bytes=1)  # no time for its size
    before = threading.active_count()
    with peers.raw_peer(deaf) as address:
        started = time.monotonic()
        with pytest.raises(DeliveryError) as caught:
            connect(address, timeout_s=1.0).send(small)
        took_s = time.monotonic() - started
        stop.set()
    assert not caught.value.permanent
    assert took_s < PATIENCE_S
    deadline = time.monotonic() + PATIENCE_S
    while threading.active_count() > before and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    assert threading.active_count() <= before


def test_a_peer_that_reads_by_drops_is_cut_off(wrap: Wrap, connect: Connect) -> None:
    """No single write blocks for long, so only a deadline over the whole object helps."""

    def sip(connection: socket.socket) -> None:
        peers.accept_association(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while connection.recv(4096):
            threading.Event().wait(0.1)

    file = wrap(ResultKind.HEATMAP, padding=40_000_000)
    small = replace(file, size_bytes=1)
    with peers.raw_peer(sip) as address:
        started = time.monotonic()
        with pytest.raises(DeliveryError) as caught:
            connect(address, timeout_s=1.0).send(small)
    assert not caught.value.permanent
    assert time.monotonic() - started < PATIENCE_S


@pytest.mark.parametrize("pause_s", [FOR_EVER_S, 0.2], ids=["stops", "dribbles"])
def test_a_peer_that_answers_by_halves_is_cut_off(wrap: Wrap, connect: Connect, pause_s: float) -> None:
    """The header of an A-ASSOCIATE-AC of 16 MiB, and then next to nothing of it."""
    stop = threading.Event()

    def dribble(connection: socket.socket) -> None:
        peers.read_pdu(connection)
        connection.sendall(b"\x02\x00\x01\x00\x00\x00")
        while not stop.wait(pause_s):
            connection.sendall(b"\0")

    with peers.raw_peer(dribble) as address:
        started = time.monotonic()
        with pytest.raises(DeliveryError) as caught:
            connect(address, timeout_s=0.5).send(wrap())
        took_s = time.monotonic() - started
        stop.set()
    assert not caught.value.permanent
    assert took_s < PATIENCE_S


def test_small_pdus_are_sent_at_once(wrap: Wrap, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nagle's algorithm and delayed acknowledgements cost 40 ms per object; TCP_NODELAY is set on our socket."""
    tuned: list[int] = []
    genuine = socket.socket.settimeout

    def spy(connection: socket.socket, value: float | None) -> None:
        genuine(connection, value)
        if value == 1.25:
            tuned.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(socket.socket, "settimeout", spy)
    with peers.listening(peers.Archive()) as address:
        connect(address, timeout_s=1.25).send(wrap())
    assert 1 in tuned


def test_every_status_row_can_be_reached() -> None:
    assert [judge(row.value) for row in TABLE if judge(row.value) is not row and row.mask == 0xFFFF] == []
    assert judge(0x0000).action is Action.DELIVERED
    assert {judge(value).action for value in range(0xA700, 0xA800)} == {Action.RETRY}
    assert {judge(value).action for value in range(0xC000, 0xD000)} == {Action.REFUSED}


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def test_tls_shows_our_certificate_and_checks_theirs(wrap: Wrap, connect: Connect, ca: Authority) -> None:
    archive = peers.Archive()
    with peers.listening(archive, tls=ca.issue("pacs").server()) as address:
        assert connect(address, tls=ca.issue("node").tls()).send(wrap()).status == 0
    assert len(archive.datasets) == 1


@pytest.mark.parametrize("name", ["pacs.example.org", "10.0.0.5"])
def test_a_certificate_may_name_another_host_if_that_is_written(
    wrap: Wrap, connect: Connect, ca: Authority, name: str
) -> None:
    archive, node = peers.Archive(), ca.issue("node")
    with peers.listening(archive, tls=ca.issue("elsewhere", hosts=[name]).server()) as address:
        with pytest.raises(DeliveryError, match="not accepted: IP address mismatch"):
            connect(address, tls=node.tls()).send(wrap())
        assert archive.datasets == {}
        assert connect(address, tls=node.tls(server_name=name)).send(wrap()).status == 0


FAULTS = {
    "a foreign CA": "unable to get local issuer certificate|self.signed certificate",
    "expired": "certificate has expired",
    "revoked": "certificate revoked",
    "no server": "purpose",
    "TLS 1.1": "protocol version|unsupported protocol",
    "no AEAD": "handshake failure",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_archive_that_cannot_be_believed_gets_nothing(
    wrap: Wrap, connect: Connect, ca: Authority, tmp_path: Path, fault: str
) -> None:
    node, context = ca.issue("node").tls(), _lying(ca, tmp_path, fault)
    if fault == "revoked":
        node["crl"] = str(ca.crl)
    archive = peers.Archive()
    refused = pytest.raises(DeliveryError, match=f"no connection: TLS failed: .*({FAULTS[fault]})")
    with peers.listening(archive, tls=context) as address, refused as caught:
        connect(address, tls=node).send(wrap())
    assert not caught.value.permanent
    assert archive.datasets == {}


def _lying(ca: Authority, folder: Path, fault: str) -> ssl.SSLContext:
    match fault:
        case "a foreign CA":
            return Authority(folder, "stranger").issue("pacs").server()
        case "expired":
            return ca.issue("late", ends_in=timedelta(days=-1)).server()
        case "no server":
            return ca.issue("client", usages=[ExtendedKeyUsageOID.CLIENT_AUTH]).server()
        case "revoked":
            gone = ca.issue("gone")
            ca.revoke(gone)
            return gone.server()
    context = ca.issue("pacs").server()
    if fault == "TLS 1.1":
        with pytest.warns(DeprecationWarning):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    else:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA")
    return context


def test_an_archive_that_does_not_trust_our_certificate_is_named(
    wrap: Wrap, connect: Connect, ca: Authority, tmp_path: Path
) -> None:
    node = Authority(tmp_path, "stranger").issue("node").tls() | {"ca": str(ca.pem)}
    refused = pytest.raises(DeliveryError, match=r"unknown ca|aborted")
    with peers.listening(peers.Archive(), tls=ca.issue("pacs").server()) as address, refused:
        connect(address, tls=node).send(wrap())


def test_a_renewed_certificate_is_shown_from_the_next_association_on(
    wrap: Wrap, connect: Connect, ca: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "stranger")
    with peers.listening(peers.Archive(), tls=other.issue("pacs").server()) as address:
        node = ca.issue("renewed")
        pacs = connect(address, tls=node.tls() | {"ca": str(other.pem)})
        with pytest.raises(DeliveryError):
            pacs.send(wrap())
        renewed = other.issue("renewed")
        node.key.write_bytes(renewed.key.read_bytes())
        node.certificate.write_bytes(renewed.certificate.read_bytes())
        assert pacs.send(wrap()).status == 0


def test_a_plain_archive_gets_nothing_where_tls_is_configured(wrap: Wrap, connect: Connect, ca: Authority) -> None:
    archive = peers.Archive()
    refused = pytest.raises(DeliveryError)
    with peers.listening(archive) as address, refused as caught:
        connect(address, timeout_s=1.0, tls=ca.issue("node").tls()).send(wrap())
    assert not caught.value.permanent
    assert archive.datasets == {}


def test_certificates_that_cannot_be_read_are_the_operators_fault(tmp_path: Path, connect: Connect) -> None:
    missing = {part: str(tmp_path / part) for part in ("certificate", "key", "ca")}
    with pytest.raises(ConfigError, match=r"destinations\.tls: .* cannot be used: no such file"):
        connect(peers.nobody(), tls=missing)


@pytest.mark.pacs
def test_dcmtk_storescp_accepts_all_three(wrap: Wrap, connect: Connect, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with peers.storescp(store) as address:
        pacs = connect(address)
        files = [wrap(kind) for kind in STANDARD_KINDS]
        assert [pacs.send(file).status for file in files] == [0, 0, 0]
        pacs.close()
    stored = {dcmread(path).SOPInstanceUID: split_dataset(path)[1] and _data_set_of(path) for path in store.iterdir()}
    assert stored == {dcmread(BytesIO(file.content)).SOPInstanceUID: _data_set(file) for file in files}


@pytest.mark.pacs
@pytest.mark.parametrize("choice", range(3))
def test_dcmtk_storescp_of_few_classes_gets_the_one_it_accepts(
    wrap: Wrap, connect: Connect, tmp_path: Path, choice: int
) -> None:
    store = tmp_path / "store"
    with peers.storescp(store, peers.SOP_CLASS[ResultKind.REPORT], peers.MEASUREMENT_CLASSES[choice]) as address:
        pacs = connect(address)
        assert pacs.send(*alternatives_of(wrap)).status == 0
        pacs.close()
    (stored,) = store.iterdir()
    assert dcmread(stored).SOPInstanceUID == peers.uid(ResultKind.MEASUREMENTS, 1, choice)


@pytest.mark.pacs
def test_dcmtk_storescp_of_no_measurements_refuses_every_choice(wrap: Wrap, connect: Connect, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with peers.storescp(store, peers.SOP_CLASS[ResultKind.REPORT]) as address:
        pacs = connect(address)
        with pytest.raises(DeliveryError) as caught:
            pacs.send(*alternatives_of(wrap))
        assert caught.value.permanent
        assert pacs.send(wrap(ResultKind.REPORT)).status == 0
        pacs.close()
    assert len(list(store.iterdir())) == 1


def _data_set_of(path: Path) -> bytes:
    _, offset = split_dataset(path)
    return path.read_bytes()[offset:]
