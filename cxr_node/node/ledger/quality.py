"""Verdicts, reasons and turnaround times by day or hour and by sender. Reads only; counts, never a patient.

Bounded: at most `MAX_DAYS` back, and at most the newest `MAX_IMAGES`, by the index of the time of receipt.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import CONSTANCY_STUDY, Verdict
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.tables import instances

MAX_DAYS = 90
MAX_IMAGES = 100_000
_SECOND_US = 1_000_000


class Every(IntEnum):
    """Length of a bucket of time, in seconds; buckets begin at full hours and days, UTC."""

    HOUR = 3600
    DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Turnaround:
    """From the receipt until every destination had accepted the results for the first time."""

    p50_s: float
    p95_s: float
    number: int
    """Of images that the percentiles rest on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Images of one sender, or of all, in one bucket of time, or in all of it."""

    begins_at: datetime | None
    """None: the whole time."""
    sender: str | None
    """None: all senders."""
    images: int
    verdicts: Mapping[str, int]
    """By the word for programs; images without a verdict are in none."""
    abstain_reasons: Mapping[str, int]
    rejections: Mapping[str, int]
    turnaround: Turnaround | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The groups, and since when they are complete."""

    since: datetime
    """Later than requested where that exceeds `MAX_IMAGES` or `MAX_DAYS`."""
    groups: tuple[Quality, ...]
    """Newest first, then by sender."""


@dataclass(slots=True)
class _Sums:
    images: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    abstain_reasons: Counter[str] = field(default_factory=Counter)
    rejections: Counter[str] = field(default_factory=Counter)
    took_us: list[int] = field(default_factory=list)


def report(
    ledger: Ledger, since: datetime, until: datetime | None = None, *, every: Every | None = None, senders: bool = False
) -> Report:
    """Count the images received between two times, by bucket, by sender, by both or altogether."""
    until = until or ledger.now()
    since = max(since, until - timedelta(days=MAX_DAYS))
    at, done = (sa.type_coerce(column, sa.BigInteger) for column in (instances.c.received_at, instances.c.delivered_at))
    columns = (instances.c.calling_ae_title, instances.c.verdict, instances.c.abstain_reason, instances.c.reason)
    window = sa.and_(
        instances.c.received_at >= since,
        instances.c.received_at < until,
        instances.c.study_instance_uid != CONSTANCY_STUDY,
    )
    newest = sa.select(at, done, *columns).where(window).order_by(instances.c.received_at.desc()).limit(MAX_IMAGES + 1)
    with ledger.database.reading() as connection:
        rows = list(connection.execute(newest).all())
    if len(rows) > MAX_IMAGES:
        since = _instant(rows.pop()[0])
    sums = _summed(rows, every, senders)
    order = sorted(sums, key=lambda key: (-(key[0] or 0), key[1] or ""))
    return Report(since=since, groups=tuple(_quality(key, sums[key], every) for key in order))


def _summed(rows: Iterable[Any], every: Every | None, senders: bool) -> Mapping[tuple[int | None, str | None], _Sums]:
    sums: defaultdict[tuple[int | None, str | None], _Sums] = defaultdict(_Sums)
    length_us = None if every is None else every * _SECOND_US
    for received_us, delivered_us, sender, verdict, abstain_reason, reason in rows:
        mine = sums[None if length_us is None else received_us // length_us, sender if senders else None]
        mine.images += 1
        if verdict is not None:
            mine.verdicts[verdict] += 1
        if abstain_reason is not None:
            mine.abstain_reasons[abstain_reason] += 1
        if verdict == Verdict.REJECTED and reason is not None:
            mine.rejections[reason] += 1
        if delivered_us is not None:
            mine.took_us.append(delivered_us - received_us)
    return sums


def _quality(key: tuple[int | None, str | None], sums: _Sums, every: Every | None) -> Quality:
    number, sender = key
    return Quality(
        begins_at=None if number is None or every is None else _instant(number * every * _SECOND_US),
        sender=sender,
        images=sums.images,
        verdicts=dict(sums.verdicts),
        abstain_reasons=dict(sums.abstain_reasons),
        rejections=dict(sums.rejections),
        turnaround=_turnaround(sums.took_us),
    )


def _turnaround(took_us: list[int]) -> Turnaround | None:
    """Of a single image, both percentiles are its own time; a clock that was put back makes no time negative."""
    if not took_us:
        return None
    took_s = [max(0, each) / _SECOND_US for each in took_us]
    cuts = statistics.quantiles(took_s, n=20, method="inclusive") if len(took_s) > 1 else took_s * 19
    return Turnaround(p50_s=cuts[9], p95_s=cuts[18], number=len(took_s))


def _instant(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
