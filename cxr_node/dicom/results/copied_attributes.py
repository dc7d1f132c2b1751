"""What a result takes over from its source, byte for byte.

Text is never decoded: a name arrives as it was sent, under the same Specific Character Set, which an item may have of
its own (PS3.3 C.12.1.1.2). Only the attributes listed here pass. A date, time, age or code string that its VR forbids
is left out, for the archive's validator would blame the result; padding is what the VR asks for (PS3.5 6.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, tzinfo
from hashlib import sha256
from typing import TypeAlias, Union

from pydicom import Dataset, config
from pydicom.charset import encode_string
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName, validate_value

from cxr_node import times
from cxr_node.dicom.part10 import AsSent, quiet
from cxr_node.dicom.pixels import grayscale
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results.encoder import to_bytes
from cxr_node.dicom.words import zones
from cxr_node.domain import Radiograph

_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"(\d\d)(?:(\d\d)(?:(\d\d)(?:\.\d{1,6})?)?)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When the source was received."""

    at: datetime
    offset: str | None
    """What Timezone Offset From UTC says; None: nothing, for it would not be true of the study's times."""
    is_told: bool
    """The source tells the offset itself."""

    @property
    def identity(self) -> str:
        """What of it does not follow from the source and its receipt: part of UIDs, for it is part of the bytes."""
        if self.is_told:
            return "offset of the source"
        return f"offset {self.at:%z} {'stated' if self.offset is not None else 'not stated'}"


def moment_of(source: Dataset, received_at: datetime, zone: tzinfo) -> Moment:
    """Tell the moment of receipt (aware) by the source's offset from UTC, else by that of its study in a zone."""
    told = utc_offset(source)
    if told:
        minutes = int(f"{told[0]}1") * (60 * int(told[1:3]) + int(told[3:]))
        at = received_at.astimezone(times.fixed(timedelta(minutes=minutes)))
        return Moment(at=at, offset=told, is_told=True)
    ahead = times.offset(zone, _began(source), received_at)
    if ahead is None:
        return Moment(at=received_at.astimezone(zone), offset=None, is_told=False)
    at = received_at.astimezone(times.fixed(ahead))
    return Moment(at=at, offset=f"{at:%z}", is_told=False)


def stamp(dataset: Dataset, moment: Moment) -> None:
    """Date and time of content and series, and their offset from UTC unless that was taken over from the source."""
    dataset.ContentDate = dataset.SeriesDate = f"{moment.at:%Y%m%d}"
    dataset.ContentTime = dataset.SeriesTime = f"{moment.at:%H%M%S.%f}"
    if moment.offset is not None and not moment.is_told:
        dataset.TimezoneOffsetFromUTC = moment.offset


def _began(source: Dataset) -> datetime | None:
    """Study Date and Study Time as they stand there: naive, the day's begin where there is no time; None: no date."""
    day = raw_text(source, "StudyDate").decode("ascii", "replace")
    time = _TIME.fullmatch(raw_text(source, "StudyTime").decode("ascii", "replace"))
    if _DATE.fullmatch(day) is None:
        return None
    hour, minute, second = (int(part or 0) for part in time.groups()) if time else (0, 0, 0)
    try:
        return datetime(int(day[:4]), int(day[4:6]), int(day[6:]), hour, minute, min(second, 59))
    except ValueError:
        return None


Attributes: TypeAlias = Mapping[str, Union["Attributes", None]]
"""DICOM keywords; those of a sequence with the attributes of its items."""

_CODE: Attributes = dict.fromkeys(
    ("CodeValue", "LongCodeValue", "URNCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")
)
_HIERARCHIC_DESIGNATOR: Attributes = dict.fromkeys(
    ("LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType")
)
_ISSUER_QUALIFIERS: Attributes = {
    **dict.fromkeys(("UniversalEntityID", "UniversalEntityIDType", "IdentifierTypeCode")),
    "AssigningFacilitySequence": _HIERARCHIC_DESIGNATOR,
    "AssigningJurisdictionCodeSequence": _CODE,
    "AssigningAgencyOrDepartmentCodeSequence": _CODE,
}
_PATIENT_ID: Attributes = {
    "PatientID": None,
    "IssuerOfPatientID": None,
    "IssuerOfPatientIDQualifiersSequence": _ISSUER_QUALIFIERS,
}
PATIENT_AND_STUDY: Attributes = {
    **_PATIENT_ID, "SpecificCharacterSet": None, "TimezoneOffsetFromUTC": None, "PatientName": None,
    "PatientBirthDate": None, "PatientSex": None, "PatientAge": None,
    "OtherPatientIDsSequence": {**_PATIENT_ID, "TypeOfPatientID": None},
    "StudyID": None, "StudyDate": None, "StudyTime": None, "StudyDescription": None, "AccessionNumber": None,
    "IssuerOfAccessionNumberSequence": _HIERARCHIC_DESIGNATOR, "ReferringPhysicianName": None,
}  # fmt: skip
_PATIENT_AND_STUDY_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_REQUEST: Attributes = {
    "StudyInstanceUID": None,
    "ReferencedStudySequence": dict.fromkeys(("ReferencedSOPClassUID", "ReferencedSOPInstanceUID")),
    "AccessionNumber": None, "IssuerOfAccessionNumberSequence": _HIERARCHIC_DESIGNATOR,
    "RequestedProcedureID": None, "RequestedProcedureDescription": None, "RequestedProcedureCodeSequence": _CODE,
    "ReasonForTheRequestedProcedure": None,
}  # fmt: skip
ORDER_NUMBERS = ("PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest")
"""Of the study's order, in messages."""
_REQUEST_TYPE_2 = (
    "ReferencedStudySequence", "AccessionNumber", "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest", "RequestedProcedureID", "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
)  # fmt: skip
_EQUIPMENT: Attributes = dict.fromkeys((
    "Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions",
))  # fmt: skip
_STRICT_VRS = frozenset({"AS", "CS", "DA", "TM", "UI"})
_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{tail}" for tail in ("50", "51", "81", "91", "93", "203"))
"""Transfer syntaxes that may lose something; what they lost, a picture made of it has lost too."""
_NEVER_PADDED = frozenset({"AS", "DA", "UI"})  # but to even length
_OFFSET = re.compile(r"\+(0\d|1[0-3])[0-5]\d|\+1400|-(?!0000)(0\d|1[01])[0-5]\d|-1200")
_CHARACTER_SET = BaseTag(0x00080005)
_ESCAPE = b"\x1b"


def patient_and_study(source: Dataset) -> Dataset:
    """Patient and study of the source; type 2 attributes are there even if empty (PS3.3 C.7.1.1, C.7.2.1)."""
    return _with_empty(_carry(source, PATIENT_AND_STUDY), _PATIENT_AND_STUDY_TYPE_2)


def requests(source: Dataset, study_instance_uid: str) -> list[Dataset]:
    """Items of Referenced Request Sequence (PS3.3 C.17.2), from the source's Request Attributes Sequence."""
    items = list(_carry(source, {"RequestAttributesSequence": _REQUEST}).get("RequestAttributesSequence", ()))
    for item in items:
        if "StudyInstanceUID" not in item:
            item.StudyInstanceUID = study_instance_uid
        if "AccessionNumber" not in item and _means_the_same(source, "AccessionNumber", item):
            item.update(_carry(source, {"AccessionNumber": None}))
        _with_empty(item, _REQUEST_TYPE_2)
    return items


def acquisition_equipment(source: Dataset) -> Dataset | None:
    """Who took the radiograph; None where the source names no manufacturer (type 1 in PS3.3 C.12.1)."""
    equipment = _carry(source, _EQUIPMENT)
    return equipment if "Manufacturer" in equipment else None


def procedure_code(source: Dataset) -> Dataset | None:
    """First coded procedure of the source, or None."""
    carried = _carry(source, {"ProcedureCodeSequence": _CODE}).get("ProcedureCodeSequence", ())
    needed = {"CodeValue", "CodingSchemeDesignator", "CodeMeaning"}
    return next((code for code in carried if all(keyword in code for keyword in needed)), None)


def patient_orientation(source: Dataset) -> Dataset:
    """Patient Orientation (type 2C in PS3.3 C.7.6.1), empty where unknown."""
    return _with_empty(_carry(source, {"PatientOrientation": None}), ("PatientOrientation",))


def lossy(source: Dataset, transfer_syntax_uid: str) -> str:
    """Lossy Image Compression: "01" once lossy, whatever came after (PS3.3 C.7.6.1.1.5)."""
    told = raw_text(source, "LossyImageCompression") == b"01"
    return "01" if told or transfer_syntax_uid in _LOSSY else "00"


def raw_text(source: Dataset, keyword: str) -> bytes:
    """Bytes of a text attribute without padding; empty where it is missing."""
    return _encoded(source, BaseTag(tag_for_keyword(keyword) or 0)).strip(b" \0")


def utc_offset(source: Dataset) -> str:
    """Timezone Offset From UTC (PS3.3 C.12.1.1.8), "" where the source tells none that is one."""
    told = raw_text(source, "TimezoneOffsetFromUTC")
    return told.decode("ascii") if _valid(BaseTag(tag_for_keyword("TimezoneOffsetFromUTC") or 0), "SH", told) else ""


def _means_the_same(source: Dataset, keyword: str, item: Dataset) -> bool:
    """Whether a value of the data set reads alike in an item: in the same character set, or in any."""
    value = raw_text(source, keyword)
    return _CHARACTER_SET not in item or (value.isascii() and _ESCAPE not in value)


def _carry(source: Dataset, attributes: Attributes) -> Dataset:
    """Copy what is there, not empty and valid; items that end up empty are left out."""
    target = Dataset()
    for keyword, nested in attributes.items():
        tag = BaseTag(tag_for_keyword(keyword) or 0)
        if tag not in source:
            continue
        if nested is None:
            _carry_text(source, target, tag)
        elif isinstance(found := source[tag].value, (list, MultiValue)) or source[tag].VR == "SQ":
            items = [item for each in found or () if len(item := _carry_item(each, nested))]
            if items:
                target.add(DataElement(tag, "SQ", items))
    return target


def _carry_item(source: Dataset, attributes: Attributes) -> Dataset:
    item = _carry(source, attributes)
    if len(item) and _CHARACTER_SET in source:
        _carry_text(source, item, _CHARACTER_SET)
    return item


def _carry_text(source: Dataset, target: Dataset, tag: BaseTag) -> None:
    vr, sent = dictionary_VR(tag), _encoded(source, tag)
    value = sent.rstrip(b" \0")
    if not value or not _valid(tag, vr, value):
        return
    if vr not in _NEVER_PADDED:
        value += b" " * (len(sent) - len(value))
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    target[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True, True)


def _valid(tag: BaseTag, vr: str, value: bytes) -> bool:
    if tag == tag_for_keyword("TimezoneOffsetFromUTC"):
        return _OFFSET.fullmatch(value.decode("ascii", "replace")) is not None
    if vr not in _STRICT_VRS or tag == tag_for_keyword("SpecificCharacterSet"):
        return True
    try:
        for part in value.decode("ascii").split("\\"):
            validate_value(vr, part.strip(" "), config.RAISE)
    except ValueError:
        return False
    return True


def _encoded(source: Dataset, tag: BaseTag) -> bytes:
    """Value of a text element as it stood in the source, whether or not somebody has looked at it since."""
    element = source.get_item(tag)
    if isinstance(element, AsSent) and element.sent is not None:
        return element.sent
    if element is None or element.value is None:
        return b""
    if isinstance(element.value, bytes):
        return element.value
    values = element.value if isinstance(element.value, (list, MultiValue)) else [element.value]
    with quiet():  # unknown character sets are not our fault, and are carried
        declared = source.original_character_set or source._character_set
        encodings = [declared] if isinstance(declared, str) else list(declared)
        return b"\\".join(_encode(value, encodings) for value in values)


def _encode(value: object, encodings: list[str]) -> bytes:
    if isinstance(value, PersonName):
        return value.original_string if isinstance(value.original_string, bytes) else value.encode(encodings)
    return encode_string(str(value), encodings)


def _with_empty(dataset: Dataset, keywords: tuple[str, ...]) -> Dataset:
    for keyword in keywords:
        if keyword not in dataset:
            setattr(dataset, keyword, [] if keyword.endswith("Sequence") else "")
    return dataset


_NUMBERS = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
_TEXTS = ("Modality", "PhotometricInterpretation", "PresentationLUTShape", "RescaleType", "VOILUTFunction")
_TABLES = ("ModalityLUTSequence", "VOILUTSequence")


def header_sha256(source: Source, radiograph: Radiograph) -> str:
    """Digest of everything but stored pixel values that the results of a radiograph take from its object.

    Parameters
    ----------
    source : what is carried into results, or read while they are made
    radiograph : what was made of the header before: projection, shape of a pixel, remarks
    """
    digest = sha256(to_bytes(_carried(source)))
    for part in _read(source, radiograph):
        digest.update(repr(part).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _carried(source: Source) -> Dataset:
    """Everything that arrives in some result byte for byte; what is empty there and absent here is the same."""
    header, ref = source.dataset, source.ref
    carried = patient_and_study(header)
    carried.update(patient_orientation(header))
    carried.StudyInstanceUID = ref.study_instance_uid
    carried.SeriesInstanceUID = ref.series_instance_uid
    carried.SOPClassUID = ref.sop_class_uid
    carried.LossyImageCompression = lossy(header, ref.transfer_syntax_uid)
    carried.RequestAttributesSequence = requests(header, ref.study_instance_uid)
    equipment, procedure = acquisition_equipment(header), procedure_code(header)
    carried.ContributingEquipmentSequence = [] if equipment is None else [equipment]
    carried.ProcedureCodeSequence = [] if procedure is None else [procedure]
    return carried


def _read(source: Source, radiograph: Radiograph) -> Iterator[object]:
    """Everything that a result says in other words, or prints though it is not valid enough to be carried."""
    for keyword, nested in PATIENT_AND_STUDY.items():
        if nested is None:
            yield keyword, raw_text(source.dataset, keyword)
    for keyword in _TEXTS:
        yield keyword, source.text(keyword)
    for keyword in _NUMBERS:
        yield keyword, source.numbers(keyword)[:1]
    for keyword in _TABLES:
        for item in (source.dataset.get(keyword) or ())[:1]:
            lut, kind = grayscale.read_lut(item, source), str(item.get("ModalityLUTType", ""))
            yield keyword, kind, lut and (lut[0], sha256(lut[1].tobytes()).hexdigest(), lut[2])
    yield from _ordered(source.dataset)
    yield "spacing", source.spacing_mm  # of a segmentation's pixels
    yield "sides", zones.sides(source)  # in whose words a region is placed
    for field in fields(radiograph):
        if field.name not in ("pixels", "pixel_digest"):  # the stored values have a digest of their own
            yield field.name, getattr(radiograph, field.name)


def _ordered(header: Dataset) -> Iterator[object]:
    """Numbers of the order, where they are there: what is absent changes no UID."""
    for keyword in ORDER_NUMBERS:
        if stated := raw_text(header, keyword):
            yield keyword, stated
