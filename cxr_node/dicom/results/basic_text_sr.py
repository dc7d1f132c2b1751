"""The report that a person reads: Basic Text SR: Impressions, Findings, Technique, Limitations.

CID 7001 has no word for the last two, and may be extended. Shape as measured in viewers: every container SEPARATE, the
source image under the Impression (some print no children of text), one short line under Findings (it does not wrap).
PS3.3 A.35.1; PS3.16 TID 2000, TID 1204, TID 1002.
"""

from __future__ import annotations

from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxr_node.dicom.results import sr_items
from cxr_node.dicom.results.context import PRODUCT, Context, finish, start_report
from cxr_node.dicom.results.sr_items import Relation
from cxr_node.dicom.words import coded_findings, wording, zones
from cxr_node.domain import Artifact
from cxr_node.result_kinds import SHAPES, ResultKind

TITLE = codes.LN.DiagnosticImagingReport
ENGLISH = Code("en", "RFC5646", "English")
TECHNIQUE = Code("272394005", "SCT", "Technique")
LIMITATIONS = Code("limitations", coded_findings.OWN_SCHEME, "Limitations")
LIMITATION = Code("limitation", coded_findings.OWN_SCHEME, "Limitation")


def build(context: Context) -> Artifact:
    """Make the report of one radiograph."""
    dataset = start_report(context, ResultKind.REPORT, _content(context))
    dataset.CodingSchemeIdentificationSequence = [coded_findings.own_scheme()]
    return finish(context, ResultKind.REPORT, dataset)


def _content(context: Context) -> Dataset:
    numbers = {kind: shape.series_number for kind, shape in SHAPES.items() if kind in context.kinds}
    finding, radiograph, shows_map = context.finding, context.radiograph, context.refers_to_map
    technique = wording.report_technique(finding, radiograph, numbers, PRODUCT, shows_map=shows_map)
    limitations = wording.report_limitations(finding, radiograph, shows_map=shows_map)
    technique += zones.lines(context.looked, finding.decision)
    sections = [
        _section(codes.DCM.Impressions, [_impression(context)]),
        _section(codes.DCM.Findings, _texts(codes.DCM.Finding, [wording.report_finding(finding)])),
        _section(coded_findings.SCORED, _texts(coded_findings.SCORE, wording.report_scores(finding))),
        _section(TECHNIQUE, _texts(TECHNIQUE, technique)),
        _section(LIMITATIONS, _texts(LIMITATION, limitations)),
    ]
    language = sr_items.code(Relation.HAS_CONCEPT_MOD, codes.DCM.LanguageOfContentItemAndDescendants, ENGLISH)
    return sr_items.root(
        TITLE, "2000", [language, *observer(context), *(each for each in sections if each is not None)]
    )


def _section(heading: Code, lines: list[Dataset]) -> Dataset | None:
    return sr_items.container(Relation.CONTAINS, heading, lines) if lines else None


def observer(context: Context) -> list[Dataset]:
    """TID 1002 and 1004, the device: what it is, in words."""
    name = f"{PRODUCT}, {context.model_name}"
    return [
        sr_items.code(Relation.HAS_OBS_CONTEXT, codes.DCM.ObserverType, codes.DCM.Device),
        sr_items.uid_ref(Relation.HAS_OBS_CONTEXT, codes.DCM.DeviceObserverUID, context.device_uid),
        sr_items.text(Relation.HAS_OBS_CONTEXT, codes.DCM.DeviceObserverName, name),
    ]


def _impression(context: Context) -> Dataset:
    ref = context.source.ref
    impression = sr_items.text(Relation.CONTAINS, codes.DCM.Impression, wording.summary(context.finding))
    image = sr_items.image(
        Relation.INFERRED_FROM, codes.DCM.SourceOfMeasurement, ref.sop_class_uid, ref.sop_instance_uid
    )
    impression.ContentSequence = [image]
    return impression


def _texts(concept: Code, lines: list[str]) -> list[Dataset]:
    return [sr_items.text(Relation.CONTAINS, concept, line) for line in lines]
