"""What a network says of many labelled images: logits of all views, and features.

Knows no thresholds. Everything goes through `model.preprocess`, as in serving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_node.model import preprocess
from cxr_node.model.networks import Network
from cxr_node.model.profile import InputSpec
from cxr_node.training import data
from cxr_node.training.data import Item

BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One row per image.

    Attributes
    ----------
    logits : float64, shape (images, views); the first column is the image itself
    features : float32, shape (images, channels), pooled, of the image itself
    """

    logits: NDArray[np.float64]
    features: torch.Tensor


def prepared(items: Sequence[Item], spec: InputSpec, on_image: Callable[[], None] = lambda: None) -> torch.Tensor:
    """Decode and prepare images: float32, shape (images, 1, size_px, size_px)."""
    batch = torch.empty((len(items), 1, spec.size_px, spec.size_px))
    for place, item in enumerate(items):
        batch[place, 0] = torch.from_numpy(preprocess.prepare(data.load(item), spec))
        on_image()
    return batch


@torch.inference_mode()
def logits(network: Network, inputs: torch.Tensor) -> NDArray[np.float64]:
    """Logit of each input, without views: (images, 1, size_px, size_px) -> float64, shape (images,)."""
    network.eval()
    rows = [network(chunk)[:, 0] for chunk in inputs.split(BATCH)]
    return np.asarray(torch.cat(rows).double().numpy())


@torch.inference_mode()
def score(network: Network, inputs: Iterable[torch.Tensor], on_image: Callable[[], None] = lambda: None) -> Scores:
    """Score prepared images in all their views.

    Parameters
    ----------
    inputs : float32 images, shape (1, size_px, size_px) each, standardised
    """
    network.eval()
    rows, features = [], []
    for image in inputs:
        shown = preprocess.views(image[0].numpy())  # (views, 1, size_px, size_px)
        feature_map = network.features(shown)  # (views, channels, rows, cols)
        rows.append(network.head(feature_map)[:, 0].double().numpy())
        features.append(network.pooled(feature_map[:1])[0])
        on_image()
    return Scores(logits=np.stack(rows), features=torch.stack(features))
