"""The queue of docs/triage.md: its means are the formula's, a bound gives the tail back, and the page has its table."""

from __future__ import annotations

from math import inf
from pathlib import Path

import numpy as np
import pytest

from benchmarks import worklist

PAGE = Path(__file__).parent.parent / "docs" / "triage.md"


@pytest.mark.parametrize("load", [0.5, 0.8])
@pytest.mark.parametrize("marked", [0.1, 0.4])
def test_the_means_are_those_of_the_formula(load: float, marked: float) -> None:
    in_order, first, others = worklist.mean_waits(load, marked, 3.0)
    plain = worklist.simulate(load, marked, 150_000, 1, reorders=False)
    ranked = worklist.simulate(load, marked, 150_000, 1, reorders=True)
    assert plain.marked.mean() == pytest.approx(in_order, rel=0.1)
    assert plain.unmarked.mean() == pytest.approx(in_order, rel=0.1)
    assert ranked.marked.mean() == pytest.approx(first, rel=0.1)
    assert ranked.unmarked.mean() == pytest.approx(others, rel=0.1)


def test_reordering_takes_from_one_what_it_gives_the_other() -> None:
    """The order of reading changes nobody's reading time, so the mean of all stays (Kleinrock's law)."""
    means = [
        np.concatenate([waits.marked, waits.unmarked]).mean()
        for waits in (
            worklist.simulate(0.9, 0.25, 100_000, 2, reorders=reorders, bound_min=bound_min)
            for reorders, bound_min in ((False, inf), (True, inf), (True, 60.0))
        )
    ]
    assert means[1:] == pytest.approx(means[:1] * 2, rel=0.02)


def test_no_film_is_read_twice_or_never_and_the_oldest_over_the_bound_is_next() -> None:
    waits = worklist.simulate(0.9, 0.25, 20_000, 3, reorders=True, bound_min=0.0)
    plain = worklist.simulate(0.9, 0.25, 20_000, 3, reorders=False)
    assert np.array_equal(waits.marked, plain.marked)  # a bound of nothing is the order of arrival
    assert np.array_equal(waits.unmarked, plain.unmarked)
    assert len(waits.marked) + len(waits.unmarked) == 18_000
    assert min(waits.marked.min(), waits.unmarked.min()) >= 0


def test_the_page_has_the_table_that_the_command_prints() -> None:
    assert worklist.table() in PAGE.read_text("utf-8")
