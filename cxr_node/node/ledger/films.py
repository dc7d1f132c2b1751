"""The films of a site in the order of their receipt, and its own first ones, which later ones are compared with.

Reads, and fixes a reference once; draws no conclusion, and needs no numpy. Nothing here names a patient.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import CONSTANCY_STUDY, Verdict
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.measurement_tables import film_references, measurements
from cxr_node.node.ledger.states import insert_once
from cxr_node.node.ledger.tables import instances

REFERENCE_FILMS = 2000
"""Of a site's own first films."""
_NUMBERS = struct.Struct("<3d")
_NONE = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One settled image: answered, or refused."""

    instance_id: int
    received_at: datetime
    sender: str
    verdict: Verdict
    probability: float | None
    logit: float | None
    """None: refused, or judged by other weights, or before the node kept it."""
    distance: float | None
    features: bytes | None

    @property
    def is_measured(self) -> bool:
        """Whether it was judged by the weights that were asked for."""
        return self.logit is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of one sender's films of a reference."""

    settled: int = 0
    """By any weights; what the rejected are a share of."""
    rejected: int = 0
    judged: int = 0
    abstained: int = 0
    positive: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The site's own first films under some weights, fixed once."""

    name: str
    weights_sha256: str
    fixed_at: datetime
    last_instance_id: int
    counts: Mapping[str, Counts]
    """By sender."""
    senders: tuple[str, ...]
    """Of each measured film, as all below."""
    logits: tuple[float, ...]
    distances: tuple[float, ...]
    """nan where none is measured."""
    probabilities: tuple[float, ...]
    verdicts: tuple[Verdict, ...]
    features: tuple[bytes, ...]

    def of_sender(self, sender: str | None) -> Counts:
        """None: of all together."""
        if sender is not None:
            return self.counts.get(sender, Counts())
        return _sum(self.counts.values())


def since(ledger: Ledger, weights_sha256: str, after_id: int = 0, newest: int | None = None) -> list[Film]:
    """Films in the order of their receipt, the newest so many of them; of a study, the first that was judged.

    Two films of one patient on one day are no two witnesses; what was refused counts each time. The phantom of
    `constancy` is no film.
    """
    order = instances.c.id if newest is None else instances.c.id.desc()
    found = _settled(weights_sha256, instances.c.id > after_id).order_by(order).limit(newest)
    with ledger.database.reading() as connection:
        rows: Sequence[Any] = connection.execute(found).all()
    return list(_first_of_each_study(rows if newest is None else rows[::-1]))


def _settled(weights_sha256: str, *which: sa.ColumnElement[bool]) -> sa.Select[Any]:
    mine = sa.and_(measurements.c.instance_id == instances.c.id, measurements.c.weights_sha256 == weights_sha256)
    columns = (instances.c.id, instances.c.received_at, instances.c.calling_ae_title, instances.c.study_instance_uid)
    measured = (measurements.c.logit, measurements.c.distance, measurements.c.features)
    return (
        sa.select(*columns, instances.c.verdict, instances.c.probability, *measured)
        .select_from(instances.outerjoin(measurements, mine))
        .where(instances.c.verdict.is_not(None), instances.c.study_instance_uid != CONSTANCY_STUDY, *which)
    )


def _first_of_each_study(rows: Iterable[Any]) -> Iterator[Film]:
    seen: set[str] = set()
    for row in rows:
        if row.logit is not None:
            if row.study_instance_uid in seen:
                continue
            seen.add(row.study_instance_uid)
        yield Film(
            instance_id=row.id,
            received_at=row.received_at,
            sender=row.calling_ae_title,
            verdict=Verdict.of_word(row.verdict),
            probability=row.probability,
            logit=row.logit,
            distance=row.distance,
            features=row.features,
        )


def reference(ledger: Ledger, weights_sha256: str) -> Reference | None:
    """Read the reference of some weights; None: there is none yet."""
    mine = sa.select(film_references).where(film_references.c.weights_sha256 == weights_sha256)
    with ledger.database.reading() as connection:
        row = connection.execute(mine).mappings().first()
    return None if row is None else _read(row)


def fix_reference(ledger: Ledger, weights_sha256: str, number: int = REFERENCE_FILMS) -> Reference | None:
    """Fix the first so many measured films as the reference; None: there are not so many yet.

    One that is fixed stays, whoever fixed it and with however many films.
    """
    there = reference(ledger, weights_sha256)
    if there is not None:
        return there
    chosen = _first(ledger, weights_sha256, number)
    if chosen is None:
        return None
    row = {
        "name": f"first-{number} {weights_sha256[:12]}",
        "weights_sha256": weights_sha256,
        "fixed_at": ledger.now(),
        "last_instance_id": chosen[-1].instance_id,
        "counts": json.dumps(_counted(chosen)),
        "films": b"".join(_packed(film) for film in chosen if film.is_measured),
    }
    with ledger.database.writing() as connection:
        insert_once(connection, film_references, row)
    return reference(ledger, weights_sha256)


def measured(ledger: Ledger, weights_sha256: str) -> int:
    """How many images those weights have judged since the node keeps what it measures."""
    mine = sa.select(sa.func.count()).where(measurements.c.weights_sha256 == weights_sha256)
    with ledger.database.reading() as connection:
        return int(connection.scalar(mine) or 0)


def _first(ledger: Ledger, weights_sha256: str, number: int) -> list[Film] | None:
    """From the first measured film to that of this number, with the refused ones between; None: there are not so many.

    Read row by row: a ledger may hold a million that were judged before.
    """
    mine = measurements.c.weights_sha256 == weights_sha256
    with ledger.database.reading() as connection:
        told = connection.execute(sa.select(sa.func.count(), sa.func.min(measurements.c.instance_id)).where(mine)).one()
        if told[0] < number:
            return None
        found = _settled(weights_sha256, instances.c.id >= told[1]).order_by(instances.c.id)
        with connection.execute(found, execution_options={"yield_per": 500}) as rows:
            films: list[Film] = []
            missing = number
            for film in _first_of_each_study(rows):
                films.append(film)
                missing -= film.is_measured
                if not missing:
                    return films
    return None


def _counted(films: Sequence[Film]) -> dict[str, Any]:
    measured = [film for film in films if film.is_measured]
    counts = {sender: asdict(count(films, sender)) for sender in sorted({film.sender for film in films})}
    return {
        "counts": counts,
        "senders": [film.sender for film in measured],
        "verdicts": [film.verdict for film in measured],
    }


def count(films: Iterable[Film], sender: str | None = None) -> Counts:
    """Count one sender's films; None: all."""
    mine = [film for film in films if sender is None or film.sender == sender]
    verdicts = Counter(film.verdict for film in mine if film.is_measured)
    return Counts(
        settled=len(mine),
        rejected=sum(film.verdict is Verdict.REJECTED for film in mine),
        judged=verdicts.total(),
        abstained=verdicts[Verdict.INDETERMINATE],
        positive=verdicts[Verdict.POSITIVE],
    )


def _sum(counts: Iterable[Counts]) -> Counts:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(asdict(each))
    return Counts(**total)


def _packed(film: Film) -> bytes:
    numbers = (_NONE if number is None else number for number in (film.logit, film.distance, film.probability))
    return _NUMBERS.pack(*numbers) + (film.features or b"")


def _read(row: sa.RowMapping) -> Reference:
    told = json.loads(row["counts"])
    blob, number = row["films"], len(told["senders"])
    size = len(blob) // number
    films = [blob[place : place + size] for place in range(0, len(blob), size)]
    logits, distances, probabilities = zip(*(_NUMBERS.unpack_from(film) for film in films), strict=True)
    return Reference(
        name=row["name"],
        weights_sha256=row["weights_sha256"],
        fixed_at=row["fixed_at"],
        last_instance_id=row["last_instance_id"],
        counts={sender: Counts(**each) for sender, each in told["counts"].items()},
        senders=tuple(told["senders"]),
        logits=logits,
        distances=distances,
        probabilities=probabilities,
        verdicts=tuple(Verdict(word) for word in told["verdicts"]),
        features=tuple(film[_NUMBERS.size :] for film in films),
    )
