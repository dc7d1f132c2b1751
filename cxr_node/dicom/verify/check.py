"""Our own check of result objects: before they are stored, and by hand on files from anywhere.

Of eleven broken reports five passed all public validators. The whole set of one image is read back from its bytes: it
must claim what it was made from; of files alone, what most of them claim, and what their source says where it is there.
Rows and attributes that are the same in every result are the tests' business (`tests/dicom/oracle`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cxr_node.dicom.part10 import IMPLEMENTATION_CLASS_UID, PRODUCT, quiet
from cxr_node.dicom.read import header
from cxr_node.dicom.read.admission import SOP_CLASSES
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results.context import Context, Subject
from cxr_node.dicom.results.study import Study
from cxr_node.dicom.verify import claims, objects, parts, study_check
from cxr_node.dicom.verify.claims import PREDECESSORS, Document
from cxr_node.dicom.verify.plain import EXPLICIT_LITTLE_ENDIAN, Parsed, listed, read, text, top
from cxr_node.dicom.verify.rules import Flaw, Report, Rule
from cxr_node.dicom.words import wording
from cxr_node.domain import Verdict
from cxr_node.errors import InstanceError, UnsoundResultError
from cxr_node.outcome import Artifact, Rejected
from cxr_node.result_kinds import SHAPES, ResultKind

_KIND_OF = {
    uid: kind
    for kind, shape in reversed(SHAPES.items())
    if shape.is_dicom
    for uid in (shape.sop_class_uid, *shape.alternatives)
}  # fmt: skip
"""Of the two kinds that are Basic Text SR, the report; the note is told by its series."""
_NAMES = (
    "FileMetaInformationGroupLength", "MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "SOPClassUID",
    "SOPInstanceUID",
)  # fmt: skip
"""Elements in which the SOP Classes of one result differ."""
_MAX_TOLD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What became of a number of files: results and sources are checked, others are named."""

    flaws: tuple[Flaw, ...]
    results: int
    sources: int
    ignored: tuple[str, ...]


def require_sound(artifacts: Sequence[Artifact], context: Context, rejected: Rejected | None = None) -> None:
    """Let nothing pass that breaks a rule; `rejected` is what a note is about.

    Raises UnsoundResultError: with the codes and places of the first flaws; no patient data.
    """
    _refuse(check_made(artifacts, context, rejected))


def _refuse(flaws: Sequence[Flaw]) -> None:
    if flaws:
        told = "; ".join(f"{flaw.document}: {flaw.rule} [{flaw.where}]" for flaw in flaws[:_MAX_TOLD])
        raise UnsoundResultError(f"{len(flaws)} flaws in its results: {told}")


def require_sound_study(artifacts: Sequence[Artifact], study: Study) -> None:
    """As `require_sound`, of the documents of a study."""
    flaws: list[Flaw] = []
    with quiet():
        if study.is_of_one:
            flaws = _flaws_of_made(artifacts, study.images[0], None, study)
        else:
            documents = _documents(artifacts, study, flaws)
            study_check.check_study(documents, study, flaws)
    _refuse(list(dict.fromkeys(flaws)))


def check_made(artifacts: Sequence[Artifact], context: Context, rejected: Rejected | None = None) -> list[Flaw]:
    """Check the results of one image, or the note about it, against what they were made from."""
    with quiet():  # once, not for each object
        return list(dict.fromkeys(_flaws_of_made(artifacts, context, rejected)))


def _flaws_of_made(
    artifacts: Sequence[Artifact], context: Context, rejected: Rejected | None, study: Study | None = None
) -> list[Flaw]:
    """`study` : which has no other image, and whose documents they are."""
    flaws: list[Flaw] = []
    documents = _documents(artifacts, study or context, flaws)
    expected = claims.from_context(context)
    if rejected is not None:
        expected["summary"] = wording.not_analysed(rejected)
    if study is not None:
        expected["summary"] = study.summary
    objects.check(documents, expected, context.source, context.finding.decision.verdict, flaws)
    return flaws


def _documents(artifacts: Sequence[Artifact], of: Subject, flaws: list[Flaw]) -> list[Document]:
    documents = []
    for artifact in (each for each in artifacts if SHAPES[each.kind].is_dicom):
        report = objects.reporter(str(artifact.kind), flaws)
        try:
            document = claims.document(str(artifact.kind), artifact.kind, read(artifact.content))
            _check_alternatives(artifact, document, of, report)
        except InstanceError:
            report(Rule.UNREADABLE, "")
            continue
        documents.append(document)
        _check_made_file(document, artifact, of, report)
    return documents


def check_files(files: Iterable[tuple[str, bytes]]) -> Checked:
    """Check files of any number of studies; those of one image and one algorithm together, and with their source.

    `files` : name and content of each; sources and objects that are not ours may be among them
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
            documents.append(claims.document(name, kind_of(parsed), parsed))
        elif text(parsed.dataset, "SOPClassUID") in SOP_CLASSES and not isinstance(
            source := header.read(content), Rejected
        ):
            sources[source.ref.sop_instance_uid].append(source)
        else:
            ignored.append(name)
    of_studies = _of_studies(documents)
    for report_of_study in _answers(of_studies, by_study=True):
        study_check.check_files_of_study(report_of_study, documents, flaws)
    single = [document for document in documents if document not in of_studies]
    for answer in _answers(single):
        flaws += _flaws_of(answer, sources.get(_source_of(answer), []))
        _check_strangers(answer, documents, flaws)
    number = sum(len(versions) for versions in sources.values())
    return Checked(flaws=tuple(flaws), results=len(documents), sources=number, ignored=tuple(ignored))


def is_ours(parsed: Parsed) -> bool:
    """Tell our results from all other objects; archives keep one of these marks or the other."""
    marks = (text(parsed.meta, "ImplementationClassUID"), text(parsed.dataset, "InstanceCreatorUID"))
    made_by = claims.equipment(parsed.dataset) or parsed.dataset
    return IMPLEMENTATION_CLASS_UID in marks or text(made_by, "ManufacturerModelName").startswith(PRODUCT)


def kind_of(parsed: Parsed) -> ResultKind | None:
    """Kind of a result; a note has the SOP Class of a report and is told by the number or the name of its series."""
    dataset, note = parsed.dataset, SHAPES[ResultKind.NOT_ANALYSED]
    series = {text(dataset, "SeriesNumber").strip(), text(dataset, "SeriesDescription")}
    is_note = bool(series & {str(note.series_number), wording.NOT_ANALYSED_SERIES})
    sop_class = text(dataset, "SOPClassUID")
    return ResultKind.NOT_ANALYSED if is_note and sop_class == note.sop_class_uid else _KIND_OF.get(sop_class)


def _flaws_of(answer: list[Document], versions: Sequence[Source]) -> list[Flaw]:
    """Check one answer with its source: of several versions under one UID the one that it fits best."""
    found = []
    judged = objects.judged(answer)
    verdict = _verdict(answer, judged)
    candidates: Sequence[Source | None] = versions or [None]
    for source in candidates:
        flaws: list[Flaw] = []
        expected = {"judged": judged} | (claims.from_source(source) if source else {})
        objects.check(answer, expected, source, verdict or Verdict.REJECTED, flaws)
        found.append(list(dict.fromkeys(flaws)))
    return min(found, key=len)


def _verdict(answer: list[Document], judged: str) -> Verdict | None:
    """What most fields state that are meant to state one; None where none does."""
    if all(document.kind is ResultKind.NOT_ANALYSED for document in answer):
        return Verdict.REJECTED
    votes = [
        verdict
        for document in answer
        for statement in objects.statements(document, judged)
        if statement.is_statement and len(statement.says) == 1
        for verdict in statement.says
    ]
    return max(votes, key=votes.count) if votes else None


def _answers(documents: list[Document], *, by_study: bool = False) -> list[list[Document]]:
    """Documents of one image by one algorithm; another model's answer to the same image is another answer.

    So is the answer to the same image with a corrected header: where a class occurs twice, the time of receipt, which
    all results of one answer state, tells them apart.
    """
    grouped: dict[tuple[str, ...], list[Document]] = defaultdict(list)
    for document in documents:
        device = text(claims.equipment(document.dataset), "DeviceUID")
        about = text(document.dataset, "StudyInstanceUID") if by_study else _source_of([document])
        grouped[about, device].append(document)
    answers: list[list[Document]] = []
    for group in grouped.values():
        received: dict[str, list[Document]] = defaultdict(list)
        classes = {text(document.dataset, "SOPClassUID") for document in group}
        for document in group:
            moment = text(claims.equipment(document.dataset), "ContributionDateTime")
            received[moment if len(classes) < len(group) else ""].append(document)
        answers += received.values()
    return answers


def _of_studies(documents: list[Document]) -> list[Document]:
    """Documents about several images; a key object goes with the report that was made with it."""

    def made(document: Document) -> tuple[str, ...]:
        ours = claims.equipment(document.dataset)
        return text(document.dataset, "StudyInstanceUID"), text(ours, "DeviceUID"), text(ours, "ContributionDateTime")

    found = [document for document in documents if parts.is_of_study(document)]
    reports = {(*made(document), _summary(document)) for document in found}
    marks = [document for document in documents if document.kind is ResultKind.KEY_OBJECT]
    return found + [document for document in marks if (*made(document), _summary(document)) in reports]


def _summary(document: Document) -> str:
    return next((claim.value for claim in claims.of_study(document) if claim.about == "summary"), "")


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


def _check_made_file(document: Document, artifact: Artifact, context: Subject, report: Report) -> None:
    """As we name and encode it; archives may rewrite file meta information."""
    named = [text(document.dataset, f"{what}UID") for what in ("SOPClass", "SOPInstance", "SeriesInstance")]
    wanted = [artifact.sop_class_uid, artifact.sop_instance_uid, context.series_uid(artifact.kind)]
    if named != wanted:
        report(Rule.UID, "SOPInstanceUID")
    fresh = {"TransferSyntaxUID": EXPLICIT_LITTLE_ENDIAN, "ImplementationClassUID": IMPLEMENTATION_CLASS_UID}
    objects.equal(document.parsed.meta, fresh, Rule.FILE_META, report)


def _check_alternatives(artifact: Artifact, document: Document, context: Subject, report: Report) -> None:
    """The same data set under other classes and UIDs, each with the predecessors of its own class."""
    if listed(document.dataset, PREDECESSORS) != _replaced(artifact, context):
        report(Rule.PREDECESSOR, PREDECESSORS)
    first = top(artifact.content) if artifact.alternatives else {}
    ignored = dict.fromkeys([*_NAMES, *([PREDECESSORS] if PREDECESSORS in first else [])])
    for other in artifact.alternatives:
        found = top(other.content)
        named = [found.get(keyword, b"").decode("latin-1").rstrip("\0") for keyword in _NAMES[1:]]
        right = named == [other.sop_class_uid, other.sop_instance_uid] * 2
        if not right or first | ignored != found | ignored or _KIND_OF.get(named[0]) is not artifact.kind:
            report(Rule.ALTERNATIVE, other.sop_class_uid)
        elif PREDECESSORS in first and listed(read(other.content).dataset, PREDECESSORS) != _replaced(other, context):
            report(Rule.PREDECESSOR, PREDECESSORS)


def _replaced(artifact: Artifact, context: Subject) -> list[tuple[str, str, str, str]]:
    return [
        (context.source.ref.study_instance_uid, each.series_instance_uid, each.sop_class_uid, each.sop_instance_uid)
        for each in context.replaced(artifact.kind, artifact.sop_class_uid)
    ]
