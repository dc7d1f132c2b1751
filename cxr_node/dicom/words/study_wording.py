"""Every sentence of a report about several images, or about a study of which something was not analysed.

Each image has a number and a line of its own, also the one that was not analysed: silence reads as negative. What is
said of all of them is said once. No numbers are averaged, and no images compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cxr_node.dicom.words.names import ABSTAIN_REASONS
from cxr_node.dicom.words.rounding import stated_text
from cxr_node.dicom.words.wording import RESEARCH, of_finding, plain, report_finding, scope, within
from cxr_node.domain import Finding, Verdict, View
from cxr_node.outcome import NotAnalysed

REPLACES = "This report replaces the earlier one of this study. "
NOT_COMPARED = "This report does not compare the two."
_LABEL = re.compile(r"Image (\d+)(?: \([^)]*\))?: ")
_EARLIER = "Earlier radiograph"


def label(number: int, view: View | None, series_number: int | None, instance_number: int | None) -> str:
    """Name an image by its number in the report, and by those that a viewer shows; `view` of an analysed one."""
    known = [
        *([] if view is None else ["projection not stated" if view is View.UNKNOWN else view.value]),
        *([] if series_number is None else [f"series {series_number}"]),
        *([] if instance_number is None else [f"image {instance_number}"]),
    ]
    return f"Image {number} ({', '.join(known)}): " if known else f"Image {number}: "


def place(numbers: Mapping[str, int]) -> str:
    """Name an image on its picture, where its number in the report is not known yet: "Series 2, image 1."."""
    return f"{', '.join(f'{name} {number}' for name, number in numbers.items())}.".capitalize() if numbers else ""


def numbered(line: str) -> tuple[int | None, str]:
    """Split a line into the number of the image that it is about, and what it says; None: of all images."""
    found = _LABEL.match(line)
    return (int(found[1]), line[found.end() :]) if found else (None, line)


def together(lines: Mapping[int, Sequence[str]]) -> list[str]:
    """Join the lines of several images, by their numbers: what is said of all of them once, the others numbered."""
    common = [line for line in next(iter(lines.values()), ()) if all(line in other for other in lines.values())]
    own = [f"Image {number}: {line}" for number, its in lines.items() for line in its if line not in common]
    return [*common, *own] if len(lines) > 1 else list(*lines.values())


def summary(findings: Mapping[int, Finding], verdict: Verdict, total: int) -> str:
    """Write the sentence that stands for a study, verdict first.

    Parameters
    ----------
    findings : of the analysed images, by their numbers in the report
    total : of all images listed
    """
    left_out = total - len(findings)
    if not findings:
        what = "the image of this study was not analysed" if total == 1 else f"none of the {total} images was analysed"
        return f"AI: UNCERTAIN. The AI gives no answer: {what}. Human reading required. {RESEARCH}"
    decisive = [number for number, each in findings.items() if each.decision.verdict is verdict]
    finding, silent = findings[decisive[0]], ""
    if left_out:
        silent = f"{left_out} of {total} images {'was' if left_out == 1 else 'were'} not analysed. "
    doubtful = [number for number, each in findings.items() if each.decision.verdict is Verdict.INDETERMINATE]
    no_answer = f"The AI gives no answer for {_images(doubtful)}. " if doubtful else ""
    unverified = f"Not verified by a physician. {scope(finding)}"
    match verdict:
        case Verdict.POSITIVE:
            return f"AI: {finding.name} in {_images(decisive)}. {no_answer}{silent}{unverified} {RESEARCH}"
        case Verdict.NEGATIVE:
            where = _images(decisive)
            denied = "This does not mean that the radiographs are normal."
            return f"AI: {finding.name} in {where}. {silent}{unverified} {denied} {RESEARCH}"
        case _:
            return f"AI: {finding.name}. {no_answer}{silent}Human reading required. {RESEARCH}"


def finding_line(finding: Finding) -> str:
    """Write the line of one of several images; the reason of a doubt stands nowhere else."""
    reason = finding.decision.abstain_reason
    if reason is None:
        return report_finding(finding)
    number = stated_text(finding)
    stated = "" if number is None else f" ({of_finding(finding)} {number})"
    return f"{finding.name}, {ABSTAIN_REASONS[reason]}{stated}."


def not_analysed_line(image: NotAnalysed) -> str:
    """Say why an image was not analysed."""
    return f"not analysed - {within(image.sentence)}."


def prior_line(day: str, view: View, finding: Finding) -> str:
    """Say what is said of an earlier radiograph, without a comparison.

    `day` : Study Date as it stands in the header, "" where there is none
    """
    taken = f"of {day[:4]}-{day[4:6]}-{day[6:]}" if re.fullmatch(r"\d{8}", day) else "of unknown date"
    projection = "projection not stated" if view is View.UNKNOWN else view.value
    return plain(f"{_EARLIER} {taken} ({projection}): {finding_line(finding)} {NOT_COMPARED}")


def _images(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"image {numbers[0]}"
    return f"images {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
