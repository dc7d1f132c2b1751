"""What the audit is told of one courier's sendings: which study, to whom, and how it ended (PS3.15 A.5.3.3 and 7).

Knows no link and no schedule; the study is looked up in the ledger before anything leaves.
"""

from __future__ import annotations

from dataclasses import replace

from cxr_node.config.schema import Destination
from cxr_node.node import history
from cxr_node.node.audit_messages import Direction, Outcome, Participant, Transfer
from cxr_node.node.auditor import SILENT, Audit
from cxr_node.node.jobs import DeliveryJob
from cxr_node.node.ledger import Ledger


class Told:
    """One job at a time, as its courier has it. For one thread."""

    def __init__(self, audit: Audit, ledger: Ledger, destination: Destination) -> None:
        address = destination.address
        self._audit = audit
        self._ledger = ledger
        self._participant = Participant(ae_title=address.ae_title, host=address.host)
        self._transfer = self._of("", "")
        self._sop_class_uid = ""

    def look(self, job: DeliveryJob) -> None:
        """Find out of which study the next sending is.

        Raises
        ------
        ResourceError : the ledger cannot be read now.
        """
        if self._audit is SILENT:
            return
        self._transfer = self._of(*history.study_of(self._ledger, job))
        self._sop_class_uid = job.artifact.rungs[job.rung].sop_class_uid

    def begins(self, sop_class_uid: str) -> None:
        """Say that the first byte is about to leave."""
        self._sop_class_uid = sop_class_uid
        self._audit.begins(self._transfer, sop_class_uid)

    def ended(self, outcome: Outcome = Outcome.SUCCESS, words: str = "") -> None:
        """Say that the destination has it, or why not; the words are ours, never the destination's."""
        self._audit.transferred(replace(self._transfer, outcome=outcome, words=words), self._sop_class_uid)

    def _of(self, study_instance_uid: str, patient_key: str) -> Transfer:
        return Transfer(
            direction=Direction.SENT,
            participant=self._participant,
            study_instance_uid=study_instance_uid,
            patient_key=patient_key,
        )
