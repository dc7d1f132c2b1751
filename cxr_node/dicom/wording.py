"""Every sentence that a person reads in a result, and the rules that keep it from overstating.

Knows no DICOM object and no pixels. Words are ASCII: the results keep the character set of their source, and
ASCII means the same in all of them (PS3.3 C.12.1.1.2). Numbers are rounded so that they never cross a
threshold: 84.96 % below a threshold of 85 % reads 84.9 or 84.96, never 85.0.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cxr_node.domain import Doubt, Finding, OperatingPoint, Radiograph, ResultKind, Verdict, View

RESEARCH = "Research use only."
LOOKED = "Where the network looked, not the outline of a lesion."
MAP_CAPTION = "Where the network looked: clear = little, yellow = most"
REGION = "AI: where the network looked (research)"
TRACKING = "cxr_node pneumonia 1"
"""Tracking Identifier of the one finding, in every object that has its region."""
NO_MAP = "No heat map is shown for this verdict."
FOOTER = "Research use only. Not a medical device."
_MAX_DIGITS = 6
_PLAIN_SERIES = {
    ResultKind.MEASUREMENTS: "measurements",
    ResultKind.PRESENTATION_STATE: "region",
    ResultKind.SEGMENTATION: "SEG",
    ResultKind.KEY_OBJECT: "key image",
    ResultKind.PDF: "report PDF",
}
"""Series that say no verdict by their name, and so can contradict none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """The head of the picture: the verdict in a few words, and what it means."""

    title: str
    subtitle: str


def plain(text: str) -> str:
    """Fold to printable ASCII without backslash: accents fall off, what has no counterpart becomes a question mark."""
    folded = unicodedata.normalize("NFKD", text).replace("\\", "/")
    kept = (char for char in folded if not unicodedata.combining(char))
    return "".join(char if " " <= char <= "~" else " " if char.isspace() else "?" for char in kept)


def certainty(finding: Finding) -> float | None:
    """Calibrated certainty of pneumonia in percent, (0, 100), or None where none may be stated.

    The verdict rests on this number, or none is given: calibration does not hold for an image unlike the training
    data, nor where repeated looks disagree, and a low number beside UNCERTAIN would read as negative.
    """
    if finding.decision.doubt not in (None, Doubt.BETWEEN_THRESHOLDS):
        return None
    return _rounded_percent(finding.probability, finding.identity.operating_point, digits=1)


def certainty_text(finding: Finding) -> str | None:
    """Format the certainty, "93.4 %"; None where none may be stated."""
    value = certainty(finding)
    if value is None:
        return None
    return f"{value:.1f} %" if round(value, 1) == value else f"{value:.10g} %"


def threshold(probability: float) -> str:
    """Format a threshold as percent with no more digits than it has, at most four: "85 %"."""
    return f"{100 * probability:.4g} %"


def summary(finding: Finding) -> str:
    """Write the sentence that stands for the whole result, verdict first."""
    point = finding.identity.operating_point
    match finding.decision.verdict:
        case Verdict.PNEUMONIA:
            return (
                f"AI: pneumonia SUSPECTED, certainty {certainty_text(finding)} "
                f"(report threshold {threshold(point.report_at)}). Unverified. "
                f"Only pneumonia was assessed; other findings are not evaluated. {RESEARCH}"
            )
        case Verdict.NORMAL:
            return (
                f"AI: no pneumonia detected, certainty of pneumonia {certainty_text(finding)} "
                f"(rule-out threshold {threshold(point.rule_out_below)}). Unverified. "
                f"Only pneumonia was assessed; this is not a statement that the radiograph is normal. {RESEARCH}"
            )
        case Verdict.UNCERTAIN:
            cause = doubt_sentence(finding)
            return f"AI: UNCERTAIN - the algorithm abstains; {cause}. Human reading required. {RESEARCH}"
        case Verdict.REJECTED:
            raise ValueError("a REJECTED radiograph has no finding")


def doubt_sentence(finding: Finding) -> str:
    """Say why the algorithm abstains, with the number that made it and its limit."""
    prediction, point = finding.prediction, finding.identity.operating_point
    match finding.decision.doubt:
        case Doubt.BETWEEN_THRESHOLDS:
            between = f"{threshold(point.rule_out_below)} and {threshold(point.report_at)}"
            return f"certainty of pneumonia {certainty_text(finding)} lies between {between}"
        case Doubt.VIEWS_DISAGREE:
            spread = _above(100 * prediction.spread, 100 * point.max_spread)
            limit = f"limit {100 * point.max_spread:.4g}"
            return f"repeated looks at this image disagree by {spread} percentage points ({limit})"
        case Doubt.UNLIKE_TRAINING_DATA:
            distance = _above(prediction.distance, point.max_distance)
            return f"this image is unlike its training data (distance {distance}, limit {point.max_distance:.4g})"
        case None:
            raise ValueError("only UNCERTAIN has a doubt")


def banner(finding: Finding) -> Banner:
    """Write the head of the picture."""
    if finding.decision.verdict is Verdict.PNEUMONIA:
        return Banner(title="PNEUMONIA SUSPECTED", subtitle="Unverified. Only pneumonia was assessed.")
    if finding.decision.verdict is Verdict.NORMAL:
        return Banner(title="NO PNEUMONIA DETECTED", subtitle="Unverified. Not a statement that the image is normal.")
    causes = {
        Doubt.BETWEEN_THRESHOLDS: "between both thresholds",
        Doubt.VIEWS_DISAGREE: "repeated looks disagree",
        Doubt.UNLIKE_TRAINING_DATA: "unlike the training data",
    }
    cause = causes[finding.decision.doubt or Doubt.BETWEEN_THRESHOLDS]
    return Banner(title="UNCERTAIN", subtitle=f"AI abstains: {cause}. Human reading required.")


def certainty_line(finding: Finding) -> str:
    """State the certainty, or that none is."""
    return f"Certainty of pneumonia: {certainty_text(finding) or 'not stated'}"


def thresholds_line(point: OperatingPoint) -> str:
    """State both thresholds."""
    return f"Rule-out below {threshold(point.rule_out_below)}, report from {threshold(point.report_at)}."


def series_description(kind: ResultKind, finding: Finding, *, shows_map: bool) -> str:
    """Name a series; verdict first, for lists cut after some 18 characters. LO: at most 64 characters."""
    if kind in _PLAIN_SERIES:
        return f"AI {_PLAIN_SERIES[kind]} (research)"
    words = {Verdict.PNEUMONIA: "PNEUMONIA", Verdict.NORMAL: "no pneumonia", Verdict.UNCERTAIN: "UNCERTAIN"}
    parts = [f"AI: {words[finding.decision.verdict]}"]
    if certainty(finding) is not None:
        percent = _rounded_percent(finding.probability, finding.identity.operating_point, digits=0)
        parts.append(f"{percent:.10g}%")
    if kind in (ResultKind.HEATMAP, ResultKind.FRAMES):
        parts.append("Grad-CAM" if shows_map else "picture")
    if kind is ResultKind.FRAMES:
        parts.append("frames")
    return " ".join([*parts, "(research)"])


def report_findings(
    finding: Finding, radiograph: Radiograph, series_numbers: Mapping[ResultKind, int], *, shows_map: bool
) -> list[str]:
    """Lines under Findings; short, for viewers do not wrap them."""
    lines = [certainty_line(finding), thresholds_line(finding.identity.operating_point)]
    if shows_map:
        lines.append(f"Heat map (Grad-CAM): series {series_numbers[ResultKind.HEATMAP]}.")
        lines.append("The map shows where the network looked, not the outline of a lesion.")
    if finding.decision.verdict is Verdict.PNEUMONIA and ResultKind.MEASUREMENTS in series_numbers:
        lines.append(f"Region, for machines: series {series_numbers[ResultKind.MEASUREMENTS]}.")
    lines.append("Assessed: pneumonia. Not assessed: everything else.")
    lines.append(view_line(radiograph.view))
    return lines


def report_conclusions(finding: Finding, radiograph: Radiograph, product: str) -> list[str]:
    """Lines under Conclusions; viewers wrap these."""
    return [
        f"{RESEARCH} Not a medical device. Unverified answer of an algorithm; read the source radiograph.",
        *(plain(remark) for remark in radiograph.remarks),
        *model_lines(finding, product),
    ]


def model_lines(finding: Finding, product: str) -> list[str]:
    """Name the model to the byte, and what its certainty rests on."""
    identity = finding.identity
    return [
        plain(f"Model {identity.profile} {identity.version}, weights {identity.weights_sha256[:12]}, {product}."),
        plain(f"Calibration: {identity.calibration}."),
    ]


def page_limits(finding: Finding, radiograph: Radiograph) -> list[str]:
    """What a reader of the printed page must not take it for, in the order of how much harm that would do."""
    limits = [
        f"{RESEARCH} Not a medical device. No physician has verified this page.",
        "Only pneumonia was assessed. Every other finding is not evaluated, whatever the verdict.",
    ]
    match finding.decision.verdict:
        case Verdict.PNEUMONIA:
            limits.append(f"Suspected is not diagnosed. The map shows: {LOOKED[0].lower()}{LOOKED[1:]}")
        case Verdict.NORMAL:
            limits.append("Not a statement that the radiograph is normal or that the patient is well.")
        case Verdict.UNCERTAIN | Verdict.REJECTED:
            limits.append("UNCERTAIN is no answer: neither for nor against pneumonia. Human reading required.")
    limits += [plain(remark) for remark in radiograph.remarks]
    limits.append("Pictures on paper are not of diagnostic quality; read the radiograph itself.")
    return limits


def view_line(view: View) -> str:
    """State the projection, and how sure that is."""
    return "Projection: not stated in the header." if view is View.UNKNOWN else f"Projection: {view.value}."


def _rounded_percent(probability: float, point: OperatingPoint, digits: int) -> float:
    """Round to the fewest digits that keep the number on its side of both thresholds, and off 0 and 100."""

    def side(value: float) -> tuple[bool, bool]:
        return value >= point.rule_out_below, value >= point.report_at

    for more in range(digits, _MAX_DIGITS):
        smallest = 10.0**-more
        value = round(min(max(100 * probability, smallest), 100 - smallest), more)
        if side(round(value / 100, more + 2)) == side(probability):
            return value
    return 100 * probability


def _above(value: float, limit: float) -> str:
    """Format a value that exceeds its limit so that it is seen to exceed it."""
    return _shortest(value, lambda rounded: rounded > limit)


def _shortest(value: float, holds: Callable[[float], bool]) -> str:
    for digits in range(1, _MAX_DIGITS):
        if math.isfinite(value) and holds(round(value, digits)):
            return f"{value:.{digits}f}"
    return f"{value:.{_MAX_DIGITS}g}"
