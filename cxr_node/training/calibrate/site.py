"""A site's own thresholds, from answers that a node gave and what radiologists said of them: numbers in, numbers out.

The profile's probabilities are refitted for the site and its share of positives (Platt 1999, monotone), then two
thresholds keep a promise on predictive values there (`guarantee`). Knows no torch, no image and no ledger.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cxr_node.errors import DataError
from cxr_node.model.site_calibration import at_site
from cxr_node.training.calibrate import guarantee
from cxr_node.training.calibrate.guarantee import Kept, Patients, Wish
from cxr_node.training.calibrate.platt import Floats, Sample, platt

METHOD = "Platt scaling of the profile's probability on the site's reported studies"
_EDGE = 1e-12
"""A probability nearer to 0 or 1 counts as so far from it: its logit would be infinite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What is laid over a profile's probability, and the thresholds of the result."""

    slope: float
    intercept: float
    kept: Kept


def fit(patients: Patients, wish: Wish, label: str) -> Fitted:
    """Fit both.

    `patients` : with the profile's probability; answerable where neither spread nor distance set the image aside
    Raises DataError: one class is missing, or no threshold keeps the wish; says how many patients would.
    """
    if patients.positive.all() or not patients.positive.any():
        raise DataError("the reports are of one class only; a calibration needs both")
    logit = _logits(patients.probability)
    sample = Sample(
        logit=logit,
        weight=np.ones(len(logit)),
        positive=patients.positive,
        clean=np.ones(len(logit), np.bool_),
        groups=patients.groups,
    )
    slope, intercept = platt(sample, wish.prevalence)
    there = np.array([at_site(each, slope, intercept) for each in patients.probability.tolist()])
    return Fitted(
        slope=slope, intercept=intercept, kept=guarantee.thresholds(replace(patients, probability=there), wish, label)
    )


def _logits(probability: Floats) -> Floats:
    """Of probabilities in [0, 1], finite."""
    inside = np.clip(probability, _EDGE, 1.0 - _EDGE)
    return np.asarray(np.log(inside) - np.log1p(-inside))
