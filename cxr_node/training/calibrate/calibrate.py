"""From logits on children that training never saw to probabilities, and to where verdicts begin.

The calibration part is scored clean and in corrupted copies: a probability must keep its meaning when the scanner's
style changes. Thresholds spend a budget of abstentions, because a held-out part of the same hospital is easier than the
next hospital; where the classes overlap, a budget of errors; or they keep a promise on predictive values (`guarantee`),
for patients drawn like the calibration part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from rich.progress import Progress

from cxr_node.errors import DataError
from cxr_node.model import profile, weights
from cxr_node.model.profile import (
    CalibrationFile,
    GuaranteeFile,
    InputSpec,
    OperatingPointFile,
    ProfileFile,
)
from cxr_node.model.torch_runtime import export
from cxr_node.training.calibrate import guarantee
from cxr_node.training.calibrate.guarantee import Patients, Wish
from cxr_node.training.calibrate.platt import Sample, platt
from cxr_node.training.data import images
from cxr_node.training.data.device import bar_of
from cxr_node.training.data.images import Item
from cxr_node.training.data.profile_folder import RECIPE_LABELS, Labels, held_out, recipe_of, update_metrics
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.data.recipe_sections import GuaranteeSection, OperatingSection
from cxr_node.training.measure import bootstrap, inference, model_card
from cxr_node.training.measure.inference import Scores
from cxr_node.training.synthetic.augment import Augmenter

DEFAULT_CONFIDENCE = 0.95
METHOD = "Platt scaling of the mean logit over views"
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationOptions:
    """What a user asks of the thresholds; None: as the recipe says. Shares in (0, 1).

    `views` : which views answer from now on; the network is exported anew
    """

    ppv: float | None = None
    npv: float | None = None
    confidence: float | None = None
    prevalence: float | None = None
    views: Sequence[str] | None = None

    def of(self, recipe: Recipe) -> Recipe:
        """Put it into a recipe. Raises DataError: one predictive value without the other."""
        operating, own = recipe.operating, recipe.operating.guarantee
        changes: dict[str, Any] = {"prevalence": self.prevalence or operating.prevalence}
        if self.ppv or self.npv or self.confidence:
            ppv, npv = self.ppv or (own.ppv if own else None), self.npv or (own.npv if own else None)
            if ppv is None or npv is None:
                raise DataError("a guarantee needs both predictive values: give --ppv and --npv")
            confidence = self.confidence or (own.confidence if own else DEFAULT_CONFIDENCE)
            changes |= {
                "abstain": None,
                "wrong": None,
                "guarantee": GuaranteeSection(ppv=ppv, npv=npv, confidence=confidence),
            }
        shown = recipe.input if self.views is None else seen_by(recipe.input, self.views)
        return recipe.model_copy(update={"input": shown, "operating": operating.model_copy(update=changes)})


AS_RECIPE = CalibrationOptions()


def run(
    profile_folder: Path,
    data_folder: Path,
    *,
    part: str | None = None,
    labels: Labels = RECIPE_LABELS,
    options: CalibrationOptions = AS_RECIPE,
    progress: bool = True,
) -> dict[str, Any]:
    """Calibrate a profile anew and bind the result to its weights.

    `data_folder` : the data it was trained on, or another site's labelled images
    `part` : None: the calibration part of the data it was trained on, all images of any other
    `labels` : the CSV file with the labels, where it is not the folder's manifest.csv
    `options` : predictive values to keep, and at which prevalence
    Returns the calibration section of metrics.json
    Raises DataError: the data cannot be calibrated on, or no threshold keeps what was options; nothing is changed then;
    ModelError: the profile folder is not complete, or its weights are not those it was released with.
    """
    trained = recipe_of(profile_folder)
    recipe, described = options.of(trained), profile.described_in(profile_folder)
    profile.as_released(profile_folder, described, "weights.safetensors")  # a calibration vouches for its weights
    fitted_on = held_out(profile_folder, data_folder, part, default="calibration", labels=labels)
    foresee(recipe, fitted_on[0])
    described = described.model_copy(update={"input": recipe.served_input})
    with bar_of(progress) as bar:
        measured = calibrate(profile_folder, recipe, described, fitted_on, bar)
    if recipe.input != trained.input:  # what was measured, and what runtimes are held to, was of other views
        kept = trained.model_copy(update={"input": recipe.input}).model_dump(mode="json")
        update_metrics(profile_folder, {"recipe": kept, "evaluations": {}, "predicted": {}})
        model_card.write(profile_folder)
        export(profile.load(profile_folder))
    return measured


def seen_by(spec: InputSpec, views: Sequence[str]) -> InputSpec:
    """Show images to a profile in these views. Raises DataError: they are none that may answer."""
    try:
        return InputSpec.model_validate(spec.model_dump() | {"views": views})
    except ValidationError as error:
        raise DataError(str(error.errors()[0]["msg"])) from error


def foresee(recipe: Recipe, items: Sequence[Item]) -> None:
    """Refuse, before any work, a promise that not even a faultless network could keep on so few patients.

    Raises DataError: there are too few.
    """
    if wish := _wish(recipe):
        positive = np.array([item.positive for item in items])
        surely, all_of_them = positive.astype(np.float64), np.ones_like(positive)
        faultless = Patients(probability=surely, positive=positive, answerable=all_of_them, groups=_groups(items))
        guarantee.thresholds(faultless, wish, recipe.label)


def calibrate(
    profile_folder: Path, recipe: Recipe, described: ProfileFile, fitted_on: tuple[Sequence[Item], str], bar: Progress
) -> dict[str, Any]:
    """Fit on the given images and write calibration.yaml, profile.yaml, metrics.json and the card."""
    items, source = fitted_on
    positive = np.array([item.positive for item in items])
    if positive.all() or not positive.any():
        raise DataError(f"{source} has images of one class only; calibration needs both")
    clean, changed = scored(profile_folder, recipe, described, items, bar)
    slope, intercept = platt(pooled(items, clean, changed), recipe.operating.prevalence)
    point, promised = operating_point(recipe, positive, _groups(items), clean, slope=slope, intercept=intercept)
    calibrated = CalibrationFile(
        weights_sha256="",
        method=f"{METHOD}, for a prevalence of {recipe.operating.prevalence:g}",
        fitted_on=f"{len(items)} images of {len(set(_groups(items)))} patients ({source}), "
        f"each also in {len(changed)} corrupted copies",
        slope=slope,
        intercept=intercept,
        operating_point=point,
        guarantee=promised,
    )
    profile.write(profile_folder, described, calibrated)
    measured = _measured(positive, clean, changed, calibrated)
    update_metrics(profile_folder, {"calibration": measured, "blind": {}})  # a blind figure is of its thresholds
    model_card.write(profile_folder)
    return measured


def _groups(items: Sequence[Item]) -> NDArray[np.str_]:
    return np.array([item.group for item in items])


def pooled(items: Sequence[Item], clean: Scores, changed: Sequence[Scores]) -> Sample:
    """The clean images and, with as much weight together, their corrupted copies."""
    styles = 1 + len(changed)
    return Sample(
        logit=np.concatenate([one.logit() for one in (clean, *changed)]),
        weight=np.repeat([1.0] + [1.0 / max(1, len(changed))] * len(changed), len(items)),
        positive=np.tile([item.positive for item in items], styles),
        clean=np.repeat([True] + [False] * len(changed), len(items)),
        groups=np.tile(_groups(items), styles),
    )


def operating_point(
    recipe: Recipe, positive: Bools, groups: NDArray[np.str_], clean: Scores, *, slope: float, intercept: float
) -> tuple[OperatingPointFile, GuaranteeFile | None]:
    """Place the thresholds on clean images: so that a promise is kept, or by a budget of abstentions.

    The limits of spread and distance are set without regard to labels, and the promise is made for what they leave.

    Raises DataError: no threshold keeps the promise.
    """
    operating = recipe.operating
    probability, spread = clean.probability(slope, intercept), clean.spread(slope, intercept)
    max_spread = round(float(np.quantile(spread, operating.spread_quantile)), 4)
    promised = None
    if (wish := _wish(recipe)) is None:
        report_at, rule_out_below = _by_budget(operating, positive, probability)
    else:
        answerable = (spread <= max_spread) & (clean.distance <= operating.max_distance)
        patients = Patients(probability=probability, positive=positive, answerable=answerable, groups=groups)
        kept = guarantee.thresholds(patients, wish, recipe.label)
        report_at, rule_out_below = kept.report_at, kept.rule_out_below
        promised = GuaranteeFile(
            **dataclasses.asdict(wish),
            positive_patients=kept.positives,
            negative_patients=kept.negatives,
            method=guarantee.METHOD,
        )
    point = OperatingPointFile(
        name=operating.name,
        label=recipe.label,
        report_at=report_at,
        rule_out_below=rule_out_below,
        max_spread=max_spread,
        max_distance=operating.max_distance,
        rule_out_max_distance=operating.rule_out_max_distance,
    )
    return point, promised


def _by_budget(operating: OperatingSection, positive: Bools, probability: Floats) -> tuple[float, float]:
    """Leave a share of each class on the unsure side of its own threshold, or beyond the other's."""
    p, n = probability[positive], probability[~positive]
    if operating.wrong is None:
        share = operating.abstain or 0.0
        report_at, rule_out_below = np.quantile(p, share), np.quantile(n, 1.0 - share)
    else:
        report_at, rule_out_below = np.quantile(n, 1.0 - operating.wrong), np.quantile(p, operating.wrong)
    return round(max(0.5, float(report_at)), 4), round(min(0.5, float(rule_out_below)), 4)


def _wish(recipe: Recipe) -> Wish | None:
    promised = recipe.operating.guarantee
    return None if promised is None else Wish(**promised.model_dump(), prevalence=recipe.operating.prevalence)


def scored(
    profile_folder: Path, recipe: Recipe, described: ProfileFile, items: Sequence[Item], bar: Progress
) -> tuple[Scores, list[Scores]]:
    """Score the images as they are, and in their corrupted copies."""
    network, stats = weights.load(profile_folder / "weights.safetensors", described.network, len(described.labels))
    task = bar.add_task("calibrate", total=len(items) * (recipe.operating.corrupted_copies + 1))
    spec = recipe.served_input
    clean = inference.score(network, stats, spec, inference.prepared(items, spec), lambda: bar.advance(task))
    changed = [
        inference.score(network, stats, spec, inputs, lambda: bar.advance(task)) for inputs in copied(recipe, items)
    ]
    return clean, changed


def copied(recipe: Recipe, items: Sequence[Item]) -> Iterator[torch.Tensor]:
    """Make the corrupted copies that a recipe calibrates on, one of all images at a time; as `inference.corrupted`."""
    if recipe.operating.corrupted_copies:
        decoded = images.load_all(items, recipe.data.source_px)
        augmenter = Augmenter(recipe.augment, recipe.served_input, recipe.data.source_px, recipe.seed)
        shapes = images.aspects(items) if recipe.served_input.keeps_shape else None
        for copy in range(recipe.operating.corrupted_copies):
            yield inference.corrupted(decoded, augmenter, recipe.seed + copy, shapes)


def _measured(positive: Bools, clean: Scores, changed: Sequence[Scores], calibrated: CalibrationFile) -> dict[str, Any]:
    """Say how well the fit fits its own images; performance is measured on the validation part instead."""

    largest = calibrated.operating_point.max_distance or np.inf

    def of(one: Scores) -> dict[str, float]:
        probability = one.probability(calibrated.slope, calibrated.intercept)
        return {
            "auc": round(bootstrap.auc(positive, probability), 4),
            "brier": round(bootstrap.brier(positive, probability), 4),
            "beyond_max_distance": round(float((one.distance > largest).mean()), 4),
        }

    return {
        "fitted_on": calibrated.fitted_on,
        "images": len(positive),
        "slope": calibrated.slope,
        "intercept": calibrated.intercept,
        "operating_point": calibrated.operating_point.model_dump(),
        "clean": of(clean),
        "corrupted": [of(one) for one in changed],
    } | ({"guarantee": calibrated.guarantee.model_dump()} if calibrated.guarantee else {})
