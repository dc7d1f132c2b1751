"""Orthanc as Storage Commitment SCP: it commits itself, loses an object, says so, and gets the same bytes again.

It answers with N-EVENT-REPORT on an association of its own, which the node's receiver takes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests import builders
from tests.pacs.peers import Node, Orthanc, need
from tests.pacs.test_routing import KINDS
from tests.patience import wait_until
from tests.processes import run

pytestmark = pytest.mark.pacs


def deliveries(node: Node, uid: str) -> list[dict[str, Any]]:
    (story,) = node.json("trace", uid)
    found: list[dict[str, Any]] = story["deliveries"]
    return found


def committed(node: Node, uid: str) -> bool:
    return node.is_idle() and [row.commitment for row in node.story(uid).deliveries] == ["COMMITTED"] * 3


def objects(orthanc: Orthanc) -> dict[str, str]:
    """Orthanc's own names of the results it holds, by SOP Instance UID."""
    found = {}
    for instance in orthanc.get("/instances"):
        tags = orthanc.get(f"/instances/{instance}/simplified-tags")
        if tags["SOPClassUID"] in {str(uid) for uid in KINDS}:
            found[tags["SOPInstanceUID"]] = instance
    return found


def test_orthanc_commits_loses_and_gets_it_again(tmp_path: Path) -> None:
    need("storescu", "Orthanc")
    source = builders.radiograph()
    file = tmp_path / "one.dcm"
    file.write_bytes(builders.part10(source))
    uid = str(source.SOPInstanceUID)
    node = Node(tmp_path / "node", [], delivery={"first_delay_s": 0.5, "max_delay_s": 2})
    with Orthanc(tmp_path / "orthanc", modalities={"node": (node.ae_title, node.port)}) as orthanc:
        archive = {
            "name": "archive", "address": orthanc.address, "commitment_wait_h": 1, "report_per": "image",
        }  # fmt: skip
        with node.with_destinations([archive]):
            done = run("storescu", "-R", "-aec", node.ae_title, "127.0.0.1", node.port, file)
            assert done.returncode == 0, done.stderr
            wait_until(lambda: committed(node, uid), "Orthanc's commitment to three results")
            first = deliveries(node, uid)
            assert all(row["transaction_uid"] and row["committed_at"] and row["asks"] == 1 for row in first)

            (lost, instance), *_ = objects(orthanc).items()
            before = orthanc.file(instance)
            orthanc.delete(instance)
            asked = run(sys.executable, "-m", "cxr_node", "retry", uid, "--config", node.config)
            assert asked.returncode == 0, asked.stderr
            wait_until(lambda: lost in objects(orthanc), "the lost result, sent again")
            wait_until(lambda: committed(node, uid), "Orthanc's commitment to all of them once more")
            assert orthanc.file(objects(orthanc)[lost]) == before
            (story,) = node.json("trace", uid)
            (seen,) = node.json("status")
    told = [event["detail"] for event in story["events"] if event["what"] == "uncommitted"]
    assert len(told) == 1
    assert "commitment failed: 0x0112; sent again" in told[0]
    assert seen["uncommitted"] == {}
    assert {row["transaction_uid"] for row in story["deliveries"]}.isdisjoint({row["transaction_uid"] for row in first})
