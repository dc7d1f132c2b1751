"""What highdicom is given of a radiograph, and what is kept of the object that it builds.

highdicom raises where patient or study of its source are missing or break their VR, as in real headers. So it is given
UIDs and a size alone, and the header of the result is ours; what it says of itself and of the present moment is left
out. Imported where it is needed, by the worker alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydicom import Dataset

from cxr_node.dicom.results import copied_attributes
from cxr_node.dicom.results.context import Context
from cxr_node.dicom.words.codes import Code

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept


def concept(code: Code) -> CodedConcept:
    """A coded concept, as its constructors take it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(*code)


def source_image(context: Context) -> Dataset:
    """The radiograph: its UIDs and size are real, patient and study are empty."""
    ref = context.source.ref
    image = _image(context, ref.sop_class_uid, ref.sop_instance_uid, ref.series_instance_uid)
    image.LossyImageCompression = copied_attributes.lossy(context.source.dataset, ref.transfer_syntax_uid)
    image.NumberOfFrames = 1  # this and the next is asked of images of every SOP Class that may have more of them
    image.SharedFunctionalGroupsSequence = [Dataset()]
    image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = []
    return image


def picture(context: Context) -> Dataset:
    """The heat map of the same study."""
    of = context.picture
    return _image(context, of.sop_class_uid, of.sop_instance_uid, of.series_instance_uid)


def arguments(header: Dataset) -> dict[str, Any]:
    """What every constructor of highdicom asks of the header of a result."""
    return {
        "series_instance_uid": header.SeriesInstanceUID,
        "series_number": header.SeriesNumber,
        "sop_instance_uid": header.SOPInstanceUID,
        "instance_number": header.InstanceNumber,
        "manufacturer": header.Manufacturer,
        "manufacturer_model_name": header.ManufacturerModelName,
        "software_versions": list(header.SoftwareVersions),
        "device_serial_number": header.DeviceSerialNumber,
    }


def under(header: Dataset, built: Dataset) -> Dataset:
    """Put the content of an object that highdicom built under a header of ours, which prevails."""
    for element in built:
        if element.tag not in header and element.keyword not in ("InstanceCreationDate", "InstanceCreationTime"):
            header.add(element)
    return header


def _image(context: Context, sop_class_uid: str, sop_instance_uid: str, series_instance_uid: str) -> Dataset:
    image = copied_attributes.patient_and_study(Dataset())
    image.StudyInstanceUID = context.source.ref.study_instance_uid
    image.SeriesInstanceUID = series_instance_uid
    image.SOPClassUID, image.SOPInstanceUID = sop_class_uid, sop_instance_uid
    image.SamplesPerPixel = 1
    image.Rows, image.Columns = context.radiograph.pixels.shape
    return image
