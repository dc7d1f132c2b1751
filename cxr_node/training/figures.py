"""A figure of some images and its 95 % interval, bootstrapped over patients: numbers in, JSON-able numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
TAIL = 0.025
"""Each side of a 95 % interval."""
Figure = dict[str, float]
"""value, low, high; not numbers where there is no image."""
Groups = NDArray[np.str_]


def mean(values: Sequence[float] | NDArray[np.float64], groups: Groups) -> Figure:
    """Mean over images; `groups` names the patient of each."""
    return _figure(*_interval(np.asarray(values, dtype=np.float64), groups))


def share(hits: Sequence[bool] | NDArray[np.bool_], groups: Groups) -> Figure:
    """Share of hits. Where all or none are, Clopper and Pearson's (1934) bound for so many patients stands in."""
    value, low, high = _interval(np.asarray(hits, dtype=np.float64), groups)
    possible = TAIL ** (1.0 / max(1, len(np.unique(groups))))
    return _figure(
        value, min(low, possible) if value == 1.0 else low, max(high, 1.0 - possible) if value == 0.0 else high
    )


def known(figures: dict[str, Figure]) -> dict[str, Figure]:
    """Leave out what the images do not define."""
    return {name: one for name, one in figures.items() if np.isfinite(list(one.values())).all()}


def _interval(values: NDArray[np.float64], groups: Groups) -> tuple[float, float, float]:
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    names, codes = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(codes, values, len(names)), np.bincount(codes, minlength=len(names))
    drawn = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [TAIL, 1.0 - TAIL])
    return float(values.mean()), float(low), float(high)


def _figure(value: float, low: float, high: float) -> Figure:
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)}
