"""Does a heat map show what the network used? Weights are shuffled, and pixels replaced in the order of the map.

Knows no chest and no label. Sanity check (Adebayo et al. 2018): weights are shuffled from the top downwards, and the
map must change. Each tensor's values are shuffled instead of drawn anew: sizes stay as they were, so that activations
neither die nor explode on the way up. Deletion and insertion are those of Petsiuk et al. (2018, RISE), but for what
takes the pixels' place: grey (mean probability 0.67) and a blurred copy (0.99) look ill themselves to a network that
reads radiographs, so that nothing could be seen to leave; a normal radiograph does not. A map that shows what the
network used makes the deletion curve fall early and the insertion curve rise early; the same cells in random order are
the measure of chance.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import rankdata

from cxr_node.model.networks import Network
from cxr_node.training.saliency.probe import Explanation, Probe

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
STAGES: Mapping[str, float] = {"last layer": 0.0, "last quarter": 0.25, "last half": 0.5, "all layers": 1.0}
"""Share of the layers that are shuffled, counted from the last; one layer at least."""
DRAWS = 30
"""Shuffles of the last layer whose likeness is averaged: single ones said anything from 0.15 to 0.54 of one network.
They cost little, for the feature maps stay what they were."""
GRID = 32
"""Side on which maps are compared by structure."""


def likeness(
    probe: Probe,
    inputs: torch.Tensor,
    explanations: Sequence[Explanation],
    rng: np.random.Generator,
    on_image: Callable[[], None],
) -> dict[str, dict[str, Doubles]]:
    """Compare each image's map with the one that a shuffled network makes.

    Parameters
    ----------
    inputs : float32, shape (images, 1, size_px, size_px), prepared
    explanations : what the network itself sees in them

    Returns
    -------
    stage -> {"spearman", "ssim"}, each float64, shape (images,), in [-1, 1]. The stage "other image" compares the
    maps of two images by the network itself: so much likeness comes from where maps usually are. "last layer" is the
    mean of `DRAWS` shuffles, the others are one each.
    """
    own = [explanation.active for explanation in explanations]
    found = {"other image": _compared(own, own[1:] + own[:1])}
    layers = layers_behind(probe, inputs[:1])
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    maps = probe.maps(inputs)
    for stage, share in STAGES.items():
        chosen = layers[-max(1, round(share * len(layers))) :]
        shuffled, draws = Probe(profile=probe.profile, network=copy.deepcopy(probe.network)), []
        for _ in range(DRAWS if len(chosen) == 1 else 1):
            shuffle(shuffled.network, chosen, generator)
            seen = shuffled.explain_maps(maps) if len(chosen) == 1 else shuffled.explain(inputs)
            draws.append(_compared(own, [explanation.active for explanation in seen]))
        found[stage] = {name: np.mean([one[name] for one in draws], axis=0) for name in draws[0]}
        for _ in own:
            on_image()
    return found


def layers_behind(probe: Probe, image: torch.Tensor) -> list[str]:
    """Name the layers with learned weights that the judged logit depends on, first to last; (1, 1, size_px, size_px).

    Others, as a second head that judges something else or a frozen second opinion, would be shuffled in vain.
    """
    learned = ((name, [*layer.parameters(recurse=False)]) for name, layer in probe.network.named_modules())
    names = [name for name, weights in learned if weights and weights[0].requires_grad]
    first = [next(probe.network.get_submodule(name).parameters(recurse=False)) for name in names]
    with torch.enable_grad():
        logit = probe.network(image.to(first[0].device))[0, probe.label]
        found = torch.autograd.grad(logit, first, allow_unused=True)
    return [name for name, gradient in zip(names, found, strict=True) if gradient is not None]


def shuffle(network: Network, layers: Sequence[str], generator: torch.Generator) -> None:
    """Shuffle the weights of some layers in place, each tensor within itself."""
    with torch.no_grad():
        for name in layers:
            for values in network.get_submodule(name).parameters(recurse=False):
                order = torch.randperm(values.numel(), generator=generator).to(values.device)
                values.copy_(values.flatten()[order].reshape(values.shape))


def spearman(one: Floats, other: Floats) -> float:
    """Rank correlation of two maps; 0 where one of them is the same everywhere."""
    ranks = [rankdata(each.ravel()) for each in (one, other)]
    offsets = [each - each.mean() for each in ranks]
    size = float(np.sqrt(np.square(offsets[0]).sum() * np.square(offsets[1]).sum()))
    return float(offsets[0] @ offsets[1]) / size if size > 0.0 else 0.0


def ssim(one: Floats, other: Floats) -> float:
    """Structural similarity (Wang et al. 2004) of two maps scaled to a peak of 1, in Gaussian windows."""
    a, b = (_scaled(each) for each in (one, other))

    def blurred(plane: NDArray[np.float64]) -> Doubles:
        return np.asarray(ndimage.gaussian_filter(plane, 1.5, mode="reflect"))

    mean_a, mean_b = blurred(a), blurred(b)
    variance_a, variance_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    light, contrast = 0.01**2, 0.03**2  # the constants of the paper, for a range of 1
    similar = (2.0 * mean_a * mean_b + light) * (2.0 * both + contrast)
    return float((similar / ((mean_a**2 + mean_b**2 + light) * (variance_a + variance_b + contrast))).mean())


def _compared(some: Sequence[Floats], others: Sequence[Floats]) -> dict[str, Doubles]:
    pairs = list(zip(some, others, strict=True))
    return {
        "spearman": np.array([spearman(one, other) for one, other in pairs]),
        "ssim": np.array([ssim(one, other) for one, other in pairs]),
    }


def _scaled(active: Floats) -> Doubles:
    zoomed = ndimage.zoom(
        active.astype(np.float64), [GRID / size for size in active.shape], order=1, grid_mode=True, mode="nearest"
    )
    return np.asarray(zoomed / max(float(zoomed.max()), 1e-12))


STEPS = 6
"""Pictures of a curve after the first: a sixth of the pixels each."""
SHARES = np.linspace(0.0, 1.0, STEPS + 1)
"""Share of pixels deleted or inserted, at each point of a curve."""


def area(curves: Doubles) -> Doubles:
    """Area under each curve, (images, STEPS + 1) -> (images,), in [0, 1]."""
    return np.asarray((curves[:, 1:] + curves[:, :-1]).mean(axis=1) / 2.0)


def curves(
    probe: Probe,
    inputs: torch.Tensor,
    explanations: Sequence[Explanation],
    healthy: torch.Tensor,
    rng: np.random.Generator,
) -> dict[str, Doubles]:
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
