"""What a network says of many labelled images: logits of all views, and the distance from the training data.

Knows no thresholds. Every image goes through `model.preprocess` and `model.torch_runtime`, as in serving.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_node.errors import DataError
from cxr_node.model import ood_distance, preprocess
from cxr_node.model.networks import Network
from cxr_node.model.predictor import calibrated, image_logits, spread
from cxr_node.model.profile import InputSpec
from cxr_node.model.torch_runtime import TorchRuntime
from cxr_node.training.data import device, images
from cxr_node.training.data.images import Item, in_shape
from cxr_node.training.synthetic import augment
from cxr_node.training.synthetic.augment import Augmenter

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
    distance : float64, shape (images,); 1.0 is the edge of the training population
    """

    logits: NDArray[np.float32]
    distance: Floats

    def logit(self) -> Floats:
        """Mean over the views: what is calibrated; shape (images,)."""
        return image_logits(self.logits)[:, 0].astype(np.float64)

    def probability(self, slope: float, intercept: float) -> Floats:
        """Calibrated probability, shape (images,), in [0, 1]."""
        return calibrated(image_logits(self.logits)[:, 0], slope, intercept)

    def spread(self, slope: float, intercept: float) -> Floats:
        """Largest difference of the calibrated probability between views, shape (images,), in [0, 1]."""
        return spread(calibrated(self.logits, slope, intercept))[:, 0]


def prepared(items: Sequence[Item], spec: InputSpec, on_image: Callable[[], None] = _silent) -> torch.Tensor:
    """Decode and prepare images: float32, shape (images, pictures, side_px, side_px)."""
    batch = empty(len(items), spec)
    for place, item in enumerate(items):
        batch[place] = torch.from_numpy(preprocess.pictures(images.load(item), spec))
        on_image()
    return batch


def empty(count: int, spec: InputSpec) -> torch.Tensor:
    """Room for so many prepared images."""
    return torch.empty((count, spec.pictures, spec.side_px, spec.side_px))


def corrupted(
    images: NDArray[np.uint8], augmenter: Augmenter, seed: int, aspects: Floats | None = None
) -> torch.Tensor:
    """Change decoded images as in training, as a stand-in for scanners that the data does not have.

    Parameters
    ----------
    images : uint8, shape (images, source_px, source_px)
    aspects : width over height of each, for a letterbox

    Returns
    -------
    float32, shape (images, pictures, side_px, side_px), standardised
    """
    rng = np.random.default_rng(seed)
    nobody = np.ones(BATCH, dtype=bool)  # positives get no opacity drawn
    changed = []
    for start in range(0, len(images), BATCH):
        chunk = images[start : start + BATCH]
        shapes = None if aspects is None else aspects[start : start + BATCH]
        changed.append(augmenter(chunk, nobody[: len(chunk)], rng, aspects=shapes).inputs)
    return torch.cat(changed)


def exchanged(
    images: NDArray[np.uint8],
    positive: NDArray[np.bool_],
    spec: InputSpec,
    seed: int,
    aspects: Floats | None = None,
) -> torch.Tensor:
    """Give each image the surroundings and the style of one of the other class: what of the answer was context?

    Letters, wards, devices and habits of exposure tell the class in one hospital's images (Zech et al. 2018), and a
    held-out part of the same images cannot show it. Here all of them tell the wrong class.

    Parameters
    ----------
    images : uint8, shape (images, source_px, source_px)
    positive : bool, shape (images,), both classes
    aspects : width over height of each, for a letterbox

    Returns
    -------
    float32, shape (images, pictures, side_px, side_px), standardised
    """
    rng = np.random.default_rng(seed)
    batch = empty(len(images), spec)
    for place, image in enumerate(images):
        other = images[rng.choice(np.flatnonzero(positive != positive[place]))].astype(np.float32) / 255.0
        changed = augment.like(image.astype(np.float32) / 255.0, other, float(rng.uniform(0.3, 1.0)))
        augment.surround(changed, other, rng)
        if aspects is not None:
            changed = in_shape(changed, float(aspects[place]))
        batch[place] = torch.from_numpy(preprocess.pictures(changed, spec))
    return batch


def reshaped(items: Sequence[Item], spec: InputSpec, seed: int, on_image: Callable[[], None] = _silent) -> torch.Tensor:
    """Cut each image, about its middle, to the width over height of one of the other class.

    The shape of a film tells the class in one hospital's images; squashed to a square, it still does. Cutting is what
    another hospital's collimation does, and leaves the lungs where they are.

    Returns
    -------
    float32, shape (images, pictures, side_px, side_px), standardised

    Raises DataError: images of one class only, or all of one shape: it was lost.
    """
    positive = np.array([item.positive for item in items])
    shapes = np.array([images.load(item).shape for item in items], dtype=np.float64)
    aspect = shapes[:, 1] / shapes[:, 0]
    if positive.all() or not positive.any() or np.ptp(aspect) == 0.0:
        raise DataError("shapes can be exchanged between two classes of images that still have them")
    rng = np.random.default_rng(seed)
    batch = empty(len(items), spec)
    for place, item in enumerate(items):
        other = float(rng.choice(aspect[positive != positive[place]]))
        batch[place] = torch.from_numpy(preprocess.pictures(cut_to(images.load(item), other), spec))
        on_image()
    return batch


def cut_to(picture: NDArray[np.float32], aspect: float) -> NDArray[np.float32]:
    """Cut the longer side of an image about its middle until its width over height is `aspect`."""
    rows, cols = picture.shape
    kept_rows, kept_cols = min(rows, max(1, round(cols / aspect))), min(cols, max(1, round(rows * aspect)))
    top, left = (rows - kept_rows) // 2, (cols - kept_cols) // 2
    return np.ascontiguousarray(picture[top : top + kept_rows, left : left + kept_cols])


@torch.inference_mode()
def logits(network: Network, inputs: torch.Tensor, heads: int = 1) -> Floats:
    """Logit of each input, without views: (images, pictures, side_px, side_px) -> float64, shape (images,).

    `heads` : how many of the first logits are averaged
    """
    network.eval()
    rows = [network(device.placed(chunk, network))[:, :heads].mean(dim=1) for chunk in torch.split(inputs, BATCH)]
    return np.asarray(torch.cat(rows).double().cpu().numpy())


@torch.inference_mode()
def signatures(
    network: Network, inputs: torch.Tensor, on_image: Callable[[], None] = _silent
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """What `model.ood_distance` measures.

    Parameters
    ----------
    inputs : float32, shape (images, pictures, side_px, side_px), standardised

    Returns
    -------
    signatures, float32, shape (images, channels); strangeness, float32, shape (images,), None where not learned
    """
    network.eval()
    rows, strange = [], []
    for chunk in torch.split(inputs, BATCH):
        early_map = network.early(chunk)
        rows.append(network.signature(early_map))
        learned = network.strangeness(network.late(early_map)) if network.learns_outsiders else None
        strange += [] if learned is None else [learned]
        for _ in chunk:
            on_image()
    return torch.cat(rows).numpy(), torch.cat(strange).numpy() if strange else None


def score(
    network: Network,
    stats: Mapping[str, NDArray[np.float32]],
    spec: InputSpec,
    inputs: torch.Tensor,
    on_image: Callable[[], None] = _silent,
) -> Scores:
    """Score prepared images in all views of `spec`.

    Parameters
    ----------
    network : is switched to evaluation, its weights laid out for convolutions
    stats : as `model.ood_distance.normalised` returns them
    inputs : float32, shape (images, pictures, side_px, side_px), standardised
    """
    runtime = TorchRuntime(network, 0)  # one for all threads: it turns the weights' memory round, which none may read
    parts = torch.tensor_split(inputs, device.cores())
    scored = device.on_all_cores(lambda part: _scored(runtime, stats, spec, part, on_image), parts)
    rows = [row for part in scored for row in part]
    return Scores(logits=np.stack([logits for logits, _ in rows]), distance=np.array([far for _, far in rows]))


def _scored(
    runtime: TorchRuntime,
    stats: Mapping[str, NDArray[np.float32]],
    spec: InputSpec,
    inputs: torch.Tensor,
    on_image: Callable[[], None],
) -> list[tuple[NDArray[np.float32], float]]:
    rows = []
    for image in inputs:
        output = runtime.infer(preprocess.views(image.numpy(), spec)[None])
        rows.append((output.logits[0], float(ood_distance.distance(output.signature, stats, output.strangeness)[0])))
        on_image()
    return rows
