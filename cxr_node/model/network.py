"""What every network offers: the last feature map for Grad-CAM, the middle one for the distance, and a head."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
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

    `layer` : name of the layer that yields the feature map, as reports cite it
    `learns_outsiders` : whether `strangeness` answers
    """

    layer: str
    learns_outsiders: bool = False
    classifier: nn.Module
    """What reads the pooled map: a linear layer, or a chain of those that `_pulled_back` knows."""

    @abstractmethod
    def early(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the middle map: (batch, 1, size_px, size_px) standardised -> (batch, channels, rows, cols)."""

    @abstractmethod
    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        """Compute the last feature map from the middle one: -> (batch, channels, rows, cols)."""

    def head(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Average over the image and classify: (batch, channels, rows, cols) -> (batch, labels) logits."""
        logits: torch.Tensor = self.classifier(self.flattened(feature_map))
        return logits

    def strangeness(self, feature_map: torch.Tensor) -> torch.Tensor | None:
        """Say how strange an image is: (batch, channels, rows, cols) -> (batch,) logits; None where not learned."""
        return None

    def read(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What each of `last_layers` reads of some images: (batch, channels) each; the logit is the sum of theirs."""
        return [self.flattened(self.features(x))]

    def last_layers(self) -> list[nn.Linear]:
        """The linear layers whose answers are summed. Raises ModelError: the head is a chain of layers."""
        return [self._linear()]

    def evidence(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Tell what each cell adds to each logit: -> (batch, labels, rows, cols); their mean is the logit, less bias.

        Raises ModelError: the head is not one linear layer over the averaged map.
        """
        return torch.einsum("nchw,lc->nlhw", feature_map, self._linear().weight)

    def _linear(self) -> nn.Linear:
        if not isinstance(linear := getattr(self, "classifier", None), nn.Linear):
            raise ModelError(f"{type(self).__name__} has no linear head: its answer is no sum over cells or features")
        return linear

    def importance(self, feature_map: torch.Tensor, label: int) -> torch.Tensor:
        """Tell how much each channel raises one logit: alpha of Grad-CAM (Selvaraju et al. 2017, equation 1).

        (batch, channels, rows, cols) -> (batch, channels), the gradient of the logit averaged over the image, in
        evaluation mode. In closed form, so that it is a part of the forward pass in every runtime.
        """
        scores = self.classifier(self.flattened(feature_map))  # (batch, outputs)
        seed = nnf.one_hot(torch.tensor(label), scores.shape[1]).to(scores).expand_as(scores)
        return self.pulled_back(feature_map, seed)

    def pulled_back(self, feature_map: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
        """Average the gradient of seed * classifier over the image: (batch, outputs) -> (batch, channels)."""
        gradient = _pulled_back(self.classifier, self.flattened(feature_map), seed)
        cells = feature_map.shape[2] * feature_map.shape[3]
        return gradient.reshape(feature_map.shape[0], feature_map.shape[1], -1).sum(-1) / cells

    def activation(self, feature_map: torch.Tensor, label: int) -> torch.Tensor:
        """Weigh the feature map by `importance`: -> (batch, rows, cols), 0 or larger, logits per cell (equation 2)."""
        alpha = self.importance(feature_map, label)
        return (alpha[:, :, None, None] * feature_map).sum(dim=1).clamp_min(0.0)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the last feature map: (batch, 1, size_px, size_px) standardised -> (batch, channels, rows, cols)."""
        return self.late(self.early(x))

    @staticmethod
    def signature(early_map: torch.Tensor) -> torch.Tensor:
        """Describe an image for `model.ood_distance`: mean and spread of each channel of the middle map.

        (batch, channels, rows, cols) -> (batch, 2 * channels). The last map has forgotten what does not matter
        for the answer: measured at equal false alarms, it finds 45 % of adults foreign, this one 76 %.
        """
        spread, mean = torch.std_mean(early_map, dim=(2, 3), correction=0)
        return torch.cat([mean, spread], dim=1)

    @staticmethod
    def pooled(feature_map: torch.Tensor) -> torch.Tensor:
        """Average over the image: (batch, channels, rows, cols) -> (batch, channels)."""
        return feature_map.mean(dim=(2, 3))

    def flattened(self, feature_map: torch.Tensor) -> torch.Tensor:
        """What the classifier reads: -> (batch, channels), or (batch, channels * cells) where it looks at places."""
        return self.pooled(feature_map)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 1, size_px, size_px) -> (batch, labels) logits."""
        return self.head(self.features(x))


def _pulled_back(classifier: nn.Module, inputs: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Pass a gradient back through a classifier in evaluation mode: (batch, outputs) -> (batch, inputs)."""
    layers = list(classifier) if isinstance(classifier, nn.Sequential) else [classifier]
    passed = [inputs]
    for layer in layers:
        passed.append(layer(passed[-1]))
    for layer, given in zip(reversed(layers), reversed(passed[:-1]), strict=True):
        match layer:
            case nn.Linear():
                gradient = gradient @ layer.weight
            case nn.ReLU():
                gradient = gradient * (given > 0)
            case nn.BatchNorm1d() if layer.running_var is not None:
                gradient = gradient * (layer.weight / torch.sqrt(layer.running_var + layer.eps))
            case nn.Dropout():
                pass
            case _:
                raise ModelError(f"no gradient is known for {type(layer).__name__} in a classifier")
    return gradient


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
        sides = [torch.tensor(side, device=scores.device) for side in self._sides()]
        against = [scores[:, one].logsumexp(1) - scores[:, ~one].logsumexp(1) for one in sides]  # (batch,) each
        return torch.stack(against, dim=1)

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
