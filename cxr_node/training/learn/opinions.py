"""Other networks beside a learned MobileNetV2, whose answers are added to its own: another trunk errs elsewhere.

The second keeps its ImageNet features; the third has learned, and sees the film in its own shape. What each has to
say, and how loud, is found by `last_layers`.
"""

from __future__ import annotations

from pathlib import Path

from cxr_node.errors import ConfigError
from cxr_node.model import imagenet, networks, profile, weights
from cxr_node.model.network import Network
from cxr_node.model.networks import EfficientNetLite0, MobileNetV2Second, MobileNetV2Shaped
from cxr_node.model.profile import Geometry
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.data.recipe_sections import ShapedSection


def added(recipe: Recipe, beside: Path, network: Network) -> Network:
    """Build the network that is served around the one that has learned, which may have opinions already.

    `beside` : the recipe's folder

    Raises ModelError: the second one's trunk cannot be read; ConfigError: the third is not what the recipe says.
    """
    whole = networks.build(recipe.profile_spec, len(recipe.labels))
    whole.load_state_dict(network.state_dict(), strict=False)
    if recipe.second is not None and isinstance(whole, MobileNetV2Second):
        imagenet.load_trunk(whole.second.trunk, beside / recipe.second.trunk)
    if (
        recipe.shaped is not None
        and isinstance(whole, MobileNetV2Shaped)
        and not isinstance(network, MobileNetV2Shaped)
    ):
        other = opinion(recipe.shaped, beside / recipe.shaped.profile).state_dict()
        whole.third.load_state_dict({name: value for name, value in other.items() if not name.startswith("outsider.")})
    return whole.eval()


def opinion(section: ShapedSection, folder: Path) -> EfficientNetLite0:
    """Load the third network. Raises ConfigError: it is not there, or another than the recipe says."""
    described = profile.described_in(folder)
    fits = (described.input.geometry, described.input.size_px) == (Geometry.LETTERBOX, section.size_px)
    network, _ = weights.load(folder / "weights.safetensors", described.network, len(described.labels))
    if not fits or not isinstance(network, EfficientNetLite0) or len(described.labels) != 1:
        raise ConfigError(
            f"shaped.profile: {folder} is no efficientnet-lite0 with geometry letterbox at {section.size_px} px"
        )
    return network
