"""The regions drawn over the radiograph itself, for viewers that draw no SR: Grayscale Softcopy Presentation State.

The gray scale is the source's own, as `grayscale` reads it: a presentation state replaces that of the header, so one
that is left out would show the radiograph without its window. For a positive with an outline only; of a frame round
the image nobody has any use.

Clauses: PS3.3 A.33.1 Grayscale Softcopy Presentation State IOD, C.10.4 Displayed Area, C.10.5 Graphic Annotation,
C.10.7 Graphic Layer, C.11.1 Modality LUT, C.11.6 Softcopy Presentation LUT, C.11.8 Softcopy VOI LUT, C.11.10, C.11.11.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from pydicom import Dataset

from cxr_node.dicom.pixels.grayscale import read_lut, read_voi_lut
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results.context import Context, finish, start
from cxr_node.dicom.results.sr_items import reference
from cxr_node.dicom.words import wording
from cxr_node.domain import Artifact, Point, ResultKind, Voi

LABEL = LAYER = "AI_REGION"
_WHITE = 0xFFFF
_MAX_ASPECT_TERM = 1000


def build(context: Context) -> Artifact | None:
    """Draw the regions of one radiograph; None where there are none."""
    if not context.regions:
        return None
    dataset = start(context, ResultKind.PRESENTATION_STATE)
    dataset.BodyPartExamined = "CHEST"
    _identify(dataset, context)
    _show_all_of_it(dataset, context)
    _keep_gray_scale(dataset, context.source, context.radiograph.voi)
    _annotate(dataset, context)
    return finish(context, ResultKind.PRESENTATION_STATE, dataset)


def _identify(dataset: Dataset, context: Context) -> None:
    """Say what it is and of which image (C.11.10, C.11.11)."""
    dataset.ContentLabel = LABEL
    dataset.ContentDescription = wording.REGION
    dataset.ContentCreatorName = ""  # no person made it
    dataset.PresentationCreationDate = dataset.ContentDate
    dataset.PresentationCreationTime = dataset.ContentTime
    del dataset.ContentDate, dataset.ContentTime  # not of this IOD
    series = Dataset()
    series.SeriesInstanceUID = context.source.ref.series_instance_uid
    series.ReferencedImageSequence = [_image(context)]
    dataset.ReferencedSeriesSequence = [series]


def _show_all_of_it(dataset: Dataset, context: Context) -> None:
    """Displayed Area: the whole image, fitted; corners are pixels counted from 1."""
    rows, columns = context.radiograph.pixels.shape
    aspect = Fraction(context.radiograph.pixel_aspect).limit_denominator(_MAX_ASPECT_TERM)
    area = Dataset()
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [columns, rows]
    area.PresentationSizeMode = "SCALE TO FIT"
    area.PresentationPixelAspectRatio = [aspect.numerator, aspect.denominator]
    dataset.DisplayedAreaSelectionSequence = [area]


def _keep_gray_scale(dataset: Dataset, source: Source, chosen: Voi | None) -> None:
    """Modality LUT, VOI LUT and Presentation LUT of the source; of several, the one that the node itself used."""
    header = source.dataset
    if rescaled := _lut_items(header, "ModalityLUTSequence", source):
        rescaled[0].ModalityLUTType = header.ModalityLUTSequence[0].get("ModalityLUTType") or "US"
        dataset.ModalityLUTSequence = rescaled
    elif slope := _first(source, "RescaleSlope"):
        dataset.RescaleIntercept, dataset.RescaleSlope = (
            f"{value:.10g}" for value in (_first(source, "RescaleIntercept") or 0.0, slope)
        )
        dataset.RescaleType = source.text("RescaleType") or "US"
    voi = _voi(source, chosen)
    if len(voi):
        dataset.SoftcopyVOILUTSequence = [voi]
    inverse = "INVERSE" in source.text("PresentationLUTShape") or source.text("PhotometricInterpretation").endswith("1")
    dataset.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"


def _voi(source: Source, chosen: Voi | None) -> Dataset:
    """Curve or window; empty where the header has none and none was needed."""
    voi = Dataset()
    place = 0 if chosen is None else chosen.lut
    if place is not None and (curve := _lut_items(source.dataset, "VOILUTSequence", source, place)):
        voi.VOILUTSequence = curve
        return voi
    window = chosen.window if chosen else (_first(source, "WindowCenter"), _first(source, "WindowWidth"))
    function = chosen.function if chosen else source.text("VOILUTFunction")
    center, width = window
    if center is not None and width is not None and width > 0:
        voi.WindowCenter, voi.WindowWidth = f"{center:.10g}", f"{width:.10g}"
        if function:
            voi.VOILUTFunction = function
    return voi


def _first(source: Source, keyword: str) -> float | None:
    """First value of a number; None where there is none, or it is none."""
    value = next(iter(source.numbers(keyword)), math.nan)
    return value if math.isfinite(value) else None


def _lut_items(header: Dataset, keyword: str, source: Source, place: int = 0) -> list[Dataset]:
    """A table of a sequence, written anew in our byte order (C.11.1.1); none where it cannot be read."""
    items = header.get(keyword) or ()
    read = read_voi_lut if keyword == "VOILUTSequence" else read_lut
    lut = read(items[place], source) if place < len(items) else None
    if lut is None:
        return []
    first, entries, bits = lut
    count, kind = len(entries) & 0xFFFF, "SS" if first < 0 else "US"
    item = Dataset()
    item.add_new("LUTDescriptor", kind, [count - 0x10000 if kind == "SS" and count > 0x7FFF else count, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return [item]


def _annotate(dataset: Dataset, context: Context) -> None:
    """Put the outlines on a layer of their own, with words that say what they are and what they are not."""
    annotation = Dataset()
    annotation.GraphicLayer = LAYER
    annotation.ReferencedImageSequence = [_image(context)]
    annotation.GraphicObjectSequence = [_polyline(region.outline) for region in context.regions]
    annotation.TextObjectSequence = [_words([region.outline for region in context.regions])]
    dataset.GraphicAnnotationSequence = [annotation]
    layer = Dataset()
    layer.GraphicLayer = LAYER
    layer.GraphicLayerOrder = 1
    layer.GraphicLayerRecommendedDisplayGrayscaleValue = _WHITE
    layer.GraphicLayerDescription = wording.REGION
    dataset.GraphicLayerSequence = [layer]


def _polyline(outline: tuple[Point, ...]) -> Dataset:
    """In units of PIXEL the places are those of SCOORD: 0\\0 is the corner of the first pixel (C.10.5.1.2)."""
    graphic = Dataset()
    graphic.GraphicAnnotationUnits = "PIXEL"
    graphic.GraphicDimensions = 2
    graphic.NumberOfGraphicPoints = len(outline)
    graphic.GraphicData = [value for point in outline for value in point]
    graphic.GraphicType = "POLYLINE"
    graphic.GraphicFilled = "N"
    return graphic


def _words(outlines: Sequence[tuple[Point, ...]]) -> Dataset:
    """Anchored below the lowest region."""
    places = np.asarray(max(outlines, key=lambda outline: max(row for _, row in outline)))
    words = Dataset()
    words.AnchorPointAnnotationUnits = "PIXEL"
    words.UnformattedTextValue = f"{wording.LOOKED} {wording.RESEARCH}"
    words.AnchorPoint = [float(places[:, 0].mean()), float(places[:, 1].max())]
    words.AnchorPointVisibility = "N"
    return words


def _image(context: Context) -> Dataset:
    return reference(context.source.ref.sop_class_uid, context.source.ref.sop_instance_uid)
