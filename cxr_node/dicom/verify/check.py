"""Our own check of result objects: before they are stored, and by hand on files from anywhere.

Public validators know the standard and not what we mean by it: of eleven broken reports five passed all of them.
Here the whole set of one image is read back from its bytes and compared with one answer: the decision it was made
from, or, of files, what most of their fields say. What cannot be noticed of files alone: a change that is made
alike everywhere, and of what stands in one place and follows from nothing else (the vertices of a region, a tracking
UID, remarks of the report, the last digits of the hashes); before sending, all of these are.

Knows no pixels: what is drawn into the picture is not read.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cxr_node.dicom.read import header
from cxr_node.dicom.read.admission import SOP_CLASSES
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results.context import SHAPES, Context
from cxr_node.dicom.verify import facts as verify_facts
from cxr_node.dicom.verify import header as verify_header
from cxr_node.dicom.verify import note, predecessors, recover, rows, single_field
from cxr_node.dicom.verify import rows as verify_rows
from cxr_node.dicom.verify.facts import Document, Facts
from cxr_node.dicom.verify.plain import Parsed, Plain, items, read, read_top, text
from cxr_node.dicom.verify.rules import Flaw, Rule
from cxr_node.dicom.verify.tree import Item, Report, compare, tree, walk
from cxr_node.domain import AbstainReason, Artifact, Rejected, ResultKind, Verdict
from cxr_node.errors import InstanceError, UnsoundResultError

_ROWS = {ResultKind.REPORT: verify_rows.report, ResultKind.MEASUREMENTS: verify_rows.measurements}
_NO_TREE = Item("", "", ("", "", ""), None, ())
_OF_CLASS = {uid: kind for kind, classes in verify_header.CLASSES.items() for uid in classes}
_OUR_CLASSES = {uid for shape in SHAPES.values() for uid in (shape.sop_class_uid, *shape.alternatives)}
_MAX_TOLD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What became of a number of files: results and sources are checked, others are told."""

    flaws: tuple[Flaw, ...]
    results: int
    sources: int
    ignored: tuple[str, ...]


def require_sound(artifacts: Sequence[Artifact], context: Context) -> None:
    """Let nothing pass that breaks a rule.

    Raises
    ------
    UnsoundResultError : with the codes and places of the first flaws; no patient data.
    """
    flaws = check_made(artifacts, context)
    if flaws:
        told = "; ".join(f"{flaw.document}: {flaw.rule} [{flaw.where}]" for flaw in flaws[:_MAX_TOLD])
        raise UnsoundResultError(f"{len(flaws)} flaws in its results: {told}")


def check_made(artifacts: Sequence[Artifact], context: Context) -> list[Flaw]:
    """Check the results of one image against what they were made from."""
    flaws: list[Flaw] = []
    documents = []
    readable = True
    for artifact in artifacts:
        report = _reporter(str(artifact.kind), flaws)
        try:
            document = _document(str(artifact.kind), _known(artifact.kind), read(artifact.content))
            _check_alternatives(artifact, report)
            predecessors.check_made(artifact, document.dataset, context, report)
        except InstanceError:
            report(Rule.UNREADABLE, "")
            readable = False
            continue
        documents.append(document)
        named = [text(document.dataset, keyword) for keyword in ("SOPClassUID", "SOPInstanceUID")]
        if named != [artifact.sop_class_uid, artifact.sop_instance_uid]:
            report(Rule.UID, "SOPInstanceUID")
        if text(document.dataset, "SeriesInstanceUID") != context.series_uid(artifact.kind):
            report(Rule.UID, "SeriesInstanceUID")
    if readable:
        _check_set(documents, verify_facts.of_context(context), context.source, flaws)
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
        if verify_facts.is_ours(parsed):
            sop_class = text(parsed.dataset, "SOPClassUID")
            if sop_class not in _OUR_CLASSES:
                flaws.append(Flaw(rule=Rule.SOP_CLASS, document=name, where="SOPClassUID"))
            is_note = note.is_note(parsed.dataset)
            documents.append(_document(name, None if is_note else _OF_CLASS.get(sop_class), parsed))
        elif text(parsed.dataset, "SOPClassUID") in SOP_CLASSES and not isinstance(
            source := header.read(content), Rejected
        ):
            sources[source.ref.sop_instance_uid].append(source)
        else:
            ignored.append(name)
    for answer in _answers(documents):
        flaws += _flaws_of(answer, sources.get(recover.source_of(answer)[1], []))
        _check_strangers(answer, documents, flaws)
    number = sum(len(versions) for versions in sources.values())
    return Checked(flaws=tuple(flaws), results=len(documents), sources=number, ignored=tuple(ignored))


def _flaws_of(answer: list[Document], versions: Sequence[Source]) -> list[Flaw]:
    """Check one answer with its source: of several versions under one UID the one that it fits best."""
    found = []
    candidates: Sequence[Source | None] = versions or [None]
    for source in candidates:
        flaws: list[Flaw] = []
        notes = [document for document in answer if note.is_note(document.dataset)]
        for each in notes:
            note.check(each, source, _reporter(each.name, flaws))
        others = [document for document in answer if document not in notes]
        _check_set(answer, recover.recover(others, source) if others else None, source, flaws)
        found.append(flaws)
    return min(found, key=len)


def _answers(documents: list[Document]) -> list[list[Document]]:
    """Documents of one image by one algorithm; another model's answer to the same image is another answer.

    So is the answer to the same image with a corrected header: where a class occurs twice, the time of receipt, which
    all results of one answer state, tells them apart.
    """
    grouped: dict[tuple[str, str], list[Document]] = defaultdict(list)
    for document in documents:
        device = text(verify_facts.equipment(document.dataset), "DeviceUID")
        grouped[recover.source_of([document])[1], device].append(document)
    return [answer for group in grouped.values() for answer in _versions(group)]


def _versions(group: list[Document]) -> list[list[Document]]:
    classes = [text(document.dataset, "SOPClassUID") for document in group]
    if len(set(classes)) == len(classes):
        return [group]
    received: dict[str, list[Document]] = defaultdict(list)
    for document in group:
        received[text(verify_facts.equipment(document.dataset), "ContributionDateTime")].append(document)
    return list(received.values())


def _check_strangers(answer: list[Document], documents: list[Document], flaws: list[Flaw]) -> None:
    """Evidence must not name the result of another answer."""
    strangers = {text(each.dataset, "SOPInstanceUID") for each in documents if each not in answer}
    for document in answer:
        if strangers & {entry[3] for entry in _evidence(document.dataset)}:
            flaws.append(Flaw(rule=Rule.EVIDENCE, document=document.name, where="result of another answer"))


def _check_set(documents: list[Document], facts: Facts | None, source: Source | None, flaws: list[Flaw]) -> None:
    """Check the results of one answer, each alone and all together; kinds that are not known for identity only."""
    for document in documents:
        report = _reporter(document.name, flaws)
        verify_header.check_identity(document, source, report, is_fresh=facts is not None and facts.is_exact)
        predecessors.check(document.dataset, report)
        if document is not documents[0]:
            verify_header.check_agreement(document.dataset, documents[0].dataset, report)
    _check_uids(documents, source, flaws)
    known = [document for document in documents if document.kind is not None]
    if known and facts is None:
        flaws.append(Flaw(rule=Rule.VERDICT, document=known[0].name))
    if facts is None:
        return
    for document in known:
        report = _reporter(document.name, flaws)
        verify_header.check(document, facts, source, report)
        if document.kind in _ROWS:
            _check_content(document, facts, report)
            _check_evidence(document, facts, source, documents, report)
        target = facts.finding.target
        readings = [*single_field.of_header(document.dataset, target)]
        readings += single_field.of_content(document.root, target)
        single_field.contradictions(readings, facts.finding.decision.verdict, report)
    rows.check_objects(documents, facts, lambda name: _reporter(name, flaws))
    if known:
        _check_decision(facts, _reporter(known[0].name, flaws))


def _check_content(document: Document, facts: Facts, report: Report) -> None:
    assert document.kind is not None  # noqa: S101 (known to have rows)
    row = _ROWS[document.kind](facts)
    if document.root.value_type != "CONTAINER" or document.root.name[:2] != row.key[2:]:
        report(Rule.TITLE, "ConceptNameCodeSequence")
        return
    compare(document.root, row, report)


def _check_decision(facts: Facts, report: Report) -> None:
    """The verdict follows from the numbers; the model's names and hashes from one another."""
    prediction, point = facts.finding.prediction, facts.finding.identity.operating_point
    probability = facts.finding.probability
    exceeds = operator.gt if facts.is_exact else operator.ge  # a sentence rounds both
    decision = facts.finding.decision
    between = point.rule_out_below <= probability < point.report_at
    holds = {
        (Verdict.POSITIVE, None): probability >= point.report_at,
        (Verdict.NEGATIVE, None): probability < point.rule_out_below,
        (Verdict.INDETERMINATE, AbstainReason.BETWEEN_THRESHOLDS): between,
        (Verdict.INDETERMINATE, AbstainReason.VIEWS_DISAGREE): exceeds(prediction.spread, point.max_spread),
        (Verdict.INDETERMINATE, AbstainReason.UNLIKE_TRAINING_DATA): prediction.distance is not None
        and point.max_distance is not None
        and exceeds(prediction.distance, point.max_distance),
    }
    if not holds[decision.verdict, decision.doubt]:
        report(Rule.DECISION, "")
    identity = facts.finding.identity
    if not facts.algorithm_version.endswith(f"+sha256:{identity.weights_sha256[:12]}"):
        report(Rule.ALGORITHM, "Algorithm Version")


def _check_evidence(
    document: Document, facts: Facts, source: Source | None, documents: list[Document], report: Report
) -> None:
    """Source, picture, and every image that the content refers to, under the right study and series."""
    listed = _evidence(document.dataset)
    named = {entry[2:] for entry in listed}
    needed = {facts.source} | ({facts.picture} if facts.picture else set())
    referred = {item.value for item in walk(document.root) if item.value_type == "IMAGE"}
    study = text(document.dataset, "StudyInstanceUID")
    complete = needed | referred <= named and all(entry[0] == study for entry in listed)
    surplus = facts.is_exact and named != needed
    series = {text(each.dataset, "SOPInstanceUID"): text(each.dataset, "SeriesInstanceUID") for each in documents}
    if source is not None:
        series[source.ref.sop_instance_uid] = source.ref.series_instance_uid
    misplaced = any(series.get(entry[3], entry[1]) != entry[1] for entry in listed)
    if not complete or surplus or misplaced:
        report(Rule.EVIDENCE, "CurrentRequestedProcedureEvidenceSequence")


def _check_uids(documents: list[Document], source: Source | None, flaws: list[Flaw]) -> None:
    """One instance, one UID; one result, one series; one result of a kind. Alternatives of a kind share a series."""
    instances = {source.ref.sop_instance_uid} if source else set()
    series = {source.ref.series_instance_uid: ""} if source else {}
    kinds = set()
    for document in documents:
        report, dataset = _reporter(document.name, flaws), document.dataset
        uid, of_series = text(dataset, "SOPInstanceUID"), text(dataset, "SeriesInstanceUID")
        sop_class = text(dataset, "SOPClassUID")
        if uid in instances:
            report(Rule.UID, "SOPInstanceUID")
        if series.setdefault(of_series, str(document.kind or uid)) != str(document.kind or uid):
            report(Rule.SERIES_SHARED, "SeriesInstanceUID")
        if document.kind is not None and sop_class in kinds:
            report(Rule.RESULT_TWICE, "SOPClassUID")
        instances.add(uid)
        kinds.add(sop_class)


def _check_alternatives(artifact: Artifact, report: Report) -> None:
    """The same data set under other classes and UIDs; nothing else may differ."""
    if not artifact.alternatives:
        return
    own = ["SOPClassUID", "SOPInstanceUID"]
    _, first = read_top(artifact.content)
    ignored = [*own, *(["PredecessorDocumentsSequence"] if "PredecessorDocumentsSequence" in first else [])]
    for other in artifact.alternatives:
        meta, found = read_top(other.content)
        named = [found.get(keyword) for keyword in own]
        stated = [meta.get(f"MediaStorage{keyword}") for keyword in own]
        right = named == stated == [other.sop_class_uid, other.sop_instance_uid]
        same = first | dict.fromkeys(ignored) == found | dict.fromkeys(ignored)
        if not right or not same or _OF_CLASS.get(other.sop_class_uid, artifact.kind) is not artifact.kind:
            report(Rule.ALTERNATIVE, other.sop_class_uid)


def _evidence(dataset: Plain) -> list[tuple[str, str, str, str]]:
    """Study, series, SOP Class and SOP Instance UID of each entry."""
    return [
        (
            text(study, "StudyInstanceUID"),
            text(series, "SeriesInstanceUID"),
            text(member, "ReferencedSOPClassUID"),
            text(member, "ReferencedSOPInstanceUID"),
        )
        for study in items(dataset, "CurrentRequestedProcedureEvidenceSequence")
        for series in items(study, "ReferencedSeriesSequence")
        for member in items(series, "ReferencedSOPSequence")
    ]


def _document(name: str, kind: ResultKind | None, parsed: Parsed) -> Document:
    root = tree(parsed.dataset) if "ValueType" in parsed.dataset else _NO_TREE
    return Document(name=name, kind=kind, parsed=parsed, root=root)


def _known(kind: ResultKind) -> ResultKind | None:
    return kind if kind in verify_header.CLASSES else None


def _reporter(name: str, flaws: list[Flaw]) -> Report:
    return lambda rule, where: flaws.append(Flaw(rule=rule, document=name, where=where))
