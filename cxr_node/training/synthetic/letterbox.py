"""Training films in their own shape between bars, as `preprocess.prepare` shows them, with edges that lie anywhere.

Films are kept squashed in memory and get their shape back here, together with all other geometry, in one resampling.
Where a film ends says nothing of disease, and in one hospital's films it can tell the class: so strips are cut off and
margins added at random.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray

from cxr_node.model.preprocess import standardise
from cxr_node.model.profile import InputSpec
from cxr_node.training.data import images
from cxr_node.training.data.recipe_sections import AugmentSection
from cxr_node.training.synthetic.chance import Chance

Doubles = NDArray[np.float64]
SMALLEST_PX = 100
"""Pixels of film below which all of the picture is taken for film: there is too little to set a scale."""


def shapes(known: Doubles | None, count: int, rng: np.random.Generator) -> Doubles:
    """Width over height of each film; drawn where it is not known (None, or not a number)."""
    if known is None:
        known = np.full(count, np.nan)
    lost = np.isnan(known)
    found = known.copy()
    found[lost] = images.drawn_aspects(int(lost.sum()), rng)
    return found


def edges(count: int, section: AugmentSection, rng: np.random.Generator) -> Doubles:
    """Left, top, right and bottom edge of each film on the squashed one, which ends at -1 and 1: (count, 4)."""
    found = np.tile([-1.0, -1.0, 1.0, 1.0], (count, 1))
    for axis in (0, 1):
        kind = rng.random(count)
        cut = rng.uniform(0.0, 2.0 * section.edge_reach, (count, 2)) * (kind < section.cut)[:, None]
        alike = rng.random(count) < 0.5
        cut[alike, 1] = cut[alike, 0]
        added = rng.uniform(0.0, 2.0 * section.edge_reach, (count, 2)) * (kind > 1.0 - section.margin)[:, None]
        found[:, axis] += cut[:, 0] - added[:, 0]
        found[:, axis + 2] -= cut[:, 1] - added[:, 1]
    return found


def warped(
    batch: torch.Tensor, aspects: Doubles, section: AugmentSection, spec: InputSpec, chance: Chance
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move edges, give each film its shape, rotate, scale, stretch and shift, in one resampling.

    Parameters
    ----------
    batch : float32, shape (films, layers, source_px, source_px), squashed
    aspects : width over height of each

    Returns
    -------
    the films on the network's grid, and 1 where there is film: float32, (films, layers or 1, size_px, size_px)
    """
    count = len(batch)
    ends, place = edges(count, section, chance.edges), chance.place
    half, middle = (ends[:, 2:] - ends[:, :2]) / 2.0, (ends[:, 2:] + ends[:, :2]) / 2.0  # (films, 2): across, down
    shape = aspects * half[:, 0] / half[:, 1]
    zoom = np.exp(place.uniform(-section.scale, section.scale, count))
    stretch = np.exp(place.uniform(-section.aspect, section.aspect, count) / 2.0)
    mirror = np.where(place.random(count) < section.mirror, -1.0, 1.0)
    across = np.maximum(1.0, 1.0 / shape) * zoom * stretch  # half the grid's side, in halves of the film's width
    down = np.maximum(1.0, shape) * zoom / stretch
    angle = np.radians(chance.turn.uniform(-section.rotate_deg, section.rotate_deg, count))
    shift = place.uniform(-2.0 * section.shift, 2.0 * section.shift, (count, 2))
    theta = np.empty((count, 2, 3))
    theta[:, 0, 0], theta[:, 0, 1] = np.cos(angle) * across * mirror, -np.sin(angle) * across
    theta[:, 1, 0], theta[:, 1, 1] = np.sin(angle) * down * mirror, np.cos(angle) * down
    theta[:, :, 2] = shift
    theta *= half[:, :, None]
    theta[:, :, 2] += middle
    size = [count, batch.shape[1], spec.size_px, spec.size_px]
    grid = nnf.affine_grid(torch.from_numpy(theta.astype(np.float32)), size, align_corners=False)
    beyond = ("zeros", "border", "reflection")[int(place.integers(3))]  # what a margin shows
    shown = nnf.grid_sample(batch, grid, mode="bilinear", padding_mode=beyond, align_corners=False)
    low, high = (torch.from_numpy(side.astype(np.float32))[:, None, None] for side in (ends[:, :2], ends[:, 2:]))
    film = ((grid >= low) & (grid <= high)).all(dim=-1)[:, None].float()
    return shown * film, film


def standardised(batch: torch.Tensor, film: torch.Tensor) -> torch.Tensor:
    """Standardise what is film, as `preprocess.prepare` does; bars become 0.

    Parameters
    ----------
    batch, film : float32, shape (films, 1, size_px, size_px); film is 1 where there is film

    Notes
    -----
    `preprocess.standardise` wants a rectangle, and a turned film is none: what lies round it is filled with its own
    rows, over and over, which changes neither its quantiles nor its mean and spread by much.
    """
    inputs = torch.zeros_like(batch)
    for place, (picture, there) in enumerate(zip(batch[:, 0].numpy(), film[:, 0].numpy() > 0.5, strict=True)):
        seen = there if there.sum() >= SMALLEST_PX else np.ones_like(there)
        rows, cols = seen.any(axis=1), seen.any(axis=0)
        box = np.ix_(rows, cols)
        inner, inside = picture[box], seen[box]
        filled = np.where(inside, inner, np.resize(inner[inside], inner.shape))
        inputs[place, 0][torch.from_numpy(seen)] = torch.from_numpy(standardise(filled[None])[0][inside])
    return inputs
