"""Each rule: what it cries at, what it lets pass, and that it says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import typer.main
from scipy import stats

from cxr_node.cli.node import app
from cxr_node.config.monitoring import AlertsSection
from cxr_node.web.monitoring import alerts, habits
from cxr_node.web.monitoring.alerts import Abstention, Alert, Rule, Shares, Silence, Snapshot, evaluate, tail

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)  # a Monday
MIB = 1024 * 1024


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def cried(config: AlertsSection | None = None, **seen: Any) -> set[str]:
    return {alert.key for alert in evaluate(Snapshot(**seen), config or AlertsSection(), NOW)}


SILENCE = Silence(since=ago(hours=3), silent_s=3 * 3600.0, gap_s=30 * 60.0)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "down": ({"down_since": {"pacs": ago(minutes=10)}}, "destination-down:pacs"),
    "quiet": ({"silences": {"XR1": SILENCE}}, "sender-quiet:XR1"),
    "an image waits": ({"image_since": ago(minutes=5)}, "waiting:work"),
    "a result waits": ({"results_since": {"pacs": ago(minutes=5)}}, "waiting:pacs"),
    "a study waits": ({"study_due_at": ago(minutes=5)}, "waiting:study"),
    "dead": ({"dead": {"fault": 1}}, "dead:fault"),
    "a study failed": ({"studies_failed": 1}, "dead:study"),
    "stopped": ({"stopped_since": {"work": ago(minutes=1)}}, "stopped:work"),
    "rejections": (
        {"rejections": {"XR1": Shares(few=10, of=50, few_before=20, of_before=1000)}},
        "rejections:XR1",
    ),
    "too many uncertain": ({"abstentions": {"p 1": Abstention(few=60, of=100, band=(0.1, 0.2))}}, "abstention:p 1"),
    "too few uncertain": ({"abstentions": {"p 1": Abstention(few=0, of=400, band=(0.1, 0.2))}}, "abstention:p 1"),
    "drift": ({"drifts": {"p 1": "logit of XR1"}}, "drift:p 1"),
    "disk": ({"free_bytes": {"spool": 1999 * MIB}, "watermark_bytes": 1000 * MIB}, "disk:spool"),
    "certificate": ({"certificate_ends": {"listen": ago(days=-29)}}, "certificate:listen"),
    "certificate ended": ({"certificate_ends": {"listen": ago(days=1)}}, "certificate:listen"),
    "audit": ({"audit_since": {"audit": ago(hours=1)}}, "audit-backlog:audit"),
}
WELL: dict[str, dict[str, Any]] = {
    "nothing": {},
    "down for a moment": {"down_since": {"pacs": ago(minutes=9)}},
    "within five gaps": {"silences": {"XR1": Silence(since=ago(hours=2), silent_s=7200, gap_s=1800)}},
    "what waits for who is down": {"results_since": {"pacs": ago(hours=5)}, "down_since": {"pacs": ago(minutes=1)}},
    "a study within its time": {"study_due_at": ago(minutes=-1)},
    "a study that is late by a moment": {"study_due_at": ago(minutes=4)},
    "restarted": {"stopped_since": {"work": ago(seconds=30)}},
    "too few images": {"rejections": {"XR1": Shares(few=10, of=19, few_before=2, of_before=1000)}},
    "too few before": {"rejections": {"XR1": Shares(few=10, of=50, few_before=0, of_before=99)}},
    "chance": {"rejections": {"XR1": Shares(few=2, of=25, few_before=20, of_before=1000)}},
    "always rejected": {"rejections": {"CT1": Shares(few=100, of=100, few_before=990, of_before=1000)}},
    "within the band": {"abstentions": {"p 1": Abstention(few=21, of=100, band=(0.1, 0.2))}},
    "no band": {"abstentions": {"p 1": Abstention(few=100, of=100, band=None)}},
    "room": {"free_bytes": {"spool": 2000 * MIB}, "watermark_bytes": 1000 * MIB},
    "a certificate for a month": {"certificate_ends": {"listen": ago(days=-31)}},
}


@pytest.mark.parametrize(("seen", "key"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said(seen: dict[str, Any], key: str) -> None:
    assert cried(**seen) == {key}


@pytest.mark.parametrize("seen", WELL.values(), ids=WELL.keys())
def test_what_is_well_is_not(seen: dict[str, Any]) -> None:
    assert cried(**seen) == set()


def test_every_rule_has_a_case() -> None:
    assert {key.partition(":")[0] for _, key in WRONG.values()} == {rule.value for rule in Rule}


def test_thresholds_are_the_configuration_s() -> None:
    config = AlertsSection(destination_down_s=60, abstention_band=(0.5, 0.7), disk_watermarks=1, quiet_gaps=10)
    assert cried(config, down_since={"pacs": ago(minutes=1)}) == {"destination-down:pacs"}
    assert cried(config, abstentions={"p 1": Abstention(few=60, of=100, band=(0.1, 0.2))}) == set()
    assert cried(config, free_bytes={"spool": 1999 * MIB}, watermark_bytes=1000 * MIB) == set()
    assert cried(config, silences={"XR1": SILENCE}) == set()


def said() -> Iterator[Alert]:
    for seen, _ in WRONG.values():
        yield from evaluate(Snapshot(**seen), AlertsSection(), NOW)


def test_every_alert_says_what_to_type_or_where_to_look() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # a group
    for alert in said():
        assert alert.subject in alert.sentence or alert.rule in (Rule.WAITING, Rule.DISK, Rule.AUDIT_BACKLOG)
        assert set(re.findall(r"cxr-node ([a-z]+)", alert.advice)) <= commands


@pytest.mark.parametrize(
    ("few", "of", "share"),
    [(0, 10, 0.1), (3, 10, 0.1), (10, 10, 0.5), (60, 100, 0.2), (7, 5000, 0.001), (1500, 17000, 0.1)],
)
def test_the_tail_is_the_binomial_distribution_s(few: int, of: int, share: float) -> None:
    assert tail(few, of, share) == pytest.approx(stats.binom.sf(few - 1, of, share), rel=1e-9)


def test_the_tail_at_its_edges() -> None:
    assert (tail(0, 10, 0.0), tail(1, 10, 0.0), tail(10, 10, 1.0)) == (1.0, 0.0, 1.0)


ZONE = ZoneInfo("Europe/Berlin")


def weeks(*, every_min: int, hours: range = range(8, 17), weekdays: range = range(5), days: int = 14) -> list[int]:
    """Minutes in which a device sends that works those hours, in local time, up to NOW."""
    begin = NOW.astimezone(ZONE).replace(hour=0, minute=0) - timedelta(days=days)
    moments = [begin + timedelta(minutes=minute) for minute in range(0, days * 1440, every_min)]
    kept = [at for at in moments if at.hour in hours and at.weekday() in weekdays]
    return [int(at.timestamp()) // 60 for at in kept]


def test_a_device_that_works_by_day_is_not_missed_by_night() -> None:
    habit = habits.learned(weeks(every_min=10), ZONE, NOW)
    assert habit is not None
    assert habit.gap_s == 600
    friday = datetime(2026, 2, 27, 16, 50, tzinfo=ZONE)
    monday = datetime(2026, 3, 2, 8, 20, tzinfo=ZONE)
    assert habit.usual_s(friday, monday) == 30 * 60, "ten minutes of Friday and twenty of Monday"
    assert habit.usual_s(friday, friday + timedelta(hours=12)) == 10 * 60


def test_views_of_one_patient_do_not_make_the_gap_short() -> None:
    minutes = sorted(minute + step for minute in weeks(every_min=30) for step in (0, 1))
    habit = habits.learned(minutes, ZONE, NOW)
    assert habit is not None
    assert habit.gap_s == 29 * 60


@pytest.mark.parametrize(
    "minutes", [[], weeks(every_min=10, days=6), weeks(every_min=540)], ids=["none", "new", "rare"]
)
def test_of_a_sender_that_is_not_known_yet_nothing_is_said(minutes: list[int]) -> None:
    assert habits.learned(minutes, ZONE, NOW) is None


def test_an_alert_is_known_by_its_rule_and_subject() -> None:
    one, other = (next(iter(evaluate(Snapshot(dead={"fault": number}), AlertsSection(), NOW))) for number in (1, 2))
    assert one == other
    assert len({one, other}) == 1
    assert alerts.UNLIKELY < 0.001
