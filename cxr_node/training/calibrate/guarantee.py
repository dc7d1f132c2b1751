"""Two thresholds that keep a promise on predictive values, with a confidence, for patients drawn like these.

Knows no torch, no image and no file: probabilities of labelled patients in, thresholds out. Learn then test
(Angelopoulos et al. 2021) with exact binomial p-values. How the promise is counted:

- A patient is one witness, however many images: a wrong answer on any image counts as wrong, a right answer counts
  only where every image is answered. So the promise holds whichever of a patient's images is sent, and images of
  one child are never taken for independent ones. A patient with images of both classes speaks for one of them, by lot.
- A predictive value at a prevalence is a ratio of two rates, each measured within its own class, so the share of
  positives in the set does not matter: PPV >= v wherever wrong rate <= odds * (1 - v) / v * right rate.
- The right rate is bounded at all thresholds at once (Dvoretzky, Kiefer, Wolfowitz; constant of Massart 1990). The
  wrong rate is tested exactly, threshold after threshold from a strict one down (fallback procedure, Wiens 2003): each
  start brings its part of the error probability, a passed test hands on what it has, and a failed one spends it. Order
  and starts come from the other class alone and not from the wish, so a stricter wish never passes where another fails.
- Both promises hold together with the stated confidence: each may fail with half of the remaining probability.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from cxr_node.errors import DataError

METHOD = "learn then test by the fallback procedure, exact binomial tests, one witness a patient"
RIGHT_SHARE = 0.1
"""Of each promise's error probability, what bounds the right rate; the rare wrong answers need the rest more."""
STARTS = (0.5, 0.9)
"""A sequence starts where this share of a class's answerable patients is answered. The first suits classes that
overlap; the second is for few patients, and is not ended by a few wrong labels among the surest."""
MOST_PATIENTS = 1_000_000
"""Where the search for a sufficient number of patients gives up."""
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which predictive values, how surely, at which share of positives; all in (0, 1)."""

    ppv: float
    npv: float
    confidence: float
    prevalence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Patients:
    """Labelled images that training never saw, one row each.

    Attributes
    ----------
    probability : float64, shape (images,), calibrated, in [0, 1]
    positive : bool, shape (images,)
    answerable : bool, shape (images,); False where distance or spread sets the image aside, whatever its probability
    groups : str, shape (images,), the patient of each
    """

    probability: Floats
    positive: Bools
    answerable: Bools
    groups: NDArray[np.str_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What keeps the wish: thresholds in [0, 1], and how many patients of each class witness it."""

    report_at: float
    rule_out_below: float
    positives: int
    negatives: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reach:
    """Scores from `start` down to `last` pass the test, as does all between `last` and `failed`."""

    start: float
    last: float
    failed: float

    def nearest(self, score: float) -> float:
        """The passing score nearest to the given one."""
        if self.failed < score:
            return min(score, self.start)
        return (self.failed + self.last) / 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One verdict and its two classes of witnesses; scores are larger where the verdict is surer, -inf: no answer."""

    verdict: str
    value: str
    right: Floats
    wrong: Floats
    odds: float


def thresholds(patients: Patients, wish: Wish, label: str) -> Kept:
    """Find the thresholds nearest to one half that keep the wish.

    That is the lowest `report_at` with PPV >= wish.ppv and the highest `rule_out_below` with NPV >= wish.npv, but
    where these lie beyond one half, one half: a verdict never contradicts its own probability.

    `label` : the positive verdict, for messages
    Raises DataError: no threshold keeps the wish on these patients; says how many would, or what these can promise.
    """
    report, rule_out = _sides(patients, wish.prevalence, label)
    risk = (1.0 - wish.confidence) / 2.0
    reported = _reaches(report, wish.ppv, risk) or _refuse(report, wish.ppv, wish)
    ruled_out = _reaches(rule_out, wish.npv, risk) or _refuse(rule_out, wish.npv, wish)
    pairs = [pair for one in reported for other in ruled_out if (pair := _pair(one, other)) is not None]
    if not pairs:
        raise DataError("negatives look surer than positives to this network: no threshold keeps both promises")
    report_at, rule_out_below = min(pairs, key=lambda pair: abs(pair[0] - 0.5) + abs(pair[1] - 0.5))
    return Kept(
        report_at=report_at,
        rule_out_below=rule_out_below,
        positives=len(report.right),
        negatives=len(report.wrong),
    )


def _pair(reported: _Reach, ruled_out: _Reach) -> tuple[float, float] | None:
    """Both thresholds, each as near to one half as the other allows; None where they would cross."""
    strictest = float(np.nextafter(-ruled_out.start, 1.0))  # tested was "at most", the verdict asks for "below"
    report_at, rule_out_below = reported.nearest(0.5), max(-ruled_out.nearest(-0.5), strictest)
    if rule_out_below <= report_at:
        return report_at, rule_out_below
    lowest, highest = max(reported.last, strictest), min(reported.start, -ruled_out.last)
    both = min(max(0.5, lowest), highest)
    return (both, both) if lowest <= highest else None


def _sides(patients: Patients, prevalence: float, label: str) -> tuple[_Side, _Side]:
    spoken_for = _by_lot(patients)
    positive, negative = patients.positive & spoken_for, ~patients.positive & spoken_for
    odds = prevalence / (1.0 - prevalence)

    def witnesses(score: Floats, own: Bools, other: Bools) -> tuple[Floats, Floats]:
        score = np.where(patients.answerable, score, -np.inf)
        return _worst(score[own], patients.groups[own], np.minimum), _worst(
            score[other], patients.groups[other], np.maximum
        )

    right, wrong = witnesses(patients.probability, positive, negative)
    report = _Side(verdict=label, value="PPV", right=right, wrong=wrong, odds=odds)
    right, wrong = witnesses(-patients.probability, negative, positive)
    return report, _Side(verdict="NORMAL", value="NPV", right=right, wrong=wrong, odds=1.0 / odds)


def _worst(score: Floats, groups: NDArray[np.str_], fold: np.ufunc) -> Floats:
    names, codes = np.unique(groups, return_inverse=True)
    folded = np.full(len(names), np.inf if fold is np.minimum else -np.inf)
    fold.at(folded, codes, score)
    return folded


def _by_lot(patients: Patients) -> Bools:
    """Which images speak: all but, of a patient with both classes, those of the class that loses the lot."""
    both = set(patients.groups[patients.positive].tolist()) & set(patients.groups[~patients.positive].tolist())
    drawn = {name: hashlib.sha256(name.encode()).digest()[0] % 2 == 0 for name in both}
    return np.array(
        [
            drawn.get(name, positive) == positive
            for name, positive in zip(patients.groups.tolist(), patients.positive.tolist(), strict=True)
        ],
        dtype=np.bool_,
    )


def _limits(side: _Side, value: float, risk: float) -> tuple[Floats, Floats, Floats]:
    """Candidate thresholds from the strictest down, the share of its class each answers, and its highest wrong rate."""
    both = np.concatenate([side.right, side.wrong])
    candidates = np.unique(both[np.isfinite(both)])[::-1]
    answered = _reaching(side.right, candidates) / len(side.right)
    right_rate = answered - _band(len(side.right), risk)
    return candidates, answered, np.clip(_factor(side, value) * right_rate, 0.0, 1.0)


def _reaching(scores: Floats, candidates: Floats) -> NDArray[np.int64]:
    return np.asarray(len(scores) - np.searchsorted(np.sort(scores), candidates, side="left"))


def _factor(side: _Side, value: float) -> float:
    """Wrong rate for each right rate, at most, for the predictive value to be kept."""
    return side.odds * (1.0 - value) / value


def _band(right: int, risk: float) -> float:
    """By how much the right rate may be overestimated anywhere, but with probability RIGHT_SHARE * risk."""
    return math.sqrt(math.log(1.0 / (RIGHT_SHARE * risk)) / (2.0 * right))


def _level(risk: float) -> float:
    """Error probability that each start brings."""
    return (1.0 - RIGHT_SHARE) * risk / len(STARTS)


def _reaches(side: _Side, value: float, risk: float) -> list[_Reach]:
    """Test from the strictest candidate down; where the test is passed, in one piece after the other."""
    candidates, answered, limits = _limits(side, value, risk)
    errors = binom.cdf(_reaching(side.wrong, candidates), len(side.wrong), limits)
    brought = np.zeros(len(candidates) + 1)
    np.add.at(brought, np.searchsorted(answered, np.multiply(STARTS, max(answered, default=0.0))), _level(risk))
    found: list[_Reach] = []
    level, start = 0.0, None
    for place, score in enumerate(candidates.tolist()):
        level += brought[place]
        if errors[place] > level or level == 0.0:
            if start is not None:
                found.append(_Reach(start=start, last=float(candidates[place - 1]), failed=score))
            level, start = 0.0, None
        elif start is None:
            start = score
    if start is not None:
        found.append(_Reach(start=start, last=float(candidates[-1]), failed=-np.inf))
    return found


def _refuse(side: _Side, value: float, wish: Wish) -> NoReturn:
    """Say why the wish cannot be kept, and what these patients can promise instead."""
    risk = (1.0 - wish.confidence) / 2.0
    right, wrong = ("positive", "negative") if side.value == "PPV" else ("negative", "positive")
    _, answered, limits = _limits(side, value, risk)
    last = np.searchsorted(answered, STARTS[-1] * max(answered, default=0.0))
    if not len(limits) or binom.cdf(0, len(side.wrong), limits[last]) > _level(risk):
        needed = _needed(_factor(side, value), risk)
        why = f"at least {needed} patients of each class are needed, even without a wrong answer"
    else:
        why = f"too many {wrong} patients are as sure of {side.verdict} as the {right} ones are"
    best = _best(side, risk)
    instead = f"{side.value} {best:g} is the most that these can promise" if best else "these can promise nothing"
    raise DataError(
        f"{side.value} {value:g} at prevalence {wish.prevalence:g} cannot be promised with confidence "
        f"{wish.confidence:g} on {len(side.right)} {right} and {len(side.wrong)} {wrong} patients: {why}; {instead}"
    )


def _needed(factor: float, risk: float) -> int:
    """Smallest number of patients of each class with which a faultless classifier keeps a promise."""

    def enough(count: int) -> bool:
        answered = math.ceil(STARTS[-1] * count) / count
        limit = min(1.0, factor * (answered - _band(count, risk)))
        return limit > 0.0 and float(binom.cdf(0, count, limit)) <= _level(risk)

    return bisect.bisect_left(range(1, MOST_PATIENTS), True, key=enough) + 1


def _best(side: _Side, risk: float) -> float | None:
    """Highest predictive value, in steps of 0.01, that can be promised; None below 0.5."""
    steps = [step / 100.0 for step in range(50, 100)]
    kept = bisect.bisect_left(steps, True, key=lambda value: not _reaches(side, value, risk))
    return steps[kept - 1] if kept else None
