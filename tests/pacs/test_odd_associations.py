"""200 odd but legal associations, the same to the node, to DCMTK's storescp and to Orthanc: who takes them?

What both others take and answer with a C-ECHO of success, the node takes too.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.node import peers, wire
from tests.node.receivers import receiving
from tests.node.wire import Wire
from tests.pacs.odd_associations import Request, forms
from tests.pacs.peers import Orthanc

pytestmark = pytest.mark.pacs

FORMS = 200
PATIENCE_S = 10.0
TAKEN = "taken"


def call(port: int, request: Request) -> str:
    """Ask for the association, verify and release: what came of it, in a word."""
    try:
        with Wire(port, PATIENCE_S) as peer:
            peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in request.pieces():
                peer.send(piece)
            kind, content = peer.receive()
            if kind != wire.ASSOCIATE_AC:
                return f"PDU {kind:02X}H {content[1:4].hex()}"
            verify = wire.command(0x0030, sop_class=wire.VERIFICATION.encode(), has_data=False)
            peer.send(wire.pdu(wire.P_DATA, wire.pdv(verify, context_id=request.verifying, is_command=True)))
            if (status := peer.status()) != 0x0000:
                return f"C-ECHO {status}"
            return TAKEN if peer.release() == wire.RELEASE_RP else "no release"
    except OSError as error:
        return type(error).__name__


@pytest.mark.timeout(600)
def test_what_dcmtk_and_orthanc_take_is_taken(tmp_path: Path) -> None:
    drawn = forms(FORMS)
    assert len(drawn) == FORMS
    account: Counter[str] = Counter()
    ours_alone: dict[str, str] = {}
    started = time.monotonic()
    with (
        peers.storescp(tmp_path / "storescp") as dcmtk,
        Orthanc(tmp_path / "orthanc") as orthanc,
        receiving(tmp_path / "spool", require_called_ae_title=False) as node,
    ):
        for name, request in drawn.items():
            others = [call(port, request) for port in (dcmtk.port, orthanc.dicom_port)]
            ours = call(node.port, request)
            by_others = all(word == TAKEN for word in others)
            if by_others and ours != TAKEN:
                ours_alone[name] = ours
            account["taken by all"] += by_others and ours == TAKEN
            account["taken by us alone"] += ours == TAKEN and TAKEN not in others
            account["refused by all"] += ours != TAKEN and TAKEN not in others
            account["the other two disagree"] += others.count(TAKEN) == 1
    words = ", ".join(f"{word}: {number}" for word, number in account.items())
    print(f"{len(drawn)} forms in {time.monotonic() - started:.0f} s: {words}; refused by us only: {len(ours_alone)}")
    assert ours_alone == {}
    assert account["taken by all"] >= FORMS * 0.95  # else the forms are not legal, or the peers are not themselves
