"""From a radiograph to the network's input: the same function in training and in serving.

Knows nothing of DICOM, of networks or of files. One golden array (tests/model/test_preprocess.py) pins it:
a change of one bit here makes every calibration in `weights/` void.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from PIL import Image

from cxr_node.model import torchxrayvision
from cxr_node.model.profile import InputSpec, Normalisation

LOW_QUANTILE, HIGH_QUANTILE = 0.02, 0.98
"""Grey values beyond these are clipped: burned-in letters and direct radiation must not set the scale."""
SMALLEST_SPREAD = 1e-4
"""Standard deviation below which an image counts as constant; a sixteenth of a step of 8 bits."""
VIEW_NAMES = ("plain", "closer", "blurred", "brighter")
"""What each row of `views` shows."""


def prepare(pixels: NDArray[np.float32], spec: InputSpec) -> NDArray[np.float32]:
    """Cut the border, average down to the network's grid, standardise; or what TorchXRayVision's networks expect.

    Parameters
    ----------
    pixels : float32, shape (rows, cols), range [0, 1], larger means more attenuating (MONOCHROME2 sense)
    spec : size of the grid and share of the border to cut

    Returns
    -------
    float32, shape (size_px, size_px), mean 0, standard deviation 1 within the clipped grey values; range
    [-1024, 1024] where the normalisation is XRV

    Notes
    -----
    Each output pixel is a triangle-weighted mean over the source area under it, so that an original of
    3,000 pixels and its small copy give nearly the same input. The aspect is squashed, as in the training images.
    """
    if spec.normalisation is Normalisation.XRV:
        return torchxrayvision.prepare(pixels, spec.size_px)
    return standardise(torch.from_numpy(cut_and_resize(pixels, spec))[None])[0].numpy()


def borders(shape: tuple[int, ...], spec: InputSpec) -> tuple[float, float]:
    """Share of the rows, and of the columns, that `prepare` leaves out on each side."""
    if spec.normalisation is Normalisation.STANDARDISED:
        return spec.border, spec.border
    top, left, _ = torchxrayvision.square(shape)
    return top / shape[0], left / shape[1]


def cut_and_resize(pixels: NDArray[np.float32], spec: InputSpec) -> NDArray[np.float32]:
    """`prepare` without the standardisation: float32, shape (size_px, size_px), range [0, 1]."""
    rows, cols = pixels.shape
    kept = (spec.border * cols, spec.border * rows, (1.0 - spec.border) * cols, (1.0 - spec.border) * rows)
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
    resized = image.resize((spec.size_px, spec.size_px), Image.Resampling.BILINEAR, box=kept)
    return np.array(resized, dtype=np.float32)


def standardise(images: torch.Tensor) -> torch.Tensor:
    """Clip each image to its central grey values and scale it to mean 0 and standard deviation 1.

    Parameters
    ----------
    images : float32, shape (batch, rows, cols), any range

    Returns
    -------
    float32, the same shape. A constant image becomes zeros.

    Notes
    -----
    The quantiles are taken on 2 x 2 means: noise and single bright pixels do not move them.
    """
    means = nnf.avg_pool2d(images[:, None], 2).flatten(1)  # (batch, rows / 2 * cols / 2)
    bounds = torch.quantile(means, torch.tensor([LOW_QUANTILE, HIGH_QUANTILE]), dim=1)  # (2, batch)
    low, high = bounds[0][:, None, None], bounds[1][:, None, None]
    clipped = images.clamp(low, high)
    spread, centre = torch.std_mean(clipped, dim=(1, 2), correction=0, keepdim=True)
    return (clipped - centre) / spread.clamp_min(SMALLEST_SPREAD)


def views(prepared: NDArray[np.float32], normalisation: Normalisation = Normalisation.STANDARDISED) -> torch.Tensor:
    """Show a prepared image in the ways that must not change its meaning; the first is the image itself.

    Parameters
    ----------
    prepared : float32, shape (size_px, size_px), as `prepare` returns it
    normalisation : how it was prepared; the views are brought to the same range

    Returns
    -------
    float32, shape (len(VIEW_NAMES), 1, size_px, size_px)
    """
    plain = torch.from_numpy(prepared)[None, None]  # (1, 1, size_px, size_px)
    if normalisation is Normalisation.XRV:
        reach = torchxrayvision.REACH
        brighter = ((plain / reach + 1.0) / 2.0) ** 0.8 * 2.0 * reach - reach
        return torch.cat([plain, _closer(plain), _blurred(plain), brighter])
    shown = torch.cat([plain, _closer(plain), _blurred(plain), _brighter(plain)])
    return torch.cat([plain, standardise(shown[1:, 0])[:, None]])


def _closer(image: torch.Tensor) -> torch.Tensor:
    size = image.shape[-1]
    edge = round(0.04 * size)
    inner = image[..., edge : size - edge, edge : size - edge]
    return nnf.interpolate(inner, size=(size, size), mode="bilinear", align_corners=False)


def _blurred(image: torch.Tensor) -> torch.Tensor:
    padded = nnf.pad(image, (1, 1, 1, 1), mode="replicate")
    return nnf.avg_pool2d(padded, 3, stride=1)


def _brighter(image: torch.Tensor) -> torch.Tensor:
    low, high = image.min(), image.max()
    reach = (high - low).clamp_min(SMALLEST_SPREAD)
    brighter: torch.Tensor = ((image - low) / reach) ** 0.8
    return brighter
