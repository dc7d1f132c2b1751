"""Figures of merit of a data set and of a thousand re-draws of it, all at once: numbers in, numbers out.

Groups (children) are drawn, not images: several images of one child are not several witnesses. A re-draw is a row of
weights, how often each image was drawn, so every figure takes weights of shape (rows, images) and returns one number a
row; row 0 of `weights` is the data set as it is. A loop over scikit-learn took a minute for one page.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
DRAWS = 1000
BINS = 15
"""Equal-width bins of the calibration error, the usual number (Guo et al. 2017)."""
TAIL = 0.025
"""Each side of a 95 % interval."""


def sigmoid(logits: Floats) -> Floats:
    """Turn logits into probabilities in [0, 1]."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -500.0, 500.0))))


def auc(positive: Bools, score: Floats) -> float:
    """Area under the ROC curve; not a number where a class is missing."""
    return float(aucs(positive, score, np.ones((1, len(positive))))[0])


def log_losses(positive: Bools, probability: Floats) -> Floats:
    """Negative log likelihood of each image, in nats."""
    safe = np.clip(probability, 1e-12, 1.0 - 1e-12)
    return np.where(positive, -np.log(safe), -np.log(1.0 - safe))


def log_loss(positive: Bools, probability: Floats) -> float:
    """Mean negative log likelihood, in nats."""
    return float(log_losses(positive, probability).mean())


def brier(positive: Bools, probability: Floats) -> float:
    """Mean squared difference of probability and outcome."""
    return float(np.square(probability - positive).mean())


def calibration_error(positive: Bools, probability: Floats, weight: Floats | None = None) -> float:
    """Expected calibration error: mean gap of probability and frequency over bins of equal width.

    `weight` : of each image, any unit; None: all alike
    """
    rows = np.ones((1, len(positive))) if weight is None else weight[None]
    return float(calibration_errors(positive, probability, rows)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """Rounded as metrics.json keeps it."""
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}

    def is_known(self) -> bool:
        """Whether the data define it: a specificity needs negatives."""
        return bool(np.isfinite([self.value, self.low, self.high]).all())


UNKNOWN = Interval(value=float("nan"), low=float("nan"), high=float("nan"))
"""What the data do not define."""


def weights(groups: NDArray[np.str_], *, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Draw groups with replacement.

    Parameters
    ----------
    groups : group of each image

    Returns
    -------
    float64, shape (1 + draws, images): the first row is all ones, each other one says how often an image was drawn
    """
    names, codes = np.unique(groups, return_inverse=True)
    even = np.full(len(names), 1.0 / len(names))
    times = np.ones((1 + draws, len(names)))
    times[1:] = np.random.default_rng(seed).multinomial(len(names), even, size=draws)
    return times[:, codes]


def ratios(hit: Bools | Floats, among: Bools, weight: Floats) -> Floats:
    """Share of hits, or mean of values, among some images; not a number where there are none."""
    counted = weight @ among.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weight @ (hit * among).astype(np.float64)) / counted)


def f1s(called: Bools, positive: Bools, weight: Floats) -> Floats:
    """Harmonic mean of sensitivity and positive predictive value."""
    hits, both = weight @ (called & positive).astype(float), weight @ (called.astype(float) + positive)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(2.0 * hits / both)


def aucs(positive: Bools, score: Floats, weight: Floats) -> Floats:
    """Area under the ROC curve, ties counted half; not a number where a class is missing."""
    hits, alarms = stepped(positive, -score, weight)
    won = (alarms * (np.cumsum(hits, axis=1) - hits / 2.0)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(won / (hits.sum(axis=1) * alarms.sum(axis=1)))


def average_precisions(positive: Bools, score: Floats, weight: Floats) -> Floats:
    """Area under the precision-recall curve as steps (average precision), not as a too kind trapezium."""
    hits, alarms = stepped(positive, -score, weight)
    called = np.cumsum(hits + alarms, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(called > 0.0, np.cumsum(hits, axis=1) / called, 0.0)
        return np.asarray((hits * precision).sum(axis=1) / hits.sum(axis=1))


def risk_areas(wrong: Bools, certainty: Floats, weight: Floats) -> Floats:
    """Area under the risk-coverage curve (Geifman et al. 2019): mean error over all shares of most certain images."""
    errors, fine = stepped(wrong, -certainty, weight)
    images = errors + fine
    answered = np.cumsum(images, axis=1)
    risk = np.where(answered > 0.0, np.cumsum(errors, axis=1) / np.maximum(answered, 1.0), 0.0)
    return np.asarray((images * risk).sum(axis=1) / images.sum(axis=1))


def calibration_errors(positive: Bools, probability: Floats, weight: Floats, bins: int = BINS) -> Floats:
    """Expected calibration error: mean gap of probability and frequency over bins of equal width."""
    member = np.eye(bins)[binned(probability, bins)]  # (images, bins)
    gaps = weight @ (member * (probability - positive)[:, None])  # (rows, bins)
    return np.asarray(np.abs(gaps).sum(axis=1) / weight.sum(axis=1))


def binned(probability: Floats, bins: int = BINS) -> NDArray[np.intp]:
    """Number of the equal-width bin of each probability."""
    return np.minimum(np.floor(probability * bins), bins - 1).astype(np.intp)


def bracket(rows: Floats, witnesses: int | None = None) -> Interval:
    """Value and percentile interval of a figure's rows, widened to hold the value.

    `rows` : the figure of the data set, then of its re-draws
    `witnesses` : of a figure that cannot leave [0, 1], the number of groups that it rests on. Where it is 0 or 1 the
    re-draws see no doubt at all; the exact bound of Clopper and Pearson (1934) for so many witnesses stands in.
    """
    value, known = float(rows[0]), rows[1:][np.isfinite(rows[1:])]
    if not np.isfinite(value) or not len(known):
        return UNKNOWN
    low, high = (float(bound) for bound in np.quantile(known, [TAIL, 1.0 - TAIL]))
    if witnesses:
        possible = TAIL ** (1.0 / witnesses)
        low = min(low, possible) if value >= 1.0 else low
        high = max(high, 1.0 - possible) if value <= 0.0 else high
    return Interval(value=value, low=min(low, value), high=max(high, value))


def share(hit: Bools, groups: NDArray[np.str_]) -> Interval:
    """Share of hits; not numbers where there is no image."""
    if not len(hit):
        return UNKNOWN
    return bracket(ratios(hit, np.ones_like(hit), weights(groups)), len(np.unique(groups)))


def mean(values: Floats, groups: NDArray[np.str_]) -> Interval:
    """Mean over images; not a number where there is none."""
    if not len(values):
        return UNKNOWN
    return bracket(ratios(values, np.ones(len(values), dtype=np.bool_), weights(groups)))


def difference(one: Interval, other: Interval) -> Interval:
    """`one - other` of two independent data sets: intervals joined by MOVER (Zou and Donner 2008)."""
    value = one.value - other.value
    return Interval(
        value=value,
        low=value - float(np.hypot(one.value - one.low, other.high - other.value)),
        high=value + float(np.hypot(one.high - one.value, other.value - other.low)),
    )


def stepped(hit: Bools, rank: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Weight of hits and of misses at each distinct rank, ascending: two of shape (rows, ranks)."""
    order = np.argsort(rank, kind="stable")
    starts = np.flatnonzero(np.diff(rank[order], prepend=-np.inf) > 0.0)
    weighed, hits = weight[:, order], hit[order].astype(np.float64)
    return np.add.reduceat(weighed * hits, starts, axis=1), np.add.reduceat(weighed * (1.0 - hits), starts, axis=1)
