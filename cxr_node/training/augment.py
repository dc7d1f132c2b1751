"""One batch of training images, changed in every way that must not change the answer.

Knows no labels: both classes pass through the same doors. What remains the same in a class's images after
this is what the network may learn; scanner style, letters, sharpness and JPEG blocks should not be among it.
"""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from PIL import Image

from cxr_node.model.preprocess import standardise
from cxr_node.model.profile import InputSpec
from cxr_node.training import stamps
from cxr_node.training.recipe import AugmentSection

BANK_SIZE = 600
BOX_SIGMA_PX = 0.816
"""Standard deviation of a 3 x 3 mean; n of them in a row have sqrt(n) times as much."""


class Augmenter:
    """The doors, in order: marks, wipes, geometry, sharpness, tone, noise, recompression, standardisation.

    All chance comes from the generator given to a call: the same generator state, the same batch.
    """

    def __init__(self, section: AugmentSection, spec: InputSpec, source_px: int, seed: int) -> None:
        self._section = section
        self._spec = spec
        self._stamps = stamps.bank(BANK_SIZE, source_px, np.random.default_rng(seed))

    def __call__(self, images: NDArray[np.uint8], rng: np.random.Generator) -> torch.Tensor:
        """Change a batch.

        Parameters
        ----------
        images : uint8, shape (batch, source_px, source_px)
        rng : the only source of chance

        Returns
        -------
        float32, shape (batch, 1, size_px, size_px), standardised as `model.preprocess.prepare` does
        """
        section = self._section
        changed = images.astype(np.float32) / 255.0
        for image in changed:
            if rng.random() < section.marks:
                stamps.paste(image, self._stamps, rng)
            if rng.random() < section.wipe:
                _wipe(image, rng)
        batch = _warped(torch.from_numpy(changed)[:, None], section, self._spec, rng)  # (B, 1, size_px, size_px)
        batch = _sharpness(batch, section, rng)
        batch = _tone(batch, section, rng)
        batch = _noise(batch, section, rng).clamp(0.0, 1.0)
        batch = _recompressed(batch, section, rng)
        return standardise(batch[:, 0])[:, None]


def _per_image(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).reshape(-1, 1, 1, 1)


def _wipe(image: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Blank edges, corners or a rectangle, in place: collimation, shields, erased text."""
    rows, cols = image.shape
    grey = rng.choice([0.0, float(image.mean()), float(rng.random())])
    match int(rng.integers(3)):
        case 0:
            top, bottom = rng.uniform(0.0, 0.12, size=2) * rows
            left, right = rng.uniform(0.0, 0.12, size=2) * cols
            image[: int(top)] = grey
            image[rows - int(bottom) :] = grey
            image[:, : int(left)] = grey
            image[:, cols - int(right) :] = grey
        case 1:
            high, wide = int(rng.uniform(0.08, 0.3) * rows), int(rng.uniform(0.08, 0.3) * cols)
            row = slice(0, high) if rng.random() < 0.5 else slice(rows - high, rows)
            col = slice(0, wide) if rng.random() < 0.5 else slice(cols - wide, cols)
            image[row, col] = grey
        case _:
            high, wide = int(rng.uniform(0.08, 0.35) * rows), int(rng.uniform(0.08, 0.35) * cols)
            top, left = int(rng.integers(rows - high)), int(rng.integers(cols - wide))
            image[top : top + high, left : left + wide] = grey


def _warped(batch: torch.Tensor, section: AugmentSection, spec: InputSpec, rng: np.random.Generator) -> torch.Tensor:
    """Rotate, scale, stretch and shift, and cut the border, in one resampling."""
    count = len(batch)
    angle = np.radians(rng.uniform(-section.rotate_deg, section.rotate_deg, count))
    zoom = np.exp(rng.uniform(-section.scale, section.scale, count)) * (1.0 - 2.0 * spec.border)
    stretch = np.exp(rng.uniform(-section.aspect, section.aspect, count) / 2.0)
    mirror = np.where(rng.random(count) < section.mirror, -1.0, 1.0)
    theta = np.empty((count, 2, 3))
    theta[:, 0, 0], theta[:, 0, 1] = np.cos(angle) * zoom * stretch * mirror, -np.sin(angle) * zoom / stretch
    theta[:, 1, 0], theta[:, 1, 1] = np.sin(angle) * zoom * stretch * mirror, np.cos(angle) * zoom / stretch
    theta[:, :, 2] = rng.uniform(-2.0 * section.shift, 2.0 * section.shift, (count, 2))
    size = [count, 1, spec.size_px, spec.size_px]
    grid = nnf.affine_grid(torch.from_numpy(theta.astype(np.float32)), size, align_corners=False)
    outside = ("zeros", "border", "reflection")[int(rng.integers(3))]
    return nnf.grid_sample(batch, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def _sharpness(batch: torch.Tensor, section: AugmentSection, rng: np.random.Generator) -> torch.Tensor:
    """Mix each image with a blurred copy of it; a negative share sharpens."""
    if section.blur_px <= 0.0:
        return batch
    passes = int(rng.integers(1, max(2, 1 + round((section.blur_px / BOX_SIGMA_PX) ** 2))))
    soft = batch
    for _ in range(passes):
        soft = _box_blurred(soft)
    share = np.where(rng.random(len(batch)) < 0.6, rng.uniform(-section.sharpen, 1.0, len(batch)), 0.0)
    return batch + _per_image(share) * (soft - batch)


def _box_blurred(batch: torch.Tensor) -> torch.Tensor:
    return nnf.avg_pool2d(nnf.pad(batch, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _tone(batch: torch.Tensor, section: AugmentSection, rng: np.random.Generator) -> torch.Tensor:
    """Gamma, contrast, and a slow unevenness of illumination as of scatter and grids."""
    count = len(batch)
    batch = batch.clamp(1e-4, 1.0) ** _per_image(np.exp(rng.uniform(-section.gamma, section.gamma, count)))
    slope = _per_image(rng.uniform(1.0 - section.contrast, 1.0 + section.contrast, count))
    pivot = _per_image(rng.uniform(0.2, 0.8, count))
    batch = ((batch - pivot) * slope + pivot).clamp(0.0, 1.0)
    coarse = torch.from_numpy(rng.uniform(-section.unevenness, section.unevenness, (count, 1, 4, 4)).astype(np.float32))
    slow = nnf.interpolate(coarse, size=batch.shape[-2:], mode="bicubic", align_corners=True)
    return batch * (1.0 + slow * _per_image((rng.random(count) < 0.5).astype(np.float64)))


def _noise(batch: torch.Tensor, section: AugmentSection, rng: np.random.Generator) -> torch.Tensor:
    """Add white or slightly smooth noise to half of the images."""
    strength = _per_image(rng.uniform(0.0, section.noise, len(batch)) * (rng.random(len(batch)) < 0.5))
    white = torch.from_numpy(rng.standard_normal(batch.shape, dtype=np.float32))
    if rng.random() < 0.5:
        white = _box_blurred(white) * 3.0
    return batch + strength * white


def _recompressed(batch: torch.Tensor, section: AugmentSection, rng: np.random.Generator) -> torch.Tensor:
    """Send some images through JPEG at any quality: its blocks must not tell the class."""
    lowest, highest = section.recompress_quality
    chosen = np.flatnonzero(rng.random(len(batch)) < section.recompress)
    qualities = rng.integers(lowest, highest + 1, len(chosen))
    batch = batch.contiguous()
    for place, quality in zip(chosen, qualities, strict=True):
        batch[place, 0] = torch.from_numpy(_through_jpeg(batch[place, 0].numpy(), int(quality)))
    return batch


def _through_jpeg(image: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
    coded = io.BytesIO()
    Image.fromarray(np.rint(image * 255.0).astype(np.uint8)).save(coded, "JPEG", quality=quality)
    return np.asarray(Image.open(coded), dtype=np.float32) / 255.0
