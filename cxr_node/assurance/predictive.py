"""What calibration expects of the answers, beside what radiologists found: PPV and NPV.

Calibrated probabilities say how many of the positives are right, as long as the films are those that the calibration
was fitted on; radiologists' labels say how many were. A fall of the measured value is found by a cumulative sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cxr_node.assurance.cusum import Chart
from cxr_node.assurance.rates import interval
from cxr_node.domain import Verdict
from cxr_node.node.ledger.films import Film, Reference

Reading = tuple[Verdict, bool]
"""The node's answer, and whether a radiologist says that the finding is there; in the order of the films."""
RUN_LENGTH = 3000.0
"""Answers of one kind until the sum cries without a change, in the mean. More would find a fall later: of a PPV of
0.90 to 0.80, 92 % are found within 160 reported positives."""
FIRST_READINGS = 100
"""Where nothing is expected by calibration (a score), the first readings say what to compare with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictive:
    """The predictive value of one answer.

    Attributes
    ----------
    name : "PPV" or "NPV"
    expected : by calibration, of the newest films; None: their numbers are no probabilities
    expected_films : how many
    measured, low, high : share of right answers among those that were read, with the exact 95 % interval
    read : how many
    baseline : what a fall is a fall from: what calibration expected of the reference, or the first readings
    has_fallen : the cumulative sum has reached its level, and has not been at zero since
    least : the value that would have been found with probability 0.9 among so many readings; None: none
    """

    name: str
    expected: float | None
    expected_films: int
    measured: float | None
    low: float | None
    high: float | None
    read: int
    baseline: float | None
    has_fallen: bool
    least: float | None


def predictive(reference: Reference, newest: Sequence[Film], read: Iterable[Reading]) -> tuple[Predictive, ...]:
    """Compare both values, of the newest films and of all that was read."""
    told = list(read)
    return tuple(
        _of(
            name,
            verdict,
            reference,
            newest,
            [is_there is (verdict is Verdict.POSITIVE) for v, is_there in told if v is verdict],
        )
        for name, verdict in (("PPV", Verdict.POSITIVE), ("NPV", Verdict.NEGATIVE))
    )


def _of(name: str, verdict: Verdict, reference: Reference, newest: Sequence[Film], right: Sequence[bool]) -> Predictive:
    now = [film.probability for film in newest if film.verdict is verdict and film.is_measured]
    expected, films = _expected(verdict, [each for each in now if each is not None])
    pairs = zip(reference.verdicts, reference.probabilities, strict=True)
    baseline, _ = _expected(verdict, [p for v, p in pairs if v is verdict and p == p])
    watched = right
    if baseline is None and len(right) >= FIRST_READINGS:
        baseline, watched = sum(right[:FIRST_READINGS]) / FIRST_READINGS, right[FIRST_READINGS:]
    low, high = interval(sum(right), len(right))
    has_fallen, least = falls(baseline, watched)
    return Predictive(
        name=name,
        expected=expected,
        expected_films=films,
        measured=sum(right) / len(right) if right else None,
        low=low if right else None,
        high=high if right else None,
        read=len(right),
        baseline=baseline,
        has_fallen=has_fallen,
        least=least,
    )


def _expected(verdict: Verdict, probabilities: Sequence[float]) -> tuple[float | None, int]:
    if not probabilities:
        return None, 0
    mean = sum(probabilities) / len(probabilities)
    return (mean if verdict is Verdict.POSITIVE else 1.0 - mean), len(probabilities)


def falls(baseline: float | None, right: Sequence[bool]) -> tuple[bool, float | None]:
    """Whether a predictive value has fallen, and to what it must have fallen to be seen among so many readings."""
    if baseline is None or not right:
        return False, None
    chart, level = watch(baseline)
    least = chart.least_rate(level, min(len(right), int(RUN_LENGTH)))
    levels = chart.levels([not each for each in right], level)
    since_zero = levels[max((n for n, reached in enumerate(levels) if not reached), default=0) :]
    return max(since_zero) >= level, None if least is None else 1.0 - least


def watch(baseline: float) -> tuple[Chart, int]:
    """The chart of the answers that are wrong, and the level from which on their share has risen."""
    chart = Chart.of(min(0.99, max(0.001, 1.0 - baseline)))
    return chart, chart.level(RUN_LENGTH)
