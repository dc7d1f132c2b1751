"""The attributes that results must have: status, equipment, times, patient, references, and the picture's module.

Written down a second time, as `verify_rows` is. Carried text is compared in the bytes it was sent in.

Clauses: PS3.3 C.7.1.1, C.7.2.1, C.7.5.1, C.12.1 (common), C.17.2 (SR), C.7.6.1, C.7.6.3, C.8.6.1 (picture); PS3.5 9.1
and B.2 (UIDs); PS3.10 7.1; IHE RAD AIR 6.5.3.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydicom.sr.codedict import codes

from cxr_node.dicom.own_identity import IMPLEMENTATION_CLASS_UID
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results import copied_attributes
from cxr_node.dicom.verify.facts import Document, Facts, equipment, software
from cxr_node.dicom.verify.plain import Plain, code, items, plain, text
from cxr_node.dicom.verify.rules import Rule
from cxr_node.dicom.verify.tree import Report, triple
from cxr_node.dicom.words import coded_findings, wording
from cxr_node.domain import ResultKind

CLASSES = {
    ResultKind.REPORT: ("1.2.840.10008.5.1.4.1.1.88.11",),
    ResultKind.MEASUREMENTS: tuple(f"1.2.840.10008.5.1.4.1.1.88.{tail}" for tail in ("34", "33", "22")),
    ResultKind.HEATMAP: ("1.2.840.10008.5.1.4.1.1.7",),
}
"""Basic Text SR; Comprehensive 3D, Comprehensive and Enhanced SR; Secondary Capture Image Storage."""
PATIENT_AND_STUDY = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "PatientName", "PatientID", "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence", "PatientBirthDate", "PatientSex", "PatientAge",
    "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber",
    "IssuerOfAccessionNumberSequence", "ReferringPhysicianName",
)  # fmt: skip
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "StudyDate",
    "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_SERIES_NUMBERS = {ResultKind.REPORT: "9100", ResultKind.MEASUREMENTS: "9101", ResultKind.HEATMAP: "9102"}
_STATUS = {"CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED", "PreliminaryFlag": "PRELIMINARY"}
_NOT_IN_REPORTS = ("VerifyingObserverSequence", "VerifyingObserverName", "VerificationDateTime")
_PICTURE = {
    "BodyPartExamined": "CHEST", "ConversionType": "WSD", "ImageType": "DERIVED\\SECONDARY",
    "BurnedInAnnotation": "YES", "RecognizableVisualFeatures": "NO",
}  # fmt: skip
_PIXELS = {
    "SamplesPerPixel": "3", "PhotometricInterpretation": "RGB", "PlanarConfiguration": "0", "BitsAllocated": "8",
    "BitsStored": "8", "HighBit": "7", "PixelRepresentation": "0",
}  # fmt: skip
_DERIVATION = {
    True: re.compile(r"Grad-CAM for (.+) at (.+), overlaid on the source image"),
    False: re.compile(r"Source image with the verdict of an algorithm outside it"),
}
_NOT_IN_PICTURES = ("PixelSpacing", "ImagerPixelSpacing", "ViewPosition", "Laterality", "FrameOfReferenceUID")
_OWN_SCHEME: Plain = {
    "CodingSchemeDesignator": "99CXRNODE", "CodingSchemeName": "cxr_node local codes",
    "CodingSchemeResponsibleOrganization": "cxr_node project",
}  # fmt: skip
_RADIOGRAPHY = ("CR", "DX", "RG")
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{tail}" for tail in ("50", "51", "81", "91", "93", "203"))
_OUR_UID = re.compile(r"2\.25\.[1-9]\d{0,38}")  # PS3.5 B.2: a UUID as one number
_DATE_TIME = re.compile(r"\d{14}\.\d{6}[+-]\d{4}")


def check(document: Document, facts: Facts, source: Source | None, report: Report) -> None:
    """Check the header of one report, measurements or picture."""
    assert document.kind is not None  # noqa: S101 (the caller asks only for kinds that are known)
    dataset, kind = document.dataset, document.kind
    if text(dataset, "SOPClassUID") not in CLASSES[kind]:
        report(Rule.SOP_CLASS, "SOPClassUID")
    _equal(dataset, {"InstanceCreatorUID": IMPLEMENTATION_CLASS_UID, "InstanceNumber": "1"}, Rule.ATTRIBUTE, report)
    _equal(dataset, {"SeriesNumber": _SERIES_NUMBERS[kind]}, Rule.ATTRIBUTE, report)
    _equal(dataset, {"ContentQualification": "RESEARCH"}, Rule.STATUS, report)
    if text(dataset, "SeriesDescription") != description(kind, facts):
        report(Rule.DESCRIPTION, "SeriesDescription")
    _check_time(dataset, facts, report)
    _check_equipment(dataset, facts, source, report)
    if kind is ResultKind.HEATMAP:
        _check_picture(document, facts, source, report)
    else:
        _check_report(dataset, source, report)
    has_local_codes = kind is ResultKind.REPORT or (
        kind is ResultKind.MEASUREMENTS and bool(coded_findings.listed(facts.finding))
    )
    own = [_OWN_SCHEME] if has_local_codes else []
    if items(dataset, "CodingSchemeIdentificationSequence") != own:
        report(Rule.SCORES, "CodingSchemeIdentificationSequence")


def check_identity(document: Document, source: Source | None, report: Report, *, is_fresh: bool) -> None:
    """Check what holds of every kind of result: its UIDs, its file meta information, whose it is.

    `is_fresh` : as we made it; archives rewrite file meta information.
    """
    dataset, meta = document.dataset, document.parsed.meta
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        if _OUR_UID.fullmatch(text(dataset, keyword)) is None:
            report(Rule.UID, keyword)
    named = {"MediaStorageSOPClassUID": "SOPClassUID", "MediaStorageSOPInstanceUID": "SOPInstanceUID"}
    expected = {keyword: text(dataset, of) for keyword, of in named.items()}
    if is_fresh:
        expected |= {
            "TransferSyntaxUID": _EXPLICIT_LITTLE_ENDIAN, "ImplementationClassUID": IMPLEMENTATION_CLASS_UID,
        }  # fmt: skip
    _equal(meta, expected, Rule.FILE_META, report)
    for keyword in _TYPE_2:
        if keyword not in dataset:
            report(Rule.PATIENT_AND_STUDY, keyword)
    if source is not None:
        stated = _of_source(source)
        ours = {"TimezoneOffsetFromUTC"} - set(stated)  # made here where the source tells none: `_check_time`
        keywords = tuple(keyword for keyword in PATIENT_AND_STUDY if keyword not in ours)
        _same(dataset, stated, keywords, Rule.PATIENT_AND_STUDY, report)


def check_agreement(dataset: Plain, other: Plain, report: Report) -> None:
    """Check that two results of one image are of one patient, study, order, and equipment."""
    _same(dataset, other, PATIENT_AND_STUDY, Rule.PATIENT_AND_STUDY, report)
    if "CompletionFlag" in dataset and "CompletionFlag" in other:
        _same(dataset, other, ("ReferencedRequestSequence",), Rule.REQUEST, report)
        _same(dataset, other, ("CurrentRequestedProcedureEvidenceSequence",), Rule.EVIDENCE, report)
    if _acquisition(dataset) != _acquisition(other):
        report(Rule.EQUIPMENT, "ContributingEquipmentSequence")


def description(kind: ResultKind, facts: Facts) -> str:
    """Series description that the answer gives."""
    return wording.series_description(kind, facts.finding, shows_map=facts.shows_map)


def _check_report(dataset: Plain, source: Source | None, report: Report) -> None:
    _equal(dataset, {"Modality": "SR"}, Rule.ATTRIBUTE, report)
    _equal(dataset, _STATUS, Rule.STATUS, report)
    for keyword in _NOT_IN_REPORTS:
        if keyword in dataset:
            report(Rule.STATUS, keyword)
    for keyword in ("PerformedProcedureCodeSequence", "ReferencedPerformedProcedureStepSequence"):
        if dataset.get(keyword) != []:
            report(Rule.ATTRIBUTE, keyword)
    if source is not None:
        requests = copied_attributes.requests(source.dataset, source.ref.study_instance_uid)
        if items(dataset, "ReferencedRequestSequence") != [plain(item) for item in requests]:
            report(Rule.REQUEST, "ReferencedRequestSequence")


def _check_picture(document: Document, facts: Facts, source: Source | None, report: Report) -> None:
    dataset = document.dataset
    _equal(dataset, _PICTURE, Rule.ATTRIBUTE, report)
    _check_pixels(document, report)
    for keyword in _NOT_IN_PICTURES:
        if keyword in dataset:
            report(Rule.ATTRIBUTE, keyword)
    purpose = triple(codes.DCM.SourceImageForImageProcessingOperation)
    named = [
        ((text(each, "ReferencedSOPClassUID"), text(each, "ReferencedSOPInstanceUID")),
         code(each, "PurposeOfReferenceCodeSequence"))
        for each in items(dataset, "SourceImageSequence")
    ]  # fmt: skip
    if named != [(facts.source, purpose)]:
        report(Rule.SOURCE, "SourceImageSequence")
    derived = triple(codes.DCM.GradientWeightedClassActivation) if facts.shows_map else ("", "", "")
    if code(dataset, "DerivationCodeSequence") != derived:
        report(Rule.ATTRIBUTE, "DerivationCodeSequence")
    described = _DERIVATION[facts.shows_map].fullmatch(text(dataset, "DerivationDescription"))
    explained = (facts.finding.target.finding, facts.finding.heatmap.layer)
    if described is None or (facts.is_exact and described.groups() not in ((), explained)):
        report(Rule.ATTRIBUTE, "DerivationDescription")
    _check_carried(dataset, source, report)


def _check_pixels(document: Document, report: Report) -> None:
    dataset = document.dataset
    _equal(dataset, _PIXELS, Rule.PIXELS, report)
    sides = [text(dataset, keyword) for keyword in ("Rows", "Columns")]
    size_bytes = 3 * int(sides[0]) * int(sides[1]) if all(side.isdigit() for side in sides) else 0
    if not size_bytes or document.parsed.pixel_bytes != size_bytes + size_bytes % 2:
        report(Rule.PIXELS, "PixelData")


def _check_carried(dataset: Plain, source: Source | None, report: Report) -> None:
    """What the picture takes over from its source: modality, whether something was lost, and which way up it is."""
    if text(dataset, "Modality") not in _RADIOGRAPHY:
        report(Rule.ATTRIBUTE, "Modality")
    if text(dataset, "LossyImageCompression") not in ("00", "01"):
        report(Rule.ATTRIBUTE, "LossyImageCompression")
    if "PatientOrientation" not in dataset:
        report(Rule.ATTRIBUTE, "PatientOrientation")
    if source is None:
        return
    if source.modality and text(dataset, "Modality") != source.modality:
        report(Rule.SOURCE, "Modality")
    is_lossy = source.text("LossyImageCompression") == "01" or source.ref.transfer_syntax_uid in _LOSSY
    if text(dataset, "LossyImageCompression") != ("01" if is_lossy else "00"):
        report(Rule.SOURCE, "LossyImageCompression")
    orientation = plain(copied_attributes.patient_orientation(source.dataset))
    _same(dataset, orientation, ("PatientOrientation",), Rule.SOURCE, report)


def _check_time(dataset: Plain, facts: Facts, report: Report) -> None:
    """Times of content, series and contribution are one moment, by one offset; Timezone Offset From UTC is that."""
    wall, offset = facts.moment[:-5], facts.moment[-5:]
    contributed = text(equipment(dataset), "ContributionDateTime")
    if _DATE_TIME.fullmatch(facts.moment) is None or contributed != facts.moment:
        report(Rule.CONTENT_TIME, "ContributionDateTime")
    for of in ("Content", "Series"):
        if text(dataset, f"{of}Date") + text(dataset, f"{of}Time") != wall:
            report(Rule.CONTENT_TIME, f"{of}Time")
    allowed = ("", offset) if facts.offset is None else (facts.offset,)
    if text(dataset, "TimezoneOffsetFromUTC") not in allowed:
        report(Rule.CONTENT_TIME, "TimezoneOffsetFromUTC")


def _check_equipment(dataset: Plain, facts: Facts, source: Source | None, report: Report) -> None:
    """AIR table 6.5.3.1-1: the same words in the equipment module and in our item of Contributing Equipment."""
    if not facts.product.startswith("cxr_node ") or _OUR_UID.fullmatch(facts.device_uid) is None:
        report(Rule.EQUIPMENT, "SoftwareVersions")
    ours = {
        "Manufacturer": facts.manufacturer,
        "ManufacturerModelName": facts.model_name,
        "DeviceSerialNumber": facts.serial_number,
    }
    _equal(dataset, ours, Rule.EQUIPMENT, report)
    if software(dataset) != (facts.product, facts.algorithm_version):
        report(Rule.EQUIPMENT, "SoftwareVersions")
    contributors = items(dataset, "ContributingEquipmentSequence")
    purposes = [code(item, "PurposeOfReferenceCodeSequence") for item in contributors]
    processing, acquisition = triple(codes.DCM.ProcessingEquipment), triple(codes.DCM.AcquisitionEquipment)
    if purposes not in ([processing], [acquisition, processing]):
        report(Rule.EQUIPMENT, "ContributingEquipmentSequence")
        return
    ours |= {"SoftwareVersions": facts.algorithm_version, "DeviceUID": facts.device_uid}
    _equal(contributors[-1], ours, Rule.EQUIPMENT, report)
    if source is not None:
        taken_by = copied_attributes.acquisition_equipment(source.dataset)
        if _acquisition(dataset) != (plain(taken_by) if taken_by is not None else None):
            report(Rule.EQUIPMENT, "ContributingEquipmentSequence")


def _acquisition(dataset: Plain) -> Plain | None:
    """Who took the radiograph, without the purpose; None where nobody is named."""
    for item in items(dataset, "ContributingEquipmentSequence"):
        if code(item, "PurposeOfReferenceCodeSequence") == triple(codes.DCM.AcquisitionEquipment):
            return {keyword: value for keyword, value in item.items() if keyword != "PurposeOfReferenceCodeSequence"}
    return None


def _of_source(source: Source) -> Plain:
    return plain(copied_attributes.patient_and_study(source.dataset)) | {
        "StudyInstanceUID": source.ref.study_instance_uid
    }


def _equal(dataset: Plain, expected: Mapping[str, str], rule: Rule, report: Report) -> None:
    for keyword, value in expected.items():
        if text(dataset, keyword) != value or not value:
            report(rule, keyword)


def _same(dataset: Plain, other: Plain, keywords: tuple[str, ...], rule: Rule, report: Report) -> None:
    for keyword in keywords:
        if dataset.get(keyword) != other.get(keyword):
            report(rule, keyword)
