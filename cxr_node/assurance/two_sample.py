"""Whether newer films are of the distribution that a reference was of, and the smallest change that would show.

Kolmogorov and Smirnov on one number; the maximum mean discrepancy (Gretton et al. 2012) on many, by random Fourier
features (Rahimi and Recht 2007), whose null distribution is a weighted sum of chi-squares: its tail is computed, for a
permutation cannot show a probability of one in 100,000 in a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

SEED = 19
"""Of the directions of the random Fourier features, and of the pairs that the width of the kernel is taken from."""
_WAVES = 128
_PAIRS = 2000
_SHIFTED = 500
"""Films of the reference that `least_shift` moves."""
_QUANTILE_90 = 1.2815515655446004


@dataclass(frozen=True, slots=True)
class Found:
    """What a test says.

    Attributes
    ----------
    value : the statistic
    p : probability of so large a one without any change
    """

    value: float
    p: float


def ks(reference: Doubles, newer: Doubles) -> Found:
    """Compare one number of two samples, shapes (n,) and (m,): largest difference of their distributions, in [0, 1].

    Ties, where a value is capped, make the probability too large, never too small.
    """
    from scipy.special import kolmogorov

    both = np.sort(np.concatenate([reference, newer]))
    first, second = (np.searchsorted(np.sort(each), both, "right") / len(each) for each in (reference, newer))
    largest = float(np.abs(first - second).max())
    return Found(largest, float(kolmogorov(largest * math.sqrt(_pooled(len(reference), len(newer))))))


def least_shift(reference: int, newer: int, alpha: float) -> float | None:
    """Shift of a normal distribution, in its standard deviations, that `ks` finds at `alpha` with power 0.9."""
    from scipy.special import kolmogi, ndtr

    needed = float(kolmogi(alpha)) / math.sqrt(_pooled(reference, newer))
    for shift in np.arange(0.01, 10.0, 0.01):
        share = float(ndtr(shift / 2.0))  # of the lower one below the middle, where both differ most
        noise = math.sqrt(share * (1.0 - share) / _pooled(reference, newer))
        if 2.0 * share - 1.0 - _QUANTILE_90 * noise >= needed:
            return round(float(shift), 2)
    return None


def _pooled(first: int, second: int) -> float:
    return first * second / (first + second)


class Kernel:
    """A Gaussian kernel on features, as wide as the reference's films typically lie apart."""

    def __init__(self, reference: Doubles) -> None:
        """`reference` : shape (films, numbers)."""
        self._mean, scatter = reference.mean(0), np.cov(reference, rowvar=False)
        spread = np.sqrt(np.diag(scatter))
        self._scale = np.where(spread > 1e-9, spread, 1.0)
        scaled = (reference - self._mean) / self._scale
        random = np.random.default_rng(SEED)
        first, second = random.integers(0, len(scaled), (2, _PAIRS))
        apart = np.square(scaled[first] - scaled[second]).sum(1)
        width = math.sqrt(max(float(np.median(apart[first != second])) / 2.0, 1e-12))
        self._waves = random.standard_normal((reference.shape[1], _WAVES)) / width
        self._axis, self._along = _leading(scaled)
        self._some = scaled[:_SHIFTED]
        seen = self._seen(scaled)
        self._films, self._middle = len(seen), seen.mean(0)
        self._scatter = np.cov(seen, rowvar=False)
        self._weights = np.linalg.eigvalsh(self._scatter).clip(0.0)

    def mmd(self, newer: Doubles) -> Found:
        """Compare newer films, shape (films, numbers), with the reference: squared discrepancy, 0 or larger."""
        apart = self._seen((newer - self._mean) / self._scale).mean(0) - self._middle
        value = float(apart @ apart)
        return Found(value, weighted_tail(self._weights * self._noise(len(newer)), value))

    def least_shift(self, newer: int, alpha: float) -> float | None:
        """Shift of all films along the axis on which they differ most, in standard deviations, found with power 0.9."""
        noise = self._noise(newer)
        needed, here = _quantile(self._weights * noise, alpha), self._seen(self._some).mean(0)
        for shift in np.arange(0.05, 5.0, 0.05):
            moved = self._some + shift * self._along * self._axis
            apart = self._seen(moved).mean(0) - here
            spread = 2.0 * math.sqrt(noise * float(apart @ self._scatter @ apart))
            if float(apart @ apart) + noise * self._weights.sum() - _QUANTILE_90 * spread >= needed:
                return round(float(shift), 2)
        return None

    def _noise(self, newer: int) -> float:
        return 1.0 / newer + 1.0 / self._films

    def _seen(self, scaled: Doubles) -> Doubles:
        phase = scaled @ self._waves
        return np.asarray(np.concatenate([np.cos(phase), np.sin(phase)], axis=1) / math.sqrt(_WAVES))


def _leading(scaled: Doubles) -> tuple[Doubles, float]:
    values, axes = np.linalg.eigh(np.cov(scaled, rowvar=False))
    return np.asarray(axes[:, -1]), math.sqrt(float(values[-1]))


def weighted_tail(weights: Doubles, value: float) -> float:
    """Probability that the sum of weights times chi-squares of one degree exceeds a value.

    The saddlepoint of Lugannani and Rice, as Kuonen (1999) has it: right to a few per cent of the probability, in the
    far tail too.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr

    given = weights[weights > weights.max() * 1e-9]
    mean, largest = float(given.sum()), float(given.max())
    if value <= mean * (1.0 + 1e-6):
        return 0.5 if value > 0.9 * mean else 1.0  # no tail, and nobody asks how large it is

    def slope(t: float) -> float:
        return float((given / (1.0 - 2.0 * t * given)).sum()) - value

    top = (1.0 - 1e-12) / (2.0 * largest)
    if slope(top) < 0.0:
        return 0.0
    t = float(brentq(slope, 0.0, top))
    inner = 1.0 - 2.0 * t * given
    exponent = t * value + 0.5 * float(np.log(inner).sum())
    w = math.sqrt(2.0 * exponent)
    v = t * math.sqrt(2.0 * float(np.square(given / inner).sum()))
    return float(ndtr(-(w + math.log(v / w) / w))) if w > 1e-4 else 0.5


def _quantile(weights: Doubles, alpha: float) -> float:
    """The value that is exceeded with that probability."""
    low, high = float(weights.sum()), 2.0 * float(weights.sum())
    while weighted_tail(weights, high) > alpha:
        high *= 2.0
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (middle, high) if weighted_tail(weights, middle) > alpha else (low, middle)
    return high


def holm(probabilities: list[float]) -> list[float]:
    """Adjust probabilities by Holm (1979): each may be compared with the error of the whole family."""
    order = sorted(range(len(probabilities)), key=lambda place: probabilities[place])
    adjusted, largest = [1.0] * len(order), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * probabilities[place]))
        adjusted[place] = largest
    return adjusted
