"""Which region a measurement group may have, and those of masks and presentation states; knows no other row.

Clauses: PS3.3 C.18.6 Spatial Coordinates, C.8.20.2 Segmentation Image, C.10.5 Graphic Annotation; PS3.16 TID 1410.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cxr_node.dicom.verify_facts import Document, Facts
from cxr_node.dicom.verify_plain import Plain, items, text
from cxr_node.dicom.verify_rules import Rule
from cxr_node.dicom.verify_tree import Report
from cxr_node.domain import Point

_PRESENTATION_STATE, _SEGMENTATION = "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.66.4"
_POINT_TOLERANCE_PX = 0.01  # coordinates are stored as float32
_MIN_POINTS = 4  # a triangle, closed


def accepts(facts: Facts, number: int) -> Callable[[Any], bool]:
    """Accept a closed polyline on the image: the region of this number, or any where they are not known."""

    def is_right(value: Any) -> bool:
        graphic_type, told = value
        try:
            numbers = [float(number) for number in told]
            points = list(zip(numbers[::2], numbers[1::2], strict=True))
        except ValueError:
            return False
        if graphic_type != "POLYLINE" or len(points) < _MIN_POINTS or points[0] != points[-1]:
            return False
        if facts.outlines is not None:
            return len(facts.outlines) >= number and _same(points, list(facts.outlines[number - 1]))
        return _lies_inside(points, facts.size_px)

    return is_right


def check_objects(documents: list[Document], facts: Facts, report_of: Callable[[str], Report]) -> None:
    """Check that masks and presentation states have the regions of the measurements, all and no more."""
    for document in documents:
        report, dataset = report_of(document.name), document.dataset
        sop_class = text(dataset, "SOPClassUID")
        if sop_class == _PRESENTATION_STATE and not _drawn_right(_polylines(dataset), facts):
            report(Rule.REGION, "GraphicObjectSequence")
        if sop_class == _SEGMENTATION:
            segments = items(dataset, "SegmentSequence")
            numbers = [text(segment, "SegmentNumber") for segment in segments]
            if numbers != [str(number) for number in range(1, facts.groups + 1)] or not _framed(dataset, numbers):
                report(Rule.REGION, "SegmentSequence")
            if facts.tracking_uids not in (None, tuple(text(segment, "TrackingUID") for segment in segments)):
                report(Rule.TRACKING, "SegmentSequence")


def _polylines(dataset: Plain) -> list[list[Point]]:
    found = []
    for annotation in items(dataset, "GraphicAnnotationSequence"):
        for graphic in items(annotation, "GraphicObjectSequence"):
            try:
                numbers = [float(number) for number in text(graphic, "GraphicData").split("\\")]
            except ValueError:
                numbers = []
            found.append(list(zip(numbers[::2], numbers[1::2], strict=False)))
    return found


def _drawn_right(lines: list[list[Point]], facts: Facts) -> bool:
    closed = all(
        len(points) >= _MIN_POINTS and points[0] == points[-1] and _lies_inside(points, facts.size_px)
        for points in lines
    )
    known = facts.outlines or ()
    same = all(_same(points, list(outline)) for points, outline in zip(lines, known, strict=False))
    return closed and same and len(lines) == facts.groups


def _framed(dataset: Plain, numbers: list[str]) -> bool:
    """One frame a segment, in order."""
    frames = items(dataset, "PerFrameFunctionalGroupsSequence")
    named = [
        text(identified, "ReferencedSegmentNumber")
        for frame in frames
        for identified in items(frame, "SegmentIdentificationSequence")
    ]
    return named == numbers and text(dataset, "NumberOfFrames") == str(len(numbers))


def _lies_inside(points: list[Point], size_px: tuple[int, int] | None) -> bool:
    rows, columns = size_px or (math.inf, math.inf)
    return all(0 <= x <= columns and 0 <= y <= rows for x, y in points)


def _same(points: list[Point], others: list[Point]) -> bool:
    if len(points) != len(others):
        return False
    pairs = zip(points, others, strict=True)
    return all(abs(a - b) <= _POINT_TOLERANCE_PX for one, other in pairs for a, b in zip(one, other, strict=True))
