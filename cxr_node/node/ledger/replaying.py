"""What a result was made of: the images, who sent them and when, in the order of their receipt. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from cxr_node.domain import InstanceRef, Origin
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.measurement_tables import measurements
from cxr_node.node.ledger.states import pick
from cxr_node.node.ledger.tables import artifacts, instance_artifacts, instances


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredient:
    """One image that a result was made of, or that came before it in its place."""

    instance_id: int
    ref: InstanceRef
    origin: Origin
    content_sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeOf:
    """What the ledger knows of a result."""

    content_sha256: str
    ingredients: tuple[Ingredient, ...]
    weights_sha256: frozenset[str]
    """Of those that judged its images; empty where the node did not keep them yet."""
    config_sha256: frozenset[str]


def made_of(ledger: Ledger, sop_instance_uid: str) -> MadeOf | None:
    """Find a result; None: this ledger does not know it."""
    with ledger.database.reading() as connection:
        mine = artifacts.c.sop_instance_uid == sop_instance_uid
        result = connection.execute(sa.select(artifacts.c.id, artifacts.c.content_sha256).where(mine)).first()
        if result is None:
            return None
        users = sa.select(instance_artifacts.c.instance_id).where(instance_artifacts.c.artifact_id == result.id)
        linked = instances.alias("linked")
        earlier = sa.exists().where(
            linked.c.id.in_(users),
            linked.c.sop_instance_uid == instances.c.sop_instance_uid,
            linked.c.study_instance_uid == instances.c.study_instance_uid,
            linked.c.id > instances.c.id,
        )
        wanted = sa.select(instances).where(sa.or_(instances.c.id.in_(users), earlier)).order_by(instances.c.id)
        rows = connection.execute(wanted).mappings().all()
        judged = (measurements.c.weights_sha256, measurements.c.config_sha256)
        by = connection.execute(sa.select(*judged).where(measurements.c.instance_id.in_(users))).all()
    return MadeOf(
        content_sha256=result.content_sha256,
        ingredients=tuple(
            Ingredient(
                instance_id=row["id"],
                ref=InstanceRef(**pick(InstanceRef, row)),
                origin=Origin(**pick(Origin, row)),
                content_sha256=row["content_sha256"],
                size_bytes=row["size_bytes"],
            )
            for row in rows
        ),
        weights_sha256=frozenset(row.weights_sha256 for row in by),
        config_sha256=frozenset(row.config_sha256 for row in by),
    )


def results(ledger: Ledger) -> dict[str, str]:
    """Digest of the bytes of every result object, by SOP Instance UID."""
    with ledger.database.reading() as connection:
        rows = connection.execute(sa.select(artifacts.c.sop_instance_uid, artifacts.c.content_sha256))
        return {row.sop_instance_uid: row.content_sha256 for row in rows}
