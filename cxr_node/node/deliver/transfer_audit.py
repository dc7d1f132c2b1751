"""What the audit trail has of a courier's transfers: before the first byte leaves, and at the end."""

from __future__ import annotations

from dataclasses import replace

from cxr_node.config.destinations import Destination
from cxr_node.node.audit.messages import Direction, Outcome, Participant, Transfer
from cxr_node.node.audit.recorder import SILENT, Audit
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import DeliveryJob


class TransferAudit:
    """The audit of one courier's transfers, one after the other. For one thread."""

    def __init__(self, audit: Audit, ledger: Ledger, destination: Destination) -> None:
        self._audit = audit
        self._ledger = ledger
        self._transfer = Transfer(
            direction=Direction.SENT,
            participant=Participant(ae_title=destination.ae_title, host=destination.host),
            study_instance_uid="",
            patient_key="",
        )
        self._sop_class_uid = ""

    def look(self, job: DeliveryJob) -> None:
        """Look up the study of the next transfer.

        Raises
        ------
        ResourceError : the ledger cannot be read now.
        """
        if self._audit is SILENT:
            return
        study_instance_uid, patient_key = queries.study_of(self._ledger, job)
        self._transfer = replace(self._transfer, study_instance_uid=study_instance_uid, patient_key=patient_key)
        self._sop_class_uid = job.artifact.sop_class_choices[job.sop_class_choice].sop_class_uid

    def begins(self, sop_class_uid: str) -> None:
        """Record that the first byte is about to leave."""
        self._sop_class_uid = sop_class_uid
        self._audit.begins(self._transfer, sop_class_uid)

    def ended(self, outcome: Outcome = Outcome.SUCCESS, words: str = "") -> None:
        """Record that the destination has it, or why not; the words are ours, never the destination's."""
        self._audit.transferred(replace(self._transfer, outcome=outcome, words=words), self._sop_class_uid)
