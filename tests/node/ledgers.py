"""Ledgers to test: one clock that tests turn, every engine under the same contract, and ready-made rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from cxr_node.config.destinations import STANDARD_KINDS
from cxr_node.domain import (
    NO_BORDER,
    Decision,
    Finding,
    Heatmap,
    InstanceRef,
    ModelIdentity,
    OperatingPoint,
    Origin,
    Prediction,
    Verdict,
)
from cxr_node.node.ledger import expiry, operator_moves
from cxr_node.node.ledger.database import HEAD
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.lookup import matching
from cxr_node.node.ledger.states import StoredArtifact
from cxr_node.node.ledger.tables import metadata
from cxr_node.result_kinds import ReportPer, ResultKind, Wish
from tests import postgres

ALL = STANDARD_KINDS


class Clock:
    """A wall clock that stands still until it is told."""

    def __init__(self, time: datetime = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)) -> None:
        self.time = time

    def __call__(self) -> datetime:
        return self.time

    def forward(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


def purge(ledger: Ledger, *instance_ids: int) -> None:
    """Say that retention has taken their bytes."""
    with ledger.database.writing() as connection:
        expiry.mark_purged(connection, instance_ids, ledger.now())


@contextmanager
def opened(engine: str, folder: Path, clock: Clock) -> Iterator[Ledger]:
    """An empty ledger on that engine."""
    url = None
    if engine == "postgresql":
        url = emptied(postgres.database())
    ledger = Ledger.open(folder, url, clock)
    try:
        yield ledger
    finally:
        ledger.close()


def emptied(url: str) -> str:
    """Take all rows out of a database, or all tables where a test has changed them."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        if sa.inspect(connection).has_table("alembic_version") and _revision(connection) == HEAD:
            names = ", ".join(table.name for table in metadata.sorted_tables)
            connection.execute(sa.text(f"TRUNCATE {names} RESTART IDENTITY"))
        else:
            metadata.drop_all(connection)
            connection.execute(sa.text("DROP TABLE IF EXISTS alembic_version"))
    engine.dispose()
    return url


def _revision(connection: sa.Connection) -> str | None:
    return connection.scalar(sa.text("SELECT version_num FROM alembic_version"))


def digest(number: int) -> str:
    return f"{number:064x}"


def reference(number: int = 1, **overrides: str | None) -> InstanceRef:
    """What names the instance of that number; each has its own study."""
    fields: dict[str, str | None] = {
        "study_instance_uid": f"1.2.{number}",
        "series_instance_uid": f"1.2.{number}.1",
        "sop_instance_uid": f"1.2.{number}.1.1",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "patient_key": digest(1000 + number),
        "accession_key": digest(2000 + number),
    }
    return InstanceRef(**(fields | overrides))  # type: ignore[arg-type]  # overrides keep each field's type


def origin(clock: Clock) -> Origin:
    return Origin(calling_ae_title="MODALITY", peer_host="10.0.0.7", received_at=clock())


def wishes(**kinds: Sequence[ResultKind]) -> dict[str, Wish]:
    """Destinations that want these kinds of each image."""
    return {name: Wish(per=ReportPer.IMAGE, kinds=tuple(wanted)) for name, wanted in kinds.items()}


def finding() -> Finding:
    point = OperatingPoint(
        name="balanced", label="pneumonia", report_at=0.7, rule_out_below=0.2, max_spread=0.3, max_distance=2.0
    )
    return Finding(
        prediction=Prediction(probability={"pneumonia": 0.875}, spread=0.01, distance=0.5),
        decision=Decision(verdict=Verdict.POSITIVE),
        heatmap=Heatmap(cells=None, border=NO_BORDER, regions=(), label="pneumonia", layer="last"),  # type: ignore[arg-type]  # not looked at
        identity=ModelIdentity(
            profile="test", version="1", weights_sha256="", config_sha256="", operating_point=point, calibration=""
        ),
    )


def results(number: int = 1) -> list[StoredArtifact]:
    """The three results of the instance of that number."""
    return [
        StoredArtifact(
            kind=kind,
            sop_class_uid="1.2.3",
            sop_instance_uid=f"2.25.{number}.{place}",
            content_sha256=digest(10 * number + place),
            size_bytes=100,
        )
        for place, kind in enumerate(ALL)
    ]


def measurements_in_three_classes(number: int = 1) -> list[StoredArtifact]:
    """The same, and two alternatives of the measurements."""
    report, measurements, heatmap = results(number)
    below = tuple(
        StoredArtifact(
            kind=measurements.kind,
            sop_class_uid=f"1.2.3.{choice}",
            sop_instance_uid=f"{measurements.sop_instance_uid}.{choice}",
            content_sha256=digest(10 * number + 5 + choice),
            size_bytes=100 + choice,
        )
        for choice in (1, 2)
    )
    return [report, replace(measurements, alternatives=below), heatmap]


def retried(ledger: Ledger, key: str, *destinations: str) -> int:
    """Retry what a key names, at these destinations; how many instances are back in the queue."""
    again = operator_moves.Again(destinations=destinations, by="anna", set_aside=True)
    return operator_moves.retry(ledger, matching(key), again).instances
