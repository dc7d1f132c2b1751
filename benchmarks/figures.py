"""The arithmetic of a comparison: medians with quartiles, and ratios. Nothing is rounded here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_SHARES = {"min": 0.0, "p25": 25.0, "p50": 50.0, "p75": 75.0, "p95": 95.0, "max": 100.0}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Describe repeated measurements: how many, percentiles (linear between two values), and the values themselves.

    Raises
    ------
    ValueError : there are no values, or one is no number.
    """
    found = np.asarray(values, dtype=np.float64)
    if not found.size or not np.isfinite(found).all():
        raise ValueError("percentiles need numbers")
    shares = {name: float(np.percentile(found, share)) for name, share in _SHARES.items()}
    return {"n": len(values), **shares, "raw": [float(value) for value in values]}


def ratio(more: float, less: float) -> float:
    """How many times `less` goes into `more`.

    Raises
    ------
    ValueError : a time or a rate is not above 0; no ratio means anything then.
    """
    if not (more > 0.0 and less > 0.0):
        raise ValueError("a ratio needs figures above 0")
    return more / less
