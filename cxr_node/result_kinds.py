"""The kinds of result objects: what each is as a DICOM object, and what people call it. One row for each kind.

Knows no library: the room that builds them, the one that sends them and the command line read the same row.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256


class ResultKind(StrEnum):
    """The result objects a destination may ask for."""

    REPORT = "report"
    MEASUREMENTS = "measurements"
    HEATMAP = "heatmap"
    PRESENTATION_STATE = "presentation-state"
    SEGMENTATION = "segmentation"
    FRAMES = "heatmap-frames"
    KEY_OBJECT = "key-object"
    PDF = "pdf"
    NOT_ANALYSED = "not-analysed"
    """Of a REJECTED radiograph, which has no result."""
    HL7 = "hl7"
    FHIR = "fhir"


OF_ONE_IMAGE = frozenset({
    ResultKind.HEATMAP, ResultKind.FRAMES, ResultKind.PRESENTATION_STATE, ResultKind.SEGMENTATION, ResultKind.PDF,
})  # fmt: skip
"""Kinds that are about one image and made of its pixels, whatever a report is about."""


class ReportPer(StrEnum):
    """What one report is about."""

    STUDY = "study"
    """All images of a study together, once it is ripe."""
    IMAGE = "image"
    """Each image alone, as soon as it is judged."""


class Release(StrEnum):
    """What becomes of results that are made."""

    LIVE = "live"
    SHADOW = "shadow"
    """They are kept, shown and counted, and not sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a destination wants."""

    per: ReportPer
    kinds: tuple[ResultKind, ...]
    within: tuple[ResultKind, ...] = ()
    """Kinds that are made too, because one of `kinds` holds them; they are not sent by themselves."""
    live_share: float = 1.0
    """Of its studies, the share whose results it is sent, in [0, 1]; those of the others stay in shadow."""

    def is_shadow(self, study_instance_uid: str) -> bool:
        """Whether results of a study are kept and not sent.

        All objects of a study agree, at every destination of the same share, and whenever it is asked; a study that is
        live at one share is live at each greater one.
        """
        if self.live_share in (0.0, 1.0):
            return self.live_share == 0.0
        digest = sha256(b"release " + study_instance_uid.encode()).digest()
        return int.from_bytes(digest[:8]) / 2.0**64 >= self.live_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a kind of result is: of DICOM objects, each of which has a series of its own, or a message.

    words : what people call it in tables
    suffix : of a file that holds one
    series : what its series is called, where that says no verdict and so can contradict none
    """

    words: str
    suffix: str = ".dcm"
    sop_class_uid: str = ""
    """"" of what is no DICOM object, and has none of the attributes below."""
    series_number: int = 0
    modality: str | None = None
    """None: the source's, as the SC Equipment module has it (PS3.3 C.8.6.1)."""
    series: str = ""
    alternatives: tuple[str, ...] = ()
    """SOP Classes that hold the same data set, for destinations that do not take the first one."""
    is_always_proposed: bool = False
    """In every association, so that one association serves all standard results; else to who is sent such objects."""

    @property
    def is_dicom(self) -> bool:
        """Whether it is a DICOM object: checked, referred to, committed and listed as one."""
        return bool(self.sop_class_uid)


_STORAGE = "1.2.840.10008.5.1.4.1.1."
BASIC_TEXT_SR, ENHANCED_SR, COMPREHENSIVE_SR, COMPREHENSIVE_3D_SR = (f"{_STORAGE}88.{n}" for n in (11, 22, 33, 34))
SHAPES = {
    ResultKind.REPORT: Shape(
        sop_class_uid=BASIC_TEXT_SR, series_number=9100, modality="SR", words="report", is_always_proposed=True
    ),
    ResultKind.MEASUREMENTS: Shape(
        sop_class_uid=COMPREHENSIVE_3D_SR,
        series_number=9101,
        modality="SR",
        words="measurements",
        series="measurements",
        alternatives=(COMPREHENSIVE_SR, ENHANCED_SR),  # no SCOORD3D is used, so all three can say it
        is_always_proposed=True,
    ),
    ResultKind.HEATMAP: Shape(
        sop_class_uid=f"{_STORAGE}7", series_number=9102, modality=None, words="heat map", is_always_proposed=True
    ),
    ResultKind.PRESENTATION_STATE: Shape(
        sop_class_uid=f"{_STORAGE}11.1", series_number=9103, modality="PR", words="presentation state", series="region"
    ),
    ResultKind.SEGMENTATION: Shape(
        sop_class_uid=f"{_STORAGE}66.4", series_number=9104, modality="SEG", words="segmentation", series="SEG"
    ),
    ResultKind.FRAMES: Shape(
        sop_class_uid=f"{_STORAGE}7.4", series_number=9105, modality=None, words="heat map frames"
    ),
    ResultKind.KEY_OBJECT: Shape(
        sop_class_uid=f"{_STORAGE}88.59", series_number=9106, modality="KO", words="key object", series="key image"
    ),
    ResultKind.PDF: Shape(
        sop_class_uid=f"{_STORAGE}104.1", series_number=9107, modality="DOC", words="PDF", series="report PDF"
    ),
    ResultKind.NOT_ANALYSED: Shape(
        sop_class_uid=BASIC_TEXT_SR, series_number=9108, modality="SR", words="note", is_always_proposed=True
    ),
    ResultKind.HL7: Shape(words="HL7 message", suffix=".hl7"),
    ResultKind.FHIR: Shape(words="FHIR bundle", suffix=".json"),
}
DICOM_KINDS = tuple(kind for kind, shape in SHAPES.items() if shape.is_dicom)
"""What an archive may be sent."""
DOCUMENTS = frozenset({ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.HL7, ResultKind.FHIR})
"""Documents that each report of a study has one of, and that replace those of the report before."""

_SR_CLASSES = {
    COMPREHENSIVE_3D_SR: "Comprehensive 3D SR",
    COMPREHENSIVE_SR: "Comprehensive SR",
    ENHANCED_SR: "Enhanced SR",
}


def called(kind: str, sop_class_uid: str | None = None) -> str:
    """What a result is to people; with its SOP Class where a destination did not take the first."""
    name = SHAPES[ResultKind(kind)].words if kind in set(ResultKind) else kind
    if sop_class_uid is None:
        return name
    return f"{name} as {_SR_CLASSES.get(sop_class_uid, sop_class_uid.removeprefix(_STORAGE))}"
