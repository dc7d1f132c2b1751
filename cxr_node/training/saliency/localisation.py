"""Where heat maps point: into the chest, to marks, to an opacity that was put there.

What a map of no meaning would reach stands beside each figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from cxr_node.training.measure import bootstrap
from cxr_node.training.measure.bootstrap import Interval
from cxr_node.training.saliency.probe import Case, Explanation, Probe
from cxr_node.training.synthetic import counterfactual, drawings
from cxr_node.training.synthetic.counterfactual import Pasted

INSIDE = 0.8
"""Share of a map's energy from which it counts as inside the chest, if its peak is there too. Not all of it: a map of
6 to 12 cells, spread bilinearly, leaks a cell beyond whatever it means. An even map has about 0.6."""
BANK_SIZE = 100
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Radiographs of one class and what the network sees in them: one row per image."""

    cases: list[Case]
    inputs: torch.Tensor
    explanations: list[Explanation]

    @property
    def groups(self) -> NDArray[np.str_]:
        """Patient of each image."""
        return np.array([case.group for case in self.cases], dtype=np.str_)

    def taken(self, places: Sequence[int]) -> Explained:
        """Some of the images."""
        return Explained(
            cases=[self.cases[place] for place in places],
            inputs=self.inputs[list(places)],
            explanations=[self.explanations[place] for place in places],
        )


def in_chest(probe: Probe, positives: Explained) -> dict[str, Interval]:
    """Where the maps of positive images lie, of those that have one."""
    maps = [probe.shown(one, case.pixels) for one, case in zip(positives.explanations, positives.cases, strict=True)]
    shown = np.array([bool(weight.any()) for weight in maps], dtype=np.bool_)
    chests = [case.chest for case, is_shown in zip(positives.cases, shown, strict=True) if is_shown]
    weights = [weight for weight in maps if weight.any()]
    films = [case.pixels for case, is_shown in zip(positives.cases, shown, strict=True) if is_shown]
    evens = [probe.even(film) for film in films]
    groups, report_at = positives.groups[shown], probe.profile.operating_point.report_at

    def energies(some: Sequence[Floats], places: Sequence[Bools]) -> NDArray[np.float64]:
        return np.array([_energy(weight, place) for weight, place in zip(some, places, strict=True)])

    regions, lungs = [chest.region for chest in chests], [chest.lungs for chest in chests]
    energy = energies(weights, regions)
    peak = np.array([region[_peak(weight)] for weight, region in zip(weights, regions, strict=True)], dtype=np.bool_)
    inside = peak & (energy >= INSIDE)
    reported = np.array([one.probability >= report_at for one in positives.explanations], dtype=np.bool_)[shown]
    return {
        "shown": bootstrap.share(shown, positives.groups),
        "energy_in_chest": bootstrap.mean(energy, groups),
        "energy_in_lungs": bootstrap.mean(energies(weights, lungs), groups),
        "energy_in_chest_by_chance": bootstrap.mean(energies(evens, regions), groups),
        "energy_in_lungs_by_chance": bootstrap.mean(energies(evens, lungs), groups),
        "peak_in_chest": bootstrap.share(peak, groups),
        "inside_chest": bootstrap.share(inside, groups),
        "inside_chest_of_reported": bootstrap.share(inside[reported], groups[reported]),
    }


def on_marks(
    probe: Probe, positives: Explained, rng: np.random.Generator, on_image: Callable[[], None]
) -> dict[str, Interval]:
    """What letters, cables and frames outside the chest do to maps and probabilities of positive images."""
    bank = drawings.bank(BANK_SIZE, max([max(case.pixels.shape) for case in positives.cases], default=64), rng)
    changed = _each(positives.cases, lambda case: counterfactual.marks(case.pixels, case.chest, bank, rng), on_image)
    explanations = probe.explain(probe.prepared([one.pixels for one in changed]))
    moved = [
        abs(after.probability - before.probability)
        for before, after in zip(positives.explanations, explanations, strict=True)
    ]
    rows, kept = [], []
    for place, (one, before, after) in enumerate(zip(changed, positives.explanations, explanations, strict=True)):
        even = probe.even(one.pixels)
        first, second = (probe.shown(explanation, one.pixels) for explanation in (before, after))
        seen = one.place & (even > 0.0)
        if first.any() and second.any() and seen.any():
            rows.append([_energy(weight, seen) for weight in (first, second, even)] + [float(seen[_peak(second)])])
            kept.append(place)
    table, groups = np.array(rows).reshape(-1, 4), positives.groups[kept]
    return {
        "energy_on_marks": bootstrap.mean(table[:, 1], groups),
        "energy_on_marks_before": bootstrap.mean(table[:, 0], groups),
        "energy_on_marks_by_chance": bootstrap.mean(table[:, 2], groups),
        "peak_on_marks": bootstrap.share(table[:, 3] > 0.0, groups),
        "probability_moved_by_marks": bootstrap.mean(np.array(moved), positives.groups),
    }


def on_opacities(
    probe: Probe, negatives: Explained, rng: np.random.Generator, on_image: Callable[[], None]
) -> tuple[dict[str, Interval], dict[str, dict[str, Any]]]:
    """Whether the peak lies in an opacity that was put into a normal lung; of all, and by the opacity's shape."""
    groups, report_at = negatives.groups, probe.profile.operating_point.report_at
    changed = _each(negatives.cases, lambda case: counterfactual.opacity(case.pixels, case.chest, rng), on_image)
    explanations = probe.explain(probe.prepared([one.pixels for one in changed]))
    before, after = (
        np.array([explanation.probability for explanation in some]) for some in (negatives.explanations, explanations)
    )
    pairs = zip(changed, explanations, strict=True)
    away = np.array([away_cells(probe, one.pixels, one.place, explanation) for one, explanation in pairs])
    found, nearly = away <= 0.0, away <= 0.5
    raised = (before < report_at) & (after >= report_at)
    by_chance = [
        float((one.place & case.chest.lungs).sum() / case.chest.lungs.sum())
        for one, case in zip(changed, negatives.cases, strict=True)
    ]
    shapes = np.array([one.shape for one in changed])
    by_shape: dict[str, dict[str, Any]] = {}
    for shape in sorted(set(shapes.tolist())):
        rows = shapes == shape
        hits = {"found": found[rows], "found_nearly": nearly[rows], "raised": raised[rows]}
        shares = {name: bootstrap.share(hit, groups[rows]).as_json() for name, hit in hits.items()}
        by_shape[shape] = {"images": int(rows.sum()), **shares}
    return {
        "opacity_raises": bootstrap.share(raised, groups),
        "probability_moved_by_opacity": bootstrap.mean(after - before, groups),
        "opacity_found": bootstrap.share(found, groups),
        "opacity_found_nearly": bootstrap.share(nearly, groups),
        "opacity_found_by_chance": bootstrap.mean(np.array(by_chance), groups),
        "opacity_found_of_raised": bootstrap.share(found[raised], groups[raised]),
        "opacity_found_nearly_of_raised": bootstrap.share(nearly[raised], groups[raised]),
    }, by_shape


def _each(cases: Sequence[Case], change: Callable[[Case], Pasted], on_image: Callable[[], None]) -> list[Pasted]:
    changed = []
    for case in cases:
        changed.append(change(case))
        on_image()
    return changed


def away_cells(probe: Probe, film: Floats, place: Bools, explanation: Explanation) -> float:
    """How far the peak lies from a place, in cells of the map; 0 within it, infinite where there is no map."""
    weight = probe.shown(explanation, film)
    if not weight.any() or not place.any():
        return float("inf")
    sides = zip(place.shape, explanation.active.shape, probe.borders(film), strict=True)
    cell = [(1.0 - sum(border)) * side / cells for side, cells, border in sides]
    away = ndimage.distance_transform_edt(~place, sampling=[1.0 / size for size in cell])
    return float(away[_peak(weight)])


def _energy(weight: Floats, place: Bools) -> float:
    return float(weight[place].sum() / weight.sum())


def _peak(weight: Floats) -> tuple[int, ...]:
    return tuple(int(one) for one in np.unravel_index(int(weight.argmax()), weight.shape))
