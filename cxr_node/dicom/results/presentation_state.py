"""The regions drawn over the radiograph itself, for viewers that draw no SR: Grayscale Softcopy Presentation State.

It replaces the header's gray scale, so it carries the source's, as `grayscale` reads it; highdicom raises on broken
tables. For a positive with an outline only.
PS3.3 A.33.1, C.10.4, C.10.5, C.10.7, C.11.1, C.11.6, C.11.8 Softcopy VOI LUT, C.11.10, C.11.11.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from cxr_node.dicom.pixels.grayscale import read_lut, read_voi_lut
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results import highdicom_adapter
from cxr_node.dicom.results.context import Context, finish, start
from cxr_node.dicom.words import wording
from cxr_node.domain import Point, Voi
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind

if TYPE_CHECKING:
    from highdicom import ModalityLUT, ModalityLUTTransformation
    from highdicom.pr import GraphicAnnotation, GraphicLayer, SoftcopyVOILUTTransformation

Lut = TypeVar("Lut", bound=Dataset)
Read = Callable[[Dataset, Source], tuple[int, NDArray[np.float64], int] | None]
LABEL = LAYER = "AI_REGION"
_WHITE = 0xFFFF
_MAX_ASPECT_TERM = 1000
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def build(context: Context) -> Artifact | None:
    """Draw the regions of one radiograph; None where there are none."""
    if not context.regions:
        return None
    import highdicom

    header, source = start(context, ResultKind.PRESENTATION_STATE), context.source
    header.PresentationCreationDate, header.PresentationCreationTime = header.ContentDate, header.ContentTime
    del header.ContentDate, header.ContentTime  # not of this IOD
    inverse = "INVERSE" in source.text("PresentationLUTShape") or source.text("PhotometricInterpretation").endswith("1")
    image = highdicom_adapter.source_image(context)
    layer = highdicom.pr.GraphicLayer(LAYER, order=1, description=wording.REGION)
    layer.GraphicLayerRecommendedDisplayGrayscaleValue = _WHITE
    built = highdicom.pr.GrayscaleSoftcopyPresentationState(
        [image],
        content_label=LABEL,
        content_description=wording.REGION,
        content_creator_name="",  # no person made it
        graphic_layers=[layer],
        graphic_annotations=[_annotation(image, layer, [region.outline for region in context.regions])],
        modality_lut_transformation=_modality(source),
        voi_lut_transformations=_voi(source, context.radiograph.voi),
        presentation_lut_transformation=highdicom.PresentationLUTTransformation("INVERSE" if inverse else "IDENTITY"),
        **highdicom_adapter.arguments(header),
    )
    dataset = highdicom_adapter.under(header, built)
    dataset.BodyPartExamined = "CHEST"
    aspect = Fraction(context.radiograph.pixel_aspect).limit_denominator(_MAX_ASPECT_TERM)
    area = dataset.DisplayedAreaSelectionSequence[0]
    area.PresentationPixelAspectRatio = [aspect.numerator, aspect.denominator]
    del area.PixelOriginInterpretation  # of tiled images
    return finish(context, ResultKind.PRESENTATION_STATE, dataset)


def _annotation(image: Dataset, layer: GraphicLayer, outlines: Sequence[tuple[Point, ...]]) -> GraphicAnnotation:
    """Outlines, with words below the lowest of them that say what they are and what they are not.

    In units of PIXEL the places are those of SCOORD: 0\\0 is the corner of the first pixel (C.10.5.1.2).
    """
    from highdicom.pr import GraphicAnnotation, GraphicObject, TextObject

    size = image.Columns, image.Rows
    polygons = [np.clip(np.asarray(outline, np.float64), 0, size) for outline in outlines]
    lowest = max(polygons, key=lambda polygon: float(polygon[:, 1].max()))
    anchor = float(lowest[:, 0].mean()), float(lowest[:, 1].max())
    words = f"{wording.LOOKED} {wording.RESEARCH}"
    return GraphicAnnotation(
        [image],
        layer,
        graphic_objects=[GraphicObject("POLYLINE", polygon, "PIXEL") for polygon in polygons],
        text_objects=[TextObject(words, "PIXEL", anchor_point=anchor, anchor_point_visible=False)],
    )


def _modality(source: Source) -> ModalityLUTTransformation | None:
    """Modality LUT of the source, else its slope; None where it has neither."""
    import highdicom

    def table(data: NDArray[np.uint16]) -> ModalityLUT:
        return highdicom.ModalityLUT(_unit(source.dataset.ModalityLUTSequence[0].get("ModalityLUTType")), 0, data)

    if lut := _lut(source, "ModalityLUTSequence", 0, read_lut, table):
        return highdicom.ModalityLUTTransformation(modality_lut=lut)
    if slope := _first(source, "RescaleSlope"):
        intercept = _first(source, "RescaleIntercept") or 0.0
        return highdicom.ModalityLUTTransformation(intercept, slope, _unit(source.text("RescaleType")))
    return None


def _voi(source: Source, chosen: Voi | None) -> list[SoftcopyVOILUTTransformation] | None:
    """Curve or window that the node itself used, else the first; None where there is none and none was needed."""
    import highdicom

    place = 0 if chosen is None else chosen.lut
    if place is not None:
        lut = _lut(source, "VOILUTSequence", place, read_voi_lut, lambda data: highdicom.VOILUT(0, data))
        if lut is not None:
            return [highdicom.pr.SoftcopyVOILUTTransformation(voi_luts=[lut])]
    center, width = chosen.window if chosen else (_first(source, "WindowCenter"), _first(source, "WindowWidth"))
    if center is None or width is None or width <= 0:
        return None
    stated = chosen.function if chosen else source.text("VOILUTFunction").upper()
    function = stated if stated in _FUNCTIONS else None
    return [highdicom.pr.SoftcopyVOILUTTransformation(center, width, voi_lut_function=function)]


def _first(source: Source, keyword: str) -> float | None:
    value = next(iter(source.numbers(keyword)), math.nan)
    return value if math.isfinite(value) else None


def _lut(source: Source, keyword: str, place: int, read: Read, make: Callable[[NDArray[np.uint16]], Lut]) -> Lut | None:
    """A table of a sequence, written in our byte order (C.11.1.1); None where it cannot be read."""
    items = source.dataset.get(keyword) or ()
    table = read(items[place], source) if place < len(items) else None
    if table is None:
        return None
    first, entries, bits = table
    data = entries.astype("<u2")
    lut, kind, count = make(data), "SS" if first < 0 else "US", len(data) & 0xFFFF
    count -= 0x10000 if kind == "SS" and count > 0x7FFF else 0
    lut.add_new("LUTDescriptor", kind, [count, first, bits])  # highdicom knows neither signed values nor 12 bits
    lut.add_new("LUTData", "OW", data.tobytes())
    return lut


def _unit(text: Any) -> str:
    """Units of the Modality LUT's output, as LO allows them; unspecified where the source does not say."""
    return wording.plain(str(text or ""))[:64].strip() or "US"
