"""Pictures in, probability and heat map (of the plain view) out: what the tests of heat maps ask a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cxr_node import heatmap
from cxr_node.domain import Border
from cxr_node.model import lungs, preprocess
from cxr_node.model.lungs import Chest
from cxr_node.model.networks import Network
from cxr_node.model.predictor import calibrated
from cxr_node.model.profile import Profile
from cxr_node.training.data import device, images
from cxr_node.training.data.images import Item
from cxr_node.training.measure import inference

BATCH = 8
LARGEST_PX = 512
"""Long side from which a radiograph is made smaller first: a heat map has 36 to 144 cells."""
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One radiograph, as large as the tests need it.

    Attributes
    ----------
    pixels : float32, shape (rows, cols), range [0, 1]
    """

    pixels: Floats
    chest: Chest
    positive: bool
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a network says of one picture, and why.

    Attributes
    ----------
    probability : calibrated, in [0, 1], of the plain view
    active : float32, shape (cells, cells), 0 or larger, in logits per cell, as `Network.activation` returns it
    """

    probability: float
    active: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A network with the calibration of its profile."""

    profile: Profile
    network: Network

    @property
    def label(self) -> int:
        """Which logit is judged."""
        return self.profile.labels.index(self.profile.operating_point.label)

    def prepared(self, films: Sequence[Floats]) -> torch.Tensor:
        """Prepare as in serving: float32, (films, pictures, side_px, side_px)."""
        inputs = inference.empty(len(films), self.profile.input)
        for place, pixels in enumerate(films):
            inputs[place] = torch.from_numpy(preprocess.pictures(pixels, self.profile.input))
        return inputs

    def probabilities(self, inputs: torch.Tensor) -> NDArray[np.float64]:
        """Judge prepared films: (films, pictures, side_px, side_px) -> (films,), in [0, 1]."""
        judged = device.on_all_cores(self._judged, torch.split(inputs, BATCH))
        return np.array([one for part in judged for one in part], dtype=np.float64)

    def explain(self, inputs: torch.Tensor) -> list[Explanation]:
        """Judge and explain prepared pictures; one pass forward, and back through the head only."""
        return self.explain_maps(self.maps(inputs))

    def maps(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Last feature maps of prepared pictures: batches of shape (up to `BATCH`, channels, rows, cols)."""
        return device.on_all_cores(self._mapped, torch.split(inputs, BATCH))

    def explain_maps(self, maps: Sequence[torch.Tensor]) -> list[Explanation]:
        """Judge and explain what `maps` returned: the head's work alone."""
        return [explanation for part in device.on_all_cores(self._explained, maps) for explanation in part]

    def shown(self, explanation: Explanation, film: Floats) -> Floats:
        """Spread a map over a film as the node shows it: its shape, range [0, 1], zeros where nothing stands out."""
        return heatmap.on_source_grid(explanation.active, film.shape, self.borders(film))

    def even(self, film: Floats) -> Floats:
        """Spread a map that is the same everywhere: 1 where the network sees, 0 on the border that is cut."""
        return heatmap.on_source_grid(np.ones((2, 2), dtype=np.float32), film.shape, self.borders(film))

    def borders(self, film: Floats) -> Border:
        """As `preprocess.borders`, of the profile's input."""
        return preprocess.borders(film, self.profile.input)

    @torch.no_grad()
    def _judged(self, inputs: torch.Tensor) -> list[float]:
        logits = self.network(device.placed(inputs, self.network))[:, self.label]
        found: list[float] = calibrated(logits.cpu().numpy(), self.profile.slope, self.profile.intercept).tolist()
        return found

    @torch.no_grad()
    def _mapped(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.network.features(device.placed(inputs, self.network))  # (batch, channels, cells, cells)

    @torch.no_grad()
    def _explained(self, maps: torch.Tensor) -> list[Explanation]:
        logits = self.network.head(maps)[:, self.label]
        judged = calibrated(logits.cpu().numpy(), self.profile.slope, self.profile.intercept).tolist()
        active = self.network.activation(maps, self.label).cpu().numpy()  # (batch, cells, cells)
        return [Explanation(probability=number, active=one) for number, one in zip(judged, active, strict=True)]


def case_of(item: Item) -> Case:
    """Decode a radiograph, make it smaller where it is large, and find its chest.

    Raises DataError: the file is not an image.
    """
    pixels = images.load(item)
    largest = max(pixels.shape)
    if largest > LARGEST_PX:
        size = [max(1, round(side * LARGEST_PX / largest)) for side in pixels.shape[::-1]]
        small = Image.fromarray(pixels).resize((size[0], size[1]), Image.Resampling.BILINEAR)
        pixels = np.asarray(small, dtype=np.float32)
    return Case(pixels=pixels, chest=lungs.find(pixels), positive=item.positive, group=item.group)
