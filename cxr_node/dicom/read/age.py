"""How old the patient was at the examination: every piece of evidence in the header, and whether the pieces agree.

PS3.5 6.2 (AS, DA, DT), PS3.3 C.7.2.2, C.7.1.1. No birth date leaves this module: an age is no identifier, that is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

MAX_AGE_YEARS = 130
AGE, BIRTH_DATE = "Patient's Age", "Patient's Birth Date"
_AGE = re.compile(r"\s*(\d{1,4})\s*([DWMY])[A-Z]*\.?\s*")
_PER_YEAR = {"D": 365, "W": 365 / 7, "M": 12, "Y": 1}
_UNITS = {"D": "day", "W": "week", "M": "month", "Y": "year"}
_COMPACT = re.compile(r"(\d{4})(?:(\d{2})(?:(\d{2})(?:\d{2,6})?)?)?(?!\d)")
_YEAR_FIRST = re.compile(r"(\d{4})[.\-/ ](\d{1,2})(?:[.\-/ ](\d{1,2}))?(?!\d)")
_DAY_FIRST = re.compile(r"(\d{1,2})[.\-/](\d{1,2})[.\-/](\d{4})(?!\d)")
"""DA, cut after year or month or with a time behind; with dots, as ACR-NEMA 2 wrote it (PS3.5 6.2); as people write."""
_PLACEHOLDERS = frozenset({date(1899, 12, 30), date(1899, 12, 31), date(1900, 1, 1), date(1901, 1, 1)})
"""Day 0 or 1 of spreadsheets and databases: written where a date was not known. Older ones give no human age."""
_FIRST_RADIOGRAPH = date(1895, 11, 8)
_EXAMINED = (
    "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepEndDate", "ScheduledProcedureStepStartDate",
    "InstanceCreationDate", "DateOfSecondaryCapture", "StudyArrivalDate", "StudyCompletionDate",
    "StudyVerifiedDate", "StudyReadDate", "AdmittingDate",
)  # fmt: skip
"""What tells when the radiograph was taken, the nearest to it first."""
_SAME_YEARS = (1 / 12, 1.0)
"""Ages apart by no more than half of the older one, but by a month at least and a year at most, are the same: Patient's
Age is cut to whole units, and was often right when the examination was ordered."""
_MONTHS_FROM_DAYS, _YEARS_FROM = 31, 2.0

Text = Callable[[str], str]
"""Tells an attribute's text by its keyword; "" where it is absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One age, and where it stands.

    `years` : at the examination, not rounded; of Patient's Age the least that it can mean
    `unit_years` : how much more than `years` it can mean
    `words` : for people: "74 years", "3 days"
    `place` : the attribute that it was read from
    """

    years: float
    unit_years: float
    words: str
    place: str


def evidence(text: Text) -> tuple[Evidence, ...]:
    """List what the header credibly says of the age, Patient's Age first.

    Ages beyond any human's are placeholders (999Y), and so is an age of nothing (000Y) where the birth date says
    otherwise; so are the first days of calendars.
    """
    stated, counted = _stated(text("PatientAge")), _counted(text)
    if stated is not None and counted is not None and stated.years == 0 and not _agree(stated, counted):
        return (counted,)
    return tuple(found for found in (stated, counted) if found is not None)


def contradiction(text: Text) -> tuple[Evidence, Evidence] | None:
    """Patient's Age and the age by the birth date where both are there and cannot both be right."""
    stated, counted = _stated(text("PatientAge")), _counted(text)
    if stated is None or counted is None or _agree(stated, counted):
        return None
    return stated, counted


def _agree(one: Evidence, other: Evidence) -> bool:
    first, second = sorted((one, other), key=lambda found: found.years)
    least, most = _SAME_YEARS
    gap = second.years - first.years - first.unit_years
    return gap <= min(most, max(least, second.years / 2))


def _stated(value: str) -> Evidence | None:
    """AS, and the forms in which it is met: "3Y", "003y", "3 years"."""
    found = _AGE.fullmatch(value.split("\\")[0].upper())
    if found is None:
        return None
    count, unit = int(found[1]), found[2]
    years = count / _PER_YEAR[unit]
    if years > MAX_AGE_YEARS:
        return None
    return Evidence(years=years, unit_years=1 / _PER_YEAR[unit], words=_number(count, _UNITS[unit]), place=AGE)


def _counted(text: Text) -> Evidence | None:
    """Age between birth date and examination; of several dates of the latter the first that gives one."""
    born = _date(text("PatientBirthDate"))
    if born is None or born in _PLACEHOLDERS:
        return None
    for seen in _examined(text):
        years = _years_between(born, seen)
        if 0 <= years <= MAX_AGE_YEARS:
            return Evidence(years=years, unit_years=0.0, words=_words(born, seen, years), place=BIRTH_DATE)
    return None


def _examined(text: Text) -> Iterator[date]:
    for keyword in _EXAMINED:
        seen = _date(text(keyword))
        if seen is not None and seen > _FIRST_RADIOGRAPH and seen not in _PLACEHOLDERS:
            yield seen


def _years_between(born: date, seen: date) -> float:
    """Completed years by birthdays, and the days since the last one."""
    completed = seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))
    last_birthday = _birthday(born, born.year + completed) if completed >= 0 else seen
    return completed + (seen - last_birthday).days / 366


def _birthday(born: date, year: int) -> date:
    """A birthday on 29 February falls on 1 March of other years."""
    try:
        return born.replace(year=year)
    except ValueError:
        return date(year, 3, 1)


def _words(born: date, seen: date, years: float) -> str:
    """Years, and of small children months or days."""
    days = (seen - born).days
    if years >= _YEARS_FROM:
        return _number(int(years), "year")
    if days < _MONTHS_FROM_DAYS:
        return _number(days, "day")
    months = 12 * (seen.year - born.year) + seen.month - born.month - (seen.day < born.day)
    return _number(max(months, 1), "month")


def _number(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _date(value: str) -> date | None:
    """DA (PS3.5 6.2) and what stands in its place; the middle of a year or month where the rest is not given."""
    text = value.split("\\")[0].strip(" \0")
    try:
        if found := _YEAR_FIRST.match(text) or _COMPACT.match(text):
            year, month, day = (int(part or 0) for part in found.groups())
            return date(year, month or 7, day or (15 if month else 1))
        if found := _DAY_FIRST.match(text):
            day, month, year = (int(part) for part in found.groups())
            return date(year, month, day) if month <= 12 else date(year, day, month)
    except ValueError:
        return None
    return None
