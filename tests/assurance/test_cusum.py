"""Run lengths and chances are those of the chain; simulated sums agree with what was solved for."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_node.assurance.cusum import Chart


@pytest.mark.parametrize(("rate", "falls"), [(0.1, False), (0.1, True), (0.5, False), (0.03, False)])
def test_the_mean_run_length_is_that_of_simulated_sums(rate: float, falls: bool) -> None:
    chart = Chart.of(rate, falls=falls)
    level = chart.level(200.0)
    rng = np.random.default_rng(5)
    runs = []
    for events in rng.random((600, 4000)) < rate:
        levels = chart.levels(events.tolist(), 10**6)
        runs.append(next((place + 1 for place, reached in enumerate(levels) if reached >= level), 4000))
    assert np.mean(runs) == pytest.approx(chart.run_length(level), rel=0.15)
    assert chart.run_length(level - 1) < 200.0 <= chart.run_length(level)


def test_what_a_chart_could_have_seen_is_seen_in_nine_of_ten() -> None:
    chart = Chart.of(0.08)
    level = chart.level(500 / 1e-4)
    least = chart.least_rate(level, 500)
    assert least is not None and 0.12 < least < 0.20
    events = np.random.default_rng(3).random((400, 500)) < least
    seen = [max(chart.levels(run, level)) >= level for run in events.tolist()]
    assert 0.86 < np.mean(seen) < 0.97
    assert chart.chance(np.array([0.08]), level, 500)[0] < 2e-4


def test_a_share_that_falls_is_watched_too() -> None:
    chart = Chart.of(0.3, falls=True)
    assert chart.falls and chart.event < 0 < chart.other
    assert max(chart.levels([False] * 40, 10**6)) > chart.level(1000.0)
    assert Chart.of(0.005, falls=True).least_rate(10_000, 100) is None, "a hundred films cannot show it"


def test_a_sum_comes_back_once_the_cause_has_gone() -> None:
    chart = Chart.of(0.1)
    level = chart.level(1e6)
    levels = chart.levels([True] * 300 + [False] * 300, level)
    assert levels[299] == level and levels[-1] == 0
