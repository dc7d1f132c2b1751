"""The networks that others chose for this task, in their authors' form, behind this house's `Network`.

Knows no weights of others: ImageNet weights exist here for MobileNetV2 only, so these start from random ones.
Images have one channel; where an architecture expects three, the image is repeated. What learns anew is always
called `classifier`: training gives it its own learning rate.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import nn
from torchvision.models import densenet121, efficientnet_b0, resnet50

from cxr_node.model.network import Network, last_layer


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

    def head(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Classify the flattened cells."""
        logits: torch.Tensor = self.classifier(self.flattened(feature_map))  # (batch, labels)
        return logits


class _Averaged(Network):
    """A network whose `classifier` reads the averaged feature map."""

    classifier: nn.Sequential

    def head(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Average over the image and classify."""
        logits: torch.Tensor = self.classifier(self.pooled(feature_map))  # (batch, labels)
        return logits


class DenseNet121(_Averaged):
    """DenseNet-121 (Huang et al. 2017), the network of CheXNet: one linear layer over the averaged feature map."""

    layer = "features.norm5"
    middle = 10
    """Parts before the fourth dense block."""

    def __init__(self, labels: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.trunk = densenet121(weights=None).features
        self.classifier = nn.Sequential(nn.Dropout(dropout), last_layer(1024, labels))

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """Pass three of four dense blocks."""
        early_map: torch.Tensor = self.trunk[: self.middle](x.expand(-1, 3, -1, -1))  # (batch, 512, size_px / 32, ...)
        return early_map

    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """Pass the last dense block."""
        feature_map: torch.Tensor = nnf.relu(self.trunk[self.middle :](early_map))  # (batch, 1024, size_px / 32, ...)
        return feature_map


class EfficientNetB0(_Averaged):
    """EfficientNet-B0 (Tan and Le 2019) with a head of batch normalisation, dropout and 256 units."""

    layer = "features.8"
    middle = 8

    def __init__(self, labels: int, *, dropout: float = 0.3, hidden: int = 256) -> None:
        super().__init__()
        self.trunk = efficientnet_b0(weights=None).features
        self.classifier = nn.Sequential(
            nn.BatchNorm1d(1280),
            nn.Dropout(dropout),
            nn.Linear(1280, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            last_layer(hidden, labels),
        )

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """Pass all blocks but the last convolution."""
        early_map: torch.Tensor = self.trunk[: self.middle](x.expand(-1, 3, -1, -1))  # (batch, 320, size_px / 32, ...)
        return early_map

    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """Pass the last convolution."""
        feature_map: torch.Tensor = self.trunk[self.middle :](early_map)  # (batch, 1280, size_px / 32, size_px / 32)
        return feature_map


class ResNet50(_Averaged):
    """ResNet-50 (He et al. 2016) with a head of 2048, 512 and as many units as there are answers."""

    layer = "layer4"

    def __init__(self, labels: int, *, dropout: float = 0.5, hidden: int = 512) -> None:
        super().__init__()
        whole = resnet50(weights=None)
        self.stem = nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool)
        self.middle = nn.Sequential(whole.layer1, whole.layer2, whole.layer3)
        self.last = whole.layer4
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(2048, hidden), nn.ReLU(), nn.Dropout(dropout), last_layer(hidden, labels)
        )

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """Pass three of four stages."""
        early_map: torch.Tensor = self.middle(self.stem(x.expand(-1, 3, -1, -1)))  # (batch, 1024, size_px / 16, ...)
        return early_map

    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """Pass the last stage."""
        feature_map: torch.Tensor = self.last(early_map)  # (batch, 2048, size_px / 32, size_px / 32)
        return feature_map


class XrvDenseNet121(Network):
    """DenseNet-121 (Huang et al. 2017) for one channel, with one linear layer over the averaged feature map.

    The authors' form is torchvision's but for its first convolution, down to the names of its parameters; only
    `features.` is `trunk.` here.
    """

    layer = "features.norm5"

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.trunk = densenet121(weights=None).features
        self.trunk.conv0 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.classifier = nn.Linear(1024, labels)

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """Pass three of four dense blocks."""
        early_map: torch.Tensor = self.trunk[:-2](x)  # (batch, 512, size_px / 32, size_px / 32)
        return early_map

    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """Pass the last block, its normalisation and the rectifier that follows it in the authors' `forward`."""
        feature_map: torch.Tensor = torch.relu(self.trunk[-2:](early_map))  # (batch, 1024, size_px / 32, ...)
        return feature_map

    def evidence(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Weigh the map's channels as the linear layer does: -> (batch, labels, rows, cols)."""
        return torch.einsum("nchw,lc->nlhw", feature_map, self.classifier.weight)

    def head(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Average over the image and classify."""
        logits: torch.Tensor = self.classifier(self.pooled(feature_map))  # (batch, labels)
        return logits
