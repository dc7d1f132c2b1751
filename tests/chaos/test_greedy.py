"""Peers that ask for too much at once cost the receiver no memory, and leave nothing behind (T4 to T7, T15, T16).

Short: an object limit of 16 MiB, 48 broken transfers. Long: the default limit of 256 MiB, an object of 1 GiB that is
taken and one that is not, 1,000 broken transfers.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests import builders
from tests.chaos.conftest import Report
from tests.chaos.roles import MIB, Peak, Role, Usage, is_back
from tests.chaos.test_crowds import radiographs, warmed_up
from tests.node import wire
from tests.node.wire import Wire
from tests.patience import eventually

MOST_RSS_MIB = 50.0
FOUR_GIB = 0xFFFFFFF0
BLOCK = bytes(128 * 1024 - 6)

Run = tuple[Role, Usage, bool]


@contextmanager
def costs_nothing(node: Role, base: Usage, what: str, report: Report) -> Iterator[None]:
    """Whatever is done inside, the receiver stays small and is soon as it was before."""
    with Peak(node.pid) as peak:
        yield
        back = eventually(lambda: _is_back(node, base))
    grown = peak.rss_mib - base.rss_mib
    report(
        f"'{what}' rss_growth_mib={grown:.0f} left_over={len(node.parts())}", peak=f"'{peak}'", now=f"'{node.usage()}'"
    )
    assert grown <= MOST_RSS_MIB
    assert back, f"{node.usage()} is not {base}"
    assert node.parts() == []
    with Wire(node.port) as peer:
        assert peer.associate()[0] == wire.ASSOCIATE_AC
        assert peer.echo() == 0x0000
        peer.release()
    eventually(lambda: _is_back(node, base))


def _is_back(node: Role, base: Usage) -> bool:
    return is_back(node.usage(), base) and not node.parts()


@pytest.fixture(
    scope="module", params=[pytest.param("short"), pytest.param("long", marks=[pytest.mark.chaos])], name="run"
)
def _run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A receiver that all cases share, what it holds at rest, and whether it is the long run."""
    is_long = request.param == "long"
    limits = {} if is_long else {"max_object_mib": 16}
    with Role(tmp_path_factory.mktemp("greedy"), "receive", listen=limits) as node:
        yield node, warmed_up(node), is_long


def pour(peer: Wire, most_bytes: int, block: bytes = BLOCK) -> int:
    """Send until the node has had enough; how much it took."""
    sent = 0
    with suppress(OSError):
        while sent < most_bytes:
            peer.socket.sendall(block)
            sent += len(block)
    return sent


@pytest.mark.parametrize("associated", [False, True], ids=["before", "after"])
def test_a_pdu_of_4_gib_is_not_read(run: Run, report: Report, associated: bool) -> None:
    node, base, _ = run
    taken = []
    with costs_nothing(node, base, f"PDU header of 4 GiB, associated: {associated}, x 10", report):
        for _ in range(10):
            with Wire(node.port) as peer:
                if associated:
                    assert peer.associate()[0] == wire.ASSOCIATE_AC
                peer.send(struct.pack(">BBI", wire.P_DATA if associated else 0x01, 0, FOUR_GIB))
                taken.append(pour(peer, 64 * MIB))
    print(f"taken at most {max(taken) / MIB:.1f} MiB, buffers of the kernel included")
    assert max(taken) < 8 * MIB


def test_an_endless_object_is_cut(run: Run, report: Report) -> None:
    node, base, is_long = run
    limit = (256 if is_long else 16) * MIB
    fragment = wire.pdu(wire.P_DATA, wire.pdv(BLOCK, is_last=False))
    with costs_nothing(node, base, "endless C-STORE", report), Wire(node.port) as peer:
        assert peer.associate()[0] == wire.ASSOCIATE_AC
        peer.begin_store("1.2.3.1")
        sent = pour(peer, 4 * limit, fragment)
    print(f"cut after {sent / MIB:.0f} MiB, limit {limit // MIB} MiB")
    assert limit <= sent < 3 * limit


def test_an_object_above_the_limit_is_refused_and_none_else(run: Run, report: Report) -> None:
    """Below twice the limit the answer comes where the peer expects it, and the association goes on."""
    node, base, is_long = run
    size = (256 if is_long else 16) * MIB * 3 // 2
    with costs_nothing(node, base, f"an object of {size // MIB} MiB", report), Wire(node.port, 120) as peer:
        assert peer.associate()[0] == wire.ASSOCIATE_AC
        assert peer.store("1.2.3.2", bytes(size)) == 0xA700
        assert peer.store(*next(radiographs(1))) == 0x0000
        peer.release()


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_an_object_of_1_gib_is_streamed(tmp_path: Path, report: Report) -> None:
    """Where the operator allows as much, it is stored whole, and no part of it is held in memory."""
    rows, columns = 16384, 32768
    dataset = builders.radiograph(1, Rows=rows, Columns=columns, PixelData=None)
    head = wire.data_set_of(builders.part10(dataset)) + struct.pack(
        "<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 2 * rows * columns
    )
    digest = hashlib.sha256()
    with Role(tmp_path, "receive", listen={"max_object_mib": 2048}) as node:
        base = warmed_up(node)
        with costs_nothing(node, base, "1 GiB, allowed", report), Wire(node.port, 300) as peer:
            peer.associate()
            peer.begin_store(str(dataset.SOPInstanceUID))
            left = 2 * rows * columns
            peer.send(wire.pdu(wire.P_DATA, wire.pdv(head, is_last=False)))
            digest.update(head)
            while left:
                block = BLOCK[: min(left, len(BLOCK))]
                left -= len(block)
                digest.update(block)
                peer.send(wire.pdu(wire.P_DATA, wire.pdv(block, is_last=left == 0)))
            assert peer.status() == 0x0000
            peer.release()
        row = node.rows()[-1]
        file = node.spool / "objects" / row.content_sha256[:2] / f"{row.content_sha256}.dcm"
        with file.open("rb") as stored:
            start = file.stat().st_size - len(head) - 2 * rows * columns
            stored.seek(start)
            found = hashlib.file_digest(stored, "sha256")
        assert found.digest() == digest.digest()


def test_requests_that_do_not_wait_are_held_back(run: Run, report: Report) -> None:
    """30 C-STOREs on each of 8 associations before the first answer is read: one object at a time is taken of each."""
    node, base, _ = run
    objects = radiographs(100_000)
    most_parts, statuses = 0, Counter[int | None]()
    with costs_nothing(node, base, "8 x 30 pipelined C-STOREs", report):
        peers = [Wire(node.port, 60) for _ in range(8)]
        bursts = []
        for peer in peers:
            peer.associate()
            burst = b""
            for _ in range(30):
                uid, data_set = next(objects)
                request = wire.command(0x0001, sop_class=wire.DX.encode(), sop_instance=uid.encode())
                burst += wire.pdu(wire.P_DATA, wire.pdv(request, is_command=True))
                burst += wire.pdu(wire.P_DATA, wire.pdv(data_set))
            bursts.append(burst)
        senders = [threading.Thread(target=peer.send, args=(burst,)) for peer, burst in zip(peers, bursts, strict=True)]
        for sender in senders:
            sender.start()
        while any(sender.is_alive() for sender in senders):
            most_parts = max(most_parts, len(node.parts()))
            time.sleep(0.002)
        for peer in peers:
            statuses.update(peer.status() for _ in range(30))
            peer.release()
            peer.socket.close()
    print(f"answers {dict(statuses)}, unfinished files at most {most_parts}")
    assert statuses == {0x0000: 240}
    assert most_parts <= 8


def test_the_deflated_transfer_syntax_is_not_accepted(run: Run, report: Report) -> None:
    node, base, _ = run
    with costs_nothing(node, base, "deflated transfer syntax", report), Wire(node.port) as peer:
        kind, content = peer.associate(wire.DX, wire.DEFLATED)
        assert kind == wire.ASSOCIATE_AC
        results = {content[at + 4]: content[at + 6] for at in _items(content) if content[at] == 0x21}
        assert results == {1: 4, 3: 0}  # PS3.8 Table 9-18: 4, transfer syntaxes not supported; 0, acceptance
        peer.begin_store("1.2.3.3")  # and who sends it all the same:
        assert peer.receive()[0] == wire.ABORT


def _items(content: bytes) -> Iterator[int]:
    """Where the variable items of an A-ASSOCIATE-AC begin (PS3.8 9.3.3)."""
    at = 68
    while at < len(content):
        yield at
        at += 4 + struct.unpack_from(">H", content, at + 2)[0]


def test_a_store_on_a_context_that_was_not_accepted(run: Run, report: Report) -> None:
    node, base, is_long = run
    times = 200 if is_long else 20
    with costs_nothing(node, base, f"C-STORE on an unaccepted context x {times}", report):
        for _ in range(times):
            with Wire(node.port) as peer:
                peer.associate()
                peer.begin_store("1.2.3.4", context_id=99)
                assert peer.receive()[0] == wire.ABORT


def test_a_transfer_that_breaks_off_leaves_nothing(run: Run, report: Report) -> None:
    """By A-ABORT, by RST, by closing inside a PDU: in turn, with 64 KiB of the object under way."""
    node, base, is_long = run
    times = 1000 if is_long else 48
    before = len(node.rows())
    with costs_nothing(node, base, f"abort, RST or close in the middle of a C-STORE x {times}", report):
        for number in range(times):
            with Wire(node.port) as peer:
                assert peer.associate()[0] == wire.ASSOCIATE_AC
                peer.begin_store(f"1.2.4.{number}")
                peer.send(wire.pdu(wire.P_DATA, wire.pdv(bytes(65536), is_last=False)))
                _break_off(peer, number % 3)
    assert len(node.rows()) == before


def _break_off(peer: Wire, how: int) -> None:
    if how == 0:
        peer.send(wire.pdu(wire.ABORT, bytes(4)))
        return
    if how == 1:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        peer.send(wire.pdu(wire.P_DATA, wire.pdv(bytes(65536)))[:1000])
