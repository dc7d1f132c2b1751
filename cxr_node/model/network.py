"""What every network offers: the last feature map for Grad-CAM, the middle one for the distance, and a head.

Knows no architecture, no pixels' history and no file.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import nn

from cxr_node.errors import ModelError


def last_layer(units: int, outputs: int) -> nn.Linear:
    """Build the last layer so that an untrained network answers one half to everything."""
    layer = nn.Linear(units, outputs)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


class Network(nn.Module):
    """Two halves and a head: what Grad-CAM (the last feature map) and the distance (the middle one) need.

    Attributes
    ----------
    layer : name of the layer that yields the feature map, as reports cite it
    learns_outsiders : whether `strangeness` answers
    """

    layer: str
    learns_outsiders: bool = False

    @abstractmethod
    def early(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the middle map: (batch, 1, size_px, size_px) standardised -> (batch, channels, rows, cols)."""

    @abstractmethod
    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """Compute the last feature map from the middle one: -> (batch, channels, rows, cols)."""

    @abstractmethod
    def head(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Average over the image and classify: (batch, channels, rows, cols) -> (batch, labels) logits."""

    def strangeness(self, feature_map: torch.Tensor) -> torch.Tensor | None:
        """Say how strange an image is: (batch, channels, rows, cols) -> (batch,) logits; None where not learned."""
        return None

    def evidence(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Tell what each cell adds to each logit: -> (batch, labels, rows, cols); their mean is the logit, less bias.

        Raises
        ------
        ModelError : the head is not one linear layer over the averaged map
        """
        raise ModelError(f"{type(self).__name__} has no linear head, so that its cells have no evidence of their own")

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the last feature map: (batch, 1, size_px, size_px) standardised -> (batch, channels, rows, cols)."""
        return self.late(self.early(x))

    @staticmethod
    def signature(early_map: torch.Tensor) -> torch.Tensor:
        """Describe an image for `model.distance`: mean and spread of each channel of the middle map.

        (batch, channels, rows, cols) -> (batch, 2 * channels). The last map has forgotten what does not matter
        for the answer: measured at equal false alarms, it finds 45 % of adults foreign, this one 76 %.
        """
        spread, mean = torch.std_mean(early_map, dim=(2, 3), correction=0)
        return torch.cat([mean, spread], dim=1)

    @staticmethod
    def pooled(feature_map: torch.Tensor) -> torch.Tensor:
        """Average over the image: (batch, channels, rows, cols) -> (batch, channels)."""
        return feature_map.mean(dim=(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 1, size_px, size_px) -> (batch, labels) logits."""
        return self.head(self.features(x))
