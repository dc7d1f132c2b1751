"""Our own check of result objects: before they are stored, and by hand on files from anywhere.

Public validators know the standard and not what we mean by it: of eleven broken reports five passed all of them.
Here the whole set of one image, of every kind, is read back from its bytes. What its objects claim must be what they
were made from; of files alone, what most of them claim, and what their source says where it is among them.

Knows no pixels and no page: what is drawn is not read. Rows and attributes that are the same in every result are the
tests' business (`tests/dicom/oracle`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxr_node.dicom.own_identity import IMPLEMENTATION_CLASS_UID, PRODUCT
from cxr_node.dicom.read import header
from cxr_node.dicom.read.admission import SOP_CLASSES
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results.context import SHAPES, Context
from cxr_node.dicom.verify import claims, single_field
from cxr_node.dicom.verify.claims import Claim, Document
from cxr_node.dicom.verify.plain import EXPLICIT_LITTLE_ENDIAN, Parsed, items, listed, read, text, top
from cxr_node.dicom.verify.rules import Flaw, Report, Rule
from cxr_node.dicom.words import wording
from cxr_node.domain import Artifact, Rejected, ResultKind, Verdict
from cxr_node.errors import InstanceError, UnsoundResultError

_KIND_OF = {
    uid: kind
    for kind, shape in reversed(SHAPES.items())
    for uid in (shape.sop_class_uid, *shape.alternatives)
}  # fmt: skip
"""Of the two kinds that are Basic Text SR, the report; the note is told by its series."""
_OF_POSITIVES = frozenset({ResultKind.PRESENTATION_STATE, ResultKind.SEGMENTATION, ResultKind.KEY_OBJECT})
_STATING = frozenset({ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.KEY_OBJECT}) | claims.PICTURES
_NAMED_BY_VERDICT = frozenset({ResultKind.REPORT}) | claims.PICTURES
_STATUS = {"CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED", "PreliminaryFlag": "PRELIMINARY"}
_BY_A_PERSON = ("VerifyingObserverSequence", "VerifyingObserverName", "VerificationDateTime")
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "StudyDate",
    "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_NOT_IN_PICTURES = ("PixelSpacing", "ImagerPixelSpacing", "ViewPosition", "Laterality", "FrameOfReferenceUID")
_RGB = {"SamplesPerPixel": "3", "PhotometricInterpretation": "RGB", "PlanarConfiguration": "0", "BitsAllocated": "8"}
_MASK = {"SamplesPerPixel": "1", "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": "1"}
_REQUIRED = {
    ResultKind.REPORT: {"summary": Rule.SUMMARY, "device": Rule.EQUIPMENT, "thresholds": Rule.THRESHOLD},
    ResultKind.MEASUREMENTS: {
        "summary": Rule.SUMMARY, "threshold.report": Rule.THRESHOLD, "threshold.rule_out": Rule.THRESHOLD,
        "weights.sha256": Rule.ALGORITHM, "config.sha256": Rule.ALGORITHM,
    },
    ResultKind.KEY_OBJECT: {"summary": Rule.SUMMARY},
    ResultKind.NOT_ANALYSED: {"summary": Rule.SUMMARY},
}  # fmt: skip
_OUR_UID = re.compile(r"2\.25\.[1-9]\d{0,38}")  # PS3.5 B.2: a UUID as one number
_PREDECESSORS = "PredecessorDocumentsSequence"
_MAX_TOLD = 8
_SLACK = 1e-8  # of a number that is known as its object states it
_TENTH = 0.0501  # half a tenth, and the rounding of that


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What became of a number of files: results and sources are checked, others are named."""

    flaws: tuple[Flaw, ...]
    results: int
    sources: int
    ignored: tuple[str, ...]


def require_sound(artifacts: Sequence[Artifact], context: Context, rejected: Rejected | None = None) -> None:
    """Let nothing pass that breaks a rule; `rejected` is what a note is about.

    Raises
    ------
    UnsoundResultError : with the codes and places of the first flaws; no patient data.
    """
    flaws = check_made(artifacts, context, rejected)
    if flaws:
        told = "; ".join(f"{flaw.document}: {flaw.rule} [{flaw.where}]" for flaw in flaws[:_MAX_TOLD])
        raise UnsoundResultError(f"{len(flaws)} flaws in its results: {told}")


def check_made(artifacts: Sequence[Artifact], context: Context, rejected: Rejected | None = None) -> list[Flaw]:
    """Check the results of one image, or the note about it, against what they were made from."""
    flaws: list[Flaw] = []
    documents = []
    for artifact in artifacts:
        report = _reporter(str(artifact.kind), flaws)
        try:
            document = claims.document(str(artifact.kind), artifact.kind, read(artifact.content))
            _check_alternatives(artifact, document, context, report)
        except InstanceError:
            report(Rule.UNREADABLE, "")
            continue
        documents.append(document)
        _check_made_file(document, artifact, context, report)
    expected = claims.from_context(context)
    if rejected is not None:
        expected["summary"] = wording.not_analysed(rejected)
    _check_set(documents, expected, context.source, context.finding.decision.verdict, flaws)
    return flaws


def check_files(files: Iterable[tuple[str, bytes]]) -> Checked:
    """Check files of any number of studies; those of one image and one algorithm together, and with their source.

    Parameters
    ----------
    files : name and content of each; sources and objects that are not ours may be among them
    """
    flaws: list[Flaw] = []
    documents: list[Document] = []
    sources: dict[str, list[Source]] = defaultdict(list)
    ignored = []
    for name, content in files:
        try:
            parsed = read(content)
        except InstanceError:
            flaws.append(Flaw(rule=Rule.UNREADABLE, document=name))
            continue
        if is_ours(parsed):
            documents.append(claims.document(name, _kind(parsed), parsed))
        elif text(parsed.dataset, "SOPClassUID") in SOP_CLASSES and not isinstance(
            source := header.read(content), Rejected
        ):
            sources[source.ref.sop_instance_uid].append(source)
        else:
            ignored.append(name)
    for answer in _answers(documents):
        flaws += _flaws_of(answer, sources.get(_source_of(answer), []))
        _check_strangers(answer, documents, flaws)
    number = sum(len(versions) for versions in sources.values())
    return Checked(flaws=tuple(flaws), results=len(documents), sources=number, ignored=tuple(ignored))


def is_ours(parsed: Parsed) -> bool:
    """Tell our results from all other objects; archives keep one of these marks or the other."""
    marks = (text(parsed.meta, "ImplementationClassUID"), text(parsed.dataset, "InstanceCreatorUID"))
    made_by = claims.equipment(parsed.dataset) or parsed.dataset
    return IMPLEMENTATION_CLASS_UID in marks or text(made_by, "ManufacturerModelName").startswith(PRODUCT)


def _kind(parsed: Parsed) -> ResultKind | None:
    """Kind of a result; a note has the SOP Class of a report and is told by the number or the name of its series."""
    dataset, note = parsed.dataset, SHAPES[ResultKind.NOT_ANALYSED]
    series = {text(dataset, "SeriesNumber").strip(), text(dataset, "SeriesDescription")}
    is_note = bool(series & {str(note.series_number), wording.NOT_ANALYSED_SERIES})
    sop_class = text(dataset, "SOPClassUID")
    return ResultKind.NOT_ANALYSED if is_note and sop_class == note.sop_class_uid else _KIND_OF.get(sop_class)


def _flaws_of(answer: list[Document], versions: Sequence[Source]) -> list[Flaw]:
    """Check one answer with its source: of several versions under one UID the one that it fits best."""
    found = []
    verdict = _verdict(answer)
    candidates: Sequence[Source | None] = versions or [None]
    for source in candidates:
        flaws: list[Flaw] = []
        expected = claims.from_source(source) if source else {}
        _check_set(answer, expected, source, verdict or Verdict.REJECTED, flaws)
        if verdict is None:
            flaws.append(Flaw(rule=Rule.VERDICT, document=answer[0].name))
        found.append(flaws)
    return min(found, key=len)


def _verdict(answer: list[Document]) -> Verdict | None:
    """What most fields state that are meant to state one; None where none does."""
    if all(document.kind is ResultKind.NOT_ANALYSED for document in answer):
        return Verdict.REJECTED
    votes = [
        verdict
        for document in answer
        for reading in _readings(document)
        if reading.is_statement and len(reading.says) == 1
        for verdict in reading.says
    ]
    return max(votes, key=votes.count) if votes else None


def _answers(documents: list[Document]) -> list[list[Document]]:
    """Documents of one image by one algorithm; another model's answer to the same image is another answer.

    So is the answer to the same image with a corrected header: where a class occurs twice, the time of receipt, which
    all results of one answer state, tells them apart.
    """
    grouped: dict[tuple[str, ...], list[Document]] = defaultdict(list)
    for document in documents:
        device = text(claims.equipment(document.dataset), "DeviceUID")
        grouped[_source_of([document]), device].append(document)
    answers: list[list[Document]] = []
    for group in grouped.values():
        received: dict[str, list[Document]] = defaultdict(list)
        classes = {text(document.dataset, "SOPClassUID") for document in group}
        for document in group:
            moment = text(claims.equipment(document.dataset), "ContributionDateTime")
            received[moment if len(classes) < len(group) else ""].append(document)
        answers += received.values()
    return answers


def _source_of(documents: list[Document]) -> str:
    """SOP Instance UID of the image that most references name as the source."""
    found = [claim.value[1] for each in documents for claim in claims.of(each) if claim.about == "source"]
    return max(found, key=found.count) if found else ""


def _check_strangers(answer: list[Document], documents: list[Document], flaws: list[Flaw]) -> None:
    """Evidence must not name the result of another answer."""
    strangers = {text(each.dataset, "SOPInstanceUID") for each in documents if each not in answer}
    for document in answer:
        if strangers & {entry[3] for entry in listed(document.dataset, claims.EVIDENCE)}:
            flaws.append(Flaw(rule=Rule.EVIDENCE, document=document.name, where="result of another answer"))


def _check_set(
    documents: list[Document], expected: Mapping[str, Any], source: Source | None, verdict: Verdict, flaws: list[Flaw]
) -> None:
    """Check the results of one answer, each alone and all together."""
    said = [(document, list(claims.of(document))) for document in documents]
    agreed = {**_agreed(said, expected), **claims.FIXED, **expected}
    for document, its in said:
        report = _reporter(document.name, flaws)
        _check_object(document, report)
        for claim in its:
            if claim.value != agreed[claim.about]:
                report(claim.rule, claim.where)
        _check_complete(document, its, verdict, report)
        _check_evidence(document, its, documents, source, report)
        _check_predecessors(document, report)
        single_field.contradictions(_readings(document), verdict, report)
    _check_uids(documents, source, flaws)
    if documents and verdict is not Verdict.REJECTED:
        _check_numbers(agreed, verdict, _reporter(documents[0].name, flaws))


def _agreed(said: list[tuple[Document, list[Claim]]], expected: Mapping[str, Any]) -> dict[str, Any]:
    """What most objects say of that which is not known."""
    values: dict[str, list[Any]] = defaultdict(list)
    for _, its in said:
        for claim in its:
            if claim.about not in expected:
                values[claim.about].append(claim.value)
    return {about: max(found, key=found.count) for about, found in values.items()}


def _readings(document: Document) -> list[single_field.Reading]:
    found = [*single_field.of_header(document.dataset), *single_field.of_content(document.content)]
    if document.kind in _OF_POSITIVES:  # that it is there at all says "look here"
        found.append(single_field.Reading(str(document.kind), frozenset({Verdict.POSITIVE}), True))
    return found


def _check_object(document: Document, report: Report) -> None:
    """What holds of one object whatever the answer: UIDs, file meta information, kind, status, pixels."""
    dataset, meta, kind = document.dataset, document.parsed.meta, document.kind
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        if _OUR_UID.fullmatch(text(dataset, keyword)) is None:
            report(Rule.UID, keyword)
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        _equal(meta, {f"MediaStorage{keyword}": text(dataset, keyword)}, Rule.FILE_META, report)
    for keyword in _TYPE_2:
        if keyword not in dataset:
            report(Rule.PATIENT_AND_STUDY, keyword)
    if kind is None:
        report(Rule.SOP_CLASS, "SOPClassUID")
        return
    shape = SHAPES[kind]
    if text(dataset, "SOPClassUID") not in (shape.sop_class_uid, *shape.alternatives):
        report(Rule.SOP_CLASS, "SOPClassUID")
    own = {
        "InstanceCreatorUID": IMPLEMENTATION_CLASS_UID,
        "InstanceNumber": "1",
        "SeriesNumber": str(shape.series_number),
    }
    _equal(dataset, own, Rule.ATTRIBUTE, report)
    if shape.modality:
        _equal(dataset, {"Modality": shape.modality}, Rule.ATTRIBUTE, report)
    _check_status(document, report)
    _check_pixels(document, report)


def _check_status(document: Document, report: Report) -> None:
    """Never verified and always preliminary: no person has read it."""
    dataset = document.dataset
    _equal(dataset, {"ContentQualification": "RESEARCH"}, Rule.STATUS, report)
    if document.kind in claims.REPORTS:
        _equal(dataset, _STATUS, Rule.STATUS, report)
    elif text(dataset, "VerificationFlag") != ("UNVERIFIED" if document.kind is ResultKind.PDF else ""):
        report(Rule.STATUS, "VerificationFlag")
    for keyword in _BY_A_PERSON:
        if keyword in dataset:
            report(Rule.STATUS, keyword)


def _check_pixels(document: Document, report: Report) -> None:
    """As much pixel data as the attributes say, and no length where none may be measured."""
    dataset = document.dataset
    if document.kind is ResultKind.PDF:
        page, said = text(dataset, "EncapsulatedDocument"), text(dataset, "EncapsulatedDocumentLength")
        _equal(dataset, {"MIMETypeOfEncapsulatedDocument": "application/pdf"}, Rule.ATTRIBUTE, report)
        if not page.startswith("%PDF-") or said not in (str(len(page)), str(len(page) - 1)):
            report(Rule.ATTRIBUTE, "EncapsulatedDocument")
    if document.kind in claims.PICTURES:
        _equal(dataset, _RGB, Rule.PIXELS, report)
        for keyword in _NOT_IN_PICTURES:
            if keyword in dataset:
                report(Rule.ATTRIBUTE, keyword)
    elif document.kind is ResultKind.SEGMENTATION:
        _equal(dataset, _MASK, Rule.PIXELS, report)
        _check_frames(document, report)
    else:
        return
    size_bits = 1
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames"):
        said = text(dataset, keyword).strip() or ("1" if keyword == "NumberOfFrames" else "")
        size_bits *= int(said) if said.isdigit() else 0
    size_bytes = -(-size_bits // 8)
    if not size_bytes or document.parsed.pixel_bytes != size_bytes + size_bytes % 2:
        report(Rule.PIXELS, "PixelData")


def _check_frames(document: Document, report: Report) -> None:
    """One frame a segment, in order, numbered from 1."""
    dataset = document.dataset
    numbers = [text(segment, "SegmentNumber") for segment in items(dataset, "SegmentSequence")]
    framed = [
        text(identified, "ReferencedSegmentNumber")
        for frame in items(dataset, "PerFrameFunctionalGroupsSequence")
        for identified in items(frame, "SegmentIdentificationSequence")
    ]
    expected = [str(number) for number in range(1, len(numbers) + 1)]
    if not numbers or not numbers == framed == expected or text(dataset, "NumberOfFrames") != str(len(numbers)):
        report(Rule.REGION, "SegmentSequence")


def _check_complete(document: Document, its: list[Claim], verdict: Verdict, report: Report) -> None:
    """An object that leaves out what it must say says the wrong thing too."""
    kind, abouts = document.kind, {claim.about for claim in its}
    if "source" not in abouts:
        report(Rule.SOURCE, "")
    for about, rule in _REQUIRED.get(kind, {}).items() if kind else ():
        if about not in abouts:
            report(rule, about)
    readings = _readings(document)
    if kind in _STATING and not any(reading.is_statement and reading.says for reading in readings):
        report(Rule.VERDICT, "")
    if kind in _NAMED_BY_VERDICT and not single_field.of_text(text(document.dataset, "SeriesDescription")):
        report(Rule.DESCRIPTION, "SeriesDescription")
    if kind is ResultKind.NOT_ANALYSED:
        begins, ends = wording.NOT_ANALYSED_LINE
        for claim in its:
            if claim.about == "summary" and not (claim.value.startswith(begins) and claim.value.endswith(ends)):
                report(Rule.SUMMARY, claim.where)


def _check_evidence(
    document: Document, its: list[Claim], documents: list[Document], source: Source | None, report: Report
) -> None:
    """Every image that the content refers to, under the right study and series."""
    if document.kind not in claims.DOCUMENTS:
        return
    entries = listed(document.dataset, claims.EVIDENCE)
    series = {text(each.dataset, "SOPInstanceUID"): text(each.dataset, "SeriesInstanceUID") for each in documents}
    if source is not None:
        series[source.ref.sop_instance_uid] = source.ref.series_instance_uid
    referred = {claim.value for claim in its if claim.about in ("source", "picture")}
    study = text(document.dataset, "StudyInstanceUID")
    misplaced = any(entry[0] != study or series.get(entry[3], entry[1]) != entry[1] for entry in entries)
    if misplaced or not referred <= {entry[2:] for entry in entries}:
        report(Rule.EVIDENCE, claims.EVIDENCE)


def _check_predecessors(document: Document, report: Report) -> None:
    """A report replaces documents of its own study and class, and never itself."""
    dataset = document.dataset
    own = text(dataset, "StudyInstanceUID"), text(dataset, "SOPClassUID"), text(dataset, "SOPInstanceUID")
    for study, _, sop_class, uid in listed(dataset, _PREDECESSORS):
        if (study, sop_class) != own[:2] or uid == own[2]:
            report(Rule.PREDECESSOR, _PREDECESSORS)


def _check_uids(documents: list[Document], source: Source | None, flaws: list[Flaw]) -> None:
    """One instance, one UID; one result, one series; one result of a kind. Alternatives of a kind share a series."""
    instances = {source.ref.sop_instance_uid} if source else set()
    series = {source.ref.series_instance_uid: ""} if source else {}
    kinds = set()
    for document in documents:
        report, dataset = _reporter(document.name, flaws), document.dataset
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


def _check_made_file(document: Document, artifact: Artifact, context: Context, report: Report) -> None:
    """As we name and encode it; archives may rewrite file meta information."""
    named = [text(document.dataset, f"{what}UID") for what in ("SOPClass", "SOPInstance", "SeriesInstance")]
    wanted = [artifact.sop_class_uid, artifact.sop_instance_uid, context.series_uid(artifact.kind)]
    if named != wanted:
        report(Rule.UID, "SOPInstanceUID")
    fresh = {"TransferSyntaxUID": EXPLICIT_LITTLE_ENDIAN, "ImplementationClassUID": IMPLEMENTATION_CLASS_UID}
    _equal(document.parsed.meta, fresh, Rule.FILE_META, report)


def _check_alternatives(artifact: Artifact, document: Document, context: Context, report: Report) -> None:
    """The same data set under other classes and UIDs, each with the predecessors of its own class."""
    if listed(document.dataset, _PREDECESSORS) != _replaced(artifact, context):
        report(Rule.PREDECESSOR, _PREDECESSORS)
    if not artifact.alternatives:
        return
    own = ("SOPClassUID", "SOPInstanceUID")
    _, first = top(artifact.content)
    ignored = dict.fromkeys([*own, _PREDECESSORS] if _PREDECESSORS in first else own)
    for other in artifact.alternatives:
        meta, found = top(other.content)
        named = [found.get(keyword, b"").decode("latin-1").rstrip("\0") for keyword in own]
        stated = [text(meta, f"MediaStorage{keyword}") for keyword in own]
        right = named == stated == [other.sop_class_uid, other.sop_instance_uid]
        if not right or first | ignored != found | ignored or _KIND_OF.get(named[0]) is not artifact.kind:
            report(Rule.ALTERNATIVE, other.sop_class_uid)
        elif _PREDECESSORS in first and listed(read(other.content).dataset, _PREDECESSORS) != _replaced(other, context):
            report(Rule.PREDECESSOR, _PREDECESSORS)


def _replaced(artifact: Artifact, context: Context) -> list[tuple[str, str, str, str]]:
    return [
        (context.source.ref.study_instance_uid, each.series_instance_uid, each.sop_class_uid, each.sop_instance_uid)
        for each in context.replaced(artifact.kind, artifact.sop_class_uid)
    ]


def _check_numbers(said: Mapping[str, Any], verdict: Verdict, report: Report) -> None:
    """The verdict follows from the numbers, and people read the number that machines read."""
    low, high = said.get("threshold.rule_out"), said.get("threshold.report")
    if not isinstance(low, float) or not isinstance(high, float) or "certainty" not in said:
        return
    certainty = said["certainty"][0] if said["certainty"] else None
    exact = said.get("probability")
    if certainty is not None and not isinstance(certainty[0], float):
        return
    holds = False
    if certainty is None:
        doubts = [(said.get(name), said.get(f"{name}.limit")) for name in ("spread", "distance")]
        exceeded = [float(value) >= float(limit) for value, limit in doubts if value and limit]
        holds = verdict is Verdict.INDETERMINATE and any(exceeded)
    else:
        slack = 0.0 if exact is not None else _SLACK
        value = certainty[0] / (100 if certainty[1] == claims.PERCENT else 1) if exact is None else exact
        holds = {
            Verdict.POSITIVE: value >= high - slack,
            Verdict.NEGATIVE: value < low + slack,
            Verdict.INDETERMINATE: low - slack <= value < high + slack,
        }[verdict]
        if not _reads_alike(certainty[0], said.get("number")):
            report(Rule.CERTAINTY, "")
    if not holds:
        report(Rule.DECISION, "")


def _reads_alike(coded: float, said: str | None) -> bool:
    """Whether a coded number, rounded to a tenth or finer, is what people read."""
    if said is None:
        return True
    words = said.removesuffix(" %").split()
    number = float(words[-1])
    if words[0] in ("below", "above"):
        return coded <= number + _TENTH if words[0] == "below" else coded >= number - _TENTH
    return abs(coded - number) <= 0.5 * 10.0 ** -len(words[-1].partition(".")[2]) + _TENTH


def _equal(dataset: Mapping[str, Any], expected: Mapping[str, str], rule: Rule, report: Report) -> None:
    for keyword, value in expected.items():
        said = dataset.get(keyword)
        if not value or not isinstance(said, str) or said.strip() != value:
            report(rule, keyword)


def _reporter(name: str, flaws: list[Flaw]) -> Report:
    return lambda rule, where: flaws.append(Flaw(rule=rule, document=name, where=where))
