"""What a profile must reach before anybody relies on it, and whether it does.

Knows no network and no file. The bars are the project's own, set before the weights were measured.
"""

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
    "yes": ("✓ yes", "green"),
    "likely": ("~ likely", ""),
    "unlikely": ("~ unlikely", "yellow"),
    "no": ("✕ no", "bold red"),
}
"""Whether a goal is reached: all of the interval, the value, one end of the interval, nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
    Goal(place=("rates", "auc"), question="Does it tell the classes apart?", name="AUC", bar=0.985),
    Goal(
        place=("rates", "balanced_accuracy_at_0.5"),
        question="Is it right when it must always answer?",
        name="balanced accuracy at 0.5",
        bar=0.94,
    ),
    Goal(
        place=("rates", "accuracy_of_answered"),
        question="Is it right when it answers?",
        name="accuracy of its answers",
        bar=0.975,
    ),
    Goal(place=("rates", "answered"), question="Does it answer often enough?", name="share answered", bar=0.80),
    Goal(
        place=("rates", "calibration_error"),
        question="Do its percentages come true?",
        name="calibration error (ECE, 15 bins)",
        bar=0.05,
        at_least=False,
    ),
    Goal(
        place=("rates", "brier"),
        question="How far are its percentages from the truth?",
        name="Brier score",
        bar=0.06,
        at_least=False,
    ),
    Goal(
        place=("reencoding", "move"),
        question="Does the answer stay the same when the image is re-encoded?",
        name="change of the probability, 95th percentile",
        bar=0.05,
        at_least=False,
    ),
    Goal(
        place=("outsiders", "all", "refused"),
        question="Does it refuse what it was not made for?",
        name="share refused or UNCERTAIN",
        bar=0.95,
    ),
    Goal(
        place=("heatmaps", "rates", "inside_chest"),
        question="Does it look inside the chest?",
        name="positives with their heat map inside the chest",
        bar=0.90,
    ),
    Goal(
        place=("heatmaps", "rates", "opacity_found"),
        question="Does it look at the opacity?",
        name="heat maps with their peak in an opacity drawn into a normal lung",
        bar=0.80,
    ),
)


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
