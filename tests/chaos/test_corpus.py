"""Malformed objects over real associations: none crashes a process, none is called a success that cannot be parsed.

Short: 150 objects. Long: 5,000. Sent by a peer made of bare bytes, for no library would send them (T7, T8, T10 to T12).
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr_node.node.ledger.queries import InstanceRow
from cxr_node.node.ledger.states import SETTLED
from tests.chaos import judge
from tests.chaos.conftest import Report
from tests.chaos.corpus import CANARY, CONTEXTS
from tests.chaos.mutations import Mutant, mutant
from tests.chaos.roles import Peak, Role
from tests.node import wire
from tests.node.wire import Wire
from tests.patience import NODE_S, eventually

ASSOCIATION_OBJECTS = 40
OF_SYNTAX = {syntax: number for number, syntax in CONTEXTS.items()}
ECHO_CONTEXT = 255
LAYOUT = re.compile(
    r"(incoming|run|objects|results|priors|audit)|(objects|results)/[0-9a-f]{2}(/[0-9a-f]{64}\.dcm)?|"
    r"ledger\.sqlite3(-wal|-shm)?|run/.+|audit/[0-9A-Za-z.-]+\.(log|lock|json)"
)
"""All that a spool may hold once nothing comes in any more."""


class Sender:
    """Sends one object after the other, and opens a new association where the node has ended the last."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._peer: Wire | None = None
        self._sent = 0

    def send(self, one: Mutant) -> int | None:
        """The status; None where the node ended the association instead of an answer."""
        peer = self._associated()
        context = OF_SYNTAX[one.syntax]
        request = wire.command(0x0001, sop_class=wire.DX.encode(), sop_instance=one.affected_uid)
        try:
            peer.send(wire.pdu(wire.P_DATA, wire.pdv(request, context_id=context, is_command=True)))
            for start in range(0, max(len(one.data_set), 1), wire.PDV_BYTES):
                part = one.data_set[start : start + wire.PDV_BYTES]
                is_last = start + wire.PDV_BYTES >= len(one.data_set)
                peer.send(wire.pdu(wire.P_DATA, wire.pdv(part, context_id=context, is_last=is_last)))
            status = peer.status()
        except OSError:
            status = None
        self._sent += 1
        if status is None or self._sent % ASSOCIATION_OBJECTS == 0:
            self.close()
        return status

    def close(self) -> None:
        if self._peer is not None:
            self._peer.socket.close()
        self._peer = None

    def _associated(self) -> Wire:
        if self._peer is None:
            self._peer = Wire(self._port, 120)
            contexts = {number: (wire.DX, (syntax,)) for number, syntax in CONTEXTS.items()}
            self._peer.send(wire.associate_rq(contexts | {ECHO_CONTEXT: (wire.VERIFICATION, (wire.IMPLICIT,))}))
            assert self._peer.receive()[0] == wire.ASSOCIATE_AC
        return self._peer


@pytest.mark.parametrize("objects", [150, pytest.param(5000, marks=[pytest.mark.chaos, pytest.mark.timeout(7200)])])
def test_malformed_objects(tmp_path: Path, profile: Path, report: Report, seed: int, objects: int) -> None:
    model = {"profile": str(profile), "threads": 1}
    outside = _outside(tmp_path)
    with Role(tmp_path / "node", "receive") as node, Role(tmp_path / "node", "work", model=model) as worker:
        base = node.usage()
        with Peak(node.pid) as peak, Peak(worker.pid, with_children=True) as worked:
            sender, answers = Sender(node.port), dict[int, int | None]()
            for number in range(objects):
                answers[number] = sender.send(mutant(seed, number))
            sender.close()
            settled = eventually(lambda: all(row.state in SETTLED for row in node.rows()), NODE_S + objects)
        rows = node.rows()
        restarts = (not node.lives()) + (not worker.lives())
        assert "Traceback" not in node.said() + worker.said()
    statuses = Counter("association ended" if status is None else f"0x{status:04X}" for status in answers.values())
    acknowledged = {number for number, status in answers.items() if status == 0x0000}
    lost, unparsable = _check_acknowledged(node, rows, acknowledged, seed)
    report(
        f"objects={objects} answers={dict(statuses)} acknowledged={len(acknowledged)} lost={len(lost)}",
        unparsable=len(unparsable),
        states=dict(Counter(f"{row.state}({row.reason or ''})" for row in rows)),
        restarts=restarts,
        receiver_rss_growth_mib=round(peak.rss_mib - base.rss_mib),
        worker_rss_mib=round(worked.rss_mib),
        decoder_rss_mib=round(worked.child_rss_mib),
        left_over=len(node.parts()),
    )
    assert lost == []
    assert unparsable == {}
    assert restarts == 0
    assert settled, Counter(row.state for row in rows)
    assert peak.rss_mib - base.rss_mib <= 50
    assert all(answers[number] == 0x0000 for number in range(0, objects, 20)), "an object without a fault was refused"
    assert _outside(tmp_path) == outside
    assert [path for path in _names(node.spool) if LAYOUT.fullmatch(path) is None] == []


def _check_acknowledged(
    node: Role, rows: list[InstanceRow], acknowledged: set[int], seed: int
) -> tuple[list[int], dict[str, tuple[str, str]]]:
    """Acknowledged objects without a row, and stored ones that another program cannot parse."""
    known = {row.sop_instance_uid for row in rows}
    files = {row.sop_instance_uid: _file(node, row) for row in rows}
    assert all(file.read_bytes()[:132] == bytes(128) + b"DICM" for file in files.values())
    said = {uid: (judge.pydicom_says(file), judge.dcmtk_says(file)) for uid, file in files.items()}
    lost = [number for number in sorted(acknowledged) if _named(mutant(seed, number)) not in known]
    return lost, {uid: words for uid, words in said.items() if any(words)}


def _named(one: Mutant) -> str:
    """As the ledger names it: without padding (PS3.5 9.1)."""
    return one.affected_uid.decode().strip(" \0")


def _file(node: Role, row: InstanceRow) -> Path:
    return node.spool / "objects" / row.content_sha256[:2] / f"{row.content_sha256}.dcm"


def _names(folder: Path) -> Iterator[str]:
    yield from (str(path.relative_to(folder)) for path in sorted(folder.rglob("*")))


def _outside(folder: Path) -> list[str]:
    """What is there that should not be: beside the spool, and where the UIDs that are paths would lead."""
    own = {f"node/{role}.{kind}" for role in ("receive", "work") for kind in ("log", "yaml")} | {"node", "node/spool"}
    beside = [name for name in _names(folder) if name not in own and not name.startswith("node/spool/")]
    ways_out = {Path("/"), Path(tempfile.gettempdir()), *folder.parents}
    return beside + [str(path) for way in ways_out for path in way.glob(f"*{CANARY}*")]


def test_the_same_seed_makes_the_same_corpus() -> None:
    assert [mutant(7, number) for number in range(40)] == [mutant(7, number) for number in range(40)]
    assert mutant(7, 3) != mutant(8, 3)
