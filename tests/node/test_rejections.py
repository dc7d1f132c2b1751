"""A flood leaves one line at once and one a minute; all of it is counted."""

from __future__ import annotations

import logging

import pytest

from cxr_node.node.network import rejections
from cxr_node.node.network.rejections import Cause, Refusal, Refusals


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rejections, "time", clock)
    return clock


@pytest.fixture
def told() -> list[Refusal]:
    return []


def of(host: str = "10.0.0.1", cause: Cause = Cause.TLS, detail: str = "first") -> Refusal:
    return Refusal(cause=cause, host=host, ae_title="XR1", detail=detail)


def test_the_first_is_told_at_once_and_the_rest_of_its_minute_in_one_line(
    clock: Clock, told: list[Refusal], caplog: pytest.LogCaptureFixture
) -> None:
    all_of_them = Refusals(told.append)
    for _ in range(413):
        all_of_them.add(of())
    assert told == [of()]
    clock.now += rejections.MINUTE_S - 1
    all_of_them.turn()
    assert len(told) == 1
    clock.now += 1
    all_of_them.turn()
    assert [(one.times, one.detail) for one in told] == [(1, "first"), (412, "… and 412 more")]
    assert [record.getMessage() for record in caplog.records] == [
        "refused peer=10.0.0.1 ae='XR1' cause=tls first",
        "refused peer=10.0.0.1 ae='XR1' cause=tls … and 412 more",
    ]


def test_a_flood_that_goes_on_has_one_line_a_minute(clock: Clock, told: list[Refusal]) -> None:
    all_of_them = Refusals(told.append)
    for _ in range(600):
        clock.now += 1
        all_of_them.add(of())
        all_of_them.turn()
    assert 10 <= len(told) <= 11
    clock.now += 2 * rejections.MINUTE_S
    all_of_them.turn()
    all_of_them.turn()
    clock.now += 2 * rejections.MINUTE_S
    all_of_them.turn()
    all_of_them.turn()
    all_of_them.add(of(detail="again"))  # it was quiet for a minute: told at once
    assert told[-1].detail == "again"
    assert all_of_them.totals == {Cause.TLS: 601}


def test_other_peers_and_causes_have_lines_of_their_own(clock: Clock, told: list[Refusal]) -> None:
    all_of_them = Refusals(told.append)
    for refusal in (of(), of("10.0.0.2"), of(cause=Cause.HOST), of(), of("10.0.0.2")):
        all_of_them.add(refusal)
    assert told == [of(), of("10.0.0.2"), of(cause=Cause.HOST)]


def test_a_million_addresses_are_told_of_as_one(
    clock: Clock, told: list[Refusal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejections, "MAX_WINDOWS", 10)
    all_of_them = Refusals(told.append)
    for number in range(1000):
        all_of_them.add(of(f"2001:db8::{number:x}"))
    assert [one.host for one in told[10:]] == [rejections.OTHERS]
    all_of_them.close()
    assert told[-1].times == 989
    assert all_of_them.totals == {Cause.TLS: 1000}


def test_totals_are_told_once_an_hour_and_at_the_end(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cxr_node")
    all_of_them = Refusals()
    all_of_them.add(of())
    all_of_them.add(of(cause=Cause.TOO_SLOW))
    clock.now += rejections.TOTALS_EVERY_S
    all_of_them.turn()
    assert caplog.records[-1].getMessage() == "refused or ended since the start tls=1 too-slow=1"
    lines = len(caplog.records)
    all_of_them.close()
    assert len(caplog.records) == lines  # nothing new
