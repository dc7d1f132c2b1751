"""One radiograph, four archives of different age: each gets the measurements in the best SOP Class that it takes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom import dcmread

from cxr_node.result_kinds import ResultKind
from tests import builders
from tests.node import peers
from tests.pacs.peers import Node, need
from tests.patience import wait_until
from tests.processes import run

pytestmark = pytest.mark.pacs

REPORT = peers.SOP_CLASS[ResultKind.REPORT]
TAKES = {
    "new": (REPORT, *peers.MEASUREMENT_CLASSES),
    "middle": (REPORT, *peers.MEASUREMENT_CLASSES[1:]),
    "old": (REPORT, peers.MEASUREMENT_CLASSES[2]),
    "none": (REPORT,),
}


def test_every_archive_gets_the_sop_class_it_takes_and_trace_says_which(tmp_path: Path) -> None:
    need("storescp", "storescu")
    source = tmp_path / "source.dcm"
    source.write_bytes(builders.part10(builders.radiograph()))
    with ExitStack() as stack:
        destinations = [
            {
                "name": name,
                "address": str(stack.enter_context(peers.storescp(tmp_path / name, *taken))),
                "send": ["report", "measurements"],
                "report_per": "image",
            }
            for name, taken in TAKES.items()
        ]
        node = stack.enter_context(Node(tmp_path / "node", destinations))
        assert run("storescu", "-aec", node.ae_title, "127.0.0.1", node.port, source).returncode == 0
        wait_until(lambda: node.counts()["DEAD"] == 1, "every destination has settled")
        (story,) = node.json("trace", str(dcmread(source).SOPInstanceUID))
    stored = {name: [dcmread(file) for file in (tmp_path / name).iterdir()] for name in TAKES}
    for place, name in enumerate(("new", "middle", "old")):
        assert {document.SOPClassUID for document in stored[name]} == {REPORT, peers.MEASUREMENT_CLASSES[place]}, name
    assert [document.SOPClassUID for document in stored["none"]] == [REPORT]
    delivered = {
        (row["destination"], row["sop_instance_uid"]) for row in story["deliveries"] if row["state"] == "DELIVERED"
    }
    assert delivered == {(name, document.SOPInstanceUID) for name, kept in stored.items() for document in kept}
    (dead,) = (row for row in story["deliveries"] if row["state"] == "DEAD")
    assert (dead["destination"], dead["kind"], dead["attempts"]) == ("none", "measurements", 1)
