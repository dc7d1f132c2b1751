"""Public validators find nothing wrong with a report that names the one it replaces, in any of its SOP Classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr_node.domain import ResultKind
from tests.dicom.test_verify_versions import versions
from tests.pacs.test_validators import NOT_IN_TEMPLATE, complaints
from tests.pacs.validators import dsrdump, pixelmed

pytestmark = pytest.mark.pacs

RUNGS = [(ResultKind.REPORT, 0), *((ResultKind.MEASUREMENTS, rung) for rung in range(3))]


@pytest.mark.parametrize(("kind", "rung"), RUNGS)
def test_validators_accept_predecessors(tmp_path: Path, kind: ResultKind, rung: int) -> None:
    _, second = versions()
    file = tmp_path / f"{kind}.dcm"
    file.write_bytes(second.artifacts[kind].rungs[rung].content)
    assert complaints(file) == []
    assert dsrdump(file) == []
    said = [complaint.words for complaint in pixelmed(file)]
    assert [words for words in said if not any(known in words for known in NOT_IN_TEMPLATE)] == []
