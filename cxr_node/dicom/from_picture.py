"""A PNG or JPEG picture of a radiograph as a DX image (PS3.3 A.26), for trying the node without a modality.

The same file gives the same UIDs and bytes. It claims no age and no view, and its patient says what it is.
"""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from cxr_node.errors import InstanceError

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_NAMESPACE = uuid.UUID("a9c5a7c0-5a4c-4c0b-8a39-6b1d6c7e1f02")
_MAX_COLOR_DIFFERENCE = 8
"""Gray levels by which the channels of a gray picture stored as color may differ (JPEG rounds chroma)."""


def wrap(path: Path, **attributes: str) -> bytes:
    """As `wrapped`, of a file. Raises InstanceError also where that cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InstanceError(f"the picture cannot be read ({type(error).__name__})") from error
    return wrapped(content, **attributes)


def wrapped(content: bytes, **attributes: str) -> bytes:
    """Part 10 file of a gray picture.

    `content` : 8- or 16-bit gray PNG or JPEG; of 16 bits as many are taken for stored as the brightest pixel needs
    `attributes` : further DICOM attributes by keyword, for example PatientAge="003Y"
    Raises InstanceError: it is no picture, is damaged, or is in color.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
            pixels = _gray(picture)
    except UnidentifiedImageError as error:
        raise InstanceError("the file is neither DICOM nor a PNG or JPEG picture") from error
    except (OSError, Image.DecompressionBombError, SyntaxError) as error:
        raise InstanceError(f"the picture cannot be read ({type(error).__name__})") from error
    bits = max(int(pixels.max(initial=0)).bit_length(), 8)  # detectors have 10 to 14, PNG 8 or 16
    return _part10(_dataset(pixels, hashlib.sha256(content).hexdigest(), {**depth(bits), **attributes}))


def of_values(values: NDArray[np.uint8] | NDArray[np.uint16], **attributes: str | int | None) -> bytes:
    """Part 10 file of stored values, to see how an image fares that comes with another header.

    Parameters
    ----------
    values : shape (rows, cols), Bits Allocated from the type
    attributes : DICOM attributes by keyword that differ from those of a wrapped picture; None leaves a value empty
    """
    return _part10(_dataset(values, hashlib.sha256(values.tobytes()).hexdigest(), attributes))


def depth(bits: int) -> dict[str, str | int]:
    """Attributes of so many stored bits, and the window that shows all of them."""
    window = {"WindowCenter": str(2 ** (bits - 1)), "WindowWidth": str(2**bits)}
    return {"BitsStored": bits, "HighBit": bits - 1, **window}


def _gray(picture: Image.Image) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if picture.mode in ("I;16", "I"):
        return np.asarray(picture).astype(np.uint16)
    if picture.mode == "L":
        return np.asarray(picture)
    channels = np.asarray(picture.convert("RGB")).astype(np.int16)  # (rows, cols, 3)
    if int(np.ptp(channels, axis=2).max()) > _MAX_COLOR_DIFFERENCE:
        raise InstanceError("the picture is in color; a radiograph is gray")
    return np.asarray(picture.convert("L"))


def _dataset(
    pixels: NDArray[np.uint8] | NDArray[np.uint16], digest: str, attributes: Mapping[str, str | int | None]
) -> Dataset:
    bits = pixels.dtype.itemsize * 8
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = _uid(digest, "instance")
    dataset.StudyInstanceUID = _uid(digest, "study")
    dataset.SeriesInstanceUID = _uid(digest, "series")
    dataset.Modality = "DX"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PatientName = "Picture^Wrapped"
    dataset.PatientID = f"PICTURE-{digest[:12]}"
    dataset.BodyPartExamined = "CHEST"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    for empty in (
        "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID", "PatientBirthDate",
        "PatientSex", "Manufacturer", "PatientOrientation", "ImageLaterality",
    ):  # fmt: skip
        setattr(dataset, empty, "U" if empty == "ImageLaterality" else "")
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "01"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.WindowCenter, dataset.WindowWidth = str(2 ** (bits - 1)), str(2**bits)
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.PixelData = pixels.astype(f"<u{bits // 8}").tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def _uid(digest: str, kind: str) -> str:
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{digest}|{kind}').int}"


def _part10(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
