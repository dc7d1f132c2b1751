"""The times of a result: when its source was received, by the clock that the study's own times were read from.

Timezone Offset From UTC holds for every date and time of an object, those that were taken over among them. So it stands
there where the source tells it, or where the study's times were read in the zone that is configured; in both cases
the moment is told by the same offset. Must not know a clock or a host. PS3.3 C.12.1.1.8; PS3.5 6.2 (DA, TM, DT).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from pydicom import Dataset

from cxr_node import time_zone
from cxr_node.dicom import carry

_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"(\d\d)(?:(\d\d)(?:(\d\d)(?:\.\d{1,6})?)?)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When the source was received."""

    at: datetime
    offset: str | None
    """What Timezone Offset From UTC says; None: nothing, for it would not be true of the study's times."""
    is_told: bool
    """The source tells the offset itself."""

    @property
    def identity(self) -> str:
        """What of it does not follow from the source and its receipt: part of UIDs, for it is part of the bytes."""
        if self.is_told:
            return "offset of the source"
        return f"offset {self.at:%z} {'stated' if self.offset is not None else 'not stated'}"


def moment_of(source: Dataset, received_at: datetime, zone: tzinfo) -> Moment:
    """Tell the moment of receipt (aware) by the source's offset from UTC, else by that of its study in a zone."""
    told = carry.utc_offset(source)
    if told:
        minutes = int(f"{told[0]}1") * (60 * int(told[1:3]) + int(told[3:]))
        at = received_at.astimezone(time_zone.fixed(timedelta(minutes=minutes)))
        return Moment(at=at, offset=told, is_told=True)
    ahead = time_zone.offset(zone, _began(source), received_at)
    if ahead is None:
        return Moment(at=received_at.astimezone(zone), offset=None, is_told=False)
    at = received_at.astimezone(time_zone.fixed(ahead))
    return Moment(at=at, offset=f"{at:%z}", is_told=False)


def stamp(dataset: Dataset, moment: Moment) -> None:
    """Date and time of content and series, and their offset from UTC unless that was taken over from the source."""
    dataset.ContentDate = dataset.SeriesDate = f"{moment.at:%Y%m%d}"
    dataset.ContentTime = dataset.SeriesTime = f"{moment.at:%H%M%S.%f}"
    if moment.offset is not None and not moment.is_told:
        dataset.TimezoneOffsetFromUTC = moment.offset


def _began(source: Dataset) -> datetime | None:
    """Study Date and Study Time as they stand there: naive, the day's begin where there is no time; None: no date."""
    day = carry.raw_text(source, "StudyDate").decode("ascii", "replace")
    time = _TIME.fullmatch(carry.raw_text(source, "StudyTime").decode("ascii", "replace"))
    if _DATE.fullmatch(day) is None:
        return None
    hour, minute, second = (int(part or 0) for part in time.groups()) if time else (0, 0, 0)
    try:
        return datetime(int(day[:4]), int(day[4:6]), int(day[6:]), hour, minute, min(second, 59))
    except ValueError:
        return None
