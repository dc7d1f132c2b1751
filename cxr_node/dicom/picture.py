"""The picture for the reading room: radiograph, heat map, verdict, certainty, model and limits.

Nothing is written over the radiograph: the words stand in bands above and below it. The scale of certainty stands
above the verdict, for OHIF lays its cine player over the top middle of every capture of Modality OT. Meaning is never
in color alone: the verdict is a word and a symbol. The map is viridis, perceptually uniform, safe for color-blind
readers, and no red; it fades to nothing where the network did not look. Knows no DICOM object; burned in is no patient
text.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cxr_node import heatmap
from cxr_node.dicom import wording
from cxr_node.dicom.lettering import fit as fit
from cxr_node.dicom.lettering import font_of, write
from cxr_node.dicom.resize import eight_bits, gray
from cxr_node.domain import Finding, OperatingPoint, Point, Radiograph, Verdict

Color = tuple[int, int, int]
BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)
PALE: Color = (205, 205, 205)
_BAR_GRAY: Color = (110, 110, 110)
BANNERS: dict[Verdict, tuple[Color, Color]] = {
    Verdict.PNEUMONIA: ((240, 178, 40), BLACK),
    Verdict.NORMAL: ((24, 74, 88), WHITE),
    Verdict.UNCERTAIN: ((150, 166, 184), BLACK),
}
"""Background and ink. Amber, dark teal, gray-blue differ in lightness too; none is red."""

MIN_LONG_SIDE_PX = 1024
"""Smaller radiographs are enlarged to this, so that the words are sharp."""
_NARROWEST = 0.72  # width over height of the radiograph's area; below it gets black margins
_WIDEST = 1.1  # beyond it words stop growing with the width, down to four fifths
_BANNER, _SCALE, _FOOTER = 0.150, 0.130, 0.150  # heights of the bands over the width of an upright picture
_BODY = 0.026  # height of the text likewise: 13 px, or 11 in a broad picture, where that is shown 512 px wide
_LIST_LINE = 0.048  # height of a line of the list of findings likewise
_MARGIN = 0.03
_MAP_FROM, _MAP_TO, _MAP_OPACITY = 0.2, 0.8, 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things are, in pixels of the picture. `image` is the box of the radiograph: left, top, width, height."""

    width: int
    height: int
    image: tuple[int, int, int, int]
    banner: int
    scale: int
    footer: int
    listing: int
    """Height of the list of scored findings between radiograph and footer; 0 where one finding was judged alone."""
    body_px: int
    """Size of the text."""

    @property
    def margin(self) -> int:
        """Free space at the sides."""
        return round(_MARGIN * self.width)


def draw(radiograph: Radiograph, finding: Finding, max_px: int, *, shows_map: bool) -> Image.Image:
    """Draw the picture.

    Parameters
    ----------
    radiograph, finding : what is shown, and what was found
    max_px : longest side of the picture
    shows_map : whether the heat map is laid over the radiograph

    Returns
    -------
    Image of mode RGB.
    """
    listing = wording.listing(finding)
    layout = lay_out(radiograph, max_px, len(listing))
    picture = Image.new("RGB", (layout.width, layout.height), BLACK)
    left, top, width, height = layout.image
    shown = gray(radiograph.pixels, (width, height))
    if shows_map:
        shown = overlaid(shown, heatmap.on_grid(finding.heatmap, (height, width)))
    picture.paste(shown, (left, top))
    pen = ImageDraw.Draw(picture)
    if shows_map and finding.decision.verdict is Verdict.PNEUMONIA:
        _draw_outline(pen, finding.heatmap.outline, radiograph, layout)
    _draw_banner(pen, finding, layout)
    _draw_scale(pen, finding, layout)
    _draw_listing(pen, listing, layout)
    _draw_footer(picture, finding, radiograph, layout, shows_map=shows_map)
    return picture


def image_box(radiograph: Radiograph, finding: Finding, max_px: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of the radiograph in the picture that `draw` makes."""
    return lay_out(radiograph, max_px, len(wording.listing(finding))).image


def lay_out(radiograph: Radiograph, max_px: int, listed: int = 0) -> Layout:
    """Fit radiograph and bands into `max_px`, with the radiograph's true aspect; small ones are enlarged.

    `listed` : lines of the list of scored findings
    """
    rows, columns = radiograph.pixels.shape
    true_width, true_height = float(columns), rows * radiograph.pixel_aspect
    wide = max(true_width, _NARROWEST * true_height)
    unit = min(wide, max(_WIDEST * true_height, 0.8 * wide))
    listing_share = _LIST_LINE * (listed + 0.5) if listed else 0.0
    extent = max(wide, true_height + (_BANNER + _SCALE + listing_share + _FOOTER) * unit)
    scale = min(max_px, max(extent, min(MIN_LONG_SIDE_PX, max_px))) / extent
    width = max(1, int(wide * scale))
    image_width, image_height = max(1, int(true_width * scale)), max(1, int(true_height * scale))
    banner, strip, listing, footer = (int(share * unit * scale) for share in (_BANNER, _SCALE, listing_share, _FOOTER))
    return Layout(
        width=width,
        height=banner + strip + image_height + listing + footer,
        image=((width - image_width) // 2, banner + strip, image_width, image_height),
        banner=banner,
        scale=strip,
        footer=footer,
        listing=listing,
        body_px=max(9, round(_BODY * unit * scale)),
    )


def overlaid(shown: Image.Image, weight: NDArray[np.float32]) -> Image.Image:
    """Lay the map over the radiograph, opaque only where the weight, in [0, 1] on the same grid, is high."""
    laid, levels = shown.convert("RGB"), Image.fromarray(eight_bits(weight))
    opacity = levels.point(_opacity())
    box = opacity.getbbox()
    if box is not None:
        colors = levels.crop(box)
        colors.putpalette(_viridis().tobytes())
        laid.paste(colors.convert("RGB"), box, opacity.crop(box))
    return laid


@functools.cache
def _viridis() -> NDArray[np.uint8]:
    """Colors of the map, shape (256, 3)."""
    table: NDArray[np.uint8] = mpl.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
    return table


@functools.cache
def _opacity() -> list[int]:
    """Opacity of the 256 levels: none below `_MAP_FROM`, then smoothly to `_MAP_OPACITY`."""
    ramp = np.clip((np.arange(256) / 255 - _MAP_FROM) / (_MAP_TO - _MAP_FROM), 0, 1)
    return [round(255 * _MAP_OPACITY * value) for value in ramp * ramp * (3 - 2 * ramp)]


def _draw_outline(pen: ImageDraw.ImageDraw, outline: tuple[Point, ...], radiograph: Radiograph, layout: Layout) -> None:
    """Draw the region of the measurements: white on black, seen on any gray and any map color."""
    rows, columns = radiograph.pixels.shape
    left, top, width, height = layout.image
    points = [(left + x * width / columns, top + y * height / rows) for x, y in outline]
    if len(points) < 2:  # nothing stands out
        return
    line = max(2, layout.width // 400)
    pen.line(points, fill=BLACK, width=line * 2 + 1, joint="curve")
    pen.line(points, fill=WHITE, width=line, joint="curve")


def _draw_banner(pen: ImageDraw.ImageDraw, finding: Finding, layout: Layout) -> None:
    """Symbol, verdict, its certainty; below, what the verdict means.

    A number stands beside PNEUMONIA only: beside the others it reads as certainty of what they say.
    """
    verdict = finding.decision.verdict
    background, ink = BANNERS[verdict]
    words, number = wording.banner(finding), wording.number_text(finding)
    top, side = layout.scale, round(layout.banner * 0.66)
    pen.rectangle((0, top, layout.width, top + layout.banner - 1), fill=background)
    _draw_symbol(pen, verdict, (layout.margin, top + (layout.banner - side) // 2, side), ink)
    left, right = layout.margin * 2 + side, layout.width - layout.margin
    title_y, subtitle_y = (top + round(layout.banner * share) for share in (0.37, 0.77))
    title_px, title_right = round(layout.banner * 0.36), right
    if verdict is Verdict.PNEUMONIA and number is not None:
        font = font_of(title_px, bold=True)
        write(pen, (right, title_y), number, font, ink, "rm")
        title_right = right - layout.margin - round(font.getlength(number))
    title, font = fit(words.title, title_px, title_right - left, bold=True)
    write(pen, (left, title_y), title, font, ink)
    subtitle, font = fit(words.subtitle, layout.body_px, right - left)
    write(pen, (left, subtitle_y), subtitle, font, ink)


def _draw_symbol(pen: ImageDraw.ImageDraw, verdict: Verdict, place: tuple[int, int, int], ink: Color) -> None:
    """Triangle with !, diamond with ?, ring with a bar: told apart without color. `place`: left, top, side."""
    left, top, side = place
    right, bottom, middle_x, middle_y = left + side, top + side, left + side / 2, top + side / 2
    line = max(2, side // 12)
    if verdict is Verdict.NORMAL:
        pen.ellipse((left, top, right, bottom), outline=ink, width=line)
        pen.line((left + side * 0.28, middle_y, right - side * 0.28, middle_y), fill=ink, width=line)
        return
    corners = [(middle_x, top), (right, middle_y), (middle_x, bottom), (left, middle_y)]
    if verdict is Verdict.PNEUMONIA:
        corners, middle_y = [(middle_x, top), (right, bottom), (left, bottom)], top + side * 0.64
    pen.polygon(corners, fill=ink)
    sign = "!" if verdict is Verdict.PNEUMONIA else "?"
    font = font_of(round(side * 0.56), bold=True)
    write(pen, (middle_x, middle_y), sign, font, BANNERS[verdict][0], "mm")


def _draw_scale(pen: ImageDraw.ImageDraw, finding: Finding, layout: Layout) -> None:
    """Certainty from 0 to 100 % with both thresholds; no marker where no certainty may be stated."""
    point, value = finding.identity.operating_point, wording.scale_percent(finding)
    left, right = layout.margin, layout.width - layout.margin
    title_y, middle, labels_y = (round(layout.scale * share) for share in (0.22, 0.52, 0.81))
    half = max(2, round(layout.scale * 0.06))
    title, font = fit(wording.certainty_line(finding), layout.body_px, right - left)
    write(pen, (left, title_y), title, font, WHITE)

    def at(share: float) -> int:
        return round(left + share * (right - left))

    for begin, end, shade in (
        (0.0, point.rule_out_below, 70),
        (point.rule_out_below, point.report_at, 120),
        (point.report_at, 1.0, 190),
    ):
        pen.rectangle((at(begin), middle - half, at(end), middle + half), fill=(shade, shade, shade))
    for share in (point.rule_out_below, point.report_at):
        pen.line(
            (at(share), middle - half * 2, at(share), middle + half * 2), fill=WHITE, width=max(2, layout.width // 350)
        )
    if value is not None:
        x, size = at(value / 100), half * 2.2
        corners = [(x, middle - size), (x + size, middle), (x, middle + size), (x - size, middle)]
        pen.polygon(corners, fill=WHITE, outline=BLACK, width=max(2, half // 2))
    _draw_threshold_labels(pen, point, layout, labels_y)


def _draw_threshold_labels(pen: ImageDraw.ImageDraw, point: OperatingPoint, layout: Layout, y: int) -> None:
    """Each label at its tick, pushed to the sides where they would meet."""
    left, right = layout.margin, layout.width - layout.margin
    half = (right - left) // 2 - layout.margin // 2
    (low, low_font), (high, high_font) = (fit(label, layout.body_px, half) for label in wording.threshold_labels(point))
    low_width, high_width = low_font.getlength(low), high_font.getlength(high)
    span = right - left
    low_x = max(left, left + point.rule_out_below * span - low_width / 2)
    high_x = min(right - high_width, left + point.report_at * span - high_width / 2)
    if low_x + low_width + layout.margin > high_x:
        low_x, high_x = float(left), right - high_width
    write(pen, (low_x, y), low, low_font, PALE)
    write(pen, (high_x, y), high, high_font, PALE)


def _draw_listing(pen: ImageDraw.ImageDraw, lines: list[str], layout: Layout) -> None:
    top = layout.height - layout.footer - layout.listing
    for place, line in enumerate(lines):
        middle = top + round(layout.listing * (place + 1) / (len(lines) + 0.5))
        text, font = fit(line, layout.body_px, layout.width - 2 * layout.margin)
        write(pen, (layout.margin, middle), text, font, WHITE if place else PALE)


def _draw_footer(
    picture: Image.Image, finding: Finding, radiograph: Radiograph, layout: Layout, *, shows_map: bool
) -> None:
    """Color bar and what it is not; model, projection; for whom this is."""
    pen, identity = ImageDraw.Draw(picture), finding.identity
    top, left, right = layout.height - layout.footer, layout.margin, layout.width - layout.margin
    lines = [top + round(layout.footer * share) for share in (0.20, 0.52, 0.81)]
    explained = left
    if shows_map:
        explained = _draw_color_bar(picture, layout, lines[0])
    text, font = fit(wording.LOOKED if shows_map else wording.NO_MAP, layout.body_px, right - explained)
    write(pen, (explained, lines[0]), text, font, WHITE)
    model = (
        f"{identity.profile} {identity.version} ({identity.weights_sha256[:12]}). {wording.view_line(radiograph.view)}"
    )
    text, font = fit(wording.plain(model), layout.body_px, right - left)
    write(pen, (left, lines[1]), text, font, PALE)
    text, font = fit(wording.FOOTER, layout.body_px, right - left, bold=True)
    write(pen, (left, lines[2]), text, font, WHITE)


def _draw_color_bar(picture: Image.Image, layout: Layout, y: int) -> int:
    """Draw the colors as they look on a mid gray, from low to high; the x where text may begin."""
    pen, font = ImageDraw.Draw(picture), font_of(layout.body_px)
    width, height = round(layout.width * 0.16), round(layout.body_px * 0.9)
    write(pen, (layout.margin, y), "low", font, PALE)
    left = layout.margin + round(font.getlength("low ") * 1.1)
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    picture.paste(overlaid(Image.new("RGB", (width, height), _BAR_GRAY), ramp), (left, y - height // 2))
    write(pen, (left + width, y), " high", font, PALE)
    return left + width + round(font.getlength(" high  ")) + layout.margin // 2
