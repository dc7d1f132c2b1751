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
        places = range(len(self.positive))
        sides = [self.positive, *([one == each for one in places] for each in places)]
        return torch.stack([_against_the_rest(scores, side) for side in sides], dim=1)


def _against_the_rest(scores: torch.Tensor, side: Sequence[bool]) -> torch.Tensor:
    chosen = torch.tensor(side, device=scores.device)
    return torch.logsumexp(scores[:, chosen], dim=1) - torch.logsumexp(scores[:, ~chosen], dim=1)  # (batch,)


def divided(judged: float, logits: torch.Tensor, positive: Sequence[bool]) -> torch.Tensor:
    """Divide a calibrated probability among the classes that it stands for, as the softmax does.

    Parameters
    ----------
    judged : calibrated probability of the judged label
    logits : shape (classes,), as `OverClasses` answers them
    positive : whether each class is one of the judged label

    Returns
    -------
    shape (classes,), in [0, 1]; the positive ones sum to `judged`, the others to the rest
    """
    softmax = torch.sigmoid(logits.double())
    chosen = torch.tensor(positive, device=logits.device)
    total = torch.where(chosen, softmax[chosen].sum(), softmax[~chosen].sum()).clamp_min(1e-300)
    return softmax / total * torch.where(chosen, judged, 1.0 - judged).to(softmax)
