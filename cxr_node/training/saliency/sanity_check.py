"""Does the map depend on what was learned? Weights are shuffled from the top downwards, and the map must change.

Knows no radiograph. After Adebayo et al. (2018, "Sanity checks for saliency maps"). Each tensor's values are shuffled
instead of drawn anew: sizes stay as they were, so that activations neither die nor explode on the way up.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import rankdata
from torch import nn

from cxr_node.model.networks import Network
from cxr_node.training.saliency.probe import Explanation, Probe

Floats = NDArray[np.float32]
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
) -> dict[str, dict[str, NDArray[np.float64]]]:
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
    """Name the layers with weights that the judged logit depends on, first to last; (1, 1, size_px, size_px).

    Others, as a second head that judges something else, would be shuffled in vain.
    """
    names = [name for name, layer in probe.network.named_modules() if _has_weights(layer)]
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

    def blurred(plane: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.gaussian_filter(plane, 1.5, mode="reflect"))

    mean_a, mean_b = blurred(a), blurred(b)
    variance_a, variance_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    light, contrast = 0.01**2, 0.03**2  # the constants of the paper, for a range of 1
    similar = (2.0 * mean_a * mean_b + light) * (2.0 * both + contrast)
    return float((similar / ((mean_a**2 + mean_b**2 + light) * (variance_a + variance_b + contrast))).mean())


def _has_weights(module: nn.Module) -> bool:
    """Whether a module has weights of its own."""
    return next(module.parameters(recurse=False), None) is not None


def _compared(some: Sequence[Floats], others: Sequence[Floats]) -> dict[str, NDArray[np.float64]]:
    pairs = list(zip(some, others, strict=True))
    return {
        "spearman": np.array([spearman(one, other) for one, other in pairs]),
        "ssim": np.array([ssim(one, other) for one, other in pairs]),
    }


def _scaled(active: Floats) -> NDArray[np.float64]:
    """Spread over `GRID` x `GRID`, peak 1."""
    zoomed = ndimage.zoom(
        active.astype(np.float64), [GRID / size for size in active.shape], order=1, grid_mode=True, mode="nearest"
    )
    return np.asarray(zoomed / max(float(zoomed.max()), 1e-12))
