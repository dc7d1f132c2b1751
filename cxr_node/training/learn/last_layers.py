"""What the opinions beside a network say: their last layers fitted, once all trunks have learned.

A trunk's features hold more than the shortcut that its last layer took (Kirichenko et al. 2023, ICLR). Each layer is
fitted for itself to the training images as they are, in corrupted copies, in the surroundings of the other class, and,
where their shape is known, cut to the shape of one of the other class. Soft and sharp films of a class weigh alike.
The network's own last layer stays: lessons taught it where to look, and no label here says where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.optimize import minimize

from cxr_node.errors import ConfigError
from cxr_node.model.network import Network
from cxr_node.training.data import device, images, sharpness
from cxr_node.training.data.images import Item
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.data.recipe_sections import OpinionsSection
from cxr_node.training.measure import inference
from cxr_node.training.synthetic.augment import Augmenter

WAYS = 3
"""Ways in which every training image is shown; some are shown in one more."""
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Parts = Mapping[str, Sequence[Item]]
Way = tuple[torch.Tensor, Bools, Floats]
"""Inputs, whether each is positive, and what it weighs."""


def fitted(recipe: Recipe, network: Network, dealt: tuple[Parts, Sequence[Item]], bar: Progress) -> None:
    """Fit them in place, each as loud as the recipe says.

    `network` : as it will be served, in evaluation mode
    `dealt` : the parts, and those films of the training part whose shape is known
    """
    if (section := recipe.opinions) is None:
        return
    parts, shaped = dealt
    held_out = parts["calibration"]
    total = WAYS * len(parts["training"]) + len(shaped) * (section.cut_weight > 0.0) + len(held_out)
    task = bar.add_task("opinions", total=total)

    def features(inputs: torch.Tensor) -> list[Floats]:
        return _read(network, inputs, lambda: bar.advance(task), bfloat16=recipe.schedule.bfloat16)

    seen = [(features(inputs), positive, share) for inputs, positive, share in _ways(recipe, section, parts, shaped)]
    rows, positives, shares = zip(*seen, strict=True)
    quiet = features(inference.prepared(held_out, recipe.served_input))
    own, *others = network.last_layers()
    spread = (quiet[0] @ own.weight.detach().double().numpy()[0]).std()
    asked = [one for one in (recipe.second, recipe.shaped) if one is not None]
    for place, (layer, said) in enumerate(zip(others, asked, strict=True), 1):
        shown = np.concatenate([row[place] for row in rows])
        found, bias = fit(shown, np.concatenate(positives), np.concatenate(shares), penalty=said.penalty)
        loudness = said.weight * spread / (quiet[place] @ found).std()
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(loudness * found)[None])
            layer.bias.fill_(float(loudness * bias))


def require_shapes(recipe: Recipe, shaped: Sequence[Item]) -> None:
    """Refuse to cut films to the shape of others where too few shapes are known: before hours of training, not after.

    Raises ConfigError: there are not films of both classes, of more than one shape.
    """
    if recipe.opinions is None or recipe.opinions.cut_weight == 0.0:
        return
    if len({item.positive for item in shaped}) < 2 or len({item.aspect for item in shaped}) < 2:
        raise ConfigError(
            f"opinions.cut_weight: data.shapes lists the shapes of {len(shaped)} films of the training part; "
            "films of both classes are needed, of more than one shape. Set it to 0 to do without"
        )


def fit(features: Floats, positive: Bools, share: Floats, *, penalty: float) -> tuple[Floats, float]:
    """Logistic regression on standardised features, both classes with the same weight: -> weights, intercept.

    `features` : shape (images, channels)
    `share` : shape (images,), weight of each within its class
    `penalty` : of the squared weights, beside a mean log loss of 1 for each class
    """
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    standard = np.hstack([(features - mean) / spread, np.ones((len(features), 1))])
    target = np.where(positive, 1.0, -1.0)
    share = np.where(positive, share / share[positive].sum(), share / share[~positive].sum())

    def loss(numbers: Floats) -> tuple[float, Floats]:
        margin = target * (standard @ numbers)
        pull = -share * target / (1.0 + np.exp(np.clip(margin, -500.0, 500.0)))
        free = np.append(numbers[:-1], 0.0)
        value = float((share * np.logaddexp(0.0, -margin)).sum() + penalty * free @ free)
        return value, standard.T @ pull + 2.0 * penalty * free

    found = minimize(loss, np.zeros(standard.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x
    weight = found[:-1] / spread
    return weight, float(found[-1] - weight @ mean)


def _ways(recipe: Recipe, section: OpinionsSection, parts: Parts, shaped: Sequence[Item]) -> Iterator[Way]:
    """Show the training part, one way after the other: a way of all films fills a gigabyte."""
    items, spec = parts["training"], recipe.served_input
    decoded, positive = images.load_all(items, recipe.data.source_px), np.array([item.positive for item in items])
    share = sharpness.levelled(sharpness.of_all(decoded), positive.astype(np.int64), section.level_sharpness)
    aspects = images.aspects(items) if spec.keeps_shape else None
    augmenter = Augmenter(recipe.augment, spec, recipe.data.source_px, recipe.seed)
    yield inference.prepared(items, spec), positive, share
    yield inference.corrupted(decoded, augmenter, recipe.seed, aspects), positive, share
    yield inference.exchanged(decoded, positive, spec, recipe.seed, aspects), positive, share
    if section.cut_weight > 0.0:
        side = np.array([item.positive for item in shaped])
        own = np.array([sharpness.of(images.load(item)) for item in shaped])
        levelled = sharpness.levelled(own, side.astype(np.int64), section.level_sharpness)
        yield inference.reshaped(shaped, spec, recipe.seed), side, section.cut_weight * levelled


@torch.inference_mode()
def _read(network: Network, inputs: torch.Tensor, advance: Callable[[], None], *, bfloat16: bool) -> list[Floats]:
    """What each last layer reads of some images: shape (images, channels) each."""
    found = []
    for chunk in torch.split(inputs, inference.BATCH):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            found.append([read.double().numpy() for read in network.read(device.placed(chunk, network))])
        for _ in chunk:
            advance()
    return [np.concatenate(rows) for rows in zip(*found, strict=True)]
