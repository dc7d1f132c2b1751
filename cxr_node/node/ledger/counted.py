"""What the ledger keeps of an answer to count and compare by; nothing of it reaches a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.engine import Connection

from cxr_node.domain import Measurement, ModelIdentity
from cxr_node.node.ledger import candidates, measurements
from cxr_node.node.ledger.candidates import Comparison
from cxr_node.node.ledger.states import Job
from cxr_node.subgroups import Subgroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Each is None where nobody counts it."""

    subgroup: Subgroup | None = None
    measurement: Measurement | None = None
    comparison: Comparison | None = None
    """With what a candidate will say."""

    @property
    def columns(self) -> Mapping[str, str | None]:
        """Of the image's own row."""
        of = self.subgroup
        return {"view": None if of is None else of.view, "age_band": None if of is None else of.age_band}

    def keep(self, connection: Connection, job: Job, identity: ModelIdentity, now: datetime) -> None:
        """Write the rows beside the image's own."""
        measurements.keep(connection, job, self.measurement, identity)
        if self.comparison is not None:
            candidates.want(connection, job.instance_id, self.comparison, now)


NOTHING = Counted()
