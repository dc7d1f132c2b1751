"""What a report is about: the images of a study, or one of them alone; and what its documents share.

A report of one image is that of a study which has no other. No clock is read, and the order in which images are given
does not matter. PS3.3 C.17.2; IHE RAD AIR 6.5.3.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from pydicom import Dataset

from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results import copied_attributes
from cxr_node.dicom.results.context import (
    LAST,
    Context,
    earlier_documents,
    mark,
    start,
    stated_number,
    study_reference,
    uid,
)
from cxr_node.dicom.results.copied_attributes import Moment, moment_of
from cxr_node.dicom.words import study_wording, wording, zones
from cxr_node.domain import ResultRef, Verdict
from cxr_node.outcome import NotAnalysed
from cxr_node.result_kinds import BASIC_TEXT_SR, DOCUMENTS, SHAPES, ReportPer, ResultKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """The images that a report is about."""

    head: Context
    """Whose header the report takes over: the first analysed image, else what the admission rules say of another."""
    images: tuple[Context, ...]
    """Analysed ones, in order."""
    others: tuple[NotAnalysed, ...] = ()
    priors: tuple[Context, ...] = ()
    earlier: tuple[tuple[ResultRef, ...], ...] = ()
    """Documents of each report that was made before, the first one first."""
    numbers: dict[str, int] = field(init=False, repr=False)
    """Number of each image in the report, by its SOP Instance UID, from 1."""
    clock: Moment = field(init=False, repr=False)
    """When the last image was received."""
    answer: tuple[str, ...] = field(init=False, repr=False)
    """Everything that the content depends on, but earlier reports."""

    def __post_init__(self) -> None:
        alone = self.is_of_one  # then no number is read
        keys = [(0, 0, each.source.ref.sop_instance_uid) if alone else place(each.source) for each in self.images]
        keys += [(*_numbers(each.series_number, each.instance_number), each.sop_instance_uid) for each in self.others]
        latest = max(each.origin.received_at for each in (self.head, *self.images))
        head = self.head
        object.__setattr__(self, "numbers", {key[-1]: number for number, key in enumerate(sorted(keys), 1)})
        object.__setattr__(self, "clock", moment_of(head.source.dataset, latest, head.zone))
        object.__setattr__(self, "answer", self._all_that_counts())

    @property
    def is_of_one(self) -> bool:
        """Whether it is about one image, with the sentences of that."""
        return len(self.images) == 1 and not self.others and not self.priors

    @property
    def verdict(self) -> Verdict:
        """The worst of all images; no numbers are averaged."""
        return Verdict.worst(each.finding.decision.verdict for each in self.images)

    @property
    def decisive(self) -> Context:
        """First image that has the verdict of the study."""
        return next((each for each in self.images if each.finding.decision.verdict is self.verdict), self.head)

    @property
    def paged(self) -> tuple[Context, ...]:
        """Images whose printed page goes with a message: those that decided; alone, others would say otherwise."""
        return tuple(each for each in self.images if each.page and each.finding.decision.verdict is self.verdict)

    @property
    def replaces(self) -> bool:
        """Whether it takes the place of an earlier report of the study; that of an image says nothing of it."""
        is_later = any(self.replaced(kind, each) for kind in DOCUMENTS for each in _classes(kind))
        return self.head.per is ReportPer.STUDY and is_later

    @property
    def summary(self) -> str:
        """The sentence that stands for it."""
        findings = {self.number(each): each.finding for each in self.images}
        if self.is_of_one:
            said = wording.summary(self.images[0].finding)
        else:
            said = study_wording.summary(findings, self.verdict, len(self.numbers))
        return f"{study_wording.REPLACES if self.replaces else ''}{said}"

    @property
    def source(self) -> Source:
        """Whose header it takes over."""
        return self.head.source

    @property
    def devices(self) -> tuple[Context, ...]:
        """Of each algorithm that has a say, one image that it judged."""
        found: dict[str, Context] = {}
        for each in (self.head, *self.images):
            found.setdefault(each.device_uid, each)
        return tuple(found.values())

    def number(self, image: Context) -> int:
        """Number of an analysed image in the report."""
        return self.numbers[image.source.ref.sop_instance_uid]

    def label(self, image: Context | NotAnalysed) -> str:
        """Begin the line of one of several images."""
        if isinstance(image, NotAnalysed):
            return study_wording.label(
                self.numbers[image.sop_instance_uid], None, image.series_number, image.instance_number
            )
        series, instance = (stated_number(image.source, keyword) for keyword in ("SeriesNumber", "InstanceNumber"))
        return study_wording.label(self.number(image), image.radiograph.view, series, instance)

    @property
    def listed(self) -> list[Context | NotAnalysed]:
        """All images, by their numbers."""
        every: list[Context | NotAnalysed] = [*self.images, *self.others]
        return sorted(every, key=lambda each: self.numbers[named(each)[2]])

    def instance_uid(self, kind: ResultKind, sop_class_uid: str | None = None) -> str:
        """SOP Instance UID: the same for the same images, weights, configuration, program and SOP Class."""
        sop_class_uid = sop_class_uid or SHAPES[kind].sop_class_uid
        replaced = [f"replaces {each.sop_instance_uid}" for each in self.replaced(kind, sop_class_uid)]
        told = ["says that it replaces another"] if self.replaces else []
        if kind is ResultKind.FHIR and self.paged:
            told.append(f"with pages {sha256(b''.join(each.page for each in self.paged)).hexdigest()}")
        return uid("instance", *self.answer, kind, sop_class_uid, *replaced, *told)

    def series_uid(self, kind: ResultKind) -> str:
        """Series Instance UID: one document a series, for OHIF shows only the first SR of a series."""
        return uid("series", self.source.ref.study_instance_uid, *self.answer, kind)

    def series_description(self, kind: ResultKind) -> str:
        """Name the series of a document, by the verdict of the study."""
        own = mark(self.head.settings, self.verdict)
        if not self.images:
            return wording.marked(own, "AI: UNCERTAIN (research)")
        finding = self.decisive.finding
        return wording.series_description(kind, finding, shows_map=False, numbered=self.is_of_one, mark=own)

    def instance_number(self, kind: ResultKind) -> int:
        """Number in its series."""
        return 1

    def is_shared(self, kind: ResultKind) -> bool:
        """Whether others are in its series."""
        return False

    def replaced(self, kind: ResultKind, sop_class_uid: str) -> tuple[ResultRef, ...]:
        """Earlier documents that one of this kind and class names as replaced; none for what is no document.

        An answer that is given again after another one replaces that one, too: else the other would be the last word.
        """
        if self.head.per is ReportPer.IMAGE:
            return earlier_documents(self, self.earlier, kind, sop_class_uid)
        before = list(self.earlier)
        while before and any(each.series_instance_uid == self.series_uid(each.kind) for each in before[-1]):
            before.pop()  # it is the same report, made again
        named = [each for report in before for each in report if kind in DOCUMENTS and each.kind is kind]
        return tuple({each.sop_instance_uid: each for each in named if each.sop_class_uid == sop_class_uid}.values())

    def _all_that_counts(self) -> tuple[str, ...]:
        if self.head.per is ReportPer.IMAGE:
            return self.head.answer
        pictures = [each.picture.sop_instance_uid for each in self.images if each.has_picture]
        parts = [part for each in (*self.images, *self.priors) for part in each.answer]
        days = [copied_attributes.raw_text(each.source.dataset, "StudyDate").hex() for each in self.priors]
        others = [repr(each) for each in sorted(self.others, key=lambda each: each.sop_instance_uid)]
        places = [self.label(each) for each in self.images]
        head = [] if self.images else self.head.answer
        return (
            *head, *parts, *pictures, *others, *places, *days, f"{len(self.priors)} priors", f"{self.clock.at:%z}",
            self.clock.identity,
        )  # fmt: skip


def about(of: Context | Study) -> Study:
    """Take one image as a study that has no other."""
    return of if isinstance(of, Study) else Study(head=of, images=(of,), earlier=of.precedent.earlier_results)


def in_order(images: Iterable[Context]) -> tuple[Context, ...]:
    """Sort images by series, number and UID."""
    return tuple(sorted(images, key=lambda each: place(each.source)))


def named(image: Context | NotAnalysed) -> tuple[str, str, str]:
    """Series, SOP Class and SOP Instance UID of an image."""
    of = image if isinstance(image, NotAnalysed) else image.source.ref
    return of.series_instance_uid, of.sop_class_uid, of.sop_instance_uid


def start_report(study: Study, kind: ResultKind, content: Dataset) -> Dataset:
    """Header, order, evidence and content tree of a structured report.

    Never verified and always preliminary: no person has read it (PS3.3 C.17.2).
    """
    dataset = start(study, kind)
    dataset.ReferencedPerformedProcedureStepSequence = []
    ref = study.source.ref
    if requests := copied_attributes.requests(study.source.dataset, ref.study_instance_uid):
        dataset.ReferencedRequestSequence = requests
    dataset.CurrentRequestedProcedureEvidenceSequence = [study_reference(ref.study_instance_uid, evidence(study))]
    if study.priors and kind is ResultKind.REPORT:
        studies = dict.fromkeys(each.source.ref.study_instance_uid for each in study.priors)
        dataset.PertinentOtherEvidenceSequence = [
            study_reference(of, [named(each) for each in study.priors if each.source.ref.study_instance_uid == of])
            for of in studies
        ]
    dataset.update(content)
    dataset.PerformedProcedureCodeSequence = []
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    return dataset


def evidence(study: Study) -> list[tuple[str, str, str]]:
    """All images and pictures: series, SOP Class and SOP Instance UID of each (PS3.3 C.17.2.1)."""
    members = [named(each) for each in study.listed or [study.head]]
    pictures = [each.picture for each in study.images if each.has_picture]
    return members + [(each.series_instance_uid, each.sop_class_uid, each.sop_instance_uid) for each in pictures]


def looked(image: Context) -> list[str]:
    """Lines on where the network looked."""
    return zones.lines(image.looked, image.finding.decision)


def _classes(kind: ResultKind) -> tuple[str, ...]:
    return (BASIC_TEXT_SR,) if kind is ResultKind.REPORT else (SHAPES[kind].sop_class_uid, *SHAPES[kind].alternatives)


def place(source: Source) -> tuple[int, int, str]:
    """Where an image stands among others."""
    numbers = _numbers(stated_number(source, "SeriesNumber"), stated_number(source, "InstanceNumber"))
    return *numbers, source.ref.sop_instance_uid


def _numbers(series_number: int | None, instance_number: int | None) -> tuple[int, int]:
    return LAST if series_number is None else series_number, LAST if instance_number is None else instance_number
