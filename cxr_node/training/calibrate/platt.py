"""From logits to probabilities (Platt 1999). Knows no torch, no image and no file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Logits of labelled images, corrupted copies among them, one row each.

    Attributes
    ----------
    logit, weight : float64, shape (images,); weights are within a class
    positive, clean : bool, shape (images,); copies are not clean
    groups : str, shape (images,), the patient of each
    """

    logit: Floats
    weight: Floats
    positive: Bools
    clean: Bools
    groups: NDArray[np.str_]

    def at(self, rows: Bools) -> Sample:
        """Some of the rows."""
        return Sample(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})

    def share(self, prevalence: float) -> Floats:
        """Weight of each row where `prevalence` of the rows were positive; sums to 1."""
        total = np.where(self.positive, self.weight[self.positive].sum(), self.weight[~self.positive].sum())
        return np.asarray(np.where(self.positive, prevalence, 1.0 - prevalence) * self.weight / total)


def platt(sample: Sample, prevalence: float) -> tuple[float, float]:
    """Fit p = sigmoid(slope * logit + intercept).

    `prevalence` : share of positives that the probabilities are meant for
    Returns slope (> 0, so that the order of images never changes), intercept
    """
    fitted = logistic(sample, prevalence, lambda x: np.exp(x[0]) * sample.logit + x[1], [(-5.0, 5.0), (-50.0, 50.0)])
    return float(np.exp(fitted[0])), float(fitted[1])


def smoothed_target(sample: Sample) -> Floats:
    """What Platt (1999) puts in the place of 0 and 1: no certainty without evidence."""
    positives, negatives = float(sample.positive.sum()), float((~sample.positive).sum())
    return np.where(sample.positive, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))


def logistic(
    sample: Sample, prevalence: float, raised: Callable[[Floats], Floats], bounds: list[tuple[float, float]]
) -> Floats:
    """Find the numbers for which sigmoid(raised(numbers)) has the least log loss."""
    target, share = smoothed_target(sample), sample.share(prevalence)

    def loss(numbers: Floats) -> float:
        z = raised(numbers)
        return float((share * (np.logaddexp(0.0, z) - target * z)).sum())

    return np.asarray(minimize(loss, np.zeros(len(bounds)), method="L-BFGS-B", bounds=bounds).x)
