"""Does the heat map point where a radiologist saw the finding? Real opacities, boxed by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_node.domain import Decision, Verdict
from cxr_node.model.networks import Network
from cxr_node.model.profile import Profile
from cxr_node.training.data.images import Box, Item
from cxr_node.training.measure import bootstrap
from cxr_node.training.saliency.localisation import away_cells
from cxr_node.training.saliency.probe import Case, Probe, case_of

NAMES = {
    "peak_in_box_of_called": "Peak in a radiologist's box, of positives called",
    "peak_nearly_in_box_of_called": "... or within half a cell of it",
    "peak_in_box_of_called_by_chance": "... by a peak anywhere in the lungs",
    "peak_in_box": "Peak in a box, of all films with one (no map: not found)",
    "peak_nearly_in_box": "... or within half a cell of it",
    "shown": "Films with a box that have a heat map",
}
"""Figure -> what a reader is told."""


def place_of(boxes: Sequence[Box], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mark the boxes on a picture: a pixel belongs to one if its middle lies in it."""
    rows, cols = ((np.arange(side) + 0.5) / side for side in shape)
    place = np.zeros(shape, dtype=np.bool_)
    for left, top, width, height in boxes:
        place |= ((rows >= top) & (rows <= top + height))[:, None] & ((cols >= left) & (cols <= left + width))
    return place


def measure(
    profile: Profile,
    network: Network,
    judged: Sequence[tuple[Item, Decision]],
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Look where the maps of positive films with a box have their peak.

    `network` : with the profile's weights; its evaluation mode is switched on
    `judged` : films and what was decided on each; those without a box, and negatives, are left out
    Returns images, `called`: how many of them were called positive; `rates`: NAMES -> figure
    """
    probe = Probe(profile=profile, network=network.eval())
    boxed = [(item, decision) for item, decision in judged if item.boxes and item.positive]
    away, chance, maps = [], [], []
    for item, _ in boxed:
        case = case_of(item)
        place = place_of(item.boxes, case.pixels.shape)
        (explanation,) = probe.explain(probe.prepared([case.pixels]))
        away.append(away_cells(probe, case.pixels, place, explanation))
        maps.append(bool(probe.shown(explanation, case.pixels).any()))
        chance.append(_by_chance(case, place))
        on_image()
    groups = np.array([item.group for item, _ in boxed], dtype=np.str_)
    called = np.array([decision.verdict is Verdict.POSITIVE for _, decision in boxed], dtype=np.bool_)
    found, nearly = np.array(away) <= 0.0, np.array(away) <= 0.5
    rates = {
        "peak_in_box_of_called": bootstrap.share(found[called], groups[called]),
        "peak_nearly_in_box_of_called": bootstrap.share(nearly[called], groups[called]),
        "peak_in_box_of_called_by_chance": bootstrap.mean(np.array(chance)[called], groups[called]),
        "peak_in_box": bootstrap.share(found, groups),
        "peak_nearly_in_box": bootstrap.share(nearly, groups),
        "shown": bootstrap.share(np.array(maps, dtype=np.bool_), groups),
    }
    return {
        "images": len(boxed),
        "called": int(called.sum()),
        "rates": {name: one.as_json() for name, one in rates.items() if one.is_known()},
    }


def _by_chance(case: Case, place: NDArray[np.bool_]) -> float:
    lungs = case.chest.lungs if case.chest.lungs.any() else np.ones_like(place)
    return float((place & lungs).sum() / lungs.sum())
