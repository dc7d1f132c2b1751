"""Does an answer stay where the film's edges lie elsewhere? A margin is added, or a strip cut off, and nothing else.

Width over height alone can tell a class in one hospital's films; a network that read it moves here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_node.domain import Verdict
from cxr_node.model import preprocess
from cxr_node.training.data import images
from cxr_node.training.data.images import Item
from cxr_node.training.measure import bootstrap
from cxr_node.training.measure.bootstrap import Bools, Floats, Interval
from cxr_node.training.measure.evaluate import Scorer, decisions_of

Pixels = NDArray[np.float32]
Edges = tuple[float, float, float, float]
PADDED, CUT = 0.125, 0.10
"""Shares of a side: as far as collimation and reading consoles differ."""
_SIDES = {
    "left": (1, 0, 0, 0),
    "right": (0, 1, 0, 0),
    "left and right": (1, 1, 0, 0),
    "top": (0, 0, 1, 0),
    "bottom": (0, 0, 0, 1),
    "top and bottom": (0, 0, 1, 1),
}
MOVES: Mapping[str, Edges] = {
    f"{said} {share:.1%}, {name}": (left * moved, right * moved, top * moved, bottom * moved)
    for said, share, moved in (("padded by", PADDED, PADDED), ("cut by", CUT, -CUT))
    for name, (left, right, top, bottom) in _SIDES.items()
}
"""What is done -> how far left, right, top and bottom edge move outwards, as shares of the width or the height."""
PARTS = ("move", "of_positives", "of_negatives")
"""Of a variant: mean moves of all films, of positives, of negatives."""
AT_ONCE = 16
"""Films that are in memory together."""


def moved(picture: Pixels, edges: Edges) -> Pixels:
    """Move the edges of a film; what is added is black, as an unexposed margin.

    Parameters
    ----------
    picture : float32, shape (rows, cols), range [0, 1]
    edges : as in `MOVES`; negative cuts
    """
    rows, cols = picture.shape
    left, right, top, bottom = (
        round(share * side) for share, side in zip(edges, (cols, cols, rows, rows), strict=True)
    )
    kept = picture[max(-top, 0) : rows - max(-bottom, 0), max(-left, 0) : cols - max(-right, 0)]
    return np.pad(kept, ((max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))))


def steps(count: int) -> int:
    """How often `measure` calls `on_image` for so many films."""
    return count * (1 + len(MOVES))


def measure(scorer: Scorer, items: Sequence[Item], on_image: Callable[[], None]) -> dict[str, Any]:
    """Compare the answers to films whose edges were moved with those to the films as they are.

    Returns images; `variants`: for each of `MOVES` the mean move of the logit (mean over the views, before
    calibration) of all films, of positives and of negatives, and how many verdicts change, and turn to their opposite;
    `move`: the largest of the mean moves without its sign; `changes`, `flips` among `answers`, of all variants
    """
    logit, verdict = _answers(scorer, items, on_image)
    groups = np.array([item.group for item in items])
    positive = np.array([item.positive for item in items], dtype=np.bool_)
    variants = {
        name: _compared(logit[:, place] - logit[:, 0], (verdict[:, 0], verdict[:, place]), positive, groups)
        for place, name in enumerate(MOVES, start=1)
    }
    largest = max((one["move"] for one in variants.values()), key=lambda move: abs(float(move["value"])))
    return {
        "images": len(items),
        "move": _unsigned(Interval(**largest)).as_json(),
        "changes": sum(one["changes"] for one in variants.values()),
        "flips": sum(one["flips"] for one in variants.values()),
        "answers": len(items) * len(variants),
        "variants": variants,
    }


def _answers(scorer: Scorer, items: Sequence[Item], on_image: Callable[[], None]) -> tuple[Floats, NDArray[np.str_]]:
    """Logits and verdicts, (films, 1 + moves) each; the film as it is comes first."""
    logits, verdicts = [], []
    for start in range(0, len(items), AT_ONCE):
        shown = [_shown(images.load(item), scorer) for item in items[start : start + AT_ONCE]]
        scored = scorer.score(torch.cat(shown), on_image)
        logits += scored.logit().tolist()
        verdicts += [str(one.verdict) for one in decisions_of(scorer.profile, scored)]
    shape = (len(items), 1 + len(MOVES))
    return np.array(logits).reshape(shape), np.array(verdicts).reshape(shape)


def _shown(picture: Pixels, scorer: Scorer) -> torch.Tensor:
    copies = [picture, *(moved(picture, edges) for edges in MOVES.values())]
    return torch.from_numpy(np.stack([preprocess.pictures(copy, scorer.profile.input) for copy in copies]))


def _compared(
    move: Floats, verdicts: tuple[NDArray[np.str_], NDArray[np.str_]], positive: Bools, groups: NDArray[np.str_]
) -> dict[str, Any]:
    before, after = verdicts
    unsure = str(Verdict.INDETERMINATE)
    parts = dict(zip(PARTS, (np.ones_like(positive), positive, ~positive), strict=True))
    means = {name: bootstrap.mean(move[rows], groups[rows]) for name, rows in parts.items()}
    changed = before != after
    return {
        **{name: one.as_json() for name, one in means.items() if one.is_known()},
        "changes": int(changed.sum()),
        "flips": int((changed & (before != unsure) & (after != unsure)).sum()),
        "answers": len(move),
    }


def _unsigned(move: Interval) -> Interval:
    ends = (abs(move.low), abs(move.high))
    crosses = move.low < 0.0 < move.high
    return Interval(value=abs(move.value), low=0.0 if crosses else min(ends), high=max(ends))
