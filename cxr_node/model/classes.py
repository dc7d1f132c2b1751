"""Several classes behind one judged label: bacterial and viral pneumonia, say, or tuberculosis beside both.

Knows no threshold and no image. The network answers a softmax over classes; a report judges one question. The
judged logit is log(P(positive classes) / P(negative classes)), so calibration and thresholds stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cxr_node.model.network import Network


class OverClasses(Network):
    """Another network's softmax over classes, answered as logits: of the judged label first, then of each class."""

    def __init__(self, network: Network, positive: Sequence[bool]) -> None:
        super().__init__()
        self.inner = network
        self.layer = network.layer
        self.learns_outsiders = network.learns_outsiders
        self.positive = tuple(positive)

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """As the inner network."""
        return self.inner.early(x)

    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """As the inner network."""
        return self.inner.late(early_map)

    def strangeness(self, feature_map: torch.Tensor) -> torch.Tensor | None:
        """As the inner network."""
        return self.inner.strangeness(feature_map)

    def head(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Classify: (batch, channels, rows, cols) -> (batch, 1 + classes) logits, each of one answer against the rest.

        The sigmoid of a class's logit is its softmax probability, so log-sigmoid is what cross-entropy needs.
        """
        scores = self.inner.head(feature_map).float()  # (batch, classes)
        return torch.stack([_against_the_rest(scores, side) for side in self._sides()], dim=1)

    def importance(self, feature_map: torch.Tensor, label: int) -> torch.Tensor:
        """As the base class; the gradient of a log-sum-exp is the softmax."""
        scores = self.inner.head(feature_map).float()  # (batch, classes)
        chosen = torch.tensor(self._sides()[label], device=scores.device)
        never = torch.tensor(-torch.inf)
        within = torch.softmax(scores.where(chosen, never), dim=1)
        without = torch.softmax(scores.where(~chosen, never), dim=1)
        return self.inner.pulled_back(feature_map, within - without)

    def _sides(self) -> list[Sequence[bool]]:
        """Which classes each answer stands for: the judged label's, then each class alone."""
        places = range(len(self.positive))
        return [self.positive, *([one == each for one in places] for each in places)]


def _against_the_rest(scores: torch.Tensor, side: Sequence[bool]) -> torch.Tensor:
    chosen = torch.tensor(side, device=scores.device)
    return torch.logsumexp(scores[:, chosen], dim=1) - torch.logsumexp(scores[:, ~chosen], dim=1)  # (batch,)
