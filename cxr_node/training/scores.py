"""What a network says of many labelled images: logits of all views, and the distance from the training data.

Knows no thresholds. Every image goes through `model.preprocess` and `model.predictor.look`, as in serving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_node.model import distance, preprocess
from cxr_node.model.networks import Network
from cxr_node.model.predictor import calibrated, image_logits, look, spread
from cxr_node.model.profile import InputSpec
from cxr_node.training import data
from cxr_node.training.augment import Augmenter
from cxr_node.training.data import Item

BATCH = 32
Floats = NDArray[np.float64]


def _silent() -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One row per image.

    Attributes
    ----------
    logits : float32, shape (images, views, 1); the first view is the image itself
    distance : float64, shape (images,); 1.0 is the 99th percentile of the training population
    """

    logits: torch.Tensor
    distance: Floats

    def logit(self) -> Floats:
        """Mean over the views: what is calibrated; shape (images,)."""
        return np.asarray(image_logits(self.logits)[:, 0].double().numpy())

    def probability(self, slope: float, intercept: float) -> Floats:
        """Calibrated probability, shape (images,), in [0, 1]."""
        return np.asarray(calibrated(image_logits(self.logits), slope, intercept)[:, 0].numpy())

    def spread(self, slope: float, intercept: float) -> Floats:
        """Largest difference of the calibrated probability between views, shape (images,), in [0, 1]."""
        return np.asarray(spread(calibrated(self.logits, slope, intercept))[:, 0].numpy())


def prepared(items: Sequence[Item], spec: InputSpec, on_image: Callable[[], None] = _silent) -> torch.Tensor:
    """Decode and prepare images: float32, shape (images, 1, size_px, size_px)."""
    batch = torch.empty((len(items), 1, spec.size_px, spec.size_px))
    for place, item in enumerate(items):
        batch[place, 0] = torch.from_numpy(preprocess.prepare(data.load(item), spec))
        on_image()
    return batch


def corrupted(images: NDArray[np.uint8], augmenter: Augmenter, seed: int) -> torch.Tensor:
    """Change decoded images as in training, as a stand-in for scanners that the data does not have.

    Parameters
    ----------
    images : uint8, shape (images, source_px, source_px)

    Returns
    -------
    float32, shape (images, 1, size_px, size_px), standardised
    """
    rng = np.random.default_rng(seed)
    return torch.cat([augmenter(images[start : start + BATCH], rng) for start in range(0, len(images), BATCH)])


@torch.inference_mode()
def logits(network: Network, inputs: torch.Tensor) -> Floats:
    """Logit of each input, without views: (images, 1, size_px, size_px) -> float64, shape (images,)."""
    network.eval()
    return np.asarray(torch.cat([network(chunk)[:, 0] for chunk in torch.split(inputs, BATCH)]).double().numpy())


@torch.inference_mode()
def signatures(network: Network, inputs: torch.Tensor, on_image: Callable[[], None] = _silent) -> torch.Tensor:
    """What `model.distance` measures: (images, 1, size_px, size_px) -> float32, shape (images, channels)."""
    network.eval()
    rows = []
    for chunk in torch.split(inputs, BATCH):
        rows.append(network.signature(network.early(chunk)))
        for _ in chunk:
            on_image()
    return torch.cat(rows)


def score(
    network: Network,
    stats: Mapping[str, torch.Tensor],
    inputs: Iterable[torch.Tensor],
    on_image: Callable[[], None] = _silent,
) -> Scores:
    """Score prepared images in all their views.

    Parameters
    ----------
    network : its evaluation mode is switched on
    stats : as `model.distance.normalised` returns them
    inputs : float32, shape (1, size_px, size_px) each, standardised
    """
    network.eval()
    rows, distances = [], []
    for image in inputs:
        sight = look(network, preprocess.views(image[0].numpy())[None])
        rows.append(sight.logits[0])
        distances.append(float(distance.distance(sight.signature, stats)[0]))
        on_image()
    return Scores(logits=torch.stack(rows), distance=np.array(distances))
