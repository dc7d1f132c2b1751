"""The order of durability, as the kernel saw it: file, name, folder, ledger, and only then the answer (T17).

Short: 16 objects over 4 associations at once. Long: 400 over 8.
"""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import builders
from tests.chaos import syscalls
from tests.chaos.conftest import Report
from tests.chaos.roles import Role
from tests.node import wire
from tests.node.wire import Wire

HAND_WRITTEN = (
    r"""
11 write(8</s/incoming/a.part>, "x", 1) = 1
12 sendto(9<TCP:[127.0.0.1:1->127.0.0.1:3]>, "\x06\x00", 10, 0, NULL, 0) = 10
11 fsync(8</s/incoming/a.part>) = 0
12 mkdir("/s/objects/ab", 0700) = 0
12 fsync(10</s/objects> <unfinished ...>
11 rename("/s/incoming/a.part", "/s/objects/ab/abcd.dcm") = 0
12 <... fsync resumed>) = 0
11 fsync(8</s/objects/ab> <unfinished ...>
12 pwrite64(5</s/ledger.sqlite3-wal>, "y", 24, 0) = 24
11 <... fsync resumed>) = 0
13 pwrite64(5</s/ledger.sqlite3-wal>, "\x0dabcd", 24, 0) = 24
13 fdatasync(5</s/ledger.sqlite3-wal>) = 0
11 sendto(7<TCP:[127.0.0.1:1->127.0.0.1:2]>, "ANSWER", 140, 0, NULL, 0) = 140
""".replace(
        "ANSWER",
        "".join(
            f"\\x{byte:02x}"
            for byte in b"\x04\x00\x00\x00\x00\x86\x00\x00\x00\x82\x01\x03"
            b"\x00\x00\x00\x01\x02\x00\x00\x00\x01\x80"
            b"\x00\x00\x00\x09\x02\x00\x00\x00\x00\x00"
            b"\x00\x00\x00\x10\x06\x00\x00\x001.2.3\x00"
        ),
    )
    .strip()
    .splitlines()
)


def faults(lines: list[str], digests: dict[str, str]) -> list[str]:
    found = syscalls.chains(syscalls.read(lines), digests)
    assert len(found) == len(digests), "not every store was seen to be acknowledged"
    return [fault for chain in found for fault in chain.faults()]


def test_the_parser_sees_the_right_order() -> None:
    assert faults(HAND_WRITTEN, {"1.2.3": "abcd"}) == []


@pytest.mark.parametrize(
    ("step", "behind", "complaint"),
    [
        ("fsync(8</s/incoming", "rename(", "rename before fsync of the file"),
        ("fsync(8</s/incoming", "sendto(7", "rename before fsync of the file"),
        ("write(8", "fsync(8</s/incoming", "fsync of the file before write of the file"),
        ("rename(", "sendto(7", "before rename"),
        ("pwrite64(5", "fdatasync(5", "commit of the ledger before write"),
        ("fdatasync(5", "sendto(7", "C-STORE-RSP before commit of the ledger"),
        ("<... fsync resumed>) = 0", "sendto(7", "write of the ledger before fsync of the folder"),
    ],
)
def test_the_parser_notices_a_step_that_comes_too_late(step: str, behind: str, complaint: str) -> None:
    lines = list(HAND_WRITTEN)
    moved = lines.pop(max(at for at, line in enumerate(lines) if re.match(rf"1[13] {re.escape(step)}", line)))
    lines.insert(next(at for at, line in enumerate(lines) if behind in line) + 1, moved)
    assert any(complaint in fault for fault in faults(lines, {"1.2.3": "abcd"})), faults(lines, {"1.2.3": "abcd"})


def test_the_parser_notices_a_new_folder_whose_name_is_not_durable() -> None:
    kept = [line for line in HAND_WRITTEN if not line.startswith(("12 fsync(10", "12 <... fsync"))]
    assert faults(kept, {"1.2.3": "abcd"}) == ["1.2.3: its folder was new, and its name not durable at the answer"]


@pytest.mark.parametrize(
    ("stores", "associations"), [(16, 4), pytest.param(400, 8, marks=[pytest.mark.chaos, pytest.mark.timeout(600)])]
)
def test_nothing_is_acknowledged_before_it_is_durable(
    tmp_path: Path, report: Report, stores: int, associations: int
) -> None:
    trace = tmp_path / "trace"
    with Role(tmp_path / "node", "receive", prefix=syscalls.command(trace)) as node:

        def send(first: int) -> list[int | None]:
            with Wire(node.port) as peer:
                peer.associate()
                return [peer.store(*small(number)) for number in range(first, stores, associations)]

        with ThreadPoolExecutor(associations) as pool:
            statuses = [status for many in pool.map(send, range(associations)) for status in many]
        assert statuses == [0x0000] * stores
        digests = {row.sop_instance_uid: row.content_sha256 for row in node.rows()}
    lines = trace.read_text("latin-1").splitlines()
    assert faults(lines, digests) == []
    for digest in digests.values():  # what was looked for is what is on disk
        file = node.spool / "objects" / digest[:2] / f"{digest}.dcm"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
    assert_notices(lines, digests)
    overlapping = sum("<unfinished ...>" in line for line in lines)
    report(
        f"stores={stores} associations={associations} acknowledged={len(statuses)} out_of_order=0",
        calls=len(lines),
        interleaved=overlapping,
    )


def small(number: int) -> tuple[str, bytes]:
    """SOP Instance UID and encoded data set of a small radiograph."""
    dataset = builders.radiograph(number + 1, builders.chest(rows=144, columns=128))
    return str(dataset.SOPInstanceUID), wire.data_set_of(builders.part10(dataset))


def assert_notices(lines: list[str], digests: dict[str, str]) -> None:
    """The same trace with one call of an object taken out is not believed, whichever call it is."""
    for name, call in syscalls.chains(syscalls.read(lines), digests)[0].steps[1:-1]:
        assert call is not None
        if name == "write of the ledger":  # one of many frames
            continue
        taken = {call.begun, call.ended}
        if name == "commit of the ledger":  # a later one, before the answer, would make the row durable too
            taken |= {number for number, line in enumerate(lines) if "ledger.sqlite3-wal" in line and "sync(" in line}
        kept = [line for number, line in enumerate(lines) if number not in taken]
        assert faults(kept, digests), f"the trace is believed without {name}"
