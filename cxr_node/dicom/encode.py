"""A finished data set to a Part 10 file.

Must not know what it says. PS3.10 7.1 File Meta Information; PS3.5 A.2 Explicit VR Little Endian.
"""

from __future__ import annotations

import io
import warnings

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from cxr_node.dicom import carry
from cxr_node.dicom.origin import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME


def to_part10(dataset: Dataset) -> bytes:
    """Part 10 file in Explicit VR Little Endian; the same data set gives the same bytes in every process."""
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # pydicom fills it in
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    dataset.preamble = bytes(128)
    carry.keep_bytes(dataset)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A character set unknown to pydicom is carried as it is; our own words are ASCII in any.
        warnings.filterwarnings("ignore", message="Unknown encoding|Incorrect value for Specific Character Set")
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
