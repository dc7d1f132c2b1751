"""What all result objects share: identity, header, references, and bytes.

A result belongs to the patient, study and order of its source and says so in the source's own bytes. No clock is read.
PS3.3 C.7.1.1, C.7.2.1, C.7.5.1, C.12.1, C.17; PS3.10 7.1; IHE RAD AIR 6.5.3.1 Contributing Equipment.
"""

from __future__ import annotations

import functools
import hashlib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from typing import Protocol

from pydicom import Dataset
from pydicom.uid import ComputedRadiographyImageStorage

from cxr_node import __version__
from cxr_node.config.destinations import STANDARD_KINDS
from cxr_node.config.schema import NormalHeatmap, Results
from cxr_node.dicom.part10 import IMPLEMENTATION_CLASS_UID
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results import copied_attributes
from cxr_node.dicom.results.copied_attributes import Moment, header_sha256, moment_of, stamp
from cxr_node.dicom.results.encoder import to_part10_each
from cxr_node.dicom.results.sr_items import coded, reference
from cxr_node.dicom.words import codes, study_wording, zones
from cxr_node.dicom.words.rounding import is_stated
from cxr_node.dicom.words.wording import plain, series_description, shared_series_description
from cxr_node.domain import NO_PRECEDENT, Finding, Origin, Precedent, Radiograph, Region, ResultRef, Verdict
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import DOCUMENTS, OF_ONE_IMAGE, SHAPES, ReportPer, ResultKind

PRODUCT = f"cxr_node {__version__}"
_NAMESPACE = uuid.UUID("6f1b8d8e-92f4-5d3a-9a43-3c1f0b7e5a21")
_LO_MAX_CHARS = 64
LAST = 2**31
"""In place of a Series or Instance Number that is not there: such images come last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """All that a result object is made of."""

    source: Source
    radiograph: Radiograph
    finding: Finding
    origin: Origin
    settings: Results
    kinds: frozenset[ResultKind] = frozenset(STANDARD_KINDS)
    """What is made of it; an object refers to no sibling that is not."""
    precedent: Precedent = NO_PRECEDENT
    """What came before in the study; the results of an earlier version of this instance are those that are replaced."""
    zone: tzinfo = UTC
    """Of the study's times, where the source does not tell their offset from UTC."""
    per: ReportPer = ReportPer.IMAGE
    """What its report is about; with that of a study go series of pictures that all its images share."""
    made: tuple[ResultRef, ...] | None = None
    """Objects of this image that were made before its report; None: what `kinds` says, with this."""
    page: bytes = field(default=b"", repr=False)
    """Part 10 file of its printed page, where a message of its study holds that."""
    header_sha256: str = field(default="", repr=False)
    """As `copied_attributes.header_sha256`, for whoever has it already; else it is made here."""
    clock: Moment = field(init=False, repr=False)
    """When the source was received, and whether all times of an object have its offset from UTC."""
    answer: tuple[str, ...] = field(init=False, repr=False)
    """Everything that the content depends on; what changes bytes changes UIDs. Each object asks several times."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", moment_of(self.source.dataset, self.origin.received_at, self.zone))
        if not self.header_sha256:
            object.__setattr__(self, "header_sha256", header_sha256(self.source, self.radiograph))
        object.__setattr__(self, "answer", self._all_that_counts())

    @property
    def manufacturer(self) -> str:
        """Who made the algorithm: AIR 6.5.3.1 asks the same words everywhere."""
        return plain(self.settings.manufacturer)[:_LO_MAX_CHARS].strip() or "unknown"

    @property
    def model_name(self) -> str:
        """Name of the algorithm."""
        return plain(f"cxr_node {self.finding.identity.profile}")[:_LO_MAX_CHARS].strip()

    @property
    def algorithm_version(self) -> str:
        """Version of the profile, and of its weights to twelve digits."""
        tail = f"+sha256:{self.finding.identity.weights_sha256[:12]}"
        return plain(self.finding.identity.version)[: _LO_MAX_CHARS - len(tail)] + tail

    @property
    def serial_number(self) -> str:
        """Name of this installation."""
        return plain(self.settings.installation_id)[:_LO_MAX_CHARS].strip() or "unknown"

    @property
    def device_uid(self) -> str:
        """This algorithm on this installation; new weights are a new device (AIR)."""
        return uid("device", self.settings.installation_id, self.finding.identity.weights_sha256)

    @property
    def shows_map(self) -> bool:
        """Whether the picture shows where the network looked: not where the answer is not to be believed."""
        if self.finding.decision.verdict is Verdict.NEGATIVE:
            return self.settings.normal_heatmap is NormalHeatmap.MAP
        return is_stated(self.finding)

    @property
    def has_picture(self) -> bool:
        """Whether a heat map object goes with the report: with that of a negative only where a site asks for it."""
        if self.made is not None:
            return any(each.kind is ResultKind.HEATMAP for each in self.made)
        unwanted = self.settings.normal_heatmap is NormalHeatmap.NONE
        is_left_out = unwanted and self.finding.decision.verdict is Verdict.NEGATIVE
        return ResultKind.HEATMAP in self.kinds and not is_left_out

    @property
    def picture(self) -> ResultRef:
        """The heat map object, where there is one."""
        kind = ResultKind.HEATMAP
        named = ResultRef(
            kind=kind,
            sop_class_uid=SHAPES[kind].sop_class_uid,
            sop_instance_uid=self.instance_uid(kind),
            series_instance_uid=self.series_uid(kind),
        )
        return next((each for each in self.made or () if each.kind is kind), named)

    @property
    def refers_to_map(self) -> bool:
        """Whether there is a picture with a map to point to."""
        return self.shows_map and self.has_picture

    @property
    def regions(self) -> tuple[Region, ...]:
        """Regions of a positive; none for every other verdict, and where nothing stands out."""
        return self.finding.heatmap.regions if self.finding.decision.verdict is Verdict.POSITIVE else ()

    @property
    def looked(self) -> str:
        """Where the regions lie, in a sentence; "" where that is not known, or there are none."""
        return zones.sentence(self.regions, zones.sides(self.source))

    @property
    def places(self) -> tuple[str, ...]:
        """Where each region lies, in words; "" where that is not known."""
        sides = zones.sides(self.source)
        return tuple(zones.named(region, sides) for region in self.regions)

    @property
    def moment(self) -> datetime:
        """When the source was received, by the study's clock."""
        return self.clock.at

    def instance_uid(self, kind: ResultKind, sop_class_uid: str | None = None) -> str:
        """SOP Instance UID: the same for the same input, weights, configuration, program and SOP Class."""
        sop_class_uid = sop_class_uid or SHAPES[kind].sop_class_uid
        replaced = [each.sop_instance_uid for each in self.replaced(kind, sop_class_uid)]
        return uid("instance", *self.answer, kind, sop_class_uid, *(f"replaces {each}" for each in replaced))

    def replaced(self, kind: ResultKind, sop_class_uid: str) -> tuple[ResultRef, ...]:
        """Earlier documents that one of this kind and class names as replaced; none for what is no document."""
        return earlier_documents(self, self.precedent.earlier_results, kind, sop_class_uid)

    def series_uid(self, kind: ResultKind) -> str:
        """Series Instance UID: one instance a series, for OHIF shows only the first SR of a series.

        With the report of a study, objects of one kind share one, of which nothing is the image's own.
        """
        study_instance_uid, identity = self.source.ref.study_instance_uid, self.finding.identity
        if not self.is_shared(kind):
            return uid("series", study_instance_uid, *self.answer, kind)
        made_by = (self.settings.installation_id, identity.weights_sha256, identity.config_sha256, __version__)
        return uid("shared series", study_instance_uid, *made_by, kind, SHAPES[kind].modality or modality(self.source))

    def is_shared(self, kind: ResultKind) -> bool:
        """Whether the series of this kind holds the objects of other images too."""
        return self.per is ReportPer.STUDY and kind in OF_ONE_IMAGE

    def series_description(self, kind: ResultKind) -> str:
        """Name the series of a kind; one that images share says no verdict."""
        if self.is_shared(kind):
            return shared_series_description(kind)
        own = mark(self.settings, self.finding.decision.verdict)
        return series_description(kind, self.finding, shows_map=self.shows_map, mark=own)

    def instance_number(self, kind: ResultKind) -> int:
        """Number in its series: the source's where images share it."""
        return self._number if self.is_shared(kind) else 1

    @property
    def place(self) -> str:
        """Which image of its study it is, by the numbers that the report of the study gives it too."""
        if self.per is not ReportPer.STUDY:
            return ""
        keywords = {"series": "SeriesNumber", "image": "InstanceNumber"}
        stated = {name: stated_number(self.source, keyword) for name, keyword in keywords.items()}
        return study_wording.place({name: number for name, number in stated.items() if number is not None})

    @property
    def _number(self) -> int:
        """Instance Number of the source."""
        return max(self.source.integer("InstanceNumber", 1), 1)

    @property
    def devices(self) -> tuple[Context, ...]:
        """Of each algorithm that has a say, one image that it judged."""
        return (self,)

    def tracking_uid(self, number: int = 1) -> str:
        """Tracking Unique Identifier of the finding, by the number of its region from 1."""
        return uid("tracking", *self.answer, *([] if number == 1 else [str(number)]))

    @property
    def dimension_uid(self) -> str:
        """Dimension Organization UID of the masks."""
        return uid("dimension", *self.answer)

    def _all_that_counts(self) -> tuple[str, ...]:
        identity = self.finding.identity
        there = {kind for kind in self.kinds if kind is not ResultKind.HEATMAP or self.has_picture}
        missing = sorted(kind for kind in STANDARD_KINDS if kind not in there)  # others refer to those
        return (
            self.settings.installation_id,
            self.source.ref.sop_instance_uid,
            self.radiograph.pixel_digest,
            self.header_sha256,
            identity.weights_sha256,
            identity.config_sha256,
            hashlib.sha256(repr(identity).encode()).hexdigest(),
            __version__,
            *(f"without {kind}" for kind in missing),
            self.clock.identity,
            *([f"with the report of its study, {self._number}", self.place] if self.per is ReportPer.STUDY else []),
        )


def stated_number(source: Source, keyword: str) -> int | None:
    """Series or Instance Number, None where the header has none."""
    found = source.integer(keyword, LAST)
    return None if found == LAST else found


class Subject(Protocol):
    """What a result object is about: an image, or a study. Patient and study are those of its source."""

    @property
    def source(self) -> Source:
        """Whose header is taken over."""
        ...

    @property
    def clock(self) -> Moment:
        """When the content was complete."""
        ...

    @property
    def devices(self) -> tuple[Context, ...]:
        """Of each algorithm that has a say, one image that it judged."""
        ...

    def instance_uid(self, kind: ResultKind, sop_class_uid: str | None = None) -> str:
        """SOP Instance UID."""
        ...

    def series_uid(self, kind: ResultKind) -> str:
        """Series Instance UID."""
        ...

    def series_description(self, kind: ResultKind) -> str:
        """Name of the series."""
        ...

    def instance_number(self, kind: ResultKind) -> int:
        """Number in its series."""
        ...

    def is_shared(self, kind: ResultKind) -> bool:
        """Whether objects of other images are in its series."""
        ...

    def replaced(self, kind: ResultKind, sop_class_uid: str) -> tuple[ResultRef, ...]:
        """Earlier documents that it replaces."""
        ...


def start(of: Subject, kind: ResultKind) -> Dataset:
    """Header of one result object: everything but its content."""
    shape, device = SHAPES[kind], of.devices[0]
    dataset = copied_attributes.patient_and_study(of.source.dataset)
    dataset.StudyInstanceUID = of.source.ref.study_instance_uid
    dataset.SOPClassUID = shape.sop_class_uid
    dataset.SOPInstanceUID = of.instance_uid(kind)
    dataset.SeriesInstanceUID = of.series_uid(kind)
    dataset.SeriesNumber = shape.series_number
    dataset.SeriesDescription = of.series_description(kind)
    dataset.Modality = shape.modality or modality(of.source)
    dataset.InstanceNumber = of.instance_number(kind)
    dataset.InstanceCreatorUID = IMPLEMENTATION_CLASS_UID
    stamp(dataset, of.clock)
    if of.is_shared(kind):
        del dataset.SeriesDate, dataset.SeriesTime  # its images came at different times
    dataset.Manufacturer = device.manufacturer
    dataset.ManufacturerModelName = device.model_name
    dataset.DeviceSerialNumber = device.serial_number
    dataset.SoftwareVersions = [PRODUCT, device.algorithm_version]
    dataset.ContentQualification = "RESEARCH"
    dataset.ContributingEquipmentSequence = equipment(of)
    return dataset


def mark(settings: Results, verdict: Verdict) -> str:
    """Before the names of the series of an answer, where the site wants it found in a worklist."""
    triage = settings.triage
    if triage is None:
        return ""
    return {Verdict.POSITIVE: triage.positive, Verdict.INDETERMINATE: triage.uncertain}.get(verdict) or ""


def modality(source: Source) -> str:
    """Modality of the source; by its SOP Class where it names none."""
    if source.modality:
        return source.modality
    return "CR" if source.ref.sop_class_uid == ComputedRadiographyImageStorage else "DX"


def finish(of: Subject, kind: ResultKind, dataset: Dataset) -> Artifact:
    """Encode a complete data set, and name it for each SOP Class of its kind; a destination gets one of them."""
    shape = SHAPES[kind]
    names = [(each, of.instance_uid(kind, each)) for each in (shape.sop_class_uid, *shape.alternatives)]
    files = _encoded(of, kind, dataset, names)
    series = of.series_uid(kind)
    first, *below = (
        Artifact(kind=kind, sop_class_uid=named, sop_instance_uid=own, series_instance_uid=series, content=content)
        for (named, own), content in zip(names, files, strict=True)
    )
    return replace(first, alternatives=tuple(below))


def _encoded(of: Subject, kind: ResultKind, dataset: Dataset, names: Sequence[tuple[str, str]]) -> list[bytes]:
    """Encode for each SOP Class: once for all of them, unless each names an earlier document of its own class."""
    replaced = [of.replaced(kind, sop_class_uid) for sop_class_uid, _ in names]
    if not any(replaced):
        return to_part10_each(dataset, names)
    files = []
    for name, documents in zip(names, replaced, strict=True):
        members = [(each.series_instance_uid, each.sop_class_uid, each.sop_instance_uid) for each in documents]
        if members:
            dataset.PredecessorDocumentsSequence = [study_reference(of.source.ref.study_instance_uid, members)]
        else:
            dataset.pop("PredecessorDocumentsSequence", None)
        files += to_part10_each(dataset, [name])
    return files


def equipment(of: Subject) -> list[Dataset]:
    """Who took the radiograph, and every algorithm that has a say (AIR 6.5.3.1)."""
    acquisition = copied_attributes.acquisition_equipment(of.source.dataset)
    if acquisition is not None:
        acquisition.PurposeOfReferenceCodeSequence = [coded(codes.DCM.AcquisitionEquipment)]
    contributors = [] if acquisition is None else [acquisition]
    for device in of.devices:
        ours = Dataset()
        ours.PurposeOfReferenceCodeSequence = [coded(codes.DCM.ProcessingEquipment)]
        ours.Manufacturer = device.manufacturer
        ours.ManufacturerModelName = device.model_name
        ours.DeviceSerialNumber = device.serial_number
        ours.SoftwareVersions = device.algorithm_version
        ours.DeviceUID = device.device_uid
        ours.ContributionDateTime = of.clock.at.strftime("%Y%m%d%H%M%S.%f%z")
        contributors.append(ours)
    return contributors


@functools.lru_cache(maxsize=128)  # objects of one image name each other
def uid(*parts: str) -> str:
    """UID under the UUID root (PS3.5 B.2), a pure function of the parts."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(parts)).int}"


def earlier_documents(
    of: Subject, versions: Iterable[tuple[ResultRef, ...]], kind: ResultKind, sop_class_uid: str
) -> tuple[ResultRef, ...]:
    """Documents of this kind and class in the answers that came before the first one with this very content.

    A series is of one answer, so it tells whether two versions got the same: one that came in another transfer syntax
    must not replace itself, nor name what it did not name the first time.
    """
    if kind not in DOCUMENTS:
        return ()
    found: dict[str, ResultRef] = {}
    for version in versions:
        if any(each.series_instance_uid == of.series_uid(each.kind) for each in version):
            break
        alike = [each for each in version if each.kind is kind and each.sop_class_uid == sop_class_uid]
        found |= {each.sop_instance_uid: each for each in alike}
    return tuple(found.values())


def study_reference(study_instance_uid: str, members: Iterable[tuple[str, str, str]]) -> Dataset:
    """Refer to instances of one study, each by series, SOP Class and SOP Instance UID (table 10-4)."""
    study = Dataset()
    study.StudyInstanceUID = study_instance_uid
    study.ReferencedSeriesSequence = []
    by_series: dict[str, Dataset] = {}
    for series_instance_uid, *named in dict.fromkeys(members):
        if series_instance_uid not in by_series:
            series = by_series[series_instance_uid] = Dataset()
            series.SeriesInstanceUID = series_instance_uid
            series.ReferencedSOPSequence = []
            study.ReferencedSeriesSequence.append(series)
        by_series[series_instance_uid].ReferencedSOPSequence.append(reference(*named))
    return study
