"""The curves behind the figures, with the band that re-draws of the patients leave.

Knows no picture: outcomes in, points out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cxr_node.training.measure import bootstrap
from cxr_node.training.measure.bootstrap import BINS, TAIL, Bools, Floats
from cxr_node.training.measure.metrics import Outcomes

DRAWS = 300
"""Enough for a band that is looked at."""
GRID = np.linspace(0.0, 1.0, 101)
SLACK = 1e-9
"""Against rounding, and against dividing by nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points of a curve; `low` and `high` are the 95 % band at each `x`."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats


def roc(outcomes: Outcomes) -> Curve:
    """Share of negatives called positive -> share of positives called positive."""

    def at(hits: Floats, alarms: Floats) -> Floats:
        return np.interp(GRID, _shares(alarms), _shares(hits))

    return _banded(outcomes.positive, outcomes.probability, outcomes, at)


def precision_recall(outcomes: Outcomes) -> Curve:
    """Sensitivity -> positive predictive value at it."""

    def at(hits: Floats, alarms: Floats) -> Floats:
        called = np.cumsum(hits + alarms)
        precision = np.cumsum(hits) / np.maximum(called, SLACK)
        reached = np.searchsorted(_shares(hits)[1:], np.maximum(GRID - SLACK, SLACK))
        return np.asarray(precision[np.minimum(reached, len(hits) - 1)])

    return _banded(outcomes.positive, outcomes.probability, outcomes, at)


def risk_coverage(outcomes: Outcomes) -> Curve:
    """Share of the images answered, the most certain first -> share of wrong answers among them."""

    def at(errors: Floats, fine: Floats) -> Floats:
        answered = np.cumsum(errors + fine)
        place = np.minimum(np.searchsorted(answered / answered[-1], np.maximum(GRID - SLACK, SLACK)), len(answered) - 1)
        return np.asarray(np.cumsum(errors)[place] / np.maximum(answered[place], SLACK))

    certainty = np.maximum(outcomes.probability, 1.0 - outcomes.probability)
    return _banded(outcomes.called != outcomes.positive, certainty, outcomes, at)


def reliability(outcomes: Outcomes) -> tuple[Curve, Floats]:
    """Mean probability of each bin that holds images -> share of positives among them; and how many they are."""
    weight = bootstrap.weights(outcomes.groups, draws=DRAWS)
    member = np.eye(BINS)[bootstrap.binned(outcomes.probability)]  # (images, bins)
    counts = member.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = (weight @ (member * outcomes.positive[:, None])) / (weight @ member)  # (1 + draws, bins)
        middle = (member * outcomes.probability[:, None]).sum(axis=0) / counts
    full = counts > 0
    low, high = np.nanquantile(rows[:, full], [TAIL, 1.0 - TAIL], axis=0)
    witnesses = np.array([len(np.unique(outcomes.groups[column > 0.0])) for column in member.T[full]])
    possible = TAIL ** (1.0 / witnesses)  # Clopper and Pearson, where all or none are positive
    low = np.where(rows[0, full] == 1.0, np.minimum(low, possible), low)
    high = np.where(rows[0, full] == 0.0, np.maximum(high, 1.0 - possible), high)
    return Curve(x=middle[full], y=rows[0, full], low=low, high=high), counts[full]


def _banded(hit: Bools, score: Floats, outcomes: Outcomes, at: Callable[[Floats, Floats], Floats]) -> Curve:
    hits, misses = bootstrap.stepped(hit, -score, bootstrap.weights(outcomes.groups, draws=DRAWS))
    known = hits.any(axis=1) & misses.any(axis=1) if hit.any() and not hit.all() else np.ones(len(hits), dtype=bool)
    rows = np.array([at(one, other) for one, other in zip(hits[known], misses[known], strict=True)])
    low, high = np.quantile(rows, [TAIL, 1.0 - TAIL], axis=0)
    return Curve(x=GRID, y=rows[0], low=low, high=high)


def _shares(weights: Floats) -> Floats:
    """Cumulated shares, from 0."""
    return np.concatenate(([0.0], np.cumsum(weights) / max(float(weights.sum()), SLACK)))
