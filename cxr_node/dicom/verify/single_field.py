"""Fields of a result read one at a time, as a hasty reader or a simple program reads them.

Whoever looks at one field only must never take UNCERTAIN for the absence of the finding, nor NORMAL for its presence.
Deliberately ignorant of how results are made: words and codes are judged by what they say to a stranger.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cxr_node.dicom.results.sr_items import Relation
from cxr_node.dicom.verify.plain import Plain, text
from cxr_node.dicom.verify.rules import Rule
from cxr_node.dicom.verify.tree import Item, Report, walk
from cxr_node.domain import PNEUMONIA, Target, Verdict

_ABSTAINS = re.compile(r"\buncertain\b|\babstains?\b|\bundetermined\b|\bindeterminate\b", re.IGNORECASE)
_NEGATIVE = (
    r"\b(no|not|without|absen\w+|free) (of |any |signs? of |evidence of )*{finding}\b"
    r"|\b{finding} (is )?(absent|not|excluded)"
    r"|\bnormal\b|\bnegative\b|\bunremarkable\b|\bwithout findings\b|\bno findings?\b|\bhealthy\b|\bclear lungs\b"
)
_POSITIVE = (
    r"(?<!no )(?<!not )\b{finding} (is )?(suspected|detected|present|found|likely|positive)\b|^(ai: )?{finding}\b"
    r"|\bwith findings\b|\bpositive\b"
)
_CODES = {
    ("52101004", "SCT"): Verdict.POSITIVE,  # Present
    ("272519000", "SCT"): Verdict.NEGATIVE,  # Absent
    ("373068000", "SCT"): Verdict.INDETERMINATE,  # Undetermined
    ("111241", "DCM"): Verdict.NEGATIVE,  # All algorithms succeeded; without findings
    ("111242", "DCM"): Verdict.POSITIVE,  # All algorithms succeeded; with findings
    ("111243", "DCM"): Verdict.POSITIVE,  # Not all algorithms succeeded; with findings
    ("111244", "DCM"): Verdict.NEGATIVE,  # Not all algorithms succeeded; without findings
    ("111245", "DCM"): Verdict.NEGATIVE,  # No algorithms succeeded; without findings
}
_FINDING, _PROCESSING = ("121071", "DCM"), ("111017", "DCM")
_ABOUT_THE_ANSWER = frozenset({("272394005", "SCT"), ("limitation", "99CXRNODE")})
"""Technique and limitations: who spoke may be called anything ("normal-chest"), and what was not said is said there."""
_STATEMENTS = frozenset({("121073", "DCM"), ("121111", "DCM")})  # Impression, Summary
_HEADER_TEXTS = ("SeriesDescription", "ImageComments", "DocumentTitle", "ContentDescription")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one field says of the patient to somebody who reads nothing else."""

    where: str
    says: frozenset[Verdict]
    is_statement: bool
    """Whether the field is meant to tell the verdict; others must only not contradict it."""


def of_header(dataset: Plain, target: Target = PNEUMONIA) -> Iterator[Reading]:
    """Read the texts of a header."""
    for keyword in _HEADER_TEXTS:
        said = text(dataset, keyword)
        if said:
            yield Reading(keyword, of_text(said, target), keyword == "SeriesDescription")


def of_content(root: Item, target: Target = PNEUMONIA) -> Iterator[Reading]:
    """Read every content item that speaks of the patient.

    Who speaks may be called anything ("normal-chest"): context, modifiers, technique and limitations are left to
    `verify_rows`.
    A certainty's own modifier says of what, not whether.
    """
    modifiers = {id(child) for item in walk(root) if item.value_type == "NUM" for child in item.children}
    for item in walk(root):
        name = item.name[:2]
        if item.value_type == "TEXT" and item.relation == Relation.CONTAINS and name not in _ABOUT_THE_ANSWER:
            yield Reading(item.name[2], of_text(str(item.value), target), name in _STATEMENTS)
        elif item.value_type == "CODE" and id(item) not in modifiers:
            value = item.value[:2]
            if name == _FINDING and value == target.code[:2]:
                yield Reading(item.name[2], frozenset({Verdict.POSITIVE}), True)
            elif value in _CODES:
                yield Reading(item.name[2], frozenset({_CODES[value]}), name in (target.code[:2], _PROCESSING))


@functools.cache
def _patterns(finding: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What reads as negative, and what as positive."""
    of = re.escape(finding)
    negative, positive = (re.compile(each.format(finding=of), re.IGNORECASE) for each in (_NEGATIVE, _POSITIVE))
    return negative, positive


def of_text(said: str, target: Target = PNEUMONIA) -> frozenset[Verdict]:
    """Verdicts that a text can be taken to state; none for most lines."""
    negative, positive = _patterns(target.finding)
    found = {
        Verdict.INDETERMINATE: _ABSTAINS.search(said),
        Verdict.NEGATIVE: negative.search(said),
        Verdict.POSITIVE: positive.search(said),
    }
    return frozenset(verdict for verdict, match in found.items() if match)


def contradictions(readings: list[Reading], verdict: Verdict, report: Report) -> None:
    """Report every field that, read alone, says another verdict than the result's."""
    for reading in readings:
        if verdict is not Verdict.NEGATIVE and Verdict.NEGATIVE in reading.says:
            report(Rule.READS_NEGATIVE, reading.where)
        if verdict is not Verdict.POSITIVE and Verdict.POSITIVE in reading.says:
            report(Rule.READS_POSITIVE, reading.where)
        if reading.is_statement and reading.says and verdict not in reading.says:
            report(Rule.VERDICT, reading.where)
