"""The lines of a report, section by section: what a person reads, whether it goes as an SR, an HL7 message or by FHIR.

Every document is made of these, so that none of them can say what the others do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cxr_node.dicom.results import copied_attributes
from cxr_node.dicom.results.context import PRODUCT, Context
from cxr_node.dicom.results.study import Study, looked
from cxr_node.dicom.words import coded_findings, codes, study_wording, wording
from cxr_node.dicom.words.codes import Code
from cxr_node.outcome import NotAnalysed
from cxr_node.result_kinds import SHAPES

TECHNIQUE = Code("272394005", "SCT", "Technique")
LIMITATIONS = Code("limitations", coded_findings.OWN_SCHEME, "Limitations")
LIMITATION = Code("limitation", coded_findings.OWN_SCHEME, "Limitation")


@dataclass(frozen=True, slots=True)
class Line:
    """One line, and the images that it leads to."""

    text: str
    images: tuple[Context | NotAnalysed, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """Lines under a heading; `concept` is what each of them is."""

    heading: Code
    concept: Code
    lines: tuple[Line, ...]


def sections(study: Study) -> list[Section]:
    """Sections of a report that say something, in the order in which they are read."""
    scores = _of_images(study, lambda image: wording.report_scores(image.finding))
    limitations = _of_images(study, _limitations) or [wording.FOOTER]
    impression = Line(study.summary, tuple(study.images or study.others))
    every = [
        Section(codes.DCM.Impressions, codes.DCM.Impression, (impression,)),
        Section(codes.DCM.Findings, codes.DCM.Finding, tuple(_findings(study))),
        Section(codes.DCM.PreviousFindings, codes.DCM.PreviousFinding, tuple(_prior(each) for each in study.priors)),
        Section(coded_findings.SCORED, coded_findings.SCORE, _plain(scores)),
        Section(TECHNIQUE, TECHNIQUE, _plain(_of_images(study, _technique))),
        Section(LIMITATIONS, LIMITATION, _plain(limitations)),
    ]
    return [each for each in every if each.lines]


def _plain(lines: list[str]) -> tuple[Line, ...]:
    return tuple(Line(line) for line in lines)


def _of_images(study: Study, lines: Callable[[Context], list[str]]) -> list[str]:
    return study_wording.together({study.number(each): lines(each) for each in study.images})


def _technique(image: Context) -> list[str]:
    there = image.kinds | {each.kind for each in image.made or ()}
    numbers = {kind: shape.series_number for kind, shape in SHAPES.items() if kind in there}
    said = wording.report_technique(image.finding, image.radiograph, numbers, PRODUCT, shows_map=image.refers_to_map)
    return said + looked(image)


def _limitations(image: Context) -> list[str]:
    return wording.report_limitations(image.finding, image.radiograph, shows_map=image.refers_to_map)


def _findings(study: Study) -> list[Line]:
    """One line of one image; else a line for each, which leads to its image."""
    if study.is_of_one:
        return [Line(wording.report_finding(study.images[0].finding))]
    return [Line(f"{study.label(image)}{_said(image)}", (image,)) for image in study.listed]


def _said(image: Context | NotAnalysed) -> str:
    if isinstance(image, NotAnalysed):
        return study_wording.not_analysed_line(image)
    return study_wording.finding_line(image.finding)


def _prior(image: Context) -> Line:
    """What is said of an earlier radiograph, which it leads to; nothing is compared."""
    day = copied_attributes.raw_text(image.source.dataset, "StudyDate").decode("ascii", "replace")
    return Line(study_wording.prior_line(day, image.radiograph.view, image.finding), (image,))
