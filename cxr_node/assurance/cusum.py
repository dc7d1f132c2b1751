"""Cumulative sums of a share: how soon a change of a rate is seen, and how rarely one is seen that is not there.

A Bernoulli CUSUM (Page 1954; Reynolds and Stoumbos 1999) on a lattice: each film adds a whole number of steps, up
where it speaks for the change, down where it speaks against it, never below zero. So the run length is that of a
finite Markov chain, and its mean is solved for, not simulated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ODDS = 2.0
"""A chart is quickest for odds that double, or are halved."""
_FINENESS = 64.0
"""Of the larger of both scores in steps: where it has fewer, each step is divided."""
_LONGEST = 1e12


@dataclass(frozen=True, slots=True)
class Chart:
    """One side of one share.

    Attributes
    ----------
    rate : share in control, in (0, 1)
    event, other : steps of a film with the property, and without; one is positive, the other negative
    """

    rate: float
    event: int
    other: int

    @classmethod
    def of(cls, rate: float, *, falls: bool = False, odds: float = ODDS) -> Chart:
        """Watch whether a share rises, or falls, from a rate in (0, 1)."""
        factor = 1.0 / odds if falls else odds
        changed = rate * factor / (1.0 - rate + rate * factor)
        scores = math.log(changed / rate), math.log((1.0 - changed) / (1.0 - rate))
        small, large = sorted(map(abs, scores))
        unit = small / 2.0 if large / small < _FINENESS / 2.0 else small
        event, other = (round(score / unit) for score in scores)
        return cls(rate, event, other)

    @property
    def falls(self) -> bool:
        """Whether it watches for a share that gets less."""
        return self.event < 0

    def levels(self, events: Iterable[bool], cap: int) -> list[int]:
        """The sum after each film, in steps; it stays at `cap` while it would exceed it, so that it can come back."""
        level, found = 0, []
        for event in events:
            level = min(cap, max(0, level + (self.event if event else self.other)))
            found.append(level)
        return found

    def run_length(self, level: int) -> float:
        """Mean number of films in control until the sum has reached a level, from zero."""
        return _run_length(self.rate, self.event, self.other, level)

    def level(self, run_length: float) -> int:
        """The lowest level whose mean run length in control is at least so many films."""
        low, high = 0, 8
        while self.run_length(high) < run_length:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.run_length(middle) < run_length else (low, middle)
        return high

    def chance(self, rates: NDArray[np.float64], level: int, films: int) -> NDArray[np.float64]:
        """Probability of reaching a level within so many films, from zero, for each of some rates."""
        up, down = max(self.event, self.other), -min(self.event, self.other)
        rising = 1.0 - rates if self.falls else rates
        place = np.zeros((level, len(rates)))
        place[0] = 1.0
        for _ in range(films):
            after = np.zeros_like(place)
            after[up:] = rising * place[: max(0, level - up)]
            after[: level - down] += (1.0 - rising) * place[down:]
            after[0] += (1.0 - rising) * place[:down].sum(0)
            place = after
        return np.asarray(1.0 - place.sum(0))

    def least_rate(self, level: int, films: int, power: float = 0.9) -> float | None:
        """The rate nearest to that in control that reaches a level within so many films in 90 of 100; None: none."""
        if max(self.event, self.other) * films < level:
            return None
        rates = np.linspace(self.rate, 0.0 if self.falls else 1.0, 33)
        for _ in range(2):
            found = np.flatnonzero(self.chance(rates, level, films) >= power)
            if not found.size:
                return None
            first = max(1, int(found[0]))
            rates = np.linspace(rates[first - 1], rates[first], 9)
        return float(rates[-1])


@lru_cache(maxsize=4096)
def _run_length(rate: float, event: int, other: int, level: int) -> float:
    """Solve (I - Q) x = 1 of the chain below the level, whose matrix has few diagonals."""
    from scipy.linalg import solve_banded

    if level <= 0:
        return 0.0
    up, down = max(event, other), -min(event, other)
    rising = rate if event > 0 else 1.0 - rate
    above, below = min(up, level - 1), min(down, level - 1)
    band = np.zeros((above + below + 1, level))
    band[above] = 1.0
    if up < level:
        band[above - up, up:] -= rising
    for state in range(level):
        back = max(0, state - down)
        band[above + state - back, back] -= 1.0 - rising
    mean = float(solve_banded((below, above), band, np.ones(level))[0])
    return mean if 0.0 < mean < _LONGEST else _LONGEST
