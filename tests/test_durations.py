"""Durations and dates as operators write them, and one sentence for what is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cxr_node import times

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("2h", 7200), ("7d", 604_800), ("4w", 2_419_200), (" 1.5 H ", 5400), ("10 min", 600)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert times.duration(text) == timedelta(seconds=seconds)
    assert times.moment(text, NOW) == NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "15", "m", "-1h", "1y", "1h30", "15m;", "١٥m", "1e9d"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="15m, 2h, 7d"):
        times.duration(text)


def test_a_date_is_utc_as_the_tables_are_and_until_has_all_of_a_day() -> None:
    day = datetime(2026, 6, 30, tzinfo=UTC)
    assert times.moment("2026-06-30", NOW) == day
    assert times.moment("2026-06-30", NOW, whole_day=True) == day + timedelta(days=1)
    assert times.moment("2026-06-30 16:09:08", NOW, whole_day=True) == day.replace(hour=16, minute=9, second=8)
    assert times.moment("2026-06-30T16:00+02:00", NOW) == day.replace(hour=14)
    assert times.moment("999999999d", NOW) < day


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2026-02-30", "30.06.2026", "9999-12-31T23:00-23:59"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; write how long ago"):
        times.moment(text, NOW, whole_day=True)


@pytest.mark.parametrize(
    ("seconds", "said"), [(-5, "0 s"), (45, "45 s"), (190, "3 min 10 s"), (7500, "2 h 5 min"), (273_600, "3 d 4 h")]
)
def test_an_age_is_said_in_two_units(seconds: float, said: str) -> None:
    assert times.age(timedelta(seconds=seconds)) == said
