"""Ways from a logit to a probability, compared on patients that each of them was not fitted on.

Knows no network and no file. What serving uses is Platt's (`calibrate.platt`); the others are here to show, on the
data at hand, whether one of them would be better: `cxr-node calibrate --compare`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize

from cxr_node.training.measure import bootstrap
from cxr_node.training.measure import bootstrap as metrics
from cxr_node.training.measure.bootstrap import Bools, Floats

FOLDS = 10
Fitted = Callable[[Floats], Floats]


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
        return Sample(
            logit=self.logit[rows],
            weight=self.weight[rows],
            positive=self.positive[rows],
            clean=self.clean[rows],
            groups=self.groups[rows],
        )

    def share(self, prevalence: float) -> Floats:
        """Weight of each row where `prevalence` of the rows were positive; sums to 1."""
        total = np.where(self.positive, self.weight[self.positive].sum(), self.weight[~self.positive].sum())
        return np.asarray(np.where(self.positive, prevalence, 1.0 - prevalence) * self.weight / total)


def platt(sample: Sample, prevalence: float) -> tuple[float, float]:
    """Fit p = sigmoid(slope * logit + intercept).

    Parameters
    ----------
    prevalence : share of positives that the probabilities are meant for

    Returns
    -------
    slope (> 0, so that the order of images never changes), intercept
    """
    fitted = _logistic(sample, prevalence, lambda x: np.exp(x[0]) * sample.logit + x[1], [(-5.0, 5.0), (-50.0, 50.0)])
    return float(np.exp(fitted[0])), float(fitted[1])


def _platt(sample: Sample, prevalence: float) -> Fitted:
    slope, intercept = platt(sample, prevalence)
    return lambda logit: metrics.sigmoid(slope * logit + intercept)


def _temperature(sample: Sample, prevalence: float) -> Fitted:
    """One number, the same for all logits (Guo et al. 2017)."""
    (log_slope,) = _logistic(sample, prevalence, lambda x: np.exp(x[0]) * sample.logit, [(-5.0, 5.0)])
    return lambda logit: metrics.sigmoid(np.exp(log_slope) * logit)


def _beta(sample: Sample, prevalence: float) -> Fitted:
    """Three numbers: slopes of their own for either end (Kull et al. 2017)."""

    def bent(x: Floats, logit: Floats) -> Floats:
        raised = np.exp(x[0]) * np.logaddexp(0.0, logit) - np.exp(x[1]) * np.logaddexp(0.0, -logit) + x[2]
        return np.asarray(raised)

    fitted = _logistic(sample, prevalence, lambda x: bent(x, sample.logit), [(-5.0, 5.0)] * 2 + [(-50.0, 50.0)])
    return lambda logit: metrics.sigmoid(bent(fitted, logit))


def _isotonic(sample: Sample, prevalence: float) -> Fitted:
    """Any rising steps (Zadrozny and Elkan 2002), joined by lines."""
    order = np.argsort(sample.logit, kind="stable")
    steps = isotonic_regression(_target(sample)[order], weights=sample.share(prevalence)[order]).x
    return lambda logit: np.interp(logit, sample.logit[order], steps)


CALIBRATORS: Mapping[str, Callable[[Sample, float], Fitted]] = {
    "platt": _platt,
    "temperature": _temperature,
    "beta": _beta,
    "isotonic": _isotonic,
}


def compare(sample: Sample, prevalence: float) -> dict[str, Any]:
    """Measure each calibrator on patients that it was not fitted on, clean and corrupted.

    Returns
    -------
    for each calibrator and style log loss, Brier score and calibration error (15 bins) at the prevalence, and by how
    much the log loss exceeds Platt's, with its 95 % interval over patients
    """
    fold = np.array([hashlib.sha256(name.encode()).digest()[0] % FOLDS for name in sample.groups.tolist()])
    found: dict[str, Floats] = {name: np.empty(len(fold)) for name in CALIBRATORS}
    for held_out in range(FOLDS):
        for name, fit in CALIBRATORS.items():
            fitted = fit(sample.at(fold != held_out), prevalence)
            found[name][fold == held_out] = fitted(sample.logit[fold == held_out])
    styles = {"clean": sample.clean, "corrupted": ~sample.clean}
    return {
        name: {
            style: _figures(sample.at(rows), prevalence, probability[rows], found["platt"][rows])
            for style, rows in styles.items()
            if rows.any()
        }
        for name, probability in found.items()
    }


def _figures(sample: Sample, prevalence: float, probability: Floats, by_platt: Floats) -> dict[str, Any]:
    share = sample.share(prevalence)
    loss, of_platt = (metrics.log_losses(sample.positive, one) for one in (probability, by_platt))
    weight = bootstrap.weights(sample.groups) * share  # (1 + draws, images)
    excess = bootstrap.bracket(weight @ (loss - of_platt) / weight.sum(axis=1))
    return {
        "log_loss": round(float(share @ loss), 4),
        "brier": round(float(share @ np.square(probability - sample.positive)), 4),
        "calibration_error": round(metrics.calibration_error(sample.positive, probability, share), 4),
        "log_loss_beyond_platt": excess.as_json(),
    }


def _target(sample: Sample) -> Floats:
    """What Platt (1999) puts in the place of 0 and 1: no certainty without evidence."""
    positives, negatives = float(sample.positive.sum()), float((~sample.positive).sum())
    return np.where(sample.positive, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))


def _logistic(
    sample: Sample, prevalence: float, raised: Callable[[Floats], Floats], bounds: list[tuple[float, float]]
) -> Floats:
    """Find the numbers for which sigmoid(raised(numbers)) has the least log loss."""
    target, share = _target(sample), sample.share(prevalence)

    def loss(numbers: Floats) -> float:
        z = raised(numbers)
        return float((share * (np.logaddexp(0.0, z) - target * z)).sum())

    return np.asarray(minimize(loss, np.zeros(len(bounds)), method="L-BFGS-B", bounds=bounds).x)
