"""Attributes that are the same in every result, or follow from the answer alone: the run-time check leaves them out.

Clauses: PS3.3 C.17.2 (SR), C.7.6.1, C.7.6.3, C.8.6.1, C.12.4 (picture), C.12.1.1.1 (local codes).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.sr.codedict import codes

from cxr_node.dicom.verify.plain import Parsed, Plain, code, items, reference, text
from cxr_node.dicom.words import coded_findings
from cxr_node.result_kinds import ResultKind
from tests.dicom.oracle.facts import Facts
from tests.dicom.oracle.rules import OracleRule
from tests.dicom.oracle.tree import Report, triple

_PICTURE = {
    "BodyPartExamined": "CHEST", "ConversionType": "WSD", "ImageType": "DERIVED\\SECONDARY",
    "BurnedInAnnotation": "YES", "RecognizableVisualFeatures": "NO",
}  # fmt: skip
_PIXELS = {
    "SamplesPerPixel": "3", "PhotometricInterpretation": "RGB", "PlanarConfiguration": "0", "BitsAllocated": "8",
    "BitsStored": "8", "HighBit": "7", "PixelRepresentation": "0",
}  # fmt: skip
_OWN_SCHEME: Plain = {
    "CodingSchemeDesignator": "99CXRNODE", "CodingSchemeName": "cxr_node local codes",
    "CodingSchemeResponsibleOrganization": "cxr_node project",
}  # fmt: skip


def check(kind: ResultKind, parsed: Parsed, facts: Facts, report: Report) -> None:
    """Check the header of one report, measurements or picture."""
    dataset = parsed.dataset
    has_local_codes = kind is ResultKind.REPORT or (
        kind is ResultKind.MEASUREMENTS and bool(coded_findings.listed(facts.context.finding))
    )
    if items(dataset, "CodingSchemeIdentificationSequence") != ([_OWN_SCHEME] if has_local_codes else []):
        report(OracleRule.SCORES, "CodingSchemeIdentificationSequence")
    processing, acquisition = triple(codes.DCM.ProcessingEquipment), triple(codes.DCM.AcquisitionEquipment)
    contributors = items(dataset, "ContributingEquipmentSequence")
    purposes = [code(item, "PurposeOfReferenceCodeSequence") for item in contributors]
    if purposes not in ([processing], [acquisition, processing]):
        report(OracleRule.EQUIPMENT, "ContributingEquipmentSequence")
    if kind is ResultKind.HEATMAP:
        _check_picture(dataset, facts, report)
        return
    for keyword in ("PerformedProcedureCodeSequence", "ReferencedPerformedProcedureStepSequence"):
        if dataset.get(keyword) != []:
            report(OracleRule.ATTRIBUTE, keyword)


def _check_picture(dataset: Plain, facts: Facts, report: Report) -> None:
    _equal(dataset, _PICTURE, OracleRule.ATTRIBUTE, report)
    _equal(dataset, _PIXELS, OracleRule.PIXELS, report)
    purpose = triple(codes.DCM.SourceImageForImageProcessingOperation)
    sources = items(dataset, "SourceImageSequence")
    named = [(reference(each), code(each, "PurposeOfReferenceCodeSequence")) for each in sources]
    if named != [(facts.source, purpose)]:
        report(OracleRule.SOURCE, "SourceImageSequence")
    shows_map, finding = facts.context.shows_map, facts.context.finding
    derived = triple(codes.DCM.GradientWeightedClassActivation) if shows_map else ("", "", "")
    if code(dataset, "DerivationCodeSequence") != derived:
        report(OracleRule.ATTRIBUTE, "DerivationCodeSequence")
    described = f"Grad-CAM for {finding.target.finding} at {finding.heatmap.layer}, overlaid on the source image"
    bare = "Source image with the verdict of an algorithm outside it"
    _equal(dataset, {"DerivationDescription": described if shows_map else bare}, OracleRule.ATTRIBUTE, report)


def _equal(dataset: Plain, expected: Mapping[str, str], rule: OracleRule, report: Report) -> None:
    for keyword, value in expected.items():
        if text(dataset, keyword) != value:
            report(rule, keyword)
