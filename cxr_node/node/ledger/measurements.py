"""Keeps what the network measured of an image with its verdict, in the same transaction; `films` reads it."""

from __future__ import annotations

import json
from dataclasses import asdict

import sqlalchemy as sa

from cxr_node.domain import Measurement, ModelIdentity
from cxr_node.node.ledger.measurement_tables import measurements
from cxr_node.node.ledger.states import Job


def keep(connection: sa.Connection, job: Job, measurement: Measurement | None, identity: ModelIdentity) -> None:
    """Keep it; what an earlier judgement of the same image measured goes."""
    drop(connection, job)
    if measurement is None:
        return
    row = {
        "instance_id": job.instance_id,
        "logit": measurement.logit,
        "distance": measurement.distance,
        "features": measurement.features,
        "weights_sha256": identity.weights_sha256,
        "config_sha256": identity.config_sha256,
        "operating_point": json.dumps(asdict(identity.operating_point)),
    }
    connection.execute(_INSERT, row)


_INSERT = sa.insert(measurements)


def drop(connection: sa.Connection, job: Job) -> None:
    """An image that is judged again has no other measurement than its last."""
    if not job.is_first:
        connection.execute(sa.delete(measurements).where(measurements.c.instance_id == job.instance_id))
