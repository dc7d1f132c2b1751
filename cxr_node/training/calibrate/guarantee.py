"""Two thresholds that keep a promise on predictive values, with a confidence, for patients drawn like these.

Knows no torch, no image and no file: probabilities of labelled patients in, thresholds out. Learn then test
(Angelopoulos et al. 2021) in a fixed sequence, with exact binomial p-values. How the promise is counted:

- A patient is one witness, however many images: a wrong answer on any image counts as wrong, a right answer counts
  only where every image is answered. So the promise holds whichever of a patient's images is sent, and images of
  one child are never taken for independent ones. A patient with images of both classes speaks for one of them, by lot.
- A predictive value at a prevalence is a ratio of two rates, each measured within its own class, so the share of
  positives in the set does not matter: PPV >= v wherever wrong rate <= odds * (1 - v) / v * right rate.
- The right rate is bounded at all thresholds at once (Dvoretzky, Kiefer, Wolfowitz; constant of Massart 1990). The
  wrong rate is tested exactly, threshold after threshold from a strict one down, and the first failure ends the
  sequence; its order and its starts come from the other class alone, so only the number of starts is corrected for.
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

METHOD = "learn then test in a fixed sequence, exact binomial tests, one witness a patient"
RIGHT_SHARE = 0.1
"""Of each promise's error probability, what bounds the right rate; the rare wrong answers need the rest more."""
STARTS = (0.5, 0.9)
"""A sequence starts where this share of a class is answered, or where no wrong answer would pass the test if that is
further down. The first suits classes that overlap; the second is not ended by a few wrong labels among the surest."""
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
    """Scores from `start` down to `last` passed the test, as does all between `last` and `failed`."""

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

    Parameters
    ----------
    label : the positive verdict, for messages

    Raises
    ------
    DataError : no threshold keeps the wish on these patients; says how many would, or what these can promise
    """
    report, rule_out = _sides(patients, wish.prevalence, label)
    risk = (1.0 - wish.confidence) / 2.0
    reported = _reach(report, wish.ppv, risk) or _refuse(report, wish.ppv, wish)
    ruled_out = _reach(rule_out, wish.npv, risk) or _refuse(rule_out, wish.npv, wish)
    strictest = float(np.nextafter(-ruled_out.start, 1.0))  # tested was "at most", the verdict asks for "below"
    report_at, rule_out_below = reported.nearest(0.5), max(-ruled_out.nearest(-0.5), strictest)
    if rule_out_below > report_at:
        lowest, highest = max(reported.last, strictest), min(reported.start, -ruled_out.last)
        if lowest > highest:
            raise DataError("negatives look surer than positives to this network: no threshold keeps both promises")
        report_at = rule_out_below = min(max(0.5, lowest), highest)
    return Kept(
        report_at=report_at,
        rule_out_below=rule_out_below,
        positives=len(report.right),
        negatives=len(report.wrong),
    )


def _sides(patients: Patients, prevalence: float, label: str) -> tuple[_Side, _Side]:
    """Witnesses of the report and of the ruling out."""
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
    """Fold the images of each patient into one score."""
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
    """How many scores reach each candidate."""
    return np.asarray(len(scores) - np.searchsorted(np.sort(scores), candidates, side="left"))


def _factor(side: _Side, value: float) -> float:
    """Wrong rate for each right rate, at most, for the predictive value to be kept."""
    return side.odds * (1.0 - value) / value


def _band(right: int, risk: float) -> float:
    """By how much the right rate may be overestimated anywhere, but with probability RIGHT_SHARE * risk."""
    return math.sqrt(math.log(1.0 / (RIGHT_SHARE * risk)) / (2.0 * right))


def _level(risk: float) -> float:
    """Error probability of each sequence of tests."""
    return (1.0 - RIGHT_SHARE) * risk / len(STARTS)


def _reach(side: _Side, value: float, risk: float) -> _Reach | None:
    """Test from each start down; None where no start passes."""
    candidates, answered, limits = _limits(side, value, risk)
    with_power = binom.cdf(0, len(side.wrong), limits) <= _level(risk)
    passed = binom.cdf(_reaching(side.wrong, candidates), len(side.wrong), limits) <= _level(risk)
    reached = []
    for share in STARTS:
        possible = np.flatnonzero(with_power & (answered >= share))
        if len(possible) and passed[possible[0]]:
            start = int(possible[0])
            end = next((place for place in range(start, len(passed)) if not passed[place]), len(passed))
            failed = float(candidates[end]) if end < len(passed) else -np.inf
            reached.append(_Reach(start=float(candidates[start]), last=float(candidates[end - 1]), failed=failed))
    return min(reached, key=lambda one: (one.failed, -one.start), default=None)


def _refuse(side: _Side, value: float, wish: Wish) -> NoReturn:
    """Say why the wish cannot be kept, and what these patients can promise instead."""
    risk = (1.0 - wish.confidence) / 2.0
    right, wrong = ("positive", "negative") if side.value == "PPV" else ("negative", "positive")
    limits = _limits(side, value, risk)[-1]
    if not len(limits) or binom.cdf(0, len(side.wrong), limits[-1]) > _level(risk):
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
        limit = min(1.0, factor * (1.0 - _band(count, risk)))
        return limit > 0.0 and float(binom.cdf(0, count, limit)) <= _level(risk)

    return bisect.bisect_left(range(1, MOST_PATIENTS), True, key=enough) + 1


def _best(side: _Side, risk: float) -> float | None:
    """Highest predictive value, in steps of 0.01, that can be promised; None below 0.5."""
    steps = [step / 100.0 for step in range(50, 100)]
    kept = bisect.bisect_left(steps, True, key=lambda value: _reach(side, value, risk) is None)
    return steps[kept - 1] if kept else None
