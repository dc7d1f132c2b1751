"""ImageNet features to start from: files of tensors for the trunks that have them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import nn

from cxr_node.errors import ModelError
from cxr_node.model import efficientnet_lite
from cxr_node.model.network import Network, OverClasses
from cxr_node.model.networks import EfficientNetB0, EfficientNetLite0, MobileNetV2


def begin_from(network: Network, path: Path) -> None:
    """Start a MobileNetV2 or an EfficientNet-Lite0 from ImageNet features (fp16 or fp32), or a B0 from those of Lite0.

    Raises ModelError: the network is another one, the file cannot be read, or it does not hold this trunk.
    """
    network = network.inner if isinstance(network, OverClasses) else network
    if isinstance(network, EfficientNetB0):
        lite = efficientnet_lite.Lite0()
        load_trunk(lite, path)
        efficientnet_lite.lend(lite, network.trunk)
    elif isinstance(network, MobileNetV2 | EfficientNetLite0):
        load_trunk(network.trunk, path)
    else:
        kind = type(network).__name__
        raise ModelError(f"ImageNet weights exist for mobilenet-v2, efficientnet-lite0 and -b0, not for {kind}")


def load_trunk(trunk: nn.Module, path: Path) -> None:
    """Fill such a trunk with ImageNet features. Raises ModelError: the file cannot be read, or holds another."""
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):  # torch.save writes one; weights_only refuses all but tensors in it
                raise ModelError(f"{path} does not hold the trunk of this network")
        stored = torch.load(path, map_location="cpu", weights_only=True)
        found = {name.removeprefix("features."): value for name, value in stored.items()}
        trunk.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in found.items()})
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except (RuntimeError, AttributeError) as error:
        raise ModelError(f"{path} does not hold the trunk of this network") from error
