"""A state dict with the names and shapes of a torchxrayvision DenseNet-121, and a second reading of what it computes.

Written from `torchxrayvision/models.py` (version 1.5, class DenseNet, `_DenseBlock`, `_Transition`), with no module of
torchvision or of ours: names and shapes by formula, the network as plain functions of the tensors.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as nnf

BLOCKS, GROWTH, FIRST, BOTTLENECK, FINDINGS = (6, 12, 24, 16), 32, 64, 4, 18
"""block_config, growth_rate, num_init_features, bn_size of DenseNet-121; len(datasets.default_pathologies)."""


def shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor; 727 of them."""
    found: dict[str, tuple[int, ...]] = {"features.conv0.weight": (FIRST, 1, 7, 7)}

    def norm(name: str, channels: int) -> None:
        found.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})
        found[f"{name}.num_batches_tracked"] = ()

    norm("features.norm0", FIRST)
    channels = FIRST
    for block, layers in enumerate(BLOCKS, 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            norm(f"{name}.norm1", channels)
            found[f"{name}.conv1.weight"] = (BOTTLENECK * GROWTH, channels, 1, 1)
            norm(f"{name}.norm2", BOTTLENECK * GROWTH)
            found[f"{name}.conv2.weight"] = (GROWTH, BOTTLENECK * GROWTH, 3, 3)
            channels += GROWTH
        if block < len(BLOCKS):
            norm(f"features.transition{block}.norm", channels)
            found[f"features.transition{block}.conv.weight"] = (channels // 2, channels, 1, 1)
            channels //= 2
    norm("features.norm5", channels)
    return found | {"classifier.weight": (FINDINGS, channels), "classifier.bias": (FINDINGS,)}


@functools.cache
def _drawn() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(18)

    def value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if name.endswith("num_batches_tracked"):
            return torch.tensor(7)
        noise = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):  # the first layer sees values up to 1024
            return noise.abs().add(0.5) * (3e5 if name == "features.norm0.running_var" else 1.0)
        if ".norm" in name:
            return noise * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        if name == "classifier.bias":
            return noise - 2.0  # most sigmoids of the published networks are small
        return noise * (2.0 / noise[0].numel()) ** 0.5

    return {name: value(name, shape) for name, shape in shapes().items()}


def state() -> dict[str, torch.Tensor]:
    """Draw the tensors; the same each time, so that its numbers are known numbers."""
    return dict(_drawn())


def reference(tensors: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Logits as `DenseNet.forward` computes them: (batch, 1, 224, 224) in [-1024, 1024] -> (batch, 18)."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, weight, bias = (tensors[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        shape = (1, -1, 1, 1)
        scaled = (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
        return torch.relu(scaled * weight.view(shape) + bias.view(shape))  # every norm is followed by a relu

    def conv(x: torch.Tensor, name: str, **options: int) -> torch.Tensor:
        return nnf.conv2d(x, tensors[f"{name}.weight"], **options)

    x = norm(conv(images, "features.conv0", stride=2, padding=3), "features.norm0")
    x = nnf.max_pool2d(x, 3, stride=2, padding=1)
    for block, layers in enumerate(BLOCKS, 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            inner = conv(norm(x, f"{name}.norm1"), f"{name}.conv1")
            x = torch.cat([x, conv(norm(inner, f"{name}.norm2"), f"{name}.conv2", padding=1)], 1)
        if block < len(BLOCKS):
            name = f"features.transition{block}"
            x = nnf.avg_pool2d(conv(norm(x, f"{name}.norm"), f"{name}.conv"), 2)
    pooled = norm(x, "features.norm5").mean((2, 3))
    return pooled @ tensors["classifier.weight"].T + tensors["classifier.bias"]
