"""Figures of merit with intervals: numbers in, numbers out.

Knows no torch, no image and no file. Intervals are bootstrapped over groups (children), not over images:
several images of one child are not several witnesses.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def sigmoid(logits: Floats) -> Floats:
    """Turn logits into probabilities in [0, 1]."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -500.0, 500.0))))


def auc(positive: Bools, score: Floats) -> float:
    """Area under the ROC curve; not a number where a class is missing."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def log_loss(positive: Bools, probability: Floats) -> float:
    """Mean negative log likelihood, in nats."""
    safe = np.clip(probability, 1e-12, 1.0 - 1e-12)
    return float(-np.where(positive, np.log(safe), np.log(1.0 - safe)).mean())


def brier(positive: Bools, probability: Floats) -> float:
    """Mean squared difference of probability and outcome."""
    return float(np.square(probability - positive).mean())


def calibration_error(positive: Bools, probability: Floats, bins: int = 10) -> float:
    """Expected calibration error: mean gap of probability and frequency over bins of equal counts."""
    order = np.argsort(probability, kind="stable")
    chunks = [chunk for chunk in np.array_split(order, bins) if len(chunk)]
    gaps = [len(chunk) * abs(float(probability[chunk].mean() - positive[chunk].mean())) for chunk in chunks]
    return float(sum(gaps) / len(order))


def measured(figure: Callable[[NDArray[np.int64]], float], groups: NDArray[np.str_]) -> tuple[float, float, float]:
    """Figure over all images, and its 95 % interval: value, low, high."""
    return figure(np.arange(len(groups))), *interval(figure, groups)


def share(hit: Bools, groups: NDArray[np.str_]) -> tuple[float, float, float]:
    """Share of hits and its 95 % interval: value, low, high; not numbers where there is no image.

    Where all images or none are hits a bootstrap sees no doubt at all; the exact bound of Clopper and Pearson (1934)
    stands in, with as many witnesses as there are groups.
    """
    if not len(hit):
        return float("nan"), float("nan"), float("nan")
    value, low, high = measured(lambda places: float(hit[places].mean()), groups)
    possible = 0.025 ** (1.0 / len(np.unique(groups)))
    return value, min(low, possible) if value == 1.0 else low, max(high, 1.0 - possible) if value == 0.0 else high


def interval(
    measure: Callable[[NDArray[np.int64]], float], groups: NDArray[np.str_], *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap a 95 % interval over groups.

    Parameters
    ----------
    measure : places of the drawn images -> the figure
    groups : group of each image
    """
    rng = np.random.default_rng(seed)
    _, codes = np.unique(groups, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    values = []
    for _ in range(draws):
        drawn = rng.integers(len(members), size=len(members))
        values.append(measure(np.concatenate([members[group] for group in drawn])))
    known = np.array(values)[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
