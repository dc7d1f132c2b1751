"""How far an image's features lie from those of the training images.

Knows no pixels and no network: features in, a number out. A Mahalanobis distance to the nearest class
(Lee et al. 2018), on the leading axes of the within-class scatter, plus what those axes leave over
(Ren et al. 2021 show that without it foreign images can look near). Where a network has learned to know outsiders
(Hendrycks et al. 2019), the larger of both counts: a mirrored chest has the features of a chest.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

AXES = 16
"""Leading axes kept; with more of them, fewer adults were found foreign to children (76 % with 16, 67 % with 64)."""

EDGE, LEARNED_EDGE = 0.99, 0.98
"""Share of the population within a distance of 1. What the network learned stands nearer: at 0.99 it let 8 % of
mirrored chests pass, which no feature statistic notices, at 0.98 some 3 %."""


def fit(features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Describe the training features.

    Parameters
    ----------
    features : float32, shape (images, channels), each image's `Network.signature`
    labels : int64, shape (images,), class of each image

    Returns
    -------
    the tensors that weights.safetensors keeps under `distance.*`:
        mean : (classes, channels), mean feature of each class
        axes : (channels, axes), orthonormal leading axes of the within-class scatter
        variance : (axes,), scatter along each
        residual_variance : (1,), scatter of all that the axes leave over, summed over it
        scale : (1,), divisor; 1 until `normalised` sets it
    """
    features = features.double()
    classes = torch.unique(labels)
    mean = torch.stack([features[labels == one].mean(0) for one in classes])
    inner = features - mean[torch.searchsorted(classes, labels)]
    kept = min(AXES, inner.shape[1] - 1, max(1, inner.shape[0] // 4))
    scatter = inner.T @ inner / max(1, inner.shape[0] - len(classes))
    variance, axes = torch.linalg.eigh(scatter)  # ascending
    variance, axes = variance.flip(0), axes.flip(1)
    stats = {
        "mean": mean,
        "axes": axes[:, :kept],
        "variance": variance[:kept].clamp_min(1e-12),
        "residual_variance": variance[kept:].sum().clamp_min(1e-12).reshape(1),
        "scale": torch.ones(1),
    }
    return {name: value.float().contiguous() for name, value in stats.items()}


def normalised(
    stats: Mapping[str, torch.Tensor], held_out: torch.Tensor, strangeness: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Set the scales so that 1.0 stands at the edge of the training population, seen on held-out images of it.

    Parameters
    ----------
    stats : as `fit` returns them
    held_out : float32, shape (images, channels), features of images that training never saw
    strangeness : float32, shape (images,), `Network.strangeness` of the same images, where the network learned it

    Returns
    -------
    the tensors of `fit`, and with `strangeness` also
        learned : (2,), its median and its percentile `LEARNED_EDGE`
    """
    unscaled = {**stats, "scale": torch.ones(1)}
    scaled = {**unscaled, "scale": torch.quantile(mahalanobis(held_out, unscaled), EDGE).reshape(1)}
    if strangeness is not None:
        scaled["learned"] = torch.quantile(strangeness.float(), torch.tensor([0.5, LEARNED_EDGE]))
    return scaled


def distance(
    features: torch.Tensor, stats: Mapping[str, torch.Tensor], strangeness: torch.Tensor | None = None
) -> torch.Tensor:
    """Measure each image's distance from the training images.

    Parameters
    ----------
    features : float32, shape (batch, channels), each image's `Network.signature`
    stats : the tensors of `normalised`, without the prefix `distance.`
    strangeness : float32, shape (batch,), each image's `Network.strangeness`; needed where `stats` has `learned`

    Returns
    -------
    float32, shape (batch,), 0 or larger; beyond 1.0 lies one or two per cent of the training population
    """
    measured = mahalanobis(features, stats)
    if strangeness is None:
        return measured
    middle, end = stats["learned"].float()
    return torch.maximum(measured, (strangeness.float() - middle) / (end - middle).clamp_min(1e-6))


def mahalanobis(features: torch.Tensor, stats: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """`distance` without what the network itself has learned of outsiders."""
    offset = features.float()[:, None, :] - stats["mean"].float()  # (batch, classes, channels)
    along = offset @ stats["axes"].float()  # (batch, classes, axes)
    residual = (offset.square().sum(-1) - along.square().sum(-1)).clamp_min(0.0)  # (batch, classes)
    squared = (along.square() / stats["variance"].float()).sum(-1) + residual * along.shape[-1] / stats[
        "residual_variance"
    ].float()
    nearest: torch.Tensor = (squared / along.shape[-1]).amin(dim=1).sqrt()  # (batch,)
    return nearest / stats["scale"].float()
