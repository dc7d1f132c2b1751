"""A radiograph without its patient: the Basic Application Level Confidentiality Profile of PS3.15 (Table E.1-1).

By a list of what stays, not of what goes: kept is what the pixels need to be shown and which view it is, of texts only
words that the standard defines, for a modality may have written anything anywhere; every other attribute, private ones
and overlays among them, is removed, so also all that the table says X, Z, D or U of. What a
Type 2 attribute needs is empty; UIDs and the patient are pseudonyms under a key that the caller forgets. Pixels are
written uncompressed, without the unused bits and the comments of a codestream, and are NOT cleaned: what is burned
in stays (the Clean Pixel Data Option is not claimed). PS3.15 E.1, E.2, E.3.
"""

from __future__ import annotations

import hmac
import io
import re
from dataclasses import dataclass, field
from decimal import Decimal

from pydicom import DataElement, Dataset, FileMetaDataset, Sequence, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.uid import UID, ExplicitVRLittleEndian

from cxr_node.config.schema import Admission
from cxr_node.dicom.part10 import foreign_faults
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.read import header
from cxr_node.errors import InstanceError
from cxr_node.outcome import Rejected

METHOD = "Basic Profile, by a list of what stays; pixel data not cleaned"
"""De-identification Method (0012,0063), LO."""
KEPT = (
    "SOPClassUID", "ImageType", "Modality", "PresentationIntentType", "ConversionType", "BodyPartExamined",
    "ViewPosition", "PatientOrientation", "Laterality", "ImageLaterality", "KVP",
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "PixelAspectRatio", "PixelSpacing",
    "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "PixelIntensityRelationship", "PixelIntensityRelationshipSign", "RescaleIntercept", "RescaleSlope", "RescaleType",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape", "BurnedInAnnotation",
    "LossyImageCompression", "LossyImageCompressionRatio",
)  # fmt: skip
"""Attributes that stay as they are: none of them is in Table E.1-1."""
_WORDS = frozenset((
    "ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "CR", "DX", "DR", "RF", "RG", "OT", "CHEST", "THORAX", "LUNG",
    "AP", "PA", "LL", "RL", "LLD", "RLD", "LLO", "RLO", "R", "L", "B", "U", "YES", "NO", "00", "01", "02", "03",
    "MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "LIN", "LOG", "DISP", "NONE",
    "OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "LINEAR", "LINEAR_EXACT", "SIGMOID", "IDENTITY", "INVERSE",
    "DV", "DI", "WSD", "SD", "SI", "DRW", "SYN", "FOR PRESENTATION", "FOR PROCESSING",
))  # fmt: skip
"""Values of text that stay: defined and enumerated terms of PS3.3. An attribute with any other value goes."""
_ORIENTATION = re.compile(r"[ALPRHF]{1,3}")
_CODE = re.compile(r"\d{1,16}|[A-Z]-[0-9A-F]{4,6}")
KEPT_ITEMS = {
    "ViewCodeSequence": ("CodeValue", "CodingSchemeDesignator"),
    "ViewModifierCodeSequence": ("CodeValue", "CodingSchemeDesignator"),
    "ModalityLUTSequence": ("LUTDescriptor", "ModalityLUTType", "LUTData"),
    "VOILUTSequence": ("LUTDescriptor", "LUTData"),
    "PresentationLUTSequence": ("LUTDescriptor", "LUTData"),
}
"""Sequences that stay, each with what stays of its items."""
CODING_SCHEMES = frozenset({"SCT", "SRT", "SNM3", "DCM"})
"""A code of a site's own scheme may say anything."""
_EMPTY = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID", "PatientBirthDate", "PatientSex",
    "Manufacturer", "SeriesNumber", "InstanceNumber",
)  # fmt: skip
_PATIENT_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Anonymous:
    """What remains of an image."""

    content: bytes = field(repr=False)
    """DICOM Part 10 file, Explicit VR Little Endian."""
    patient: str
    """The same for all images of one patient under one key."""
    view: str
    is_burned_in: bool | None
    """What the header says; None: nothing."""


def anonymous(content: bytes, key: bytes) -> Anonymous:
    """Take the patient out of a received image.

    Parameters
    ----------
    content : DICOM Part 10 file
    key : at random, of one export: the same patient, study or image has the same pseudonym under the same key, and
        nobody finds the way back once it is forgotten

    Raises
    ------
    InstanceError : it cannot be read or decoded.
    """
    source = header.read(content)
    if isinstance(source, Rejected):
        raise InstanceError(source.sentence)
    named = source.text("PatientID") or source.ref.study_instance_uid
    patient = f"P-{_digest(key, 'patient', named)[:_PATIENT_DIGITS].upper()}"
    with foreign_faults():
        dataset = _kept(source.dataset)
        for keyword in _EMPTY:
            setattr(dataset, keyword, "")
        dataset.PatientName, dataset.PatientID = f"{patient}^Anonymous", patient
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, keyword, _uid(key, source.text(keyword)))
        _say(dataset)
        _put_pixels(dataset, source)
        written = _part10(dataset)
    burned_in = {"YES": True, "NO": False}.get(source.text("BurnedInAnnotation").upper())
    return Anonymous(content=written, patient=patient, view=str(source.view), is_burned_in=burned_in)


def _kept(source: Dataset) -> Dataset:
    dataset = Dataset()
    for keyword in KEPT:
        if keyword in source and _is_plain(source[keyword]):
            dataset[keyword] = source[keyword]
    for keyword, parts in KEPT_ITEMS.items():
        items = [_item(item, parts) for item in source.get(keyword) or () if isinstance(item, Dataset)]
        if items := [item for item in items if len(item) and _is_code(item, parts)]:
            setattr(dataset, keyword, Sequence(items))
    return dataset


def _item(source: Dataset, parts: tuple[str, ...]) -> Dataset:
    item = Dataset()
    for keyword in parts:
        if keyword in source and (keyword in ("CodeValue", "CodingSchemeDesignator") or _is_plain(source[keyword])):
            item[keyword] = source[keyword]
    return item


def _is_code(item: Dataset, parts: tuple[str, ...]) -> bool:
    """Whether an item is no code, or one of a public scheme; its meaning is that scheme's, whatever was written."""
    if "CodeValue" not in parts:
        return True
    value = str(item.get("CodeValue", ""))
    item.CodeMeaning = f"code {value}"
    return item.get("CodingSchemeDesignator") in CODING_SCHEMES and _CODE.fullmatch(value) is not None


def _is_plain(element: DataElement) -> bool:
    """Whether an element is what the dictionary says, and tells nothing that the standard does not define."""
    if element.VR not in dictionary_VR(element.tag).split(" or "):
        return False
    values = element.value if element.VM > 1 else [element.value]
    if element.VR in ("CS", "LO"):
        return all(str(value) in _WORDS or _ORIENTATION.fullmatch(str(value)) for value in values)
    if element.VR in ("DS", "IS"):
        return all(isinstance(value, int | float | Decimal) for value in values)
    return element.VR != "UI" or UID(str(element.value)).name != str(element.value)


def _say(dataset: Dataset) -> None:
    """That, and how, the patient was taken out (PS3.3 C.7.1.1, C.12.1.1; PS3.16 CID 7050)."""
    basic = Dataset()
    basic.CodeValue, basic.CodingSchemeDesignator = "113100", "DCM"
    basic.CodeMeaning = "Basic Application Confidentiality Profile"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    dataset.DeidentificationMethodCodeSequence = Sequence([basic])
    dataset.LongitudinalTemporalInformationModified = "REMOVED"


def _put_pixels(dataset: Dataset, source: header.Source) -> None:
    """Stored values alone, whatever was written into the unused bits."""
    values = pixels.stored_values(source, Admission())
    bits = 8 * values.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored = bits, source.integer("BitsStored", bits)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.astype(values.dtype.newbyteorder("<")).tobytes() + b"\0" * (values.nbytes % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"


def _part10(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _uid(key: bytes, uid: str) -> str:
    """A UID of 128 pseudo-random bits (PS3.5 B.2)."""
    return f"2.25.{int(_digest(key, 'uid', uid)[:32], 16)}"


def _digest(key: bytes, kind: str, text: str) -> str:
    return hmac.digest(key, f"{kind}\0{text}".encode("utf-8", "surrogateescape"), "sha256").hex()
