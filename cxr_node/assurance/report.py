"""One radiology report as `agreement` knows it: how it names its study, by digests and UIDs, and one word.

What every format shares. Neither a text nor a number of a report is kept here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum

from cxr_node.assurance.report_rules import Reader, Reading, Said
from cxr_node.dicom.read.keys import accession_keys


class Source(StrEnum):
    """Where a reading comes from, in the ledger's words."""

    CSV = "csv"
    ORU = "oru"
    SR = "sr"
    FHIR = "fhir"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report: of which study, and what it says."""

    source: Source
    accession_keys: tuple[frozenset[str], ...] = ()
    """Digests of each number that may be its Accession Number, the likeliest first."""
    uids: frozenset[str] = field(default=frozenset(), repr=False)
    """Of its study, or of an image of it."""
    reading: Reading
    said_at: datetime | None = None
    is_of_image: bool = False
    """It is about an image of the study, and another one about another."""


@dataclass(slots=True)
class Skipped:
    """How many reports say nothing that counts."""

    not_final: int = 0
    own: int = 0


@dataclass(frozen=True, slots=True)
class Readers:
    """What every format needs: the rules, and a count of what is left out."""

    rules: Reader
    skipped: Skipped = field(default_factory=Skipped)


WITHDRAWN = Reading(Said.NOT_STATED, "withdrawn")


class MistakeError(ValueError):
    """What is wrong in a file, without a value of it."""


def decoded(content: bytes) -> str:
    """Text in UTF-8, else in Latin-1, which no byte is outside of."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def accessions(numbers: Iterable[str]) -> tuple[frozenset[str], ...]:
    """Digests of numbers that may be an Accession Number, in their order; of none an identifier is kept."""
    return tuple(accession_keys(number) for number in dict.fromkeys(numbers) if number.strip())


_DIGITS = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)(?:[T ]?(\d\d):?(\d\d)(?::?(\d\d))?)?(?:\.\d+)?\s*(Z|[+-]\d\d:?\d\d)?")


def instant(text: str) -> datetime | None:
    """A date, or a date and time, of HL7, DICOM, FHIR or a table; without an offset it counts as UTC."""
    found = _DIGITS.match(text.strip())
    if found is None:
        return None
    zone = found[7]
    offset = UTC
    if zone and zone != "Z":
        minutes = int(zone[1:3]) * 60 + int(zone[-2:])
        offset = timezone(timedelta(minutes=minutes if zone[0] == "+" else -minutes))
    try:
        year, month, day, hour, minute, second = (int(found[place] or 0) for place in range(1, 7))
        return datetime(year, month, day, hour, minute, second, tzinfo=offset).astimezone(UTC)
    except ValueError:
        return None


def worst(reports: Sequence[Report]) -> Report:
    """Of several reports that are about images of one study: present, else not stated, else absent."""
    order = (Said.PRESENT, Said.NOT_STATED, Said.ABSENT)
    first = min(reports, key=lambda report: order.index(report.reading.said))
    latest = max((report.said_at for report in reports if report.said_at), default=None)
    return replace(first, said_at=latest)
