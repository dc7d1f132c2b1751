"""A third answer beside a network and its second opinion: of a trained network that sees the film in its own shape.

What a squashed film looks like depends on where its edges are cut; this one's answer does not. It is added as it is,
but for a factor, which the calibration part gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import Progress

from cxr_node.errors import ConfigError
from cxr_node.model import networks, profile, weights
from cxr_node.model.network import Network
from cxr_node.model.networks import EfficientNetLite0, MobileNetV2Shaped
from cxr_node.model.profile import Geometry
from cxr_node.training.data.images import Item
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.data.recipe_sections import ShapedSection
from cxr_node.training.measure import inference


def added(recipe: Recipe, folder: Path, network: Network, held_out: Sequence[Item], bar: Progress) -> Network:
    """Build the same network with the answer of another one, as loud as asked.

    `folder` : the other one's profile
    `held_out` : the calibration part, in its shapes

    Raises ConfigError: the other one is not what the recipe says.
    """
    section, other = _section(recipe), opinion(_section(recipe), folder)
    whole = networks.build(recipe.profile_spec, 1)
    if not isinstance(whole, MobileNetV2Shaped):
        raise TypeError("the answer is added to a MobileNetV2 with a second opinion")  # the recipe refuses others
    whole.load_state_dict(network.state_dict(), strict=False)
    kept = {name: value for name, value in other.state_dict().items() if not name.startswith("outsider.")}
    whole.third.load_state_dict(kept)
    whole.eval()
    third = whole.third
    task = bar.add_task("the shape's opinion", total=len(held_out))
    inputs = inference.prepared(held_out, recipe.served_input, lambda: bar.advance(task))
    shaped = inference.logits(third, inputs[:, 1:])
    squashed = inference.logits(network, inputs[:, :1, : recipe.input.size_px, : recipe.input.size_px].contiguous())
    loudness = float(section.weight * squashed.std() / shaped.std())
    with torch.no_grad():
        for parameter in third.classifier.parameters():
            parameter.mul_(loudness)
    return whole


def opinion(section: ShapedSection, folder: Path) -> EfficientNetLite0:
    """Load the other network. Raises ConfigError: it is not there, or another than the recipe says."""
    described = profile.described_in(folder)
    fits = (described.input.geometry, described.input.size_px) == (Geometry.LETTERBOX, section.size_px)
    network, _ = weights.load(folder / "weights.safetensors", described.network, len(described.labels))
    if not fits or not isinstance(network, EfficientNetLite0) or len(described.labels) != 1:
        raise ConfigError(
            f"shaped.profile: {folder} is no efficientnet-lite0 with geometry letterbox at {section.size_px} px"
        )
    return network


def _section(recipe: Recipe) -> ShapedSection:
    if recipe.shaped is None:
        raise TypeError("the recipe asks for no answer of a network that keeps shapes")
    return recipe.shaped
