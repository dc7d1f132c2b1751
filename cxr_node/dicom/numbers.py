"""How numbers are rounded for people: never across a threshold.

84.96 % below a threshold of 85 % reads 84.9 or 84.96, never 85.0. Knows no sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from cxr_node.domain import Doubt, Finding, OperatingPoint

_MAX_DIGITS = 6


def is_stated(finding: Finding) -> bool:
    """Whether any number may stand beside the verdict: not beside a doubt about the image itself."""
    return finding.decision.doubt in (None, Doubt.BETWEEN_THRESHOLDS)


def rounded_percent(probability: float, point: OperatingPoint, digits: int) -> float:
    """Round to the fewest digits that keep the number on its side of both thresholds, and off 0 and 100."""

    def side(value: float) -> tuple[bool, bool]:
        return value >= point.rule_out_below, value >= point.report_at

    for more in range(digits, _MAX_DIGITS):
        smallest = 10.0**-more
        value = round(min(max(100 * probability, smallest), 100 - smallest), more)
        if side(round(value / 100, more + 2)) == side(probability):
            return value
    return 100 * probability


def rounded_score(value: float, point: OperatingPoint) -> float:
    """Round to two digits, or the fewest that keep the number on its side of both thresholds and of 0.5."""

    def side(of: float) -> tuple[bool, bool, bool]:
        return of >= point.rule_out_below, of >= point.report_at, of >= 0.5

    for digits in range(2, _MAX_DIGITS + 2):
        rounded = round(min(max(value, 10.0**-digits), 1 - 10.0**-digits), digits)
        if side(rounded) == side(value):
            return rounded
    return value


def above(value: float, limit: float) -> str:
    """Format a value that exceeds its limit so that it is seen to exceed it."""
    return _shortest(value, lambda rounded: rounded > limit)


def _shortest(value: float, holds: Callable[[float], bool]) -> str:
    for digits in range(1, _MAX_DIGITS):
        if math.isfinite(value) and holds(round(value, digits)):
            return f"{value:.{digits}f}"
    return f"{value:.{_MAX_DIGITS}g}"
