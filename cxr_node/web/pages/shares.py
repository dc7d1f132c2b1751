"""A share of so many images, with the interval in which the true one lies. Knows no ledger; imports no library."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z = 1.959963984540054
"""Of a two-sided interval of 95 %."""


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`; all of them numbers of images."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """In [0, 1]; 0 of nothing."""
        return self.count / self.total if self.total else 0.0

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval of Wilson (1927), in [0, 1]."""
        return self._end(-1.0)

    @property
    def high(self) -> float:
        """Upper end."""
        return self._end(1.0)

    def _end(self, sign: float) -> float:
        if not self.total:
            return (1.0 + sign) / 2.0
        n, p, z2 = self.total, self.value, _Z * _Z
        spread = _Z * math.sqrt(p * (1.0 - p) / n + z2 / (4.0 * n * n))
        return min(1.0, max(0.0, (p + z2 / (2.0 * n) + sign * spread) / (1.0 + z2 / n)))
