"""The report that a person reads: Basic Text SR: Impressions, Findings, Technique, Limitations.

CID 7001 has no word for the last two, and may be extended. Shape as measured in viewers: every container SEPARATE, the
source images under the Impression (some print no children of text), short lines under Findings (they do not wrap): one
of one image, else one for each image of the study, the ones that were not analysed among them.
PS3.3 A.35.1; PS3.16 TID 2000, TID 1204, TID 1002.
"""

from __future__ import annotations

from pydicom import Dataset

from cxr_node.dicom.results import sr_items
from cxr_node.dicom.results.context import PRODUCT, Context, finish
from cxr_node.dicom.results.sections import Section, sections
from cxr_node.dicom.results.sr_items import Item, Relation
from cxr_node.dicom.results.study import Study, about, named, start_report
from cxr_node.dicom.words import coded_findings, codes
from cxr_node.dicom.words.codes import Code
from cxr_node.outcome import Artifact, NotAnalysed
from cxr_node.result_kinds import ResultKind

TITLE = codes.LN.DiagnosticImagingReport
ENGLISH = Code("en", "RFC5646", "English")


def build(of: Context | Study) -> Artifact:
    """Make the report of an image or of a study."""
    study = about(of)
    dataset = start_report(study, ResultKind.REPORT, _content(study))
    dataset.CodingSchemeIdentificationSequence = [coded_findings.own_scheme()]
    return finish(study, ResultKind.REPORT, dataset)


def _content(study: Study) -> Dataset:
    language = sr_items.code(Relation.HAS_CONCEPT_MOD, codes.DCM.LanguageOfContentItemAndDescendants, ENGLISH)
    said = [_section(each) for each in sections(study)]
    return sr_items.root(TITLE, "2000", [language, *observer(study), *said])


def _section(section: Section) -> Item:
    lines = []
    for line in section.lines:
        images = [_image(each) for each in line.images]
        lines.append(sr_items.text(Relation.CONTAINS, section.concept, line.text, images))
    return sr_items.container(Relation.CONTAINS, section.heading, lines)


def observer(of: Context | Study) -> list[Item]:
    """TID 1002 and 1004, the device: what it is, in words; each where several have a say."""
    return [
        item
        for device in of.devices
        for item in (
            sr_items.code(Relation.HAS_OBS_CONTEXT, codes.DCM.ObserverType, codes.DCM.Device),
            sr_items.uid_ref(Relation.HAS_OBS_CONTEXT, codes.DCM.DeviceObserverUID, device.device_uid),
            sr_items.text(Relation.HAS_OBS_CONTEXT, codes.DCM.DeviceObserverName, f"{PRODUCT}, {device.model_name}"),
        )
    ]


def _image(image: Context | NotAnalysed) -> Item:
    _, sop_class_uid, sop_instance_uid = named(image)
    return sr_items.image(Relation.INFERRED_FROM, codes.DCM.SourceOfMeasurement, sop_class_uid, sop_instance_uid)
