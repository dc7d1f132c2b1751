"""Our own check of the note about an image that was not analysed: it must say so, and nothing that reads as a result.

Written down a second time, as `verify_rows` is.

Clauses: PS3.3 C.17.2 (status); PS3.16 TID 2000, 1002, 1204.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxr_node.dicom.own_identity import IMPLEMENTATION_CLASS_UID
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results.context import Context
from cxr_node.dicom.results.sr_items import Relation
from cxr_node.dicom.verify import header, single_field
from cxr_node.dicom.verify.facts import Document, equipment
from cxr_node.dicom.verify.plain import Plain, read, text
from cxr_node.dicom.verify.rules import Flaw, Rule
from cxr_node.dicom.verify.tree import Item, Report, Row, compare, tree, triple
from cxr_node.dicom.words.wording import NOT_ANALYSED_SERIES, not_analysed
from cxr_node.domain import Artifact, Rejected, ResultKind, Verdict
from cxr_node.errors import InstanceError, UnsoundResultError

SERIES_NUMBER = "9108"
_BASIC_TEXT = "1.2.840.10008.5.1.4.1.1.88.11"
_LINE = re.compile(r"AI: not analysed - .+\. No answer was given\. Research use only\.")
_ATTRIBUTES = {
    "SOPClassUID": _BASIC_TEXT, "Modality": "SR", "SeriesNumber": SERIES_NUMBER, "InstanceNumber": "1",
    "InstanceCreatorUID": IMPLEMENTATION_CLASS_UID,
}  # fmt: skip
_STATUS = {
    "ContentQualification": "RESEARCH", "CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED",
    "PreliminaryFlag": "PRELIMINARY",
}  # fmt: skip
_TITLE = Code("18748-4", "LN", "Diagnostic Imaging Report")
_SUMMARY = Code("121111", "DCM", "Summary")


def is_note(dataset: Plain) -> bool:
    """Tell a note from a report, which has the same SOP Class: by the number or the name of its series."""
    named = {text(dataset, "SeriesNumber").strip(), text(dataset, "SeriesDescription")}
    return text(dataset, "SOPClassUID") == _BASIC_TEXT and bool(named & {SERIES_NUMBER, NOT_ANALYSED_SERIES})


def require_sound(artifact: Artifact, context: Context, rejected: Rejected) -> None:
    """Let no note pass that breaks a rule.

    Raises
    ------
    UnsoundResultError : with the codes and places of its flaws; no patient data.
    """
    flaws: list[Flaw] = []

    def report(rule: Rule, where: str) -> None:
        flaws.append(Flaw(rule=rule, document=str(artifact.kind), where=where))

    try:
        parsed = read(artifact.content)
    except InstanceError as error:
        raise UnsoundResultError("the note is not readable") from error
    document = Document(name=str(artifact.kind), kind=None, parsed=parsed, root=tree(parsed.dataset))
    named = [text(document.dataset, keyword) for keyword in ("SOPInstanceUID", "SeriesInstanceUID")]
    if named != [artifact.sop_instance_uid, context.series_uid(ResultKind.NOT_ANALYSED)]:
        report(Rule.UID, "SOPInstanceUID")
    header.check_identity(document, context.source, report, is_fresh=True)
    check(document, context.source, report, line=not_analysed(rejected))
    if flaws:
        raise UnsoundResultError("; ".join(f"{flaw.document}: {flaw.rule} [{flaw.where}]" for flaw in flaws))


def check(document: Document, source: Source | None, report: Report, *, line: str | None = None) -> None:
    """Check what a note must say, and that no field of it reads as a result.

    `line` : what it says; None where that is not known
    """
    dataset = document.dataset
    for rule, expected in ((Rule.ATTRIBUTE, _ATTRIBUTES), (Rule.STATUS, _STATUS)):
        for keyword, value in expected.items():
            if text(dataset, keyword).strip() != value:
                report(rule, keyword)
    if text(dataset, "SeriesDescription") != NOT_ANALYSED_SERIES:
        report(Rule.DESCRIPTION, "SeriesDescription")
    _check_content(document.root, equipment(dataset), source, line, report)
    readings = [*single_field.of_header(dataset), *single_field.of_content(document.root)]
    for reading in readings:
        if Verdict.NEGATIVE in reading.says:
            report(Rule.READS_NEGATIVE, reading.where)
        if Verdict.POSITIVE in reading.says:
            report(Rule.READS_POSITIVE, reading.where)
        if Verdict.INDETERMINATE in reading.says:
            report(Rule.VERDICT, reading.where)


def _check_content(root: Item, ours: Plain, source: Source | None, line: str | None, report: Report) -> None:
    """TID 2000 with one line."""
    if root.value_type != "CONTAINER" or root.name[:2] != triple(_TITLE)[:2]:
        report(Rule.TITLE, "ConceptNameCodeSequence")
        return
    of_image = Row(
        rule=Rule.SOURCE, relation=Relation.INFERRED_FROM, value_type="IMAGE", name=codes.DCM.SourceOfMeasurement,
        value=None if source is None else (source.ref.sop_class_uid, source.ref.sop_instance_uid),
    )  # fmt: skip
    summary = Row(
        rule=Rule.SUMMARY, relation=Relation.CONTAINS, value_type="TEXT", name=_SUMMARY, rows=(of_image,),
        value=line or _is_line,
    )  # fmt: skip
    section = Row(rule=Rule.SECTION, relation=Relation.CONTAINS, value_type="CONTAINER", name=_SUMMARY, rows=(summary,))
    whole = Row(
        rule=Rule.TITLE, relation=None, value_type="CONTAINER", name=_TITLE, value="DCMR 2000",
        rows=(*_language_and_observer(ours), section),
    )  # fmt: skip
    compare(root, whole, report)


def _language_and_observer(ours: Plain) -> Iterator[Row]:
    language = codes.DCM.LanguageOfContentItemAndDescendants
    english = triple(Code("en", "RFC5646", "English"))
    yield Row(rule=Rule.LANGUAGE, relation=Relation.HAS_CONCEPT_MOD, value_type="CODE", name=language, value=english)
    for value_type, concept, value in (
        ("CODE", codes.DCM.ObserverType, triple(Code("121007", "DCM", "Device"))),
        ("UIDREF", codes.DCM.DeviceObserverUID, text(ours, "DeviceUID")),
        ("TEXT", codes.DCM.DeviceObserverName, _is_ours),
    ):
        yield Row(
            rule=Rule.OBSERVER, relation=Relation.HAS_OBS_CONTEXT, value_type=value_type, name=concept, value=value
        )


def _is_line(value: str) -> bool:
    return _LINE.fullmatch(value) is not None


def _is_ours(value: str) -> bool:
    return value.startswith("cxr_node ")
