"""The last studies with what became of their images and results, for the acceptance of a node. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from cxr_node.domain import CONSTANCY_STUDY
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.measurement_tables import measurements
from cxr_node.node.ledger.states import DeliveryState, InstanceState, StudyState
from cxr_node.node.ledger.tables import artifacts, deliveries, instance_artifacts, instances, studies


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image of them."""

    received_at: datetime
    sender: str
    state: InstanceState
    verdict: str | None
    reason: str | None
    abstain_reason: str | None
    delivered_at: datetime | None
    repeats: int
    profile: str | None
    weights_sha256: str | None
    config_sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One result of them at one destination."""

    destination: str
    kind: str
    state: DeliveryState
    attempts: int
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LastStudies:
    """So many studies, the newest of the ledger."""

    uids: frozenset[str]
    failed: int
    """Of which no report could be made."""
    images: tuple[Image, ...]
    deliveries: tuple[Delivery, ...]

    @property
    def studies(self) -> int:
        """How many."""
        return len(self.uids)


def look(ledger: Ledger, number: int) -> LastStudies:
    """Read them."""
    with ledger.database.reading() as connection:
        newest = (
            sa.select(instances.c.study_instance_uid)
            .where(instances.c.study_instance_uid != CONSTANCY_STUDY)
            .group_by(instances.c.study_instance_uid)
            .order_by(sa.func.max(instances.c.id).desc())
            .limit(number)
        )
        uids = list(connection.scalars(newest))
        failed = sa.select(sa.func.count()).where(
            studies.c.study_instance_uid.in_(uids), studies.c.state == StudyState.FAILED
        )
        return LastStudies(
            uids=frozenset(uids),
            failed=int(connection.scalar(failed) or 0),
            images=tuple(_images(connection, uids)),
            deliveries=tuple(_deliveries(connection, uids)),
        )


def _images(connection: sa.Connection, uids: Sequence[str]) -> list[Image]:
    names = ("received_at", "state", "verdict", "reason", "abstain_reason", "delivered_at", "repeats", "profile")
    columns = [instances.c[name] for name in names]
    found = (
        sa.select(instances.c.calling_ae_title, *columns, measurements.c.weights_sha256, measurements.c.config_sha256)
        .select_from(instances.outerjoin(measurements, measurements.c.instance_id == instances.c.id))
        .where(instances.c.study_instance_uid.in_(uids))
        .order_by(instances.c.id)
    )
    rows = connection.execute(found).mappings()
    return [
        Image(
            sender=row["calling_ae_title"],
            weights_sha256=row["weights_sha256"],
            config_sha256=row["config_sha256"],
            **{name: row[name] for name in names} | {"state": InstanceState(row["state"])},
        )
        for row in rows
    ]


def _deliveries(connection: sa.Connection, uids: Sequence[str]) -> list[Delivery]:
    found = (
        sa.select(
            deliveries.c.id,
            deliveries.c.destination,
            artifacts.c.kind,
            deliveries.c.state,
            deliveries.c.attempts,
            deliveries.c.reason,
        )
        .join(artifacts, artifacts.c.id == deliveries.c.artifact_id)
        .join(instance_artifacts, instance_artifacts.c.artifact_id == artifacts.c.id)
        .join(instances, instances.c.id == instance_artifacts.c.instance_id)
        .where(instances.c.study_instance_uid.in_(uids))
        .distinct()
        .order_by(deliveries.c.id)
    )
    return [
        Delivery(
            destination=row.destination,
            kind=row.kind,
            state=DeliveryState(row.state),
            attempts=row.attempts,
            reason=row.reason,
        )
        for row in connection.execute(found)
    ]
