"""Every association that is not released, and every refusal, is a line, an audit message and a count."""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cxr_node.node.audit.messages import Participant, Transfer
from cxr_node.node.ledger import queries
from cxr_node.node.network import guarded_socket
from tests.node import wire
from tests.node.receivers import Receiving, receiving
from tests.node.test_receive import eventually, instance
from tests.node.wire import ASSOCIATE_AC, ASSOCIATE_RJ, Wire
from tests.pacs import odd_associations


@dataclass
class Told:
    """An audit that remembers who was refused, or what ended."""

    alerts: list[tuple[str, str, str]] = field(default_factory=list)
    """Word, cause, AE title."""

    def begins(self, transfer: Transfer, sop_class_uid: str) -> None:
        """Nothing of interest here."""

    def transferred(self, transfer: Transfer, sop_class_uid: str) -> None:
        """Nothing of interest here."""

    def refused(self, peer: Participant, cause: str, times: int = 1, word: str = "refused") -> None:
        self.alerts.append((word, str(cause), peer.ae_title))


SILENT = ("silence", "idle")
"""Endings that silence makes."""


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def node(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Receiving]:
    """Patient, but where silence is what ends the association: elsewhere a loaded machine must not be the end of it."""
    silent = getattr(request.node, "callspec", None) is not None and request.node.callspec.params["name"] in SILENT
    if silent:
        monkeypatch.setattr(guarded_socket, "PDU_GRACE_S", 0.6)
        monkeypatch.setattr("cxr_node.node.receive.server.ARTIM_S", 0.6)
    with receiving(tmp_path / "spool", audit=told, idle_timeout_s=0.5 if silent else 60.0) as node:
        yield node


def _abort(peer: Wire) -> None:
    peer.associate()
    peer.send(wire.pdu(wire.ABORT, b"\0\0\2\6"))


def _abort_at_once(peer: Wire) -> None:
    peer.send(wire.pdu(wire.ABORT, bytes(4)))


def _close(peer: Wire) -> None:
    peer.associate()


def _reset(peer: Wire) -> None:
    peer.associate()
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _close_in_the_request(peer: Wire) -> None:
    peer.send(odd_associations.Request().encoded()[:100])


def _silent(peer: Wire) -> None:
    assert peer.receive()[0] == 0


def _idle(peer: Wire) -> None:
    peer.associate()
    assert peer.receive()[0] == wire.ABORT


def _say(content: bytes) -> Callable[[Wire], None]:
    def say(peer: Wire) -> None:
        peer.send(content)
        while peer.receive()[0]:
            pass

    return say


def _say_associated(content: bytes) -> Callable[[Wire], None]:
    def say(peer: Wire) -> None:
        peer.associate()
        peer.send(content)
        while peer.receive()[0]:
            pass

    return say


ENDINGS: dict[str, tuple[Callable[[Wire], None], str, str, str]] = {
    "abort": (_abort, "association ended", "peer-abort", "Invalid PDU parameter value"),
    "abort at once": (_abort_at_once, "association ended", "peer-abort", "the peer's application"),
    "close": (_close, "association ended", "peer-closed", "without a release"),
    "reset": (_reset, "association ended", "peer-closed", "without a release"),
    "close in the request": (_close_in_the_request, "association ended", "peer-closed", "in the middle of a request"),
    "silence": (_silent, "association ended", "no-request", "no association was requested in time"),
    "idle": (_idle, "association ended", "idle", "silent for longer"),
    "HTTP": (_say(b"GET / HTTP/1.1\r\n\r\n"), "refused", "protocol", "an HTTP request"),
    "TLS": (_say(b"\x16\x03\x01\x02\0\1\0\1\xfc\3\3"), "refused", "protocol", "a TLS handshake"),
    "nonsense": (_say(b"\x99" * 20), "refused", "protocol", "does not speak DICOM"),
    "an item too long": (
        _say(wire.pdu(1, odd_associations.Request().encoded()[6:-1])),
        "refused",
        "protocol",
        "an item",
    ),
    "no AE title": (
        _say(odd_associations.Request(calling=bytes(16)).encoded()),
        "refused",
        "protocol",
        "nothing but padding",
    ),
    "version": (_say(odd_associations.Request(version=2).encoded()), "refused", "protocol-version", "bit 0"),
    "out of place": (_say(wire.pdu(5, bytes(4))), "refused", "protocol", "out of its place"),
    "a request twice": (
        _say_associated(odd_associations.Request().encoded()),
        "refused",
        "protocol",
        "out of its place",
    ),
    "no PDV": (_say_associated(wire.pdu(wire.P_DATA, b"\xff" * 12)), "refused", "protocol", "cannot be read"),
    "an echo elsewhere": (
        _say_associated(
            wire.pdu(
                wire.P_DATA,
                wire.pdv(
                    wire.command(0x30, sop_class=wire.VERIFICATION.encode(), has_data=False),
                    context_id=9,
                    is_command=True,
                ),
            )
        ),
        "refused",
        "protocol",
        "not served here",
    ),
    "a stranger": (lambda peer: (peer.associate(called="OTHER"), None)[1], "refused", "called-ae-title", "OTHER"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_what_is_not_released_is_told(node: Receiving, told: Told, caplog: pytest.LogCaptureFixture, name: str) -> None:
    do, word, cause, detail = ENDINGS[name]
    with caplog.at_level(logging.INFO, "cxr_node"):
        with Wire(node.port) as peer:
            do(peer)
        assert eventually(lambda: told.alerts)
        node.stop.set()
        node.thread.join(30)
    assert [one[:2] for one in told.alerts] == [(word, cause)]
    (line,) = [one for one in caplog.messages if f"cause={cause}" in one]
    assert line.startswith(f"{word} peer=127.0.0.1 ae=")
    assert detail in line
    assert f"since the start {cause}=1" in caplog.text  # nothing is counted twice


def test_a_release_and_a_look_at_the_port_are_not_told(
    node: Receiving, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "cxr_node"):
        before = threading.active_count()
        socket.create_connection(("127.0.0.1", node.port)).close()
        for _ in range(3):  # taken after it, for connections are taken in their order
            with Wire(node.port) as peer:
                assert peer.associate()[0] == ASSOCIATE_AC
                assert peer.release() == wire.RELEASE_RP
        assert eventually(lambda: threading.active_count() <= before)
        node.stop.set()
        node.thread.join(30)
    assert told.alerts == []
    assert not [one for one in caplog.messages if "cause=" in one]
    assert "refused or ended since the start probe=1" in caplog.messages  # a watchdog of ports is counted, no more


def test_a_stop_that_aborts_is_told(node: Receiving, told: Told) -> None:
    with Wire(node.port) as peer:
        peer.associate(calling="CT1")
        node.stop.set()
        node.thread.join(30)
    assert told.alerts in ([("association ended", cause, "CT1")] for cause in ("stopping", "idle"))


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        (b"CT1".ljust(16, b"\0"), "CT1"),
        (b"   CT1\0\0garbage!", "CT1"),
        (b"R\xf6ntgen".ljust(16), "R\\xF6ntgen"),
        (b"<&\"'%s\xff".ljust(16), "<&\"'%s\\xFF"),
    ],
)
def test_a_title_is_the_same_in_ledger_log_and_audit(tmp_path: Path, told: Told, raw: bytes, title: str) -> None:
    uid, data_set = instance()
    request = odd_associations.Request(calling=raw)
    request.contexts = [
        odd_associations.proposed(1, wire.DX, (wire.EXPLICIT,)),
        odd_associations.proposed(3, wire.VERIFICATION, (wire.IMPLICIT,)),
    ]
    with receiving(tmp_path / "spool", audit=told) as node, Wire(node.port) as peer:
        peer.send(request.encoded())
        kind, content = peer.receive()
        assert kind == ASSOCIATE_AC
        assert content[4:68] == request.encoded()[10:74]  # Table 9-17: returned as it came
        assert peer.store(uid, data_set) == 0x0000
        assert [row.calling_ae_title for row in queries.recent(node.ledger, 10)] == [title]
        peer.send(wire.pdu(wire.ABORT, bytes(4)))
        assert eventually(lambda: told.alerts)
    assert told.alerts == [("association ended", "peer-abort", title)]


@pytest.mark.parametrize(
    ("calling", "called", "is_in"),
    [
        (b"CT1".ljust(16, b"\0"), b"CXR_NODE".ljust(16, b"\0"), True),
        (b"CT1".rjust(16), b" CXR_NODE\0junk!!", True),
        (b"CT1\xff".ljust(16), b"CXR_NODE".ljust(16), False),
        (b"CT1?".ljust(16), b"CXR_NODE".ljust(16), False),
        (b"CT1".ljust(16), b"CXR_NODE\xff".ljust(16), False),
    ],
)
def test_titles_are_compared_without_their_padding(tmp_path: Path, calling: bytes, called: bytes, is_in: bool) -> None:
    peers: Any = [{"ae_title": "CT1"}, {"ae_title": "CT1??"}]
    with receiving(tmp_path / "spool", peers=peers) as node, Wire(node.port) as peer:
        peer.send(odd_associations.Request(calling=calling, called=called).encoded())
        assert peer.receive()[0] == (ASSOCIATE_AC if is_in else ASSOCIATE_RJ)
