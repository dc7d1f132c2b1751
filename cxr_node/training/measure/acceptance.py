"""What a profile must reach before anybody relies on it: bars that were set before the weights were measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Section = Mapping[str, Any]


class Met(StrEnum):
    """How sure it is that a goal is reached."""

    YES = "yes"
    LIKELY = "likely"
    UNLIKELY = "unlikely"
    NO = "no"


MARKS = {
    "yes": ("✓ yes", "green"), "likely": ("~ likely", ""),
    "unlikely": ("~ unlikely", "yellow"), "no": ("✕ no", "bold red"),
}  # fmt: skip
"""Whether a goal is reached: all of the interval, the value, one end of the interval, nothing of it."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure and its bar.

    `place` : where the figure is found in an evaluation
    `question` : what it answers, in plain words
    `at_least` : whether more is better
    """

    place: tuple[str, ...]
    question: str
    name: str
    bar: float
    at_least: bool = True


GOALS = (
    Goal(("rates", "auc"), "Does it tell the classes apart?", "AUC", 0.985),
    Goal(
        ("rates", "balanced_accuracy_at_0.5"), "Is it right when it must always answer?",
        "balanced accuracy at 0.5", 0.94,
    ),
    Goal(("rates", "accuracy_of_answered"), "Is it right when it answers?", "accuracy of its answers", 0.975),
    Goal(("rates", "answered"), "Does it answer often enough?", "share answered", 0.80),
    Goal(
        ("rates", "calibration_error"), "Do its percentages come true?",
        "calibration error (ECE, 15 bins)", 0.05, False,
    ),
    Goal(("rates", "brier"), "How far are its percentages from the truth?", "Brier score", 0.06, False),
    Goal(
        ("reencoding", "move"), "Does the answer stay the same when the image is re-encoded?",
        "change of the probability, 95th percentile", 0.05, False,
    ),
    Goal(
        ("padding", "move"), "Does the answer stay where the film's edges lie elsewhere?",
        "largest mean move of the logit", 0.15, False,
    ),
    Goal(
        ("outsiders", "all", "refused"), "Does it refuse what it was not made for?", "share refused or UNCERTAIN", 0.95,
    ),
    Goal(
        ("heatmaps", "rates", "inside_chest"), "Does it look inside the chest?",
        "positives with their heat map inside the chest", 0.90,
    ),
    Goal(
        ("heatmaps", "rates", "opacity_found"), "Does it look at the opacity?",
        "heat maps with their peak in an opacity drawn into a normal lung", 0.80,
    ),
    Goal(
        ("boxes", "rates", "peak_in_box_of_called"), "Does it look where a radiologist saw it?",
        "positives called with the peak of their heat map in a radiologist's box", 0.70,
    ),
)  # fmt: skip


def _compared(evaluation: Section) -> Iterator[tuple[Goal, Mapping[str, float], Met]]:
    """Compare an evaluation with the goals; those that it has no figure for are left out."""
    for goal in GOALS:
        figure: Any = evaluation
        for name in goal.place:
            figure = figure.get(name, {})
        if figure:
            yield goal, figure, met(goal, figure)


def met(goal: Goal, figure: Mapping[str, float]) -> Met:
    """Tell whether all of the interval, the value, one end of the interval or nothing of it reaches the bar."""
    ends = ("low", "value", "high") if goal.at_least else ("high", "value", "low")
    for end, answer in zip(ends, (Met.YES, Met.LIKELY, Met.UNLIKELY), strict=True):
        if figure[end] >= goal.bar if goal.at_least else figure[end] <= goal.bar:
            return answer
    return Met.NO


def held_against(evaluation: Section) -> list[dict[str, Any]]:
    """The same as JSON says it."""
    return [
        {"goal": goal.name, "question": goal.question, "bar": goal.bar, "at_least": goal.at_least, "met": str(answer)}
        | {end: figure[end] for end in ("value", "low", "high")}
        for goal, figure, answer in _compared(evaluation)
    ]
