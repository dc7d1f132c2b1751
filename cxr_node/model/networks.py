"""The networks that a profile may name: one builder and one row in `ARCHITECTURES` each.

MobileNetV2 and EfficientNet-Lite0 have an ImageNet initialisation, and EfficientNet-B0 borrows the latter's. Images
have one channel; where an architecture expects three, the image is repeated. What is learned from scratch is called
`classifier`: training gives it its own learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import nn
from torchvision.models import densenet121, efficientnet_b0, mobilenet_v2, resnet50

from cxr_node.errors import ModelError
from cxr_node.model import efficientnet_lite, torchxrayvision
from cxr_node.model.network import Network as Network  # the name under which every room knows it
from cxr_node.model.network import OverClasses, last_layer
from cxr_node.model.profile import NetworkSpec

LAST_STAGE = 14
"""Block of MobileNetV2 that halves the resolution for the last time."""
MIDDLE = 17
"""Blocks of MobileNetV2 before the map that `signature` reads. Measured: earlier ones take scanners for strangers."""
MIDDLE_WIDTH, WIDTH = 160, 1280
"""Channels of that map, and of the last one."""
HALF = 0.5
"""Brings a standardised image into the range of ImageNet's, -1 to 1, for nearly all of its pixels."""


class _Dropping(Network):
    """A head over the averaged map, of which some features are dropped while training, and perhaps a second one.

    The second, `outsider`, learns which images are no business of this network.
    """

    dropout: nn.Dropout
    outsider: nn.Linear | None

    def _learn_outsiders(self, units: int, *, wanted: bool) -> None:
        self.outsider = last_layer(units, 1) if wanted else None
        self.learns_outsiders = wanted

    def strangeness(self, feature_map: torch.Tensor) -> torch.Tensor | None:
        """Say how strange an image is: -> (batch,) logits; None without the option `outsider`."""
        if self.outsider is None:
            return None
        strange: torch.Tensor = self.outsider(self.dropout(self.pooled(feature_map)))  # (batch, 1)
        return strange[:, 0]

    def head(self, feature_map: torch.Tensor) -> torch.Tensor:
        """As the base class; some features are dropped while training."""
        logits: torch.Tensor = self.classifier(self.dropout(self.pooled(feature_map)))  # (batch, labels)
        return logits


class MobileNetV2(_Dropping):
    """The trunk of MobileNetV2 (Sandler et al. 2018) with one linear layer over the averaged feature map.

    `dropout` : share of pooled features dropped while training
    `stride` : 32, or 16: the last stage keeps its resolution and looks at every other cell instead (Yu and Koltun
    2016), so that the map has four times the cells, for 1.8 times the work
    `outsider` : whether a second linear layer learns which images are no business of this network
    `hidden` : units of a further layer before the last one, with a dropout of its own; None for none
    `dilated` : False: with stride 16, the last stage looks at neighbouring cells
    """

    layer = "features.18"

    def __init__(
        self,
        labels: int,
        *,
        dropout: float = 0.2,
        stride: int = 32,
        outsider: bool = False,
        hidden: int | None = None,
        dilated: bool = True,
    ) -> None:
        super().__init__()
        if stride not in (16, 32):
            raise ValueError(f"stride must be 16 or 32, not {stride}")
        self.trunk = mobilenet_v2(weights=None).features
        if stride == 16:
            _keep_resolution(self.trunk, dilated=dilated)
        self.dropout = nn.Dropout(dropout)
        last = last_layer(hidden or WIDTH, labels)
        before = [nn.Linear(WIDTH, hidden), nn.ReLU(), nn.Dropout(dropout)] if hidden else []
        self.classifier = nn.Sequential(*before, last) if before else last
        self._learn_outsiders(WIDTH, wanted=outsider)

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """Show the image in three equal channels, as the ImageNet features expect, and pass 17 of 19 blocks.

        The sum of the three kernels on one channel is the same and saves a twentieth of the pass.
        """
        first, *rest = self.trunk[0]
        seen = nnf.conv2d(x, first.weight.sum(1, keepdim=True), stride=first.stride, padding=first.padding)
        for block in (*rest, *self.trunk[1:MIDDLE]):
            seen = block(seen)
        return seen  # (batch, 160, size_px / 32, size_px / 32), or / 16

    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """Pass the last two blocks."""
        feature_map: torch.Tensor = self.trunk[MIDDLE:](early_map)  # (batch, 1280, size_px / 32, size_px / 32)
        return feature_map


def _keep_resolution(trunk: nn.Sequential, *, dilated: bool) -> None:
    """Take out the last stride of 2, for a dilation of 2 if wanted; the parameters keep their names and shapes."""
    for place in range(LAST_STAGE, LAST_STAGE + 4):
        for layer in trunk[place].modules():
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                layer.stride = (1, 1)
                if dilated and place > LAST_STAGE:
                    layer.dilation = layer.padding = (2, 2)


class SecondOpinion(nn.Module):
    """A linear answer on frozen ImageNet features of EfficientNet-Lite0: (batch, 1, side, side) -> (batch, 1) logits.

    Another trunk errs elsewhere. `training.learn.last_layers` fits `last`; the trunk stays as published.
    """

    def __init__(self, size_px: int) -> None:
        super().__init__()
        self.size_px = size_px
        self.trunk = efficientnet_lite.Lite0(published=True)
        self.last = last_layer(efficientnet_lite.CHANNELS, 1)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> SecondOpinion:
        """Stay in evaluation mode: its statistics are ImageNet's."""
        return super().train(False)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Average the last map: -> (batch, CHANNELS)."""
        seen = nnf.interpolate(x * HALF, (self.size_px, self.size_px), mode="bilinear", align_corners=False)
        pooled: torch.Tensor = self.trunk.late(self.trunk.early(seen)).mean(dim=(2, 3))
        return pooled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Answer."""
        logits: torch.Tensor = self.last(self.features(x))
        return logits


class MobileNetV2Second(MobileNetV2):
    """A MobileNetV2 to whose logits a `SecondOpinion` is added.

    The maps go on with one more channel, the opinion, in every cell. Heat map, distance and strangeness are of
    the first trunk alone.

    `second_px` : what the second one sees has so many pixels a side
    `options` : of MobileNetV2
    """

    def __init__(self, labels: int, *, second_px: int = 160, **options: Any) -> None:
        super().__init__(labels, **options)
        self.second = SecondOpinion(second_px)

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """As MobileNetV2, and the opinion."""
        return self._with(super().early(x), self.second(x))

    def read(self, x: torch.Tensor) -> list[torch.Tensor]:
        """As the base class, and of the second trunk."""
        alone = MobileNetV2.late(self, MobileNetV2.early(self, x))
        return [Network.pooled(alone), self.second.features(x)]

    def last_layers(self) -> list[nn.Linear]:
        """As the base class, and the second opinion's."""
        return [*super().last_layers(), self.second.last]

    @staticmethod
    def _with(early_map: torch.Tensor, opinion: torch.Tensor) -> torch.Tensor:
        everywhere = opinion[:, :, None, None].expand(-1, -1, *early_map.shape[2:])
        return torch.cat([early_map, everywhere], dim=1)  # (batch, 161, rows, cols)

    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """As MobileNetV2, and the opinion."""
        feature_map = super().late(early_map[:, :MIDDLE_WIDTH])
        return torch.cat([feature_map, early_map[:, MIDDLE_WIDTH:]], dim=1)  # (batch, 1281, rows, cols)

    def head(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Add the opinion to each logit."""
        return super().head(feature_map) + feature_map[:, WIDTH:].mean(dim=(2, 3))

    def evidence(self, feature_map: torch.Tensor) -> torch.Tensor:
        """As the base class; the opinion lies in no cell."""
        return super().evidence(feature_map[:, :WIDTH])

    def importance(self, feature_map: torch.Tensor, label: int) -> torch.Tensor:
        """As the base class, of the channels of the first trunk."""
        return super().importance(feature_map[:, :WIDTH], label)

    def activation(self, feature_map: torch.Tensor, label: int) -> torch.Tensor:
        """As the base class, with regard to the last layer of the first trunk."""
        return super().activation(feature_map[:, :WIDTH], label)

    @staticmethod
    def signature(early_map: torch.Tensor) -> torch.Tensor:
        """As the base class, of the first trunk."""
        return Network.signature(early_map[:, :MIDDLE_WIDTH])

    @staticmethod
    def pooled(feature_map: torch.Tensor) -> torch.Tensor:
        """As the base class, of the first trunk."""
        return Network.pooled(feature_map[:, :WIDTH])


class EfficientNetLite0(_Dropping):
    """EfficientNet-Lite0 (Google 2020) with its last stride taken out, and one linear layer over the averaged map.

    `dropout` : share of pooled features dropped while training
    `outsider` : whether a second linear layer learns which images are no business of this network
    """

    layer = "conv_head"

    def __init__(self, labels: int, *, dropout: float = 0.3, outsider: bool = False) -> None:
        super().__init__()
        self.trunk = efficientnet_lite.Lite0()
        self.dropout = nn.Dropout(dropout)
        self.classifier = last_layer(efficientnet_lite.CHANNELS, labels)
        self._learn_outsiders(efficientnet_lite.CHANNELS, wanted=outsider)

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """Show the image in three equal channels, and pass six of seven stages."""
        early_map: torch.Tensor = self.trunk.early(x)  # (batch, 192, size_px / 16, size_px / 16)
        return early_map

    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """Pass the last stage and the layer that widens it."""
        feature_map: torch.Tensor = self.trunk.late(early_map)  # (batch, 1280, size_px / 16, size_px / 16)
        return feature_map


class MobileNetV2Shaped(MobileNetV2Second):
    """A MobileNetV2Second to whose opinion a third is added, of a network that sees the film in its own shape.

    Heat map, distance and strangeness are of the first trunk alone.

    `size_px` : side of the squashed picture, which lies in the corner of the first channel; the second is the letterbox
    `options` : of MobileNetV2Second
    """

    def __init__(self, labels: int, *, size_px: int = 192, **options: Any) -> None:
        super().__init__(labels, **options)
        self.size_px = size_px
        self.third = EfficientNetLite0(1, dropout=0.0)
        self.third.requires_grad_(False)

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """Look at both pictures: (batch, 2, side_px, side_px)."""
        squashed, shaped = self._pictures(x)
        return self._with(MobileNetV2.early(self, squashed), self.second(squashed) + self.third(shaped))

    def _pictures(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[:, :1, : self.size_px, : self.size_px], x[:, 1:]

    def read(self, x: torch.Tensor) -> list[torch.Tensor]:
        """As the base class, and of the third trunk."""
        squashed, shaped = self._pictures(x)
        return [*super().read(squashed), *self.third.read(shaped)]

    def last_layers(self) -> list[nn.Linear]:
        """As the base class, and the third one's."""
        return [*super().last_layers(), *self.third.last_layers()]

    def train(self, mode: bool = True) -> MobileNetV2Shaped:
        """The third one has learned, and stays in evaluation mode."""
        super().train(mode)
        self.third.eval()
        return self


class SimpleCNN(Network):
    """Two convolutions, flattened into a dense layer: the classifier of a first web application.

    The flattened map is averaged down to 7 x 7 cells first: at 224 px a dense layer over all of its 56 x 56 x 64
    values would hold 99 % of the parameters, and the network would fit one size only.
    """

    layer = "convolution.2"
    cells = 7

    def __init__(self, labels: int, *, dropout: float = 0.5, hidden: int = 128) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.second = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(
            nn.Linear(64 * self.cells**2, hidden), nn.ReLU(), nn.Dropout(dropout), last_layer(hidden, labels)
        )

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """Pass the first convolution."""
        early_map: torch.Tensor = self.first(x)  # (batch, 32, size_px / 2, size_px / 2)
        return early_map

    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """Pass the second convolution."""
        feature_map: torch.Tensor = self.second(early_map)  # (batch, 64, size_px / 4, size_px / 4)
        return feature_map

    def flattened(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Average into cells: unlike the others it knows where in the image something is."""
        return nnf.adaptive_avg_pool2d(feature_map, self.cells).flatten(1)  # (batch, 64 * 7 * 7)


class _Cut(Network):
    """A trunk of torchvision's, cut in front of its last part."""

    trunk: nn.Sequential
    middle: int
    """How many parts belong to `early`."""
    channels = 3

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """Show the image in as many equal channels as the trunk expects, and pass all parts but the last."""
        early_map: torch.Tensor = self.trunk[: self.middle](x.expand(-1, self.channels, -1, -1))
        return early_map

    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """Pass the last part; what leaves it is 0 or larger."""
        return nnf.relu(self.trunk[self.middle :](early_map))


class DenseNet121(_Cut):
    """DenseNet-121 (Huang et al. 2017), the network of CheXNet: one linear layer over the averaged feature map."""

    layer = "features.norm5"
    middle = 10

    def __init__(self, labels: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.trunk = densenet121(weights=None).features
        self.classifier = nn.Sequential(nn.Dropout(dropout), last_layer(1024, labels))


class EfficientNetB0(_Cut):
    """EfficientNet-B0 (Tan and Le 2019) with a head of batch normalisation, dropout and 256 units."""

    layer = "features.8"
    middle = 8

    def __init__(self, labels: int, *, dropout: float = 0.3, hidden: int = 256) -> None:
        super().__init__()
        self.trunk = efficientnet_b0(weights=None).features
        units = [nn.Linear(1280, hidden), nn.ReLU(), nn.Dropout(dropout), last_layer(hidden, labels)]
        self.classifier = nn.Sequential(nn.BatchNorm1d(1280), nn.Dropout(dropout), *units)

    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """Pass the last convolution; its SiLU may be negative."""
        feature_map: torch.Tensor = self.trunk[self.middle :](early_map)  # (batch, 1280, size_px / 32, size_px / 32)
        return feature_map


class ResNet50(_Cut):
    """ResNet-50 (He et al. 2016) with a head of 2048, 512 and as many units as there are answers."""

    layer = "layer4"
    middle = -1

    def __init__(self, labels: int, *, dropout: float = 0.5, hidden: int = 512) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*list(resnet50(weights=None).children())[:-2])  # without pooling and classifier
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(2048, hidden), nn.ReLU(), nn.Dropout(dropout), last_layer(hidden, labels)
        )


class XrvDenseNet121(_Cut):
    """DenseNet-121 (Huang et al. 2017) for one channel, with one linear layer over the averaged feature map.

    The authors' form is torchvision's but for its first convolution, down to the names of its parameters; only
    `features.` is `trunk.` here.
    """

    layer = "features.norm5"
    middle = 10
    channels = 1

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.trunk = densenet121(weights=None).features
        self.trunk.conv0 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.classifier = nn.Linear(1024, labels)


ARCHITECTURES: Mapping[str, Callable[..., Network]] = {
    "mobilenet-v2": MobileNetV2,
    "mobilenet-v2-second": MobileNetV2Second,
    "mobilenet-v2-shaped": MobileNetV2Shaped,
    "efficientnet-lite0": EfficientNetLite0,
    "simple-cnn": SimpleCNN,
    "densenet121": DenseNet121,
    "efficientnet-b0": EfficientNetB0,
    "resnet50": ResNet50,
    torchxrayvision.ARCHITECTURE: XrvDenseNet121,
}


def build(spec: NetworkSpec, labels: int) -> Network:
    """Build the network that a profile names, with random weights.

    `labels` : number of logits; where the network has classes, one more than these
    Raises ModelError: the architecture or one of its options is unknown.
    """
    builder = ARCHITECTURES.get(spec.architecture)
    if builder is None:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ModelError(f"architecture {spec.architecture!r} is unknown; this version builds {known}")
    try:
        if not spec.classes:
            return builder(labels, **spec.options)
        if labels != 1 + len(spec.classes):
            raise ValueError(f"{len(spec.classes)} classes give {1 + len(spec.classes)} labels, not {labels}")
        return OverClasses(builder(len(spec.classes), **spec.options), list(spec.classes.values()))
    except (TypeError, ValueError) as error:
        raise ModelError(f"options {spec.options} do not fit architecture {spec.architecture!r}: {error}") from error
