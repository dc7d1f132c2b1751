"""Every sentence that a person reads in a result, and the rules that keep it from overstating.

Knows no DICOM object and no pixels. Words are ASCII: the results keep the character set of their source, and
ASCII means the same in all of them (PS3.3 C.12.1.1.2). How numbers are rounded, `numbers` knows.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from cxr_node.dicom import findings
from cxr_node.dicom.numbers import above, is_stated, rounded_percent, rounded_score
from cxr_node.domain import Doubt, Finding, OperatingPoint, Radiograph, ResultKind, Scale, Verdict, View

RESEARCH = "Research use only."
LOOKED = "Where the network looked, not the outline of a lesion."
MAP_CAPTION = "Where the network looked: clear = little, yellow = most"
REGION = "AI: where the network looked (research)"
TRACKING = "cxr_node pneumonia"
"""Tracking Identifier of the finding, with the number of its region, in every object that has the region."""
NO_MAP = "No heat map is shown for this verdict."
FOOTER = "Research use only. Not a medical device."
SCORES = " Scores are no probabilities."
UNMEASURED = "This model does not measure whether an image is unlike its training data: none is set apart for that."
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
    data, nor where repeated looks disagree, and a low number beside UNCERTAIN would read as negative. Nor is a score
    a certainty.
    """
    if not is_stated(finding) or finding.identity.operating_point.scale is Scale.SCORE:
        return None
    return rounded_percent(finding.probability, finding.identity.operating_point, digits=1)


def score(finding: Finding) -> float | None:
    """Score of pneumonia, (0, 1), where the classifier gives scores, under the rules of `certainty`; else None."""
    if not is_stated(finding) or finding.identity.operating_point.scale is Scale.PROBABILITY:
        return None
    return rounded_score(finding.probability, finding.identity.operating_point)


def number_text(finding: Finding) -> str | None:
    """Format certainty or score, whichever the classifier gives; None where none may be stated."""
    value = score(finding)
    return certainty_text(finding) if value is None else f"{value:.10g}"


def scale_percent(finding: Finding) -> float | None:
    """Where the marker stands between 0 and 100; None where none may."""
    value = score(finding)
    return certainty(finding) if value is None else 100 * value


def certainty_text(finding: Finding) -> str | None:
    """Format the certainty, "93.4 %"; None where none may be stated."""
    value = certainty(finding)
    if value is None:
        return None
    return f"{value:.1f} %" if round(value, 1) == value else f"{value:.10g} %"


def threshold(probability: float, scale: Scale = Scale.PROBABILITY) -> str:
    """Format a threshold with no more digits than it has, at most four: "85 %", or of a score "0.85"."""
    return f"{probability:.4g}" if scale is Scale.SCORE else f"{100 * probability:.4g} %"


def summary(finding: Finding) -> str:
    """Write the sentence that stands for the whole result, verdict first."""
    point = finding.identity.operating_point
    match finding.decision.verdict:
        case Verdict.PNEUMONIA:
            return (
                f"AI: pneumonia SUSPECTED, {point_word(point)} {number_text(finding)} "
                f"(report threshold {threshold(point.report_at, point.scale)}{_caution(point)}). Unverified. "
                f"{_scope(finding)}; other findings are {_others(finding)}. {RESEARCH}"
            )
        case Verdict.NORMAL:
            return (
                f"AI: no pneumonia detected, {point_word(point)} of pneumonia {number_text(finding)} "
                f"(rule-out threshold {threshold(point.rule_out_below, point.scale)}{_caution(point)}). Unverified. "
                f"{_scope(finding)}; this is not a statement that the radiograph is normal. {RESEARCH}"
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
            between = f"{threshold(point.rule_out_below, point.scale)} and {threshold(point.report_at, point.scale)}"
            return f"{point_word(point)} of pneumonia {number_text(finding)} lies between {between}"
        case Doubt.VIEWS_DISAGREE:
            spread = above(100 * prediction.spread, 100 * point.max_spread)
            limit = f"limit {100 * point.max_spread:.4g}"
            return f"repeated looks at this image disagree by {spread} percentage points ({limit})"
        case Doubt.UNLIKE_TRAINING_DATA:
            farthest = point.max_distance or 0.0
            distance = "not known" if prediction.distance is None else above(prediction.distance, farthest)
            return f"this image is unlike its training data (distance {distance}, limit {farthest:.4g})"
        case None:
            raise ValueError("only UNCERTAIN has a doubt")


def banner(finding: Finding) -> Banner:
    """Write the head of the picture."""
    if finding.decision.verdict is Verdict.PNEUMONIA:
        return Banner(title="PNEUMONIA SUSPECTED", subtitle=f"Unverified. {_scope(finding)}.")
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
    """State the certainty or the score, or that none is."""
    word = point_word(finding.identity.operating_point).capitalize()
    return f"{word} of pneumonia: {number_text(finding) or 'not stated'}"


def thresholds_line(point: OperatingPoint) -> str:
    """State both thresholds."""
    low, high = threshold(point.rule_out_below, point.scale), threshold(point.report_at, point.scale)
    return f"Rule-out below {low}, report from {high}.{SCORES if point.scale is Scale.SCORE else ''}"


def score_heading(finding: Finding) -> str | None:
    """Introduce the highest of many scored findings; None where one finding is judged alone."""
    count = len(finding.prediction.probability)
    if not findings.are_scored(finding):
        return None
    if not is_stated(finding):
        return f"The other {count - 1} findings: not stated."
    return f"Highest of {count} findings (0.5: the model's operating point of each):"


def listing(finding: Finding) -> list[str]:
    """Lines of a picture: what is listed, and the findings that stand highest, three and two; none for one finding."""
    heading, names = score_heading(finding), findings.highest(finding)
    return [] if heading is None else [heading, *(", ".join(part) for part in (names[:3], names[3:]) if part)]


def series_description(kind: ResultKind, finding: Finding, *, shows_map: bool) -> str:
    """Name a series; verdict first, for lists cut after some 18 characters. LO: at most 64 characters."""
    if kind in _PLAIN_SERIES:
        return f"AI {_PLAIN_SERIES[kind]} (research)"
    words = {Verdict.PNEUMONIA: "PNEUMONIA", Verdict.NORMAL: "no pneumonia", Verdict.UNCERTAIN: "UNCERTAIN"}
    parts = [f"AI: {words[finding.decision.verdict]}"]
    if certainty(finding) is not None:
        percent = rounded_percent(finding.probability, finding.identity.operating_point, digits=0)
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
    heading = score_heading(finding)
    if heading is None:
        lines.append("Assessed: pneumonia. Not assessed: everything else.")
    else:
        lines += [f"{_scope(finding)}; other findings are {_others(finding)}.", heading]
        lines += [f"{place}. {line}" for place, line in enumerate(findings.highest(finding), 1)]
    lines.append(view_line(radiograph.view))
    return lines


def report_conclusions(finding: Finding, radiograph: Radiograph, product: str) -> list[str]:
    """Lines under Conclusions; viewers wrap these."""
    return [
        f"{RESEARCH} Not a medical device. Unverified answer of an algorithm; read the source radiograph.",
        *(plain(remark) for remark in radiograph.remarks),
        *([UNMEASURED] if finding.identity.operating_point.max_distance is None else []),
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
        "Only pneumonia was assessed. Every other finding is not evaluated, whatever the verdict."
        if score_heading(finding) is None
        else f"{_scope(finding)}; other findings are {_others(finding)}, whatever the verdict.",
    ]
    match finding.decision.verdict:
        case Verdict.PNEUMONIA:
            limits.append(f"Suspected is not diagnosed. The map shows: {LOOKED[0].lower()}{LOOKED[1:]}")
        case Verdict.NORMAL:
            limits.append("Not a statement that the radiograph is normal or that the patient is well.")
        case Verdict.UNCERTAIN | Verdict.REJECTED:
            limits.append("UNCERTAIN is no answer: neither for nor against pneumonia. Human reading required.")
    limits += [plain(remark) for remark in radiograph.remarks]
    if finding.identity.operating_point.max_distance is None:
        limits.append(UNMEASURED)
    limits.append("Pictures on paper are not of diagnostic quality; read the radiograph itself.")
    return limits


def view_line(view: View) -> str:
    """State the projection, and how sure that is."""
    return "Projection: not stated in the header." if view is View.UNKNOWN else f"Projection: {view.value}."


def point_word(point: OperatingPoint) -> str:
    """Say what the numbers are."""
    return "score" if point.scale is Scale.SCORE else "certainty"


def _caution(point: OperatingPoint) -> str:
    return "; a score is no probability" if point.scale is Scale.SCORE else ""


def _scope(finding: Finding) -> str:
    return "The verdict is about pneumonia only" if findings.are_scored(finding) else "Only pneumonia was assessed"


def _others(finding: Finding) -> str:
    return "scored, not asserted" if findings.are_scored(finding) else "not evaluated"
