"""A ledger with a past: rows of images that were delivered long ago, written at once and not by the node's moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cxr_node.config.destinations import STANDARD_KINDS
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import DeliveryState, InstanceState
from cxr_node.node.ledger.tables import artifacts, deliveries, events, instance_artifacts, instances

_CHUNK = 5_000
_DAYS_AGO = 60  # older than retention_days: the bytes are gone, the rows stay
_TOLD = ("received", "reported", "delivery-delivered", "delivery-delivered", "delivery-delivered", "delivered")


def fill(spool_path: Path, images: int) -> None:
    """Make a ledger that knows so many settled images, each with the standard results at one destination."""
    ledger = Ledger.open(spool_path)
    try:
        for first in range(1, images + 1, _CHUNK):
            numbers = range(first, min(first + _CHUNK, images + 1))
            with ledger.database.writing() as connection:
                for table, rows in _rows(numbers).items():
                    connection.execute(sa.insert(table), rows)
    finally:
        ledger.close()


def _rows(numbers: range) -> dict[sa.Table, list[dict[str, Any]]]:
    at = datetime.now(UTC) - timedelta(days=_DAYS_AGO)
    made: dict[sa.Table, list[dict[str, Any]]] = {instances: [], artifacts: [], instance_artifacts: []}
    made |= {deliveries: [], events: []}
    for number in numbers:
        made[instances].append(_instance(number, at))
        made[events] += [{"instance_id": number, "at": at, "what": what, "detail": "0x0000"} for what in _TOLD]
        for place, kind in enumerate(STANDARD_KINDS):
            key = 3 * number + place
            made[artifacts].append(
                {
                    "id": key,
                    "kind": kind,
                    "sop_class_uid": f"1.2.840.10008.5.1.4.1.1.88.{place}",
                    "sop_instance_uid": f"2.25.7{key:030d}",
                    "content_sha256": f"{key:064x}",
                    "size_bytes": 10_000,
                }
            )
            made[instance_artifacts].append({"instance_id": number, "artifact_id": key})
            settled = {"state": DeliveryState.DELIVERED, "not_before": at, "first_due_at": at, "delivered_at": at}
            made[deliveries].append({"artifact_id": key, "destination": "archive", "last_status": 0, **settled})
    return made


def _instance(number: int, at: datetime) -> dict[str, Any]:
    return {
        "id": number,
        "sop_instance_uid": f"2.25.6{number:030d}",
        "content_sha256": f"{number:064x}",
        "study_instance_uid": f"2.25.8{number:030d}",
        "series_instance_uid": f"2.25.9{number:030d}",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "patient_key": f"{number:064x}",
        "accession_key": f"{number:064x}",
        "calling_ae_title": "BENCH",
        "peer_host": "127.0.0.1",
        "received_at": at,
        "size_bytes": 10_000_000,
        "state": InstanceState.DELIVERED,
        "verdict": "NORMAL",
        "probability": 0.1,
        "profile": "pneumonia-pediatric 2.1",
        "not_before": at,
        "updated_at": at,
        "purged_at": at,
    }
