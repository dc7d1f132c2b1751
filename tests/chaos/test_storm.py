"""One image sent a thousand times at once: one row, one inference, one set of results (FAULTS T22)."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr_node.config.destinations import STANDARD_KINDS
from tests.chaos.accounting import settle
from tests.chaos.conftest import Listening, Report
from tests.chaos.node import Node
from tests.chaos.senders import Modality
from tests.patience import wait_until


@pytest.mark.parametrize("copies", [100, pytest.param(1000, marks=[pytest.mark.chaos, pytest.mark.timeout(900)])])
def test_duplicate_storm(tmp_path: Path, profile: Path, listening: Listening, report: Report, copies: int) -> None:
    archives = listening("steady", "steady")
    with Node(tmp_path / "node", profile, archives) as node:
        modality = Modality(tmp_path / "modality", node.address)
        (file,) = modality.take(1)
        with modality.sending(modality.copies(file, copies), associations=8, batch=copies):
            pass
        wait_until(node.is_idle, "the image is settled")
        node.shut_down()
    accounting = settle(node.spool, modality.sources, modality.acknowledged, [one.kept() for one in archives])
    inferences = node.log("work").count(" reported ")
    sends = [len(archive.kept()) for archive in archives]
    answers = modality.acknowledged.total()
    report(accounting, answered_0x0000=answers, rows=sum(node.counts().values()), inferences=inferences, sends=sends)
    assert accounting.is_clean
    assert accounting.delivered == accounting.acknowledged == sum(node.counts().values()) == inferences == 1
    assert answers == copies and not modality.refused and not modality.broken
    assert sends == [len(STANDARD_KINDS)] * 2
