"""Figures of merit as plain numbers; with intervals, and for many re-draws at once, they are in `bootstrap`.

Knows no torch, no image and no file.
"""

from __future__ import annotations

import numpy as np

from cxr_node.training import bootstrap
from cxr_node.training.bootstrap import Bools, Floats


def sigmoid(logits: Floats) -> Floats:
    """Turn logits into probabilities in [0, 1]."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -500.0, 500.0))))


def auc(positive: Bools, score: Floats) -> float:
    """Area under the ROC curve; not a number where a class is missing."""
    return float(bootstrap.aucs(positive, score, np.ones((1, len(positive))))[0])


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

    Parameters
    ----------
    weight : of each image, any unit; None: all alike
    """
    rows = np.ones((1, len(positive))) if weight is None else weight[None]
    return float(bootstrap.calibration_errors(positive, probability, rows)[0])
