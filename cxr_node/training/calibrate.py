"""From logits on children that training never saw to probabilities, and to where verdicts begin.

Knows no training. The calibration part is scored clean and in corrupted copies: a probability must keep its
meaning when the scanner's style changes. Thresholds spend a budget of abstentions, because a held-out part of
the same hospital is easier than the next hospital and would place them too close together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.optimize import minimize

from cxr_node.errors import DataError
from cxr_node.model import profile as profiles
from cxr_node.model import weights
from cxr_node.model.networks import Network
from cxr_node.model.profile import CalibrationFile, OperatingPointFile, ProfileFile
from cxr_node.training import card, data, folder, metrics, scores
from cxr_node.training.augment import Augmenter
from cxr_node.training.data import Item
from cxr_node.training.progress import bar_of
from cxr_node.training.recipe import Recipe
from cxr_node.training.scores import Scores

METHOD = "Platt scaling of the mean logit over views"
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def run(profile_folder: Path, data_folder: Path, *, part: str | None = None, progress: bool = True) -> dict[str, Any]:
    """Calibrate a profile anew and bind the result to its weights.

    Parameters
    ----------
    profile_folder : as `train` wrote it; its recipe is read from metrics.json
    data_folder : the data it was trained on, or another site's labelled images
    part : None: the calibration part of the data it was trained on, all images of any other

    Returns
    -------
    the calibration section of metrics.json

    Raises
    ------
    DataError : the data cannot be calibrated on
    ModelError : the profile folder is not complete
    """
    recipe, described = folder.recipe_of(profile_folder), folder.described_in(profile_folder)
    fitted_on = folder.held_out(profile_folder, data_folder, part, default="calibration")
    with bar_of(progress) as bar:
        return calibrate(profile_folder, recipe, described, fitted_on, bar)


def calibrate(
    profile_folder: Path, recipe: Recipe, described: ProfileFile, fitted_on: tuple[Sequence[Item], str], bar: Progress
) -> dict[str, Any]:
    """Fit on the given images and write calibration.yaml, profile.yaml, metrics.json and the card."""
    items, source = fitted_on
    positive = np.array([item.positive for item in items])
    if positive.all() or not positive.any():
        raise DataError(f"{source} has images of one class only; calibration needs both")
    network, stats = weights.load(profile_folder / "weights.safetensors", described.network, len(described.labels))
    clean, changed = _scored(network, stats, recipe, items, bar)
    copies = [clean, *changed]
    logit = np.concatenate([one.logit() for one in copies])
    weight = np.repeat([1.0] + [1.0 / max(1, len(changed))] * len(changed), len(items))
    slope, intercept = platt(
        logit, np.tile(positive, len(copies)), weight=weight, prevalence=recipe.operating.prevalence
    )
    point = operating_point(recipe, positive, clean, slope=slope, intercept=intercept)
    patients = len({item.group for item in items})
    calibrated = CalibrationFile(
        weights_sha256="",
        method=f"{METHOD}, for a prevalence of {recipe.operating.prevalence:g}",
        fitted_on=f"{len(items)} images of {patients} patients ({source}), "
        f"each also in {len(changed)} corrupted copies",
        slope=slope,
        intercept=intercept,
        operating_point=point,
    )
    profiles.write(profile_folder, described, calibrated)
    measured = _measured(positive, clean, changed, calibrated)
    folder.update_metrics(profile_folder, {"calibration": measured})
    card.write(profile_folder)
    return measured


def platt(logit: Floats, positive: Bools, *, weight: Floats, prevalence: float) -> tuple[float, float]:
    """Fit p = sigmoid(slope * logit + intercept), with Platt's (1999) targets against certainty without evidence.

    Parameters
    ----------
    logit, positive : shape (images,)
    weight : shape (images,), weight of each image within its class
    prevalence : share of positives that the probabilities are meant for

    Returns
    -------
    slope (> 0, so that the order of images never changes), intercept
    """
    positives, negatives = float(positive.sum()), float((~positive).sum())
    target = np.where(positive, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
    share = np.where(
        positive, prevalence * weight / weight[positive].sum(), (1.0 - prevalence) * weight / weight[~positive].sum()
    )

    def loss(parameters: Floats) -> float:
        z = np.exp(parameters[0]) * logit + parameters[1]
        return float((share * (np.logaddexp(0.0, z) - target * z)).sum())

    fitted = minimize(loss, np.array([0.0, 0.0]), method="L-BFGS-B", bounds=[(-5.0, 5.0), (-50.0, 50.0)])
    return float(np.exp(fitted.x[0])), float(fitted.x[1])


def operating_point(
    recipe: Recipe, positive: Bools, clean: Scores, *, slope: float, intercept: float
) -> OperatingPointFile:
    """Place the thresholds so that `abstain` of each class, clean, falls on the unsure side of its own threshold."""
    operating = recipe.operating
    probability = clean.probability(slope, intercept)
    report_at = max(0.5, float(np.quantile(probability[positive], operating.abstain)))
    rule_out_below = min(0.5, float(np.quantile(probability[~positive], 1.0 - operating.abstain)))
    return OperatingPointFile(
        name=operating.name,
        label=recipe.label,
        report_at=round(report_at, 4),
        rule_out_below=round(rule_out_below, 4),
        max_spread=round(float(np.quantile(clean.spread(slope, intercept), operating.spread_quantile)), 4),
        max_distance=operating.max_distance,
    )


def _scored(
    network: Network, stats: dict[str, torch.Tensor], recipe: Recipe, items: Sequence[Item], bar: Progress
) -> tuple[Scores, list[Scores]]:
    copies = recipe.operating.corrupted_copies
    task = bar.add_task("calibrate", total=len(items) * (copies + 1))
    clean = scores.score(network, stats, scores.prepared(items, recipe.input), lambda: bar.advance(task))
    images = data.load_all(items, recipe.data.source_px)
    augmenter = Augmenter(recipe.augment, recipe.input, recipe.data.source_px, recipe.seed)
    changed = [
        scores.score(network, stats, scores.corrupted(images, augmenter, recipe.seed + copy), lambda: bar.advance(task))
        for copy in range(copies)
    ]
    return clean, changed


def _measured(positive: Bools, clean: Scores, changed: Sequence[Scores], calibrated: CalibrationFile) -> dict[str, Any]:
    """Say how well the fit fits its own images; performance is measured on the validation part instead."""

    def of(one: Scores) -> dict[str, float]:
        probability = one.probability(calibrated.slope, calibrated.intercept)
        return {
            "auc": round(metrics.auc(positive, probability), 4),
            "brier": round(metrics.brier(positive, probability), 4),
            "beyond_max_distance": round(
                float((one.distance > (calibrated.operating_point.max_distance or np.inf)).mean()), 4
            ),
        }

    return {
        "fitted_on": calibrated.fitted_on,
        "images": len(positive),
        "slope": calibrated.slope,
        "intercept": calibrated.intercept,
        "operating_point": calibrated.operating_point.model_dump(),
        "clean": of(clean),
        "corrupted": [of(one) for one in changed],
    }
