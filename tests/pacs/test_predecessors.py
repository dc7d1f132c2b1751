"""Public validators find nothing wrong with a report that names the one it replaces, in any of its SOP Classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr_node.result_kinds import ResultKind
from tests.dicom.test_verify_versions import versions
from tests.pacs.test_validators import complaints
from tests.pacs.validators import dsrdump, pixelmed_by_any_way

pytestmark = pytest.mark.pacs

NOT_IN_TEMPLATE = (
    "(122405,DCM",
    "(233604007,SCT",
    "(121106,DCM",
    "(272394005,SCT",
    "(limitations,99CXRNODE",
    "/CONTAINER (C0034375,UMLS",
)
"""Rows younger than the validator's tables, extensions that TID 1410 and CID 7001 allow, and the title of measurements
without a region: an extension of CID 7021, by which alone the validator knows a TID 1500."""


def test_validators_accept_predecessors(tmp_path: Path) -> None:
    _, second = versions()
    files = []
    for kind, choices in ((ResultKind.REPORT, 1), (ResultKind.MEASUREMENTS, 3)):
        for choice in range(choices):
            files.append(tmp_path / f"{kind}-{choice}.dcm")
            files[-1].write_bytes(second.artifacts[kind].sop_class_choices[choice].content)
            assert complaints(files[-1]) == []
            assert dsrdump(files[-1]) == []
    said = [complaint.words for found in pixelmed_by_any_way(files).values() for complaint in found]
    assert [words for words in said if not any(known in words for known in NOT_IN_TEMPLATE)] == []
