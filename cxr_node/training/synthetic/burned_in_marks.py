"""Letters, side markers and cables drawn over images of both classes, so that none of them can tell the class.

Knows no labels. Measured: of the false alarms of a network trained without them, most carry a large bold "R"
with technical text, a style that in the training set belongs mostly to one class. Fonts are those that
matplotlib carries, so that every machine draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold")
SIDES = ("R", "L", "R", "L", "D", "S", "RT", "LT", "PA", "AP", "R PA", "L AP")
WORDS = ("ERECT", "SUPINE", "PORTABLE", "BED", "CHEST", "INSP", "mAs", "KV", "cm", "SID", "EI", "W", "C", "SE", "IM")

Mark = NDArray[np.float32]
"""Opacity, shape (rows, cols), range [0, 1]."""


def bank(count: int, size_px: int, rng: np.random.Generator) -> list[Mark]:
    """Draw `count` stamps for images of size_px x size_px."""
    makers = (_side, _side, _text, _text, _cable)
    return [makers[rng.integers(len(makers))](size_px, rng) for _ in range(count)]


def paste_marks(image: NDArray[np.float32], stamps: Sequence[Mark], rng: np.random.Generator) -> None:
    """Lay one to five stamps over an image, in place; four of five lie near an edge, as real ones do.

    Parameters
    ----------
    image : float32, shape (rows, cols), range [0, 1]
    """
    for _ in range(int(rng.integers(1, 6))):
        stamp = stamps[int(rng.integers(len(stamps)))]
        rows, cols = (min(s, i) for s, i in zip(stamp.shape, image.shape, strict=True))
        top, left = _place(image.shape[0] - rows, rng), _place(image.shape[1] - cols, rng)
        if rng.random() < 0.8:
            _to_edge = int(rng.integers(2))
            top = _near_edge(image.shape[0] - rows, rng) if _to_edge else top
            left = left if _to_edge else _near_edge(image.shape[1] - cols, rng)
        area = image[top : top + rows, left : left + cols]
        grey = rng.uniform(0.75, 1.0) if rng.random() < 0.85 else rng.uniform(0.0, 0.2)
        opacity = stamp[:rows, :cols] * np.float32(rng.uniform(0.5, 1.0))
        if rng.random() < 0.15:
            area *= np.float32(rng.uniform(0.0, 0.5))
        area += opacity * (np.float32(grey) - area)


def _place(room: int, rng: np.random.Generator) -> int:
    return int(rng.integers(max(1, room + 1)))


def _near_edge(room: int, rng: np.random.Generator) -> int:
    offset = int(rng.uniform(0.0, 0.18) * max(room, 0))
    return offset if rng.random() < 0.5 else max(room, 0) - offset


def _font(size_px: float, rng: np.random.Generator) -> ImageFont.FreeTypeFont:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / f"{FONTS[int(rng.integers(len(FONTS)))]}.ttf"), max(5, round(size_px)))


def _side(size_px: int, rng: np.random.Generator) -> Mark:
    """Draw a side marker: a large letter, sometimes framed, sometimes with technical text below."""
    height = size_px * rng.uniform(0.04, 0.16)
    text = SIDES[int(rng.integers(len(SIDES)))]
    if rng.random() < 0.3:
        text += "\n" + _technical(rng)
    return _lettered(text, _font(height, rng), rng)


def _text(size_px: int, rng: np.random.Generator) -> Mark:
    """Draw one to four lines of technical text."""
    lines = [_technical(rng) for _ in range(int(rng.integers(1, 5)))]
    return _lettered("\n".join(lines), _font(size_px * rng.uniform(0.025, 0.07), rng), rng)


def _technical(rng: np.random.Generator) -> str:
    match int(rng.integers(4)):
        case 0:
            return f"{WORDS[int(rng.integers(len(WORDS)))]}{int(rng.integers(1, 130))}"
        case 1:
            return f"{int(rng.integers(24)):02d}:{int(rng.integers(60)):02d}"
        case 2:
            return WORDS[int(rng.integers(len(WORDS)))]
        case _:
            return "".join(rng.choice(list("0123456789ABCDEFGHKLMNPRSTUVWX./-"), size=int(rng.integers(2, 12))))


def _lettered(text: str, font: ImageFont.FreeTypeFont, rng: np.random.Generator) -> Mark:
    probe = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, top, right, bottom = (round(edge) for edge in probe.multiline_textbbox((0, 0), text, font=font))
    image = Image.new("L", (right - left + 6, bottom - top + 6))
    draw = ImageDraw.Draw(image)
    draw.multiline_text((3 - left, 3 - top), text, font=font, fill=255)
    if rng.random() < 0.15:
        draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=255)
    if rng.random() < 0.4:
        image = image.rotate(rng.uniform(-25.0, 25.0), Image.Resampling.BILINEAR, expand=True)
    if rng.random() < 0.1:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image, dtype=np.float32) / 255.0


def _cable(size_px: int, rng: np.random.Generator) -> Mark:
    """Draw a lead or a tube: a bent line of one to three pixels."""
    span = int(size_px * rng.uniform(0.3, 0.9))
    image = Image.new("L", (span, span))
    corners = rng.uniform(0.0, span, size=(4, 2))
    steps = np.linspace(0.0, 1.0, 24)[:, None]
    bends = [(1 - steps) ** 3, 3 * steps * (1 - steps) ** 2, 3 * steps**2 * (1 - steps), steps**3]
    curve = sum(bend * corner for bend, corner in zip(bends, corners, strict=True))
    points = [(float(x), float(y)) for x, y in np.asarray(curve)]
    ImageDraw.Draw(image).line(points, fill=255, width=int(rng.integers(1, 4)), joint="curve")
    return np.asarray(image, dtype=np.float32) / 255.0
