"""The report that a person reads: Basic Text SR: Impressions, Findings, Technique, Limitations.

CID 7001 has no word for the last two, and may be extended. Shape as measured in viewers: every container SEPARATE, the
source images under the Impression (some print no children of text), short lines under Findings (they do not wrap): one
of one image, else one for each image of the study, the ones that were not analysed among them.
PS3.3 A.35.1; PS3.16 TID 2000, TID 1204, TID 1002.
"""

from __future__ import annotations

from collections.abc import Callable

from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxr_node.dicom.results import copied_attributes, sr_items
from cxr_node.dicom.results.context import PRODUCT, Context, finish
from cxr_node.dicom.results.sr_items import Relation
from cxr_node.dicom.results.study import Study, about, looked, named, start_report
from cxr_node.dicom.words import coded_findings, study_wording, wording
from cxr_node.outcome import Artifact, NotAnalysed
from cxr_node.result_kinds import SHAPES, ResultKind

TITLE = codes.LN.DiagnosticImagingReport
ENGLISH = Code("en", "RFC5646", "English")
TECHNIQUE = Code("272394005", "SCT", "Technique")
LIMITATIONS = Code("limitations", coded_findings.OWN_SCHEME, "Limitations")
LIMITATION = Code("limitation", coded_findings.OWN_SCHEME, "Limitation")


def build(of: Context | Study) -> Artifact:
    """Make the report of an image or of a study."""
    study = about(of)
    dataset = start_report(study, ResultKind.REPORT, _content(study))
    dataset.CodingSchemeIdentificationSequence = [coded_findings.own_scheme()]
    return finish(study, ResultKind.REPORT, dataset)


def _content(study: Study) -> Dataset:
    scores = _of_images(study, lambda image: wording.report_scores(image.finding))
    limitations = _of_images(study, _limitations) or [wording.FOOTER]
    sections = [
        _section(codes.DCM.Impressions, [_impression(study)]),
        _section(codes.DCM.Findings, _findings(study)),
        _section(codes.DCM.PreviousFindings, [_prior(each) for each in study.priors]),
        _section(coded_findings.SCORED, _texts(coded_findings.SCORE, scores)),
        _section(TECHNIQUE, _texts(TECHNIQUE, _of_images(study, _technique))),
        _section(LIMITATIONS, _texts(LIMITATION, limitations)),
    ]
    language = sr_items.code(Relation.HAS_CONCEPT_MOD, codes.DCM.LanguageOfContentItemAndDescendants, ENGLISH)
    return sr_items.root(TITLE, "2000", [language, *observer(study), *(each for each in sections if each is not None)])


def _of_images(study: Study, lines: Callable[[Context], list[str]]) -> list[str]:
    return study_wording.together({study.number(each): lines(each) for each in study.images})


def _technique(image: Context) -> list[str]:
    numbers = {kind: shape.series_number for kind, shape in SHAPES.items() if kind in image.kinds}
    said = wording.report_technique(image.finding, image.radiograph, numbers, PRODUCT, shows_map=image.refers_to_map)
    return said + looked(image)


def _limitations(image: Context) -> list[str]:
    return wording.report_limitations(image.finding, image.radiograph, shows_map=image.refers_to_map)


def _section(heading: Code, lines: list[Dataset]) -> Dataset | None:
    return sr_items.container(Relation.CONTAINS, heading, lines) if lines else None


def observer(of: Context | Study) -> list[Dataset]:
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


def _impression(study: Study) -> Dataset:
    impression = sr_items.text(Relation.CONTAINS, codes.DCM.Impression, study.summary)
    impression.ContentSequence = [_image(each) for each in study.images or study.others]
    return impression


def _findings(study: Study) -> list[Dataset]:
    """One line of one image; else a line for each, which leads to its image."""
    if study.is_of_one:
        return _texts(codes.DCM.Finding, [wording.report_finding(study.images[0].finding)])
    lines = []
    for image in study.listed:
        if isinstance(image, NotAnalysed):
            said = study_wording.not_analysed_line(image)
        else:
            said = study_wording.finding_line(image.finding)
        line = sr_items.text(Relation.CONTAINS, codes.DCM.Finding, f"{study.label(image)}{said}")
        line.ContentSequence = [_image(image)]
        lines.append(line)
    return lines


def _prior(image: Context) -> Dataset:
    """What is said of an earlier radiograph, which leads to it; nothing is compared."""
    day = copied_attributes.raw_text(image.source.dataset, "StudyDate").decode("ascii", "replace")
    said = study_wording.prior_line(day, image.radiograph.view, image.finding)
    line = sr_items.text(Relation.CONTAINS, codes.DCM.PreviousFinding, said)
    line.ContentSequence = [_image(image)]
    return line


def _image(image: Context | NotAnalysed) -> Dataset:
    _, sop_class_uid, sop_instance_uid = named(image)
    return sr_items.image(Relation.INFERRED_FROM, codes.DCM.SourceOfMeasurement, sop_class_uid, sop_instance_uid)


def _texts(concept: Code, lines: list[str]) -> list[Dataset]:
    return [sr_items.text(Relation.CONTAINS, concept, line) for line in lines]
