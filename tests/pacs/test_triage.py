"""A rule on the names of series, or on key objects, finds the positive in an archive, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config.network import Address
from cxr_node.dicom import from_picture
from cxr_node.tools import send
from tests.pacs.peers import Node, Orthanc
from tests.patience import wait_until

pytestmark = pytest.mark.pacs

RADIOGRAPHS = Path(__file__).parent.parent.parent / "cxr_node" / "demo_radiographs"
FILMS = {"1.2.826.0.1.3680043.10.31": "opacity-1", "1.2.826.0.1.3680043.10.32": "clear-1"}


def found(orthanc: Orthanc, level: str, **query: str) -> set[str]:
    """Study Instance UIDs of what a query finds, as a rule of a worklist would ask."""
    asked: dict[str, Any] = {"Level": level, "Query": query, "Expand": True}
    series = orthanc.post("/tools/find", json.dumps(asked).encode())
    return {orthanc.get(f"/studies/{each['ParentStudy']}")["MainDicomTags"]["StudyInstanceUID"] for each in series}


def test_a_rule_on_the_name_of_a_series_finds_the_positive_alone(tmp_path: Path) -> None:
    files = []
    for study, name in FILMS.items():
        files.append(tmp_path / f"{name}.dcm")
        wrapped = from_picture.wrap(
            RADIOGRAPHS / f"{name}.jpg", PatientAge="003Y", ViewPosition="AP", StudyInstanceUID=study
        )
        files[-1].write_bytes(wrapped)
    positive = next(iter(FILMS))
    with Orthanc(tmp_path / "orthanc") as orthanc:
        wanted = {"name": "pacs", "address": orthanc.address, "send": ["report", "heatmap", "key-object"]}
        marks = {"positive": "AI FLAG", "uncertain": "AI CHECK", "key_object_title": "for-research"}
        with Node(tmp_path / "node", [wanted], study={"quiet_s": 0.5}, results={"triage": marks}) as node:
            for file in files:
                orthanc.post("/instances", file.read_bytes())
            address = Address(ae_title=node.ae_title, host="127.0.0.1", port=node.port)
            send.store(files, lambda sent: None, address, "TESTS")
            wait_until(node.is_idle, "both studies reported")
            assert found(orthanc, "Series", SeriesDescription="AI FLAG*") == {positive}
            assert found(orthanc, "Series", Modality="KO") == {positive}
            assert found(orthanc, "Series", SeriesDescription="*AI CHECK*") == set()
            assert found(orthanc, "Series", SeriesDescription="*AI: *", Modality="SR") == set(FILMS)
            assert found(orthanc, "Series", SeriesDescription="*(research)*") == set(FILMS)
