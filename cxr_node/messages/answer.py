"""What a study was answered, as plain values: the facts of which an HL7 message and a FHIR bundle are made.

Lines, codes, numbers and rules are those of the SRs, asked where the SRs ask them: no message can say anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from cxr_node.dicom.results import identity, measurement_sr
from cxr_node.dicom.results.context import Context
from cxr_node.dicom.results.identity import Code, Order, Patient
from cxr_node.dicom.results.sections import sections
from cxr_node.dicom.results.study import Study, named
from cxr_node.dicom.words.coded_findings import OWN_SCHEME
from cxr_node.dicom.words.names import ABSTAIN_REASONS
from cxr_node.domain import AbstainReason, Verdict
from cxr_node.outcome import NotAnalysed
from cxr_node.result_kinds import ResultKind

NO_ANSWER = ("no-answer", OWN_SCHEME, "Answer of the AI")
"""In place of the finding, where no image was analysed and none was looked for."""
_NOT_ANALYSED = "not-analysed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image of the study, by its number in the report."""

    number: int
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    is_analysed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """Certainty or score of the image that decided."""

    concept: Code
    value: str
    unit: Code
    image: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Why there is no answer for an image."""

    code: Code
    image: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """Who says so."""

    name: str
    version: str
    manufacturer: str
    serial_number: str
    device_uid: str
    parameters: tuple[str, ...]
    """Thresholds and all else that the verdict depends on, as "name=value"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the report: what people read."""

    heading: Code
    concept: Code
    text: str
    images: tuple[int, ...]
    """Numbers of those that it leads to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Printed page of an image that the verdict rests on."""

    image: int
    pdf: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A study's report."""

    uid: str
    """Of the message, as that of a result object: a function of all that it says."""
    study_instance_uid: str
    patient: Patient
    order: Order
    at: datetime
    """When the last image was received; with its offset from UTC."""
    verdict: Verdict
    words: str
    """The verdict for people."""
    finding: Code
    """What was looked for."""
    presence: Code
    number: Number | None
    doubts: tuple[Doubt, ...]
    algorithms: tuple[Algorithm, ...]
    lines: tuple[Line, ...]
    images: tuple[Image, ...]
    replaced: tuple[str, ...]
    """UIDs of the messages of this kind that it takes the place of."""
    pages: tuple[Page, ...]
    priority: str
    """In which a site wants a positive to be read, in HL7's letter; "" for every other verdict."""

    @property
    def summary(self) -> str:
        """The sentence that stands for it."""
        return self.lines[0].text


def answer_of(study: Study, kind: ResultKind) -> Answer:
    """Put together what a message of this kind tells of a study."""
    source, decisive = study.source, study.decisive
    return Answer(
        uid=study.instance_uid(kind),
        study_instance_uid=source.ref.study_instance_uid,
        patient=identity.patient_of(source),
        order=identity.order_of(source, study.clock.offset or ""),
        at=study.clock.at,
        verdict=study.verdict,
        words=decisive.finding.target.name(study.verdict),
        finding=decisive.finding.target.code if study.images else NO_ANSWER,
        presence=_plain(measurement_sr.PRESENCE[study.verdict]),
        number=_number(study),
        doubts=tuple(_doubts(study)),
        algorithms=tuple(_algorithms(study)),
        lines=tuple(_lines(study)),
        images=tuple(_image(study, each) for each in study.listed),
        replaced=tuple(each.sop_instance_uid for each in study.replaced(kind, "")),
        pages=pages_of(study) if kind is ResultKind.FHIR else (),
        priority=priority_of(study),
    )


def pages_of(study: Study) -> tuple[Page, ...]:
    """Pages that go with a message about it."""
    from cxr_node.dicom.results import encapsulated_pdf  # fpdf2 and its fonts take 0.3 s

    return tuple(Page(image=study.number(each), pdf=encapsulated_pdf.document(each.page)) for each in study.paged)


def priority_of(study: Study) -> str:
    """HL7 priority of a message about it, where the site has one for positives."""
    triage = study.head.settings.triage
    if triage is None or study.verdict is not Verdict.POSITIVE:
        return ""
    return triage.hl7_priority or ""


def _number(study: Study) -> Number | None:
    stated = measurement_sr.certainty(study.decisive.finding) if study.images else None
    if stated is None:
        return None
    concept, value, unit = stated
    return Number(concept=_plain(concept), value=f"{value:.10g}", unit=_plain(unit), image=study.number(study.decisive))


def _doubts(study: Study) -> Iterator[Doubt]:
    for each in study.listed:
        number = study.numbers[named(each)[2]]
        if isinstance(each, NotAnalysed):
            yield Doubt(code=(_NOT_ANALYSED, OWN_SCHEME, "image not analysed"), image=number)
        elif each.finding.decision.abstain_reason is not None:
            yield Doubt(code=_reason(each.finding.decision.abstain_reason), image=number)


def _reason(reason: AbstainReason) -> Code:
    return reason.value, OWN_SCHEME, ABSTAIN_REASONS[reason]


def _algorithms(study: Study) -> Iterator[Algorithm]:
    """The one that decided first."""
    decided = study.decisive.device_uid
    for device in sorted(study.devices, key=lambda each: each.device_uid != decided):
        parameters = measurement_sr.algorithm_parameters(device) if study.images else {}
        yield Algorithm(
            name=device.model_name,
            version=device.algorithm_version,
            manufacturer=device.manufacturer,
            serial_number=device.serial_number,
            device_uid=device.device_uid,
            parameters=tuple(f"{name}={value}" for name, value in parameters.items()),
        )


def _lines(study: Study) -> Iterator[Line]:
    for section in sections(study):
        for line in section.lines:
            own = (study.numbers.get(named(each)[2]) for each in line.images)
            yield Line(
                heading=_plain(section.heading),
                concept=_plain(section.concept),
                text=line.text,
                images=tuple(number for number in own if number is not None),
            )


def _image(study: Study, image: Context | NotAnalysed) -> Image:
    series, sop_class, instance = named(image)
    return Image(
        number=study.numbers[instance],
        series_instance_uid=series,
        sop_class_uid=sop_class,
        sop_instance_uid=instance,
        is_analysed=not isinstance(image, NotAnalysed),
    )


class _Coded(Protocol):
    """A code of pydicom's."""

    @property
    def value(self) -> str: ...
    @property
    def scheme_designator(self) -> str: ...
    @property
    def meaning(self) -> str: ...


def _plain(code: _Coded) -> Code:
    return code.value, code.scheme_designator, code.meaning
