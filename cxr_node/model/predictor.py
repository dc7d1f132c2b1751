"""One look at one radiograph: calibrated probability, spread over views, distance, and where the network looked.

Knows no DICOM, no threshold and no other image: an answer depends on the radiograph and the profile alone.

Everything is computed in float32. On two cores bfloat16 would save 4 of 15 ms an image, but an answer would then
depend on the processor it was given on, and the calibration was fitted on float32.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from cxr_node.domain import Examination, Heatmap, Prediction, Radiograph, View
from cxr_node.errors import ModelError
from cxr_node.model import gradcam, weights
from cxr_node.model.classes import divided
from cxr_node.model.distance import distance
from cxr_node.model.networks import Network
from cxr_node.model.preprocess import borders, prepare, views
from cxr_node.model.profile import Profile, sha256
from cxr_node.model.torchxrayvision import op_norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the network yields for the views of some images, before any calibration.

    Attributes
    ----------
    logits : float32, shape (images, views, labels)
    feature_map : float32, shape (images, channels, rows, cols), of the plain view
    signature : float32, shape (images, channels), of the plain view: what `distance` measures
    strangeness : float32, shape (images,), of the plain view, where the network has learned to know outsiders
    """

    logits: torch.Tensor
    feature_map: torch.Tensor
    signature: torch.Tensor
    strangeness: torch.Tensor | None


@torch.no_grad()
def look(network: Network, shown: torch.Tensor) -> Sight:
    """Pass all views through the network in one batch; calibration and serving share this function.

    Parameters
    ----------
    network : in evaluation mode
    shown : float32, shape (images, views, 1, size_px, size_px); the first view is the image itself
    """
    images, seen = shown.shape[:2]
    batch = shown.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    early_maps = network.early(batch)  # (images * views, channels, rows, cols)
    feature_maps = network.late(early_maps)
    logits = network.head(feature_maps).reshape(images, seen, -1)
    plain = feature_maps[::seen]
    return Sight(
        logits=logits,
        feature_map=plain,
        signature=network.signature(early_maps[::seen]),
        strangeness=network.strangeness(plain),
    )


def calibrated(logits: torch.Tensor, slope: float, intercept: float) -> torch.Tensor:
    """Platt's sigmoid(slope * logit + intercept): any shape, same shape in [0, 1]."""
    return torch.sigmoid(slope * logits.double() + intercept)


def image_logits(logits: torch.Tensor) -> torch.Tensor:
    """Mean over views, the logit that is calibrated: (images, views, labels) -> (images, labels)."""
    return logits.mean(dim=1)


def spread(probabilities: torch.Tensor) -> torch.Tensor:
    """Largest difference between views: calibrated (images, views, labels) -> (images, labels), in [0, 1]."""
    return probabilities.amax(dim=1) - probabilities.amin(dim=1)


class TorchPredictor:
    """A profile's classifier on this machine; `pipeline.Predictor`.

    Not for two threads at once: a worker process owns one.
    """

    def __init__(self, profile: Profile, network: Network, stats: Mapping[str, torch.Tensor]) -> None:
        self._profile = profile
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.to(self._device).to(memory_format=torch.channels_last).eval()  # 33 instead of 50 ms
        self._stats = {name: tensor.to(self._device) for name, tensor in stats.items()}

    @property
    def profile(self) -> Profile:
        """The profile this predictor was loaded from."""
        return self._profile

    def examine(self, radiograph: Radiograph) -> Examination:
        """Predict and explain one radiograph.

        Parameters
        ----------
        radiograph : pixels float32, shape (rows, cols), range [0, 1], larger means more attenuating

        Raises
        ------
        ModelError : the network failed or answered something that is no number
        """
        try:
            spec = self._profile.input
            shown = views(prepare(radiograph.pixels, spec), spec.normalisation)[None].to(self._device)
            sight = look(self._network, shown)
            return Examination(prediction=self._predict(sight), heatmap=self._explain(sight, radiograph))
        except RuntimeError as error:  # torch's only word for shapes, memory and devices
            raise ModelError(f"profile {self._profile.name}: the network failed: {error}") from error

    def _predict(self, sight: Sight) -> Prediction:
        profile = self._profile
        by_view, answer = self._numbers(sight.logits)  # (1, views, labels), (labels,)
        judged = profile.labels.index(profile.operating_point.label)
        trained = profile.op_norm or (0.5,) * len(profile.answered)
        answers = zip(profile.answered, answer[: len(profile.answered)].tolist(), trained, strict=True)
        prediction = Prediction(
            probability={label: number for label, number, at in answers if at is not None},
            spread=float(spread(by_view)[0, judged]),
            distance=float(distance(sight.signature, self._stats, sight.strangeness)[0]) if self._stats else None,
            classes=self._classes(sight.logits, float(answer[judged])),
        )
        if not np.isfinite([*prediction.probability.values(), prediction.spread, prediction.distance or 0.0]).all():
            raise ModelError(f"profile {profile.name}: the network's answer is no number")
        return prediction

    def _numbers(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Calibrate, or score as published: there the plain view alone answers, the others tell of doubt.

        (1, views, labels) -> (1, views, labels), (labels,)
        """
        slope, intercept, thresholds = self._profile.slope, self._profile.intercept, self._profile.op_norm
        by_view = calibrated(logits, slope, intercept)
        if thresholds is None:
            return by_view, calibrated(image_logits(logits), slope, intercept)[0]
        scores = op_norm(by_view, thresholds)
        return scores, scores[0, 0]

    def _classes(self, logits: torch.Tensor, judged: float) -> dict[str, float]:
        """Divide the judged probability among the classes, where there are any; they are the last labels."""
        classes = self._profile.network.classes
        if not classes:
            return {}
        mean = image_logits(logits)[0, -len(classes) :]  # (classes,)
        return dict(zip(classes, divided(judged, mean, list(classes.values())).tolist(), strict=True))

    def _explain(self, sight: Sight, radiograph: Radiograph) -> Heatmap:
        label = self._profile.operating_point.label
        active = gradcam.activation(self._network, sight.feature_map, self._profile.labels.index(label))
        rows, cols = radiograph.pixels.shape
        weight = gradcam.on_source_grid(active, (rows, cols), borders((rows, cols), self._profile.input))
        return Heatmap(weight=weight, outline=gradcam.outline(weight), label=label, layer=self._network.layer)


def load_predictor(profile: Profile, threads: int = 0) -> TorchPredictor:
    """Load a profile's network, and let it judge one drawn image as a self-test.

    Parameters
    ----------
    profile : verified by `profile.load`
    threads : threads of inference; 0: all cores of the machine. Process-wide, as torch's setting is.

    Raises
    ------
    ModelError : the weights are not those the profile was loaded with, do not fit its network, or do not work here
    """
    if (found := sha256(profile.weights_path)) != profile.weights_sha256:
        raise ModelError(f"{profile.weights_path} was changed: sha256 is {found}, expected {profile.weights_sha256}")
    torch.set_num_threads(threads or os.cpu_count() or 1)
    torch.backends.cudnn.allow_tf32 = False  # the calibration was fitted on float32
    network, stats = weights.load(profile.weights_path, profile.network, len(profile.labels))
    if (profile.operating_point.max_distance is None) is bool(stats):
        raise ModelError(f"{profile.folder}: max_distance and the distance.* of the weights belong together")
    predictor = TorchPredictor(profile, network, stats)
    predictor.examine(_test_image(profile.input.size_px))
    return predictor


def _test_image(size_px: int) -> Radiograph:
    """A soft bright disc on black: any image with contrast will do."""
    row, column = np.mgrid[:size_px, :size_px] / size_px - 0.5
    disc = np.exp(-8.0 * (row**2 + column**2)).astype(np.float32)
    return Radiograph(pixels=disc, pixel_aspect=1.0, view=View.UNKNOWN, pixel_sha256=hashlib.sha256(disc).hexdigest())
