"""Behind a load balancer: rules, shares, log and ledger speak of the peer that it names; nobody else may name one."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cxr_node.config.loader import parse
from cxr_node.errors import ConfigError
from cxr_node.node.ledger import queries
from cxr_node.node.network import proxy_protocol
from cxr_node.node.network.proxy_protocol import HEAD_BYTES, LONGEST_BYTES, SIGNATURE, HeaderError, Source
from tests import builders
from tests.node import wire
from tests.node.certificates import Authority
from tests.node.receivers import Receiving, receiving
from tests.node.wire import ASSOCIATE_AC, ASSOCIATE_RJ, Wire
from tests.patience import eventually

PROXY = {"proxy_protocol": ["127.0.0.1"], "allow_plaintext": True}
"""Wires come from 127.0.0.1, the load balancer of these tests, unless they say otherwise."""
ELSEWHERE = "127.0.0.9"
TLV = b"\x05\x00\x04name"
"""PP2_TYPE_UNIQUE_ID."""
VERSION_1 = b"PROXY TCP4 10.1.2.3 10.0.0.9 50000 11112\r\n"


def header(host: str = "10.1.2.3", *, command: int = 1, family: int | None = None, more: bytes = b"") -> bytes:
    address = ipaddress.ip_address(host)
    body = address.packed + address.packed + struct.pack(">HH", 50000, 11112) + more
    kind = family if family is not None else 0x11 if address.version == 4 else 0x21
    return SIGNATURE + struct.pack(">BBH", 0x20 | command, kind, len(body)) + body


LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
"""What HAProxy's own health checks begin with."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Receiving]:
    with receiving(tmp_path / "spool", **PROXY) as node:
        yield node


def calling(node: Receiving, begin: bytes, from_host: str = "127.0.0.1", **titles: str) -> tuple[int, bytes]:
    """What the answer to an association request is, after these bytes; (0, b"") where the connection is closed."""
    with Wire(node.port, from_host=from_host) as peer:
        return _after(peer, begin, **titles)


def _after(peer: Wire, begin: bytes, **titles: str) -> tuple[int, bytes]:
    try:
        peer.send(begin)
        return peer.associate(**titles)
    except (BrokenPipeError, ConnectionResetError):
        return 0, b""


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("refused peer")]


@pytest.mark.parametrize(
    ("host", "known_as"),
    [("10.1.2.3", "10.1.2.3"), ("2001:db8::7", "2001:db8::7"), ("::ffff:10.1.2.3", "10.1.2.3")],
)
def test_ledger_and_log_name_the_peer_behind_the_proxy(
    node: Receiving, caplog: pytest.LogCaptureFixture, host: str, known_as: str
) -> None:
    dataset = builders.radiograph(1)
    data_set = wire.data_set_of(builders.part10(dataset))
    with caplog.at_level(logging.INFO), Wire(node.port) as peer:
        peer.send(header(host, more=TLV * 100))
        assert peer.associate()[0] == ASSOCIATE_AC
        assert peer.store(str(dataset.SOPInstanceUID), data_set) == 0x0000
    assert [row.peer_host for row in queries.recent(node.ledger, 10)] == [known_as]
    assert any(f"peer={known_as} ae='WIRE'" in record.getMessage() for record in caplog.records)


def test_rules_by_host_are_about_the_peer_behind_the_proxy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    peers = [{"ae_title": "WIRE", "hosts": ["10.1.2.0/24"]}]
    with receiving(tmp_path / "spool", **PROXY, peers=peers) as node:
        assert calling(node, header("10.1.2.3"))[0] == ASSOCIATE_AC
        kind, content = calling(node, header("10.9.9.9"))
        assert (kind, tuple(content[1:4])) == (ASSOCIATE_RJ, (1, 1, 3))
        assert calling(node, LOCAL)[0] == ASSOCIATE_RJ  # the proxy's own check has no right that is not written
    assert "refused peer=10.9.9.9 ae='WIRE' cause=host " in refusals(caplog)


def test_one_silent_peer_behind_the_proxy_leaves_room_for_others(tmp_path: Path) -> None:
    """As many silent connections of one peer as it may have, associated and not; the other is heard at once."""
    with (
        receiving(tmp_path / "spool", **PROXY, max_associations=8, max_associations_per_host=2) as node,
        ExitStack() as stack,
    ):
        mine = [stack.enter_context(Wire(node.port)) for _ in range(3)]
        assert [_after(peer, header())[0] for peer in mine] == [ASSOCIATE_AC, ASSOCIATE_AC, ASSOCIATE_RJ]
        silent = [stack.enter_context(Wire(node.port)) for _ in range(20)]
        for peer in silent:
            peer.send(header())
        assert eventually(lambda: sum(map(_is_closed, silent)) >= 20 - 8)  # beyond its share
        assert calling(node, header("10.9.9.9"))[0] == ASSOCIATE_AC


def test_without_the_protocol_one_silent_peer_keeps_all_others_out(tmp_path: Path) -> None:
    """What the header is for: the same proxy and the same peers, and the node sees one host."""
    with receiving(tmp_path / "spool", max_associations=8, max_associations_per_host=2) as node, ExitStack() as stack:
        mine = [stack.enter_context(Wire(node.port)) for _ in range(2)]
        assert [peer.associate()[0] for peer in mine] == [ASSOCIATE_AC, ASSOCIATE_AC]
        assert calling(node, b"")[0] == ASSOCIATE_RJ


def _is_closed(peer: Wire) -> bool:
    try:
        return peer.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("begin", [header(), LOCAL, VERSION_1], ids=["version 2", "local", "version 1"])
def test_a_header_of_anybody_else_is_refused_with_one_line(
    node: Receiving, caplog: pytest.LogCaptureFixture, begin: bytes
) -> None:
    with caplog.at_level(logging.INFO):
        assert [calling(node, begin, ELSEWHERE)[0] for _ in range(5)].count(ASSOCIATE_AC) == 0
        assert calling(node, b"", ELSEWHERE)[0] == ASSOCIATE_AC  # who does not pretend is heard as ever
        node.stop.set()
        node.thread.join(20)
    told = [record for record in caplog.records if f"refused peer={ELSEWHERE}" in record.getMessage()]
    words = "a PROXY protocol header, from an address that listen.proxy_protocol does not name"
    assert told[0].levelname == "WARNING"
    assert [record.getMessage() for record in told] == [
        f"refused peer={ELSEWHERE} ae='' cause=proxy-header {words}",
        f"refused peer={ELSEWHERE} ae='' cause=proxy-header … and 4 more",
    ]
    totals = [record.getMessage() for record in caplog.records if "since the start" in record.getMessage()]
    assert any("proxy-header=5" in line for line in totals)


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (b"", "no PROXY protocol header; listen.proxy_protocol names this address"),
        (b"GET / HTTP/1.1\r\n\r\n", "no PROXY protocol header; listen.proxy_protocol names this address"),
        (VERSION_1, "a PROXY protocol header of version 1; listen.proxy_protocol names this address, and version 2"),
        (SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12), "version 1 of the PROXY protocol in a binary header"),
        (SIGNATURE + b"\x25\x11\x00\x0c" + bytes(12), "command 5 of the PROXY protocol"),
        (header(family=0x31), "a PROXY protocol header without a peer over TCP (family 31H)"),
        (header(family=0x12), "a PROXY protocol header without a peer over TCP (family 12H)"),
        (header(family=0x00), "a PROXY protocol header without a peer over TCP (family 00H)"),
        (header(family=0x21), "a PROXY protocol header of 12 bytes, shorter than its addresses"),
        (header(more=bytes(LONGEST_BYTES)), f"a PROXY protocol header of {LONGEST_BYTES + 12} bytes"),
    ],
    ids=str,
)
def test_a_proxy_must_begin_with_a_header_of_version_2(
    node: Receiving, caplog: pytest.LogCaptureFixture, begin: bytes, words: str
) -> None:
    assert calling(node, begin)[0] == 0
    assert eventually(lambda: bool(refusals(caplog)))
    (line,) = refusals(caplog)
    assert line.startswith(f"refused peer=127.0.0.1 ae='' cause=proxy-header {words}")
    assert calling(node, header())[0] == ASSOCIATE_AC


def test_a_health_check_is_served_and_leaves_no_line(node: Receiving, caplog: pytest.LogCaptureFixture) -> None:
    with Wire(node.port) as peer:
        peer.send(LOCAL)
        assert peer.associate(calling="HAPROXY")[0] == ASSOCIATE_AC
        assert peer.echo() == 0x0000
        assert peer.release() == wire.RELEASE_RP
    for begin in (b"", LOCAL):  # what only looks whether the port is open
        with Wire(node.port) as peer:
            peer.send(begin)
    assert calling(node, header())[0] == ASSOCIATE_AC
    assert refusals(caplog) == []


def test_a_slow_header_is_not_waited_for_and_keeps_nobody_waiting(
    node: Receiving, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_protocol, "HEADER_S", 0.5)
    with Wire(node.port) as silent, Wire(node.port) as slow:
        for one in header()[:4]:
            slow.send(bytes([one]))
            time.sleep(0.05)
        assert calling(node, header("10.9.9.9"))[0] == ASSOCIATE_AC
        assert silent.receive() == slow.receive() == (0, b"")
    assert all("cause=proxy-header no whole PROXY protocol header within 0.5 s" in line for line in refusals(caplog))


def test_a_header_that_breaks_off_is_one_line(node: Receiving, caplog: pytest.LogCaptureFixture) -> None:
    with Wire(node.port) as peer:
        peer.send(header()[:20])
    assert eventually(lambda: bool(refusals(caplog)))
    assert "closed in the middle of a PROXY protocol header" in refusals(caplog)[0]


def test_tls_begins_after_the_header(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca = Authority(tmp_path)
    client, listen = ca.issue("client").client(), {"proxy_protocol": ["127.0.0.1"], "tls": ca.issue("node").tls()}
    peers = [{"ae_title": "WIRE", "hosts": ["10.1.2.3"]}]
    with receiving(tmp_path / "spool", **listen, peers=peers) as node:
        with Wire(node.port) as peer:
            peer.send(header())
            peer.socket = client.wrap_socket(peer.socket)
            assert peer.associate()[0] == ASSOCIATE_AC
            assert peer.echo() == 0x0000
        for from_host, begin in ((ELSEWHERE, header()), ("127.0.0.1", b"\x16\x03\x01"), ("127.0.0.1", header() * 2)):
            assert calling(node, begin, from_host)[0] == 0
        assert eventually(lambda: len(refusals(caplog)) == 3)
    causes = sorted(re.findall(r"peer=(\S+) ae='' cause=(\S+)", " ".join(refusals(caplog))))
    assert causes == [("10.1.2.3", "proxy-header"), ("127.0.0.1", "proxy-header"), (ELSEWHERE, "proxy-header")]


@pytest.mark.parametrize("word", ["balancer.example.org", "10.0.0.0/33", "", "10.0.0"])
def test_a_proxy_is_an_address_or_a_network(word: str) -> None:
    with pytest.raises(ConfigError, match=r"listen\.proxy_protocol\.1: .* is no address and no network; write 10\."):
        parse({"spool": {"path": "x"}, "listen": {"proxy_protocol": [word]}})


def test_a_proxy_makes_a_loopback_listener_one_that_others_reach() -> None:
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1 through a proxy of listen\.proxy_protocol"):
        parse({"spool": {"path": "x"}, "listen": {"proxy_protocol": ["127.0.0.1"]}})


HEADERS = st.builds(
    header,
    st.one_of(st.ip_addresses().map(str)),
    command=st.sampled_from((0, 1, 1, 1, 2)),
    family=st.sampled_from((None, None, 0x00, 0x11, 0x21, 0x31)),
    more=st.binary(max_size=60),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A header with bytes changed, left out and put in; or with none of that."""
    content = bytearray(draw(HEADERS))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        content[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(content)


def expected(content: bytes) -> Source | type[Exception] | None:
    """Read slowly by the specification's table, not by the code under test: 2.2, bytes 1 to 12, 13, 14, 15 and 16."""
    if not content:
        return EOFError
    body = content[HEAD_BYTES:]
    if content[:12] != SIGNATURE or len(content) < HEAD_BYTES or content[12] not in (0x20, 0x21):
        return HeaderError
    length = content[14] << 8 | content[15]
    if length > LONGEST_BYTES or length > len(body):
        return HeaderError
    if content[12] == 0x20:
        return None
    if content[13] == 0x11 and length >= 12:
        return Source(".".join(map(str, body[:4])), body[8] << 8 | body[9])
    if content[13] == 0x21 and length >= 36:
        host = ipaddress.IPv6Address(body[:16])
        return Source(str(host.ipv4_mapped or host), body[32] << 8 | body[33])
    return HeaderError


def found(content: bytes) -> Source | type[Exception] | None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(content)
        theirs.shutdown(socket.SHUT_WR)
        try:
            return proxy_protocol.read(ours)
        except (HeaderError, EOFError) as error:
            return type(error)


@given(content=st.one_of(damaged(), st.binary(max_size=80), st.binary(max_size=60).map(SIGNATURE.__add__)))
@settings(max_examples=400)
@example(header())
@example(LOCAL)
@example(VERSION_1)
@example(header(more=bytes(LONGEST_BYTES - 12)))
@example(SIGNATURE + b"\x21\x11\xff\xff")
def test_any_bytes_are_a_header_or_not(content: bytes) -> None:
    assert found(content) == expected(content)


def test_nothing_beyond_the_header_is_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(header("2001:db8::7", more=TLV) + b"what follows")
        assert proxy_protocol.read(ours) == Source("2001:db8::7", 50000)
        assert ours.recv(100) == b"what follows"


def test_no_bytes_make_a_traceback_or_an_association_out_of_a_bad_header(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), receiving(tmp_path / "spool", **PROXY) as node:

        @given(content=st.one_of(damaged(), st.binary(max_size=40)))
        @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
        def call(content: bytes) -> None:
            nr_bytes = int.from_bytes(content[14:16])
            is_whole = not isinstance(expected(content), type) and nr_bytes == len(content) - HEAD_BYTES
            with Wire(node.port) as peer:
                assert (_request_after(peer, content, is_whole) == ASSOCIATE_AC) == is_whole

        call()
        assert calling(node, header())[0] == ASSOCIATE_AC
    assert not [record for record in caplog.records if record.exc_info or "cause=fault" in record.getMessage()]


def _request_after(peer: Wire, content: bytes, is_whole: bool) -> int:
    """Type of the answer to an association request after these bytes; nothing else will come if it is no header."""
    with contextlib.suppress(OSError):
        peer.send(content + wire.associate_rq({1: (wire.VERIFICATION, (wire.IMPLICIT,))}))
        if not is_whole:
            peer.socket.shutdown(socket.SHUT_WR)
        return peer.receive()[0]
    return 0
