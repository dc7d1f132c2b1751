"""The network as it is served: one pass gives the answer, the heat map and what the distance measures.

The torch runtime runs this module and `export` writes it into a graph, so that there is one definition of both.
"""

from __future__ import annotations

import torch
from torch import nn

from cxr_node.model.networks import Network

OUTPUTS = ("logits", "activation", "signature", "strangeness")
"""Names of what `Served` returns, in this order; without the last where the network has not learned it."""


class Served(nn.Module):
    """A network in evaluation mode that also explains one of its logits.

    Parameters
    ----------
    label : which logit is judged, and explained
    """

    def __init__(self, network: Network, label: int) -> None:
        super().__init__()
        self.network = network
        self.label = label

    def forward(self, shown: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(images, 1, size_px, size_px) -> `OUTPUTS`, a row for each image."""
        early_map = self.network.early(shown)
        feature_map = self.network.late(early_map)
        seen = (
            self.network.head(feature_map),
            self.network.activation(feature_map, self.label),
            self.network.signature(early_map),
        )
        strangeness = self.network.strangeness(feature_map)
        return seen if strangeness is None else (*seen, strangeness)
