"""Do the heat maps mean anything? Five questions, each answered in figures with intervals.

    chest       does the map of a positive image lie in the chest
    marks       does it go to letters, cables and frames when there are some
    opacities   does it point at an opacity that was put into a normal lung
    deletion    do the pixels under it carry the probability
    randomised  does it depend on what the network has learned

Knows no training and no page. Intervals are bootstrapped over patients. What `measure` returns, where a figure is
{"value", "low", "high"}:

    positives, negatives, followed   number of images
    cells        rows of a map
    rates        NAMES -> figure, without what the images do not define
    opacities    shape -> {"images", and the figures "found", "found_nearly", "raised"}
    curves       "shares" of pixels; "deletion", "insertion", "deletion_random", "insertion_random" -> value, low and
                 high at each share
    randomised   stage -> {"spearman", "ssim"} -> figure
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_node import heatmap
from cxr_node.model.networks import Network
from cxr_node.model.profile import Profile
from cxr_node.training.data.images import Item
from cxr_node.training.measure import bootstrap
from cxr_node.training.measure.bootstrap import Interval
from cxr_node.training.saliency import faithfulness, localisation
from cxr_node.training.saliency.localisation import INSIDE, Explained
from cxr_node.training.saliency.probe import Probe, case_of

MOST_OF_A_CLASS = 50
"""Images of each class that are looked at, drawn by chance: intervals of 0.2 at most, in seconds."""
MOST_FOLLOWED = 16
"""Positive images for deletion and randomisation, which explanation at each of them some 25 times."""
NAMES = {
    "shown": "Positive images with a heat map",
    "energy_in_chest": "Share of the map's energy in the chest",
    "energy_in_chest_by_chance": "... of an even map",
    "energy_in_lungs": "Share of the map's energy in the lung fields",
    "energy_in_lungs_by_chance": "... of an even map",
    "peak_in_chest": "Peak in the chest",
    "inside_chest": f"Inside the chest: peak, and {INSIDE:.0%} of the energy",
    "inside_chest_of_reported": "... of images reported as positive",
    "energy_on_marks": "Energy on pasted letters, cables, frames",
    "energy_on_marks_before": "... at the same places before they were pasted",
    "energy_on_marks_by_chance": "... of an even map",
    "peak_on_marks": "Peak on them",
    "probability_moved_by_marks": "Mean change of the probability by them (absolute)",
    "opacity_raises": "Opacity pasted into a normal lung: now reported as positive",
    "probability_moved_by_opacity": "Mean change of the probability by it",
    "opacity_found": "Peak in the opacity (no map: not found)",
    "opacity_found_nearly": "... or within half a cell of it",
    "opacity_found_by_chance": "... by a peak anywhere in the lungs",
    "opacity_found_of_raised": "Peak in the opacity, of images now reported",
    "opacity_found_nearly_of_raised": "... or within half a cell of it",
    "deletion_area": "Area under the deletion curve (small is good)",
    "deletion_area_random": "... cells in random order",
    "deletion_gain": "... difference",
    "insertion_area": "Area under the insertion curve (large is good)",
    "insertion_area_random": "... cells in random order",
    "insertion_gain": "... difference",
}
"""Figure -> what a reader is told."""


def measure(
    profile: Profile,
    network: Network,
    items: Sequence[Item],
    rng: np.random.Generator,
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Ask all five questions.

    `network` : with the profile's weights; its evaluation mode is switched on
    `items` : labelled radiographs that training never saw; up to `MOST_OF_A_CLASS` of each class are drawn
    `rng` : the only source of chance
    `on_image` : called up to `steps(items)` times
    Returns JSON-able, as the head of this file tells
    Raises DataError: a file is not an image.
    """
    probe = Probe(profile=profile, network=network.eval())
    positives = _explained_cases(probe, _drawn(items, True, rng), on_image)
    negatives = _explained_cases(probe, _drawn(items, False, rng), on_image)
    rates = localisation.in_chest(probe, positives)
    rates |= localisation.on_marks(probe, positives, rng, on_image)
    found, by_shape = localisation.on_opacities(probe, negatives, rng, on_image)
    followed = _followed(probe, positives)
    curves, areas = _curves(probe, followed, negatives, rng)
    known = {name: one.as_json() for name, one in (rates | found | areas).items() if one.is_known()}
    return {
        "positives": len(positives.cases),
        "negatives": len(negatives.cases),
        "followed": len(followed.cases),
        "cells": len(positives.explanations[0].active) if positives.explanations else 0,
        "rates": {name: known[name] for name in NAMES if name in known},
        "opacities": by_shape,
        "curves": curves,
        "randomised": _randomised(probe, followed, rng, on_image),
    }


def steps(items: Sequence[Item]) -> int:
    """How often `measure` calls `on_image` at most."""
    positives = min(MOST_OF_A_CLASS, sum(item.positive for item in items))
    negatives = min(MOST_OF_A_CLASS, sum(not item.positive for item in items))
    return 2 * (positives + negatives) + len(faithfulness.STAGES) * min(MOST_FOLLOWED, positives)


def _drawn(items: Sequence[Item], positive: bool, rng: np.random.Generator) -> list[Item]:
    of_class = [item for item in items if item.positive is positive]
    return [of_class[place] for place in sorted(rng.permutation(len(of_class))[:MOST_OF_A_CLASS])]


def _explained_cases(probe: Probe, items: Sequence[Item], on_image: Callable[[], None]) -> Explained:
    cases = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for case in pool.map(case_of, items):
            cases.append(case)
            on_image()
    inputs = probe.prepared([case.pixels for case in cases])
    return Explained(cases=cases, inputs=inputs, explanations=probe.explain(inputs))


def _followed(probe: Probe, positives: Explained) -> Explained:
    """Some positive images that have a map, spread evenly over them."""
    shown = [
        place for place, explanation in enumerate(positives.explanations) if heatmap.scaled(explanation.active).any()
    ]
    places = np.linspace(0, len(shown) - 1, min(len(shown), MOST_FOLLOWED)).round().astype(int)
    return positives.taken([shown[place] for place in places])


def _healthy(followed: Explained, negatives: Explained) -> list[int]:
    """For each image, the normal one whose chest lies most alike, among the half that is surest to be normal."""
    order = np.argsort([explanation.probability for explanation in negatives.explanations], kind="stable")
    sure = [int(place) for place in order[: -(-len(order) // 2)]]
    regions = [_coarse(negatives.cases[place].chest.region) for place in sure]
    chosen = []
    for case in followed.cases:
        own = _coarse(case.chest.region)
        chosen.append(sure[int(np.argmax([(own & other).sum() / (own | other).sum() for other in regions]))])
    return chosen


def _coarse(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Sample a region at 64 x 64 places: radiographs have many sizes."""
    rows, cols = ((np.arange(64) + 0.5) * side / 64 for side in region.shape)
    return np.asarray(region[np.ix_(rows.astype(int), cols.astype(int))])


def _curves(
    probe: Probe, followed: Explained, negatives: Explained, rng: np.random.Generator
) -> tuple[dict[str, Any], dict[str, Interval]]:
    if not followed.explanations or not negatives.explanations:
        return {}, {}
    healthy = negatives.inputs[_healthy(followed, negatives)]
    found = faithfulness.curves(probe, followed.inputs, followed.explanations, healthy, rng)
    groups = followed.groups
    areas = {kind: faithfulness.area(curves) for kind, curves in found.items()}
    rates = {kind.replace("tion", "tion_area"): bootstrap.mean(values, groups) for kind, values in areas.items()}
    rates["deletion_gain"] = bootstrap.mean(areas["deletion_random"] - areas["deletion"], groups)
    rates["insertion_gain"] = bootstrap.mean(areas["insertion"] - areas["insertion_random"], groups)
    curves: dict[str, Any] = {"shares": faithfulness.SHARES.round(4).tolist()}
    for kind, rows in found.items():
        points = [bootstrap.mean(column, groups).as_json() for column in rows.T]
        curves[kind] = {part: [point[part] for point in points] for part in ("value", "low", "high")}
    return curves, rates


def _randomised(
    probe: Probe, followed: Explained, rng: np.random.Generator, on_image: Callable[[], None]
) -> dict[str, dict[str, dict[str, float]]]:
    if not followed.explanations:
        return {}
    found = faithfulness.likeness(probe, followed.inputs, followed.explanations, rng, on_image)
    groups = followed.groups
    return {
        stage: {name: bootstrap.mean(values, groups).as_json() for name, values in compared.items()}
        for stage, compared in found.items()
    }
