"""A radiograph without its patient: the Basic Application Level Confidentiality Profile of PS3.15 (Table E.1-1).

By a list of what stays, not of what goes: kept is what the pixels need to be shown and which view it is; every other
attribute, private ones and overlays among them, is removed, so also all that the table says X, Z, D or U of. What a
Type 2 attribute needs is empty; UIDs and the patient are pseudonyms under a key that the caller forgets. Pixels are
written uncompressed, without the unused bits and the comments of a codestream, and are NOT cleaned: what is burned
in stays (the Clean Pixel Data Option is not claimed). PS3.15 E.1, E.2, E.3.
"""

from __future__ import annotations

import hmac
import io
from dataclasses import dataclass, field

from pydicom import Dataset, FileMetaDataset, Sequence, dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

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
KEPT_ITEMS = {
    "ViewCodeSequence": ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"),
    "ViewModifierCodeSequence": ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"),
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
        if keyword in source:
            dataset[keyword] = source[keyword]
    for keyword, parts in KEPT_ITEMS.items():
        items = [_item(item, parts) for item in source.get(keyword) or ()]
        if items := [item for item in items if item.get("CodingSchemeDesignator", "DCM") in CODING_SCHEMES]:
            setattr(dataset, keyword, Sequence(items))
    return dataset


def _item(source: Dataset, parts: tuple[str, ...]) -> Dataset:
    item = Dataset()
    for keyword in parts:
        if keyword in source:
            item[keyword] = source[keyword]
    return item


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
