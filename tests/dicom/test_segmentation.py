"""The mask: the same region as the outline, bit for bit what it says, and read by an independent reader."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import highdicom.seg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from cxr_node import heatmap
from cxr_node.dicom.results import segmentation
from cxr_node.dicom.results.context import Context
from cxr_node.domain import Point
from tests import builders
from tests.dicom.contexts import CASES, context, in_both_lungs, with_regions


def made(of: Context) -> Dataset:
    artifact = segmentation.build(of)
    assert artifact is not None
    return dcmread(io.BytesIO(artifact.content))


def within(outline: tuple[Point, ...], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The same by an independent way; matplotlib's own opinion of points on the line is not asked for."""
    y, x = np.mgrid[0.5 : shape[0], 0.5 : shape[1]]
    return Path(np.asarray(outline)).contains_points(np.column_stack((x.ravel(), y.ravel()))).reshape(shape)


def test_the_mask_is_where_the_map_exceeds_the_cut() -> None:
    """The outline of the synthetic map is where it is 0.5."""
    of = context()
    (region,) = of.regions
    mask = segmentation.mask(region.outline, of.radiograph.pixels.shape)
    above = heatmap.on_grid(of.finding.heatmap, of.radiograph.pixels.shape) > 0.5
    assert mask.any()
    assert np.mean(mask != above) < 0.002  # the polygon has 32 corners
    assert (mask == within(region.outline, mask.shape)).all()


@given(
    st.lists(
        st.tuples(st.floats(-3, 23, width=32), st.floats(-3, 17, width=32)), min_size=3, max_size=12, unique=True
    ).filter(lambda corners: all(abs(y % 1 - 0.5) > 1e-3 for _, y in corners))
)
def test_polygons_are_filled_even_odd(corners: list[Point]) -> None:
    """Any polygon, crossing itself or leaving the image: parity of the crossings to the left of each centre."""
    outline = (*corners, corners[0])
    mask = segmentation.mask(outline, (14, 20))
    for row, column in np.ndindex(14, 20):
        x, y = column + 0.5, row + 0.5
        crossings = [
            x_0 + (y - y_0) * (x_1 - x_0) / (y_1 - y_0)
            for (x_0, y_0), (x_1, y_1) in pairwise(outline)
            if (y_0 < y) != (y_1 < y)
        ]
        if all(abs(crossing - x) > 1e-6 for crossing in crossings):
            assert mask[row, column] == (sum(crossing < x for crossing in crossings) % 2 == 1)


def test_the_whole_image_and_a_single_pixel() -> None:
    def box(left: float, top: float, right: float, bottom: float) -> tuple[Point, ...]:
        return ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))

    assert segmentation.mask(box(0, 0, 7, 5), (5, 7)).all()
    (places,) = np.argwhere(segmentation.mask(box(3, 2, 4, 3), (5, 7)))
    assert places.tolist() == [2, 3]


@pytest.mark.parametrize("shape", [(320, 288), (33, 47)])
def test_an_independent_reader_finds_masks_source_and_algorithm(shape: tuple[int, int]) -> None:
    of = context()
    drawn = replace(of.radiograph, pixels=np.zeros(shape, np.float32))
    heatmap = builders.FixedPredictor().examine(drawn).heatmap
    of = in_both_lungs(replace(of, radiograph=drawn, finding=replace(of.finding, heatmap=heatmap)))
    read = highdicom.seg.Segmentation.from_dataset(made(of))
    source = of.source.ref.sop_instance_uid
    pixels = read.get_pixels_by_source_instance([source], segment_numbers=[1, 2, 3])
    assert pixels.shape == (1, *shape, 3)
    for place, region in enumerate(of.regions):
        assert (pixels[0, ..., place] == segmentation.mask(region.outline, shape)).all()
        assert read.get_segment_description(place + 1).tracking_uid == of.tracking_uid(place + 1)
    labels = [read.get_segment_description(number).segment_label for number in (1, 2, 3)]
    assert labels[:2] == ["AI looked: right lower zone", "AI looked: left upper and middle zones"]
    description = read.get_segment_description(1)
    assert description.segmented_property_type.value == "111030"
    algorithm = description.algorithm_identification
    assert (algorithm.name, algorithm.version) == (of.model_name, of.algorithm_version)


def test_air_table_6_5_3_1_holds_for_the_segment() -> None:
    dataset = made(context())
    (algorithm,) = dataset.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    ours = dataset.ContributingEquipmentSequence[-1]
    assert algorithm.AlgorithmName == ours.ManufacturerModelName
    assert algorithm.AlgorithmVersion == ours.SoftwareVersions
    assert algorithm.AlgorithmSource == ours.Manufacturer


def test_viewers_find_the_radiograph_and_its_orientation() -> None:
    of = context()
    dataset = made(of)
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == of.source.ref.series_instance_uid
    assert list(dataset.PatientOrientation) == ["L", "F"]
    assert "FrameOfReferenceUID" not in dataset  # a projection has none, and none is invented
    assert dataset.SegmentSequence[0].SegmentedPropertyCategoryCodeSequence[0].CodeValue == "309825002"


@pytest.mark.parametrize(
    ("stated", "spacing"),
    [
        ({}, [0.5, 0.5]),
        ({"PixelSpacing": ["0.4", "0.3"]}, [0.4, 0.3]),  # in the patient, before that at the detector
        ({"ImagerPixelSpacing": None}, [1.0, 1.0]),
        ({"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": ["0.2", "0.2"]}, [0.2, 0.2]),
        ({"ImagerPixelSpacing": ["0", "0"]}, [1.0, 1.0]),
        ({"ImagerPixelSpacing": ""}, [1.0, 1.0]),
    ],
)
def test_the_mask_has_a_plane_without_which_viewers_show_a_black_page(
    stated: dict[str, object], spacing: list[float]
) -> None:
    """OHIF reads all three of every frame; an archive's DICOMweb drops a group that is empty."""
    dataset = made(context(dataset=builders.radiograph(**stated)))
    (shared,) = dataset.SharedFunctionalGroupsSequence
    assert [float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing] == spacing
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    assert list(shared.PlanePositionSequence[0].ImagePositionPatient) == [0, 0, 0]


def test_a_mask_without_a_stated_spacing_has_the_true_aspect() -> None:
    of = context(dataset=builders.radiograph(ImagerPixelSpacing=None))
    of = replace(of, radiograph=replace(of.radiograph, pixel_aspect=1.25))
    assert segmentation.pixel_spacing_mm(of) == (1.25, 1.0)


def test_an_outline_of_nothing_and_other_verdicts_make_none() -> None:
    of = context()
    bare = with_regions(of)
    assert segmentation.build(bare) is None
    assert [case for case in CASES if segmentation.build(context(case))] == ["pneumonia"]
