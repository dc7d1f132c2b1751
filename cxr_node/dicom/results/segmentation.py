"""The regions as masks for machines: Segmentation, BINARY, a segment and a frame for each region.

Every pixel whose centre lies within an outline of the measurements, under the same tracking identifier: an image
region, no anatomy and no lesion. A projection has no Frame of Reference, but OHIF shows a black page for a segmentation
without a plane, which the standard allows here (PS3.3 A.51.5.1): the image's own, from 0\\0\\0. highdicom builds the
rest. PS3.3 A.51, C.8.20.2, C.7.6.16, C.7.6.17, C.12.2; PS3.5 8.2 bits; IHE RAD AIR table 6.5.3.1-1.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from cxr_node.dicom.results import copied_attributes, highdicom_adapter
from cxr_node.dicom.results.context import Context, finish, start
from cxr_node.dicom.words import codes, wording
from cxr_node.domain import Point
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

LABEL = "AI_REGION"
_LO_MAX_CHARS = 64
_UNKNOWN_SPACING_MM = 1.0
"""Width of a pixel where the source states none: no length may be measured in it, but its shape is right."""


def build(context: Context) -> Artifact | None:
    """Mark the regions of one radiograph pixel by pixel; None where there are none."""
    if not context.regions:
        return None
    import highdicom

    header = start(context, ResultKind.SEGMENTATION)
    shape = context.radiograph.pixels.shape
    masks = np.stack([mask(region.outline, shape) for region in context.regions])
    built = highdicom.seg.Segmentation(
        source_images=[highdicom_adapter.source_image(context)],
        pixel_array=np.moveaxis(masks, 0, -1)[np.newaxis],  # (planes, rows, columns, segments)
        segmentation_type="BINARY",
        segment_descriptions=[_segment(context, number) for number in range(1, len(masks) + 1)],
        content_label=LABEL,
        content_description=wording.REGION,
        content_creator_name="",  # no person made it
        pixel_measures=highdicom.PixelMeasuresSequence(pixel_spacing_mm(context), slice_thickness=1),
        omit_empty_frames=False,
        **highdicom_adapter.arguments(header),
    )
    dataset = highdicom_adapter.under(header, built)
    dataset.update(copied_attributes.patient_orientation(context.source.dataset))
    dataset.BodyPartExamined = "CHEST"
    dataset.BurnedInAnnotation = "NO"
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = context.dimension_uid  # highdicom's is random
    _place(dataset)
    dataset.add_new("PixelData", "OB", built.PixelData[: -(-masks.size // 8)])  # without padding, which is "0" there
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
    return np.asarray(np.bitwise_xor.accumulate(crossed, axis=1)[:, :-1].astype(bool))


def _segment(context: Context, number: int) -> SegmentDescription:
    """What the mask is, and by which algorithm; the words of Contributing Equipment (AIR)."""
    import highdicom

    place = context.places[number - 1]
    segment = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"AI looked: {place}"[:_LO_MAX_CHARS] if place else wording.REGION,
        segmented_property_category=highdicom_adapter.concept(codes.SCT.SpatialAndRelationalConcept),
        segmented_property_type=highdicom_adapter.concept(codes.DCM.ImageRegion),
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=context.model_name,
            family=highdicom_adapter.concept(codes.DCM.ArtificialIntelligence),
            version=context.algorithm_version,
            source=context.manufacturer,
        ),
        tracking_id=context.finding.target.tracking_identifier(number),
        tracking_uid=context.tracking_uid(number),
        display_color=highdicom.color.CIELabColor(100, 0, 0),  # white; color would mean something
    )
    segment.SegmentDescription = f"{wording.LOOKED} {wording.RESEARCH}"
    return segment


def _place(dataset: Dataset) -> None:
    """Give all frames orientation and position, and a single frame its segment itself, as frames of many have it."""
    shared, orientation, position = dataset.SharedFunctionalGroupsSequence[0], Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    position.ImagePositionPatient = [0, 0, 0]
    shared.PlaneOrientationSequence = [orientation]
    shared.PlanePositionSequence = [position]
    if segment := shared.pop("SegmentIdentificationSequence", None):
        dataset.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence = segment.value


def pixel_spacing_mm(context: Context) -> tuple[float, float]:
    """Distance between rows, and between columns, as the source states it; else 1 mm with the true aspect."""
    unknown = _UNKNOWN_SPACING_MM * context.radiograph.pixel_aspect, _UNKNOWN_SPACING_MM
    return context.source.spacing_mm or unknown
