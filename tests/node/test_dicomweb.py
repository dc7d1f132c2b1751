"""STOW-RS towards origin servers of every temper: what each answer means for one object, and that every wait ends."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cxr_node.errors import ConfigError, DeliveryError, UnreachableError
from cxr_node.node.deliver import dicomweb_answers, http_exchange
from cxr_node.node.deliver.dicomweb import DicomWebLink
from cxr_node.node.deliver.http_exchange import Answer, retry_after_s
from cxr_node.node.deliver.link import ResultFile, StaleConnectionError, StoreReply
from cxr_node.node.network.rejections import Cause, Refusals
from cxr_node.result_kinds import ResultKind
from tests.node import origin_servers, peers
from tests.node.certificates import Authority
from tests.node.origin_servers import Asked, Origin, Reply, fails, module, reference, says
from tests.patience import FOR_EVER_S

UID = peers.uid(ResultKind.HEATMAP)
CONTENT = peers.result_object(ResultKind.HEATMAP)
FILE = ResultFile(sop_class_uid=peers.SOP_CLASS[ResultKind.HEATMAP], size_bytes=len(CONTENT), content=CONTENT)
Opened = Callable[..., DicomWebLink]


@pytest.fixture
def link_to() -> Iterator[Opened]:
    """Serve an origin server, and make a link to it."""
    with ExitStack() as stack:

        def build(
            origin: Origin,
            refusals: Refusals | None = None,
            tls: ssl.SSLContext | None = None,
            tls_files: dict[str, str] | None = None,
            **more: Any,
        ) -> DicomWebLink:
            url = stack.enter_context(origin_servers.serving(origin, tls=tls))
            link = DicomWebLink(origin_servers.destination(url, tls=tls_files, **more), refusals)
            stack.callback(link.close)
            return link

        yield build


def send(link: DicomWebLink, file: ResultFile = FILE) -> StoreReply:
    """As the courier drives it."""
    try:
        return link.store(link.open([file])[0])
    except StaleConnectionError:
        return link.store(link.open([file])[0])


def refused(link: DicomWebLink) -> DeliveryError:
    with pytest.raises(DeliveryError) as raised:
        send(link)
    return raised.value


def test_the_file_arrives_byte_for_byte_over_one_connection(link_to: Opened) -> None:
    origin = Origin()
    link = link_to(origin)
    assert [send(link).words for _ in range(3)] == ["HTTP 200"] * 3
    assert origin.stored == {UID: [CONTENT] * 3}
    assert origin.connections == 1
    (first, *_) = origin.asked
    assert first.target == "/dicom-web/studies"
    assert first.headers["accept"] == "application/dicom+json"
    assert first.headers["content-type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert "transfer-encoding" not in first.headers


def swallow(connection: socket.socket) -> None:
    """Take a request of any size without keeping it, and say that the object was stored."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    left = length - len(head.split(b"\r\n\r\n", 1)[1])
    while left > 0:
        left -= len(connection.recv(1 << 20))
    body = json.dumps(module([reference(UID)])).encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\n")
    connection.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))


def test_a_large_object_is_never_there_twice() -> None:
    content = peers.result_object(ResultKind.HEATMAP, padding=32 << 20)
    file = ResultFile(sop_class_uid=FILE.sop_class_uid, size_bytes=len(content), content=content)
    with peers.raw_peer(swallow) as address:
        link = DicomWebLink(origin_servers.destination(f"http://127.0.0.1:{address.port}/x", timeout_s=30.0))
        link.open([file])
        tracemalloc.start()
        try:
            assert link.store(file).words == "HTTP 200"
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            link.close()
    assert peak < 16 << 20, "of 32 MiB; the peer's own MiB count too"


PERMANENT, AGAIN = True, False


@pytest.mark.parametrize(
    ("answer", "permanent", "words"),
    [
        (fails(409, 0xA900), PERMANENT, "Failure Reason 0xA900: data set does not match its SOP Class"),
        (fails(202, 0xC000), PERMANENT, "HTTP 202, Failure Reason 0xC000: cannot understand"),
        (fails(200, 0xC122), PERMANENT, "HTTP 200, Failure Reason 0xC122"),
        (fails(409, 0xA700), AGAIN, "Failure Reason 0xA700: refused: out of resources"),
        (fails(202, 0x0110), AGAIN, "processing failure"),
        (fails(409, 0x0124), AGAIN, "not authorized"),
        (says(400), PERMANENT, "HTTP 400: the request is malformed"),
        (says(409), PERMANENT, "HTTP 409: it stored nothing, and does not say why"),
        (says(413), PERMANENT, "too large"),
        (says(415), PERMANENT, "does not take application/dicom"),
        (says(401), AGAIN, "HTTP 401: it does not accept our authentication"),
        (says(403), AGAIN, "HTTP 403: our account may not do this"),
        (says(404), AGAIN, "no such service at this URL"),
        (says(418), AGAIN, "HTTP 418: it refuses"),
        (says(429), AGAIN, "too many requests"),
        (says(500), AGAIN, "a fault of the server"),
        (says(503), AGAIN, "it is busy"),
        (says(302, Location="http://127.0.0.1:9/"), AGAIN, "a redirect, which is not followed"),
        (says(307, Location="http://127.0.0.1:9/"), AGAIN, "a redirect, which is not followed"),
    ],
)
def test_what_is_not_stored_is_told_with_its_reason(
    link_to: Opened, answer: Callable[[Asked, int], Reply], permanent: bool, words: str
) -> None:
    error = refused(link_to(Origin(answer=answer)))
    assert (error.permanent, error.answered) == (permanent, True)
    assert words in str(error)
    assert not isinstance(error, UnreachableError)


def test_a_failure_reason_is_kept_as_the_status(link_to: Opened) -> None:
    assert refused(link_to(Origin(answer=fails(409, 0xA902)))).status == 0xA902


def test_a_warning_is_a_delivery(link_to: Opened) -> None:
    def coerced(asked: Asked, number: int) -> Reply:
        return Reply(status=202, body=module([reference(asked.uid, **{"00081196": 0xB000})]), keeps=True)

    reply = send(link_to(Origin(answer=coerced)))
    assert (reply.status, reply.is_warning) == (0xB000, True)
    assert reply.words == "HTTP 202 warning=0xB000 stored, data elements coerced"


def test_a_destination_that_has_it_already_is_a_delivery(link_to: Opened) -> None:
    assert send(link_to(Origin(answer=fails(409, 0x0111)))).status == 0x0111


LOGIN = Reply(body=b"<html>Please log in</html>", headers={"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(), "HTTP 200 without a body"),
        (Reply(status=204), "HTTP 204 without a body"),
        (LOGIN, "HTTP 200 with a body that is neither DICOM JSON nor XML"),
        (Reply(body=b"{", headers={"Content-Type": "application/dicom+json"}), "does not name the object"),
        (Reply(body=b"[" * 100_000, headers={"Content-Type": "application/json"}), "does not name the object"),
        (Reply(body=[]), "does not name the object"),
        (Reply(body={"00081199": 7}), "does not name the object"),
        (Reply(body=module([reference("1.2.3")])), "does not name the object"),
        (Reply(status=202, body=module([])), "does not name the object"),
    ],
)
@pytest.mark.parametrize("keeps", [True, False])
def test_an_answer_that_proves_nothing_is_looked_up(link_to: Opened, reply: Reply, words: str, keeps: bool) -> None:
    """A login page answers 200, too, and has nothing."""
    kept = Reply(status=reply.status, body=reply.body, headers=reply.headers, keeps=keeps)
    origin, refusals = Origin(answer=lambda asked, number: kept), Refusals()
    link = link_to(origin, refusals)
    if keeps:
        found = send(link)
        assert found.is_warning
        assert found.words.endswith(f"{words}; seen by QIDO-RS")
    else:
        error = refused(link)
        assert words in str(error)
        assert (error.permanent, error.answered) == (False, True)
        assert "QIDO-RS does not show it" in str(error)
    assert refusals.totals[Cause.DESTINATION_CONFUSED] == 1
    assert origin.asked[-1].target == f"/dicom-web/instances?SOPInstanceUID={UID}"


@pytest.mark.parametrize("reason", [0xB00E, 0x0110])
@pytest.mark.parametrize("keeps", [True, False])
def test_a_failure_that_says_little_is_looked_up(link_to: Opened, reason: int, keeps: bool) -> None:
    """Azure answers 0xB00E, and others a general failure, where an earlier try has left the object there."""
    failed = Reply(status=409, body=module(failed=[reference(UID, **{"00081197": reason})]), keeps=keeps)
    link = link_to(Origin(answer=lambda asked, number: failed))
    if keeps:
        assert send(link).words.endswith("; seen by QIDO-RS")
    else:
        error = refused(link)
        assert (error.permanent, error.status) == (False, reason)


def test_qido_that_shows_other_objects_shows_nothing(link_to: Opened) -> None:
    """A server that ignores the key returns whatever it has."""
    other = Reply(body=[{"00080018": {"vr": "UI", "Value": ["1.2.3"]}}])
    error = refused(link_to(Origin(answer=says(200), find=lambda asked: other)))
    assert "QIDO-RS does not show it" in str(error)


NATIVE = b"""<?xml version="1.0" encoding="UTF-8"?>
<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">
 <DicomAttribute tag="%s" vr="SQ"><Item number="1">
  <DicomAttribute tag="00081155" vr="UI"><Value number="1">%s</Value></DicomAttribute>
  <DicomAttribute tag="%s" vr="US"><Value number="1">%d</Value></DicomAttribute>
 </Item></DicomAttribute>
</NativeDicomModel>"""


@pytest.mark.parametrize("media_type", ["application/dicom+xml", "application/dicom+xml; charset=utf-8", "text/xml"])
def test_an_answer_in_xml_is_read(link_to: Opened, media_type: str) -> None:
    def told(sequence: bytes, reason: bytes, number: int) -> Reply:
        body = NATIVE % (sequence, UID.encode(), reason, number)
        return Reply(body=body, headers={"Content-Type": media_type})

    stored = told(b"00081199", b"00081196", 0xB006)
    assert send(link_to(Origin(answer=lambda asked, number: stored))).status == 0xB006
    failed = told(b"00081198", b"00081197", 0xA900)
    assert refused(link_to(Origin(answer=lambda asked, number: failed))).status == 0xA900


def test_xml_with_a_document_type_is_no_answer() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "bbbb">]>' + NATIVE % (b"00081199", UID.encode(), b"00081196", 0)
    answer = Answer(status=200, media_type="application/dicom+xml", content=bomb, after_s=None)
    assert dicomweb_answers.stored(answer, UID) is None


@pytest.mark.parametrize("item", [{}, {"00081197": {"vr": "US", "Value": [0xC000]}}])
def test_one_object_was_sent_so_what_failed_is_it(link_to: Opened, item: dict[str, Any]) -> None:
    error = refused(link_to(Origin(answer=lambda asked, number: Reply(status=202, body=module(failed=[item])))))
    assert error.status == (0xC000 if item else 0x0110)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0), ("0", 0.0), ("Sun, 29 Nov 2026 12:01:00 GMT", 60.0), ("Sun, 29 Nov 2026 11:00:00 GMT", 0.0),
        ("", None), ("soon", None), ("-5", None), ("1e9", None), ("9" * 400, 999_999_999.0),
    ],
)  # fmt: skip
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after_s(value, datetime(2026, 11, 29, 12, tzinfo=UTC)) == seconds


@pytest.mark.parametrize("status", [429, 503])
def test_how_long_it_is_to_be_left_alone_is_handed_on(link_to: Opened, status: int) -> None:
    assert refused(link_to(Origin(answer=says(status, Retry_After="77")))).after_s == 77.0


def drip(connection: socket.socket) -> None:
    """A byte now and then, never enough, so that no single read takes too long."""
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def silent(connection: socket.socket) -> None:
    connection.recv(1)
    threading.Event().wait(FOR_EVER_S)


def cut(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: 500\r\n\r\n{")


def garbage(connection: socket.socket) -> None:
    connection.sendall(b"\x07\x00 not HTTP at all\r\n\r\n")


@pytest.mark.parametrize(
    ("temper", "words", "cause"),
    [
        (drip, "no answer within 1 s", Cause.DESTINATION_MUTE),
        (silent, "no answer within 1 s", Cause.DESTINATION_MUTE),
        (cut, "no answer: the connection was lost", Cause.DESTINATION_ABORTED),
        (garbage, "no answer: the connection was lost", Cause.DESTINATION_ABORTED),
        (lambda connection: None, "no answer: the connection was lost", Cause.DESTINATION_ABORTED),
    ],
    ids=["drip", "silent", "cut", "garbage", "closed"],
)
def test_a_peer_that_gives_no_answer_ends_one_try(
    link_to: Opened, temper: Callable[[socket.socket], None], words: str, cause: Cause
) -> None:
    refusals = Refusals()
    link = link_to(Origin(answer=lambda asked, number: Reply(raw=temper)), refusals, timeout_s=1.0)
    error = refused(link)
    assert (str(error), error.permanent, error.answered) == (words, False, False)
    assert not isinstance(error, UnreachableError), "the object may have arrived"
    assert refusals.totals[cause] == 1


def test_a_peer_that_stops_reading_ends_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    content = peers.result_object(ResultKind.HEATMAP, padding=32 << 20)
    file = ResultFile(sop_class_uid=FILE.sop_class_uid, size_bytes=0, content=content)
    monkeypatch.setattr("cxr_node.node.deliver.http_client._SLOWEST_BYTES_PER_S", 1e9)
    with peers.raw_peer(silent) as address:
        link = DicomWebLink(origin_servers.destination(f"http://127.0.0.1:{address.port}", timeout_s=1.0))
        with pytest.raises(DeliveryError, match="no answer within 1 s"):
            send(link, file)
        link.close()


def test_an_answer_without_end_is_none(link_to: Opened) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\n\r\n")
        while True:
            connection.sendall(bytes(65536))

    error = refused(link_to(Origin(answer=lambda asked, number: Reply(raw=endless)), timeout_s=20.0))
    assert f"more than {http_exchange.MAX_ANSWER_BYTES} bytes" in str(error)
    assert not error.permanent


def test_an_early_refusal_of_a_large_object_is_heard() -> None:
    """A server that refuses by Content-Length answers and closes before the object has come."""
    content = peers.result_object(ResultKind.HEATMAP, padding=32 << 20)
    file = ResultFile(sop_class_uid=FILE.sop_class_uid, size_bytes=len(content), content=content)

    def early(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(1)
        while connection.recv(1 << 20):
            pass

    with peers.raw_peer(early) as address:
        link = DicomWebLink(origin_servers.destination(f"http://127.0.0.1:{address.port}", timeout_s=10.0))
        with pytest.raises(DeliveryError, match="HTTP 413") as raised:
            send(link, file)
        link.close()
    assert raised.value.permanent


def test_nobody_there_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = Refusals()
    link = DicomWebLink(origin_servers.destination(f"http://127.0.0.1:{peers.nobody().port}"), refusals)
    with pytest.raises(UnreachableError, match="no connection: connection refused"):
        send(link)
    assert refusals.totals[Cause.DESTINATION_AWAY] == 1


def test_a_kept_connection_that_was_lost_is_opened_again(link_to: Opened) -> None:
    """The server closes without a word between two objects; the second goes over a new connection."""
    origin = Origin()
    closing = threading.Event()

    def answer(asked: Asked, number: int) -> Reply:
        if number == 2 and not closing.is_set():
            closing.set()
            return Reply(raw=lambda connection: None, keeps=True)
        return Reply(body=module([reference(asked.uid)]), keeps=True)

    origin.answer = answer
    link = link_to(origin)
    assert send(link).words == send(link).words == "HTTP 200"
    assert origin.digests().keys() == {UID}
    assert len(origin.digests()[UID]) == 1


def test_a_sop_class_that_is_not_supported_makes_room_for_the_next(link_to: Opened) -> None:
    """HTTP negotiates none: the first refusal is remembered, and the next try is another one."""
    contents = [peers.result_object(ResultKind.MEASUREMENTS, choice=choice) for choice in range(3)]
    files = [
        ResultFile(sop_class_uid=sop_class, size_bytes=len(content), content=content)
        for sop_class, content in zip(peers.MEASUREMENT_CLASSES, contents, strict=True)
    ]

    def answer(asked: Asked, number: int) -> Reply:
        return (fails(409, 0x0122) if asked.file == contents[0] else origin_servers.accepts)(asked, number)

    link = link_to(Origin(answer=answer))
    assert link.open(files) == files
    with pytest.raises(DeliveryError) as raised:
        link.store(files[0])
    assert not raised.value.permanent
    assert link.open(files) == files[1:]
    assert link.store(files[1]).words == "HTTP 200"
    assert link.open(files[:1]) == files[:1], "alone it is tried again: the server may have learned it"
    with pytest.raises(DeliveryError) as raised:
        link.store(files[0])
    assert raised.value.permanent


# --- authentication ---


def secret(folder: Path, text: str, name: str = "secret") -> str:
    file = folder / name
    file.write_text(text)
    file.chmod(0o600)
    return str(file)


def bearer(*tokens: str) -> Callable[[Asked], bool]:
    return lambda asked: asked.headers.get("authorization") in {f"Bearer {token}" for token in tokens}


def test_a_bearer_token_is_read_again_where_it_was_refused(link_to: Opened, tmp_path: Path) -> None:
    file = secret(tmp_path, "first\n")
    origin = Origin(let_in=bearer("first"))
    link = link_to(origin, authentication={"kind": "bearer", "token": file})
    assert send(link).words == "HTTP 200"
    origin.let_in = bearer("second")
    assert "HTTP 401" in str(refused(link))
    secret(tmp_path, "second")
    assert send(link).words == "HTTP 200"


def test_a_password(link_to: Opened, tmp_path: Path) -> None:
    origin = Origin(let_in=lambda asked: asked.headers.get("authorization") == "Basic bm9kZTpodW50ZXIy")
    asked = {"kind": "basic", "user": "node", "password": secret(tmp_path, "hunter2")}
    assert send(link_to(origin, authentication=asked)).words == "HTTP 200"


class TokenServer:
    """Gives token1, token2, ... that last so long."""

    def __init__(self, lasts_s: float | None = 3600) -> None:
        self.lasts_s, self.given = lasts_s, 0
        self.asked: list[Asked] = []

    def __call__(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        self.given += 1
        lasts = {} if self.lasts_s is None else {"expires_in": self.lasts_s}
        body = {"access_token": f"token{self.given}", "token_type": "Bearer"} | lasts
        return Reply(body=body, headers={"Content-Type": "application/json"})


@pytest.fixture
def token_url() -> Iterator[Callable[[Any], str]]:
    with ExitStack() as stack:
        yield lambda token: stack.enter_context(origin_servers.serving(Origin(token=token))).replace(
            "/dicom-web", "/token"
        )


def client(folder: Path, url: str, **more: Any) -> dict[str, Any]:
    file = secret(folder, "s/e cret\n")
    return {"kind": "oauth2", "token_url": url, "client_id": "a node", "client_secret": file, **more}


def test_a_token_is_kept_until_it_ends(
    link_to: Opened, token_url: Callable[[Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = TokenServer(lasts_s=3600)
    origin = Origin(let_in=bearer("token1", "token2"))
    link = link_to(origin, authentication=client(tmp_path, token_url(tokens), scope="stow"))
    for _ in range(3):
        send(link)
    assert tokens.given == 1
    (asked,) = tokens.asked
    assert asked.content == b"grant_type=client_credentials&scope=stow"
    assert asked.headers["authorization"] == "Basic YStub2RlOnMlMkZlK2NyZXQ="  # RFC 6749 2.3.1: encoded before joined
    now = time.monotonic
    monkeypatch.setattr("cxr_node.node.deliver.http_authentication.time.monotonic", lambda: now() + 3580)
    send(link)
    assert tokens.given == 2


def test_a_token_that_is_refused_is_renewed_once(
    link_to: Opened, token_url: Callable[[Any], str], tmp_path: Path
) -> None:
    tokens = TokenServer()
    origin = Origin(let_in=bearer("token1"))
    link = link_to(origin, authentication=client(tmp_path, token_url(tokens)))
    send(link)
    origin.let_in = bearer("token2")  # the first was revoked
    assert send(link).words == "HTTP 200"
    origin.let_in = bearer("nobody's")
    error = refused(link)
    assert (error.permanent, "HTTP 401" in str(error)) == (False, True)
    assert tokens.given == 3


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(status=401, body={"error": "invalid_client"}), "HTTP 401, invalid_client"),
        (Reply(status=400, body={"error": "Patient Name <b>"}), "HTTP 400"),
        (Reply(status=400, body={"error": ["Patient"]}), "HTTP 400"),
        (Reply(status=503, headers={"Retry-After": "9"}), "HTTP 503, and no JSON"),
        (Reply(body={"token_type": "Bearer"}), "HTTP 200"),
        (Reply(body={"access_token": "a b\r\nX: y"}), "holds no token of visible ASCII characters"),
        (LOGIN, "HTTP 200, and no JSON"),
        (Reply(raw=silent), "no answer within 1 s"),
    ],
)
def test_without_a_token_nothing_is_sent_and_no_object_is_to_blame(
    link_to: Opened, token_url: Callable[[Any], str], tmp_path: Path, reply: Reply, words: str
) -> None:
    origin = Origin()
    link = link_to(origin, timeout_s=1.0, authentication=client(tmp_path, token_url(lambda asked: reply)))
    with pytest.raises(UnreachableError) as raised:
        send(link)
    assert words in str(raised.value)
    assert "Patient" not in str(raised.value)
    assert origin.asked == []


def test_a_secret_that_others_may_read_stops_the_node(link_to: Opened, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("t")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"others may read this token \(mode 0644\); chmod 0600"):
        link_to(Origin(), authentication={"kind": "bearer", "token": str(file)})


def test_no_secret_no_url_and_no_header_is_ever_logged(
    link_to: Opened, token_url: Callable[[Any], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    link = link_to(Origin(let_in=bearer("token1")), authentication=client(tmp_path, token_url(TokenServer())))
    send(link)
    said = caplog.text
    for word in ("token1", "cret", "CANARY", "SOPInstanceUID=", "dicom-web"):
        assert word not in said


# --- TLS ---


def test_tls_shows_our_certificate_and_checks_theirs(link_to: Opened, tmp_path: Path) -> None:
    ours, foreign = Authority(tmp_path), Authority(tmp_path, "foreign")
    server, node, refusals = ours.issue("server"), ours.issue("node"), Refusals()
    assert send(link_to(Origin(), tls=server.server(), tls_files=node.tls())).words == "HTTP 200"
    with pytest.raises(UnreachableError, match="TLS failed: certificate not accepted"):
        send(link_to(Origin(), refusals, tls=server.server(), tls_files={"ca": str(foreign.pem)}))
    assert refusals.totals[Cause.TLS] == 1
    with pytest.raises(DeliveryError, match=r"TLS failed|connection was lost"):  # it wants a certificate of ours
        send(link_to(Origin(), tls=server.server(), tls_files={"ca": str(ours.pem)}))


def test_a_server_without_need_of_our_certificate(link_to: Opened, tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    context = ours.issue("server").server()
    context.verify_mode = ssl.CERT_NONE
    assert send(link_to(Origin(), tls=context, tls_files={"ca": str(ours.pem)})).words == "HTTP 200"


def test_tls_also_ends_at_its_deadline(link_to: Opened, tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    server, node = ours.issue("server"), ours.issue("node")
    origin = Origin(answer=lambda asked, number: Reply(raw=drip))
    link = link_to(origin, tls=server.server(), tls_files=node.tls(), timeout_s=1.0)
    assert str(refused(link)) == "no answer within 1 s"


# --- through a proxy ---


def tunnel(connections: list[bytes]) -> Callable[[socket.socket], None]:
    """An HTTP proxy for one connection: CONNECT, and what comes is handed on, both ways."""

    def behave(client: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += client.recv(65536)
        connections.append(request.split(b"\r\n")[0])
        host, _, port = request.split()[1].decode().partition(":")
        with socket.create_connection((host, int(port))) as server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_hand_on, args=(server, client), daemon=True)
            back.start()
            _hand_on(client, server)
            back.join(5)

    return behave


def _hand_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


def test_through_a_proxy_and_still_ended_at_the_deadline(link_to: Opened, tmp_path: Path) -> None:
    ours, connections = Authority(tmp_path), list[bytes]()
    server, node = ours.issue("server"), ours.issue("node")
    with peers.raw_peer(tunnel(connections)) as address:
        proxy = f"http://127.0.0.1:{address.port}"
        origin = Origin()
        link = link_to(origin, tls=server.server(), tls_files=node.tls(), proxy=proxy)
        assert [send(link).words for _ in range(2)] == ["HTTP 200"] * 2
        assert connections == [f"CONNECT {origin.url.split('/')[2]} HTTP/1.1".encode()]
        link.close()
        dripping = Origin(answer=lambda asked, number: Reply(raw=drip))
        slow = link_to(dripping, tls=server.server(), tls_files=node.tls(), proxy=proxy, timeout_s=1.0)
        assert str(refused(slow)) == "no answer within 1 s"


def test_a_proxy_that_refuses(link_to: Opened, tmp_path: Path) -> None:
    def refuse(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(b"HTTP/1.1 407 Tell CANARY^PATIENT\r\nContent-Length: 0\r\n\r\n")

    ours = Authority(tmp_path)
    with peers.raw_peer(refuse) as address:
        proxy = f"http://127.0.0.1:{address.port}"
        link = link_to(Origin(), tls=ours.issue("server").server(), tls_files={"ca": str(ours.pem)}, proxy=proxy)
        with pytest.raises(UnreachableError) as raised:
            send(link)
    assert str(raised.value) == "no connection: the proxy refuses it (HTTP 407)"


# --- what `check` asks ---


def test_the_probe_asks_for_nobody_s_object(link_to: Opened) -> None:
    origin = Origin()
    link = link_to(origin)
    assert link.probe() == f"{origin.url} answers QIDO-RS"
    assert [one.target for one in origin.asked] == ["/dicom-web/instances?SOPInstanceUID=2.25.0"]


def test_the_probe_says_that_the_token_is_refused(link_to: Opened, tmp_path: Path) -> None:
    origin = Origin(let_in=bearer("another"))
    link = link_to(origin, authentication={"kind": "bearer", "token": secret(tmp_path, "mine")})
    with pytest.raises(DeliveryError) as raised:
        link.probe()
    assert str(raised.value) == f"{origin.url}: HTTP 401: it does not accept our authentication"


def test_the_probe_of_a_server_without_qido(link_to: Opened) -> None:
    origin = Origin(find=lambda asked: Reply(status=501), options=204)
    assert link_to(origin).probe().endswith("answers, without QIDO-RS: the first result shows whether it stores")
    with pytest.raises(DeliveryError, match="HTTP 501: there is no such service at this URL"):
        link_to(origin, verify_h=1).probe()
    with pytest.raises(DeliveryError, match="HTTP 404: there is no such service at this URL"):
        link_to(Origin(find=lambda asked: Reply(status=404))).probe()
