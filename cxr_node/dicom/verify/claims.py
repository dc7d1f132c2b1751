"""What an object says, as claims: each names what it is about, and objects of one answer must say the same of it.

The same list is compared with what an answer was made from, and among objects (of files alone). No order and no
template. PS3.3 C.7.1.1, C.7.2.1, C.7.5.1, C.12.1, C.17.2; PS3.16 TID 1500, 1410, 4019; IHE RAD AIR table 6.5.3.1-1.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from cxr_node.dicom.part10 import PROCESSING_EQUIPMENT
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results import copied_attributes
from cxr_node.dicom.results.context import PRODUCT, Context
from cxr_node.dicom.results.context import modality as modality_of
from cxr_node.dicom.verify.plain import (
    Item,
    Parsed,
    Plain,
    Triple,
    code,
    content_items,
    items,
    listed,
    plain,
    reference,
    text,
)
from cxr_node.dicom.verify.rules import Rule
from cxr_node.dicom.words import coded_findings, codes, rounding, wording, zones
from cxr_node.domain import Point, Verdict
from cxr_node.result_kinds import OF_ONE_IMAGE, ResultKind

PATIENT_AND_STUDY = (
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence", "PatientBirthDate", "PatientSex", "PatientAge", "StudyInstanceUID", "StudyID",
    "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber", "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
)  # fmt: skip
EVIDENCE = "CurrentRequestedProcedureEvidenceSequence"
REPORTS = frozenset({ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.NOT_ANALYSED})
DOCUMENTS = REPORTS | {ResultKind.KEY_OBJECT}
PICTURES = frozenset({ResultKind.HEATMAP, ResultKind.FRAMES})
PREDECESSORS = "PredecessorDocumentsSequence"
_ELSEWHERE = frozenset({EVIDENCE, PREDECESSORS, "ContentSequence", "ReferencedRequestSequence"})
_PICTURE_OF = frozenset({"121200", "130401"})  # Illustration of ROI, Visual Explanation
_SENTENCES = frozenset({"121073", "121111", "113012"})  # Impression, Summary, Key Object Description
_NUMERIC = ("threshold.", "spread", "distance")
_TECHNIQUE, _LIMITATION = "272394005", "limitation"
_PARAMETERS, _COMMENT, _TRACKING_UID, _DEVICE_UID = "111002", "121106", "112040", "121012"
_EQUIPMENT = {"manufacturer": "Manufacturer", "model": "ManufacturerModelName", "serial number": "DeviceSerialNumber"}
_ALGORITHM = {"111001": "model", "111003": "algorithm version", "122405": "manufacturer"}
PERCENT: Triple = ("%", "UCUM", "Percent")
NO_UNITS: Triple = ("1", "UCUM", "no units")
PIXELS: Triple = ("{pixels}", "UCUM", "Pixels")
FIXED = {
    "right": True,  # of what can be judged by itself
    f"description of {ResultKind.NOT_ANALYSED}": wording.NOT_ANALYSED_SERIES,
}
"""What is so in every result."""
_TAKER: Plain = {"CodeValue": "109101", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Acquisition Equipment"}
_ACQUISITION: Plain = {"PurposeOfReferenceCodeSequence": [_TAKER]}
_NUMBER = re.compile(r"(?:[Cc]ertainty|[Ss]core) of [^:.(]*?:? ((?:below |above )?\d(?:[\d.e-]*\d)?(?: %)?)")
_SHORT = re.compile(r" ([<>]?\d[\d.]*)%")
_THRESHOLDS = re.compile(r"[Rr]uled out below ([\d.e-]+(?: %)?), reported from ([\d.e-]*\d(?: %)?)")
_PAIR = re.compile(r"\(([\d.e-]+(?: %)?) and ([\d.e-]+(?: %)?)\)")
_WEIGHTS = re.compile(r"(?:\bweights |sha256:)([0-9a-f]{12})\b")
_MIN_NUMBERS = 8  # a triangle, closed
_LOOKED = zones.of_region("\0").split("\0")


class Claim(NamedTuple):
    """One thing that an object says, and the rule that is broken where others say otherwise."""

    about: str
    value: Any
    rule: Rule
    where: str


@dataclass(frozen=True, slots=True)
class Document:
    """One result object under the name it is blamed by; `kind` is None for an SOP Class that none of ours has."""

    name: str
    kind: ResultKind | None
    parsed: Parsed
    content: tuple[Item, ...]

    @property
    def dataset(self) -> Plain:
        """Header and content."""
        return self.parsed.dataset


def document(name: str, kind: ResultKind | None, parsed: Parsed) -> Document:
    """Take the content tree of an object apart."""
    return Document(name, kind, parsed, tuple(content_items(parsed.dataset)))


def is_shared(document: Document) -> bool:
    """Whether its series holds the objects of several images."""
    description = text(document.dataset, "SeriesDescription")
    shared = document.kind in OF_ONE_IMAGE and description == wording.shared_series_description(document.kind)
    return shared and "SeriesDate" not in document.dataset


def equipment(dataset: Plain) -> Plain:
    """Our item of Contributing Equipment; empty where it is missing."""
    for item in items(dataset, "ContributingEquipmentSequence"):
        if code(item, "PurposeOfReferenceCodeSequence")[0] == PROCESSING_EQUIPMENT:
            return item
    return {}


def of(document: Document) -> Iterator[Claim]:
    """Everything that an object says of what others speak of too."""
    yield from _of_header(document)
    yield from _of_references(document)
    yield from _of_content(document)
    yield from _of_regions(document)


def of_study(document: Document) -> Iterator[Claim]:
    """What the part of a document says that is about a study, and not about one of its images."""
    yield from _of_header(document)
    yield from _of_lines(document)


def of_view(document: Document) -> Iterator[Claim]:
    """What the part of a document says that is about one image."""
    yield from _of_references(document)
    yield from _of_content(document)
    for item in document.content:
        if item.value_type == "TEXT" and item.name == codes.DCM.Finding[:3]:
            yield Claim("line", item.value, Rule.SUMMARY, item.name[2])


def _of_header(document: Document) -> Iterator[Claim]:
    dataset, ours = document.dataset, equipment(document.dataset)
    for keyword in PATIENT_AND_STUDY:
        yield Claim(keyword, dataset.get(keyword), Rule.PATIENT_AND_STUDY, keyword)
    yield Claim("offset", dataset.get("TimezoneOffsetFromUTC"), Rule.CONTENT_TIME, "TimezoneOffsetFromUTC")
    yield Claim("contribution", text(ours, "ContributionDateTime"), Rule.CONTENT_TIME, "ContributionDateTime")
    yield from _of_equipment(document, ours)
    if document.kind is not None:
        description = text(dataset, "SeriesDescription")
        yield Claim(f"description of {document.kind}", description, Rule.DESCRIPTION, "SeriesDescription")
        if found := _SHORT.search(description):
            said = found[1].replace(">", "above ").replace("<", "below ")
            yield Claim("number", f"{said} %", Rule.DESCRIPTION, "SeriesDescription")
    if document.kind in DOCUMENTS:
        requests = dataset.get("ReferencedRequestSequence")
        yield Claim("requests", requests, Rule.REQUEST, "ReferencedRequestSequence")
        yield Claim("evidence", sorted(listed(dataset, EVIDENCE)), Rule.EVIDENCE, EVIDENCE)
    if document.kind in PICTURES:
        yield Claim("modality", text(dataset, "Modality"), Rule.SOURCE, "Modality")
    if document.kind in PICTURES | {ResultKind.SEGMENTATION}:
        for keyword in ("PatientOrientation", *(() if is_jpeg_of_ours(document) else ("LossyImageCompression",))):
            yield Claim(keyword, dataset.get(keyword), Rule.SOURCE, keyword)


def is_jpeg_of_ours(document: Document) -> bool:
    """Whether a picture says that it lost some when it was stored, whatever its source had lost."""
    says = {"LossyImageCompression": "01", "LossyImageCompressionMethod": "ISO_10918_1"}
    return document.kind in PICTURES and all(
        text(document.dataset, name).strip() == each for name, each in says.items()
    )


def _of_equipment(document: Document, ours: Plain) -> Iterator[Claim]:
    """Who made it and when, in the words of the header and of our item of Contributing Equipment."""
    dataset = document.dataset
    wall = text(ours, "ContributionDateTime")[:-5]
    of_content = "PresentationCreation" if document.kind is ResultKind.PRESENTATION_STATE else "Content"
    for prefix in (of_content, *([] if is_shared(document) else ["Series"])):
        said = text(dataset, f"{prefix}Date") + text(dataset, f"{prefix}Time")
        yield Claim("moment", said, Rule.CONTENT_TIME, f"{prefix}Time")
    yield Claim("moment", wall, Rule.CONTENT_TIME, "ContributionDateTime")
    for about, keyword in _EQUIPMENT.items():
        for said in (text(dataset, keyword), text(ours, keyword)):
            yield Claim(about, said, Rule.EQUIPMENT, keyword)
    product, _, version = text(dataset, "SoftwareVersions").partition("\\")
    yield Claim("product", product, Rule.EQUIPMENT, "SoftwareVersions")
    for said in (version, text(ours, "SoftwareVersions")):
        yield Claim("algorithm version", said, Rule.EQUIPMENT, "SoftwareVersions")
        yield Claim("weights", said[-12:], Rule.ALGORITHM, "SoftwareVersions")
    yield Claim("device", text(ours, "DeviceUID"), Rule.EQUIPMENT, "DeviceUID")
    contributors = items(dataset, "ContributingEquipmentSequence")
    others = [item for item in contributors if item is not ours]
    yield Claim("other equipment", others, Rule.EQUIPMENT, "ContributingEquipmentSequence")


def _of_references(document: Document) -> Iterator[Claim]:
    """Every reference to an image: it is the source, or the picture where it is meant to be that."""
    for keyword, named in _references(document.dataset):
        yield Claim("source", named, Rule.SOURCE, keyword)
    for series in items(document.dataset, "ReferencedSeriesSequence"):
        uid = text(series, "SeriesInstanceUID")
        yield Claim("series of the source", uid, Rule.SOURCE, "ReferencedSeriesSequence")
    images = [item for item in document.content if item.value_type == "IMAGE"]
    for place, item in enumerate(images):
        if item.name[0] in _PICTURE_OF or (document.kind is ResultKind.KEY_OBJECT and place == 1):
            yield Claim("picture", item.value, Rule.ILLUSTRATION, item.name[2])
        else:
            yield Claim("source", item.value, Rule.SOURCE, item.name[2] or "IMAGE")
    if document.kind is ResultKind.HEATMAP:
        own = (text(document.dataset, "SOPClassUID"), text(document.dataset, "SOPInstanceUID"))
        yield Claim("picture", own, Rule.UID, "SOPInstanceUID")


def _references(dataset: Plain) -> Iterator[tuple[str, tuple[str, str]]]:
    for keyword, value in dataset.items():
        if isinstance(value, list) and keyword not in _ELSEWHERE:
            for item in value:
                if "ReferencedSOPInstanceUID" in item:
                    yield keyword, reference(item)
                yield from _references(item)


def _of_content(document: Document) -> Iterator[Claim]:
    yield from _of_lines(document)
    if document.kind is ResultKind.MEASUREMENTS:
        yield from _of_measurements(document.content)


def _of_lines(document: Document) -> Iterator[Claim]:
    for item in document.content:
        concept, where = item.name[0], item.name[2]
        if item.value_type == "NUM":
            yield from _of_number(item)
        elif item.value_type == "UIDREF" and concept == _DEVICE_UID:
            yield Claim("device", item.value, Rule.EQUIPMENT, where)
        elif item.value_type == "TEXT" and concept == _PARAMETERS:
            yield from _of_parameter(item)
        elif item.value_type == "TEXT" and concept in _ALGORITHM:
            yield Claim(_ALGORITHM[concept], item.value, Rule.ALGORITHM, where)
        elif item.value_type == "TEXT":
            yield from _of_line(document, item)


def _of_measurements(content: tuple[Item, ...]) -> Iterator[Claim]:
    """What is said of the finding, of the others, and of each region, in order."""
    numbers = [item for item in content if item.value_type == "NUM"]
    certainty = [_measured(item) for item in numbers if item.relation == "CONTAINS"]
    yield Claim("certainty", certainty, Rule.CERTAINTY, codes.DCM.CertaintyOfFinding.meaning)
    scored = [
        item.value if item.value_type == "CODE" else _measured(item)
        for item in content
        if item.name[0] == coded_findings.SCORED.value or (item.relation == "HAS PROPERTIES" and item in numbers)
    ]
    yield Claim("scores", scored, Rule.SCORES, coded_findings.SCORED.meaning)
    lines = [item.value for item in content if item.name[0] == _COMMENT]
    places = [line.removeprefix(_LOOKED[0]).removesuffix(_LOOKED[1]) for line in lines]
    yield Claim("places in order", places, Rule.REGION, "Comment")
    if places:
        yield Claim("places", set(places), Rule.REGION, "Comment")
    drawn = [item.value[1] for item in content if item.value_type == "SCOORD"]
    yield from _of_outlines(drawn, codes.DCM.ImageRegion.meaning)
    uids = [item.value for item in content if item.name[0] == _TRACKING_UID]
    for about, value in (("tracking", uids), ("right", bool(uids))):
        yield Claim(about, value, Rule.TRACKING, codes.DCM.TrackingUniqueIdentifier.meaning)


def _of_number(item: Item) -> Iterator[Claim]:
    concept, unit, where = item.name[0], item.value[1], item.name[2]
    if item.relation == "HAS ACQ CONTEXT":
        yield Claim(f"size {concept}", _measured(item), Rule.LIBRARY, where)
        yield Claim("right", unit == PIXELS, Rule.LIBRARY, where)
    else:
        rule = Rule.CERTAINTY if item.relation == "CONTAINS" else Rule.SCORES
        yield Claim("right", unit in (PERCENT, NO_UNITS), rule, codes.DCM.CertaintyOfFinding.meaning)


def _measured(item: Item) -> tuple[float | str, Triple]:
    number, unit = item.value
    return as_number(number), unit


def _of_parameter(item: Item) -> Iterator[Claim]:
    name, _, said = item.value.partition("=")
    rule = Rule.THRESHOLD if name.startswith("threshold") else Rule.ALGORITHM
    yield Claim(name, as_number(said) if name.startswith(_NUMERIC) else said, rule, item.name[2])
    if name == "weights.sha256":
        yield Claim("weights", said[:12], rule, item.name[2])


def _of_line(document: Document, item: Item) -> Iterator[Claim]:
    line, where = item.value, item.name[2]
    if item.name[0] in _SENTENCES:
        yield Claim("summary", line, Rule.SUMMARY, where)
        if document.kind is ResultKind.NOT_ANALYSED:
            begins, ends = wording.NOT_ANALYSED_LINE
            yield Claim("right", line.startswith(begins) and line.endswith(ends), Rule.SUMMARY, where)
    if item.name[0] == _TECHNIQUE:
        if found := _WEIGHTS.search(line):
            yield Claim("weights", found[1], Rule.ALGORITHM, where)
            yield Claim("model line", line, Rule.ALGORITHM, where)
        elif found := _THRESHOLDS.search(line):
            yield Claim("thresholds", found.groups(), Rule.THRESHOLD, where)
    elif item.name[0] != _LIMITATION:  # remarks quote the header
        if found := _NUMBER.search(line):
            yield Claim("number", found[1], Rule.CERTAINTY, where)
        if found := _PAIR.search(line):
            yield Claim("thresholds", found.groups(), Rule.THRESHOLD, where)
    if line.startswith(zones.PREFIX):
        yield Claim("places", set(zones.names_in(line)), Rule.REGION, where)


def _of_regions(document: Document) -> Iterator[Claim]:
    dataset, where = document.dataset, str(document.kind)
    if document.kind is ResultKind.PRESENTATION_STATE:
        annotations = items(dataset, "GraphicAnnotationSequence")
        graphics = [each for one in annotations for each in items(one, "GraphicObjectSequence")]
        drawn = [tuple(text(graphic, "GraphicData").split("\\")) for graphic in graphics]
        yield from _of_outlines(drawn, "GraphicObjectSequence")
    elif document.kind is ResultKind.SEGMENTATION:
        segments = items(dataset, "SegmentSequence")
        yield Claim("tracking", [text(each, "TrackingUID") for each in segments], Rule.TRACKING, "SegmentSequence")
        for keyword, concept in (("Rows", "110910"), ("Columns", "110911")):
            yield Claim(f"size {concept}", (as_number(text(dataset, keyword)), PIXELS), Rule.LIBRARY, keyword)
        for item in [one for each in segments for one in items(each, "SegmentationAlgorithmIdentificationSequence")]:
            yield Claim("model", text(item, "AlgorithmName"), Rule.ALGORITHM, where)
            yield Claim("algorithm version", text(item, "AlgorithmVersion"), Rule.ALGORITHM, where)


def _of_outlines(drawn: list[tuple[str, ...]], where: str) -> Iterator[Claim]:
    yield Claim("outlines", drawn, Rule.REGION, where)
    for line in drawn:
        is_closed = len(line) >= _MIN_NUMBERS and line[:2] == line[-2:] and len(line) % 2 == 0
        yield Claim("right", is_closed, Rule.REGION, where)


def from_source(source: Source) -> dict[str, Any]:
    """What every result must take over from its source, in the source's bytes."""
    ref, dataset = source.ref, source.dataset
    carried = plain(copied_attributes.patient_and_study(dataset)) | {"StudyInstanceUID": ref.study_instance_uid}
    requests = [plain(item) for item in copied_attributes.requests(dataset, ref.study_instance_uid)]
    taken_by = copied_attributes.acquisition_equipment(dataset)
    orientation = plain(copied_attributes.patient_orientation(dataset))
    told = {"offset": carried["TimezoneOffsetFromUTC"]} if "TimezoneOffsetFromUTC" in carried else {}
    return {
        **{keyword: carried.get(keyword) for keyword in PATIENT_AND_STUDY},
        **told,  # else it is that of the site's zone
        "requests": requests or None,
        "other equipment": [] if taken_by is None else [_ACQUISITION | plain(taken_by)],
        "source": (ref.sop_class_uid, ref.sop_instance_uid),
        "series of the source": ref.series_instance_uid,
        "modality": modality_of(source),
        "LossyImageCompression": copied_attributes.lossy(dataset, ref.transfer_syntax_uid),
        "PatientOrientation": orientation["PatientOrientation"],
    }


def from_context(context: Context) -> dict[str, Any]:
    """What the objects were made from: all that they may say."""
    finding, ref = context.finding, context.source.ref
    picture = context.picture.sop_class_uid, context.picture.sop_instance_uid
    evidence = [(ref.study_instance_uid, ref.series_instance_uid, ref.sop_class_uid, ref.sop_instance_uid)]
    if context.has_picture:
        evidence.append((ref.study_instance_uid, context.picture.series_instance_uid, *picture))
    expected = from_source(context.source) | {
        "offset": context.clock.offset,
        "contribution": context.moment.strftime("%Y%m%d%H%M%S.%f%z"),
        "moment": context.moment.strftime("%Y%m%d%H%M%S.%f"),
        "manufacturer": context.manufacturer,
        "model": context.model_name,
        "serial number": context.serial_number,
        "product": PRODUCT,
        "algorithm version": context.algorithm_version,
        "device": context.device_uid,
        "evidence": sorted(evidence),
        "picture": picture,
    }
    for kind in context.kinds:
        expected[f"description of {kind}"] = context.series_description(kind)
    return expected if finding.decision.verdict is Verdict.REJECTED else expected | _from_finding(context)


def _from_finding(context: Context) -> dict[str, Any]:
    finding, identity = context.finding, context.finding.identity
    prediction, point = finding.prediction, identity.operating_point
    certainty, score = wording.certainty(finding), wording.score(finding)
    rows, columns = context.radiograph.pixels.shape
    scores = [
        part
        for label, value in coded_findings.listed(finding)
        for part in (tuple(coded_findings.named(label).code[:3]), (_rounded(value), NO_UNITS))
    ]
    stated = [(_rounded(certainty), PERCENT)] if certainty is not None else []
    stated += [(_rounded(score), NO_UNITS)] if score is not None else []
    places = [place for place in context.places if place]
    figures = {
        "spread": prediction.spread, "spread.limit": point.max_spread,
        "distance": prediction.distance, "distance.limit": point.distance_limit(prediction),
    }  # fmt: skip
    return {
        "judged": finding.target.finding,
        "certainty": stated,
        "probability": finding.probability,
        "number": rounding.stated_text(finding),
        "scores": scores,
        "summary": wording.summary(finding),
        "thresholds": tuple(rounding.threshold_text(value, point) for value in (point.rule_out_below, point.report_at)),
        "threshold.rule_out": point.rule_out_below,
        "threshold.report": point.report_at,
        "calibration": wording.plain(identity.calibration).rstrip(" "),  # padding (PS3.5 6.2)
        **{name: value and float(f"{value:.4g}") for name, value in figures.items()},
        "weights.sha256": identity.weights_sha256,
        "config.sha256": identity.config_sha256,
        "weights": identity.weights_sha256[:12],
        "model line": wording.model_line(finding, PRODUCT),
        "outlines": [as_stored(region.outline) for region in context.regions],
        "tracking": [context.tracking_uid(number) for number in range(1, max(len(context.regions), 1) + 1)],
        "places in order": places,
        "places": set(places),
        "size 110910": (rows, PIXELS),
        "size 110911": (columns, PIXELS),
    }


def as_stored(outline: tuple[Point, ...]) -> tuple[str, ...]:
    """Coordinates as they stand in an object, in single precision."""
    numbers = [number for point in outline for number in point]
    form = f"{len(numbers)}f"
    return tuple(f"{number:.10g}" for number in struct.unpack(form, struct.pack(form, *numbers)))


def _rounded(value: float) -> float:
    return float(f"{value:.10g}")


def as_number(said: str) -> float | str:
    """Number that a text is; the text itself where it is none."""
    try:
        return float(said)
    except ValueError:
        return said
