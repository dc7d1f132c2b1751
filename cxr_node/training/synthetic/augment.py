"""One batch of training images, changed in every way that must not change the answer, and in one that must.

Images of both classes are changed alike; what remains the same in a class is what the network may learn. Scanner style,
letters, sharpness, JPEG blocks and surroundings are not to be among it: in one hospital's data ward and device often
tell the class (Zech et al. 2018), so they are exchanged between images. The only change that knows labels draws an
opacity into a normal lung and calls the image positive.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cxr_node.model.preprocess import standardise
from cxr_node.model.profile import Geometry, InputSpec
from cxr_node.training.data.recipe_sections import AugmentSection
from cxr_node.training.synthetic import drawings, letterbox
from cxr_node.training.synthetic.chance import Chance, alike

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

BANK_SIZE = 600
BOX_SIGMA_PX = 0.816
"""Standard deviation of a 3 x 3 mean; n of them in a row have sqrt(n) times as much."""


CHEST = (0.07, 0.86, 0.06, 0.94)
"""Top, bottom, left and right of the chest as shares of a squashed frontal radiograph: nothing outside is lung."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentedBatch:
    """Changed images and what is known of them.

    Attributes
    ----------
    inputs : float32, shape (batch, pictures, side_px, side_px), standardised as `model.preprocess.prepare` does
    positive : bool, shape (batch,); True also where an opacity was drawn into a normal lung
    chest : float32, shape (batch, 1, size_px, size_px), 1 where the chest is
    drawn : float32, shape (batch, 1, size_px, size_px), where an opacity was drawn; zeros in all other images
    """

    inputs: torch.Tensor
    positive: NDArray[np.bool_]
    chest: torch.Tensor
    drawn: torch.Tensor


class Augmenter:
    """The doors, in order: opacities, surroundings, style, marks, wipes, geometry, sharpness, tone, noise, JPEG.

    All chance comes from the generator given to a call: the same generator state, the same batch.
    """

    def __init__(self, section: AugmentSection, spec: InputSpec, source_px: int, seed: int) -> None:
        self._section = section
        self._spec = spec
        self._stamps = _stamps(source_px, seed)
        self._chest = _chest(source_px)

    @property
    def opacity(self) -> float:
        """Share of negatives into which an opacity is drawn."""
        return self._section.opacity

    def __call__(
        self,
        images: Bytes,
        positive: Bools,
        rng: np.random.Generator,
        *,
        size_px: int = 0,
        aspects: letterbox.Doubles | None = None,
    ) -> AugmentedBatch:
        """Change a batch, opacities drawn into a share of its negatives.

        Parameters
        ----------
        images : uint8, shape (batch, source_px, source_px)
        positive : bool, shape (batch,)
        size_px : side of the result where it is not the profile's, as in the first epochs
        aspects : width over height of each film, not a number where it is lost; for a letterbox
        """
        chosen = ~positive & (rng.random(len(images)) < self._section.opacity)
        return self.changed(images, positive, (chosen, len(images)), rng, size_px=size_px, aspects=aspects)

    def changed(
        self,
        images: Bytes,
        positive: Bools,
        plan: tuple[Bools, int],
        rng: np.random.Generator,
        *,
        size_px: int = 0,
        aspects: letterbox.Doubles | None = None,
    ) -> AugmentedBatch:
        """Change a batch; `size_px` and `aspects` as in a call.

        `plan` : into which images opacities are drawn, and how many of the first images lend their surroundings and
        style to all
        """
        section, spec = self._section, self._spec
        spec = spec.model_copy(update={"size_px": size_px}) if size_px else spec
        chosen, lenders = plan
        changed = images.astype(np.float32) / 255.0
        drawn = np.zeros_like(changed)
        for place in np.flatnonzero(chosen):
            drawn[place] = drawings.paste_opacity(changed[place], rng)
        changed = self._mixed_context(changed, lenders, rng)
        for image in changed:
            if rng.random() < section.marks:
                drawings.paste_marks(image, self._stamps, rng)
            if rng.random() < section.wipe:
                _wipe(image, rng)
        chest = np.broadcast_to(self._chest, changed.shape)
        layers = torch.from_numpy(np.stack([changed, chest, drawn], axis=1))  # (B, 3, source_px, source_px)
        chances = zip(spec.of_pictures, alike(rng, spec.pictures), strict=True)
        shown = [_shown(layers, aspects, section, each, drawn) for each, drawn in chances]
        inputs = torch.zeros((len(images), spec.pictures, spec.side_px, spec.side_px))
        for channel, (each, (picture, _)) in enumerate(zip(spec.of_pictures, shown, strict=True)):
            inputs[:, channel, : each.size_px, : each.size_px] = picture[:, 0]
        _, where = shown[0]
        return AugmentedBatch(inputs=inputs, positive=positive | chosen, chest=where[:, 1:2], drawn=where[:, 2:])

    def _mixed_context(self, images: Floats, lenders: int, rng: np.random.Generator) -> Floats:
        """Give some images the surroundings, or the style, of another image of the batch, whatever its class."""
        section, mixed = self._section, images.copy()
        for place, partner in enumerate(rng.integers(lenders, size=len(images))):
            if rng.random() < section.style:
                mixed[place] = like(mixed[place], images[partner], float(rng.uniform(0.3, 1.0)))
            if rng.random() < section.surround:
                surround(mixed[place], images[partner], rng)
        return mixed


@lru_cache(maxsize=2)
def _stamps(size_px: int, seed: int) -> Sequence[drawings.Mark]:
    """Draw the stamps once: training, calibration and measurement use the same ones."""
    return tuple(drawings.bank(BANK_SIZE, size_px, np.random.default_rng(seed)))


def _chest(size_px: int) -> NDArray[np.float32]:
    chest = np.zeros((size_px, size_px), dtype=np.float32)
    top, bottom, left, right = (round(edge * size_px) for edge in CHEST)
    chest[top:bottom, left:right] = 1.0
    return chest


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


def _shown(
    layers: torch.Tensor,
    aspects: letterbox.Doubles | None,
    section: AugmentSection,
    spec: InputSpec,
    chance: Chance,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change geometry, sharpness, tone, noise and encoding: one picture of each film, and its layers."""
    if spec.geometry is Geometry.LETTERBOX:
        shapes = letterbox.shapes(aspects, len(layers), chance.edges)
        layers, film = letterbox.warped(layers, shapes, section, spec, chance)
        film[torch.from_numpy(chance.edges.random(len(film)) < section.open_bars)] = 1.0
    else:
        layers, film = _warped(layers, section, spec, chance), None
    batch = _sharpness(layers[:, :1], section, chance.look)
    batch = _tone(batch, section, chance.look)
    batch = _noise(batch, section, chance).clamp(0.0, 1.0)
    batch = _recompressed(batch, section, chance.look)
    if film is None:
        return torch.from_numpy(standardise(batch[:, 0].numpy()))[:, None], layers
    return letterbox.standardised(batch, film), layers


def _warped(batch: torch.Tensor, section: AugmentSection, spec: InputSpec, chance: Chance) -> torch.Tensor:
    """Rotate, scale, stretch and shift, and cut the border, in one resampling."""
    count, place = len(batch), chance.place
    angle = np.radians(chance.turn.uniform(-section.rotate_deg, section.rotate_deg, count))
    zoom = np.exp(place.uniform(-section.scale, section.scale, count)) * (1.0 - 2.0 * spec.border)
    stretch = np.exp(place.uniform(-section.aspect, section.aspect, count) / 2.0)
    mirror = np.where(place.random(count) < section.mirror, -1.0, 1.0)
    theta = np.empty((count, 2, 3))
    theta[:, 0, 0], theta[:, 0, 1] = np.cos(angle) * zoom * stretch * mirror, -np.sin(angle) * zoom / stretch
    theta[:, 1, 0], theta[:, 1, 1] = np.sin(angle) * zoom * stretch * mirror, np.cos(angle) * zoom / stretch
    theta[:, :, 2] = place.uniform(-2.0 * section.shift, 2.0 * section.shift, (count, 2))
    size = [count, batch.shape[1], spec.size_px, spec.size_px]
    grid = nnf.affine_grid(torch.from_numpy(theta.astype(np.float32)), size, align_corners=False)
    outside = ("zeros", "border", "reflection")[int(place.integers(3))]
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


def _noise(batch: torch.Tensor, section: AugmentSection, chance: Chance) -> torch.Tensor:
    """Add white or slightly smooth noise to half of the images."""
    look = chance.look
    strength = _per_image(look.uniform(0.0, section.noise, len(batch)) * (look.random(len(batch)) < 0.5))
    white = torch.from_numpy(chance.grain.standard_normal(batch.shape, dtype=np.float32))
    if look.random() < 0.5:
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


BANDS_PX = (1.0, 2.0, 4.0)
"""Standard deviations between which detail is compared: noise and grain, fine vessels, ribs' edges."""
LEAST_GAIN, LARGEST_GAIN = 0.4, 2.5
"""A band is not damped or raised beyond these: what is not there cannot be restored."""
SURROUND = ((0.03, 0.16), (0.05, 0.24), (0.03, 0.17), (0.03, 0.17))
"""Least and largest share of the height or width that belongs to top, bottom, left and right surroundings."""


def like(image: Floats, other: Floats, share: float) -> Floats:
    """Move an image's sharpness, band by band, and its grey values towards another's.

    Parameters
    ----------
    image, other : float32, shape (size_px, size_px), range [0, 1]
    share : 0 leaves the image, 1 gives it the other's strength of detail and distribution of grey values
    """
    mine, theirs = _bands(image), _bands(other)
    changed = mine[-1].copy()
    for band, model in zip(mine[:-1], theirs[:-1], strict=True):
        gain = (float(model.std()) + 1e-4) / (float(band.std()) + 1e-4)
        changed += band * np.clip(gain**share, LEAST_GAIN, LARGEST_GAIN)
    steps = np.linspace(0.0, 1.0, 33)
    grey = np.interp(changed, np.quantile(changed, steps), np.quantile(other, steps))
    return np.asarray((1.0 - share) * changed + share * grey, dtype=np.float32).clip(0.0, 1.0)


def surround(image: Floats, other: Floats, rng: np.random.Generator) -> None:
    """Replace what surrounds the chest by another image's surroundings, in place, with soft edges.

    Parameters
    ----------
    image, other : float32, shape (size_px, size_px), range [0, 1]
    """
    rows, cols = image.shape
    top, bottom, left, right = (rng.uniform(low, high) for low, high in SURROUND)
    soft = rng.uniform(0.005, 0.05)
    down = _window(rows, top, bottom, soft)[:, None]
    across = _window(cols, left, right, soft)[None, :]
    kept = np.minimum(down, across)  # (rows, cols)
    image *= kept
    image += (1.0 - kept) * other


def _window(size: int, first: float, last: float, soft: float) -> Floats:
    place = (np.arange(size) + 0.5) / size
    inside = np.minimum(place - first, 1.0 - last - place)
    return np.asarray(np.clip(0.5 + inside / (2.0 * soft), 0.0, 1.0), dtype=np.float32)


def _bands(image: Floats) -> list[Floats]:
    smooth = [image, *(ndimage.gaussian_filter(image, sigma, truncate=2.5) for sigma in BANDS_PX)]
    details = [fine - coarse for fine, coarse in itertools.pairwise(smooth)]
    return [*details, smooth[-1]]
