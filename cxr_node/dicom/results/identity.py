"""What of a source's header a result depends on, as one digest: another value gives other results, under other UIDs.

Made of the very data sets that results carry, so that nothing can be carried and left out here; a test watches what
the builders read. Transport leaves no trace in it: transfer syntax, byte order, group lengths and private attributes
may change on the way through an archive, and the radiograph's results stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from hashlib import sha256

from pydicom import Dataset

from cxr_node.dicom.pixels import grayscale
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results import copied_attributes
from cxr_node.dicom.results.encoder import to_bytes
from cxr_node.dicom.words import zones
from cxr_node.domain import Radiograph

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
    carried = copied_attributes.patient_and_study(header)
    carried.update(copied_attributes.patient_orientation(header))
    carried.StudyInstanceUID = ref.study_instance_uid
    carried.SeriesInstanceUID = ref.series_instance_uid
    carried.SOPClassUID = ref.sop_class_uid
    carried.LossyImageCompression = copied_attributes.lossy(header, ref.transfer_syntax_uid)
    carried.RequestAttributesSequence = copied_attributes.requests(header, ref.study_instance_uid)
    equipment, procedure = copied_attributes.acquisition_equipment(header), copied_attributes.procedure_code(header)
    carried.ContributingEquipmentSequence = [] if equipment is None else [equipment]
    carried.ProcedureCodeSequence = [] if procedure is None else [procedure]
    return carried


def _read(source: Source, radiograph: Radiograph) -> Iterator[object]:
    """Everything that a result says in other words, or prints though it is not valid enough to be carried."""
    for keyword, nested in copied_attributes.PATIENT_AND_STUDY.items():
        if nested is None:
            yield keyword, copied_attributes.raw_text(source.dataset, keyword)
    for keyword in _TEXTS:
        yield keyword, source.text(keyword)
    for keyword in _NUMBERS:
        yield keyword, source.numbers(keyword)[:1]
    for keyword in _TABLES:
        for item in (source.dataset.get(keyword) or ())[:1]:
            lut = grayscale.read_lut(item, source)
            yield (
                keyword,
                str(item.get("ModalityLUTType", "")),
                lut and (lut[0], sha256(lut[1].tobytes()).hexdigest(), lut[2]),
            )
    yield "spacing", source.spacing_mm  # of a segmentation's pixels
    yield "sides", zones.sides(source)  # in whose words a region is placed
    for field in fields(radiograph):
        if field.name not in ("pixels", "pixel_sha256"):  # the stored values have a digest of their own
            yield field.name, getattr(radiograph, field.name)
