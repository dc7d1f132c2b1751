"""Letters for the picture: one font, the same on every machine, and text that fits its place."""

from __future__ import annotations

import functools
from pathlib import Path

import matplotlib as mpl
from PIL import ImageFont


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
