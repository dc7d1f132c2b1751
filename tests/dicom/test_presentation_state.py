"""The region over the radiograph: where it is, what is written beside it, and a gray scale that is the source's."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian

from cxr_node.config.schema import Admission
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.results import presentation_state
from cxr_node.dicom.results.context import Context
from cxr_node.dicom.results.encoder import to_part10
from cxr_node.dicom.words import wording
from tests import builders
from tests.builders import item
from tests.dicom.contexts import CASES, context, in_both_lungs, of_bytes, with_regions


def made(of: Context) -> Dataset:
    artifact = presentation_state.build(of)
    assert artifact is not None
    return dcmread(io.BytesIO(artifact.content))


def of_source(**overrides: Any) -> Dataset:
    return made(context(dataset=builders.radiograph(**overrides)))


def of_decoded(**overrides: Any) -> Dataset:
    """The same, with the radiograph as the node decodes it."""
    of = context(dataset=builders.radiograph(**overrides))
    return made(replace(of, radiograph=pixels.decode(of.source, Admission())))


def test_the_outlines_are_those_of_the_measurements() -> None:
    of = in_both_lungs(context())
    (annotation,) = made(of).GraphicAnnotationSequence
    for graphic, region in zip(annotation.GraphicObjectSequence, of.regions, strict=True):
        assert (graphic.GraphicType, graphic.GraphicAnnotationUnits) == ("POLYLINE", "PIXEL")
        assert graphic.GraphicFilled == "N"
        points = np.asarray(graphic.GraphicData).reshape(-1, 2)
        assert graphic.NumberOfGraphicPoints == len(points)
        assert points == pytest.approx(np.asarray(region.outline), rel=1e-6)


def test_words_and_layer_say_what_it_is_not() -> None:
    of = context()
    dataset = made(of)
    (annotation,) = dataset.GraphicAnnotationSequence
    (words,) = annotation.TextObjectSequence
    assert wording.LOOKED in words.UnformattedTextValue
    assert "Research use only" in words.UnformattedTextValue
    column, row = words.AnchorPoint
    rows, columns = of.radiograph.pixels.shape
    assert 0 <= column <= columns
    assert 0 <= row <= rows
    assert [layer.GraphicLayer for layer in dataset.GraphicLayerSequence] == [annotation.GraphicLayer]


def test_it_belongs_to_the_one_radiograph_and_shows_all_of_it() -> None:
    of = replace(context(), radiograph=replace(context().radiograph, pixel_aspect=1.25))
    dataset = made(of)
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == of.source.ref.series_instance_uid
    assert series.ReferencedImageSequence[0].ReferencedSOPInstanceUID == of.source.ref.sop_instance_uid
    (area,) = dataset.DisplayedAreaSelectionSequence
    rows, columns = of.radiograph.pixels.shape
    assert list(area.DisplayedAreaBottomRightHandCorner) == [columns, rows]
    assert list(area.PresentationPixelAspectRatio) == [5, 4]  # a pixel's height to its width


@pytest.mark.parametrize(("photometric", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")])
def test_the_gray_scale_is_kept(photometric: str, shape: str) -> None:
    dataset = of_source(
        PhotometricInterpretation=photometric,
        PresentationLUTShape=None,
        RescaleSlope="2",
        RescaleIntercept="-7.5",
        WindowCenter=["1000.5", "3"],
        WindowWidth=["2000", "4"],
        VOILUTFunction="SIGMOID",
    )
    assert (dataset.RescaleSlope, dataset.RescaleIntercept) == (2, -7.5)
    (voi,) = dataset.SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction) == (1000.5, 2000, "SIGMOID")
    assert dataset.PresentationLUTShape == shape


def test_a_source_without_window_gets_none() -> None:
    dataset = of_source(WindowCenter=None, WindowWidth=None, RescaleSlope=None, RescaleIntercept=None)
    assert "SoftcopyVOILUTSequence" not in dataset
    assert "RescaleSlope" not in dataset


@pytest.mark.parametrize("syntax", [None, ExplicitVRBigEndian])
@pytest.mark.parametrize(("first", "kind"), [(0, "US"), (-2048, "SS")])
def test_tables_are_kept_in_our_byte_order(syntax: str | None, first: int, kind: str) -> None:
    entries = (np.arange(4096) * 16).astype(">u2" if syntax else "<u2")
    table = Dataset()
    table.add_new("LUTDescriptor", kind, [4096, first, 16])
    table.add_new("LUTData", "OW", entries.tobytes())
    source = builders.radiograph(VOILUTSequence=[table], PixelRepresentation=int(first < 0))
    dataset = made(of_bytes(builders.part10(source, syntax) if syntax else builders.part10(source)))
    (voi,) = dataset.SoftcopyVOILUTSequence
    (kept,) = voi.VOILUTSequence
    assert list(kept.LUTDescriptor) == [4096, first, 16]
    assert np.frombuffer(kept.LUTData, "<u2").tolist() == entries.tolist()
    assert "WindowCenter" not in voi


def test_a_modality_lut_comes_before_a_slope() -> None:
    table = item(LUTDescriptor=[256, 0, 8], ModalityLUTType="OD")
    table.add_new("LUTData", "OW", np.arange(256, dtype="<u2").tobytes())
    dataset = of_source(ModalityLUTSequence=[table], RescaleSlope="2")
    assert dataset.ModalityLUTSequence[0].ModalityLUTType == "OD"
    assert "RescaleSlope" not in dataset


def test_an_outline_of_nothing_and_other_verdicts_make_none() -> None:
    of = context()
    bare = with_regions(of)
    assert presentation_state.build(bare) is None
    assert [case for case in CASES if presentation_state.build(context(case))] == ["pneumonia"]


@pytest.mark.parametrize(
    ("overrides", "center", "width"),
    [
        ({"WindowCenter": ["2000", "1400"], "WindowWidth": ["1", "1800"]}, 1400.0, 1800.0),
        ({"WindowCenter": ["1400", "2000"], "WindowWidth": ["1800", "1"]}, 1400.0, 1800.0),
    ],
)
def test_the_window_is_the_one_that_the_node_used(overrides: dict[str, Any], center: float, width: float) -> None:
    (voi,) = of_decoded(**overrides).SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth) == (center, width)


def test_where_no_window_shows_anything_it_is_the_range_of_the_picture() -> None:
    (voi,) = of_decoded(WindowCenter="2000", WindowWidth="1").SoftcopyVOILUTSequence
    assert voi.VOILUTFunction == "LINEAR_EXACT"
    low, high = (float(voi.WindowCenter) + side * float(voi.WindowWidth) / 2 for side in (-1, 1))
    assert 0 <= low < 500
    assert 2500 < high <= 4095


def test_a_curve_is_declared_with_the_bits_that_it_holds() -> None:
    """A viewer that believes "16" would show the radiograph black."""
    curve = Dataset()
    curve.add_new("LUTDescriptor", "US", [4096, 0, 16])
    curve.add_new("LUTData", "OW", np.arange(4096, dtype="<u2").tobytes())
    (voi,) = of_decoded(VOILUTSequence=[curve]).SoftcopyVOILUTSequence
    assert list(voi.VOILUTSequence[0].LUTDescriptor) == [4096, 0, 12]


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    descriptor=st.lists(st.integers(-0x8000, 0x7FFF) | st.integers(1, 20), max_size=4),
    data=st.binary(max_size=64),
    signed=st.booleans(),
    units=st.sampled_from([None, "", "HU", "M\u00fc\\ller", "X" * 70]),
)
@settings(max_examples=40, deadline=None)
def test_no_table_however_broken_makes_it_raise(
    descriptor: list[int], data: bytes, signed: bool, units: str | None
) -> None:
    table, tag = Dataset(), Tag("LUTDescriptor")
    words = np.array(descriptor, "<i2").tobytes()
    table[tag] = RawDataElement(tag, "SS" if signed else "US", len(words), words, 0, False, True, True)
    table.add_new("LUTData", "OW", data + b"\0" * (len(data) % 2))
    if units is not None:
        table.add_new("ModalityLUTType", "LO", units)
    source = builders.radiograph(ModalityLUTSequence=[table], PixelRepresentation=int(signed), RescaleType=units)
    source.VOILUTSequence = source.ModalityLUTSequence
    dataset = made(of_bytes(to_part10(source)))
    stated = [dataset[keyword].value for keyword in ("ModalityLUTSequence", "RescaleSlope") if keyword in dataset]
    assert len(stated) == 1
    for lut in dataset.get("ModalityLUTSequence", ()):
        assert lut.ModalityLUTType == {"HU": "HU", None: "US", "": "US"}.get(units, lut.ModalityLUTType)
        assert len(lut.LUTData) == 2 * (lut.LUTDescriptor[0] & 0xFFFF or 0x10000)
