"""Fields of a result read one at a time, as a hasty reader or a simple program reads them.

A reader who looks at one field only must never take UNCERTAIN for "absent", nor NORMAL for "present".
Deliberately ignorant of how results are made: words and codes are judged by what they say to a stranger.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cxr_node.dicom.results.sr_items import Relation
from cxr_node.dicom.verify.plain import Item, Plain
from cxr_node.dicom.verify.rules import Report, Rule
from cxr_node.dicom.words import coded_findings
from cxr_node.domain import Verdict

_ABSTAINS = re.compile(r"\buncertain\b|\babstains?\b|\bundetermined\b|\bindeterminate\b", re.IGNORECASE)
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
_PRESENCE = frozenset(value for value in _CODES if value[1] == "SCT")
_NAMES_IT = re.compile(r"\bno (.+?) detected\b|: (.+?) suspected\b", re.IGNORECASE)  # as `domain.Target.name`
_FINDING = ("121071", "DCM")
_ABOUT_THE_ANSWER = frozenset({("272394005", "SCT"), ("limitation", "99CXRNODE")})
"""Technique and limitations: the algorithm may have any name ("normal-chest"); limitations say what was not said."""
_STATEMENTS = frozenset({("121073", "DCM"), ("121111", "DCM"), ("113012", "DCM")})
"""Impression, Summary, Key Object Description."""
_TEXTS = frozenset(
    {
        "SeriesDescription", "ImageComments", "DocumentTitle", "ContentDescription", "UnformattedTextValue",
        "SegmentLabel", "SegmentDescription", "GraphicLayerDescription", "DerivationDescription",
    }
)  # fmt: skip


class FieldStatement(NamedTuple):
    """What one field says of the patient to somebody who reads nothing else."""

    where: str
    says: frozenset[Verdict]
    is_statement: bool
    """Whether the field is meant to state the verdict; others must only not contradict it."""


def of_header(dataset: Plain, judged: str = "") -> Iterator[FieldStatement]:
    """Read the texts of a header, at every depth but that of the content tree."""
    for keyword, value in dataset.items():
        if isinstance(value, str):
            if value and keyword in _TEXTS:
                yield FieldStatement(keyword, of_text(value, judged), keyword == "SeriesDescription")
        elif keyword != "ContentSequence":
            for item in value:
                yield from of_header(item, judged)


def of_content(content: Iterable[Item], judged: str = "") -> Iterator[FieldStatement]:
    """Read every content item that speaks of the patient.

    Context, modifiers, technique and limitations do not; a certainty's own modifier says of what, not whether.
    """
    for item in content:
        name = item.name[:2]
        if item.value_type == "TEXT" and item.relation == Relation.CONTAINS and name not in _ABOUT_THE_ANSWER:
            yield FieldStatement(item.name[2], of_text(item.value, judged), name in _STATEMENTS)
        elif item.value_type == "CODE" and item.parent != "NUM":
            if name == _FINDING:
                yield FieldStatement(item.name[2], frozenset({Verdict.POSITIVE}), True)
            elif item.value[:2] in _CODES:
                yield FieldStatement(item.name[2], frozenset({_CODES[item.value[:2]]}), True)


def judged(dataset: Plain, content: Iterable[Item]) -> str:
    """Finding that an object is about: what is coded as present or absent, else what the series is called."""
    for item in content:
        if item.value_type == "CODE" and item.value[:2] in _PRESENCE:
            return item.name[2].casefold()
    named = _NAMES_IT.search(str(dataset.get("SeriesDescription", "")))
    return next(filter(None, named.groups()), "").casefold() if named else ""


def of_text(said: str, judged: str = "") -> frozenset[Verdict]:
    """Verdicts that a text can be taken to state; none for most lines.

    `judged` : words of the finding in question, where it may be one that has no name here
    """
    negative, positive = _patterns(judged)
    found = {Verdict.INDETERMINATE: _ABSTAINS, Verdict.NEGATIVE: negative, Verdict.POSITIVE: positive}
    return frozenset(verdict for verdict, pattern in found.items() if pattern.search(said))


def contradictions(statements: Iterable[FieldStatement], verdict: Verdict, report: Report) -> None:
    """Report every field that, read alone, says another verdict than the result's."""
    for where, says, is_statement in statements:
        if verdict is not Verdict.NEGATIVE and Verdict.NEGATIVE in says:
            report(Rule.READS_NEGATIVE, where)
        if verdict is not Verdict.POSITIVE and Verdict.POSITIVE in says:
            report(Rule.READS_POSITIVE, where)
        if is_statement and says and verdict not in says:
            report(Rule.VERDICT, where)


@functools.cache
def _patterns(judged: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What says "absent", and what says "present", of any finding that has a name."""
    names = sorted({*coded_findings.names(), judged} - {""}, key=len, reverse=True)
    finding = f"(?:{'|'.join(map(re.escape, names))})"
    negative = (
        rf"\b(no|not|without|absen\w+|free) (of |any |signs? of |evidence of )*{finding}\b"
        rf"|\b{finding} (is )?(absent|not|excluded)"
        r"|\bnormal\b|\bnegative\b|\bunremarkable\b|\bwithout findings\b|\bno findings?\b|\bhealthy\b|\bclear lungs\b"
    )
    positive = (
        rf"(?<!no )(?<!not )\b{finding} (is )?(suspected|detected|present|found|likely|positive)\b"
        rf"|^(ai: )?{finding}\b|\bwith findings\b|\bpositive\b"
    )
    return re.compile(negative, re.IGNORECASE), re.compile(positive, re.IGNORECASE)
