"""A second opinion beside a learned network: linear, on frozen ImageNet features of another trunk.

Another trunk errs elsewhere, and a linear layer alone learns little of one hospital. It is fitted to the training
images as they are, in corrupted copies, and in the surroundings of the other class; its logits are then scaled to a
share of the first network's on the calibration part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.optimize import minimize

from cxr_node.model import networks
from cxr_node.model.network import Network
from cxr_node.model.networks import MobileNetV2Second
from cxr_node.training.data import images
from cxr_node.training.data.images import Item
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.data.recipe_sections import SecondSection
from cxr_node.training.measure import inference
from cxr_node.training.synthetic.augment import Augmenter

SHOWN = 3
"""Ways in which each training image is shown."""
BATCH = 32
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def added(
    recipe: Recipe, trunk: Path, network: Network, items: tuple[Sequence[Item], Sequence[Item]], bar: Progress
) -> Network:
    """Build the same network with a second opinion, fitted.

    `trunk` : ImageNet features of EfficientNet-Lite0
    `items` : the training part, and the calibration part, whose logits say how loud the opinion is

    Raises ModelError: `trunk` cannot be read or holds another; no MobileNetV2 without classes is trained.
    """
    section, (seen, held_out) = _section(recipe), items
    whole = networks.build(recipe.second_spec, 1)
    whole.load_state_dict(network.state_dict(), strict=False)
    whole.eval()
    if not isinstance(whole, MobileNetV2Second):
        raise TypeError("a second opinion is added to a MobileNetV2")  # the recipe refuses others
    networks.load_trunk(whole.second.trunk, trunk)
    task = bar.add_task("second opinion", total=SHOWN * len(seen) + 2 * len(held_out))
    advance = partial(bar.advance, task)
    shown = [_passed(whole.second.features, inputs, advance) for inputs in _ways(recipe, seen)]
    positive = np.tile([item.positive for item in seen], SHOWN)
    weight, bias = fit(np.concatenate(shown), positive, penalty=section.penalty)
    held_out_inputs = inference.prepared(held_out, recipe.input)
    opinions = _passed(whole.second.features, held_out_inputs, advance) @ weight
    loudness = section.weight * _passed(network.eval(), held_out_inputs, advance)[:, 0].std() / opinions.std()
    with torch.no_grad():
        whole.second.last.weight.copy_(torch.from_numpy(loudness * weight)[None])
        whole.second.last.bias.fill_(loudness * bias)
    return whole


def fit(features: Floats, positive: Bools, *, penalty: float) -> tuple[Floats, float]:
    """Logistic regression on standardised features, both classes with the same weight: -> weights, intercept.

    `features` : shape (images, channels)
    `penalty` : of the squared weights, beside a mean log loss of 1 for each class
    """
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    standard = np.hstack([(features - mean) / spread, np.ones((len(features), 1))])
    target = np.where(positive, 1.0, -1.0)
    share = np.where(positive, 1.0 / positive.sum(), 1.0 / (~positive).sum())

    def loss(numbers: Floats) -> tuple[float, Floats]:
        margin = target * (standard @ numbers)
        pull = -share * target / (1.0 + np.exp(np.clip(margin, -500.0, 500.0)))
        free = np.append(numbers[:-1], 0.0)
        value = float((share * np.logaddexp(0.0, -margin)).sum() + penalty * free @ free)
        return value, standard.T @ pull + 2.0 * penalty * free

    found = minimize(loss, np.zeros(standard.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x
    weight = found[:-1] / spread
    return weight, float(found[-1] - weight @ mean)


def _section(recipe: Recipe) -> SecondSection:
    if recipe.second is None:
        raise TypeError("the recipe asks for no second opinion")
    return recipe.second


def _ways(recipe: Recipe, items: Sequence[Item]) -> list[torch.Tensor]:
    """The images as they are, in corrupted copies, and in the surroundings and style of the other class."""
    decoded = images.load_all(items, recipe.data.source_px)
    positive = np.array([item.positive for item in items])
    augmenter = Augmenter(recipe.augment, recipe.input, recipe.data.source_px, recipe.seed)
    return [
        inference.prepared(items, recipe.input),
        inference.corrupted(decoded, augmenter, recipe.seed),
        inference.exchanged(decoded, positive, recipe.input, recipe.seed),
    ]


@torch.inference_mode()
def _passed(way: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, advance: Callable[[], None]) -> Floats:
    found = []
    for start in range(0, len(inputs), BATCH):
        batch = inputs[start : start + BATCH]
        found.append(way(batch).double().numpy())
        for _ in batch:
            advance()
    return np.concatenate(found)
