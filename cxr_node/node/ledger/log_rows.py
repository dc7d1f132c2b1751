"""What the log of a period has of each image: by whom it came, by what it was judged, where its results went.

Reads only. No UID, and no number of a patient: an image has its ledger number, and the digest of its bytes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.measurement_tables import measurements
from cxr_node.node.ledger.tables import artifacts, deliveries, events, instance_artifacts, instances

_AT_ONCE = 500
_IMAGE = (
    *("content_sha256", "calling_ae_title", "peer_host", "station_name", "received_at", "state", "verdict"),
    *("abstain_reason", "probability", "reason", "profile"),
)
_JUDGED = ("logit", "distance", "weights_sha256", "config_sha256", "operating_point")
_DELIVERY = ("destination", "state", "attempts", "last_status", "first_due_at", "delivered_at", "reason")
_EVENT = ("at", "what", "detail", "machine")


def images(ledger: Ledger, since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
    """Each image that was received in a time, with all that happened to it, in the order of receipt."""
    window = sa.and_(instances.c.received_at >= since, instances.c.received_at < until)
    judged = [measurements.c[name] for name in _JUDGED]
    wanted = sa.select(instances.c.id, *(instances.c[name] for name in _IMAGE), *judged).select_from(
        instances.outerjoin(measurements, measurements.c.instance_id == instances.c.id)
    )
    last = 0
    while True:
        with ledger.database.reading() as connection:
            page = wanted.where(window, instances.c.id > last).order_by(instances.c.id).limit(_AT_ONCE)
            rows = connection.execute(page).mappings().all()
            ids = [row["id"] for row in rows]
            went, happened = _deliveries(connection, ids), _events(connection, ids)
        if not rows:
            return
        last = ids[-1]
        for row in rows:
            told = {name: _said(row[name]) for name in (*_IMAGE, *_JUDGED)}
            told["operating_point"] = json.loads(row["operating_point"] or "null")
            yield {"instance": row["id"], **told, "deliveries": went[row["id"]], "events": happened[row["id"]]}


def later_events(ledger: Ledger, since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
    """What happened in a time to images that had come before it."""
    wanted = (
        sa.select(events.c.instance_id, *(events.c[name] for name in _EVENT))
        .join(instances, instances.c.id == events.c.instance_id)
        .where(events.c.at >= since, events.c.at < until, instances.c.received_at < since)
        .order_by(events.c.id)
    )
    with ledger.database.reading() as connection:
        rows = connection.execute(wanted).mappings().all()
    for row in rows:
        yield {"instance": row["instance_id"], **{name: _said(row[name]) for name in _EVENT}}


def _deliveries(connection: sa.Connection, ids: Sequence[int]) -> defaultdict[int, list[dict[str, Any]]]:
    found: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    wanted = (
        sa.select(instance_artifacts.c.instance_id, artifacts.c.kind, *(deliveries.c[name] for name in _DELIVERY))
        .join(artifacts, artifacts.c.id == instance_artifacts.c.artifact_id)
        .join(deliveries, deliveries.c.artifact_id == artifacts.c.id)
        .where(instance_artifacts.c.instance_id.in_(ids))
        .order_by(deliveries.c.id)
    )
    for row in connection.execute(wanted).mappings():
        told = {name: _said(row[name]) for name in _DELIVERY}
        found[row["instance_id"]].append({"kind": row["kind"], **told})
    return found


def _events(connection: sa.Connection, ids: Sequence[int]) -> defaultdict[int, list[dict[str, Any]]]:
    found: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    wanted = sa.select(events).where(events.c.instance_id.in_(ids)).order_by(events.c.id)
    for row in connection.execute(wanted).mappings():
        found[row["instance_id"]].append({name: _said(row[name]) for name in _EVENT})
    return found


def _said(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
