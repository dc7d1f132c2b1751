"""A share of so many, with the exact interval of Clopper and Pearson (1934). Knows no ledger."""

from __future__ import annotations

from dataclasses import dataclass

CONFIDENCE = 0.95


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
        from scipy.stats import beta  # half a second, and the page imports this module

        tail, count, total = (1.0 - CONFIDENCE) / 2.0, self.count, self.total
        low = float(beta.ppf(tail, count, total - count + 1)) if count else 0.0
        high = float(beta.ppf(1.0 - tail, count + 1, total - count)) if count < total else 1.0
        return low, high

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
