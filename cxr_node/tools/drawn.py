"""Drawn radiographs of any size as DX images, each one different, for measuring with: nobody's, and nothing to fetch.

The demo's pictures, enlarged, under noise that differs from image to image. The same number gives the same bytes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr_node import resources
from cxr_node.dicom import from_picture

Values = NDArray[np.uint8] | NDArray[np.uint16]
BUILT_IN = resources.DRAWN
BUILT_IN_ATTRIBUTES = {"PatientName": "Phantom^Drawn", "PatientAge": "003Y", "ViewPosition": "AP"}
_WIDTH_TO_HEIGHT = 1.25
_NOISE_PARTS = 512
"""The range over the standard deviation of the noise: less than an eye sees, and more than rounding."""
_STRIDE = 104_729
"""By so many pixels the noise is moved from one image to the next; a prime, so that no place comes twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plate:
    """What all images of a series of drawings share.

    `rows`, `cols` : size in pixels
    `bits_stored` : 8 to 16; more than 8 take two bytes a pixel
    `age_years` : of every patient; the default profile judges children of 1 to 5 years
    """

    rows: int = 2000
    cols: int = 2500
    bits_stored: int = 12
    age_years: int = 3

    def __post_init__(self) -> None:
        if not 8 <= self.bits_stored <= 16 or min(self.rows, self.cols) < 1 or not 0 <= self.age_years <= 999:
            raise ValueError("8 to 16 bits, at least one pixel, and an age of 0 to 999 years")

    @classmethod
    def of_size(cls, size_mb: float, bits_stored: int = 12, age_years: int = 3) -> Plate:
        """Choose rows and columns for so many megabytes (10^6 bytes) of pixel data."""
        pixels = size_mb * 1e6 / (1 if bits_stored == 8 else 2)
        cols = max(1, round(math.sqrt(pixels * _WIDTH_TO_HEIGHT)))
        return cls(rows=max(1, round(pixels / cols)), cols=cols, bits_stored=bits_stored, age_years=age_years)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored values."""
        return np.dtype(np.uint8 if self.bits_stored == 8 else np.uint16)

    @property
    def size_bytes(self) -> int:
        """Of the pixel data."""
        return self.rows * self.cols * self.dtype.itemsize


def draw(plate: Plate, count: int, first: int = 1) -> Iterator[bytes]:
    """Draw the Part 10 files number `first`, `first` + 1 and so on: clear lungs and opacities in turn.

    About 30 ms each for 10 MB with its writing, once each of the six pictures has been enlarged (0.1 s).
    """
    clear, opaque = (sorted(BUILT_IN.glob(f"{kind}-*.jpg")) for kind in ("clear", "opacity"))
    pictures = [picture for pair in zip(clear, opaque, strict=True) for picture in pair]
    enlarged = functools.lru_cache(len(pictures))(functools.partial(_enlarged, plate))
    noise = _noise(plate)
    told = {**BUILT_IN_ATTRIBUTES, "PatientAge": f"{plate.age_years:03d}Y", **from_picture.depth(plate.bits_stored)}
    for number in range(first, first + count):
        grain = np.roll(noise, number * _STRIDE % noise.size)
        yield from_picture.of_values(enlarged(pictures[number % len(pictures)]) + grain, **told)


def write(folder: Path, plate: Plate, count: int, first: int = 1) -> Iterator[Path]:
    """Draw as `draw` does, into files of a folder that exists."""
    for number, content in enumerate(draw(plate, count, first), first):
        file = folder / f"{number:06d}.dcm"
        file.write_bytes(content)
        yield file


def _enlarged(plate: Plate, picture: Path) -> Values:
    """Stored values of a picture, as far from both ends of the range as the noise goes; shape (rows, cols)."""
    with Image.open(picture) as opened:
        gray = opened.convert("F").resize((plate.cols, plate.rows), Image.Resampling.BILINEAR)
    most = (1 << plate.bits_stored) - 1
    stored: Values = np.clip(np.asarray(gray) * (most / 255.0), _reach(plate), most - _reach(plate)).astype(plate.dtype)
    return stored


def _noise(plate: Plate) -> Values:
    """Gaussian, cut off where `_enlarged` leaves off; negative values as two's complement, so that a sum is exact."""
    reach, chance = _reach(plate), np.random.default_rng(1)
    drawn = chance.standard_normal((plate.rows, plate.cols), np.float32) * (reach / 4.0)
    return np.asarray(np.clip(np.rint(drawn), -reach, reach).astype(np.int16).astype(plate.dtype))


def _reach(plate: Plate) -> int:
    return 4 * (1 << plate.bits_stored) // _NOISE_PARTS
