"""The ledger's own cost of an image, as rows: received, claimed, judged, its study reported, three results delivered.

No file, no pixel and no DICOM: what remains is the ledger. One film is one study, which costs the most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa

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
from cxr_node.node.ledger import queries, studies
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.ripening import Judged, Ripening
from cxr_node.node.ledger.states import DeliveryJob, InstanceState, Job, StoredArtifact, StudyJob
from cxr_node.node.ledger.tables import instances
from cxr_node.result_kinds import ReportPer, ResultKind, Wish

DESTINATION = "archive"
DOCUMENTS = (ResultKind.REPORT, ResultKind.MEASUREMENTS)
WISHES = {DESTINATION: Wish(per=ReportPer.STUDY, kinds=(*DOCUMENTS, ResultKind.HEATMAP))}
_OWNER, _LEASE_S = "bench", 600.0
_RESULTS = 3
_CHUNK = 5_000
_JUDGEMENT = "x" * 1_500
"""As long as what is kept of an image with one region."""
_AT_ONCE = Ripening(quiet_s=0.0, max_wait_s=0.0)

_Found = TypeVar("_Found")
ServerCpu = Callable[[], float]
"""CPU seconds of the server's processes so far; 0.0 where the engine has none."""


@dataclass(slots=True)
class Cost:
    """What one kind of move cost, summed over all of them."""

    wall_s: float = 0.0
    client_s: float = 0.0
    server_s: float = 0.0
    statements: int = 0
    transactions: int = 0


@dataclass(slots=True)
class Meter:
    """Counts what the connections of a ledger do."""

    ledger: Ledger
    server: ServerCpu
    costs: dict[str, Cost] = field(default_factory=dict)
    _now: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        engine = self.ledger.database.engine
        sa.event.listen(engine, "before_cursor_execute", self._statement)
        sa.event.listen(engine, "begin", self._begin)

    def _statement(self, *_: Any) -> None:
        self._now.statements += 1

    def _begin(self, *_: Any) -> None:
        self._now.transactions += 1

    @contextmanager
    def of(self, move: str) -> Iterator[None]:
        """Charge what happens meanwhile to a move."""
        self._now = self.costs.setdefault(move, Cost())
        wall, client, server = time.perf_counter(), time.process_time(), self.server()
        yield
        self._now.wall_s += time.perf_counter() - wall
        self._now.client_s += time.process_time() - client
        self._now.server_s += self.server() - server


def finding() -> Finding:
    """One of a positive."""
    point = OperatingPoint(
        name="balanced", label="pneumonia", report_at=0.7, rule_out_below=0.2, max_spread=0.3, max_distance=2.0
    )
    cells = np.zeros((1, 1), np.float32)
    return Finding(
        prediction=Prediction(probability={"pneumonia": 0.875}, spread=0.01, distance=0.5),
        decision=Decision(verdict=Verdict.POSITIVE),
        heatmap=Heatmap(cells=cells, border=NO_BORDER, regions=(), label="pneumonia", layer="last"),
        identity=ModelIdentity(
            profile="bench", version="1", weights_sha256="", config_sha256="", operating_point=point, calibration=""
        ),
    )


def reference(number: int) -> InstanceRef:
    """The image of that number, in a study of its own."""
    return InstanceRef(
        study_instance_uid=f"2.25.8{number:030d}",
        series_instance_uid=f"2.25.9{number:030d}",
        sop_instance_uid=f"2.25.6{number:030d}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient_key=f"{number:064x}",
        accession_key=f"{number:064x}",
    )


def sop_classes(kind: ResultKind) -> list[tuple[str, int]]:
    """SOP Classes of a result, by their number; measurements come in three."""
    choices = 3 if kind is ResultKind.MEASUREMENTS else 1
    place = list(ResultKind).index(kind)
    return [(f"1.2.840.10008.5.1.4.1.1.88.{10 * place + choice}", 10 * place + choice) for choice in range(choices)]


def stored(number: int, kind: ResultKind) -> StoredArtifact:
    """A result of the image of that number, or of its study."""
    first, *below = (
        StoredArtifact(
            kind=kind,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=f"2.25.7{choice:03d}{number:030d}",
            series_instance_uid=f"2.25.5{choice:03d}{number:030d}",
            content_sha256=f"{choice:03d}{number:061x}",
            size_bytes=10_000,
            per=ReportPer.STUDY,
        )
        for sop_class_uid, choice in sop_classes(kind)
    )
    return replace(first, alternatives=tuple(below))


class Moves:
    """So many images through the ledger, one move after the other; each must succeed."""

    def __init__(self, ledger: Ledger, images: int, server: ServerCpu = lambda: 0.0) -> None:
        self._ledger, self._images = ledger, images
        self.meter = Meter(ledger, server)

    def run(self, done: Callable[[], object] = lambda: None) -> dict[str, dict[str, float]]:
        """Cost of each kind of move, for an image: ms, and how many statements and transactions."""
        self._each("receive", range(1, self._images + 1), self._receive)
        jobs = self._each("claim an image", range(self._images), lambda _: self._claim())
        done()
        self._each("what came before it", jobs, lambda job: queries.precedent(self._ledger, job))
        self._each("settle an image", jobs, self._judge)
        done()
        ripe = self._each("claim its study", jobs, lambda _: self._claim_study())
        self._each("settle its study", ripe, self._report)
        done()
        due = self._each("claim three results", jobs, lambda _: [self._claim_delivery() for _ in range(_RESULTS)])
        self._each("settle three results", due, self._deliver)
        done()
        self._check()
        return {name: self._told(cost) for name, cost in self.meter.costs.items()}

    def _each(self, name: str, given: Iterable[Any], move: Callable[[Any], Any]) -> list[Any]:
        with self.meter.of(name):
            return [move(each) for each in given]

    def _told(self, cost: Cost) -> dict[str, float]:
        told = {name.replace("_s", "_ms"): value for name, value in asdict(cost).items()}
        return {name: value * (1000.0 if name.endswith("_ms") else 1.0) / self._images for name, value in told.items()}

    def _receive(self, number: int) -> int | None:
        return self._ledger.add(reference(number), _origin(), f"{number:064x}", 10_000_000)

    def _claim(self) -> Job:
        return _there(self._ledger.claim_instance(_OWNER, _LEASE_S))

    def _judge(self, job: Job) -> None:
        pictures = [stored(job.instance_id, ResultKind.HEATMAP)]
        judged = Judged(text=_JUDGEMENT, is_listed=False, ripening=_AT_ONCE)
        _there(self._ledger.settle_reported(job, finding(), pictures, WISHES, judged))

    def _claim_study(self) -> StudyJob:
        return _there(studies.claim_study(self._ledger, _OWNER, _LEASE_S))

    def _report(self, job: StudyJob) -> None:
        documents = [stored(job.instance_id, kind) for kind in DOCUMENTS]
        _there(studies.settle_study(self._ledger, job, "POSITIVE", documents, WISHES))

    def _claim_delivery(self) -> DeliveryJob:
        return _there(self._ledger.claim_delivery(DESTINATION, _OWNER, _LEASE_S))

    def _deliver(self, jobs: Iterable[DeliveryJob]) -> None:
        for job in jobs:
            _there(self._ledger.settle_delivered(job, 0x0000))

    def _check(self) -> None:
        found = queries.counts(self._ledger)[InstanceState.DELIVERED]
        if found != self._images:
            raise ValueError(f"{found} of {self._images} images are DELIVERED")


def fill_backlog(ledger: Ledger, images: int, content_sha256: str, size_bytes: int) -> None:
    """Let so many images wait to be judged, all of one stored object; each was received at a time of its own."""
    with ledger.database.writing() as connection:
        first = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
        for start in range(1, images + 1, _CHUNK):
            numbers = range(start, min(start + _CHUNK, images + 1))
            rows = [_waiting(number, first, content_sha256, size_bytes) for number in numbers]
            connection.execute(sa.insert(instances), rows)


def _waiting(number: int, first: datetime, content_sha256: str, size_bytes: int) -> dict[str, Any]:
    at = first + timedelta(microseconds=number)
    row: dict[str, Any] = {name: getattr(reference(number), name) for name in InstanceRef.__slots__}
    row |= {"content_sha256": content_sha256, "size_bytes": size_bytes, "calling_ae_title": "BENCH"}
    row |= {"peer_host": "127.0.0.1", "received_at": at, "not_before": at, "updated_at": at}
    return row | {"state": InstanceState.RECEIVED}


def claim_ms(ledger: Ledger, claims: int) -> list[float]:
    """Time of each claim of an image."""
    took = []
    for _ in range(claims):
        began = time.perf_counter()
        _there(ledger.claim_instance(_OWNER, _LEASE_S))
        took.append(1000.0 * (time.perf_counter() - began))
    return took


def _origin() -> Origin:
    return Origin(calling_ae_title="BENCH", peer_host="127.0.0.1", received_at=datetime.now(UTC))


def _there(found: _Found | None) -> _Found:
    if found is None or found is False:
        raise ValueError("the ledger did not do a move")
    return found
