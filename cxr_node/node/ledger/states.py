"""The nouns of handing out work: states, what is leased, by whom, and what there is to do.

Knows no table; `ledger` makes these values and takes them back, and alone says which state follows which.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cxr_node.domain import InstanceRef, Origin, Priority, ResultKind


class InstanceState(StrEnum):
    """Where a received instance is."""

    RECEIVED = "RECEIVED"
    REPORTED = "REPORTED"
    DELIVERED = "DELIVERED"
    REJECTED = "REJECTED"
    DEAD = "DEAD"


class DeliveryState(StrEnum):
    """Where one result object is on its way to one destination."""

    READY = "READY"
    WAIT = "WAIT"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"


class PromiseState(StrEnum):
    """Where the commitment of a destination to one accepted result object is (PS3.4 Annex J)."""

    DUE = "DUE"
    """To be asked for."""
    ASKED = "ASKED"
    COMMITTED = "COMMITTED"
    UNCOMMITTED = "UNCOMMITTED"
    """Refused, or never answered: accepted, not committed."""


class DeadReason(StrEnum):
    """Why an instance is DEAD: stable words for ledger, logs, status and tests."""

    FAULT = "fault"
    """Every attempt failed; the sentence tells what was seen last."""
    SPOOL_CORRUPT = "spool-corrupt"
    """Its bytes are not those that were acknowledged."""
    UNDELIVERED = "undelivered"
    """A destination did not take a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A lease on one row; settles only while nobody else has claimed the row since."""

    row_id: int
    owner: str
    fence: int
    """Number of the claim on its row, never reset: a settle with an older one changes nothing."""
    attempts: int
    """How often this was tried, this time included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One received instance to be judged."""

    claim: Claim
    ref: InstanceRef
    origin: Origin
    content_sha256: str
    priority: Priority
    alone: bool
    """It was in the hands of a worker that died: nothing else is to be worked on beside it."""
    rejected_under: str | None = None
    """It came again after it was rejected under these rules and weights: while they hold, so does the refusal."""

    @property
    def instance_id(self) -> int:
        """Ledger number of the instance."""
        return self.claim.row_id

    @property
    def attempts(self) -> int:
        """How often this was tried, this time included."""
        return self.claim.attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArtifact:
    """A result object whose bytes are safe in the spool."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    content_sha256: str
    size_bytes: int
    series_instance_uid: str | None = None
    """None for results of versions that did not keep it."""
    alternatives: tuple[StoredArtifact, ...] = ()
    """The same result in other SOP Classes: where a destination does not take this one's, the first that it takes."""

    @property
    def rungs(self) -> tuple[StoredArtifact, ...]:
        """This one and its alternatives, the first choice first."""
        return (self, *self.alternatives)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryJob:
    """One result object to be sent to one destination."""

    claim: Claim
    destination: str
    artifact: StoredArtifact
    rung: int
    """Which of the artifact's rungs was chosen for the destination; 0, its first choice, while none was."""
    first_due_at: datetime
    instance_id: int
    """Ledger number of the instance whose result this is; the first of several that share it."""

    @property
    def attempts(self) -> int:
        """How often this was tried, this time included."""
        return self.claim.attempts
