"""weights.safetensors from and to a torch network; what its keys mean stands in `weights_file`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cxr_node.errors import ModelError
from cxr_node.model.networks import Network, build
from cxr_node.model.profile import NetworkSpec
from cxr_node.model.weights_file import DISTANCE, LEARNED, NETWORK, Floats, statistics

READABLE = 0o644
"""safetensors writes for its owner alone; the node runs as another user than the one who trained."""


def save(path: Path, network: Network, stats: Mapping[str, Floats], *, exact: bool = False) -> None:
    """Write both; fp16 halves the file, and vectors stay fp32 because running variances leave its range.

    `exact` : matrices stay fp32 too, for weights whose answers were published
    """
    tensors = {
        NETWORK + name: value.detach().cpu().contiguous() if exact else _stored(value)
        for name, value in network.state_dict().items()
    }
    tensors |= {DISTANCE + name: torch.from_numpy(value) for name, value in stats.items()}
    save_file(tensors, path)
    path.chmod(READABLE)


def load(path: Path, spec: NetworkSpec, labels: int) -> tuple[Network, dict[str, Floats]]:
    """Read both, as fp32 on the CPU; the network is in evaluation mode.

    Raises ModelError: the file cannot be read, does not fit the network, or holds anything else.
    """
    with torch.device("meta"):  # names and shapes alone: no weights are drawn to be thrown away
        network = build(spec, labels)
    try:
        network.load_state_dict(_parameters(load_file(path)), strict=True, assign=True)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    except RuntimeError as error:
        raise ModelError(f"{path} does not fit network {spec.architecture!r}: {error}") from error
    stats = statistics(path)
    if stats and (LEARNED in stats) is not network.learns_outsiders:
        raise ModelError(f"{path}: {DISTANCE}{LEARNED} and a network that learns outsiders belong together")
    return network.eval(), stats


def _parameters(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    part = {name.removeprefix(NETWORK): value for name, value in tensors.items() if name.startswith(NETWORK)}
    return {name: value.float() if value.is_floating_point() else value for name, value in part.items()}


def _stored(value: torch.Tensor) -> torch.Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if value.is_floating_point() and value.dim() > 1 else value
