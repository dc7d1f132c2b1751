"""The regions as masks for machines: Segmentation, BINARY, a segment and a frame for each region.

Every pixel whose centre lies within an outline of the measurements: the same region in other words, on the same
grid, under the same tracking identifier. It is where the network looked, so the segment is an image region and no
anatomy and no lesion. Without a Frame of Reference, for a projection has none. It has a plane all the same: some
viewers (OHIF) show a black page for a segmentation without size, orientation and position of its pixels, which the
standard allows here (PS3.3 A.51.5.1). The plane is the image's own: rows to the right, columns down, from 0\\0\\0.

Clauses: PS3.3 A.51 Segmentation IOD, C.8.20.2 Segmentation Image, C.7.6.16 Multi-frame Functional Groups (2.1 Pixel
Measures, 2.3 Plane Position, 2.4 Plane Orientation), C.7.6.17 Multi-frame Dimension, C.12.2 Common Instance Reference;
PS3.5 8.2 bits; IHE RAD AIR table 6.5.3.1-1.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.tag import Tag

from cxr_node.dicom.results import copied_attributes
from cxr_node.dicom.results.context import Context, finish, start
from cxr_node.dicom.results.secondary_capture import lossy
from cxr_node.dicom.results.sr_items import coded, reference
from cxr_node.dicom.words import wording
from cxr_node.domain import Artifact, Point, ResultKind

LABEL = "AI_REGION"
SEGMENTATION = Code("113076", "DCM", "Segmentation")
"""Of CID 7203; the dictionary's own Segmentation is the modality."""
_LO_MAX_CHARS = 64
_UNKNOWN_SPACING_MM = 1.0
"""Width of a pixel where the source states none: no length may be measured in it, but its shape is right."""
_ORIENTATION = [1, 0, 0, 0, 1, 0]
_GRAY_LAB = [65535, 32896, 32896]
"""White in CIELab as C.10.7.1.1 counts it; color would mean something."""


def build(context: Context) -> Artifact | None:
    """Mark the regions of one radiograph pixel by pixel; None where there are none."""
    if not context.regions:
        return None
    dataset = start(context, ResultKind.SEGMENTATION)
    dataset.update(copied_attributes.patient_orientation(context.source.dataset))
    dataset.BodyPartExamined = "CHEST"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.LossyImageCompression = lossy(context)
    dataset.BurnedInAnnotation = "NO"
    dataset.ContentLabel = LABEL
    dataset.ContentDescription = wording.REGION
    dataset.ContentCreatorName = ""  # no person made it
    dataset.SegmentationType = "BINARY"
    dataset.SegmentSequence = [_segment(context, number) for number in _numbers(context)]
    _refer(dataset, context)
    _group(dataset, context)
    shape = context.radiograph.pixels.shape
    _fill(dataset, np.stack([mask(region.outline, shape) for region in context.regions]))
    return finish(context, ResultKind.SEGMENTATION, dataset)


def mask(outline: tuple[Point, ...], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Fill a closed polygon, even-odd.

    Parameters
    ----------
    outline : (column, row) of each corner, pixel corners as SCOORD counts them, first = last
    shape : rows and columns

    Returns
    -------
    bool, shape (rows, columns): True where the centre of the pixel lies within.
    """
    rows, columns = shape
    crossed = np.zeros((rows, columns + 1), np.uint8)
    for (x_0, y_0), (x_1, y_1) in pairwise(outline):
        first, last = (int(np.clip(np.ceil(y - 0.5), 0, rows)) for y in sorted((y_0, y_1)))
        row = np.arange(first, last)  # whose centres lie between both ends; none for a level edge
        column = x_0 + (row + 0.5 - y_0) * (x_1 - x_0) / (y_1 - y_0 or 1.0)
        crossed[row, np.clip(np.ceil(column - 0.5), 0, columns).astype(np.intp)] ^= 1  # everything right of here
    inside: NDArray[np.bool_] = np.bitwise_xor.accumulate(crossed, axis=1)[:, :-1].astype(bool)
    return inside


def _numbers(context: Context) -> range:
    """Segment Numbers, from 1."""
    return range(1, len(context.regions) + 1)


def _segment(context: Context, number: int) -> Dataset:
    """What the mask is, and by which algorithm; the words of Contributing Equipment (AIR)."""
    algorithm = Dataset()
    algorithm.AlgorithmFamilyCodeSequence = [coded(codes.DCM.ArtificialIntelligence)]
    algorithm.AlgorithmName = context.model_name
    algorithm.AlgorithmVersion = context.algorithm_version
    algorithm.AlgorithmSource = context.manufacturer
    segment = Dataset()
    place = context.places[number - 1]
    segment.SegmentNumber = number
    segment.SegmentLabel = f"AI looked: {place}"[:_LO_MAX_CHARS] if place else wording.REGION
    segment.SegmentDescription = f"{wording.LOOKED} {wording.RESEARCH}"
    segment.SegmentAlgorithmType = "AUTOMATIC"
    segment.SegmentAlgorithmName = context.model_name
    segment.SegmentationAlgorithmIdentificationSequence = [algorithm]
    segment.SegmentedPropertyCategoryCodeSequence = [coded(codes.SCT.SpatialAndRelationalConcept)]
    segment.SegmentedPropertyTypeCodeSequence = [coded(codes.DCM.ImageRegion)]
    segment.RecommendedDisplayCIELabValue = _GRAY_LAB
    segment.TrackingID = context.finding.target.tracking_identifier(number)
    segment.TrackingUID = context.tracking_uid(number)
    return segment


def _refer(dataset: Dataset, context: Context) -> None:
    """By series, for viewers look there which image to load (C.12.2)."""
    ref = context.source.ref
    series = Dataset()
    series.SeriesInstanceUID = ref.series_instance_uid
    series.ReferencedInstanceSequence = [reference(ref.sop_class_uid, ref.sop_instance_uid)]
    dataset.ReferencedSeriesSequence = [series]


def _group(dataset: Dataset, context: Context) -> None:
    """One frame a segment, indexed by it, derived from the source."""
    organization = Dataset()
    organization.DimensionOrganizationUID = context.dimension_uid
    dataset.DimensionOrganizationSequence = [organization]
    index = Dataset()
    index.DimensionOrganizationUID = context.dimension_uid
    index.DimensionIndexPointer = Tag("ReferencedSegmentNumber")
    index.FunctionalGroupPointer = Tag("SegmentIdentificationSequence")
    dataset.DimensionIndexSequence = [index]
    dataset.SharedFunctionalGroupsSequence = [_plane(context)]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(context, number) for number in _numbers(context)]


def _frame(context: Context, number: int) -> Dataset:
    """What holds of one frame."""
    content = Dataset()
    content.DimensionIndexValues = number
    identification = Dataset()
    identification.ReferencedSegmentNumber = number
    source = reference(context.source.ref.sop_class_uid, context.source.ref.sop_instance_uid)
    source.PurposeOfReferenceCodeSequence = [coded(codes.DCM.SourceImageForImageProcessingOperation)]
    source.SpatialLocationsPreserved = "YES"
    derivation = Dataset()
    derivation.DerivationCodeSequence = [coded(SEGMENTATION)]
    derivation.SourceImageSequence = [source]
    frame = Dataset()
    frame.FrameContentSequence = [content]
    frame.DerivationImageSequence = [derivation]
    frame.SegmentIdentificationSequence = [identification]
    return frame


def _plane(context: Context) -> Dataset:
    """Size, orientation and position of the pixels, of every frame."""
    measures, orientation, position, shared = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [f"{value:.10g}" for value in pixel_spacing_mm(context)]
    measures.SliceThickness = 1  # nominal: readers insist on one, and a projection has none
    orientation.ImageOrientationPatient = _ORIENTATION
    position.ImagePositionPatient = [0, 0, 0]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    shared.PlanePositionSequence = [position]
    return shared


def pixel_spacing_mm(context: Context) -> tuple[float, float]:
    """Distance between rows, and between columns, as the source states it; else 1 mm with the true aspect."""
    unknown = _UNKNOWN_SPACING_MM * context.radiograph.pixel_aspect, _UNKNOWN_SPACING_MM
    return context.source.spacing_mm or unknown


def _fill(dataset: Dataset, inside: NDArray[np.bool_]) -> None:
    """Image Pixel module: one bit a pixel, the first in the lowest bit, frames without a gap (PS3.5 8.2, D.1).

    inside : shape (frames, rows, columns)
    """
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = inside.shape
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    dataset.PixelRepresentation = 0
    packed = np.packbits(inside, bitorder="little").tobytes()
    dataset.add_new("PixelData", "OB", packed + b"\0" * (len(packed) % 2))
