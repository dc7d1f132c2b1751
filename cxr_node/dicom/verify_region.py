"""Which region a measurement group may have; knows no other row.

Clauses: PS3.3 C.18.6 Spatial Coordinates; PS3.16 TID 1410.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cxr_node.dicom.verify_facts import Facts
from cxr_node.domain import Point

_POINT_TOLERANCE_PX = 0.01  # coordinates are stored as float32
_MIN_POINTS = 4  # a triangle, closed


def accepts(facts: Facts) -> Callable[[Any], bool]:
    """Accept a closed polyline on the image: the known region, or any where it is not known."""

    def is_right(value: Any) -> bool:
        graphic_type, told = value
        try:
            numbers = [float(number) for number in told]
            points = list(zip(numbers[::2], numbers[1::2], strict=True))
        except ValueError:
            return False
        if graphic_type != "POLYLINE" or len(points) < _MIN_POINTS or points[0] != points[-1]:
            return False
        if facts.region is not None:
            return _same(points, list(facts.region))
        return _lies_inside(points, facts.size_px)

    return is_right


def _lies_inside(points: list[Point], size_px: tuple[int, int] | None) -> bool:
    rows, columns = size_px or (math.inf, math.inf)
    return all(0 <= x <= columns and 0 <= y <= rows for x, y in points)


def _same(points: list[Point], others: list[Point]) -> bool:
    if len(points) != len(others):
        return False
    pairs = zip(points, others, strict=True)
    return all(abs(a - b) <= _POINT_TOLERANCE_PX for one, other in pairs for a, b in zip(one, other, strict=True))
