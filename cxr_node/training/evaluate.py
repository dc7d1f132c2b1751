"""How well a profile does on labelled radiographs: intervals, never bare points.

Knows no training. Verdicts are made as in serving, by `model.decision`; intervals are bootstrapped over patients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_node.domain import Decision, Prediction, Verdict
from cxr_node.model import profile as profiles
from cxr_node.model import weights
from cxr_node.model.decision import decide
from cxr_node.model.profile import Profile
from cxr_node.training import card, data, folder, metrics, scores
from cxr_node.training.augment import Augmenter
from cxr_node.training.data import Item
from cxr_node.training.folder import RECIPE_LABELS, Labels
from cxr_node.training.progress import bar_of
from cxr_node.training.recipe import Recipe
from cxr_node.training.scores import Scores

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """One row per image: what is true, what the profile says."""

    positive: Bools
    groups: NDArray[np.str_]
    probability: Floats
    verdict: NDArray[np.str_]
    answered: Bools


def run(
    profile_folder: Path,
    data_folder: Path,
    *,
    part: str | None = None,
    labels: Labels = RECIPE_LABELS,
    corrupted: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a profile, keep the result in its metrics.json and renew its card.

    Parameters
    ----------
    part : training, validation, calibration or all; None: the validation part of the data that the profile was
        trained on, all images of any other
    labels : the data's label column and words
    corrupted : change the images as in training, to see what another scanner's style may cost

    Returns
    -------
    figures; each of `rates` as value, low and high of its 95 % interval, left out where it is not defined

    Raises
    ------
    DataError : the data cannot be evaluated on
    ModelError : the profile is not complete, or its hashes do not match
    """
    profile, recipe = profiles.load(profile_folder), folder.recipe_of(profile_folder)
    items, name = folder.held_out(profile_folder, data_folder, part, default="validation", labels=labels)
    with bar_of(progress) as bar:
        task = bar.add_task("evaluate", total=len(items))
        measured = evaluate(profile, recipe, items, corrupted=corrupted, on_image=lambda: bar.advance(task))
    known = folder.section(profile_folder, "evaluations")
    if labels != RECIPE_LABELS:
        words = (labels.positive or recipe.data.positive, labels.negative or recipe.data.negative)
        name += f" ({labels.column}: {' against '.join(words)})"
    name += ", corrupted" if corrupted else ""
    folder.update_metrics(profile_folder, {"evaluations": known | {name: measured}})
    card.write(profile_folder)
    return measured


def evaluate(
    profile: Profile, recipe: Recipe, items: Sequence[Item], *, corrupted: bool, on_image: Callable[[], None]
) -> dict[str, Any]:
    """Score, decide and measure, without touching the profile folder."""
    network, stats = weights.load(profile.weights_path, profile.network, len(profile.labels))
    inputs = _changed(recipe, items) if corrupted else scores.prepared(items, profile.input)
    scored = scores.score(network, stats, inputs, on_image)
    decisions = decisions_of(profile, scored)
    outcomes = Outcomes(
        positive=np.array([item.positive for item in items]),
        groups=np.array([item.group for item in items]),
        probability=scored.probability(profile.slope, profile.intercept),
        verdict=np.array([str(decision.verdict) for decision in decisions]),
        answered=np.array([decision.doubt is None for decision in decisions]),
    )
    return {
        "images": len(items),
        "positives": int(outcomes.positive.sum()),
        "patients": len(set(outcomes.groups.tolist())),
        "rates": _rates(outcomes),
        "verdicts": _counts(outcomes),
        "doubts": dict(Counter(str(decision.doubt) for decision in decisions if decision.doubt is not None)),
        "distance_quantiles": [round(float(q), 3) for q in np.quantile(scored.distance, [0.05, 0.5, 0.95])],
        "beyond_max_distance": round(
            float((scored.distance > (profile.operating_point.max_distance or np.inf)).mean()), 4
        ),
    }


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


def _changed(recipe: Recipe, items: Sequence[Item]) -> torch.Tensor:
    augmenter = Augmenter(recipe.augment, recipe.input, recipe.data.source_px, recipe.seed)
    return scores.corrupted(data.load_all(items, recipe.data.source_px), augmenter, recipe.seed + 1_000)


def _verdict_is(outcomes: Outcomes, verdict: Verdict) -> Bools:
    return np.asarray(outcomes.verdict == str(verdict))


SHARES: Mapping[str, Callable[[Outcomes], tuple[Bools, Bools]]] = {
    "sensitivity_at_0.5": lambda o: (o.probability >= 0.5, o.positive),
    "specificity_at_0.5": lambda o: (o.probability < 0.5, ~o.positive),
    "answered": lambda o: (o.answered, np.ones_like(o.answered)),
    "answered_of_positives": lambda o: (o.answered, o.positive),
    "answered_of_negatives": lambda o: (o.answered, ~o.positive),
    "sensitivity_of_answered": lambda o: (_verdict_is(o, Verdict.PNEUMONIA), o.positive & o.answered),
    "specificity_of_answered": lambda o: (_verdict_is(o, Verdict.NORMAL), ~o.positive & o.answered),
    "positive_predictive_value": lambda o: (o.positive, _verdict_is(o, Verdict.PNEUMONIA)),
    "negative_predictive_value": lambda o: (~o.positive, _verdict_is(o, Verdict.NORMAL)),
}
"""Name -> which images count, among which. Predictive values hold for the data's own share of positives."""

FIGURES: Mapping[str, Callable[[Bools, Floats], float]] = {
    "auc": metrics.auc,
    "brier": metrics.brier,
    "log_loss": metrics.log_loss,
    "calibration_error": metrics.calibration_error,
}


def _figure(figure: Callable[[Bools, Floats], float], outcomes: Outcomes) -> tuple[float, float, float]:
    return metrics.measured(
        lambda places: figure(outcomes.positive[places], outcomes.probability[places]), outcomes.groups
    )


def _rates(outcomes: Outcomes) -> dict[str, dict[str, float]]:
    """Measure all; left out is what is not defined, as specificity without negatives."""
    rates = {name: _figure(figure, outcomes) for name, figure in FIGURES.items()}
    for name, share in SHARES.items():
        hit, among = share(outcomes)
        rates[name] = metrics.share(hit[among], outcomes.groups[among])
    return {
        name: {part: round(value, 4) for part, value in zip(("value", "low", "high"), rate, strict=True)}
        for name, rate in rates.items()
        if np.isfinite(rate).all()
    }


def _counts(outcomes: Outcomes) -> dict[str, dict[str, int]]:
    truths = {"positive": outcomes.positive, "negative": ~outcomes.positive}
    return {truth: dict(sorted(Counter(outcomes.verdict[rows].tolist()).items())) for truth, rows in truths.items()}
