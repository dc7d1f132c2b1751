"""How far an image's features lie from those of the training images.

A Mahalanobis distance to the nearest class (Lee et al. 2018), on the leading axes of the within-class scatter, plus
what those axes leave over (Ren et al. 2021: without it foreign images can look near). Where a network has learned to
know outsiders (Hendrycks et al. 2019), the larger of both counts: a mirrored chest has the features of a chest.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

AXES = 16
"""Leading axes kept; with more of them, fewer adults were found foreign to children (76 % with 16, 67 % with 64)."""

EDGE, LEARNED_EDGE = 0.99, 0.98
"""Share of the population within a distance of 1. What the network learned stands nearer: at 0.99 it let 8 % of
mirrored chests pass, which no feature statistic notices, at 0.98 some 3 %."""


def fit(features: Floats, labels: NDArray[np.int64]) -> dict[str, Floats]:
    """Describe the training features.

    Parameters
    ----------
    features : float32, shape (images, channels), each image's `Network.signature`
    labels : int64, shape (images,), class of each image

    Returns
    -------
    the arrays that weights.safetensors keeps under `distance.*`:
        mean : (classes, channels), mean feature of each class
        axes : (channels, axes), orthonormal leading axes of the within-class scatter
        variance : (axes,), scatter along each
        residual_variance : (1,), scatter of all that the axes leave over, summed over it
        scale : (1,), divisor; 1 until `normalised` sets it
    """
    given = features.astype(np.float64)
    classes, places = np.unique(labels, return_inverse=True)
    mean = np.stack([given[places == one].mean(0) for one in range(len(classes))])
    inner = given - mean[places]
    kept = min(AXES, inner.shape[1] - 1, max(1, inner.shape[0] // 4))
    scatter = inner.T @ inner / max(1, inner.shape[0] - len(classes))
    variance, axes = np.linalg.eigh(scatter)  # ascending
    variance, axes = variance[::-1], axes[:, ::-1]
    stats = {
        "mean": mean,
        "axes": axes[:, :kept],
        "variance": variance[:kept].clip(1e-12),
        "residual_variance": variance[kept:].sum().clip(1e-12).reshape(1),
        "scale": np.ones(1),
    }
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in stats.items()}


def normalised(stats: Mapping[str, Floats], held_out: Floats, strangeness: Floats | None = None) -> dict[str, Floats]:
    """Set the scales so that 1.0 stands at the edge of the training population, seen on held-out images of it.

    Parameters
    ----------
    stats : as `fit` returns them
    held_out : float32, shape (images, channels), features of images that training never saw
    strangeness : float32, shape (images,), `Network.strangeness` of the same images, where the network learned it

    Returns
    -------
    the arrays of `fit`, and with `strangeness` also
        learned : (2,), its median and its percentile `LEARNED_EDGE`
    """
    unscaled = {**stats, "scale": np.ones(1, dtype=np.float32)}
    edge = np.quantile(mahalanobis(held_out, unscaled), EDGE)
    scaled = {**unscaled, "scale": edge.astype(np.float32).reshape(1)}
    if strangeness is not None:
        scaled["learned"] = np.quantile(strangeness, (0.5, LEARNED_EDGE)).astype(np.float32)
    return scaled


def distance(features: Floats, stats: Mapping[str, Floats], strangeness: Floats | None = None) -> Floats:
    """Measure each image's distance from the training images.

    Parameters
    ----------
    features : float32, shape (batch, channels), each image's `Network.signature`
    stats : the arrays of `normalised`, without the prefix `distance.`
    strangeness : float32, shape (batch,), each image's `Network.strangeness`; needed where `stats` has `learned`

    Returns
    -------
    float32, shape (batch,), 0 or larger; beyond 1.0 lies one or two per cent of the training population
    """
    measured = mahalanobis(features, stats)
    if strangeness is None:
        return measured
    middle, end = stats["learned"]
    return np.asarray(np.maximum(measured, (strangeness - middle) / max(end - middle, np.float32(1e-6))))


def mahalanobis(features: Floats, stats: Mapping[str, Floats]) -> Floats:
    """`distance` without what the network itself has learned of outsiders.

    In float64: the square of a feature that float32 holds need not fit there, and what the axes leave over is the
    difference of two such sums.
    """
    offset = features[:, None, :].astype(np.float64) - stats["mean"]  # (batch, classes, channels)
    along = offset @ stats["axes"]  # (batch, classes, axes)
    residual = (np.square(offset).sum(-1) - np.square(along).sum(-1)).clip(0.0)  # (batch, classes)
    axes = along.shape[-1]
    squared = (np.square(along) / stats["variance"]).sum(-1) + residual * axes / stats["residual_variance"]
    nearest = np.sqrt(squared.min(axis=1) / axes) / stats["scale"]  # (batch,)
    return np.asarray(np.minimum(nearest, np.finfo(np.float32).max).astype(np.float32))
