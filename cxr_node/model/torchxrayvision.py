"""TorchXRayVision's DenseNet-121 as its authors published it: labels, operating points, input.

Follows `torchxrayvision/models.py` and `datasets.py`, version 1.5 (Apache-2.0; Cohen et al., MIDL 2022); a test
compares each part with a second reading of that source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

ARCHITECTURE = "xrv-densenet121"
SIZE_PX = 224
REACH = 1024.0
"""Black is -1024 and white 1024 (`utils.normalize`)."""
LABELS = (
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion",
    "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture",
    "Lung Opacity", "Enlarged Cardiomediastinum",
)  # fmt: skip
"""One logit each, in this order (`datasets.default_pathologies`), whichever of the published weights is loaded."""
_NAN = math.nan
OP_THRESHOLDS: Mapping[str, tuple[float, ...]] = MappingProxyType({
    "densenet121-res224-all": (
        0.07422872, 0.038290843, 0.09814756, 0.0098118475, 0.023601074, 0.0022490358, 0.010060724, 0.103246614,
        0.056810737, 0.026791653, 0.050318155, 0.023985857, 0.01939503, 0.042889766, 0.053369623, 0.035975814,
        0.20204692, 0.05015312,
    ),
    "densenet121-res224-nih": (
        0.039117552, 0.0034529066, 0.11396341, 0.0057298196, 0.00045666535, 0.0018880932, 0.012037827, 0.038744126,
        0.0037213727, 0.014730946, 0.016149804, 0.054241467, 0.037198864, 0.0004403434, _NAN, _NAN, _NAN, _NAN,
    ),
    "densenet121-res224-pc": (
        0.031012505, 0.013347598, 0.081435576, 0.001262615, 0.002587246, 0.0035944257, 0.0023071, 0.055412333,
        0.044385884, 0.042766232, 0.043258056, 0.037629247, 0.005658899, 0.0091741895, _NAN, 0.026507627, _NAN, _NAN,
    ),
    "densenet121-res224-chex": (
        0.1988969, 0.05710573, _NAN, 0.0531293, 0.1435217, _NAN, _NAN, 0.27212676, 0.07749717, _NAN, 0.19712369, _NAN,
        _NAN, _NAN, 0.09932402, 0.09273402, 0.3270967, 0.10888247,
    ),
    "densenet121-res224-rsna": (
        _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, 0.13486601, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN,
        0.13511065, _NAN,
    ),
    "densenet121-res224-mimic_nb": (
        0.08558747, 0.011884617, _NAN, 0.0040595434, 0.010733786, _NAN, _NAN, 0.118761964, 0.022924708, _NAN,
        0.06358637, _NAN, _NAN, _NAN, 0.022143636, 0.017476924, 0.1258702, 0.014020768,
    ),
    "densenet121-res224-mimic_ch": (
        0.09121389, 0.010573786, _NAN, 0.005023008, 0.003698257, _NAN, _NAN, 0.08001232, 0.037242252, _NAN, 0.05006329,
        _NAN, _NAN, _NAN, 0.019866971, 0.03823637, 0.11303808, 0.0069147074,
    ),
})  # fmt: skip
"""Operating point of each label as a sigmoid (`model_urls`); not a number for a label that was not trained."""
_PUBLISHED_TAIL = "-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best"
_FILE_NAMES = {
    "nih-pc-chex-mimic_ch-google-openi-kaggle": "densenet121-res224-all", "nih": "densenet121-res224-nih",
    "pc": "densenet121-res224-pc", "chex": "densenet121-res224-chex", "kaggle": "densenet121-res224-rsna",
    "mimic_nb": "densenet121-res224-mimic_nb", "mimic_ch": "densenet121-res224-mimic_ch",
}  # fmt: skip


def published_as(file_name: str) -> str | None:
    """Name of the weights that were published in a file of this name, whatever follows its first dot; None: none."""
    stem = file_name.partition(".")[0]
    return _FILE_NAMES.get(stem.removesuffix(_PUBLISHED_TAIL)) if stem.endswith(_PUBLISHED_TAIL) else None


def op_norm(probabilities: NDArray[np.float64], thresholds: Sequence[float | None]) -> NDArray[np.float64]:
    """Stretch each label so that its operating point comes to lie at 0.5 (`models.op_norm`).

    Parameters
    ----------
    probabilities : sigmoids of the logits, shape (..., labels), range [0, 1]
    thresholds : operating point of each label in (0, 1); None for a label that was not trained

    Returns
    -------
    the same shape, range [0, 1], two straight lines through (0, 0), (threshold, 0.5), (1, 1); 0.5 where there is no
    threshold. A score: its order is that of the sigmoid, its value is no probability.
    """
    at = np.array([_NAN if value is None else value for value in thresholds])
    below = probabilities / (at * 2)
    above = 1 - (1 - probabilities) / ((1 - at) * 2)
    return np.asarray(np.where(np.isnan(at), 0.5, np.where(probabilities < at, below, above)))


def prepare(pixels: NDArray[np.float32], size_px: int) -> NDArray[np.float32]:
    """Scale, crop and shrink as the authors do (`normalize`, `XRayCenterCrop`, `XRayResizer` with scikit-image).

    Parameters
    ----------
    pixels : float32, shape (rows, cols), range [0, 1], larger means more attenuating (MONOCHROME2 sense)
    size_px : the network's grid

    Returns
    -------
    float32, shape (size_px, size_px), range [-1024, 1024]

    Notes
    -----
    The resizing is scikit-image's: Gaussian of half the step's excess over one pixel, then linear interpolation, with
    zeros, that is mid grey, beyond the edges.
    """
    from scipy import ndimage

    top, left, side = square(pixels.shape)
    scaled = (2.0 * pixels[top : top + side, left : left + side] - 1.0) * np.float32(REACH)
    step = side / size_px
    if step > 1.0:
        scaled = ndimage.gaussian_filter(scaled, (step - 1.0) / 2.0, mode="grid-constant")
    resized = ndimage.zoom(scaled, 1.0 / step, order=1, mode="grid-constant", grid_mode=True)
    return np.asarray(np.clip(resized, -REACH, REACH).astype(np.float32))


def square(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Top, left and side of the central square that the network sees (`XRayCenterCrop.crop_center`)."""
    rows, cols = shape
    side = min(rows, cols)
    return rows // 2 - side // 2, cols // 2 - side // 2, side
