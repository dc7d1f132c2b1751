"""Ways from a logit to a probability, compared on patients that each of them was not fitted on.

    python -m tools.calibrators PROFILE_FOLDER --data FOLDER [--part PART] [--labels FILE]

Serving uses Platt's (`cxr_node.training.calibrate`); this study shows, on the data at hand, whether another would be
better. Nothing is written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from cxr_node.model import profile as profiles
from cxr_node.training.calibrate import calibrate
from cxr_node.training.calibrate.platt import Sample, logistic, platt, smoothed_target
from cxr_node.training.data import profile_folder as folders
from cxr_node.training.data.device import bar_of
from cxr_node.training.data.profile_folder import RECIPE_LABELS, Labels
from cxr_node.training.measure import bootstrap
from cxr_node.training.measure.bootstrap import Floats

FOLDS = 10
Fitted = Callable[[Floats], Floats]


def _platt(sample: Sample, prevalence: float) -> Fitted:
    slope, intercept = platt(sample, prevalence)
    return lambda logit: bootstrap.sigmoid(slope * logit + intercept)


def _temperature(sample: Sample, prevalence: float) -> Fitted:
    """One number, the same for all logits (Guo et al. 2017)."""
    (log_slope,) = logistic(sample, prevalence, lambda x: np.exp(x[0]) * sample.logit, [(-5.0, 5.0)])
    return lambda logit: bootstrap.sigmoid(np.exp(log_slope) * logit)


def _beta(sample: Sample, prevalence: float) -> Fitted:
    """Three numbers: slopes of their own for either end (Kull et al. 2017)."""

    def bent(x: Floats, logit: Floats) -> Floats:
        raised = np.exp(x[0]) * np.logaddexp(0.0, logit) - np.exp(x[1]) * np.logaddexp(0.0, -logit) + x[2]
        return np.asarray(raised)

    fitted = logistic(sample, prevalence, lambda x: bent(x, sample.logit), [(-5.0, 5.0)] * 2 + [(-50.0, 50.0)])
    return lambda logit: bootstrap.sigmoid(bent(fitted, logit))


def _isotonic(sample: Sample, prevalence: float) -> Fitted:
    """Any rising steps (Zadrozny and Elkan 2002), joined by lines."""
    order = np.argsort(sample.logit, kind="stable")
    steps = isotonic_regression(smoothed_target(sample)[order], weights=sample.share(prevalence)[order]).x
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
    loss, of_platt = (bootstrap.log_losses(sample.positive, one) for one in (probability, by_platt))
    weight = bootstrap.weights(sample.groups) * share  # (1 + draws, images)
    excess = bootstrap.bracket(weight @ (loss - of_platt) / weight.sum(axis=1))
    return {
        "log_loss": round(float(share @ loss), 4),
        "brier": round(float(share @ np.square(probability - sample.positive)), 4),
        "calibration_error": round(bootstrap.calibration_error(sample.positive, probability, share), 4),
        "log_loss_beyond_platt": excess.as_json(),
    }


def of_profile(
    profile_folder: Path, data_folder: Path, *, part: str | None = None, labels: Labels = RECIPE_LABELS
) -> dict[str, Any]:
    """Compare on the images that `cxr-node calibrate` would fit on."""
    recipe, described = folders.recipe_of(profile_folder), profiles.described_in(profile_folder)
    items, _ = folders.held_out(profile_folder, data_folder, part, default="calibration", labels=labels)
    with bar_of(shown=False) as bar:
        clean, changed = calibrate.scored(profile_folder, recipe, described, items, bar)
    return compare(calibrate.pooled(items, clean, changed), recipe.operating.prevalence)


def main() -> None:
    """Compare, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m tools.calibrators", description=__doc__)
    parser.add_argument("profile", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part")
    parser.add_argument("--labels", type=Path)
    options = parser.parse_args()
    labels = Labels(manifest=options.labels)
    print(json.dumps(of_profile(options.profile, options.data, part=options.part, labels=labels), indent=1))


if __name__ == "__main__":
    main()
