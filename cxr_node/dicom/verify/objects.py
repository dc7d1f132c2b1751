"""The result objects of one answer, each alone and all together, against what they must say.

The caller knows that; where nobody does, what most of them say is right.
PS3.3 C.12.1, C.17.2, table 10-4; PS3.5 9.1, B.2; PS3.10 7.1.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from cxr_node.dicom.part10 import IMPLEMENTATION_CLASS_UID
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.verify import claims, single_field
from cxr_node.dicom.verify.claims import DOCUMENTS, EVIDENCE, PICTURES, PREDECESSORS, REPORTS, Claim, Document
from cxr_node.dicom.verify.plain import items, listed, text
from cxr_node.dicom.verify.rules import Flaw, Report, Rule
from cxr_node.domain import Verdict
from cxr_node.result_kinds import SHAPES, ResultKind

_OF_POSITIVES = frozenset({ResultKind.PRESENTATION_STATE, ResultKind.SEGMENTATION, ResultKind.KEY_OBJECT})
"""Kinds whose mere presence says "look here"."""
_STATUS = {"CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED", "PreliminaryFlag": "PRELIMINARY"}
_BY_A_PERSON = frozenset({"VerifyingObserverSequence", "VerifyingObserverName", "VerificationDateTime"})
_NOT_IN_PICTURES = frozenset(
    {"PixelSpacing", "ImagerPixelSpacing", "ViewPosition", "Laterality", "FrameOfReferenceUID"}
)
"""Lengths and places, which are not true of a picture."""
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "StudyDate",
    "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_MUST_SAY = {
    ResultKind.REPORT: ("summary", "thresholds"),
    ResultKind.MEASUREMENTS: ("summary", "threshold.rule_out", "threshold.report", "weights.sha256", "config.sha256"),
    ResultKind.KEY_OBJECT: ("summary",),
    ResultKind.NOT_ANALYSED: ("summary",),
}  # fmt: skip
_RULES = {"summary": Rule.SUMMARY, "source": Rule.SOURCE}
_OUR_UID = re.compile(r"2\.25\.[1-9]\d{0,38}")  # PS3.5 B.2: a UUID as one number
_NATIVE = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)  # PS3.5 A.1 to A.5
_JPEG = "1.2.840.10008.1.2.4.50"
_MAX_DIGITS = 12  # of an IS (PS3.5 6.2)
_SLACK = 1e-8  # of a probability that is known only as its object states it
_LEAST = 0.1001  # percent; below it and as close to 100, people and machines read limits of their own
_TENTH = 0.0501  # half a tenth of a percent, and the rounding of that


def check(
    documents: list[Document], expected: Mapping[str, Any], source: Source | None, verdict: Verdict, flaws: list[Flaw]
) -> None:
    """Find what is wrong with the results of one answer.

    `expected` : by what a claim is about, what every object must claim; what is missing is decided by most of them
    `verdict` : that of the answer; REJECTED for notes
    """
    said = [(document, list(claims.of(document))) for document in documents]
    agreed = {**agreed_on(said, expected), **claims.FIXED, **expected}
    for document, its in said:
        report = reporter(document.name, flaws)
        check_object(document, report)
        for claim in its:
            if claim.value != agreed[claim.about]:
                report(claim.rule, claim.where)
        _check_complete(document, {claim.about for claim in its}, report)
        check_references(document, its, documents, source, report)
        _check_statements(document, verdict, agreed.get("judged", ""), report)
    check_uids(documents, source, flaws)
    if documents and verdict is not Verdict.REJECTED:
        check_numbers(agreed, verdict, reporter(documents[0].name, flaws))


def statements(document: Document, judged: str) -> list[single_field.FieldStatement]:
    """What every field of an object says to somebody who reads nothing else; `judged` as in `single_field`."""
    dataset, content = document.dataset, document.content
    found = [*single_field.of_header(dataset, judged), *single_field.of_content(content, judged)]
    if document.kind in _OF_POSITIVES:
        found.append(single_field.FieldStatement(str(document.kind), frozenset({Verdict.POSITIVE}), True))
    return found


def judged(documents: Iterable[Document]) -> str:
    """Finding that most of these objects say they are about; "" where none says."""
    found = [words for each in documents if (words := single_field.judged(each.dataset, each.content))]
    return max(found, key=found.count) if found else ""


def names(document: Document) -> tuple[str, str, str]:
    """SOP Class, Series and SOP Instance UID of an object."""
    of = document.dataset
    return text(of, "SOPClassUID"), text(of, "SeriesInstanceUID"), text(of, "SOPInstanceUID")


def reporter(name: str, flaws: list[Flaw]) -> Report:
    """Collect the flaws of one document."""
    return lambda rule, where: flaws.append(Flaw(rule=rule, document=name, where=where))


def equal(dataset: Mapping[str, Any], expected: Mapping[str, str], rule: Rule, report: Report) -> None:
    """Report what is missing or has another value."""
    for keyword, value in expected.items():
        said = dataset.get(keyword)
        if not value or not isinstance(said, str) or said.strip() != value:
            report(rule, keyword)


def agreed_on(said: list[tuple[Document, list[Claim]]], expected: Mapping[str, Any]) -> dict[str, Any]:
    """What most of them claim, of what is not expected."""
    values: dict[str, list[Any]] = defaultdict(list)
    for _, its in said:
        for claim in its:
            if claim.about not in expected:
                values[claim.about].append(claim.value)
    return {about: max(found, key=found.count) for about, found in values.items()}


def check_object(document: Document, report: Report) -> None:
    """UIDs, file meta information, class, status and size: what holds whatever the answer."""
    dataset, kind = document.dataset, document.kind
    _check_names(document, report)
    shape = SHAPES[kind] if kind else None
    if kind is None or shape is None or text(dataset, "SOPClassUID") not in (shape.sop_class_uid, *shape.alternatives):
        report(Rule.SOP_CLASS, "SOPClassUID")
        return
    own = {"InstanceCreatorUID": IMPLEMENTATION_CLASS_UID}
    own |= {} if claims.is_shared(document) else {"InstanceNumber": "1"}
    own |= {"SeriesNumber": str(shape.series_number)} | ({"Modality": shape.modality} if shape.modality else {})
    equal(dataset, own, Rule.ATTRIBUTE, report)
    status = _STATUS if kind in REPORTS else {"VerificationFlag": "UNVERIFIED"} if kind is ResultKind.PDF else {}
    equal(dataset, {"ContentQualification": "RESEARCH", **status}, Rule.STATUS, report)
    unsigned = _BY_A_PERSON if status else _BY_A_PERSON | {"VerificationFlag"}
    forbidden = {Rule.STATUS: unsigned, Rule.ATTRIBUTE: _NOT_IN_PICTURES if kind in PICTURES else ()}
    for rule, keywords in forbidden.items():
        for keyword in dataset.keys() & keywords:
            report(rule, keyword)
    if kind in PICTURES or kind is ResultKind.SEGMENTATION:
        _check_pixels(document, report)
    if kind is ResultKind.PDF:
        page, said = text(dataset, "EncapsulatedDocument"), text(dataset, "EncapsulatedDocumentLength")
        if not page.startswith("%PDF-") or said not in (str(len(page)), str(len(page) - 1)):
            report(Rule.ATTRIBUTE, "EncapsulatedDocument")


def _check_names(document: Document, report: Report) -> None:
    dataset, meta = document.dataset, document.parsed.meta
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        if _OUR_UID.fullmatch(text(dataset, keyword)) is None:
            report(Rule.UID, keyword)
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        equal(meta, {f"MediaStorage{keyword}": text(dataset, keyword)}, Rule.FILE_META, report)
    for keyword in _TYPE_2:
        if keyword not in dataset:
            report(Rule.PATIENT_AND_STUDY, keyword)


def _check_pixels(document: Document, report: Report) -> None:
    """As much pixel data as the attributes say; of a segmentation one frame a segment, numbered from 1.

    Where an object was compressed on its way, that there is any, and that it says so where some was lost (C.7.6.1.1.5).
    """
    dataset, size_bits = document.dataset, 1
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames"):
        said = text(dataset, keyword).strip() or ("1" if document.kind is ResultKind.HEATMAP else "")
        size_bits *= int(said) if said.isdecimal() and len(said) <= _MAX_DIGITS else 0
    size_bytes = -(-size_bits // 8)
    syntax = text(document.parsed.meta, "TransferSyntaxUID").rstrip("\0 ")
    found_bytes = document.parsed.pixel_bytes
    due_bytes = size_bytes + size_bytes % 2 if syntax in _NATIVE else found_bytes
    if not size_bytes or not 0 < due_bytes == found_bytes:
        report(Rule.PIXELS, "PixelData")
    if syntax == _JPEG and not claims.is_jpeg_of_ours(document):
        report(Rule.PIXELS, "LossyImageCompression")
    if document.kind is ResultKind.SEGMENTATION:
        numbers = [text(segment, "SegmentNumber") for segment in items(dataset, "SegmentSequence")]
        framed = [
            text(identified, "ReferencedSegmentNumber")
            for frame in items(dataset, "PerFrameFunctionalGroupsSequence")
            for identified in items(frame, "SegmentIdentificationSequence")
        ]
        expected = [str(number) for number in range(1, len(numbers) + 1)]
        if not numbers == framed == expected or text(dataset, "NumberOfFrames") != str(len(numbers)):
            report(Rule.REGION, "SegmentSequence")


def _check_complete(document: Document, abouts: set[str], report: Report) -> None:
    """An object that leaves out what it must say is wrong too."""
    for about in ("source", *_MUST_SAY.get(document.kind or ResultKind.HEATMAP, ())):
        if about not in abouts:
            report(_RULES.get(about, Rule.THRESHOLD if about.startswith("threshold") else Rule.ALGORITHM), about)


def _check_statements(document: Document, verdict: Verdict, judged: str, report: Report) -> None:
    """No field reads as another verdict; what a reader looks at first states the right one."""
    found, kind = statements(document, judged), document.kind
    if claims.is_shared(document):  # its series says no verdict; the picture itself does
        single_field.contradictions(found, verdict, report)
        return
    single_field.contradictions(found, verdict, report)
    states = any(reading.is_statement and reading.says for reading in found)
    if not states and (kind in PICTURES or kind in (ResultKind.REPORT, ResultKind.MEASUREMENTS)):
        report(Rule.VERDICT, "")
    description = single_field.of_text(text(document.dataset, "SeriesDescription"), judged)
    if not description and (kind in PICTURES or kind is ResultKind.REPORT):
        report(Rule.DESCRIPTION, "SeriesDescription")


def check_references(
    document: Document, its: list[Claim], documents: list[Document], source: Source | None, report: Report
) -> None:
    """Evidence lists every image that the content refers to, under the right study and series; predecessors fit."""
    dataset = document.dataset
    own = text(dataset, "StudyInstanceUID"), text(dataset, "SOPClassUID"), text(dataset, "SOPInstanceUID")
    for study, _, sop_class, uid in listed(dataset, PREDECESSORS):
        if (study, sop_class) != own[:2] or uid == own[2]:
            report(Rule.PREDECESSOR, PREDECESSORS)
    if document.kind not in DOCUMENTS:
        return
    entries = listed(dataset, EVIDENCE)
    series = {text(each.dataset, "SOPInstanceUID"): text(each.dataset, "SeriesInstanceUID") for each in documents}
    if source is not None:
        series[source.ref.sop_instance_uid] = source.ref.series_instance_uid
    referred = {claim.value for claim in its if claim.about in ("source", "picture")}
    misplaced = any(entry[0] != own[0] or series.get(entry[3], entry[1]) != entry[1] for entry in entries)
    if misplaced or not referred <= {entry[2:] for entry in entries}:
        report(Rule.EVIDENCE, EVIDENCE)


def check_uids(documents: list[Document], source: Source | None, flaws: list[Flaw]) -> None:
    """One instance, one UID; one result, one series; one result of a kind. Alternatives of a kind share a series."""
    instances = {source.ref.sop_instance_uid} if source else set()
    series = {source.ref.series_instance_uid: ""} if source else {}
    kinds = set()
    for document in documents:
        report, dataset = reporter(document.name, flaws), document.dataset
        uid, of_series = text(dataset, "SOPInstanceUID"), text(dataset, "SeriesInstanceUID")
        kind = document.kind, text(dataset, "SOPClassUID")
        if uid in instances:
            report(Rule.UID, "SOPInstanceUID")
        if series.setdefault(of_series, str(document.kind or uid)) != str(document.kind or uid):
            report(Rule.SERIES_SHARED, "SeriesInstanceUID")
        if kind in kinds:
            report(Rule.RESULT_TWICE, "SOPClassUID")
        instances.add(uid)
        kinds.add(kind)


def check_numbers(said: Mapping[str, Any], verdict: Verdict, report: Report) -> None:
    """The verdict follows from the numbers; of files, people read the numbers that machines read."""
    low, high = said.get("threshold.rule_out"), said.get("threshold.report")
    if not isinstance(low, float) or not isinstance(high, float) or "certainty" not in said:
        return
    exact, slack = said.get("probability"), 0.0
    stated, unit = said["certainty"][0] if said["certainty"] else (None, claims.PERCENT)
    if exact is None:
        for limit, shown in zip((low, high), said.get("thresholds", ()), strict=False):
            if not _reads_alike(100 * limit if shown.endswith("%") else limit, shown):
                report(Rule.THRESHOLD, "")
        if isinstance(stated, float):
            exact, slack = stated / (100 if unit == claims.PERCENT else 1), _SLACK
            is_extreme = unit == claims.PERCENT and not _LEAST < stated < 100 - _LEAST  # each is cut off in its own way
            if "number" in said and not is_extreme and not _reads_alike(stated, said["number"]):
                report(Rule.CERTAINTY, "")
    if stated is None:
        figures = [(said.get(name), said.get(f"{name}.limit")) for name in ("spread", "distance")]
        exceeded = [value >= limit for value, limit in figures if isinstance(value, float) and isinstance(limit, float)]
        holds = verdict is Verdict.INDETERMINATE and any(exceeded)
    else:
        least = {Verdict.POSITIVE: high - slack, Verdict.INDETERMINATE: low - slack}.get(verdict, -math.inf)
        below = {Verdict.NEGATIVE: low + slack, Verdict.INDETERMINATE: high + slack}.get(verdict, math.inf)
        holds = exact is not None and least <= exact < below
    if not holds:
        report(Rule.DECISION, "")


def _reads_alike(coded: float, said: str) -> bool:
    """Whether a coded number, rounded to a tenth or finer, is what people read."""
    words = said.removesuffix(" %").split()
    number = claims.as_number(words[-1])
    if isinstance(number, str):
        return False
    rounding = 0.5 * 10.0 ** -len(words[-1].partition(".")[2]) + _TENTH
    at_least, at_most = words[0] != "below", words[0] != "above"
    return (coded >= number - rounding or not at_least) and (coded <= number + rounding or not at_most)
