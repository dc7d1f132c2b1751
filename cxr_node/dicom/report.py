"""The report that a person reads: Basic Text SR, verdict first.

Shape as measured in viewers: every container SEPARATE, the source image under the Impression (some viewers print no
children of text), short lines under Findings (they do not wrap), long ones under Conclusions.

Clauses: PS3.3 A.35.1 Basic Text SR IOD; PS3.16 TID 2000 Basic Diagnostic Imaging Report, TID 1204, TID 1002.
"""

from __future__ import annotations

from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxr_node.dicom import content, wording, zones
from cxr_node.dicom.content import Relation
from cxr_node.dicom.result import PRODUCT, SHAPES, Context, finish, start_report
from cxr_node.domain import Artifact, ResultKind

TITLE = codes.LN.DiagnosticImagingReport
ENGLISH = Code("en", "RFC5646", "English")


def build(context: Context) -> Artifact:
    """Make the report of one radiograph."""
    return finish(context, ResultKind.REPORT, start_report(context, ResultKind.REPORT, _content(context)))


def _content(context: Context) -> Dataset:
    numbers = {kind: shape.series_number for kind, shape in SHAPES.items() if kind in context.kinds}
    findings = wording.report_findings(context.finding, context.radiograph, numbers, shows_map=context.refers_to_map)
    findings += zones.lines(context.looked, context.finding.decision)
    conclusions = wording.report_conclusions(context.finding, context.radiograph, PRODUCT)
    children = [
        content.code(Relation.HAS_CONCEPT_MOD, codes.DCM.LanguageOfContentItemAndDescendants, ENGLISH),
        *observer(context),
        content.container(Relation.CONTAINS, codes.DCM.Impressions, [_impression(context)]),
        content.container(Relation.CONTAINS, codes.DCM.Findings, _texts(codes.DCM.Finding, findings)),
        content.container(Relation.CONTAINS, codes.DCM.Conclusions, _texts(codes.DCM.Conclusion, conclusions)),
    ]
    return content.root(TITLE, "2000", children)


def observer(context: Context) -> list[Dataset]:
    """TID 1002 and 1004, the device: what it is, in words."""
    name = f"{PRODUCT}, {context.model_name} {context.algorithm_version}, {context.manufacturer}"
    return [
        content.code(Relation.HAS_OBS_CONTEXT, codes.DCM.ObserverType, codes.DCM.Device),
        content.uid_ref(Relation.HAS_OBS_CONTEXT, codes.DCM.DeviceObserverUID, context.device_uid),
        content.text(Relation.HAS_OBS_CONTEXT, codes.DCM.DeviceObserverName, name),
    ]


def _impression(context: Context) -> Dataset:
    ref = context.source.ref
    impression = content.text(Relation.CONTAINS, codes.DCM.Impression, wording.summary(context.finding))
    image = content.image(
        Relation.INFERRED_FROM, codes.DCM.SourceOfMeasurement, ref.sop_class_uid, ref.sop_instance_uid
    )
    impression.ContentSequence = [image]
    return impression


def _texts(concept: Code, lines: list[str]) -> list[Dataset]:
    return [content.text(Relation.CONTAINS, concept, line) for line in lines]
