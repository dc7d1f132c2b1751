"""A small, complete profile folder with random weights: every way to break it starts from here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from cxr_node.model import networks, ood_distance, profile

SIZE_PX = 64
DESCRIBED = profile.ProfileFile(
    format=profile.FORMAT,
    name="random",
    version="0.0.1",
    labels=["pneumonia"],
    network=profile.NetworkSpec(architecture="mobilenet-v2"),
    input=profile.InputSpec(size_px=SIZE_PX, border=0.05),
    population=profile.Population(age_years=(1.0, 5.0), description="nobody"),
    sha256={},
    licence="Apache-2.0",
    citation="none",
)
CALIBRATED = profile.CalibrationFile(
    weights_sha256="",
    method="platt",
    fitted_on="nothing",
    slope=1.5,
    intercept=-0.25,
    operating_point=profile.OperatingPointFile(
        name="default", label="pneumonia", report_at=0.8, rule_out_below=0.2, max_spread=0.5, max_distance=2.0
    ),
)


def lively(labels: int = 1) -> networks.Network:
    """A random network, the same each time, whose logits differ between images.

    Without the pass over noise its normalisation layers would let activations die out by a factor of 1e9.
    """
    torch.manual_seed(20)
    network = networks.build(DESCRIBED.network, labels).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.get_parameter("classifier.weight").normal_(std=0.2)
        network(torch.randn(16, 1, SIZE_PX, SIZE_PX))
    return network.eval()


def tensors() -> dict[str, torch.Tensor]:
    """What a weights file holds: a lively network, and statistics of noise in place of features."""
    network = lively()
    features, held_out = torch.rand(200, 320).numpy(), torch.rand(50, 320).numpy()
    stats = ood_distance.normalised(ood_distance.fit(features, np.arange(200) % 2), held_out)
    parts = {f"network.{name}": value for name, value in network.state_dict().items()}
    return parts | {f"distance.{name}": torch.from_numpy(value) for name, value in stats.items()}


def write(folder: Path, content: dict[str, torch.Tensor] | None = None) -> Path:
    """Write a profile folder round the given tensors; its hashes are right."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors() if content is None else content, folder / "weights.safetensors")
    profile.write(folder, DESCRIBED, CALIBRATED)
    return folder
