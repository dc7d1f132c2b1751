"""What a sender sees and what is then on disk: real sockets, real senders, bad ones too."""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import BasicTextSRStorage, DigitalXRayImageStorageForPresentation

from cxr_node.errors import ConfigError, ResourceError
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.ledger.states import InstanceState
from cxr_node.node.process.notify import Role, Wakeup
from cxr_node.node.spool.part import Part
from cxr_node.node.spool.spool import Area, Spool, StoredFile
from tests import builders
from tests.node import wire
from tests.node.receivers import Receiving, receiving, run_process
from tests.node.wire import ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, Wire
from tests.patience import eventually

FORK_FREE = multiprocessing.get_context("spawn")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Receiving]:
    with receiving(tmp_path / "spool") as node:
        yield node


def instance(number: int = 1) -> tuple[str, bytes]:
    """SOP Instance UID and encoded data set of a synthetic radiograph."""
    dataset = builders.radiograph(number)
    return str(dataset.SOPInstanceUID), wire.data_set_of(builders.part10(dataset))


def large_instance() -> tuple[str, bytes]:
    """The same of 0.7 MB, of which every place looks different."""
    noise = np.random.default_rng(7).integers(0, 4096, (600, 600), np.uint16)
    dataset = builders.radiograph(1, noise)
    return str(dataset.SOPInstanceUID), wire.data_set_of(builders.part10(dataset))


def stored(node: Receiving) -> list[queries.InstanceRow]:
    return queries.recent(node.ledger, 10_000)


def assert_clean(node: Receiving) -> None:
    """No unfinished file, a file with the right bytes for every row, and a node that answers."""
    for row in stored(node):
        node.spool.read(Area.OBJECTS, row.content_sha256)
    with Wire(node.port) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        assert peer.echo() == 0x0000
    assert eventually(lambda: node.parts() == [])  # a peer that broke off may still be being heard


def test_what_retention_takes_while_it_comes_again_is_not_acknowledged(
    node: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, data_set = instance()
    store_object = Spool.store_object

    def taken(spool: Spool, *arguments: Any) -> StoredFile:
        there = store_object(spool, *arguments)
        spool.delete(Area.OBJECTS, there.sha256)
        return there

    with Wire(node.port) as peer:
        peer.associate()
        assert peer.store(uid, data_set) == 0x0000
        with monkeypatch.context() as patched:
            patched.setattr(Spool, "store_object", taken)
            assert peer.store(uid, data_set) == 0xA700
        assert queries.trace(node.ledger, uid)[0].instance.repeats == 0
        assert peer.store(uid, data_set) == 0x0000
    assert node.spool.has(Area.OBJECTS, stored(node)[0].content_sha256)


def test_an_object_is_safe_when_it_is_acknowledged(node: Receiving) -> None:
    uid, data_set = instance()
    with closing(Wakeup(node.spool.path, Role.WORK)) as wakeup, Wire(node.port) as peer:
        peer.associate(calling="MODALITY")
        assert peer.store(uid, data_set) == 0x0000
        assert wakeup.wait(0)  # notified before the answer
        row = stored(node)[0]
        assert peer.release() == wire.RELEASE_RP
    content = node.spool.read(Area.OBJECTS, row.content_sha256)
    assert content[:132] == bytes(128) + b"DICM"
    assert wire.data_set_of(content) == data_set
    assert (row.sop_instance_uid, row.state, row.size_bytes) == (uid, InstanceState.RECEIVED, len(content))
    assert (row.calling_ae_title, row.peer_host) == ("MODALITY", "127.0.0.1")
    assert node.spool.received_at(row.content_sha256) == row.received_at


def test_a_new_object_is_not_looked_up_after_it_was_written(node: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[Any] = []
    monkeypatch.setattr("cxr_node.node.receive.receiver.number_of", lambda *given: looked_up.append(given))
    uid, data_set = instance()
    with Wire(node.port) as peer:
        peer.associate()
        assert peer.store(uid, data_set) == 0x0000
        assert not looked_up
        assert peer.store(uid, data_set) == 0x0000
        assert len(looked_up) == 1, "which one it repeats, the log is to say"


def _cut(data_set: bytes, how: str) -> list[bytes]:
    """The same data set in P-DATA-TF PDUs, as what is sent at a time."""
    step = {"small": 700, "large": 131_066}.get(how, 16_000)
    parts = [data_set[start : start + step] for start in range(0, len(data_set), step)]
    pdvs = [wire.pdv(part, is_last=number == len(parts)) for number, part in enumerate(parts, 1)]
    match how:
        case "two PDVs in some PDUs":
            places = itertools.pairwise([*range(0, len(pdvs), 3), len(pdvs)])
            split = [pdvs[at:end] for start, end in places for at, end in ((start, start + 1), (start + 1, end))]
            return [wire.pdu(P_DATA, b"".join(each)) for each in split if each]
        case "nothing in some PDVs":
            empty = wire.pdu(P_DATA, wire.pdv(b"", is_last=False))
            return [empty + wire.pdu(P_DATA, each) + (empty if each is not pdvs[-1] else b"") for each in pdvs]
        case "torn heads":
            whole = b"".join(wire.pdu(P_DATA, each) for each in pdvs)
            places = [0, *(16_012 * number + number % 12 for number in range(1, len(pdvs))), len(whole)]
            return [whole[start:end] for start, end in itertools.pairwise(places)]
        case _:
            return [wire.pdu(P_DATA, each) for each in pdvs]


@pytest.mark.parametrize(
    "how", ["small", "large", "two PDVs in some PDUs", "nothing in some PDVs", "torn heads", "at once", "with a pause"]
)
def test_a_data_set_is_whole_however_it_is_cut(node: Receiving, how: str) -> None:
    uid, data_set = large_instance()
    pieces = _cut(data_set, how)
    with Wire(node.port) as peer:
        peer.associate()
        for _ in range(2):
            peer.begin_store(uid)
            if how == "at once":
                peer.send(b"".join(pieces))
            else:
                for number, piece in enumerate(pieces):
                    peer.send(piece)
                    if how in ("torn heads", "with a pause") and number in (1, 5):
                        time.sleep(0.8)  # the node waits for no more than 0.25 s for what follows
            assert peer.status() == 0x0000
        assert peer.echo() == 0x0000
    assert wire.data_set_of(node.spool.read(Area.OBJECTS, stored(node)[0].content_sha256)) == data_set
    assert_clean(node)


def test_small_pdus_are_written_together(node: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    uid, data_set = large_instance()
    written: list[int] = []
    write = Part.write

    def counted(part: Part, content: bytes | memoryview) -> None:
        written.append(len(content))
        write(part, content)

    monkeypatch.setattr(Part, "write", counted)
    with Wire(node.port) as peer:
        peer.associate()
        peer.begin_store(uid)
        pieces = _cut(data_set, "small")
        peer.send(b"".join(pieces))
        assert peer.status() == 0x0000
    assert len(written) < len(pieces) / 10


def test_the_same_object_from_many_at_once_is_one(node: Receiving) -> None:
    uid, data_set = instance()

    def send(_: int) -> list[int | None]:
        with Wire(node.port) as peer:
            peer.associate()
            return [peer.store(uid, data_set) for _ in range(25)]

    with ThreadPoolExecutor(8) as pool:
        statuses = [status for many in pool.map(send, range(8)) for status in many]
    assert statuses == [0x0000] * 200
    assert len(stored(node)) == 1
    assert len(list(node.spool.digests(Area.OBJECTS))) == 1
    assert_clean(node)


def test_the_same_uid_with_other_pixels_is_kept_beside(node: Receiving) -> None:
    uid, data_set = instance()
    with Wire(node.port) as peer:
        peer.associate()
        assert peer.store(uid, data_set) == 0x0000
        assert peer.store(uid, data_set[:-2] + b"\x01\x02") == 0x0000
    assert len({row.content_sha256 for row in stored(node)}) == 2
    assert_clean(node)


def test_what_is_no_radiograph_is_taken_too(node: Receiving) -> None:
    dataset = builders.radiograph(SOPClassUID=str(BasicTextSRStorage), Modality="SR")
    data_set = wire.data_set_of(builders.part10(dataset))
    with Wire(node.port) as peer:
        peer.associate(sop_class=str(BasicTextSRStorage))
        assert peer.store(str(dataset.SOPInstanceUID), data_set, str(BasicTextSRStorage)) == 0x0000
    assert stored(node)[0].sop_class_uid == BasicTextSRStorage


def test_pynetdicom_sends(node: Receiving) -> None:
    entity = AE("PYNETDICOM")
    entity.add_requested_context(DigitalXRayImageStorageForPresentation, "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", node.port, ae_title="CXR_NODE")
    assert association.is_established
    files = [dcmread(BytesIO(builders.part10(builders.radiograph(number)))) for number in range(1, 6)]
    statuses = [association.send_c_store(file).Status for file in files]
    association.release()
    assert statuses == [0x0000] * 5
    assert len(stored(node)) == 5
    assert_clean(node)


@pytest.mark.pacs
@pytest.mark.parametrize("max_pdu", ["4096", "131072"])
def test_dcmtk_sends(node: Receiving, tmp_path: Path, max_pdu: str) -> None:
    if shutil.which("storescu") is None:
        pytest.skip("install DCMTK (Debian: dcmtk) for storescu and echoscu")
    files = [tmp_path / f"{number}.dcm" for number in range(1, 6)]
    for number, file in enumerate(files, 1):
        file.write_bytes(builders.part10(builders.radiograph(number)))
    peer = ["-aec", "CXR_NODE", "127.0.0.1", str(node.port)]
    subprocess.run(["echoscu", *peer], check=True, timeout=60)
    subprocess.run(["storescu", "-pdu", max_pdu, *peer, *map(str, files)], check=True, timeout=60)
    assert len(stored(node)) == 5
    assert_clean(node)


def bad_objects() -> dict[str, tuple[str | bytes, bytes, int]]:
    """SOP Instance UID in the command, data set, the status that fits."""
    uid, data_set = instance()
    longer = uid + ".1" * ((65 - len(uid)) // 2 + 1)
    garbage = random.Random(1).randbytes(50_000)
    deep = struct.pack("<HH2sHI", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    huge = struct.pack("<HH2sHI", 0x0008, 0x0008, b"UT", 0, 0xFFFFFFF0)
    return {
        "random bytes": (uid, garbage, 0xC000),
        "no bytes": (uid, b"", 0xC000),
        "zeros": (uid, bytes(50_000), 0xC000),
        "truncated header": (uid, data_set[:300], 0xC000),
        "truncated pixels": (uid, data_set[: len(data_set) // 2], 0xC000),
        "5,000-deep sequence": (uid, deep * 5000, 0xC000),
        "5,000-deep sequence after the header": (uid, data_set[:200] + deep * 5000, 0xC000),
        "length 0xFFFFFFF0": (uid, huge + data_set, 0xC000),
        "other transfer syntax": (uid, b"".join(data_set[i : i + 2][::-1] for i in range(0, 20_000, 2)), 0xC000),
        "another UID in the data set": ("1.2.3", data_set, 0xA900),
        "path in the UID": ("1.2/../../../x", data_set, 0x0117),
        "dots in the UID": ("..", data_set, 0x0117),
        "NUL in the UID": (b"1.2\x00.3", data_set, 0x0117),
        "two UIDs": (f"{uid}\\1.2.3", data_set, 0x0117),
        "letters in the UID": ("1.2.840.x", data_set, 0x0117),
        "UID of more than 64 characters": (longer, data_set, 0x0117),
        "empty UID": (b" ", data_set, 0x0117),
    }


@pytest.mark.parametrize("name", bad_objects())
def test_a_bad_object_gets_the_status_that_fits(node: Receiving, name: str) -> None:
    uid, data_set, expected = bad_objects()[name]
    good_uid, good = instance(2)
    with Wire(node.port) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        assert peer.store(uid, data_set) == expected
        assert peer.store(good_uid, good) == 0x0000  # the association goes on
    assert [row.sop_instance_uid for row in stored(node)] == [good_uid]
    assert_clean(node)
    everything = {path.relative_to(node.spool.path).parts[0] for path in node.spool.path.rglob("*")}
    assert everything <= {
        "incoming",
        "objects",
        "results",
        "priors",
        "run",
        "audit",
        "ledger.sqlite3",
        "ledger.sqlite3-wal",
        "ledger.sqlite3-shm",
    }
    assert {path.name for path in node.spool.path.parent.iterdir()} == {"spool"}


def test_a_class_that_is_not_the_contexts_is_refused(node: Receiving) -> None:
    uid, data_set = instance()
    with Wire(node.port) as peer:
        peer.associate()
        assert peer.store(uid, data_set, sop_class=wire.CR) == 0xA900
    assert stored(node) == []


def test_a_class_that_is_not_the_data_sets_is_refused(node: Receiving) -> None:
    uid, data_set = instance()
    with Wire(node.port) as peer:
        peer.associate(sop_class=wire.CR)
        assert peer.store(uid, data_set, sop_class=wire.CR) == 0xA900
    assert stored(node) == []


def test_a_store_without_a_data_set_is_answered(node: Receiving) -> None:
    with Wire(node.port) as peer:
        peer.associate()
        request = wire.command(0x0001, sop_class=wire.DX.encode(), sop_instance=b"1.2.3", has_data=False)
        peer.send(wire.pdu(P_DATA, wire.pdv(request, is_command=True)))
        assert peer.status() == 0xC000
    assert_clean(node)


def test_a_deflated_context_is_not_accepted(node: Receiving) -> None:
    with Wire(node.port) as peer:
        kind, content = peer.associate(syntax=wire.DEFLATED)
        assert kind == ASSOCIATE_AC
    results = re.findall(rb"\x21\x00..(.).(.).", content[68:], re.DOTALL)  # PS3.8 9.3.3.2: id and result
    assert (b"\x01", b"\x04") in results  # transfer syntaxes not supported
    assert (b"\x03", b"\x00") in results


def test_the_callers_first_syntax_is_taken(node: Receiving) -> None:
    wish = ("1.2.840.10008.1.2.4.70", "1.2.3", wire.IMPLICIT)
    with Wire(node.port) as peer:
        peer.send(wire.associate_rq({1: (wire.DX, wish)}))
        kind, content = peer.receive()
    assert kind == ASSOCIATE_AC
    assert b"1.2.840.10008.1.2.4.70" in content


def test_below_the_watermark_nothing_is_taken(node: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    uid, data_set = instance()
    with Wire(node.port) as peer:
        peer.associate()
        with monkeypatch.context() as patch:
            patch.setattr(Spool, "free_bytes", lambda _: 0)
            patch.setattr(Spool, "begin", lambda _: pytest.fail("a byte was taken"))
            assert peer.store(uid, data_set) == 0xA700
        assert peer.store(uid, data_set) == 0x0000  # it resumes by itself
    assert_clean(node)


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["before the first byte", "midway"])
def test_a_disk_that_fills_up_is_refused(node: Receiving, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    uid, data_set = instance()
    real, written = os.write, 0

    def write(file: int, content: bytes) -> int:
        nonlocal written
        if Path(f"/proc/self/fd/{file}").readlink().suffix == ".part":
            written += len(content)
            if written > len(data_set) * share:
                raise OSError(errno.ENOSPC, "no space left")
        return real(file, content)

    with Wire(node.port) as peer:
        peer.associate()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            assert peer.store(uid, data_set) == 0xA700
        assert written > 0
        assert node.parts() == []  # what was written does not keep the disk full
        assert peer.store(uid, data_set) == 0x0000
    assert len(stored(node)) == 1
    assert_clean(node)


def test_without_a_ledger_row_there_is_no_success(node: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    uid, data_set = instance()

    def fail(*_: object) -> bool:
        raise ResourceError("ledger: OperationalError: database or disk is full")

    with Wire(node.port) as peer:
        peer.associate()
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "add", fail)
            assert peer.store(uid, data_set) == 0xA700
        assert stored(node) == []
        assert peer.store(uid, data_set) == 0x0000
    assert_clean(node)


def test_a_locked_ledger_is_out_of_resources_until_it_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxr_node.node.ledger.database.BUSY_TIMEOUT_S", 0.2)
    uid, data_set = instance()
    with receiving(tmp_path / "spool") as node, Wire(node.port) as peer:
        peer.associate()
        other = sqlite3.connect(node.spool.path / FILE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert peer.store(uid, data_set) == 0xA700
        assert stored(node) == []
        other.execute("ROLLBACK")
        other.close()
        assert peer.store(uid, data_set) == 0x0000
        assert len(stored(node)) == 1


def test_a_fault_of_ours_ends_one_association_only(tmp_path: Path) -> None:
    def inspect(_: Path) -> object:
        raise KeyError("a bug")

    uid, data_set = instance()
    with receiving(tmp_path / "spool", inspect) as node:  # type: ignore[arg-type]  # raises before it returns
        with Wire(node.port) as peer:
            peer.associate()
            assert peer.store(uid, data_set) is None
        assert eventually(lambda: node.parts() == [])
        assert_clean(node)


def test_an_object_beyond_the_cap_is_refused_and_the_association_goes_on(tmp_path: Path) -> None:
    uid, data_set = instance()
    with receiving(tmp_path / "spool", max_object_mib=1) as node, Wire(node.port) as peer:
        peer.associate()
        assert peer.store(uid, data_set + bytes(2**20)) == 0xA700
        assert node.parts() == []
        assert peer.store(uid, data_set) == 0x0000
        assert_clean(node)


def test_an_endless_object_is_cut(tmp_path: Path) -> None:
    with receiving(tmp_path / "spool", max_object_mib=1) as node, Wire(node.port) as peer:
        peer.associate()
        peer.begin_store("1.2.3")
        sent = 0
        with pytest.raises(OSError, match=r"."):  # reset by peer
            while sent < 200 * 2**20:
                peer.send(wire.pdu(P_DATA, wire.pdv(bytes(wire.PDV_BYTES), is_last=False)))
                sent += wire.PDV_BYTES
        assert sent < 20 * 2**20  # two caps, 1 MiB after the abort, and what the sockets hold
        assert_clean(node)


@pytest.mark.parametrize("how", ["abort", "close", "reset"])
def test_an_association_that_breaks_leaves_nothing(node: Receiving, how: str) -> None:
    uid, data_set = instance()
    for number in range(10):
        with Wire(node.port) as peer:
            peer.associate()
            peer.begin_store(uid)
            for start in range(number + 1):
                peer.send(wire.pdu(P_DATA, wire.pdv(data_set[100 * start : 100 * start + 100], is_last=False)))
            if how == "abort":
                peer.send(wire.pdu(wire.ABORT, bytes(4)))
            elif how == "reset":
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert eventually(lambda: node.parts() == [])
    assert stored(node) == []
    assert_clean(node)


@pytest.mark.parametrize(
    "message",
    [
        wire.pdv(b"x", is_last=True),  # a data set without a command
        wire.pdv(wire.command(0x0001, sop_class=b"1.2", sop_instance=b"1.2"), context_id=99, is_command=True),
        wire.pdv(wire.command(0x0020, sop_class=b"1.2"), is_command=True),  # C-FIND
        wire.pdv(wire.command(0x0100, sop_class=b"1.2"), is_command=True),  # N-EVENT-REPORT
        wire.pdv(wire.command(0x8001, sop_class=b"1.2"), is_command=True),  # a response nobody asked for
        wire.pdv(b"\xff" * 100, is_command=True),
        wire.pdv(b"", is_command=True),
        wire.pdv(bytes(20_000), is_command=True, is_last=False),
        struct.pack(">IBB", 2, 1, 3),
        struct.pack(">IBB", 0xFFFFFFF0, 1, 3),
        struct.pack(">IB", 1, 1),
    ],
    ids=lambda message: message[:12].hex(),
)
def test_a_message_out_of_place_ends_its_association(node: Receiving, message: bytes) -> None:
    with Wire(node.port) as other:
        other.associate()
        with Wire(node.port) as peer:
            peer.associate()
            peer.send(wire.pdu(P_DATA, message))
            assert peer.receive()[0] in (wire.ABORT, 0)
        assert other.echo() == 0x0000
    assert_clean(node)


def test_another_message_inside_an_object_ends_the_association(node: Receiving) -> None:
    uid, data_set = instance()
    with Wire(node.port) as peer:
        peer.associate()
        peer.begin_store(uid)
        peer.send(wire.pdu(P_DATA, wire.pdv(data_set[:100], is_last=False)))
        peer.begin_store(uid)
        assert peer.receive()[0] == wire.ABORT
    assert eventually(lambda: node.parts() == [])


def test_who_sends_without_waiting_is_served_in_turn(node: Receiving) -> None:
    objects = [instance(number) for number in range(1, 21)]
    with Wire(node.port) as peer:
        peer.associate()

        def send() -> None:
            for uid, data_set in objects:
                peer.begin_store(uid)
                peer.send_data(data_set)

        sender = threading.Thread(target=send)
        sender.start()
        most = 0
        statuses = []
        for _ in objects:
            statuses.append(peer.status())
            most = max(most, len(node.parts()))
        sender.join()
    assert statuses == [0x0000] * 20
    assert most <= 1
    assert_clean(node)


@pytest.mark.parametrize(
    ("listen", "titles", "expected"),
    [
        ({}, {"called": "OTHER"}, (1, 1, 7)),
        ({"require_called_ae_title": False}, {"called": "OTHER"}, None),
        ({"peers": [{"ae_title": "CT1"}]}, {}, (1, 1, 3)),
        ({"peers": [{"ae_title": "WIRE"}]}, {}, None),
        ({"peers": [{"ae_title": "WIRE", "hosts": ["10.0.0.1"]}]}, {}, (1, 1, 3)),
        ({"peers": [{"ae_title": "WIRE", "hosts": ["10.0.0.1", "127.0.0.0/8"]}]}, {}, None),
        ({"peers": [{"ae_title": "WIRE", "hosts": ["localhost"]}]}, {}, None),
        ({"peers": [{"ae_title": "WIRE", "hosts": ["nobody.invalid"]}]}, {}, (1, 1, 3)),
    ],
    ids=str,
)
def test_who_may_call(
    tmp_path: Path, listen: dict[str, object], titles: dict[str, str], expected: tuple[int, int, int] | None
) -> None:
    with receiving(tmp_path / "spool", **listen) as node, Wire(node.port) as peer:
        kind, content = peer.associate(**titles)
        assert (kind, tuple(content[1:4])) == (ASSOCIATE_RJ, expected) if expected else kind == ASSOCIATE_AC


def test_no_more_associations_than_allowed(tmp_path: Path) -> None:
    with receiving(tmp_path / "spool", max_associations=2) as node:
        with Wire(node.port) as first, Wire(node.port) as second, Wire(node.port) as third:
            assert first.associate()[0] == second.associate()[0] == ASSOCIATE_AC
            kind, content = third.associate()
            assert (kind, tuple(content[1:4])) == (ASSOCIATE_RJ, (2, 3, 2))
            assert first.release() == wire.RELEASE_RP

        def heard() -> bool:
            with Wire(node.port) as fourth:
                return fourth.associate()[0] == ASSOCIATE_AC

        assert eventually(heard)


def test_a_silent_association_is_ended(tmp_path: Path) -> None:
    with receiving(tmp_path / "spool", idle_timeout_s=0.3) as node, Wire(node.port) as peer:
        peer.associate()
        assert peer.receive()[0] == wire.ABORT


def test_a_stop_lets_an_object_finish(tmp_path: Path) -> None:
    uid, data_set = instance()
    with receiving(tmp_path / "spool") as node, Wire(node.port) as peer:
        peer.associate()
        peer.begin_store(uid)
        node.stop.set()
        assert eventually(lambda: refused(node.port))  # it listens no more
        peer.send_data(data_set)
        assert peer.status() == 0x0000
        assert peer.receive()[0] == wire.ABORT  # and does not wait for more
        node.thread.join(20)
        assert not node.thread.is_alive()
        assert len(stored(node)) == 1
        assert node.parts() == []


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return True
    return False


def test_a_port_that_is_taken_is_worth_a_restart(tmp_path: Path) -> None:
    """As `cxr-node check` has it: 1 for the world, 78 for the file; systemd restarts after 1 alone."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ResourceError, match="cannot be used"):
            _serve_once(tmp_path, port=taken.getsockname()[1])


def test_an_address_of_another_machine_is_the_operators_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        _serve_once(tmp_path, host="192.0.2.1", allow_plaintext=True)


def _serve_once(folder: Path, **listen: Any) -> None:
    from cxr_node.dicom.read import header
    from cxr_node.node.receive import server
    from tests.node.receivers import SYNTAXES, config

    hooks = server.Hooks(stop=threading.Event(), ready=lambda _: None)
    server.serve(config(folder, **listen), header.identify, SYNTAXES, hooks)


def test_no_log_line_names_a_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = builders.radiograph(PatientName="CANARY^NAME", PatientID="CANARY-ID", AccessionNumber="CANARY-ACC")
    data_set = wire.data_set_of(builders.part10(dataset))
    with caplog.at_level(logging.DEBUG), receiving(tmp_path / "spool") as node, Wire(node.port) as peer:
        peer.associate()
        assert peer.store(str(dataset.SOPInstanceUID), data_set) == 0x0000
        assert peer.store("1.2.3", data_set) == 0xA900
        assert peer.store(str(dataset.SOPInstanceUID), data_set[:-500]) == 0xC000
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("cxr_node")]
    assert [line.split(" sha256=")[0] for line in lines if "stored" in line] == ["stored instance=1"]
    assert sum("refused peer=" in line for line in lines) == 2
    assert not [record for record in caplog.records if "CANARY" in record.getMessage()]


def test_kill_at_any_time_loses_and_doubles_nothing(tmp_path: Path) -> None:
    objects = {number: instance(number) for number in range(1, 81)}
    to_send, lock, acknowledged = sorted(objects), threading.Lock(), set[str]()
    port = [0]
    done = threading.Event()

    def send() -> None:
        while True:
            with lock:
                if not to_send:
                    return
                number = to_send.pop()
            uid, data_set = objects[number]
            try:
                with Wire(port[0]) as peer:
                    peer.associate()
                    status = peer.store(uid, data_set)
            except OSError:
                status = None
                done.wait(0.02)
            with lock:
                acknowledged.add(uid) if status == 0x0000 else to_send.insert(0, number)

    process = _start(tmp_path / "spool", port)
    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    for kills, kill_at in enumerate((10, 30, 50), start=1):
        assert eventually(lambda at=kill_at: len(acknowledged) >= at, 60)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        with lock:
            heard = set(acknowledged)
        _account(tmp_path / "spool", heard, in_flight=kills * len(senders))  # what a death cut off is sent last
        process = _start(tmp_path / "spool", port)
    for sender in senders:
        sender.join(60)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert acknowledged == {uid for uid, _ in objects.values()}
    _account(tmp_path / "spool", acknowledged, in_flight=0)


def _start(folder: Path, port: list[int]) -> multiprocessing.process.BaseProcess:
    told, tell = FORK_FREE.Pipe(duplex=False)
    process = FORK_FREE.Process(target=run_process, args=(folder, tell))
    process.start()
    tell.close()
    port[0] = told.recv()
    told.close()
    return process


def _account(folder: Path, acknowledged: set[str], in_flight: int) -> None:
    """Every acknowledged object has one row and its bytes; what is more was on its way at one of the deaths."""
    spool = Spool(folder)
    ledger = Ledger.open(folder)
    rows = queries.recent(ledger, 10_000)
    ledger.close()
    uids = [row.sop_instance_uid for row in rows]
    assert len(uids) == len(set(uids))
    assert acknowledged <= set(uids)
    assert len(set(uids) - acknowledged) <= in_flight
    for row in rows:
        content = spool.read(Area.OBJECTS, row.content_sha256)
        assert hashlib.sha256(content).hexdigest() == row.content_sha256
    files = set(spool.digests(Area.OBJECTS))
    assert {row.content_sha256 for row in rows} <= files
    assert len(files) - len(rows) <= in_flight
    spool.sweep()
    assert list((folder / "incoming").iterdir()) == []
