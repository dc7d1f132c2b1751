"""What is looked up for the audit trail of a courier's transfers, and how often."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cxr_node.node.audit.messages import Transfer
from cxr_node.node.audit.recorder import SILENT, Silent
from cxr_node.node.deliver.transfer_audit import TransferAudit
from cxr_node.node.ledger import queries
from tests.node import peers


class Recorder(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.studies: list[tuple[str, str]] = []

    def transferred(self, transfer: Transfer, sop_class_uid: str) -> None:
        """Keep the study and the patient."""
        self.studies.append((transfer.study_instance_uid, transfer.patient_key))


def test_the_study_of_an_image_is_looked_up_once_for_all_of_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def study_of(_: object, job: Any) -> tuple[str, str]:
        asked.append(job.instance_id)
        return f"1.2.{job.instance_id}", f"patient {job.instance_id}"

    monkeypatch.setattr(queries, "study_of", study_of)
    to, recorder = peers.destination(peers.nobody()), Recorder()
    for audit in (TransferAudit(recorder, cast(Any, None), to), TransferAudit(SILENT, cast(Any, None), to)):
        for number in (1, 1, 1, 2, 2, 1):
            choices = [SimpleNamespace(sop_class_uid="1.2.3")]
            job: Any = SimpleNamespace(
                instance_id=number, sop_class_choice=0, artifact=SimpleNamespace(sop_class_choices=choices)
            )
            audit.look(job)
            audit.ended()
    assert asked == [1, 2, 1]
    assert recorder.studies == [(f"1.2.{number}", f"patient {number}") for number in (1, 1, 1, 2, 2, 1)]
