"""Figures of two profiles on the same films: counted by hand, and intervals that hold what they promise."""

from __future__ import annotations

import random

import pytest

from cxr_node.assurance import side_by_side
from cxr_node.assurance.side_by_side import Difference

YES, NO, NONE, OUT = "PNEUMONIA", "NORMAL", "UNCERTAIN", "REJECTED"


def test_pairs_are_counted_by_verdict_and_by_sender() -> None:
    pairs = [((YES, YES), "A"), ((YES, NO), "A"), ((NO, NO), "B"), ((NO, NONE), "B"), ((NONE, OUT), "B")]
    told = side_by_side.figures(pairs)
    assert (told.films, told.agreement.count, told.agreement.total) == (5, 2, 5)
    assert told.cross == {(YES, YES): 1, (YES, NO): 1, (NO, NO): 1, (NO, NONE): 1, (NONE, OUT): 1}
    assert {sender: (rate.count, rate.total) for sender, rate in told.by_sender.items()} == {"A": (1, 2), "B": (1, 3)}
    assert (told.contradictions.count, told.contradictions.total) == (1, 3), "who has no answer contradicts nobody"


def test_beside_labels_no_answer_is_never_right() -> None:
    labelled = [((YES, YES), True), ((NONE, YES), True), ((NO, YES), True), ((YES, OUT), True)]
    labelled += [((NO, NO), False), ((NO, NONE), False), ((YES, NO), False)]
    told = side_by_side.beside_labels(labelled)
    assert [(told.live[name].count, told.live[name].total) for name in ("sensitivity", "specificity", "right")] == [
        (2, 4),
        (2, 3),
        (4, 7),
    ]
    assert [told.candidate[name].count for name in ("sensitivity", "specificity", "right")] == [3, 2, 5]
    difference = told.differences["sensitivity"]
    assert (difference.candidate_alone, difference.live_alone, difference.total) == (2, 1, 4)
    assert difference.value == pytest.approx(0.25)
    low, high = difference.interval
    assert low < 0.25 < high


def test_equal_verdicts_say_how_much_they_may_differ_all_the_same() -> None:
    low, high = Difference(0, 0, 100).interval
    assert low == -high and 0.0 < high < 0.04
    assert Difference(0, 0, 0).value is None
    assert Difference(0, 0, 0).interval == (-1.0, 1.0)
    assert str(Difference(0, 0, 0)) == "-"


def test_the_interval_holds_the_truth_at_least_as_often_as_it_says() -> None:
    """Seeded: 300 films, the candidate right alone of 6 %, the live profile alone of 3 %."""
    dice, films, held = random.Random(19), 300, 0
    for _ in range(400):
        sides = [dice.random() for _ in range(films)]
        better, worse = sum(side < 0.06 for side in sides), sum(0.06 <= side < 0.09 for side in sides)
        low, high = Difference(better, worse, films).interval
        truth = (better + worse) * (2.0 * (2.0 / 3.0) - 1.0) / films  # given how many they differ about
        held += low <= truth <= high
    assert held >= 0.95 * 400
