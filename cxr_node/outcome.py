"""What is made of an image and of a study: the nouns of answers, refusals and result objects."""

from __future__ import annotations

from dataclasses import dataclass, field

from cxr_node.domain import Finding, Measurement, Origin, Reason, ResultRef, Verdict, View, Voi
from cxr_node.result_kinds import ResultKind
from cxr_node.subgroups import Subgroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was said of one image, kept until its study is reported: nothing of it names the patient.

    Attributes
    ----------
    finding : its map has no cells; the regions stay
    rows, columns : of the radiograph
    header_sha256 : of what the results carry over from the header: with the pixels, all that the report depends on
    pixel_aspect, view, remarks, cautions, pixel_digest, voi : as `Radiograph`
    results : the objects of this image alone that go with the report of its study, its picture among them
    page_sha256 : digest of the printed page among them, by which it is stored; None: there is none
    """

    finding: Finding
    rows: int
    columns: int
    pixel_aspect: float
    view: View
    remarks: tuple[str, ...]
    cautions: tuple[str, ...]
    pixel_digest: str
    header_sha256: str
    voi: Voi | None = None
    results: tuple[ResultRef, ...] = ()
    page_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAnalysed:
    """An image of a study that was not analysed, as the report of the study lists it."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    series_number: int | None
    instance_number: int | None
    reason: Reason | None
    """None: the node could not, for a fault of its own."""
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyImage:
    """One analysed image, for the report of its study."""

    content: bytes = field(repr=False)
    """DICOM Part 10 file, as received."""
    origin: Origin
    judgement: Judgement
    page: bytes = field(default=b"", repr=False)
    """Part 10 file of its printed page, where a message holds that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCase:
    """What the report of a study is made of; in whichever order it is given, the report is the same."""

    images: tuple[StudyImage, ...]
    others: tuple[NotAnalysed, ...] = ()
    earlier_reports: tuple[tuple[ResultRef, ...], ...] = ()
    """Documents of each report of this study that was made before, the first one first: they are replaced."""
    priors: tuple[StudyImage, ...] = ()
    """Earlier radiographs of the patient, of other studies, judged by the same profile."""
    unanswered: tuple[tuple[bytes, Origin], ...] = field(default=(), repr=False)
    """Part 10 file and origin of each of `others`, where no image was analysed: whose patient and study it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyReport:
    """The answer for a study."""

    verdict: Verdict
    artifacts: tuple[Artifact, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One result object, as it is sent and kept."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    content: bytes
    """DICOM Part 10 file, Explicit VR Little Endian."""
    alternatives: tuple[Artifact, ...] = field(default=(), repr=False)
    """The same result in other SOP Classes: where a destination does not take this one's, the first that it takes."""

    @property
    def sop_class_choices(self) -> tuple[Artifact, ...]:
        """This one and its alternatives, the first choice first."""
        return (self, *self.alternatives)

    @property
    def ref(self) -> ResultRef:
        """What names it."""
        return ResultRef(
            kind=self.kind,
            sop_class_uid=self.sop_class_uid,
            sop_instance_uid=self.sop_instance_uid,
            series_instance_uid=self.series_instance_uid,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Not analysed, and why: a value, never an exception."""

    reason: Reason
    sentence: str
    """For people; without patient data."""
    artifacts: tuple[Artifact, ...] = field(default=(), repr=False)
    """The note that says so, where a destination wants one and it may be made."""
    listed: NotAnalysed | None = field(default=None, repr=False)
    """How the report of its study lists it; None: not at all (no radiograph, or a patient in doubt)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one profile says of one image, as far as two profiles are compared; nothing of it names the patient."""

    profile: str
    """Name and version."""
    verdict: str
    """The word for programs."""
    abstain_reason: str | None = None
    score: float | None = None
    """Calibrated probability, or score, of the finding, in [0, 1]; None: the image was not analysed."""
    distance: float | None = None
    peak: tuple[float, float] | None = None
    """Where the heat map is hottest, as shares of the rows and of the columns."""
    reason: str | None = None
    """Why the image was not analysed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """Analysed: the finding and the objects that carry it."""

    finding: Finding
    artifacts: tuple[Artifact, ...] = field(repr=False)
    """For destinations that want a report of each image."""
    pictures: tuple[Artifact, ...] = field(default=(), repr=False)
    """Objects of this image that go with the report of its study."""
    judgement: Judgement | None = field(default=None, repr=False)
    """What the report of its study is made of; None: no destination wants one."""
    subgroup: Subgroup | None = None
    """Among whom the ledger counts it."""
    answer: Answer | None = None
    """What a candidate is compared with."""
    measurement: Measurement | None = field(default=None, repr=False)
    """For the comparison of the site's films over time (`assurance.drift`)."""


Outcome = Rejected | Reported
