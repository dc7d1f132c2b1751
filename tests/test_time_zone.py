"""Zones of hosts that tell theirs in every way, and hours that come twice or never."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from cxr_node import times
from cxr_node.config import loader
from cxr_node.diagnose import check
from cxr_node.errors import ConfigError

NOWHERE = Path("/nowhere/at/all")
DATABASE = Path("/usr/share/zoneinfo")
BERLIN = ZoneInfo("Europe/Berlin")
WINTER, SUMMER = datetime(2024, 1, 15, tzinfo=UTC), datetime(2024, 7, 15, tzinfo=UTC)


def hours(of: tzinfo) -> tuple[float, float]:
    return tuple(when.astimezone(of).utcoffset() / timedelta(hours=1) for when in (WINTER, SUMMER))  # type: ignore[return-value, operator]


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("Europe/Berlin", (1, 2)),
        (":Europe/Berlin", (1, 2)),
        ("JST-9", (9, 9)),
        ("CET-1CEST,M3.5.0,M10.5.0/3", (1, 2)),
        ("<+0545>-5:45", (5.75, 5.75)),
        ("", (0, 0)),
        ("UTC0", (0, 0)),
        ("rubbish", (0, 0)),
        ("../../../etc/passwd", (0, 0)),
        ("JST-9\n", (0, 0)),
    ],
)
def test_the_variable_is_read_as_the_c_library_does(variable: str, expected: tuple[float, float]) -> None:
    assert hours(times.find(variable, NOWHERE, NOWHERE)) == expected


@pytest.mark.skipif(not (DATABASE / "Asia" / "Tokyo").exists(), reason="no zone database: apt-get install tzdata")
def test_the_files_are_read_where_there_is_no_variable(tmp_path: Path) -> None:
    link, copy, text = tmp_path / "link", tmp_path / "copy", tmp_path / "timezone"
    link.symlink_to(DATABASE / "Asia" / "Tokyo")
    shutil.copy(DATABASE / "Europe" / "Berlin", copy)
    text.write_text("America/New_York\n")
    assert times.name_of(times.find(None, link, text)) == "Asia/Tokyo"
    assert hours(times.find(None, copy, text)) == (1, 2)
    assert times.name_of(times.find(None, NOWHERE, text)) == "America/New_York"
    assert times.find(None, NOWHERE, NOWHERE) is UTC
    assert hours(times.find(str(DATABASE / "Asia" / "Tokyo"), copy, text)) == (9, 9)
    text.write_bytes(b"\xff\xfe")
    assert times.find(None, text, text) is UTC


@pytest.mark.parametrize("name", ["Europe/Berlni", "", "/etc/localtime", "../x", "Europe", "CET-1CEST"])
def test_a_zone_that_does_not_exist_is_refused_with_its_key(name: str) -> None:
    with pytest.raises(ConfigError, match=r"results\.time_zone.*Europe/Berlin"):
        loader.parse({"spool": {"path": "."}, "results": {"time_zone": name}})


def at(hour: int, minute: int, day: int = 27) -> datetime:
    """In October 2024, whose 27th has two hours from 2 to 3 in Berlin."""
    return datetime(2024, 10, day, hour, minute, tzinfo=UTC)


STUDY = datetime(2024, 10, 27, 2, 30)  # 00:30 or 01:30 UTC


@pytest.mark.parametrize(
    ("study", "received", "expected"),
    [
        (STUDY, at(0, 31), 2),  # the second half past two has not come yet
        (STUDY, at(1, 31), 1),
        (STUDY, at(9, 0), 1),
        (STUDY, at(0, 21), 2),  # a clock that is nine minutes fast
        (STUDY, at(0, 15), None),
        (STUDY.replace(hour=4), at(3, 35), 1),
        (STUDY.replace(day=26), at(9, 0), 2),
        (datetime(2024, 3, 31, 2, 30), at(9, 0), 2),  # an hour that never was
        (datetime(2024, 10, 27, 14, 0), at(12, 1), None),  # read in another zone
        (datetime(1, 1, 1), at(9, 0), 0),  # before there were zones: only to the minute
        (datetime(9999, 12, 31, 23, 59), at(9, 0), None),
        (None, at(0, 59), 2),
        (None, at(1, 1), 1),
    ],
)
def test_the_offset_is_that_of_the_study(study: datetime | None, received: datetime, expected: int | None) -> None:
    found = times.offset(BERLIN, study, received)
    assert (found if found is None else found // timedelta(hours=1)) == expected


@pytest.mark.parametrize(
    ("name", "found", "said", "warning"),
    [
        ("Europe/Berlin", UTC, "Europe/Berlin (results.time_zone)", False),
        ("UTC", UTC, "UTC (results.time_zone)", False),
        (None, ZoneInfo("Asia/Tokyo"), "this host's zone, Asia/Tokyo", False),
        (None, UTC, "write results.time_zone", True),
        (None, ZoneInfo("Europe/London"), "this host's zone, Europe/London", False),
    ],
)
def test_check_says_which_zone_counts(
    name: str | None, found: tzinfo, said: str, warning: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(times, "_host", lambda: found)
    settings = loader.parse({"spool": {"path": "."}, "results": {"time_zone": name}})
    line = check._time_zone(settings)
    assert said in line.figure
    assert (line.ok, line.warning) == (True, warning)
