"""How well a profile does on labelled radiographs: intervals, never bare points.

Verdicts are made as in serving, by `model.decision`; what figures are made of them is in `metrics`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr_node.domain import Decision, Prediction
from cxr_node.errors import DataError
from cxr_node.model import weights
from cxr_node.model.decision import decide
from cxr_node.model.profile import Profile
from cxr_node.training.data import images
from cxr_node.training.data.images import Item
from cxr_node.training.data.profile_folder import Labels, section, update_metrics
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.measure import inference, metrics, model_card
from cxr_node.training.measure.bootstrap import Floats
from cxr_node.training.measure.inference import Scores
from cxr_node.training.measure.metrics import Outcomes
from cxr_node.training.synthetic.augment import Augmenter


class Change(StrEnum):
    """What is done to the images before they are judged, to see what the answers rest on."""

    NONE = "none"
    CORRUPTED = "corrupted"
    """As in training: what another scanner's style may cost."""
    RESHAPED = "reshaped"
    """Cut to the shape of a film of the other class: what was read from width over height is wrong now."""
    EXCHANGED = "exchanged"
    """Surroundings and style come from an image of the other class: what was read from them is wrong now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One data set as a profile judged it: the images, the answers in the same order, the figures."""

    items: Sequence[Item]
    outcomes: Outcomes
    decisions: Sequence[Decision]
    figures: dict[str, Any]


class Scorer:
    """A profile's network with its thresholds: prepared images in, scores and decisions out."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.network, self.stats = weights.load(profile.weights_path, profile.network, len(profile.labels))

    def score(self, inputs: torch.Tensor, on_image: Callable[[], None]) -> Scores:
        """Score float32, shape (images, pictures, side_px, side_px), standardised."""
        return inference.score(self.network, self.stats, self.profile.input, inputs, on_image)

    def probability(self, scored: Scores) -> Floats:
        """Calibrated probability, shape (images,), in [0, 1]."""
        return scored.probability(self.profile.slope, self.profile.intercept)


def evaluate(
    profile: Profile, recipe: Recipe, items: Sequence[Item], change: Change, on_image: Callable[[], None]
) -> dict[str, Any]:
    """Score, decide and measure, without touching the profile folder."""
    return study(Scorer(profile), items, prepared(recipe, items, change), on_image).figures


def study(
    scorer: Scorer,
    items: Sequence[Item],
    inputs: torch.Tensor,
    on_image: Callable[[], None],
    by: Sequence[str] = (),
) -> Study:
    """Score prepared images, decide and measure; split by the usual columns and those of `by`."""
    scored = scorer.score(inputs, on_image)
    decisions = decisions_of(scorer.profile, scored)
    outcomes = Outcomes(
        positive=np.array([item.positive for item in items]),
        groups=np.array([item.group for item in items]),
        probability=scorer.probability(scored),
        verdict=np.array([str(decision.verdict) for decision in decisions]),
        answered=np.array([decision.abstain_reason is None for decision in decisions]),
    )
    beyond = scored.distance > (scorer.profile.operating_point.max_distance or np.inf)
    figures = {
        "images": len(items),
        "positives": int(outcomes.positive.sum()),
        "patients": len(set(outcomes.groups.tolist())),
        "rates": metrics.rates(outcomes),
        "verdicts": metrics.verdicts(outcomes, scorer.profile.target),
        "doubts": dict(
            Counter(str(decision.abstain_reason) for decision in decisions if decision.abstain_reason is not None)
        ),
        "distance_quantiles": [round(float(q), 3) for q in np.quantile(scored.distance, [0.05, 0.5, 0.95])],
        "beyond_max_distance": round(float(beyond.mean()), 4),
        "subgroups": metrics.subgroups(outcomes, [item.tags for item in items], by),
    }
    return Study(items=items, outcomes=outcomes, decisions=decisions, figures=figures)


def decisions_of(profile: Profile, scored: Scores) -> list[Decision]:
    """Decide on each image as the node does."""
    label = profile.operating_point.label
    rows = zip(
        scored.probability(profile.slope, profile.intercept),
        scored.spread(profile.slope, profile.intercept),
        scored.distance,
        strict=True,
    )
    return [
        decide(Prediction(probability={label: float(p)}, spread=float(s), distance=float(d)), profile.operating_point)
        for p, s, d in rows
    ]


def prepared(
    recipe: Recipe, items: Sequence[Item], change: Change, on_image: Callable[[], None] = lambda: None
) -> torch.Tensor:
    """Decode, change and prepare images: float32, shape (images, pictures, side_px, side_px).

    Raises DataError: an image cannot be read, images of one class only were to change places, or shapes that are all
    the same.
    """
    if change is Change.NONE:
        return inference.prepared(items, recipe.served_input, on_image)
    if change is Change.RESHAPED:
        return inference.reshaped(items, recipe.served_input, recipe.seed + 1_000, on_image)
    decoded = images.load_all(items, recipe.data.source_px, on_image)
    seed, shapes = recipe.seed + 1_000, images.aspects(items) if recipe.served_input.keeps_shape else None
    if change is Change.CORRUPTED:
        augmenter = Augmenter(recipe.augment, recipe.served_input, recipe.data.source_px, recipe.seed)
        return inference.corrupted(decoded, augmenter, seed, shapes)
    positive = np.array([item.positive for item in items])
    if positive.all() or not positive.any():
        raise DataError("surroundings can be exchanged between two classes only; all these images are of one")
    return inference.exchanged(decoded, positive, recipe.served_input, seed, shapes)


def named(name: str, recipe: Recipe, labels: Labels, change: Change) -> str:
    """Name an evaluation by its data, the words for its classes and what was done to the images."""
    if not labels.are_those_of_the_recipe:
        words = (labels.positive or (recipe.data.positive,), labels.negative or (recipe.data.negative,))
        name += f" ({labels.column}: {' against '.join(' or '.join(side) for side in words)})"
    return name + ("" if change is Change.NONE else f", {change}")


def keep(profile_folder: Path, measured: dict[str, dict[str, Any]]) -> None:
    """Write evaluations into metrics.json, in place of those of the same names, and renew the card."""
    known = section(profile_folder, "evaluations")
    update_metrics(profile_folder, {"evaluations": known | measured})
    model_card.write(profile_folder)


def sampled(items: Sequence[Item], count: int) -> list[Item]:
    """Take images of different patients, the classes in turn: always the same ones of the same images."""
    firsts = {item.group: item for item in sorted(items, key=_lot, reverse=True)}
    classes = [sorted((i for i in firsts.values() if i.positive is side), key=_lot) for side in (True, False)]
    half = [min(len(classes[0]), max(count - count // 2, count - len(classes[1]))), 0]
    half[1] = min(len(classes[1]), count - half[0])
    return [item for side, number in zip(classes, half, strict=True) for item in side[:number]]


def _lot(item: Item) -> str:
    return hashlib.sha256(item.digest.encode()).hexdigest()
