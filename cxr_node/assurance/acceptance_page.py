"""The page that a chief radiologist signs: one A4 page of what was counted, black on white, with room for a name.

The same figures give the same bytes: its clock is the ledger's.
"""

from __future__ import annotations

from collections.abc import Sequence

from fpdf import FPDF, Align, XPos, YPos

from cxr_node.assurance.acceptance import Acceptance, Share
from cxr_node.dicom.render.layout import FONTS

TITLE = "Acceptance of an AI node for chest radiographs"
RESEARCH = "For research use only. What came and what was answered, counted; whether that is enough, a person decides."
_FONTS = {"": "DejaVuSans.ttf", "B": "DejaVuSans-Bold.ttf"}
_MARGIN_MM, _WIDTH_MM, _GAP_MM = 15.0, 180.0, 6.0
_TITLE_PT, _HEAD_PT, _BODY_PT, _TABLE_PT, _SMALL_PT = 14.0, 9.6, 8.0, 7.6, 6.8
_MOST_ROWS = 6
"""Of a table; the rest is in the JSON, and the page says how many."""
_GRAY = 90
_RULED_MM = 8.0

Rows = Sequence[tuple[str, str]]


def draw(told: Acceptance) -> bytes:
    """Draw it; PDF."""
    pdf = _written(told)
    _signature(pdf)
    return bytes(pdf.output())


def end_of_text_mm(told: Acceptance) -> float:
    """Where the text ends, from the top of the page: what is signed must stand below it."""
    pdf = _written(told)
    end_mm = float(pdf.get_y())
    pdf.output()  # closes the fonts
    return end_mm


def _written(told: Acceptance) -> FPDF:
    pdf = FPDF(format="A4", unit="mm")
    pdf.set_creation_date(told.made_at)
    pdf.set_producer(f"cxr_node {told.version}")
    pdf.set_title(TITLE)
    pdf.set_lang("en")
    for style, name in _FONTS.items():
        pdf.add_font("DejaVu", style, FONTS / name)
    pdf.set_margins(_MARGIN_MM, 12.0)
    pdf.c_margin = 0.0
    pdf.set_auto_page_break(False)
    pdf.add_page()
    _head(pdf, told)
    _columns(pdf, told)
    _profiles(pdf, told)
    _to_check(pdf, told)
    return pdf


def _line(pdf: FPDF, text: str, size_pt: float = _BODY_PT, style: str = "", width_mm: float = _WIDTH_MM) -> None:
    pdf.set_font("DejaVu", style, size_pt)
    kept = text.replace(" %", "\u00a0%")
    pdf.multi_cell(width_mm, size_pt * 0.47, kept, align=Align.L, new_x=XPos.LEFT, new_y=YPos.NEXT)


def _head(pdf: FPDF, told: Acceptance) -> None:
    _line(pdf, TITLE, _TITLE_PT, "B")
    pdf.ln(1.0)
    _line(pdf, RESEARCH)
    pdf.ln(1.5)
    period = "none" if told.first_at is None else f"{told.first_at:%Y-%m-%d %H:%M} to {told.last_at:%Y-%m-%d %H:%M} UTC"
    _line(pdf, f"Installation {told.installation}, cxr_node {told.version}, counted {told.made_at:%Y-%m-%d %H:%M} UTC.")
    asked = "" if told.studies == told.asked_studies else f" (of {told.asked_studies} asked for)"
    _line(pdf, f"The last {told.studies} studies{asked}: {told.images} images, received {period}.", style="B")
    pdf.ln(2.5)


def _columns(pdf: FPDF, told: Acceptance) -> None:
    """Faults, turnaround and verdicts on the left; refusals and agreement on the right."""
    top, width = pdf.get_y(), (_WIDTH_MM - _GAP_MM) / 2
    faults = [(kind, str(number)) for kind, number in told.faults.items()]
    _table(pdf, "Technical faults (goal: 0)", faults, width)
    _table(pdf, "From receipt to the last destination", _turnaround(told), width)
    _table(pdf, "Answers, of the judged images", _shares(told.verdicts), width)
    left = pdf.get_y()
    pdf.set_xy(_MARGIN_MM + width + _GAP_MM, top)
    _table(pdf, "Not analysed, and why, of all images", _shares(told.refused), width)
    _table(pdf, "Not analysed, by sender", _shares(told.refused_by_sender), width)
    _table(pdf, "No answer, and why, of the judged images", _shares(told.no_answer), width)
    _table(pdf, "Agreement with a radiologist's reading", _shares(told.agreement), width)
    pdf.set_xy(_MARGIN_MM, max(left, pdf.get_y()) + 1.0)


def _table(pdf: FPDF, title: str, rows: Rows, width_mm: float) -> None:
    x = pdf.get_x()
    _line(pdf, title, _HEAD_PT, "B", width_mm)
    pdf.set_line_width(0.2)
    pdf.line(x, pdf.get_y() + 0.4, x + width_mm, pdf.get_y() + 0.4)
    pdf.set_y(pdf.get_y() + 1.0)
    pdf.set_x(x)
    shown = list(rows[: _MOST_ROWS + 1])
    if len(rows) > len(shown):
        shown = [*rows[:_MOST_ROWS], (f"and {len(rows) - _MOST_ROWS} more kinds (JSON)", "")]
    for name, value in shown or [("none", "")]:
        pdf.set_x(x)
        pdf.set_font("DejaVu", "", _TABLE_PT)
        value_mm = pdf.get_string_width(value) + 1.0
        while name and pdf.get_string_width(name) > width_mm - value_mm:
            name = name[:-2].rstrip("\u2026") + "\u2026"
        pdf.cell(width_mm - value_mm, 4.1, name)
        pdf.cell(value_mm, 4.1, value, align=Align.R, new_x=XPos.LEFT, new_y=YPos.NEXT)
    pdf.set_xy(x, pdf.get_y() + 2.0)


def _turnaround(told: Acceptance) -> Rows:
    took = told.turnaround
    if took is None:
        return []
    numbers = (("median", took.median_s), ("95 of 100 within", took.p95_s), ("longest", took.longest_s))
    return [("images", str(took.images)), *((name, f"{value:.1f} s") for name, value in numbers)]


def _shares(shares: dict[str, Share]) -> Rows:
    return [(name, written(share)) for name, share in shares.items()]


def written(share: Share) -> str:
    """As it reads: share, exact interval, of how many."""
    if not share.of:
        return "none"
    low, high = 100 * share.low, 100 * share.high
    return f"{100 * share.few / share.of:.1f}\u00a0% ({low:.1f} to {high:.1f}), {share.few} of {share.of}"


def _profiles(pdf: FPDF, told: Acceptance) -> None:
    _line(pdf, "Judged by", _HEAD_PT, "B")
    pdf.ln(0.8)
    for each in told.profiles:
        low, high = each.thresholds
        thresholds = f"ruled out below {100 * low:.1f} %, reported from {100 * high:.1f} %"
        _line(pdf, f"{each.name}: {thresholds}. {each.calibration}.")
        _line(pdf, f"weights {each.weights_sha256}; phantom: {each.constancy or 'not sent yet'}", _SMALL_PT)
        pdf.ln(0.8)
    _line(pdf, f"configuration of answers (admission, results) {told.config_sha256}", _SMALL_PT)
    if told.unknown_weights:
        _line(pdf, f"{told.unknown_weights} of the images were judged by other weights.", style="B")
    pdf.ln(2.5)


def _to_check(pdf: FPDF, told: Acceptance) -> None:
    _line(pdf, "What the site must still check", _HEAD_PT, "B")
    pdf.ln(0.8)
    for sentence in told.to_check:
        pdf.rect(_MARGIN_MM, pdf.get_y() + 0.5, 2.4, 2.4)
        pdf.set_x(_MARGIN_MM + 4.5)
        _line(pdf, sentence, width_mm=_WIDTH_MM - 4.5)
        pdf.set_xy(_MARGIN_MM, pdf.get_y() + 0.6)


def _signature(pdf: FPDF) -> None:
    """At the foot of the page, with lines for conditions as far as there is room above it."""
    top, foot = pdf.get_y() + 6.0, pdf.h - 34.0
    if foot - top > 2 * _RULED_MM:
        pdf.set_y(top)
        _line(pdf, "Conditions, and what was looked at", _HEAD_PT, "B")
        pdf.set_draw_color(_GRAY)
        for number in range(1, int((foot - pdf.get_y()) / _RULED_MM)):
            y = pdf.get_y() + number * _RULED_MM
            pdf.line(_MARGIN_MM, y, _MARGIN_MM + _WIDTH_MM, y)
        pdf.set_draw_color(0)
    pdf.set_y(-32.0)
    boxes = "\u25a1 yes    \u25a1 yes, with these conditions    \u25a1 no"
    _line(pdf, f"Accepted for use in research at this site:   {boxes}", _HEAD_PT)
    pdf.set_y(-16.0)
    pdf.set_font("DejaVu", "", _SMALL_PT)
    pdf.set_text_color(_GRAY)
    for x, width, words in ((0.0, 70.0, "Name"), (76.0, 34.0, "Date"), (116.0, 64.0, "Signature")):
        pdf.line(_MARGIN_MM + x, pdf.get_y(), _MARGIN_MM + x + width, pdf.get_y())
        pdf.set_xy(_MARGIN_MM + x, pdf.get_y() + 0.8)
        pdf.cell(width, 3.2, words)
        pdf.set_y(pdf.get_y() - 0.8)
