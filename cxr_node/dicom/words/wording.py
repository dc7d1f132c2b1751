"""Every sentence that a person reads in a result, and the rules that keep it from overstating.

What the verdict is about, its target says (`finding.target`); how numbers are rounded, `rounding`. Words are ASCII: the
results keep the character set of their source, and ASCII means the same in all of them (PS3.3 C.12.1.1.2).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from cxr_node.dicom.words import coded_findings
from cxr_node.dicom.words.names import ABSTAIN_REASONS
from cxr_node.dicom.words.rounding import exact_percent, is_stated, rounded_score, stated_text, threshold_text
from cxr_node.domain import AbstainReason, Finding, OperatingPoint, Radiograph, Scale, Verdict, View
from cxr_node.outcome import Rejected
from cxr_node.result_kinds import SHAPES, ResultKind

RESEARCH = "Research use only."
LOOKED = "Where the network looked, not the outline of a lesion."
MAP_CAPTION = "Where the network looked: clear = least, yellow = most"
REGION = "AI: where the network looked (research)"
NO_MAP = "No heat map is shown for this verdict."
PAGE_TITLE = "AI result for a chest radiograph (research)"
FOOTER = "Research use only. Not a medical device."
SCORES = " Scores are not probabilities."
UNMEASURED = "This model cannot detect an image that is unlike its training data."
NOT_ANALYSED_LINE = ("AI: not analysed - ", f". No answer was given. {RESEARCH}")
"""How the note begins and ends; between them stands why."""
_LO_MAX_CHARS = 64
NOT_ANALYSED_SERIES = "AI: not analysed (research)"
_PICTURES = {ResultKind.HEATMAP: "heat maps", ResultKind.FRAMES: "heat map frames"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """The head of picture and page: the verdict in a few words, its number, and what it means."""

    title: str
    subtitle: str
    number: str = ""
    """Of a positive alone: beside the others it reads as certainty of what they say."""


def plain(text: str) -> str:
    """Fold to printable ASCII without backslash: accents fall off, what has no counterpart becomes a question mark."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text  # as nearly all is
    folded = unicodedata.normalize("NFKD", text).replace("\\", "/")
    kept = (char for char in folded if not unicodedata.combining(char))
    return "".join(char if " " <= char <= "~" else " " if char.isspace() else "?" for char in kept)


def certainty(finding: Finding) -> float | None:
    """Calibrated certainty of the finding for machines, in percent, (0, 100), or None where none may be stated.

    The verdict rests on this number, or none is given: calibration does not hold for an image unlike the training
    data, nor where predictions disagree, and a low number beside UNCERTAIN would read as negative. Nor is a score
    a certainty.
    """
    if not is_stated(finding) or finding.identity.operating_point.scale is Scale.SCORE:
        return None
    return exact_percent(finding.probability, finding.identity.operating_point)


def score(finding: Finding) -> float | None:
    """Score of the finding, (0, 1), where the classifier gives scores, under the rules of `certainty`; else None."""
    if not is_stated(finding) or finding.identity.operating_point.scale is Scale.PROBABILITY:
        return None
    return rounded_score(finding.probability, finding.identity.operating_point)


def scale_percent(finding: Finding) -> float | None:
    """Where the marker stands between 0 and 100; None where none may."""
    value = score(finding)
    return certainty(finding) if value is None else 100 * value


def threshold_labels(point: OperatingPoint) -> tuple[str, str]:
    """Name both thresholds, the lower one first: "ruled out below 12 %", "reported from 81 %"."""
    low, high = (threshold_text(value, point) for value in (point.rule_out_below, point.report_at))
    return f"ruled out below {low}", f"reported from {high}"


def summary(finding: Finding) -> str:
    """Write the sentence that stands for the whole result, verdict first."""
    is_score = finding.identity.operating_point.scale is Scale.SCORE
    number = f"{certainty_line(finding)}{' (a score is not a probability)' if is_score else ''}."
    match finding.decision.verdict:
        case Verdict.POSITIVE:
            return f"AI: {finding.name}. {number} Not verified by a physician. {scope(finding)} {RESEARCH}"
        case Verdict.NEGATIVE:
            return (
                f"AI: {finding.name}. {number} Not verified by a physician. {scope(finding)} "
                f"This does not mean that the radiograph is normal. {RESEARCH}"
            )
        case Verdict.INDETERMINATE:
            why = f"The AI gives no answer: {doubt_phrase(finding)}."
            return f"AI: {finding.name}. {why} Human reading required. {RESEARCH}"
        case Verdict.REJECTED:
            raise ValueError("a REJECTED radiograph has no finding")


def doubt_phrase(finding: Finding) -> str:
    """Say why there is no answer; with the number only where the verdict rests on it."""
    reason, point = finding.decision.abstain_reason, finding.identity.operating_point
    if reason is None:
        raise ValueError("only UNCERTAIN has an abstain reason")
    if reason is not AbstainReason.BETWEEN_THRESHOLDS:
        return ABSTAIN_REASONS[reason]
    low, high = (threshold_text(value, point) for value in (point.rule_out_below, point.report_at))
    stated = f"{of_finding(finding)} {stated_text(finding)}"
    return f"{stated}, {ABSTAIN_REASONS[reason]} ({low} and {high})"


def not_analysed(rejected: Rejected) -> str:
    """Write the one line of the note about an image that was not analysed; it says nothing of the patient's lungs."""
    begins, ends = NOT_ANALYSED_LINE
    return f"{begins}{within(rejected.sentence)}{ends}"


def within(sentence: str) -> str:
    """Put a sentence after a dash or a colon of another one."""
    because = plain(sentence).strip().rstrip(".")
    return f"{because[:1].lower()}{because[1:]}"


def banner(finding: Finding) -> Banner:
    """Write the head of the picture."""
    title = finding.name.upper()
    if finding.decision.verdict is Verdict.POSITIVE:
        number = stated_text(finding) or ""
        return Banner(title=title, subtitle=f"Not verified by a physician. {scope(finding)}", number=number)
    if finding.decision.verdict is Verdict.NEGATIVE:
        return Banner(title=title, subtitle="Not verified. Does not mean that the image is normal.")
    cause = ABSTAIN_REASONS[finding.decision.abstain_reason or AbstainReason.BETWEEN_THRESHOLDS]
    return Banner(title=title, subtitle=f"AI gives no answer: {cause}.")


def certainty_line(finding: Finding) -> str:
    """State the certainty or the score, or that none is."""
    said = of_finding(finding)
    return f"{said[:1].upper()}{said[1:]}: {stated_text(finding) or 'not stated'}"


def thresholds_line(point: OperatingPoint) -> str:
    """State both thresholds."""
    return f"Thresholds: {', '.join(threshold_labels(point))}.{SCORES if point.scale is Scale.SCORE else ''}"


def score_heading(finding: Finding) -> str | None:
    """Introduce the highest of many scored findings; None where one finding is judged alone."""
    count = len(finding.prediction.probability)
    if not coded_findings.are_scored(finding):
        return None
    if not is_stated(finding):
        return f"The other {count - 1} findings: not stated."
    return f"Highest of {count} findings (0.5 is the model's operating point for each):"


def listing(finding: Finding) -> list[str]:
    """Lines of a picture: what is listed, and the findings that stand highest, three and two; none for one finding."""
    heading, names = score_heading(finding), coded_findings.highest(finding)
    return [] if heading is None else [heading, *(", ".join(part) for part in (names[:3], names[3:]) if part)]


def series_description(
    kind: ResultKind, finding: Finding, *, shows_map: bool, numbered: bool = True, mark: str = ""
) -> str:
    """Name a series. LO: at most 64 characters.

    Of report and picture the verdict first, for lists cut after some 18 characters; a number for a positive alone, and
    only where there is room; none where it holds of one of several images (`numbered`). Before all of it the `mark`
    that the rule of a worklist looks for; "(research)" is never cut.
    """
    if kind is ResultKind.NOT_ANALYSED:
        return NOT_ANALYSED_SERIES
    if SHAPES[kind].series:  # a name that says no verdict can contradict none
        return marked(mark, f"AI {SHAPES[kind].series} (research)")
    number = ""
    if numbered and finding.decision.verdict is Verdict.POSITIVE and certainty(finding) is not None:
        number = (stated_text(finding) or "").replace("above ", ">").replace("below ", "<").replace(" %", "%")
    pictures = (ResultKind.HEATMAP, ResultKind.FRAMES)
    what = ("Grad-CAM" if shows_map else "picture") if kind in pictures else ""
    parts = [f"AI: {finding.name}", number, what, "frames" if kind is ResultKind.FRAMES else "", "(research)"]
    named = marked(mark, " ".join(part for part in parts if part))
    if number and len(named) > _LO_MAX_CHARS:
        named = named.replace(f" {number}", "", 1)
    return named if len(named) <= _LO_MAX_CHARS or not what else named.replace(f" {what}", "", 1)


def marked(mark: str, named: str) -> str:
    """Put the mark before the name of a series."""
    return f"{mark} {named}" if mark else named


def shared_series_description(kind: ResultKind) -> str:
    """Name a series of pictures that the images of a study share: no verdict holds of all of them."""
    return f"AI {SHAPES[kind].series or _PICTURES[kind]} (research)"


def report_finding(finding: Finding) -> str:
    """Write the one line under Findings."""
    match finding.decision.verdict:
        case Verdict.POSITIVE:
            said = f"{finding.target.finding[:1].upper()}{finding.target.finding[1:]} suspected"
        case Verdict.NEGATIVE:
            said = f"No {finding.target.finding} detected"
        case Verdict.INDETERMINATE | Verdict.REJECTED:
            said = "UNCERTAIN: the AI gives no answer"
    number = stated_text(finding)
    return f"{said}." if number is None else f"{said} ({of_finding(finding)} {number})."


def report_scores(finding: Finding) -> list[str]:
    """Lines under the findings that are scored and not asserted; none where one finding is judged alone."""
    heading = score_heading(finding)
    ranked = [f"{place}. {line}" for place, line in enumerate(coded_findings.highest(finding), 1)]
    return [] if heading is None else [heading, *ranked]


def report_technique(
    finding: Finding, radiograph: Radiograph, series_numbers: Mapping[ResultKind, int], product: str, *, shows_map: bool
) -> list[str]:
    """Lines under Technique: what was looked at, with what, and where to find the rest."""
    lines = [view_line(radiograph.view), thresholds_line(finding.identity.operating_point)]
    if shows_map:
        lines.append(f"Heat map (Grad-CAM): series {series_numbers[ResultKind.HEATMAP]}.")
    if finding.decision.verdict is Verdict.POSITIVE and ResultKind.MEASUREMENTS in series_numbers:
        lines.append(f"Region (coded): series {series_numbers[ResultKind.MEASUREMENTS]}.")
    return [*lines, model_line(finding, product)]


def report_limitations(finding: Finding, radiograph: Radiograph, *, shows_map: bool) -> list[str]:
    """Lines under Limitations: what a reader must not take the result for."""
    return [
        f"{FOOTER} Not verified by a physician; read the radiograph itself.",
        _nothing_else(finding),
        *(["The heat map shows where the network looked, not the outline of a lesion."] if shows_map else []),
        *(plain(remark) for remark in radiograph.remarks),
        *([UNMEASURED] if finding.identity.operating_point.max_distance is None else []),
    ]


def model_line(finding: Finding, product: str) -> str:
    """Name the model to the byte."""
    identity = finding.identity
    return plain(f"Model {identity.profile} {identity.version}, weights {identity.weights_sha256[:12]}, {product}.")


def page_limits(finding: Finding, radiograph: Radiograph) -> list[str]:
    """What a reader of the printed page must not take it for, in the order of how much harm that would do."""
    limits = [f"{FOOTER} No physician has verified this page.", _nothing_else(finding)]
    match finding.decision.verdict:
        case Verdict.POSITIVE:
            limits.append(f"A suspicion is not a diagnosis. The map shows {LOOKED[0].lower()}{LOOKED[1:]}")
        case Verdict.NEGATIVE:
            limits.append("This does not mean that the radiograph is normal or that the patient is well.")
        case Verdict.INDETERMINATE | Verdict.REJECTED:
            sides = f"neither for nor against {finding.target.finding}"
            limits.append(f"UNCERTAIN is not an answer: it speaks {sides}. Human reading required.")
    limits += [plain(remark) for remark in radiograph.remarks]
    if finding.identity.operating_point.max_distance is None:
        limits.append(UNMEASURED)
    limits.append("Printed images are not of diagnostic quality; read the radiograph itself.")
    return limits


def view_line(view: View) -> str:
    """State the projection, and how sure that is."""
    return "Projection: not stated in the header." if view is View.UNKNOWN else f"Projection: {view.value}."


def point_word(point: OperatingPoint) -> str:
    """Say what the numbers are."""
    return "score" if point.scale is Scale.SCORE else "certainty"


def of_finding(finding: Finding) -> str:
    """Say what the number is one of."""
    return f"{point_word(finding.identity.operating_point)} of {finding.target.finding}"


def scope(finding: Finding) -> str:
    """Say what was looked for, and that it was nothing else."""
    about = "The verdict concerns" if coded_findings.are_scored(finding) else "Assessed for"
    return f"{about} {finding.target.finding} only."


def _nothing_else(finding: Finding) -> str:
    scored = coded_findings.are_scored(finding)
    return f"{scope(finding)} {'Other findings are scored, not asserted.' if scored else 'Nothing else was evaluated.'}"
