"""The measurements that a machine reads: Comprehensive 3D SR, TID 1500; and, outside IHE AIR, as its two older classes.

A positive has a TID 1410 group for each region, where the network looked; the certainty is that of the radiograph and
stands in the first group only. Without a region there are codes and an image reference in a TID 1501 group, and the
title is Qualitative Evaluations: of an Imaging Measurement Report without a region OHIF (3.11 to 3.14) shows a black
viewport. Nor may every item of the text be without a name: hence no image library. Beside images with a region, which
come first, the others have a frame round all of them for one: no group may be without a region there either.

PS3.3 A.35.13, A.35.3, A.35.2, C.18.6; PS3.16 TID 1500, 1600, 1602, 1410, 1501, 4019, 1204, 1004, CID 240, 6047, 7021;
IHE RAD AIR 6.5.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydicom import Dataset

from cxr_node.dicom.results import copied_attributes, sr_items
from cxr_node.dicom.results.context import Context, finish
from cxr_node.dicom.results.sr_items import Item, Relation
from cxr_node.dicom.results.study import Study, about, named, start_report
from cxr_node.dicom.words import coded_findings, codes, study_wording, wording, zones
from cxr_node.dicom.words.codes import Code
from cxr_node.domain import Finding, Point, Verdict
from cxr_node.outcome import Artifact, NotAnalysed
from cxr_node.result_kinds import ResultKind

TITLE = codes.DCM.ImagingMeasurementReport
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
"""Of those tried, the one that validators with old and new tables of CID 100 accept."""
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
PERCENT = Code("%", "UCUM", "Percent")
PIXELS = Code("{pixels}", "UCUM", "Pixels")
PRESENCE = {
    Verdict.POSITIVE: codes.SCT.Present,
    Verdict.NEGATIVE: codes.SCT.Absent,
    Verdict.INDETERMINATE: codes.SCT.Undetermined,
}
PROCESSING = {
    Verdict.POSITIVE: codes.DCM.AllAlgorithmsSucceededWithFindings,
    Verdict.NEGATIVE: codes.DCM.AllAlgorithmsSucceededWithoutFindings,
}
"""CID 6047; no value of it means "abstained", so UNCERTAIN has none: "without findings" would read as negative."""


def build(of: Context | Study) -> Artifact:
    """Make the measurements of an image or of a study."""
    study, kind = about(of), ResultKind.MEASUREMENTS
    dataset = start_report(study, kind, _content(study))
    if any(coded_findings.listed(image.finding) for image in study.images):  # then local codes are used
        dataset.CodingSchemeIdentificationSequence = [coded_findings.own_scheme()]
    return finish(study, kind, dataset)


def title(*, has_region: bool) -> Code:
    """Title of the document, by which OHIF chooses how to show it."""
    return TITLE if has_region else QUALITATIVE_EVALUATIONS


def _content(study: Study) -> Dataset:
    drawn = [image for image in study.images if image.regions]
    bare = [image for image in study.images if not image.regions]
    groups = [_group(image, number) for image in drawn for number in range(1, len(image.regions) + 1)]
    groups += [_framed_group(image) if drawn else _group_of_codes(image) for image in bare]
    entries = [_library_entry(each) for each in study.listed]
    library = sr_items.container(Relation.CONTAINS, codes.DCM.ImageLibraryGroup, entries)
    children = [
        sr_items.code(Relation.HAS_CONCEPT_MOD, codes.DCM.LanguageOfContentItemAndDescendants, ENGLISH),
        *(item for device in study.devices for item in _observer(device)),
        _procedure(study.head),
        *([sr_items.container(Relation.CONTAINS, codes.DCM.ImageLibrary, [library])] if drawn else []),
        sr_items.container(Relation.CONTAINS, codes.DCM.ImagingMeasurements, groups),
        sr_items.container(Relation.CONTAINS, QUALITATIVE_EVALUATIONS, _evaluations(study)),
    ]
    return sr_items.root(title(has_region=bool(drawn)), "1500", children)


def _target(context: Context) -> Code:
    return Code(*context.finding.target.code)


def _observer(context: Context) -> list[Item]:
    """TID 1004; the same words as Contributing Equipment (AIR table 6.5.3.1-1)."""
    texts = {
        codes.DCM.DeviceObserverName: context.serial_number,
        codes.DCM.DeviceObserverManufacturer: context.manufacturer,
        codes.DCM.DeviceObserverModelName: context.model_name,
        codes.DCM.DeviceObserverSerialNumber: context.serial_number,
    }
    return [
        sr_items.code(Relation.HAS_OBS_CONTEXT, codes.DCM.ObserverType, codes.DCM.Device),
        sr_items.uid_ref(Relation.HAS_OBS_CONTEXT, codes.DCM.DeviceObserverUID, context.device_uid),
        *(sr_items.text(Relation.HAS_OBS_CONTEXT, concept, value) for concept, value in texts.items()),
    ]


def _procedure(context: Context) -> Item:
    """What was done to the patient, not what the algorithm did (AIR)."""
    carried = copied_attributes.procedure_code(context.source.dataset)
    if carried is not None:
        return sr_items.carried_code(Relation.HAS_CONCEPT_MOD, codes.DCM.ProcedureReported, carried)
    return sr_items.code(Relation.HAS_CONCEPT_MOD, codes.DCM.ProcedureReported, IMAGING_PROCEDURE)


def _library_entry(image: Context | NotAnalysed) -> Item:
    """TID 1601; of an analysed one 1602, from what was decoded rather than from tags that may be missing."""
    if isinstance(image, NotAnalysed):
        return _other_image(image, Relation.CONTAINS)
    context = image
    rows, columns = context.radiograph.pixels.shape
    computed = copied_attributes.raw_text(context.source.dataset, "Modality") == b"CR"
    modality = codes.DCM.ComputedRadiography if computed else codes.DCM.DigitalRadiography
    told = [
        sr_items.code(Relation.HAS_ACQ_CONTEXT, codes.DCM.Modality, modality),
        sr_items.number(Relation.HAS_ACQ_CONTEXT, codes.DCM.PixelDataRows, rows, PIXELS),
        sr_items.number(Relation.HAS_ACQ_CONTEXT, codes.DCM.PixelDataColumns, columns, PIXELS),
    ]
    return _source_image(context, Relation.CONTAINS, children=told)


def _group(context: Context, number: int) -> Item:
    """TID 1410, one region: the finding, its certainty, who says so, and the region that lets viewers show it."""
    return _drawn_group(context, number, context.regions[number - 1].outline, context.places[number - 1])


def _framed_group(context: Context) -> Item:
    return _drawn_group(context, 1, frame(context), "")


def frame(context: Context) -> tuple[Point, ...]:
    """Closed line round the whole image."""
    rows, columns = context.radiograph.pixels.shape
    return (0.0, 0.0), (columns, 0.0), (columns, rows), (0.0, rows), (0.0, 0.0)


def _drawn_group(context: Context, number: int, outline: tuple[Point, ...], place: str) -> Item:
    source = _source_image(context, Relation.SELECTED_FROM)
    items = [
        *_finding(context, number),
        sr_items.code(Relation.CONTAINS, _target(context), PRESENCE[context.finding.decision.verdict]),
        sr_items.polyline(Relation.CONTAINS, codes.DCM.ImageRegion, outline, source),
    ]
    if place:
        items.append(sr_items.text(Relation.CONTAINS, codes.DCM.Comment, zones.of_region(place)))
    if context.refers_to_map:
        items += [
            _picture(context, Relation.CONTAINS, concept)
            for concept in (codes.DCM.IllustrationOfROI, codes.DCM.VisualExplanation)
        ]
    return sr_items.container(Relation.CONTAINS, codes.DCM.MeasurementGroup, items, template_id="1410")


def _group_of_codes(context: Context) -> Item:
    """TID 1501: the same without a region. The images hang below the answer, where no viewer prints them as text."""
    images = [_source_image(context, Relation.INFERRED_FROM, codes.DCM.SourceOfMeasurement)]
    if context.refers_to_map:
        images.append(_picture(context, Relation.HAS_PROPERTIES, codes.DCM.VisualExplanation))
    presence = PRESENCE[context.finding.decision.verdict]
    items = [*_finding(context, 1), sr_items.code(Relation.CONTAINS, _target(context), presence, images)]
    return sr_items.container(Relation.CONTAINS, codes.DCM.MeasurementGroup, items, template_id="1501")


def _finding(context: Context, number: int) -> list[Item]:
    """What both groups begin with."""
    tracking = context.finding.target.tracking_identifier(number)
    items = [
        sr_items.text(Relation.HAS_OBS_CONTEXT, codes.DCM.TrackingIdentifier, tracking),
        sr_items.uid_ref(Relation.HAS_OBS_CONTEXT, codes.DCM.TrackingUniqueIdentifier, context.tracking_uid(number)),
    ]
    if context.finding.decision.verdict is Verdict.POSITIVE:
        items.append(sr_items.code(Relation.CONTAINS, codes.DCM.Finding, _target(context)))
    return [*items, *_algorithm(context), *(_certainty(context) if number == 1 else ())]


def _algorithm(context: Context) -> list[Item]:
    """TID 4019; name, version and manufacturer as in Contributing Equipment (AIR table 6.5.3.1-1)."""
    parameters = algorithm_parameters(context, abstention_figures(context.finding))
    texts = [
        (codes.DCM.AlgorithmName, context.model_name),
        (codes.DCM.AlgorithmVersion, context.algorithm_version),
        (codes.DCM.AlgorithmManufacturer, context.manufacturer),
        *((codes.DCM.AlgorithmParameters, f"{name}={value}") for name, value in parameters.items()),
    ]
    return [
        *(sr_items.text(Relation.HAS_CONCEPT_MOD, concept, value) for concept, value in texts),
        sr_items.code(Relation.HAS_CONCEPT_MOD, codes.DCM.AlgorithmFamily, codes.DCM.ArtificialIntelligence),
    ]


def algorithm_parameters(context: Context, figures: Mapping[str, str] | None = None) -> dict[str, str]:
    """What every verdict of the algorithm depends on, by name, in full digits; with `figures` of one image."""
    identity, point = context.finding.identity, context.finding.identity.operating_point
    return {
        "threshold.rule_out": repr(point.rule_out_below),
        "threshold.report": repr(point.report_at),
        "calibration": wording.plain(identity.calibration),
        **(figures or {}),
        "weights.sha256": identity.weights_sha256,
        "config.sha256": identity.config_sha256,
    }


def abstention_figures(finding: Finding) -> dict[str, str]:
    """What could make the algorithm abstain, with its limit: the figures that people are spared."""
    prediction, point = finding.prediction, finding.identity.operating_point
    told = {"spread": f"{prediction.spread:.4g}", "spread.limit": f"{point.max_spread:.4g}"}
    limit = point.distance_limit(prediction)
    if prediction.distance is not None and limit is not None:
        told |= {"distance": f"{prediction.distance:.4g}", "distance.limit": f"{limit:.4g}"}
    return told


def certainty(finding: Finding) -> tuple[Code, float, Code] | None:
    """Calibrated certainty in percent: its concept, value and unit; None where none may be stated.

    A score is no certainty, and has a concept of its own.
    """
    percent, score = wording.certainty(finding), wording.score(finding)
    if score is not None:
        return coded_findings.SCORE, score, coded_findings.NO_UNITS
    return None if percent is None else (codes.DCM.CertaintyOfFinding, percent, PERCENT)


def _certainty(context: Context) -> list[Item]:
    """Said of the finding whatever the verdict; no row where it is not stated.

    An absent value with a qualifier (CID 42) would say the same, but the validator of IHE counts it as an error.
    """
    stated = certainty(context.finding)
    if stated is None:
        return []
    finding = sr_items.code(Relation.HAS_CONCEPT_MOD, codes.DCM.Finding, _target(context))
    return [sr_items.number(Relation.CONTAINS, *stated, [finding])]


def _evaluations(study: Study) -> list[Item]:
    """TID 1500 row 12: what holds of the whole study, and which images were not analysed."""
    verdict = study.verdict
    items = [
        sr_items.code(Relation.CONTAINS, _target(study.decisive), PRESENCE[verdict]),
        sr_items.text(Relation.CONTAINS, codes.DCM.Summary, study.summary),
    ]
    if verdict in PROCESSING:
        processing = codes.DCM.CADProcessingAndFindingsSummary
        items.insert(0, sr_items.code(Relation.CONTAINS, processing, PROCESSING[verdict]))
    for other in study.others:
        said = f"{study.label(other)}{study_wording.not_analysed_line(other)}"
        source = _other_image(other, Relation.INFERRED_FROM, codes.DCM.SourceOfMeasurement)
        items.append(sr_items.text(Relation.CONTAINS, codes.DCM.Finding, said, [source]))
    return items + [item for image in study.images for item in _scored(image, study)]


def _scored(context: Context, study: Study) -> list[Item]:
    """Every finding that was scored beside the judged one, the highest first; named, with its number, not asserted.

    Codes alone would read as found, and a measurement group without a region breaks viewers: so one CODE each, under
    a concept that says what it is not; of several images each leads to its own. None where no number may be stated.
    """
    items = []
    for label, value in coded_findings.listed(context.finding):
        said = [sr_items.number(Relation.HAS_PROPERTIES, coded_findings.SCORE, value, coded_findings.NO_UNITS)]
        if not study.is_of_one:
            said.append(_source_image(context, Relation.INFERRED_FROM, codes.DCM.SourceOfMeasurement))
        finding = coded_findings.named(label).code
        items.append(sr_items.code(Relation.CONTAINS, coded_findings.SCORED, finding, said))
    return items


def _source_image(
    context: Context, relation: Relation, name: Code | None = None, children: Sequence[Item] = ()
) -> Item:
    ref = context.source.ref
    return sr_items.image(relation, name, ref.sop_class_uid, ref.sop_instance_uid, children)


def _other_image(image: NotAnalysed, relation: Relation, name: Code | None = None) -> Item:
    _, sop_class_uid, sop_instance_uid = named(image)
    return sr_items.image(relation, name, sop_class_uid, sop_instance_uid)


def _picture(context: Context, relation: Relation, purpose: Code) -> Item:
    picture = context.picture
    return sr_items.image(relation, purpose, picture.sop_class_uid, picture.sop_instance_uid)
