"""The probability while an ill image becomes a healthy one, pixel by pixel, in the order of its heat map.

Knows no chest and no figure of merit but the area under a curve. Deletion and insertion are those of Petsiuk et al.
(2018, RISE), but for what takes the pixels' place: grey (probability 0.67 in the mean) and a blurred copy (0.99) look
ill themselves to a network that reads radiographs, so that nothing could be seen to leave. A normal radiograph does
not. A map that shows what the network used makes the deletion curve fall early and the insertion curve rise early; the
same cells in random order are the measure of chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray

from cxr_node.training.saliency.probe import Explanation, Probe

STEPS = 6
"""Pictures of a curve after the first: a sixth of the pixels each."""
SHARES = np.linspace(0.0, 1.0, STEPS + 1)
"""Share of pixels deleted or inserted, at each point of a curve."""
Floats = NDArray[np.float64]


def area(curves: Floats) -> Floats:
    """Area under each curve, (images, STEPS + 1) -> (images,), in [0, 1]."""
    return np.asarray((curves[:, 1:] + curves[:, :-1]).mean(axis=1) / 2.0)


def curves(
    probe: Probe,
    inputs: torch.Tensor,
    explanations: Sequence[Explanation],
    healthy: torch.Tensor,
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """Follow each image's probability; one batch for each image.

    Parameters
    ----------
    inputs : float32, shape (images, 1, size_px, size_px), prepared
    explanations : what the network sees in them
    healthy : as `inputs`, the normal radiograph that takes each one's place

    Returns
    -------
    deletion, insertion, deletion_random, insertion_random -> float64, shape (images, STEPS + 1), in [0, 1]:
    probability along `SHARES`
    """
    ends = (probe.probabilities(inputs), probe.probabilities(healthy))
    rows = []
    for place, (image, normal, explanation) in enumerate(zip(inputs, healthy, explanations, strict=True)):
        shuffled = rng.permutation(explanation.active.size).reshape(explanation.active.shape).astype(np.float32)
        ranks = [_rank(cells, image.shape[-1]) for cells in (explanation.active, shuffled)]
        pictures = [_mixed(*pair, rank) for rank in ranks for pair in ((normal, image), (image, normal))]
        inner = probe.probabilities(torch.cat(pictures)).reshape(4, STEPS - 1)
        ill, well = float(ends[0][place]), float(ends[1][place])
        rows.append([[*((well, *one, ill) if row % 2 else (ill, *one, well))] for row, one in enumerate(inner)])
    found = np.array(rows).reshape(-1, 4, STEPS + 1).swapaxes(0, 1)  # (4, images, STEPS + 1)
    return dict(zip(("deletion", "insertion", "deletion_random", "insertion_random"), found, strict=True))


def _rank(cells: NDArray[np.float32], size_px: int) -> torch.Tensor:
    """Rank of each pixel, 0 for the first to go, as a share of all: (1, size_px, size_px) in [0, 1)."""
    spread = nnf.interpolate(torch.from_numpy(cells)[None, None], size=(size_px, size_px), mode="bilinear")
    places = torch.argsort(-spread.flatten(), stable=True)
    rank = torch.empty(len(places))
    rank[places] = torch.arange(len(places), dtype=torch.float32)
    return (rank / len(places)).reshape(1, size_px, size_px)


def _mixed(put: torch.Tensor, into: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    """Replace ever more pixels of `into` by those of `put`: (STEPS - 1, 1, size_px, size_px), ends left out."""
    cuts = torch.from_numpy(SHARES[1:-1].astype(np.float32)).reshape(-1, 1, 1, 1)
    return torch.where(rank[None] < cuts, put[None], into[None])
