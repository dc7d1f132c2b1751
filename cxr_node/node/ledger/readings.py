"""Readings: what radiologists said of studies, kept as a word, and the answers of the node beside them.

A study is named by its Accession Number's digest, its UID or that of an image; no text and no number of a report is
kept. Imported twice, a reading is there once; a later one of the same source supersedes it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import CONSTANCY_STUDY, Verdict
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.reading_tables import readings
from cxr_node.node.ledger.states import note
from cxr_node.node.ledger.tables import instances

PAGE = "page"
"""Source of what is said on the page."""
_IS_FILM = instances.c.study_instance_uid != CONSTANCY_STUDY
_MOST_KEYS = 500
"""So many values of a condition in one statement."""


class Kept(StrEnum):
    """What became of a reading."""

    NEW = "new"
    SAME = "same"
    SUPERSEDES = "supersedes"
    OLDER = "older"
    """Than what is known from this source: not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one source says of one study."""

    study_instance_uid: str
    source: str
    said: str
    rule: str = ""
    reader: str = ""
    said_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One judged or refused image of a study that has been read."""

    number: int
    study_instance_uid: str
    sop_instance_uid: str
    verdict: Verdict
    abstain_reason: str | None
    probability: float | None
    profile: str | None
    sender: str
    station: str | None
    view: str | None
    age_band: str | None
    received_at: datetime
    is_kept: bool
    """Its bytes are still in the spool."""
    content_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadStudy:
    """A study, its images with an answer or a refusal, and what was said of it, by source and reader."""

    images: tuple[Image, ...]
    said: Mapping[tuple[str, str], tuple[str, datetime]]
    """By source and reader: the word, and when it was said, else read."""


def studies_of(ledger: Ledger, accession_keys: Collection[str] = (), uids: Collection[str] = ()) -> frozenset[str]:
    """Study Instance UIDs that a report names, by digests of its Accession Number or by UIDs of study or image."""
    by_uid = sa.or_(instances.c.study_instance_uid.in_(uids), instances.c.sop_instance_uid.in_(uids))
    named = by_uid if uids else sa.false()
    if accession_keys:
        named = sa.or_(named, instances.c.accession_key.in_(accession_keys))
    with ledger.database.reading() as connection:
        return frozenset(connection.scalars(sa.select(instances.c.study_instance_uid).where(named).distinct()))


def studies_with(ledger: Ledger, numbers: Sequence[int]) -> dict[int, str]:
    """Study Instance UID of each image, by its number."""
    found = sa.select(instances.c.id, instances.c.study_instance_uid).where(instances.c.id.in_(numbers))
    with ledger.database.reading() as connection:
        return {row.id: row.study_instance_uid for row in connection.execute(found)}


def keep(ledger: Ledger, reading: Reading) -> Kept:
    """Keep a reading, beside those of other sources and in place of an earlier one of this source."""
    now = ledger.now()
    mine = sa.and_(
        readings.c.study_instance_uid == reading.study_instance_uid,
        readings.c.source == reading.source,
        readings.c.reader == reading.reader,
        readings.c.superseded_at.is_(None),
    )
    with ledger.database.writing() as connection:
        of_study = sa.select(instances.c.id).where(instances.c.study_instance_uid == reading.study_instance_uid)
        numbers = list(connection.scalars(of_study.order_by(instances.c.id).with_for_update()))
        known = connection.execute(sa.select(readings).where(mine)).first()
        if known is not None and (told := _against(known, reading)) is not None:
            return told
        if known is not None:
            connection.execute(sa.update(readings).where(readings.c.id == known.id).values(superseded_at=now))
        row = {name: getattr(reading, name) for name in Reading.__slots__} | {"read_at": now}
        connection.execute(sa.insert(readings).values(row))
        # the next reader, who sees the time line, is not told what this one said
        shown = f": {reading.said}" if not reading.reader else f" ({reading.reader})"
        note(connection, numbers, now, "reading", f"{reading.source}{shown}")
    return Kept.NEW if known is None else Kept.SUPERSEDES


def _against(known: Any, reading: Reading) -> Kept | None:
    """Why a reading is not kept beside what is known; None: it is."""
    if (known.said, known.rule) == (reading.said, reading.rule) and reading.said_at in (None, known.said_at):
        return Kept.SAME
    is_older = reading.said_at is not None and known.said_at is not None and reading.said_at < known.said_at
    return Kept.OLDER if is_older else None


def said_of(ledger: Ledger, study_instance_uids: Collection[str]) -> dict[str, list[Reading]]:
    """What is said of these studies now, by study."""
    current = sa.and_(readings.c.study_instance_uid.in_(study_instance_uids), readings.c.superseded_at.is_(None))
    found: defaultdict[str, list[Reading]] = defaultdict(list)
    with ledger.database.reading() as connection:
        for row in connection.execute(sa.select(readings).where(current).order_by(readings.c.id)).mappings():
            found[row["study_instance_uid"]].append(Reading(**{name: row[name] for name in Reading.__slots__}))
    return dict(found)


def read_studies(ledger: Ledger, since: datetime, until: datetime | None = None) -> list[ReadStudy]:
    """Studies with an image received between two times of which somebody said something, the first received first."""
    until = until or ledger.now()
    window = sa.and_(instances.c.received_at >= since, instances.c.received_at < until)
    recent = sa.select(instances.c.study_instance_uid).where(window)
    current = sa.and_(readings.c.superseded_at.is_(None), readings.c.study_instance_uid.in_(recent))
    said: defaultdict[str, dict[tuple[str, str], tuple[str, datetime]]] = defaultdict(dict)
    with ledger.database.reading() as connection:
        for row in connection.execute(sa.select(readings).where(current)):
            at = row.said_at or row.read_at
            said[row.study_instance_uid][row.source, row.reader] = (row.said, at)
        images = _images(connection, sorted(said))
    return [ReadStudy(images=tuple(images[uid]), said=said[uid]) for uid in images]


def answered(ledger: Ledger, since: datetime, until: datetime | None = None) -> list[tuple[Image, ...]]:
    """Images with an answer or a refusal that were received between two times, by study, the first received first."""
    until = until or ledger.now()
    window = sa.and_(instances.c.received_at >= since, instances.c.received_at < until)
    with ledger.database.reading() as connection:
        recent = connection.scalars(sa.select(instances.c.study_instance_uid).where(window, _IS_FILM).distinct())
        return [tuple(each) for each in _images(connection, sorted(recent)).values()]


def _images(connection: sa.Connection, study_uids: Sequence[str]) -> dict[str, list[Image]]:
    """Of each study the newest version of each image, where it has an answer."""
    found: defaultdict[str, dict[str, Image]] = defaultdict(dict)
    for some in _portions(study_uids):
        mine = sa.and_(instances.c.study_instance_uid.in_(some), instances.c.verdict.is_not(None))
        for row in connection.execute(sa.select(instances).where(mine).order_by(instances.c.id)):
            found[row.study_instance_uid][row.sop_instance_uid] = _image(row)
    by_number = sorted(found, key=lambda uid: min(image.number for image in found[uid].values()))
    return {uid: sorted(found[uid].values(), key=lambda image: image.number) for uid in by_number}


def _image(row: Any) -> Image:
    return Image(
        number=row.id,
        study_instance_uid=row.study_instance_uid,
        sop_instance_uid=row.sop_instance_uid,
        verdict=Verdict.of_word(row.verdict),
        abstain_reason=row.abstain_reason,
        probability=row.probability,
        profile=row.profile,
        sender=row.calling_ae_title,
        station=row.station_name,
        view=row.view,
        age_band=row.age_band,
        received_at=row.received_at,
        is_kept=row.purged_at is None,
        content_sha256=row.content_sha256,
    )


def _portions(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(values), _MOST_KEYS):
        yield values[at : at + _MOST_KEYS]
