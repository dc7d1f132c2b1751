"""A share of so many, with the exact interval of Clopper and Pearson (1934). Knows no ledger; imports no library.

The page shows these too, and SciPy would cost its process 60 MiB; a test compares both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

CONFIDENCE = 0.95
_HALVINGS = 60
_TERMS = 10_000
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` of `total`."""

    count: int
    total: int

    @property
    def value(self) -> float | None:
        """In [0, 1]; None of nothing."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %; (0, 1) of nothing."""
        return interval(self.count, self.total)

    def as_json(self) -> dict[str, float | int | None]:
        """Count, total, value and interval."""
        low, high = self.interval
        return {
            "count": self.count,
            "of": self.total,
            "value": self.value,
            "low": round(low, 4),
            "high": round(high, 4),
        }

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        low, high = self.interval
        return f"{100 * self.value:.1f} % ({100 * low:.1f} to {100 * high:.1f}), {self.count} of {self.total}"


@lru_cache(maxsize=4096)
def interval(count: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided and exact; (0, 1) of nothing."""
    tail = (1.0 - confidence) / 2.0
    low = _quantile(tail, count, total - count + 1) if count else 0.0
    high = _quantile(1.0 - tail, count + 1, total - count) if count < total else 1.0
    return low, high


def _quantile(probability: float, a: int, b: int) -> float:
    """Where the beta distribution reaches a probability, by halving."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if _beta(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def _beta(x: float, a: int, b: int) -> float:
    """Regularised incomplete beta function, by the continued fraction that converges (DLMF 8.17.22)."""
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _beta(1.0 - x, b, a)
    if x <= 0.0:
        return 0.0
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) / a * _fraction(x, a, b)


def _fraction(x: float, a: int, b: int) -> float:
    """Its continued fraction, by Lentz's method."""
    c, d = 1.0, 1.0 / _apart(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _apart(1.0 + term * d)
            c = _apart(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value


def _apart(value: float) -> float:
    """Not zero."""
    return value if abs(value) > _TINY else _TINY
