"""Ledgers with studies that were answered, made by the ledger's own moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import AbstainReason, Decision, InstanceRef, Origin, Reason, Verdict, View
from cxr_node.node.ledger.counted import Counted
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.tables import instances
from cxr_node.outcome import Rejected
from cxr_node.subgroups import Subgroup
from tests.node.ledgers import Clock, digest, finding, reference


def accession(number: int) -> str:
    return f"A{number:05d}"


def answered(
    ledger: Ledger,
    clock: Clock,
    number: int,
    verdict: Verdict,
    *,
    study: int | None = None,
    sender: str = "ROOM1",
    subgroup: Subgroup | None = None,
    probability: float | None = None,
    abstain_reason: AbstainReason = AbstainReason.BETWEEN_THRESHOLDS,
) -> int:
    """One image of a study of its own, or of that number, and what the node said of it; its number in the ledger."""
    own = study or number
    ref: InstanceRef = reference(
        number, study_instance_uid=f"1.2.{own}", accession_key=sha256(accession(own).encode()).hexdigest()
    )
    origin = Origin(calling_ae_title=sender, peer_host="10.0.0.7", received_at=clock())
    assert ledger.add(ref, origin, digest(number), 4711)
    job = ledger.claim_instance("worker", 60.0)
    assert job is not None
    if verdict is Verdict.REJECTED:
        assert ledger.settle_rejected(job, Rejected(reason=Reason.NOT_FRONTAL, sentence="It is a lateral view."))
        return job.claim.row_id
    said = finding()
    reason = abstain_reason if verdict is Verdict.INDETERMINATE else None
    said = replace(said, decision=Decision(verdict=verdict, abstain_reason=reason))
    if probability is not None:
        said = replace(said, prediction=replace(said.prediction, probability={"pneumonia": probability}))
    of = subgroup or Subgroup(view=View.PA, age_band="6 to 17")
    assert ledger.settle_reported(job, said, [], {}, None, Counted(subgroup=of))
    return job.claim.row_id


def many(ledger: Ledger, rows: Sequence[Mapping[str, Any]], at: datetime) -> None:
    """Answered images, one of each study, in one transaction: number, verdict, probability, abstain_reason, profile."""
    values = [
        {
            "id": number,
            "sop_instance_uid": f"1.2.{number}.1.1",
            "content_sha256": digest(number),
            "study_instance_uid": f"1.2.{number}",
            "series_instance_uid": f"1.2.{number}.1",
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.1",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "patient_key": digest(1000 + number),
            "accession_key": sha256(accession(number).encode()).hexdigest(),
            "calling_ae_title": "ROOM1",
            "peer_host": "10.0.0.7",
            "received_at": at,
            "size_bytes": 1,
            "state": "DELIVERED",
            "abstain_reason": None,
            "not_before": at,
            "updated_at": at,
            "attempts": 0,
            "fence": 0,
        }
        | row
        for number, row in enumerate(rows, 1)
    ]
    with ledger.database.writing() as connection:
        connection.execute(sa.insert(instances), values)
