"""Letters for the picture: one font, the same on every machine, text that fits its place, drawn once and kept."""

from __future__ import annotations

import functools
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont


@functools.cache
def font_of(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as shipped with matplotlib: the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(path, size_px, layout_engine=ImageFont.Layout.BASIC)


@functools.lru_cache(maxsize=64)  # most words are the same in every picture
def fit(text: str, size_px: int, width: int, *, bold: bool = False) -> tuple[str, ImageFont.FreeTypeFont]:
    """Shrink text down to three quarters of its size until it fits; then cut it."""
    for smaller in range(size_px, max(8, size_px * 3 // 4) - 1, -1):
        font = font_of(smaller, bold=bold)
        if font.getlength(text) <= width:
            return text, font
    cut = text
    while cut and font.getlength(f"{cut}...") > width:
        cut = cut[:-1]
    return f"{cut.rstrip()}...", font


def write(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont,
    ink: tuple[int, int, int],
    anchor: str = "lm",
) -> None:
    """Write a line, as `pen.text` does, but of most words the letters are there already: a tenth of the time."""
    letters, left, top = _letters(text, font, anchor)
    pen.bitmap((round(place[0]) + left, round(place[1]) + top), letters, fill=ink)


@functools.lru_cache(maxsize=64)
def _letters(text: str, font: ImageFont.FreeTypeFont, anchor: str) -> tuple[Image.Image, int, int]:
    """Opacity of a line, and where it begins from its anchor."""
    left, top, right, bottom = (round(side) for side in font.getbbox(text, anchor=anchor))
    letters = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(letters).text((-left, -top), text, font=font, fill=255, anchor=anchor)
    return letters, left, top
