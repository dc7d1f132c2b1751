"""The picture for the reading room: radiograph, heat map, verdict, certainty, model and limits.

Nothing is written over the radiograph; words stand in bands (`layout`). The verdict is a word and a symbol, not a color
alone. No patient text is burned in.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from cxr_node import heatmap
from cxr_node.dicom.render.layout import Layout, Words, fit, font_of, lay_out, words_of, write
from cxr_node.dicom.render.overlay import gray, overlaid
from cxr_node.dicom.words import wording, zones
from cxr_node.domain import Finding, OperatingPoint, Radiograph, Region, Verdict

Color = tuple[int, int, int]
BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)
PALE: Color = (205, 205, 205)
_BAR_GRAY: Color = (110, 110, 110)
BANNERS: dict[Verdict, tuple[Color, Color]] = {
    Verdict.POSITIVE: ((240, 178, 40), BLACK),
    Verdict.NEGATIVE: ((24, 74, 88), WHITE),
    Verdict.INDETERMINATE: ((150, 166, 184), BLACK),
}
"""Background and ink. Amber, dark teal, gray-blue differ in lightness too; none is red."""
_CORNERS_FREE = 0.14
"""Of the width, at either side of the lowest lines: there viewers write."""


def draw(  # noqa: PLR0913 - whatever is written on it
    radiograph: Radiograph,
    finding: Finding,
    max_px: int,
    *,
    shows_map: bool,
    looked: str = "",
    place: str = "",
    bare: bool = False,
) -> Image.Image:
    """Draw the picture.

    `shows_map` : whether the heat map is laid over the radiograph
    `looked` : where its regions lie, in a sentence
    `place` : which image of a study it is, in a sentence
    `bare` : all as with the map, and the map left away
    """
    words = words_of(radiograph, finding, shows_map=shows_map, looked=looked, place=place)
    layout = lay_out(radiograph, max_px, words)
    picture = Image.new("RGB", (layout.width, layout.height), BLACK)
    left, top, width, height = layout.image
    shown = gray(radiograph.pixels, (width, height))
    in_gray, laid = zones.is_gray(finding.decision), shows_map and not bare
    if laid:
        shown = overlaid(shown, heatmap.on_grid(finding.heatmap, (height, width)), gray=in_gray)
    picture.paste(shown, (left, top))
    pen = ImageDraw.Draw(picture)
    if laid and finding.decision.verdict is Verdict.POSITIVE:
        for region in finding.heatmap.regions:
            _draw_outline(pen, region, radiograph, layout)
    _draw_banner(pen, finding.decision.verdict, words, layout)
    _draw_scale(pen, finding, layout)
    _draw_listing(pen, words.listing, layout)
    _draw_footer(picture, words, layout, colors=(zones.is_gray(finding.decision) if shows_map else None))
    return picture


def image_box(
    radiograph: Radiograph, finding: Finding, max_px: int, *, shows_map: bool, looked: str = ""
) -> tuple[int, int, int, int]:
    """Left, top, width and height of the radiograph in the picture that `draw` makes of the same."""
    return lay_out(radiograph, max_px, words_of(radiograph, finding, shows_map=shows_map, looked=looked)).image


def _draw_outline(pen: ImageDraw.ImageDraw, region: Region, radiograph: Radiograph, layout: Layout) -> None:
    """Draw a region of the measurements: white on black, seen on any gray and any map color."""
    rows, columns = radiograph.pixels.shape
    left, top, width, height = layout.image
    points = [(left + x * width / columns, top + y * height / rows) for x, y in region.outline]
    line = max(2, layout.width // 400)
    pen.line(points, fill=BLACK, width=line * 2 + 1, joint="curve")
    pen.line(points, fill=WHITE, width=line, joint="curve")


def _draw_banner(pen: ImageDraw.ImageDraw, verdict: Verdict, words: Words, layout: Layout) -> None:
    """Symbol, verdict, its certainty; below, what the verdict means, and what a reader must know of it.

    A number stands beside a positive only: beside the others it reads as certainty of what they say.
    """
    background, ink = BANNERS[verdict]
    lines = [*((line, False) for line in words.subtitle), *((line, True) for line in words.cautions)]
    top, head = layout.free, layout.banner - layout.line * (len(lines) - 1)
    side = round(head * 0.66)
    pen.rectangle((0, top, layout.width, top + layout.banner - 1), fill=background)
    _draw_symbol(pen, verdict, (layout.margin, top + (layout.banner - side) // 2, side), ink)
    left, right = layout.margin * 2 + side, layout.width - layout.margin
    title_px, title_right, title_y = round(head * 0.36), right, top + round(head * 0.36)
    if words.number:
        font = font_of(title_px, bold=True)
        write(pen, (right, title_y), words.number, font, ink, "rm")
        title_right = right - layout.margin - round(font.getlength(words.number))
    title, font = fit(words.title, title_px, title_right - left, bold=True)
    write(pen, (left, title_y), title, font, ink)
    for place, (line, bold) in enumerate(lines):
        text, font = fit(line, layout.body_px, right - left, bold=bold)
        write(pen, (left, top + round(head * 0.76) + place * layout.line), text, font, ink)


def _draw_symbol(pen: ImageDraw.ImageDraw, verdict: Verdict, place: tuple[int, int, int], ink: Color) -> None:
    """Triangle with !, diamond with ?, ring with a bar: told apart without color. `place`: left, top, side."""
    left, top, side = place
    right, bottom, middle_x, middle_y = left + side, top + side, left + side / 2, top + side / 2
    line = max(2, side // 12)
    if verdict is Verdict.NEGATIVE:
        pen.ellipse((left, top, right, bottom), outline=ink, width=line)
        pen.line((left + side * 0.28, middle_y, right - side * 0.28, middle_y), fill=ink, width=line)
        return
    corners = [(middle_x, top), (right, middle_y), (middle_x, bottom), (left, middle_y)]
    if verdict is Verdict.POSITIVE:
        corners, middle_y = [(middle_x, top), (right, bottom), (left, bottom)], top + side * 0.64
    pen.polygon(corners, fill=ink)
    sign = "!" if verdict is Verdict.POSITIVE else "?"
    font = font_of(round(side * 0.56), bold=True)
    write(pen, (middle_x, middle_y), sign, font, BANNERS[verdict][0], "mm")


def _draw_scale(pen: ImageDraw.ImageDraw, finding: Finding, layout: Layout) -> None:
    """Certainty from 0 to 100 % with both thresholds; no marker where no certainty may be stated."""
    point, value = finding.identity.operating_point, wording.scale_percent(finding)
    left, right = layout.margin, layout.width - layout.margin
    title_y, middle, labels_y = (layout.below + round(layout.scale * share) for share in (0.24, 0.54, 0.83))
    half = max(2, round(layout.scale * 0.06))
    title, font = fit(wording.certainty_line(finding), layout.body_px, right - left)
    write(pen, (left, title_y), title, font, WHITE)

    def at(share: float) -> int:
        return round(left + share * (right - left))

    bounds, tick = (0.0, point.rule_out_below, point.report_at, 1.0), max(2, layout.width // 350)
    for begin, end, shade in zip(bounds[:-1], bounds[1:], (70, 120, 190), strict=True):
        pen.rectangle((at(begin), middle - half, at(end), middle + half), fill=(shade, shade, shade))
    for share in bounds[1:3]:
        pen.line((at(share), middle - half * 2, at(share), middle + half * 2), fill=WHITE, width=tick)
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


def _draw_listing(pen: ImageDraw.ImageDraw, lines: tuple[str, ...], layout: Layout) -> None:
    top = layout.below + layout.scale
    for place, line in enumerate(lines):
        text, font = fit(line, layout.body_px, layout.width - 2 * layout.margin)
        write(pen, (layout.margin, top + round(layout.line * (place + 0.75))), text, font, WHITE if place else PALE)


def _draw_footer(picture: Image.Image, words: Words, layout: Layout, *, colors: bool | None) -> None:
    """Color bar and what it is not; then model, projection, and for whom this is, in the middle.

    `colors` : whether the map is gray; None where there is none
    """
    pen, top = ImageDraw.Draw(picture), layout.height - layout.footer
    left, right = layout.margin, layout.width - layout.margin
    middles = [top + round(layout.line * (place + 0.5)) for place in range(len(words.notes) + len(words.model))]
    for place, line in enumerate(words.notes):
        begin = _draw_color_bar(picture, layout, middles[0], gray=colors) if colors is not None and not place else left
        text, font = fit(line, layout.body_px, right - begin)
        write(pen, (begin, middles[place]), text, font, WHITE)
    free = round(_CORNERS_FREE * layout.width)
    for place, line in enumerate(words.model):
        last = place == len(words.model) - 1
        text, font = fit(line, layout.body_px, layout.width - 2 * free, bold=last)
        write(pen, (layout.width / 2, middles[len(words.notes) + place]), text, font, WHITE if last else PALE, "mm")


def _draw_color_bar(picture: Image.Image, layout: Layout, y: int, *, gray: bool) -> int:
    """Draw the colors as they look on a mid gray, from low to high; the x where text may begin."""
    pen, font = ImageDraw.Draw(picture), font_of(layout.body_px)
    width, height = round(layout.width * 0.16), round(layout.body_px * 0.9)
    write(pen, (layout.margin, y), "low", font, PALE)
    left = layout.margin + round(font.getlength("low ") * 1.1)
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    picture.paste(overlaid(Image.new("RGB", (width, height), _BAR_GRAY), ramp, gray=gray), (left, y - height // 2))
    write(pen, (left + width, y), " high", font, PALE)
    return left + width + round(font.getlength(" high  ")) + layout.margin // 2
