"""The nouns of the house and their units.

Imports no other module of the package, so that every room may use them, and no numpy: only code that holds an array
needs it.
All values are frozen and valid once constructed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from cxr_node.result_kinds import ResultKind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


STORAGE = {
    "1.2.840.10008.5.1.4.1.1.1": "Computed Radiography Image",
    "1.2.840.10008.5.1.4.1.1.1.1": "Digital X-Ray Image - For Presentation",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "Digital X-Ray Image - For Processing",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture Image",
    "1.2.840.10008.5.1.4.1.1.7.2": "Multi-frame Grayscale Byte Secondary Capture Image",
    "1.2.840.10008.5.1.4.1.1.7.3": "Multi-frame Grayscale Word Secondary Capture Image",
}
"""All that `dicom.admission` may admit, and For Processing: a reason in the ledger says more than a lost context."""


CONSTANCY_CALLER = "CXR_CONSTANCY"
"""Calling AE title of the daily phantom."""
CONSTANCY_STUDY = "2.25.331172466158276091285306374312764918237"
"""Study Instance UID of the daily phantom, which no radiograph has: it is judged, and goes nowhere, and is no film."""

Point = tuple[float, float]
"""A place on the source pixel grid: (column, row), 1-based at pixel corners as SCOORD counts
(PS3.3 C.18.6.1.1: the top left corner of the top left pixel is 0\\0; its centre 0.5\\0.5)."""


class Verdict(StrEnum):
    """What the node says of one radiograph. INDETERMINATE is a result; REJECTED means not analysed.

    The values are the words that programs read. Three are the same for every target; a POSITIVE is called after its
    target (`Target.word`): PNEUMONIA.
    """

    POSITIVE = "POSITIVE"
    NEGATIVE = "NORMAL"
    INDETERMINATE = "UNCERTAIN"
    REJECTED = "REJECTED"

    @classmethod
    def of_word(cls, word: str) -> Verdict:
        """Read the word of any target; whatever is none of the common words names a finding."""
        return cls(word) if word in set(cls) else cls.POSITIVE

    @classmethod
    def worst(cls, found: Iterable[Verdict]) -> Verdict:
        """Of the images of a study; INDETERMINATE where none of them was analysed."""
        there, first = set(found), (cls.POSITIVE, cls.INDETERMINATE, cls.NEGATIVE)
        return next((each for each in first if each in there), cls.INDETERMINATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The finding that a profile's verdicts are about, and every word that is made of its name.

    finding : as it stands within a sentence, "pneumonia"
    code : Code Value, Coding Scheme Designator and Code Meaning of the finding (PS3.3 8.8)
    """

    finding: str
    code: tuple[str, str, str]

    def word(self, verdict: Verdict) -> str:
        """The word for programs: in the ledger, JSON and the log."""
        return self.finding.upper().replace(" ", "_") if verdict is Verdict.POSITIVE else verdict.value

    def name(self, verdict: Verdict) -> str:
        """The words for people: in reports, pictures and tables. They never read NORMAL, which nobody asserts."""
        return {
            Verdict.POSITIVE: f"{self.finding.upper()} SUSPECTED",
            Verdict.NEGATIVE: f"no {self.finding} detected",
            Verdict.INDETERMINATE: "UNCERTAIN",
            Verdict.REJECTED: "not analysed",
        }[verdict]

    def tracking_identifier(self, number: int) -> str:
        """Tracking Identifier of a region, by its number from 1, in every object that has the region."""
        return f"cxr_node {self.finding} {number}"


PNEUMONIA = Target(finding="pneumonia", code=("233604007", "SCT", "Pneumonia"))
"""The target of a profile that names none."""


class AbstainReason(StrEnum):
    """Why the classifier gives no answer."""

    BETWEEN_THRESHOLDS = "between-thresholds"
    VIEWS_DISAGREE = "views-disagree"
    UNLIKE_TRAINING_DATA = "unlike-training-data"


class Reason(StrEnum):
    """Why an instance was not analysed: stable words for ledger, logs, status and tests."""

    UNREADABLE_HEADER = "unreadable-header"
    SOP_CLASS = "sop-class-not-supported"
    MODALITY = "modality-not-radiography"
    OWN_RESULT = "own-result"
    DERIVED = "derived-or-secondary"
    MULTI_FRAME = "multi-frame"
    COLOR = "color"
    NOT_CHEST = "not-a-chest"
    NOT_FRONTAL = "view-not-frontal"
    TOO_SMALL = "too-small"
    TOO_LARGE = "too-large"
    IDENTITY_EMPTY = "identity-empty"
    IDENTITY_CONFLICT = "identity-conflict"
    AGE_OUTSIDE_POPULATION = "age-outside-population"
    NO_PIXELS = "no-pixel-data"
    UNREADABLE_PIXELS = "unreadable-pixels"
    IMPLAUSIBLE_PIXELS = "implausible-pixels"


class View(StrEnum):
    """Frontal projection as the header tells it; UNKNOWN where it does not."""

    PA = "PA"
    AP = "AP"
    UNKNOWN = "unknown"


class RuntimeKind(StrEnum):
    """What computes the network."""

    AUTO = "auto"  # the quickest that is here and answers as the reference does
    OPENVINO = "openvino"
    TORCH = "torch"  # the reference; on CUDA where there is a GPU


class Priority(IntEnum):
    """How urgent its sender says an instance is (PS3.7 9.3.1.1), in the order of work; the codes on the wire differ."""

    HIGH = 1
    MEDIUM = 2
    LOW = 3


class Scale(StrEnum):
    """What the numbers of a prediction are. A SCORE orders images; how often it is right, nobody measured."""

    PROBABILITY = "probability"
    SCORE = "score"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who sent an instance, and when it became ours (aware, UTC)."""

    calling_ae_title: str
    peer_host: str
    received_at: datetime

    def __post_init__(self) -> None:
        if self.received_at.tzinfo is None:
            raise ValueError("received_at must be an aware datetime")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRef:
    """What names one SOP Instance. The keys are one-way digests, never identifiers of a person."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    patient_key: str
    """sha256 over study and PatientID; "" where PatientID is empty."""
    accession_key: str | None
    """sha256 of the Accession Number; None where there is none."""
    station_name: str | None = None
    """Station Name (0008,1010) in ASCII, at most 16 characters: behind a router the only trace of the modality."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRef:
    """What names one result object that was made before."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Precedent:
    """What the ledger already knows of the study and the series that an instance claims to belong to."""

    patient_key_of_study: str | None = None
    study_instance_uid_of_series: str | None = None
    earlier_results: tuple[tuple[ResultRef, ...], ...] = ()
    """Results of each version of the same SOP Instance that came before in the same study, the first received first."""


NO_PRECEDENT = Precedent()


@dataclass(frozen=True, slots=True, kw_only=True)
class Voi:
    """A gray scale that was used in place of the header's first one, which shows nothing of the image."""

    lut: int | None = None
    """Which item of VOI LUT Sequence, counted from 0; None where it is a window."""
    window: tuple[float, float] = (0.0, 0.0)
    """Center and width, in units of the modality transformation's output."""
    function: str = "LINEAR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Radiograph:
    """One frontal chest radiograph, ready for the eye or for a network.

    Attributes
    ----------
    pixels : float32, shape (rows, cols), range [0, 1], larger means more attenuating (MONOCHROME2 sense)
    pixel_aspect : height of a pixel over its width (1.0 for square pixels)
    view : projection
    remarks : plain sentences a reader must know (unknown age, no VOI window, ...), no patient data
    cautions : those of them that must stand in the picture itself, at most 60 characters each
    voi : the gray scale that was used in place of the header's first one; None where that is shown, or none is needed
    pixel_digest : BLAKE3 of the decoded stored values; the same for every lossless transfer syntax
    """

    pixels: NDArray[np.float32]
    pixel_aspect: float
    view: View
    remarks: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    voi: Voi | None = None
    pixel_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the classifier measured.

    Attributes
    ----------
    probability : calibrated probability per label, in [0, 1]; a score where the operating point's scale is SCORE
    spread : largest difference of the calibrated probability between augmented views or members, in [0, 1]
    distance : distance of the image's features from the training data; 1.0 is the edge of
        held-out images of the training population; None where the profile does not know its training images
    classes : how the judged label's probability, and the rest, divide among the classes of a network that knows
        several, in [0, 1]. Only their sums are calibrated, so no result object states them.
    """

    probability: Mapping[str, float]
    spread: float
    distance: float | None
    classes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """Where verdicts begin, as chosen on data that training never saw. Probabilities in [0, 1]."""

    name: str
    label: str
    report_at: float
    rule_out_below: float
    max_spread: float
    max_distance: float | None
    """None: the distance is not measured, and no image is found unlike the training data."""
    scale: Scale = Scale.PROBABILITY
    """What the thresholds are compared with."""
    rule_out_max_distance: float | None = None
    """A stricter limit for NEGATIVE: what is ruled out must be nearer; None: `max_distance` holds for all."""

    def distance_limit(self, prediction: Prediction) -> float | None:
        """Distance beyond which this prediction is no answer; None where none is measured."""
        if self.rule_out_max_distance is None or prediction.probability[self.label] >= self.rule_out_below:
            return self.max_distance
        return self.rule_out_max_distance

    def __post_init__(self) -> None:
        if not 0.0 <= self.rule_out_below <= self.report_at <= 1.0:
            raise ValueError("0 <= rule_out_below <= report_at <= 1 must hold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict, and why there is no answer where it is UNCERTAIN."""

    verdict: Verdict
    abstain_reason: AbstainReason | None = None

    def __post_init__(self) -> None:
        if (self.verdict is Verdict.INDETERMINATE) != (self.abstain_reason is not None):
            raise ValueError("an abstain reason belongs to UNCERTAIN, and only to it")


class Place(StrEnum):
    """Where a region lies as the picture is stored. Which side of the patient that is, only the header can tell."""

    PICTURE_LEFT = "picture-left"
    PICTURE_RIGHT = "picture-right"
    BETWEEN = "between-the-lungs"
    OUTSIDE = "outside-the-lungs"


class Zone(StrEnum):
    """Thirds of a lung field, from apex to base."""

    UPPER = "upper"
    MIDDLE = "middle"
    LOWER = "lower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One place where the network looked; not the outline of a lesion.

    Attributes
    ----------
    outline : closed polygon on the source grid, first point = last point
    peak : where in it the map is highest, on the source grid
    weight : of the map at its peak, in (0, 1]; 1 at the map's own peak
    place : None where the lungs were not found
    zones : those that it covers, from above; empty where it lies in no lung, or no lungs were found
    """

    outline: tuple[Point, ...]
    peak: Point
    weight: float
    place: Place | None = None
    zones: tuple[Zone, ...] = ()


Border = tuple[tuple[float, float], tuple[float, float]]
"""Shares of a radiograph's rows above and below, and of its columns left and right; negative: a bar was added."""
NO_BORDER: Border = ((0.0, 0.0), (0.0, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Heatmap:
    """Where the network looked; not the outline of a lesion. `heatmap.on_grid` spreads it over the radiograph.

    Attributes
    ----------
    cells : float32, shape (rows, cols) of the network's last map, range [0, 1]
    border : what the network never saw
    regions : every place that stands out, the hottest first; none of them reaches from one lung into the other. Of a
        positive only: nobody reads those of other verdicts
    label, layer : what was explained, and at which layer
    """

    cells: NDArray[np.float32]
    border: Border
    regions: tuple[Region, ...]
    label: str
    layer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What the network measured of one image, for whoever compares the films of a site over time; no pixels.

    Attributes
    ----------
    logit : of the judged label, mean over views, before any calibration
    distance : as `Prediction.distance`
    features : 64 numbers of the plain view's pooled features, float16, little-endian: 128 bytes
    """

    logit: float
    distance: float | None
    features: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What one look of the predictor yields: the prediction, its explanation, and what is kept for comparisons."""

    prediction: Prediction
    heatmap: Heatmap
    measurement: Measurement | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """Which classifier spoke, to the byte."""

    profile: str
    version: str
    weights_sha256: str
    config_sha256: str
    operating_point: OperatingPoint
    calibration: str
    """One line: method and what it was fitted on."""
    target: Target = PNEUMONIA


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One radiograph's answer."""

    prediction: Prediction
    decision: Decision
    heatmap: Heatmap
    identity: ModelIdentity

    @property
    def probability(self) -> float:
        """Calibrated probability (or score) of the operating point's label, in [0, 1]."""
        return self.prediction.probability[self.identity.operating_point.label]

    @property
    def target(self) -> Target:
        """What the verdict is about."""
        return self.identity.target

    @property
    def name(self) -> str:
        """The verdict for people."""
        return self.target.name(self.decision.verdict)

    @property
    def calibrated_probability(self) -> float | None:
        """`probability` where it is one; None where it is a score, which must not be shown in percent."""
        return self.probability if self.identity.operating_point.scale is Scale.PROBABILITY else None
