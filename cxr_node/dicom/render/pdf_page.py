"""The page that a ward can print: A4 PDF with both images, the verdict, what it rests on, and what it is not.

Fonts are embedded, and meaning is never in color alone, for wards print in gray. The same sheet gives the same bytes:
fpdf2 writes no clock of its own, and the file identifier is a digest of the content.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fontTools.ttLib import TTFont
from fpdf import FPDF, Align, XPos, YPos
from PIL import Image

from cxr_node.dicom.render import picture
from cxr_node.dicom.render.layout import FONTS
from cxr_node.dicom.words import coded_findings, wording, zones
from cxr_node.domain import Finding, Radiograph, Verdict

ILLEGIBLE = "(cannot be printed; see the archive)"
_SYMBOLS = {Verdict.POSITIVE: "\u25b2", Verdict.NEGATIVE: "\u2296", Verdict.INDETERMINATE: "\u25c6"}
_SIGNS = {Verdict.POSITIVE: "!", Verdict.INDETERMINATE: "?"}
"""Triangle with !, ring with a bar, diamond with ?: those of the picture."""
_FONTS = {"": "DejaVuSans.ttf", "B": "DejaVuSans-Bold.ttf"}
_MARGIN_MM, _WIDTH_MM, _IMAGES_MM, _GAP_MM = 15.0, 180.0, 96.0, 6.0
_DRAWN_PX = 1600
"""Long side of the drawn picture: some 300 dots an inch where two images stand side by side."""
_TITLE_PT, _VERDICT_PT, _BODY_PT, _SMALL_PT = 12, 17, 9, 7.5
_INK, _GRAY = 0, 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What is printed. `identifiers` by their names on paper; None where one cannot be printed faithfully."""

    radiograph: Radiograph
    finding: Finding
    identifiers: Mapping[str, str | None]
    source_uid: str
    moment: datetime
    product: str
    shows_map: bool
    looked: str
    """Where the regions lie, in a sentence; "" where that is not known."""


def is_printable(text: str) -> bool:
    """Whether our font has all of it, and it runs from left to right without joined letters."""
    return all(ord(char) in _glyphs() and unicodedata.bidirectional(char) not in ("R", "AL") for char in text)


def draw(sheet: Sheet) -> bytes:
    """Draw one A4 page; PDF."""
    pdf = FPDF(format="A4", unit="mm")
    pdf.set_creation_date(sheet.moment)
    pdf.set_producer(sheet.product)
    pdf.set_title(wording.PAGE_TITLE)
    pdf.set_lang("en")
    pdf.set_image_filter("FlateDecode")
    for style, name in _FONTS.items():
        pdf.add_font("DejaVu", style, FONTS / name)
    pdf.set_margins(_MARGIN_MM, _MARGIN_MM)
    pdf.c_margin = 0.0  # text is flush with frames and images
    pdf.set_auto_page_break(True, margin=12.0)  # more remarks than any radiograph has: a second page, never lost words
    pdf.add_page()
    _head(pdf, sheet)
    _verdict(pdf, sheet.finding)
    _scale(pdf, sheet.finding)
    _images(pdf, sheet)
    _text(pdf, sheet)
    return bytes(pdf.output())


@functools.cache
def _glyphs() -> frozenset[int]:
    with TTFont(FONTS / _FONTS[""], lazy=True) as font:
        return frozenset(font.getBestCmap())


def _line(pdf: FPDF, text: str, size_pt: float = _BODY_PT, style: str = "", gray: int = _INK) -> None:
    pdf.set_font("DejaVu", style, size_pt)
    pdf.set_text_color(gray)
    kept = text.replace(" %", "\u00a0%")  # a number and its unit stay on one line
    pdf.multi_cell(_WIDTH_MM, size_pt * 0.47, kept, align=Align.L, new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _head(pdf: FPDF, sheet: Sheet) -> None:
    _line(pdf, wording.PAGE_TITLE, _TITLE_PT, "B")
    _line(pdf, wording.FOOTER, _BODY_PT, "B")
    pdf.ln(1.5)
    named = [f"{name}: {ILLEGIBLE if value is None else value or '-'}" for name, value in sheet.identifiers.items()]
    _line(pdf, "\u2003\u2003".join(named[:2]))
    _line(pdf, "\u2003\u2003".join(named[2:]))
    pdf.ln(2.5)


def _verdict(pdf: FPDF, finding: Finding) -> None:
    """Symbol, verdict, certainty on the verdict's color, in a frame that survives a gray printer."""
    background, ink = picture.BANNERS[finding.decision.verdict]
    words = wording.banner(finding)
    top, height = pdf.get_y(), 19.0
    pdf.set_fill_color(*background)
    pdf.set_draw_color(_INK)
    pdf.set_line_width(0.5)
    pdf.rect(_MARGIN_MM, top, _WIDTH_MM, height, style="DF")
    pdf.set_text_color(*ink)
    _symbol(pdf, finding.decision.verdict, top, height)
    left = _MARGIN_MM + 20.0
    pdf.set_font("DejaVu", "B", _VERDICT_PT)
    pdf.set_xy(left, top + 2.5)
    pdf.cell(100, 8, words.title)
    pdf.set_xy(_MARGIN_MM + _WIDTH_MM - 64, top + 2.5)
    pdf.cell(60, 8, words.number, align=Align.R)
    pdf.set_font("DejaVu", "", _BODY_PT)
    pdf.set_xy(left, top + 11)
    pdf.cell(150, 5, words.subtitle)
    pdf.set_y(top + height + 2.5)


def _symbol(pdf: FPDF, verdict: Verdict, top: float, height: float) -> None:
    pdf.set_font("DejaVu", "B", 40)
    pdf.set_xy(_MARGIN_MM + 3, top)
    pdf.cell(14, height, _SYMBOLS[verdict], align=Align.C)
    if verdict in _SIGNS:
        pdf.set_text_color(*picture.BANNERS[verdict][0])
        pdf.set_font("DejaVu", "B", 16)
        pdf.set_xy(_MARGIN_MM + 3, top + (1.5 if verdict is Verdict.POSITIVE else 0))
        pdf.cell(14, height, _SIGNS[verdict], align=Align.C)
        pdf.set_text_color(*picture.BANNERS[verdict][1])


def _scale(pdf: FPDF, finding: Finding) -> None:
    """Certainty from 0 to 100 % with both thresholds; no marker where no certainty may be stated."""
    point, value = finding.identity.operating_point, wording.scale_percent(finding)
    _line(pdf, f"{wording.certainty_line(finding)}. {wording.thresholds_line(point)}", style="B")
    top, height = pdf.get_y() + 3.0, 3.0
    bounds = (0.0, point.rule_out_below, point.report_at, 1.0)
    pdf.set_line_width(0.2)
    for begin, end, shade in zip(bounds[:-1], bounds[1:], (245, 215, 175), strict=True):
        pdf.set_fill_color(shade)
        pdf.rect(_MARGIN_MM + begin * _WIDTH_MM, top, (end - begin) * _WIDTH_MM, height, style="DF")
    pdf.set_line_width(0.6)
    for share in bounds[1:3]:
        x = _MARGIN_MM + share * _WIDTH_MM
        pdf.line(x, top - 1.2, x, top + height + 1.2)
    if value is not None:
        x, middle, size = _MARGIN_MM + value / 100 * _WIDTH_MM, top + height / 2, 2.4
        pdf.set_fill_color(_INK)
        corners = ((x, middle - size), (x + size, middle), (x, middle + size), (x - size, middle))
        pdf.polygon(corners, style="F")
    pdf.set_y(top + height + 4.0)


def _images(pdf: FPDF, sheet: Sheet) -> None:
    """Put the radiograph as it came beside the one with the map; the first alone where no map is shown."""
    left, top, width, height = picture.image_box(
        sheet.radiograph, sheet.finding, _DRAWN_PX, shows_map=sheet.shows_map, looked=sheet.looked
    )
    captions = ["Radiograph", *([zones.caption(sheet.finding.decision)] if sheet.shows_map else [])]
    shares = (_WIDTH_MM - _GAP_MM) / 2
    scale = min(shares / width, _IMAGES_MM / height)
    y = pdf.get_y()
    for place, caption in enumerate(captions):
        drawn = picture.draw(
            sheet.radiograph, sheet.finding, _DRAWN_PX, shows_map=sheet.shows_map, looked=sheet.looked, bare=not place
        )
        shown: Image.Image = drawn.crop((left, top, left + width, top + height))
        x = _MARGIN_MM + place * (shares + _GAP_MM)
        pdf.image(shown if place else shown.convert("L"), x, y, width * scale, height * scale)
        pdf.set_xy(x, y + height * scale + 0.5)
        pdf.set_font("DejaVu", "", _SMALL_PT)
        pdf.set_text_color(_INK)
        pdf.cell(shares, 4, caption)
    pdf.set_xy(_MARGIN_MM, y + height * scale + 6.5)


def _text(pdf: FPDF, sheet: Sheet) -> None:
    """Say the summary, the limits, then model and source in small print."""
    _line(pdf, wording.summary(sheet.finding), style="B")
    heading = wording.score_heading(sheet.finding)
    if heading is not None:
        _line(pdf, f"{heading} {', '.join(coded_findings.highest(sheet.finding))}")
    for line in zones.lines(sheet.looked, sheet.finding.decision):
        _line(pdf, line)
    pdf.ln(1.5)
    for limit in wording.page_limits(sheet.finding, sheet.radiograph):
        _line(pdf, f"\u2022 {limit}")
    pdf.ln(1.5)
    for line in (wording.model_line(sheet.finding, sheet.product), wording.view_line(sheet.radiograph.view)):
        _line(pdf, line, _SMALL_PT)
    _line(pdf, f"Source image {sheet.source_uid}, received {sheet.moment:%Y-%m-%d %H:%M %Z}.", _SMALL_PT, gray=_GRAY)
