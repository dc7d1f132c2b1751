"""The report that a person reads: Basic Text SR, verdict first.

Shape as measured in viewers: every container SEPARATE, the source image under the Impression (some viewers print no
children of text), short lines under Findings (they do not wrap), long ones under Conclusions.

Clauses: PS3.3 A.35.1 Basic Text SR IOD; PS3.16 TID 2000 Basic Diagnostic Imaging Report, TID 1204, TID 1002.
"""

from __future__ import annotations

from collections.abc import Iterable

from highdicom.sr.enum import RelationshipTypeValues as Relation
from highdicom.sr.value_types import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ImageContentItem,
    TextContentItem,
    UIDRefContentItem,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxr_node.dicom import wording
from cxr_node.dicom.result import PRODUCT, SHAPES, Context, finish, start_report
from cxr_node.domain import Artifact, ResultKind

TITLE = codes.LN.DiagnosticImagingReport
ENGLISH = Code("en", "RFC5646", "English")


def build(context: Context) -> Artifact:
    """Make the report of one radiograph."""
    return finish(context, ResultKind.REPORT, start_report(context, ResultKind.REPORT, _content(context)))


def _content(context: Context) -> ContainerContentItem:
    numbers = {kind: shape.series_number for kind, shape in SHAPES.items()}
    findings = wording.report_findings(context.finding, context.radiograph, numbers)
    conclusions = wording.report_conclusions(context.finding, context.radiograph, PRODUCT)
    root = ContainerContentItem(TITLE, is_content_continuous=False, template_id="2000")
    root.ContentSequence = [
        CodeContentItem(codes.DCM.LanguageOfContentItemAndDescendants, ENGLISH, Relation.HAS_CONCEPT_MOD),
        *_observer(context),
        _section(codes.DCM.Impressions, [_impression(context)]),
        _section(codes.DCM.Findings, _texts(codes.DCM.Finding, findings)),
        _section(codes.DCM.Conclusions, _texts(codes.DCM.Conclusion, conclusions)),
    ]
    return root


def _observer(context: Context) -> list[ContentItem]:
    """TID 1002, the device: what it is, in words."""
    name = f"{PRODUCT}, {context.model_name} {context.algorithm_version}, {context.manufacturer}"
    return [
        CodeContentItem(codes.DCM.ObserverType, codes.DCM.Device, Relation.HAS_OBS_CONTEXT),
        UIDRefContentItem(codes.DCM.DeviceObserverUID, context.device_uid, Relation.HAS_OBS_CONTEXT),
        TextContentItem(codes.DCM.DeviceObserverName, name, Relation.HAS_OBS_CONTEXT),
    ]


def _impression(context: Context) -> TextContentItem:
    ref = context.source.ref
    impression = TextContentItem(codes.DCM.Impression, wording.summary(context.finding), Relation.CONTAINS)
    image = ImageContentItem(
        codes.DCM.SourceImageForImageProcessingOperation,
        ref.sop_class_uid,
        ref.sop_instance_uid,
        relationship_type=Relation.INFERRED_FROM,
    )
    del image.ConceptNameCodeSequence  # TID 2000 gives image references no purpose
    impression.ContentSequence = [image]
    return impression


def _texts(concept: Code, lines: Iterable[str]) -> list[TextContentItem]:
    return [TextContentItem(concept, line, Relation.CONTAINS) for line in lines]


def _section(concept: Code, items: Iterable[ContentItem]) -> ContainerContentItem:
    section = ContainerContentItem(concept, is_content_continuous=False, relationship_type=Relation.CONTAINS)
    section.ContentSequence = list(items)
    return section
