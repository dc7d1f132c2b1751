"""weights.safetensors: the network's parameters and the training features' statistics, in one file.

Knows no thresholds and no pixels. Keys: `network.<parameter>` (matrices as fp16, or as they came; vectors as fp32) and
`distance.<statistic>` (fp32, see `model.distance.fit`; none where the training images are not known). Nothing is
unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cxr_node.errors import ModelError
from cxr_node.model.networks import Network, build
from cxr_node.model.profile import NetworkSpec

NETWORK, DISTANCE = "network.", "distance."
READABLE = 0o644
"""safetensors writes for its owner alone; the node runs as another user than the one who trained."""
STATISTICS = frozenset({"mean", "axes", "variance", "residual_variance", "scale"})
"""What `model.distance.fit` yields."""
LEARNED = "learned"
"""A further statistic, where the network has learned to know outsiders."""


def save(path: Path, network: Network, stats: Mapping[str, torch.Tensor], *, exact: bool = False) -> None:
    """Write both; fp16 halves the file, and vectors stay fp32 because running variances leave its range.

    `exact` : matrices stay fp32 too, for weights whose answers were published
    """
    tensors = {
        NETWORK + name: value.detach().cpu().contiguous() if exact else _stored(value)
        for name, value in network.state_dict().items()
    }
    tensors |= {DISTANCE + name: value.float().contiguous() for name, value in stats.items()}
    save_file(tensors, path)
    path.chmod(READABLE)


def load(path: Path, spec: NetworkSpec, labels: int) -> tuple[Network, dict[str, torch.Tensor]]:
    """Read both, as fp32 on the CPU; the network is in evaluation mode.

    Parameters
    ----------
    path : weights.safetensors of a profile folder
    spec : architecture and options, from profile.yaml
    labels : number of logits

    Raises
    ------
    ModelError : the file cannot be read, does not fit the network, or holds anything else
    """
    network = build(spec, labels)
    try:
        tensors = load_file(path)
        network.load_state_dict(_part(tensors, NETWORK), strict=True)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    except RuntimeError as error:
        raise ModelError(f"{path} does not fit network {spec.architecture!r}: {error}") from error
    if strange := sorted(name for name in tensors if not name.startswith((NETWORK, DISTANCE))):
        raise ModelError(f"{path}: tensor {strange[0]!r} is neither {NETWORK}* nor {DISTANCE}*")
    stats = _part(tensors, DISTANCE)
    expected = STATISTICS | ({LEARNED} if network.learns_outsiders else frozenset())
    if stats and stats.keys() != expected:
        raise ModelError(f"{path}: {DISTANCE}* must be {sorted(expected)} or nothing, found {sorted(stats)}")
    return network.eval(), stats


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    part = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return {name: value.float() if value.is_floating_point() else value for name, value in part.items()}


def _stored(value: torch.Tensor) -> torch.Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if value.is_floating_point() and value.dim() > 1 else value
