"""STOW-RS in: by the receiver's own door, so that 200 means what 0x0000 means (PS3.18 10.5)."""

from __future__ import annotations

import base64
import itertools
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from cxr_node.config import loader
from cxr_node.dicom.read import header
from cxr_node.domain import InstanceRef
from cxr_node.errors import ConfigError
from cxr_node.node.audit import recorder
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.process.notify import Role, Wakeup
from cxr_node.node.receive.recovery import rebuild
from cxr_node.node.spool.opening import open_spool
from cxr_node.node.spool.spool import Area
from cxr_node.web import guard, server
from cxr_node.web.stow import door
from tests import builders, postgres
from tests.node import receivers, wire, workplace
from tests.node.certificates import Authority
from tests.node.test_wake import waiting
from tests.patience import PATIENCE_S, wait_until
from tests.processes import configured
from tests.web import site as site_room
from tests.web import stowing
from tests.web.site import Site
from tests.web.stowing import FAILED, KEY, OTHERS, REFERENCED, SENDER, body, post, radiograph, reasons, rows, uids


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with stowing.opened(tmp_path) as there:
        yield there


def test_what_is_answered_200_is_durable_and_known_by_its_sender(site: Site) -> None:
    (first, one), (second, two) = radiograph(1), radiograph(2)
    answer = post(site, body(one, two))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json")
    assert uids(answer, REFERENCED) == [first, second]
    assert not reasons(answer)
    assert [(row.sop_instance_uid, row.calling_ae_title, row.peer_host) for row in rows(site)] == [
        (first, SENDER, "127.0.0.1"),
        (second, SENDER, "127.0.0.1"),
    ]
    spool = open_spool(site.config.spool)
    for row, sent in zip(rows(site), (one, two), strict=True):
        kept = spool.read(Area.OBJECTS, row.content_sha256)
        assert kept[:132] == bytes(128) + b"DICM"
        assert wire.data_set_of(kept) == wire.data_set_of(sent)
    assert stowing.parts(site.config) == []


def test_work_is_woken(site: Site) -> None:
    with closing(Wakeup(site.spool, Role.WORK)) as wakeup:
        assert post(site, body(radiograph()[1])).status_code == 200
        assert wakeup.wait(PATIENCE_S)


def test_the_same_object_by_both_doors_is_one(tmp_path: Path) -> None:
    uid, file = radiograph()
    with (
        stowing.opened(tmp_path) as site,
        receivers.receiving(site.spool) as receiving,
        wire.Wire(receiving.port) as pe,
    ):
        assert pe.associate()[0] == wire.ASSOCIATE_AC
        assert pe.store(uid, wire.data_set_of(file)) == 0x0000
        assert post(site, body(file)).status_code == 200
        (row,) = rows(site)
        assert (row.calling_ae_title, row.repeats) == ("WIRE", 1)
        changed = builders.part10(builders.radiograph(1, PatientSex="O"))
        assert post(site, body(changed)).status_code == 200
        assert [row.sop_instance_uid for row in rows(site)] == [uid, uid], "other bytes are another version"


@pytest.mark.skipif(postgres.programs() is None, reason=postgres.HINT)
def test_in_a_cluster_the_row_is_everybodys_and_the_others_are_woken(tmp_path: Path) -> None:
    section = postgres.section(tmp_path)
    there = workplace.config(tmp_path / "there", ledger=section)
    with (
        stowing.opened(tmp_path / "here", ledger=section) as site,
        waiting(there, Role.WORK) as work,
        closing(Ledger.of_node(there)) as ledger,
    ):
        assert post(site, body(radiograph()[1])).status_code == 200
        assert work.wait(PATIENCE_S)
        assert [row.calling_ae_title for row in queries.recent(ledger, 9)] == [SENDER]


def test_a_program_in_the_preamble_is_not_kept(site: Site) -> None:
    _, file = radiograph()
    assert post(site, body(b"\x7fELF" + bytes(124) + file[128:])).status_code == 200
    (row,) = rows(site)
    assert open_spool(site.config.spool).read(Area.OBJECTS, row.content_sha256)[:128] == bytes(128)


def test_the_ledger_is_rebuilt_with_what_came_by_http(tmp_path: Path) -> None:
    with stowing.opened(tmp_path) as site:
        uid, file = radiograph()
        assert post(site, body(file)).status_code == 200
        spool = open_spool(site.config.spool)
        (before,) = rows(site)
    fresh = Ledger.open(tmp_path / "other")
    found = rebuild(fresh, spool, header.identify)
    assert (found.objects, found.received) == (1, 1)
    (row,) = queries.recent(fresh, 9)
    fresh.close()
    assert (row.sop_instance_uid, row.content_sha256, row.received_at) == (
        uid,
        before.content_sha256,
        before.received_at,
    )


def test_pieces_of_any_size_are_the_same_body(site: Site) -> None:
    """Boundaries, headers and File Meta Information are cut wherever the dice say."""
    dice = random.Random(7)
    files = [radiograph(number, stored=builders.chest(160, 136))[1] for number in (1, 2, 3)]
    content = body(*files)
    for _ in range(4):
        cuts = {*dice.sample(range(len(content)), 40), *range(140, 200)}
        edges = [0, *sorted(cuts), len(content)]
        pieces = [content[start:end] for start, end in itertools.pairwise(edges)]
        answer = post(site, iter(pieces))
        assert answer.status_code == 200 and len(uids(answer, REFERENCED)) == 3
    assert len(rows(site)) == 3


def test_some_are_stored_and_some_are_not(site: Site) -> None:
    uid, good = radiograph(1)
    other, _ = radiograph(2)
    wrong = stowing.part10(wire.data_set_of(good), other)
    answer = post(site, body(good, wrong, b"no object at all"))
    assert answer.status_code == 202
    assert (uids(answer, REFERENCED), uids(answer, FAILED)) == ([uid], [other])
    assert reasons(answer) == [0xA900, 0xC000]
    assert len(answer.json()[OTHERS]["Value"]) == 1
    assert len(rows(site)) == 1


DATA_SET = wire.data_set_of(radiograph()[1])
UID = radiograph()[0]
REFUSED: dict[str, tuple[bytes, int]] = {
    "another UID": (stowing.part10(DATA_SET, "1.2.3.4"), 0xA900),
    "another SOP Class": (stowing.part10(DATA_SET, UID, sop_class=wire.CR), 0xA900),
    "no UID": (stowing.part10(DATA_SET, ""), 0xC000),
    "a path for a UID": (stowing.part10(DATA_SET, "../../x"), 0xC000),
    "a SOP Class that nobody stores": (stowing.part10(DATA_SET, UID, sop_class=wire.VERIFICATION), 0x0122),
    "an unknown transfer syntax": (stowing.part10(DATA_SET, UID, syntax="1.2.3"), 0xC122),
    "deflated": (stowing.part10(DATA_SET, UID, syntax=wire.DEFLATED), 0xC122),
    "no data set": (stowing.part10(b"", UID), 0xC000),
    "cut": (stowing.part10(DATA_SET[:-1], UID), 0xC000),
    "encoded otherwise": (stowing.part10(DATA_SET, UID, syntax=wire.IMPLICIT), 0xC000),
    "no file": (DATA_SET, 0xC000),
    "nothing": (b"", 0xC000),
    "half of its meta": (stowing.part10(b"", UID)[:200], 0xC000),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_kept_nowhere(site: Site, name: str) -> None:
    file, reason = REFUSED[name]
    answer = post(site, body(file))
    assert (answer.status_code, reasons(answer)) == (409, [reason])
    assert rows(site) == [] and stowing.parts(site.config) == []
    assert list(open_spool(site.config.spool).digests(Area.OBJECTS)) == []


def test_a_study_in_the_url_admits_no_other(site: Site) -> None:
    made = builders.radiograph()
    file, study = builders.part10(made), str(made.StudyInstanceUID)
    answer = post(site, body(file), path="/dicom-web/studies/1.2.3")
    assert (answer.status_code, reasons(answer)) == (409, [0xA900])
    assert post(site, body(file), path="/dicom-web/studies/no-uid").status_code == 400
    assert rows(site) == []
    assert post(site, body(file), path=f"/dicom-web/studies/{study}").status_code == 200


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("multipart/related; type=application/dicom; boundary=a-boundary", 200),
        ('Multipart/Related; boundary="a-boundary"', 200),
        ('multipart/related; type="application/dicom"', 400),
        (f'multipart/related; type="application/dicom"; boundary={"x" * 300}', 400),
        ('multipart/related; type="application/dicom"; boundary=another', 400),
        ('multipart/related; type="application/dicom+json"; boundary=a-boundary', 415),
        ("multipart/form-data; boundary=a-boundary", 415),
        ("application/dicom", 415),
        ("", 415),
    ],
)
def test_media_types(site: Site, content_type: str, status: int) -> None:
    answer = post(site, body(radiograph()[1]), content_type=content_type)
    assert answer.status_code == status
    assert len(rows(site)) == (status == 200)
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_compressed_body_and_a_part_of_another_kind(site: Site) -> None:
    assert post(site, body(radiograph()[1]), content_encoding="gzip").status_code == 415
    answer = post(site, body(b"{}", kind="application/dicom+json"))
    assert (answer.status_code, reasons(answer)) == (409, [0xC000])


@pytest.mark.parametrize("keep", ["nothing", "half a part", "no last boundary", "no part"])
def test_a_broken_body_is_400(site: Site, keep: str) -> None:
    whole = body(radiograph()[1])
    cut = {
        "nothing": b"",
        "half a part": whole[: len(whole) // 2],
        "no last boundary": whole[: -len("--\r\n")],
        "no part": body(),
    }[keep]
    answer = post(site, cut)
    assert answer.status_code == 400 and answer.json()["code"] == "malformed"
    wait_until(lambda: stowing.parts(site.config) == [], "the part is gone")
    assert rows(site) == []


def test_what_was_complete_before_the_cut_is_kept(site: Site) -> None:
    whole = body(radiograph(1)[1], radiograph(2)[1])
    assert post(site, whole[:-1000]).status_code == 400
    assert [row.sop_instance_uid for row in rows(site)] == [radiograph(1)[0]]
    assert uids(post(site, whole), REFERENCED) == [radiograph(1)[0], radiograph(2)[0]]


def test_too_large_an_object_and_too_large_a_request(tmp_path: Path) -> None:
    huge = radiograph(1, stored=builders.chest(1024, 1024))[1]
    stow = stowing.section(tmp_path, max_request_mib=8)
    with stowing.opened(tmp_path, stow=stow, listen={"max_object_mib": 1}) as site:
        answer = post(site, body(huge))
        assert (answer.status_code, reasons(answer)) == (413, [0xA700])
        assert post(site, body(huge, radiograph(2)[1])).status_code == 202
        assert post(site, bytes(9 << 20)).status_code == 413
        assert post(site, iter([body(radiograph(3)[1])[:-4], *[bytes(1 << 20)] * 9])).status_code == 413
        assert [row.sop_instance_uid for row in rows(site)] == [radiograph(2)[0]]
        assert post(site, body(radiograph(4)[1])).status_code == 200, "a later request is none the worse"


def test_a_full_disk_is_503_before_a_byte_is_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxr_node.node.spool.spool.Spool.free_bytes", lambda _: 0)
    address = httpx.URL(site.address)
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: {address.host}\r\nExpect: 100-continue\r\n"
    head += "Content-Length: 900000\r\n"
    with socket.create_connection((address.host, address.port or 0), PATIENCE_S) as peer:
        peer.sendall(f"{head}Content-Type: {stowing.RELATED}\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        said = peer.recv(4096)
    assert said.startswith(b"HTTP/1.1 503") and b"retry-after: 30" in said.lower()
    assert rows(site) == []


def test_a_disk_that_fills_up_on_the_way(site: Site) -> None:
    """Of what is stored nothing is taken back, and what is not may come again."""
    room = iter([True, True, False])  # at the door, at the first part, at the second
    with mock.patch("cxr_node.node.spool.spool.Spool.has_room", lambda _: next(room)):
        answer = post(site, body(radiograph(1)[1], radiograph(2)[1]))
    assert (answer.status_code, reasons(answer), answer.headers["retry-after"]) == (202, [0xA700], "30")
    room = iter([True, False])
    with mock.patch("cxr_node.node.spool.spool.Spool.has_room", lambda _: next(room)):
        answer = post(site, body(radiograph(2)[1]))
    assert (answer.status_code, reasons(answer), answer.headers["retry-after"]) == (503, [0xA700], "30")
    assert len(rows(site)) == 1


def test_without_a_ledger_nothing_is_taken(tmp_path: Path) -> None:
    with stowing.opened(tmp_path) as site:
        for file in site.spool.glob("ledger.sqlite3*"):
            file.unlink()
        answer = post(site, body(radiograph()[1]))
        assert answer.status_code == 503 and answer.headers["retry-after"] == "30"
        assert list(open_spool(site.config.spool).digests(Area.OBJECTS)) == []


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ({"key": None}, 401),
        ({"key": "0123456789abcdef0123456789abcdeX"}, 401),
        ({"key": None, "authorization": "Bearer"}, 401),
        ({"key": None, "authorization": "Basic !!!"}, 401),
        ({"key": None, "authorization": "Basic " + base64.b64encode(f"{SENDER}:{KEY}".encode()).decode()}, 200),
        ({"key": None, "authorization": "Basic " + base64.b64encode(f"OTHER:{KEY}".encode()).decode()}, 401),
        ({"key": None, "authorization": f"Digest {KEY}"}, 401),
    ],
)
def test_keys(site: Site, shown: dict[str, Any], status: int) -> None:
    answer = post(site, body(radiograph()[1]), **shown)
    assert answer.status_code == status
    assert len(rows(site)) == (status == 200)
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_a_key_is_renewed_without_a_restart_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with stowing.opened(tmp_path) as site:
        file, renewed = tmp_path / f"{SENDER}.key", "f" * 64
        file.write_text(renewed)
        assert post(site, body(radiograph()[1])).status_code == 401
        assert post(site, body(radiograph()[1]), key=renewed).status_code == 200
        file.write_text("short")
        for _ in range(2):
            assert post(site, body(radiograph()[1]), key=renewed).status_code == 200
        file.chmod(0o644)
        assert post(site, body(radiograph()[1]), key=renewed).status_code == 200
    assert sum("the previous key stays in use" in line for line in caplog.messages) == 2
    assert renewed not in caplog.text


def test_a_sender_comes_from_its_hosts(tmp_path: Path) -> None:
    sender = {"name": SENDER, "key": str(stowing.key_file(tmp_path)), "hosts": ["10.0.0.0/8"]}
    with stowing.opened(tmp_path, stow={"senders": [sender]}) as site:
        assert post(site, body(radiograph()[1])).status_code == 403
        assert rows(site) == []


def test_a_certificate_proves_a_sender(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    page = authority.issue("page")
    right, wrong = (authority.issue(name, hosts=(name,)) for name in ("xr.example", "other.example"))
    senders = [{"name": SENDER, "certificate": ["xr.example"]}]
    senders += [{"name": "BOTH", "key": str(stowing.key_file(tmp_path, "BOTH")), "certificate": ["other.example"]}]
    tls = {"certificate": str(page.certificate), "key": str(page.key), "ca": str(page.ca)}
    with stowing.opened(tmp_path, stow={"senders": senders}, web={"tls": tls}) as site:
        address = site.address.replace("http:", "https:")

        def store(shown: Any, **headers: str) -> int:
            context = ssl.create_default_context(cafile=page.ca)
            if shown is not None:
                context.load_cert_chain(shown.certificate, shown.key)
            with httpx.Client(verify=context, timeout=PATIENCE_S) as client:
                sent = {"content-type": stowing.RELATED} | headers
                url = f"{address}/dicom-web/studies"
                return client.post(url, content=body(radiograph()[1]), headers=sent).status_code

        assert store(None) == 403
        assert store(wrong) == 403
        assert store(right) == 200
        assert store(wrong, authorization=f"Bearer {KEY}") == 200
        assert {row.calling_ae_title for row in rows(site)} == {SENDER}
        with httpx.Client(verify=ssl.create_default_context(cafile=page.ca)) as client:
            assert client.get(f"{address}/").status_code == 200, "whoever looks at the page shows none"


def test_refusals_are_logged_counted_and_audited_and_name_no_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = loader.parse({"spool": {"path": str(tmp_path / "spool")}})
    with recorder.recording(config, "web") as audit, stowing.opened(tmp_path, audit=audit) as site:
        good = radiograph(PatientName="CANARY^STOW", PatientID="CANARY")[1]
        assert post(site, body(good)).status_code == 200
        assert post(site, body(stowing.part10(wire.data_set_of(good), "1.2.3"))).status_code == 409
        assert post(site, body(good), key="wrong").status_code == 401
        assert post(site, body(good)[:-9]).status_code == 400
    told = site.audited()
    assert "110104" in told and SENDER in told, "DICOM Instances Transferred"
    assert "refused: key" in told and "refused: protocol" in told
    assert f"refused peer=127.0.0.1 ae={SENDER!r} cause=mismatch status=0xA900" in caplog.text
    assert "refused peer=127.0.0.1 ae='' cause=key" in caplog.text
    assert KEY not in caplog.text + told and "wrong" not in told and "CANARY" not in caplog.text + told


@contextmanager
def held(site: Site, number: int) -> Iterator[list[socket.socket]]:
    """Requests that have begun, and wait in the middle of an object."""
    address, content = httpx.URL(site.address), body(radiograph(99)[1])
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: {address.host}\r\nContent-Length: {len(content)}\r\n"
    shown = f"Content-Type: {stowing.RELATED}\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    peers = [socket.create_connection((address.host, address.port or 0), PATIENCE_S) for _ in range(number)]
    try:
        for peer in peers:
            peer.sendall(f"{head}{shown}".encode() + content[:2000])
        wait_until(lambda: len(stowing.parts(site.config)) == number, "they have begun")
        yield peers
    finally:
        for peer in peers:
            peer.close()


def test_a_sender_has_no_more_than_its_share(tmp_path: Path) -> None:
    other = {"name": "OTHER", "key": str(stowing.key_file(tmp_path, "OTHER", "o" * 32))}
    stow = stowing.section(tmp_path, max_requests=3, max_requests_per_sender=2)
    stow["senders"].append(other)
    with stowing.opened(tmp_path, stow=stow) as site:
        with held(site, 2):
            answer = post(site, body(radiograph(1)[1]))
            assert (answer.status_code, answer.json()["code"]) == (503, "busy")
            assert answer.headers["retry-after"] == "30"
            assert post(site, body(radiograph(1)[1]), key="o" * 32).status_code == 200
            assert site.visitor().get("/").status_code == 200, "the page is there for people"
        wait_until(lambda: post(site, body(radiograph(2)[1])).status_code == 200, "the places are free again")
        wait_until(lambda: stowing.parts(site.config) == [], "what was begun is dropped")
        assert {row.sop_instance_uid for row in rows(site)} == {radiograph(1)[0], radiograph(2)[0]}


def test_a_silent_and_a_trickling_sender(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, held(site, 1) as (silent,):
        patched.setattr(guard, "_PIECE_S", 0.3)
        silent.sendall(b"x")
        assert silent.recv(64).startswith(b"HTTP/1.1 408")
    monkeypatch.setattr(door, "MESSAGE_GRACE_S", 0.2)
    monkeypatch.setattr(door, "SLOWEST_BYTES_PER_S", 1 << 30)
    with held(site, 1) as (slow,):
        threading.Event().wait(0.4)
        slow.sendall(b"x")
        assert slow.recv(64).startswith(b"HTTP/1.1 408")
    wait_until(lambda: stowing.parts(site.config) == [], "what was begun is dropped")
    assert rows(site) == []


def test_a_slow_disk_holds_nobody_else_back(tmp_path: Path) -> None:
    waiting, go = threading.Event(), threading.Event()

    def slow(path: Path) -> InstanceRef:
        waiting.set()
        assert go.wait(PATIENCE_S)
        return header.identify(path)

    with stowing.opened(tmp_path, inspect=slow) as site:
        answers = list[int]()
        thread = threading.Thread(target=lambda: answers.append(post(site, body(radiograph()[1])).status_code))
        thread.start()
        assert waiting.wait(PATIENCE_S)
        assert site.visitor().get("/health/live").status_code == 200
        assert rows(site) == [] and not answers, "no answer before it is durable"
        go.set()
        thread.join()
    assert answers == [200]


def test_a_stop_in_the_middle_of_an_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_GRACE_S", 1)
    with stowing.opened(tmp_path) as site, held(site, 1) as (peer,):
        peer.settimeout(PATIENCE_S)
        folder, config = site.spool, site.config
    assert folder.exists() and stowing.parts(config) == []
    ledger = Ledger.open(folder)
    assert queries.recent(ledger, 9) == []
    ledger.close()


def test_an_early_answer_is_read_by_one_who_goes_on_sending(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was closed at once would be reset under the sender, who would never see why."""
    monkeypatch.setattr(server, "_IDLE_S", 1)
    address = httpx.URL(site.address)
    with socket.create_connection((address.host, address.port or 0), PATIENCE_S) as peer:
        head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: {address.host}\r\nContent-Length: 4000000000\r\n\r\n"
        peer.sendall(head.encode() + bytes(3 << 20))
        assert peer.recv(64).startswith(b"HTTP/1.1 401")
        with pytest.raises(OSError):
            while True:
                peer.sendall(bytes(1 << 16))


@pytest.mark.parametrize(
    ("stow", "sentence"),
    [
        ({"senders": []}, "senders: is empty"),
        ({"senders": [{"name": "XR"}]}, "needs a key or a certificate"),
        ({"senders": [{"name": "XR", "key": "k"}, {"name": "XR", "key": "l"}]}, "two senders are named 'XR'"),
        ({"senders": [{"name": "XR", "certificate": ["xr.example"]}]}, "without web.tls.ca"),
        ({"senders": [{"name": "A name that is far too long", "key": "k"}]}, "AE title"),
        ({"senders": [{"name": "XR", "kee": "k"}]}, "did you mean 'key'"),
    ],
)
def test_a_door_that_makes_no_sense(stow: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as told:
        loader.parse({"spool": {"path": "."}, "web": {"stow": stow}})
    assert sentence in str(told.value)


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [("k" * 32, 0o644, "others may read"), ("short", 0o600, "16 characters"), ("", 0o600, "16 characters")],
)
def test_a_key_that_cannot_be_used(tmp_path: Path, content: str, mode: int, sentence: str) -> None:
    file = stowing.key_file(tmp_path, key=content)
    file.chmod(mode)
    stow = {"senders": [{"name": SENDER, "key": str(file)}]}
    with pytest.raises(AssertionError) as told, stowing.opened(tmp_path, stow=stow):
        pass
    assert sentence in str(told.value)


def test_results_do_not_come_back_by_the_own_door() -> None:
    ours = {"kind": "dicomweb", "name": "loop", "url": "http://localhost:8042/dicom-web"}
    content = {"spool": {"path": "."}, "destinations": [ours]}
    assert loader.parse({**content, "web": {}}).web is not None
    with pytest.raises(ConfigError) as told:
        loader.parse({**content, "web": {"stow": {"senders": [{"name": "XR", "key": "k"}]}}})
    assert "destinations.loop.url: http://localhost:8042/dicom-web is the node's own web.stow" in str(told.value)


def test_without_the_section_there_is_no_door(tmp_path: Path) -> None:
    with site_room.opened(tmp_path, users=False) as site:
        answer = post(site, body(radiograph()[1])[:60_000])
        assert answer.status_code == 404 and answer.headers["content-type"] == "application/problem+json"


def test_check_says_who_may_store(tmp_path: Path) -> None:
    stow = stowing.section(tmp_path)
    config = configured(tmp_path, "node", 0, web={"port": 8099, "stow": stow})
    found = {each.subject: each for each in server.readings(loader.load(config))}
    told = found["page STOW-RS"]
    assert told.ok and told.figure == f"http://127.0.0.1:8099/dicom-web/studies takes from {SENDER} (key)"
    (tmp_path / f"{SENDER}.key").unlink()
    found = {each.subject: each for each in server.readings(loader.load(config))}
    assert not found["page STOW-RS"].ok and "openssl rand" in found["page STOW-RS"].figure
