"""Synthetic instances and a classifier without a network: what every room's tests are made of.

Nobody's radiograph: the picture is drawn by formula. `part10(radiograph())` is a valid DX For Presentation object
(dciodvfy finds nothing), so what a test breaks is the only thing that is broken.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRBigEndian, ExplicitVRLittleEndian

from cxr_node.domain import (
    NO_BORDER,
    Border,
    Examination,
    Heatmap,
    Measurement,
    OperatingPoint,
    Place,
    Prediction,
    Radiograph,
    Region,
    Zone,
)
from cxr_node.model.profile import InputSpec, NetworkSpec, Population, Profile

_UID_ROOT = "1.2.826.0.1.3680043.8.498.77"  # pydicom's, for examples
_IMPLEMENTATION = f"{_UID_ROOT}.1"


def chest(rows: int = 320, columns: int = 288, bits: int = 12) -> NDArray[np.uint16]:
    """Draw a smooth frontal chest: dark lungs, bright mediastinum and diaphragm; uint16, `bits` bits used."""
    return _drawn(rows, columns, bits).copy()


@lru_cache(16)
def _drawn(rows: int, columns: int, bits: int) -> NDArray[np.uint16]:
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    body = 0.7 / (1 + np.exp((np.abs(x - 0.5) - 0.46) * 60))
    lungs = sum(_blob(x, y, centre, (0.14, 0.27)) for centre in ((0.30, 0.47), (0.70, 0.47)))
    heart = _blob(x, y, (0.56, 0.66), (0.15, 0.14))
    ribs = 0.03 * np.sin(40 * (y + (x - 0.5) ** 2)) * lungs
    shade = np.clip(body - 0.55 * lungs + 0.2 * heart + ribs + 0.05, 0, 1)
    stored: NDArray[np.uint16] = np.round(shade * ((1 << bits) - 1)).astype(np.uint16)
    return stored


def _blob(x: Any, y: Any, centre: tuple[float, float], size: tuple[float, float]) -> Any:
    return np.exp(-((((x - centre[0]) / size[0]) ** 2 + ((y - centre[1]) / size[1]) ** 2) ** 2))


def radiograph(number: int = 1, stored: NDArray[Any] | None = None, **overrides: Any) -> Dataset:
    """Build a DX For Presentation instance.

    Parameters
    ----------
    number : makes patient, study, series and instance; the same number gives the same instance
    stored : stored values, uint8, uint16 or int16, shape (rows, columns); the drawn chest (12 bits) if None
    overrides : attributes by DICOM keyword; None deletes the attribute
    """
    stored = chest() if stored is None else stored
    dataset = _patient_and_study(number)
    dataset.update(_equipment_and_series(number))
    dataset.update(_acquisition())
    dataset.update(_image(stored))
    for keyword, value in overrides.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    return dataset


def _patient_and_study(number: int) -> Dataset:
    return item(
        SpecificCharacterSet="ISO_IR 100",
        PatientName=f"Test^Child{number}",
        PatientID=f"TEST-{number:04d}",
        IssuerOfPatientID="CXR-NODE TESTS",
        PatientBirthDate="20210203",
        PatientSex="F",
        PatientAge="003Y",
        StudyInstanceUID=f"{_UID_ROOT}.2.{number}",
        StudyID=str(number),
        StudyDate="20240601",
        StudyTime="101500",
        StudyDescription="Chest PA",
        AccessionNumber=f"ACC{number:05d}",
        ReferringPhysicianName="Referrer^Test",
    )


def _equipment_and_series(number: int) -> Dataset:
    return item(
        SOPClassUID=DigitalXRayImageStorageForPresentation,
        SOPInstanceUID=f"{_UID_ROOT}.4.{number}",
        SeriesInstanceUID=f"{_UID_ROOT}.3.{number}",
        SeriesNumber="1",
        SeriesDescription="Chest PA upright",
        Modality="DX",
        PresentationIntentType="FOR PRESENTATION",
        Manufacturer="Example X-Ray Works",
        ManufacturerModelName="Phantom 1",
        DeviceSerialNumber="0001",
        SoftwareVersions="1.0",
        InstitutionName="Example Hospital",
        BodyPartExamined="CHEST",
        AnatomicRegionSequence=[_code("816094009", "SCT", "Chest")],
        AcquisitionContextSequence=[],
    )


def _acquisition() -> Dataset:
    return item(
        ImageType=["ORIGINAL", "PRIMARY"],
        InstanceNumber="1",
        AcquisitionDate="20240601",
        AcquisitionTime="101700",
        ContentDate="20240601",
        ContentTime="101700",
        PatientOrientation=["L", "F"],
        ImageLaterality="U",
        ViewPosition="PA",
        ViewCodeSequence=[_code("272479007", "SCT", "postero-anterior", ViewModifierCodeSequence=[])],
        PositionerType="NONE",
        KVP="66",
        ExposureTime="5",
        DetectorType="DIRECT",
        DetectorConfiguration="AREA",
        ImagerPixelSpacing=["0.5", "0.5"],
        BurnedInAnnotation="NO",
        LossyImageCompression="00",
    )


def _image(stored: NDArray[Any]) -> Dataset:
    bits = 8 if stored.dtype.itemsize == 1 else int(max(9, np.abs(stored.astype(np.int64)).max().item().bit_length()))
    signed = np.issubdtype(stored.dtype, np.signedinteger)
    bits += signed
    image = item(
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=stored.shape[0],
        Columns=stored.shape[1],
        BitsAllocated=stored.dtype.itemsize * 8,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=int(signed),
        PixelIntensityRelationship="LOG",
        PixelIntensityRelationshipSign=-1,
        RescaleIntercept="0",
        RescaleSlope="1",
        RescaleType="US",
        PresentationLUTShape="IDENTITY",
        WindowCenter=str(1 << (bits - 1)),
        WindowWidth=str(1 << bits),
    )
    little = np.ascontiguousarray(stored, stored.dtype.newbyteorder("<")).tobytes()
    image.add_new("PixelData", "OW", little + b"\0" * (len(little) % 2))
    return image


def item(**attributes: Any) -> Dataset:
    """Make a data set, or an item of a sequence, of these attributes by keyword."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def _code(value: str, scheme: str, meaning: str, **more: Any) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning, **more)


def part10(dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Encode as a Part 10 file; pixel data is swapped or compressed (RLE, JPEG-LS, JPEG 2000) as the syntax asks."""
    content, syntax = Dataset(dataset), UID(transfer_syntax)
    content.file_meta = FileMetaDataset()
    content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax.is_compressed and not content["PixelData"].is_undefined_length:
        content.compress(syntax, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian and "PixelData" in content and content.get("BitsAllocated") == 16:
        content.PixelData = np.frombuffer(content.PixelData, "<u2").astype(">u2").tobytes()
    elif (
        syntax == ExplicitVRBigEndian and "PixelData" in content and content["PixelData"].VR == "OW"
    ):  # 8 bits, two by two in words (PS3.5 A.3)
        content.PixelData = np.frombuffer(content.PixelData, "u1").reshape(-1, 2)[:, ::-1].tobytes()
    content.file_meta = _file_meta(content, syntax)
    content.preamble = bytes(128)
    file = io.BytesIO()
    dcmwrite(file, content, enforce_file_format=False)  # a test may leave out what Part 10 demands
    return file.getvalue()


def _file_meta(dataset: Dataset, transfer_syntax: UID) -> FileMetaDataset:
    """PS3.10 7.1, as the data set would have it."""
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # filled in when written
    meta.FileMetaInformationVersion = b"\0\1"
    if dataset.get("SOPClassUID"):
        meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    if dataset.get("SOPInstanceUID"):
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    meta.ImplementationVersionName = "CXR_TESTS"
    return meta


def profile(**overrides: Any) -> Profile:
    """Build a profile in memory: no folder, no weights; fields by name."""
    fields: dict[str, Any] = {
        "folder": Path("nowhere"),
        "name": "test",
        "version": "1",
        "labels": ("pneumonia",),
        "network": NetworkSpec(architecture="fixed"),
        "input": InputSpec(size_px=224, border=0.0),
        "population": Population(age_years=(1, 5), description="children of 1 to 5 years"),
        "slope": 1.0,
        "intercept": 0.0,
        "calibration": "identity, fitted on nothing (test profile)",
        "operating_point": OperatingPoint(
            name="test",
            label="pneumonia",
            report_at=0.85,
            rule_out_below=0.15,
            max_spread=0.2,
            max_distance=1.0,
        ),
        "weights_sha256": "ab" * 32,
        "calibration_sha256": "cd" * 32,
    }
    return Profile(**fields | overrides)


@dataclass(frozen=True, slots=True)
class FixedPredictor:
    """A `pipeline.Predictor` that says what it was told; its heat map is a blob in the right lower lung."""

    probability: float = 0.97
    spread: float = 0.01
    distance: float = 0.3
    profile: Profile = field(default_factory=profile)
    batch: int = 1

    def examine(self, radiograph: Radiograph) -> Examination:
        """Answer, whatever the radiograph shows."""
        prediction = Prediction(
            probability=dict.fromkeys(self.profile.answered, self.probability),
            spread=self.spread,
            distance=self.distance,
        )
        measurement = Measurement(logit=2.0 * self.probability - 1.0, distance=self.distance, features=bytes(128))
        return Examination(prediction=prediction, heatmap=_heatmap(*radiograph.pixels.shape), measurement=measurement)


CELLS = 32
"""A side of the map: as many as that of a network has at most."""


def around(share: float) -> Border:
    """A border as broad on each side."""
    return (share, share), (share, share)


@lru_cache(64)
def _heatmap(rows: int, columns: int) -> Heatmap:
    """Gaussian round (0.32, 0.62) of the picture; the outline is where it is 0.5."""
    centre, size = (0.32 * columns, 0.62 * rows), (0.12 * columns, 0.12 * rows)
    across = (np.arange(CELLS) + 0.5) / CELLS  # cell centres
    weight = np.exp(-0.5 * (((across - 0.32) / 0.12) ** 2 + ((across[:, None] - 0.62) / 0.12) ** 2))
    angle = np.linspace(0, 2 * np.pi, 33)
    radius = np.sqrt(2 * np.log(2))
    cells = weight.astype(np.float32)
    cells.setflags(write=False)
    ring = [
        (float(centre[0] + radius * size[0] * np.cos(a)), float(centre[1] + radius * size[1] * np.sin(a)))
        for a in angle[:-1]
    ]
    return Heatmap(
        cells=cells,
        border=NO_BORDER,
        regions=(
            Region(
                outline=(*ring, ring[0]),
                peak=centre,
                weight=1.0,
                place=Place.PICTURE_LEFT,
                zones=(Zone.LOWER,),
            ),
        ),
        label="pneumonia",
        layer="test.features",
    )
