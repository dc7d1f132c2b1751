"""The measurements that a machine reads: Comprehensive 3D SR with one image region.

One TID 1410 group per analysed image, always with a region: viewers open it only so. The region of a PNEUMONIA is
where the network looked, not the outline of a lesion; otherwise it is a frame round the image. highdicom's items are
used, its templates are not: they demand attributes that real radiographs lack and lack rows that IHE AIR wants.

Clauses: PS3.3 A.35.13 Comprehensive 3D SR IOD, C.18.6 Spatial Coordinates; PS3.16 TID 1500, 1600, 1602, 1410, 4019,
1204, 1004, CID 240, CID 6047, CID 42; IHE RAD AIR 6.5.3.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from highdicom.sr.coding import CodedConcept
from highdicom.sr.enum import GraphicTypeValues
from highdicom.sr.enum import RelationshipTypeValues as Relation
from highdicom.sr.value_types import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ImageContentItem,
    NumContentItem,
    ScoordContentItem,
    TextContentItem,
    UIDRefContentItem,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxr_node.dicom import carry, wording
from cxr_node.dicom.result import SHAPES, Context, finish, start_report
from cxr_node.domain import Artifact, Point, ResultKind, Verdict

TITLE = codes.DCM.ImagingMeasurementReport
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
"""Of those tried, the one that validators with old and new tables of CID 100 accept."""
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
PERCENT = Code("%", "UCUM", "Percent")
PIXELS = Code("{pixels}", "UCUM", "Pixels")
PRESENCE = {
    Verdict.PNEUMONIA: codes.SCT.Present,
    Verdict.NORMAL: codes.SCT.Absent,
    Verdict.UNCERTAIN: codes.SCT.Undetermined,
}
PROCESSING = {
    Verdict.PNEUMONIA: codes.DCM.AllAlgorithmsSucceededWithFindings,
    Verdict.NORMAL: codes.DCM.AllAlgorithmsSucceededWithoutFindings,
}
"""CID 6047; no value of it means "abstained", so UNCERTAIN has none: "without findings" would read as negative."""


def build(context: Context) -> Artifact:
    """Make the measurements of one radiograph."""
    kind = ResultKind.MEASUREMENTS
    return finish(context, kind, start_report(context, kind, _content(context)))


def region(context: Context) -> tuple[Point, ...]:
    """Closed outline on the source grid: where the network looked for a PNEUMONIA, else a frame round the image.

    The frame lies half a pixel inside, on the centres of the outermost pixels, so that viewers draw all of it.
    """
    outline = context.finding.heatmap.outline
    if context.finding.decision.verdict is Verdict.PNEUMONIA and outline:
        return outline
    rows, columns = context.radiograph.pixels.shape
    right, bottom = columns - 0.5, rows - 0.5
    return ((0.5, 0.5), (right, 0.5), (right, bottom), (0.5, bottom), (0.5, 0.5))


def _content(context: Context) -> ContainerContentItem:
    root = ContainerContentItem(TITLE, is_content_continuous=False, template_id="1500")
    root.ContentSequence = [
        CodeContentItem(codes.DCM.LanguageOfContentItemAndDescendants, ENGLISH, Relation.HAS_CONCEPT_MOD),
        *_observer(context),
        _procedure(context),
        _container(codes.DCM.ImageLibrary, [_container(codes.DCM.ImageLibraryGroup, [_library_entry(context)])]),
        _container(codes.DCM.ImagingMeasurements, [_group(context)]),
        _container(QUALITATIVE_EVALUATIONS, _evaluations(context)),
    ]
    return root


def _observer(context: Context) -> list[ContentItem]:
    """TID 1004; the same words as Contributing Equipment (AIR table 6.5.3.1-1)."""
    texts = {
        codes.DCM.DeviceObserverName: context.serial_number,
        codes.DCM.DeviceObserverManufacturer: context.manufacturer,
        codes.DCM.DeviceObserverModelName: context.model_name,
        codes.DCM.DeviceObserverSerialNumber: context.serial_number,
    }
    return [
        CodeContentItem(codes.DCM.ObserverType, codes.DCM.Device, Relation.HAS_OBS_CONTEXT),
        UIDRefContentItem(codes.DCM.DeviceObserverUID, context.device_uid, Relation.HAS_OBS_CONTEXT),
        *(TextContentItem(concept, text, Relation.HAS_OBS_CONTEXT) for concept, text in texts.items()),
    ]


def _procedure(context: Context) -> CodeContentItem:
    """What was done to the patient, not what the algorithm did (AIR)."""
    item = CodeContentItem(codes.DCM.ProcedureReported, IMAGING_PROCEDURE, Relation.HAS_CONCEPT_MOD)
    carried = carry.procedure_code(context.source.dataset)
    if carried is not None:
        item.ConceptCodeSequence = [carried]
    return item


def _library_entry(context: Context) -> ImageContentItem:
    """TID 1601 and 1602, from what was decoded rather than from tags that may be missing."""
    rows, columns = context.radiograph.pixels.shape
    entry = _source_image(context, Relation.CONTAINS)
    modality = codes.DCM.ComputedRadiography if context.source.dataset.get("Modality") == "CR" else codes.DCM.DigitalRadiography
    entry.ContentSequence = [
        CodeContentItem(codes.DCM.Modality, modality, Relation.HAS_ACQ_CONTEXT),
        NumContentItem(codes.DCM.PixelDataRows, rows, PIXELS, relationship_type=Relation.HAS_ACQ_CONTEXT),
        NumContentItem(codes.DCM.PixelDataColumns, columns, PIXELS, relationship_type=Relation.HAS_ACQ_CONTEXT),
    ]
    return entry


def _group(context: Context) -> ContainerContentItem:
    """TID 1410: the finding, its certainty, who says so, and the region that lets viewers show it."""
    verdict = context.finding.decision.verdict
    items: list[ContentItem] = [
        TextContentItem(codes.DCM.TrackingIdentifier, "cxr_node pneumonia 1", Relation.HAS_OBS_CONTEXT),
        UIDRefContentItem(codes.DCM.TrackingUniqueIdentifier, context.tracking_uid(), Relation.HAS_OBS_CONTEXT),
    ]
    if verdict is Verdict.PNEUMONIA:
        items.append(CodeContentItem(codes.DCM.Finding, PNEUMONIA, Relation.CONTAINS))
    items += _algorithm(context)
    items.append(_certainty(context))
    items.append(CodeContentItem(PNEUMONIA, PRESENCE[verdict], Relation.CONTAINS))
    items.append(_image_region(context))
    if context.shows_map:
        items += [_picture(context, codes.DCM.IllustrationOfROI), _picture(context, codes.DCM.VisualExplanation)]
    return _container(codes.DCM.MeasurementGroup, items)


def _algorithm(context: Context) -> list[ContentItem]:
    """TID 4019; name, version and manufacturer as in Contributing Equipment (AIR table 6.5.3.1-1)."""
    identity, point = context.finding.identity, context.finding.identity.operating_point
    parameters = {
        "threshold.rule_out": f"{point.rule_out_below:.6g}",
        "threshold.report": f"{point.report_at:.6g}",
        "calibration": wording.plain(identity.calibration),
        "weights.sha256": identity.weights_sha256,
        "config.sha256": identity.config_sha256,
    }
    texts = [
        (codes.DCM.AlgorithmName, context.model_name),
        (codes.DCM.AlgorithmVersion, context.algorithm_version),
        (codes.DCM.AlgorithmManufacturer, context.manufacturer),
        *((codes.DCM.AlgorithmParameters, f"{name}={value}") for name, value in parameters.items()),
    ]
    return [
        *(TextContentItem(concept, text, Relation.HAS_CONCEPT_MOD) for concept, text in texts),
        CodeContentItem(codes.DCM.AlgorithmFamily, codes.DCM.ArtificialIntelligence, Relation.HAS_CONCEPT_MOD),
    ]


def _certainty(context: Context) -> NumContentItem:
    """Calibrated certainty in percent, said of pneumonia whatever the verdict.

    Where none may be stated the value is absent and qualified as indeterminate (CID 42).
    """
    value = wording.certainty(context.finding)
    item = NumContentItem(
        codes.DCM.CertaintyOfFinding, value or 0.0, PERCENT, relationship_type=Relation.CONTAINS
    )
    if value is None:
        item.MeasuredValueSequence = []
        item.NumericValueQualifierCodeSequence = [CodedConcept.from_code(codes.DCM.ValueIndeterminate)]
    item.ContentSequence = [CodeContentItem(codes.DCM.Finding, PNEUMONIA, Relation.HAS_CONCEPT_MOD)]
    return item


def _image_region(context: Context) -> ScoordContentItem:
    item = ScoordContentItem(
        codes.DCM.ImageRegion,
        GraphicTypeValues.POLYLINE,
        np.asarray(region(context), dtype=np.float32),
        relationship_type=Relation.CONTAINS,
    )
    item.ContentSequence = [_source_image(context, Relation.SELECTED_FROM)]
    return item


def _evaluations(context: Context) -> list[ContentItem]:
    """TID 1500 row 12: what holds of the whole radiograph."""
    verdict = context.finding.decision.verdict
    items: list[ContentItem] = []
    if verdict in PROCESSING:
        concept = codes.DCM.CADProcessingAndFindingsSummary
        items.append(CodeContentItem(concept, PROCESSING[verdict], Relation.CONTAINS))
    items.append(CodeContentItem(PNEUMONIA, PRESENCE[verdict], Relation.CONTAINS))
    items.append(TextContentItem(codes.DCM.Summary, wording.summary(context.finding), Relation.CONTAINS))
    return items


def _source_image(context: Context, relation: Relation) -> ImageContentItem:
    ref = context.source.ref
    item = ImageContentItem(
        codes.DCM.SourceImageForImageProcessingOperation,
        ref.sop_class_uid,
        ref.sop_instance_uid,
        relationship_type=relation,
    )
    del item.ConceptNameCodeSequence  # neither TID 1601 nor a SCOORD names its image
    return item


def _picture(context: Context, purpose: Code) -> ImageContentItem:
    shape, uid = SHAPES[ResultKind.HEATMAP], context.instance_uid(ResultKind.HEATMAP)
    return ImageContentItem(purpose, shape.sop_class_uid, uid, relationship_type=Relation.CONTAINS)


def _container(concept: Code, items: Iterable[ContentItem]) -> ContainerContentItem:
    container = ContainerContentItem(concept, is_content_continuous=False, relationship_type=Relation.CONTAINS)
    if concept == codes.DCM.MeasurementGroup:
        container.ContentTemplateSequence = _template("1410")
    container.ContentSequence = list(items)
    return container
