"""Judge files without a network as the node judges studies: all images of a study together, one answer for each study.

What the node would have sent can be written to a folder. It asks no archive, so earlier radiographs have no say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cxr_node import pipeline, study_pipeline
from cxr_node.config.destinations import STANDARD_KINDS
from cxr_node.config.schema import Config
from cxr_node.dicom.read import header
from cxr_node.domain import PNEUMONIA, InstanceRef, Origin, Precedent, Reason, Target, Verdict
from cxr_node.errors import InstanceError
from cxr_node.outcome import Artifact, Judgement, NotAnalysed, Rejected, StudyCase, StudyImage
from cxr_node.pipeline import Classifier
from cxr_node.result_kinds import ReportPer, ResultKind
from cxr_node.tools import classify
from cxr_node.tools.classify import Answer, ResultFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Files of one study, in the order of their names; or one file that belongs to none, and why."""

    study_instance_uid: str | None
    files: tuple[tuple[Path, InstanceRef], ...] = ()
    refused: Answer | None = None

    @property
    def paths(self) -> list[Path]:
        """All of them."""
        return [path for path, _ in self.files] + ([self.refused.path] if self.refused else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyAnswer:
    """What the node says of one study."""

    study_instance_uid: str | None
    """None: of a file that belongs to none."""
    verdict: Verdict
    """REJECTED: there is nothing to say of it."""
    images: tuple[Answer, ...]
    """Of each file, with the objects of its own that go with the report."""
    artifacts: tuple[Artifact, ...] = field(default=(), repr=False)
    """Objects that the study has one of."""

    @property
    def target(self) -> Target | None:
        """What the verdict is about; None where no image was analysed."""
        targets = {each.verdict: each.target for each in self.images if each.target is not None}
        return targets.get(self.verdict, next(iter(targets.values()), None))

    @property
    def word(self) -> str:
        """The verdict for programs: PNEUMONIA, NORMAL, UNCERTAIN or REJECTED."""
        return (self.target or PNEUMONIA).word(self.verdict)

    def as_json(self, profile: str) -> dict[str, object]:
        """One line of `cxr-node classify --study --json`; `images` are as without `--study`."""
        images = [image.as_json(profile) for image in self.images]
        return {"study": self.study_instance_uid, "verdict": self.word, "images": images}

    def write(self, results: ResultFiles) -> list[Path]:
        """Write what the node would send: what the study has one of under its UID, pictures by their images' names.

        Raises
        ------
        DataError : as `ResultFiles.write`.
        """
        uid, written = self.study_instance_uid, []
        if uid is not None and self.artifacts:
            written += results.write(Path(uid), uid, self.artifacts)
        for image in self.images:
            if image.artifacts:
                written += results.write(image.path, image.sop_instance_uid, image.artifacts)
        return written


def group(paths: Iterable[Path]) -> list[Found]:
    """Group files by their Study Instance UID, the studies in the order of their first files."""
    studies: dict[str, list[tuple[Path, InstanceRef]]] = {}
    found: dict[str, Found] = {}
    for path in paths:
        try:
            source = header.read(classify.part10(path))
        except InstanceError as error:
            source = Rejected(reason=Reason.UNREADABLE_PIXELS, sentence=str(error))
        if isinstance(source, Rejected):
            found[f"{path}/"] = Found(study_instance_uid=None, refused=classify.answer(path, source))
            continue
        uid = source.ref.study_instance_uid
        studies.setdefault(uid, []).append((path, source.ref))
        found[uid] = Found(study_instance_uid=uid, files=tuple(studies[uid]))
    return list(found.values())


def judge(found: Sequence[Found], classifier: Classifier, config: Config, *, objects: bool) -> Iterator[StudyAnswer]:
    """Answer for each study, in order; with its result objects where asked for: the standard ones if nobody wants one.

    The content time of the results is the files' modification time: the same files give the same bytes.
    """
    wanted = config.kinds(ReportPer.STUDY) or frozenset(STANDARD_KINDS)
    kinds = wanted if objects else frozenset({ResultKind.REPORT})
    seen = _Seen()
    for each in found:
        if each.refused is not None:
            yield StudyAnswer(study_instance_uid=None, verdict=Verdict.REJECTED, images=(each.refused,))
            continue
        judged = [_judged(path, seen.before(ref), classifier, config, kinds) for path, ref in each.files]
        report = study_pipeline.report_study(_case(judged), config, kinds)
        yield StudyAnswer(
            study_instance_uid=each.study_instance_uid,
            verdict=Verdict.REJECTED if report is None else report.verdict,
            images=tuple(_own(judged, is_reported=report is not None)),
            artifacts=report.artifacts if report is not None and objects else (),
        )


@dataclass(slots=True)
class _Seen:
    """Whose each study is, and of which study each series: the first file that says so counts, as in the ledger."""

    patients: dict[str, str] = field(default_factory=dict)
    studies: dict[str, str] = field(default_factory=dict)

    def before(self, ref: InstanceRef) -> Precedent:
        """What the files before this one say, which then says its own."""
        told = Precedent(
            patient_key_of_study=self.patients.get(ref.study_instance_uid),
            study_instance_uid_of_series=self.studies.get(ref.series_instance_uid),
        )
        if ref.patient_key:
            self.patients.setdefault(ref.study_instance_uid, ref.patient_key)
        self.studies.setdefault(ref.series_instance_uid, ref.study_instance_uid)
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """One file of a study."""

    answer: Answer
    content: bytes = field(repr=False)
    origin: Origin
    told: Judgement | NotAnalysed | None
    """What the report is made of; None: it does not have this file."""
    page: bytes = field(default=b"", repr=False)


def _judged(
    path: Path, precedent: Precedent, classifier: Classifier, config: Config, kinds: frozenset[ResultKind]
) -> _Judged:
    content, origin = classify.part10(path), classify.origin(path)
    judged = pipeline.judge(content, classifier, config, precedent)
    if isinstance(judged, Rejected):
        judged = pipeline.with_note(judged, content, origin, config, precedent)
        answer = classify.answer(path, judged, judged.artifacts)
        return _Judged(answer=answer, content=content, origin=origin, told=judged.listed)
    pictures = pipeline.explain(judged, origin, config, kinds=kinds, per=ReportPer.STUDY)
    told = pipeline.judgement(judged, pictures)
    page = next((each.content for each in pictures if each.kind is ResultKind.PDF), b"")
    answer = classify.answer(path, judged, pictures)
    return _Judged(answer=answer, content=content, origin=origin, told=told, page=page)


def _case(judged: Sequence[_Judged]) -> StudyCase:
    images = tuple(
        StudyImage(content=each.content, origin=each.origin, judgement=each.told, page=each.page)
        for each in judged
        if isinstance(each.told, Judgement)
    )
    listed = [(each, each.told) for each in judged if isinstance(each.told, NotAnalysed)]
    unanswered = () if images else tuple((each.content, each.origin) for each, _ in listed)
    return StudyCase(images=images, others=tuple(told for _, told in listed), unanswered=unanswered)


def _own(judged: Sequence[_Judged], *, is_reported: bool) -> Iterator[Answer]:
    """Pictures go with a report, notes where there is none; a file that lies there twice has its own once."""
    known: set[str] = set()
    for each in judged:
        goes = is_reported == isinstance(each.told, Judgement)
        own = tuple(one for one in each.answer.artifacts if goes and one.sop_instance_uid not in known)
        known.update(one.sop_instance_uid for one in own)
        yield replace(each.answer, artifacts=own)
