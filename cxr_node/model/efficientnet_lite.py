"""The trunk of EfficientNet-Lite0 (Google 2020, after Tan and Le 2019), with timm's parameter names.

No squeeze-excitation and ReLU6 only: quick on a CPU. Strided layers pad as TensorFlow does (more at the end than at the
start), or the published weights would see a shifted image. Unless it stays as published, the last stride of 2 is taken
out, so that a map has four times the cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import nn

CHANNELS = 1280
"""Of the map that leaves the trunk."""
STEM = 32
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 1, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""Kernel, stride, expansion, channels and repeats of each."""
SIXTH = 5
"""Place of the stage whose published stride is 2."""
OPEN = 4.0
"""What a gate of EfficientNet-B0 begins with: its sigmoid lets 98 % through."""


class _Conv(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's SAME."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        sides = map(int, x.shape[-2:])  # numbers, so that an exported graph need not compute them
        rows, cols = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in sides)
        padded = nnf.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))
        return nnf.conv2d(padded, self.weight, None, stride, 0, 1, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class _Separable(nn.Module):
    """Depthwise, then pointwise."""

    def __init__(self, kernel: int, stride: int, channels: int, out: int) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = _Conv(channels, channels, kernel, stride, channels), _norm(channels)
        self.conv_pw, self.bn2 = _Conv(channels, out, 1), _norm(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen: torch.Tensor = self.bn2(self.conv_pw(nnf.relu6(self.bn1(self.conv_dw(x)))))
        return seen


class _Inverted(nn.Module):
    """Widen, look depthwise, narrow; with a way round where nothing changes its shape."""

    def __init__(self, kernel: int, stride: int, expansion: int, channels: int, out: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.skips = stride == 1 and channels == out
        self.conv_pw, self.bn1 = _Conv(channels, wide, 1), _norm(wide)
        self.conv_dw, self.bn2 = _Conv(wide, wide, kernel, stride, wide), _norm(wide)
        self.conv_pwl, self.bn3 = _Conv(wide, out, 1), _norm(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = nnf.relu6(self.bn2(self.conv_dw(nnf.relu6(self.bn1(self.conv_pw(x))))))
        seen: torch.Tensor = self.bn3(self.conv_pwl(wide))
        return x + seen if self.skips else seen


class Lite0(nn.Module):
    """(batch, 1, size_px, size_px) -> (batch, CHANNELS, size_px / 16, size_px / 16), in two halves.

    `published` : with all of its strides, to size_px / 32: for features that nothing learns anew
    """

    def __init__(self, *, published: bool = False) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = _Conv(3, STEM, 3, 2), _norm(STEM)
        stages, channels = [], STEM
        for stage, (kernel, stride, expansion, out, repeats) in enumerate(STAGES):
            if published and stage == SIXTH:
                stride = 2
            blocks: list[nn.Module] = []
            for place in range(repeats):
                step = stride if place == 0 else 1
                block = (
                    _Separable(kernel, step, channels, out)
                    if expansion == 1
                    else _Inverted(kernel, step, expansion, channels, out)
                )
                blocks.append(block)
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = _Conv(channels, CHANNELS, 1), _norm(CHANNELS)

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """Pass all stages but the last."""
        seen: torch.Tensor = nnf.relu6(self.bn1(self.conv_stem(x.expand(-1, 3, -1, -1))))
        for stage in self.blocks[:-1]:
            seen = stage(seen)
        return seen

    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """Pass the last stage; what leaves is 0 or larger."""
        return nnf.relu6(self.bn2(self.conv_head(self.blocks[-1](early_map))))


def lend(lite: Lite0, b0: nn.Module) -> None:
    """Start EfficientNet-B0 from these features: its convolutions are the same, and its gates begin open.

    `b0` : torchvision's `features`
    """
    own = b0.state_dict()
    lent = iter(lite.state_dict().values())  # both list stem, stages and head in the order of a pass
    for name, value in own.items():
        if ".fc" not in name:
            value.copy_(next(lent))
        elif ".fc2." in name:
            value.fill_(OPEN if name.endswith("bias") else 0.0)
