"""Which number people may read beside a verdict, and in how many digits: the one rule, which every view asks.

Whole percents; never as if on the other side of a threshold, nor 0 or 100: 84.996 % below a threshold of 85 % is
"below 85 %". Programs read more digits (JSON, the ledger, the measurements), and those cross no threshold either.
"""

from __future__ import annotations

from cxr_node.domain import AbstainReason, Finding, OperatingPoint, Scale, Verdict

_MAX_DIGITS = 6
_EXTREMES = (0.0, 100.0)


def is_stated(finding: Finding) -> bool:
    """Whether any number may stand beside the verdict: not beside a doubt about the image itself."""
    return finding.decision.abstain_reason in (None, AbstainReason.BETWEEN_THRESHOLDS)


def stated_text(finding: Finding) -> str | None:
    """Certainty or score, whichever the classifier gives, for people; None where none may be stated."""
    if not is_stated(finding):
        return None
    point = finding.identity.operating_point
    if point.scale is Scale.SCORE:
        return f"{rounded_score(finding.probability, point):.10g}"
    return percent_text(finding.probability, point)


def beside(verdict: str | None, probability: float | None) -> str | None:
    """Certainty beside the word of a verdict whose thresholds are not at hand (ledger, demo): for a positive alone.

    It lies at or above its threshold, however both are rounded. Beside the others a number without thresholds reads as
    "rather no".
    """
    if verdict is None or probability is None or Verdict.of_word(verdict) is not Verdict.POSITIVE:
        return None
    return _limited(100 * probability, 0)


def percent_text(probability: float, point: OperatingPoint) -> str:
    """Certainty of the finding in percent, on the side of both thresholds where it lies, as those are read."""
    digits, percent = _digits(point), 100 * probability
    for threshold in (point.rule_out_below, point.report_at):
        shown = round(100 * threshold, digits)
        if probability < threshold and round(percent, digits) >= shown and shown not in _EXTREMES:
            return f"below {shown:.{digits}f} %"
    return _limited(percent, digits)


def threshold_text(threshold: float, point: OperatingPoint) -> str:
    """Format one of the point's thresholds: "85 %", or of a score "0.85"."""
    if point.scale is Scale.SCORE:
        return f"{threshold:.4g}"
    return f"{round(100 * threshold, _digits(point)):.{_digits(point)}f} %"


def exact_percent(probability: float, point: OperatingPoint) -> float:
    """Certainty for machines: the fewest digits, one at least, that keep its side of both thresholds, off 0 and 100."""

    def side(value: float) -> tuple[bool, bool]:
        return value >= point.rule_out_below, value >= point.report_at

    for digits in range(1, _MAX_DIGITS):
        smallest = 10.0**-digits
        value = round(min(max(100 * probability, smallest), 100 - smallest), digits)
        if side(round(value / 100, digits + 2)) == side(probability):
            return value
    return 100 * probability


def exact_fraction(value: float, point: OperatingPoint) -> float:
    """Probability or score for JSON, in [0, 1]: six digits, or all where six would carry it across a threshold."""
    rounded = round(value, _MAX_DIGITS)
    limits = (point.rule_out_below, point.report_at)
    return rounded if all((rounded >= limit) == (value >= limit) for limit in limits) else value


def rounded_score(value: float, point: OperatingPoint) -> float:
    """Round to two digits, or the fewest that keep the number on its side of both thresholds and of 0.5."""

    def side(of: float) -> tuple[bool, bool, bool]:
        return of >= point.rule_out_below, of >= point.report_at, of >= 0.5

    for digits in range(2, _MAX_DIGITS + 2):
        rounded = round(min(max(value, 10.0**-digits), 1 - 10.0**-digits), digits)
        if side(rounded) == side(value):
            return rounded
    return value


def _digits(point: OperatingPoint) -> int:
    """Decimals of a percentage: none, or the fewest that keep both thresholds apart, and off 0 and 100."""
    low, high = 100 * point.rule_out_below, 100 * point.report_at

    def are_kept(digits: int) -> bool:
        shown = round(low, digits), round(high, digits)
        apart = shown[0] < shown[1] or low == high
        pairs = zip(shown, (low, high), strict=True)
        return apart and all(one not in _EXTREMES or one == exact for one, exact in pairs)

    return next((digits for digits in range(_MAX_DIGITS) if are_kept(digits)), _MAX_DIGITS)


def _limited(percent: float, digits: int) -> str:
    """Never 0 and never 100."""
    step = 10.0**-digits
    if round(percent, digits) < step:
        return f"below {step:.{digits}f} %"
    if round(percent, digits) > 100 - step:
        return f"above {100 - step:.{digits}f} %"
    return f"{percent:.{digits}f} %"
