"""Which words stand on the picture, and where: bands above and below the radiograph, and free corners.

Viewers lay their own words over the corners, and OHIF its player over the top middle of a capture of Modality OT (84
pixels of 900); so a free band is the topmost, and the lowest lines stand in the middle. Lines are broken here, before
the size of the picture is known: bands grow with them, and letters keep their size.
"""

from __future__ import annotations

import functools
import textwrap
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cxr_node.dicom.words import wording, zones
from cxr_node.domain import Finding, Radiograph

FONTS = Path(__file__).parent / "fonts"
"""DejaVu 2.37: the same letters on every machine."""


@functools.cache
def font_of(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans in some size."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(FONTS / name, size_px, layout_engine=ImageFont.Layout.BASIC)


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


MIN_LONG_SIDE_PX = 1024
"""Smaller radiographs are enlarged to this, so that the words are sharp."""
_NARROWEST = 0.72  # width over height of the radiograph's area; below it gets black margins
_WIDEST = 1.1  # beyond it words stop growing with the width, down to four fifths
_FREE, _BANNER, _SCALE = 0.152, 0.138, 0.115  # heights of the bands over the width of an upright picture
_LINE = 0.042  # height of a line of text likewise
_BODY = 0.026  # height of the text likewise: 13 px, or 11 in a broad picture, where that is shown 512 px wide
_MARGIN = 0.03
_LINE_CHARS, _BANNER_CHARS, _LOWEST_CHARS = 70, 58, 60
"""What fits: words are on average 0.5 of their height a letter wide. The lowest lines leave the corners free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Lines of the picture, broken. `cautions` stand on the banner; `notes` begin beside the colors of the map."""

    title: str
    number: str
    subtitle: tuple[str, ...]
    cautions: tuple[str, ...]
    listing: tuple[str, ...]
    notes: tuple[str, ...]
    model: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things are, in pixels of the picture. `image` is the box of the radiograph: left, top, width, height."""

    width: int
    height: int
    image: tuple[int, int, int, int]
    free: int
    banner: int
    scale: int
    listing: int
    footer: int
    line: int
    """Height of a line of text; a banner has more where it has more than two of them."""
    body_px: int
    """Size of the text."""

    @property
    def margin(self) -> int:
        """Free space at the sides."""
        return round(_MARGIN * self.width)

    @property
    def below(self) -> int:
        """Where the bands under the radiograph begin."""
        return self.free + self.banner + self.image[3]


def words_of(radiograph: Radiograph, finding: Finding, *, shows_map: bool, looked: str, place: str = "") -> Words:
    """Gather what is written on the picture.

    `looked` : where the regions lie, in a sentence; "" where that is not known
    `place` : which image of a study it is, in a sentence
    """
    banner, identity = wording.banner(finding), finding.identity
    model = f"{identity.profile} {identity.version} ({identity.weights_sha256[:12]})."
    view = f"{wording.view_line(radiograph.view)} {place}".rstrip()
    lowest = [f"{model} {view}"] if len(f"{model} {view}") <= _LOWEST_CHARS else [model, view]
    return Words(
        title=banner.title,
        number=banner.number,
        subtitle=_broken([banner.subtitle], _BANNER_CHARS),
        cautions=_broken([wording.plain(caution) for caution in radiograph.cautions], _BANNER_CHARS),
        listing=tuple(wording.listing(finding)),
        notes=_notes(finding, shows_map=shows_map, looked=looked),
        model=_broken([wording.plain(line) for line in (*lowest, wording.FOOTER)], _LOWEST_CHARS),
    )


def _notes(finding: Finding, *, shows_map: bool, looked: str) -> tuple[str, ...]:
    if not shows_map:
        return _broken([zones.no_map(finding.decision)], _LINE_CHARS)
    return (*zones.legend(finding.decision), *_broken([looked], _LINE_CHARS))


def _broken(texts: list[str], chars: int) -> tuple[str, ...]:
    return tuple(line for text in texts for line in textwrap.wrap(text, chars))


def lay_out(radiograph: Radiograph, max_px: int, words: Words) -> Layout:
    """Fit radiograph and bands into `max_px`, with the radiograph's true aspect; small ones are enlarged."""
    rows, columns = radiograph.pixels.shape
    true_width, true_height = float(columns), rows * radiograph.pixel_aspect
    wide = max(true_width, _NARROWEST * true_height)
    unit = min(wide, max(_WIDEST * true_height, 0.8 * wide))
    shares = (
        _FREE,
        _BANNER + _LINE * (len(words.subtitle) + len(words.cautions) - 1),
        _SCALE,
        _LINE * (len(words.listing) + 0.5) if words.listing else 0.0,
        _LINE * (len(words.notes) + len(words.model) + 0.5),
    )
    extent = max(wide, true_height + sum(shares) * unit)
    scale = min(max_px, max(extent, min(MIN_LONG_SIDE_PX, max_px))) / extent
    width = max(1, int(wide * scale))
    image_width, image_height = max(1, int(true_width * scale)), max(1, int(true_height * scale))
    free, banner, strip, listing, footer = (int(share * unit * scale) for share in shares)
    return Layout(
        width=width, height=free + banner + image_height + strip + listing + footer,
        image=((width - image_width) // 2, free + banner, image_width, image_height),
        free=free, banner=banner, scale=strip, listing=listing, footer=footer,
        line=round(_LINE * unit * scale), body_px=max(9, round(_BODY * unit * scale)),
    )  # fmt: skip
