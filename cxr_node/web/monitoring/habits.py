"""What is usual of each sender: in which hours it sends, and how long its gaps are. Arithmetic over minutes; pure.

A gap is measured in usual time: nights and weekends of a device that rests then do not count. The usual gap is the one
that 95 of 100 are not longer than: the mean would let a burst of views of one patient make every pause an alarm.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

LEARNED_DAYS = 14.0
_LEAST_DAYS = 7
_LEAST_GAPS = 50
_QUANTILE = 0.95
_MINUTE_S = 60
_SATURDAY = 5

Hour = tuple[bool, int]
"""On a weekend or not, and which hour of the day, in the zone of the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """One sender's."""

    hours: frozenset[Hour]
    """In which it sent something on at least half of the days."""
    gap_s: float
    zone: tzinfo

    def usual_s(self, begin: datetime, end: datetime) -> float:
        """Seconds of usual hours between two moments."""
        total, at = 0.0, begin.astimezone(UTC)
        while at < end:
            following = min(end, at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1))
            if _hour(at.astimezone(self.zone)) in self.hours:
                total += (following - at).total_seconds()
            at = following
        return total


def learned(minutes: Sequence[int], zone: tzinfo, now: datetime) -> Habit | None:
    """Learn from the minutes since 1970 in which a sender sent something; None where they are too few.

    Parameters
    ----------
    minutes : ascending, of the last LEARNED_DAYS
    """
    moments = [datetime.fromtimestamp(minute * _MINUTE_S, UTC) for minute in minutes]
    if len(moments) <= _LEAST_GAPS or now - moments[0] < timedelta(days=_LEAST_DAYS):
        return None
    hours = _usual_hours(moments, zone, now)
    habit = Habit(hours=hours, gap_s=0.0, zone=zone)
    inside = [moment for moment in moments if _hour(moment.astimezone(zone)) in hours]
    gaps = sorted(habit.usual_s(one, other) for one, other in itertools.pairwise(inside))
    if len(gaps) < _LEAST_GAPS:
        return None
    return Habit(hours=hours, gap_s=max(float(_MINUTE_S), gaps[int(_QUANTILE * (len(gaps) - 1))]), zone=zone)


def _usual_hours(moments: Sequence[datetime], zone: tzinfo, now: datetime) -> frozenset[Hour]:
    sent: defaultdict[Hour, set[date]] = defaultdict(set)
    for moment in moments:
        local = moment.astimezone(zone)
        sent[_hour(local)].add(local.date())
    first, last = moments[0].astimezone(zone).date(), now.astimezone(zone).date()
    days = Counter(_is_weekend(first + timedelta(days=number)) for number in range((last - first).days + 1))
    return frozenset(hour for hour, dates in sent.items() if 2 * len(dates) >= days[hour[0]])


def _hour(local: datetime) -> Hour:
    return _is_weekend(local.date()), local.hour


def _is_weekend(day: date) -> bool:
    return day.weekday() >= _SATURDAY
