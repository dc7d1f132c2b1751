"""The default profile with the usual means: torch in fp32 and the package grad-cam, on the same weights.

Written as its author would who knows the weights, and neither our predictor nor our runtime: the pixels are resized as
floats, and Grad-CAM goes forward and backward through the whole network.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from cxr_node.model import weights
from cxr_node.model.profile import Profile

Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Calibrated probability, its spread over the views (0 where there is one), and the map on the source grid."""

    probability: float
    spread: float
    map: Float


class PlainModel:
    """Network and Grad-CAM, loaded once and kept open."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.network, _ = weights.load(profile.weights_path, profile.network, len(profile.labels))
        self.cam = GradCAM(model=self.network, target_layers=[self.network.get_submodule("trunk.18")])
        self.label = profile.operating_point.label
        self.targets = [ClassifierOutputTarget(profile.judged)]

    def answer(self, pixels: Float) -> Answer:
        """One view: forward and backward, as grad-cam does them, and the logit of the same forward pass."""
        small = self.map_of(self.prepared(pixels)[None, None])
        return Answer(
            probability=float(self._calibrated(self.cam.outputs)[0]), spread=0.0, map=_on_source(small, pixels)
        )

    def same_answer(self, pixels: Float) -> Answer:
        """What the profile promises: the mean and the spread of four views, and the map of the plain one.

        The views need no gradient, so they go forward alone: quicker than all four through grad-cam.
        """
        by_view, mean, small = self.seen(self.prepared(pixels))
        spread = float(by_view.max() - by_view.min())
        return Answer(probability=float(mean[0]), spread=spread, map=_on_source(small, pixels))

    def seen(self, plain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Float]:
        """Probabilities of the views, the calibrated mean, and the map, of one prepared image."""
        with torch.no_grad():
            logits = self.network(views(plain))
        return (
            self._calibrated(logits),
            self._calibrated(logits.mean(dim=0, keepdim=True)),
            self.map_of(plain[None, None]),
        )

    def seen_at_once(self, plain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Float]:
        """The same in one call of the package: simpler, and slower, for every view goes backward."""
        maps = self.cam(input_tensor=views(plain), targets=self.targets)
        logits = self.cam.outputs
        return self._calibrated(logits), self._calibrated(logits.mean(dim=0, keepdim=True)), maps[0]

    def map_of(self, shown: torch.Tensor) -> Float:
        """Grad-CAM of prepared images, (1, 1, size_px, size_px) -> (size_px, size_px), peak 1."""
        found: Float = self.cam(input_tensor=shown, targets=self.targets)[0]
        return found

    def prepared(self, pixels: Float) -> torch.Tensor:
        """Cut the border, average down, standardise: what the weights were trained on; (size_px, size_px)."""
        spec, (rows, columns) = self.profile.input, pixels.shape
        low, high = spec.border, 1.0 - spec.border
        size = (spec.size_px, spec.size_px)
        kept = (low * columns, low * rows, high * columns, high * rows)
        resized = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, box=kept)
        return standardised(torch.from_numpy(np.array(resized))[None])[0]

    def _calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.profile.slope * logits[:, self.profile.judged] + self.profile.intercept).detach()

    def scaled(self, activation: Float) -> Float:
        """Bring a feature map's cells to the size of the network's input, as the package does with its own."""
        size = (self.profile.input.size_px, self.profile.input.size_px)
        return cv2.resize(activation, size).astype(np.float32, copy=False)


def standardised(images: torch.Tensor) -> torch.Tensor:
    """Clip to the central grey values, then mean 0 and standard deviation 1: (images, rows, columns)."""
    means = nnf.avg_pool2d(images[:, None], 2).flatten(1)
    low, high = torch.quantile(means, torch.tensor([0.02, 0.98]), dim=1)[:, :, None, None]
    clipped = images.clamp(low, high)
    deviation, centre = torch.std_mean(clipped, dim=(1, 2), correction=0, keepdim=True)
    return (clipped - centre) / deviation.clamp_min(1e-4)


def views(plain: torch.Tensor) -> torch.Tensor:
    """The image, closer, blurred and brighter: (size_px, size_px) -> (4, 1, size_px, size_px)."""
    image, edge = plain[None, None], round(0.04 * plain.shape[-1])
    inner = image[..., edge:-edge, edge:-edge]
    closer = nnf.interpolate(inner, size=plain.shape, mode="bilinear", align_corners=False)
    blurred = nnf.avg_pool2d(nnf.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    brighter = ((image - image.min()) / (image.max() - image.min())) ** 0.8
    others = torch.cat([closer, blurred, brighter])[:, 0]
    return torch.cat([image, standardised(others)[:, None]])


def _on_source(small: Float, pixels: Float) -> Float:
    return cv2.resize(small, pixels.shape[::-1]).astype(np.float32, copy=False)
