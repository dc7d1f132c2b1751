"""The page of acceptance counts what is in the ledger, fits one A4 page, and says what is missing."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cxr_node.assurance import acceptance, acceptance_page
from cxr_node.assurance.acceptance import Acceptance, Share
from cxr_node.assurance.report_rules import Said
from cxr_node.domain import Verdict
from cxr_node.node.ledger import readings
from cxr_node.node.ledger.readings import Kept, Reading
from cxr_node.node.ledger.states import DeadReason
from tests import builders
from tests.node.test_study_rebuild import Node, opened

READ = [(Verdict.POSITIVE, True)] * 9 + [(Verdict.POSITIVE, False), (Verdict.INDETERMINATE, True)]


def looked(node: Node, number: int = 60, read: Any = ()) -> Acceptance:
    return acceptance.look(node.ledger, node.config, [builders.profile()], number, read)


def test_it_counts_the_last_studies(tmp_path: Path, engine: dict[str, Any]) -> None:
    with opened(tmp_path, **engine) as node:
        for number in range(1, 5):
            node.comes(number, StudyInstanceUID=f"1.2.3.{number}", PatientID=f"P{number}")
        node.comes(9, ViewPosition="LL", StudyInstanceUID="1.2.3.4", PatientID="P4")
        node.answers()
        node.comes(6, StudyInstanceUID="1.2.3.6", PatientID="P6")
        job = node.ledger.claim_instance("worker", 60.0)
        assert job is not None and node.ledger.settle_dead(job, DeadReason.FAULT, "it broke")
        told = looked(node, read=READ)
        assert (told.studies, told.images) == (5, 6)
        assert told.faults["images that are DEAD"] == 1 and sum(told.faults.values()) == 1
        assert told.verdicts == {"PNEUMONIA": Share.exact(4, 4)}
        assert told.refused == {"view-not-frontal": Share.exact(1, 5)}
        assert told.refused_by_sender == {"MODALITY": Share.exact(1, 5)}
        assert told.turnaround is not None and told.turnaround.images == 4
        assert told.agreement["positives that were right (PPV)"] == Share.exact(9, 10)
        assert told.agreement["read films without an answer"] == Share.exact(1, 11)
        assert told.to_check[0].startswith("Only 5 of 60 studies")
        assert looked(node, 2).studies == 2


def test_only_readings_of_the_last_studies_count(tmp_path: Path) -> None:
    with opened(tmp_path) as node:
        for number in (1, 2, 3):
            node.comes(number, StudyInstanceUID=f"1.2.3.{number}", PatientID=f"P{number}")
            said = Reading(
                study_instance_uid=f"1.2.3.{number}", source="csv", said=Said.PRESENT, rule="label", said_at=None
            )
            assert readings.keep(node.ledger, said) is Kept.NEW
        node.answers()
        assert looked(node, read=None).agreement["answers that agree"] == Share.exact(3, 3)
        assert looked(node, 2, read=None).agreement["answers that agree"] == Share.exact(2, 2)


def test_the_interval_is_exact() -> None:
    share = Share.exact(9, 10)
    assert (share.low, share.high) == pytest.approx((0.5550, 0.9975), abs=1e-4)
    assert (Share.exact(0, 0).low, Share.exact(0, 0).high) == (0.0, 1.0)
    assert Share.exact(0, 60).high == pytest.approx(0.0596, abs=1e-4)


def test_an_empty_ledger_has_a_page_too(tmp_path: Path) -> None:
    with opened(tmp_path) as node:
        told = looked(node)
        assert told.studies == 0 and told.turnaround is None
        assert acceptance_page.draw(told).startswith(b"%PDF")


def full(told: Acceptance) -> Acceptance:
    """All tables as long as they become, and more."""
    share = Share.exact(12, 345)
    many = {f"a reason of some length, number {number}": share for number in range(12)}
    lines = (told.profiles[0],) * 2
    return replace(told, refused=many, refused_by_sender=many, no_answer=many, verdicts=many, profiles=lines)


def test_the_page_is_one_page_and_the_same_each_time(tmp_path: Path) -> None:
    with opened(tmp_path) as node:
        node.comes(1)
        node.answers()
        told = full(looked(node, read=READ))
    drawn = acceptance_page.draw(told)
    assert drawn == acceptance_page.draw(told)
    assert drawn.count(b"/Type /Page\n") == 1
    program = shutil.which("pdftotext")
    if program is None:
        pytest.skip("pdftotext is missing: install the package poppler-utils")
    file = tmp_path / "page.pdf"
    file.write_bytes(drawn)
    text = subprocess.run([program, "-layout", file, "-"], capture_output=True, text=True, check=True).stdout
    for words in (
        "Signature",
        "What the site must still check",
        "and 6 more kinds (JSON)",
        told.profiles[0].weights_sha256,
    ):
        assert words in text


def test_nothing_is_drawn_over_the_signature(tmp_path: Path) -> None:
    with opened(tmp_path) as node:
        told = full(looked(node, read=READ))
        told = replace(told, to_check=tuple(f"Sentence number {number} of those." for number in range(9)))
    assert acceptance_page.end_of_text_mm(told) < 297.0 - 34.0
