"""Whether a site's newer films are still as its first ones were: what changed, of how many, and what could hide.

Of each sender the shares of films without an answer, refused, and positive, as cumulative sums; the logit, the distance
and the pooled features of the newest films against those of the site's own first ones. All figures together err at one
look with probability `ALPHA` (Holm). Knows no model: where a figure changes, a person looks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_node.assurance import two_sample
from cxr_node.assurance.cusum import Chart
from cxr_node.assurance.predictive import Predictive, Reading, predictive
from cxr_node.assurance.rates import interval
from cxr_node.domain import Verdict
from cxr_node.node.ledger import films as ledger_films
from cxr_node.node.ledger.films import Counts, Film, Reference
from cxr_node.node.ledger.ledger import Ledger

ALPHA = 0.001
"""Probability that some figure at one look shows a change where there is none."""
WINDOW = 500
"""Films that are compared with the reference: the newest. The level of a cumulative sum counts so many, too."""
LEAST_FILMS = 100
"""Fewer are not compared."""
OWN_FILMS = 200
"""Of the reference; a sender with fewer is compared with all senders."""
MOST_FILMS = 10_000
"""Since the reference; older ones have no part in a cumulative sum any more."""
MOST_SENDERS = 12
_BOUND = 0.9
"""A share in control is taken at this one-sided bound of what the reference says: it is known no better."""
_ABOVE = 1.25
"""A cumulative sum rises no higher above the level that counts, so that it comes back once the cause has gone."""


class Share(StrEnum):
    """A share of a sender's films."""

    ABSTENTION = "abstention"
    REJECTION = "rejection"
    POSITIVE = "positive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One comparison.

    Attributes
    ----------
    name : what is compared: a share, "logit", "distance" or "features"
    sender : None: all together
    test : how
    films, reference_films : how many, now and before
    now, before : the share, or the median; None of the features
    p : probability of what was seen, or more, without any change; `adjusted` : by Holm, over all figures
    least : the smallest change that this comparison would have found with probability 0.9: a share, or a shift in
        standard deviations of the reference; None: none at all
    begun_at : since when the films of a share speak for a change
    """

    name: str
    sender: str | None
    test: str
    films: int
    reference_films: int
    now: float | None
    before: float | None
    p: float
    adjusted: float = 1.0
    least: float | None = None
    begun_at: datetime | None = None

    @property
    def is_drift(self) -> bool:
        """Whether it counts as a change."""
        return self.adjusted < ALPHA


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One look at the films that some weights judged."""

    reference: str
    """Its name."""
    reference_films: int
    fixed_at: datetime
    films: int
    """Judged since the reference."""
    figures: tuple[Figure, ...]
    predictive: tuple[Predictive, ...]
    senders_left_out: int = 0

    @property
    def begun(self) -> tuple[Figure, ...]:
        """Figures that count as changed."""
        return tuple(figure for figure in self.figures if figure.is_drift)

    @property
    def changed(self) -> list[str]:
        """What has changed, in words."""
        named = [f"{each.name}{f' of {each.sender}' if each.sender else ''}" for each in self.begun]
        return [*dict.fromkeys(named), *(each.name for each in self.predictive if each.has_fallen)]

    @property
    def is_begun(self) -> bool:
        """Whether anything has changed, a predictive value included."""
        return bool(self.begun) or any(each.has_fallen for each in self.predictive)


def look(
    ledger: Ledger, weights_sha256: str, read: Iterable[Reading] = (), number: int = ledger_films.REFERENCE_FILMS
) -> Drift | None:
    """Compare what the ledger has, and fix the reference where there is none yet; None: not enough films for one."""
    reference = ledger_films.fix_reference(ledger, weights_sha256, number)
    if reference is None:
        return None
    newer = ledger_films.since(ledger, weights_sha256, reference.last_instance_id, MOST_FILMS)
    return compare(reference, newer, read)


def compare(reference: Reference, newer: Sequence[Film], read: Iterable[Reading] = ()) -> Drift:
    """Compare films, in the order of their receipt, with a reference."""
    return Comparison(reference).of(newer, read)


class Comparison:
    """Comparisons with one reference, of which much is computed once."""

    def __init__(self, reference: Reference, *, with_least: bool = True) -> None:
        """`with_least` : say of each figure what it could have seen, which takes longest."""
        self._reference = reference
        self._with_least = with_least
        self._kernels: dict[str | None, two_sample.Kernel] = {}
        self._numbers = {
            "logit": np.array(reference.logits),
            "distance": np.array(reference.distances),
            "features": features(reference.features),
        }

    def of(self, newer: Sequence[Film], read: Iterable[Reading] = ()) -> Drift:
        """Look at all films since the reference, or the last `MOST_FILMS`, in the order of their receipt."""
        reference = self._reference
        busiest = Counter(film.sender for film in newer).most_common()
        senders = [sender for sender, _ in busiest[:MOST_SENDERS]]
        charts = [chart for sender in senders for chart in _charts(reference, sender)]
        samples = self._samples(newer, senders)
        family = len(charts) + 3 * len(samples)  # at most: a distance is not always measured
        settled = {sender: [film for film in newer if film.sender == sender] for sender in senders}
        judged = {sender: [film for film in films if film.is_measured] for sender, films in settled.items()}
        figures = []
        for chart in charts:
            films = settled if chart.share is Share.REJECTION else judged
            figures.append(self._share(chart, films[chart.sender], ALPHA / family))
        figures += [figure for sample in samples for figure in self._distributions(sample, ALPHA / family)]
        adjusted = two_sample.holm([figure.p for figure in figures])
        return Drift(
            reference=reference.name,
            reference_films=len(reference.logits),
            fixed_at=reference.fixed_at,
            films=sum(film.is_measured for film in newer),
            figures=tuple(replace(figure, adjusted=p) for figure, p in zip(figures, adjusted, strict=True)),
            predictive=predictive(reference, newer[-WINDOW:], read),
            senders_left_out=len(busiest) - len(senders),
        )

    def _share(self, watched: _Watched, mine: Sequence[Film], alpha: float) -> Figure:
        chart = watched.chart
        events = [film.verdict is _VERDICTS[watched.share] for film in mine]
        level = chart.level(WINDOW / alpha)
        levels = chart.levels(events, round(level * _ABOVE))
        reached, last = levels[-1] if levels else 0, events[-WINDOW:]
        return Figure(
            name=watched.share,
            sender=watched.sender,
            test="CUSUM, falls" if chart.falls else "CUSUM, rises",
            films=len(last),
            reference_films=watched.reference_films,
            now=sum(last) / len(last) if last else None,
            before=watched.before,
            p=-math.expm1(-WINDOW / chart.run_length(reached)) if reached else 1.0,
            least=chart.least_rate(level, len(last)) if last and self._with_least else None,
            begun_at=mine[_begin(levels)].received_at if reached else None,
        )

    def _samples(self, newer: Sequence[Film], senders: Sequence[str]) -> list[_Sample]:
        measured = [film for film in newer if film.is_measured]
        found = []
        for sender in (None, *(senders if len(senders) > 1 else ())):
            mine = [film for film in measured if sender is None or film.sender == sender][-WINDOW:]
            if len(mine) < LEAST_FILMS:
                continue
            own = np.array([sender is None or each == sender for each in self._reference.senders])
            kept = own if own.sum() >= OWN_FILMS else np.ones(len(own), bool)
            now = {
                "logit": np.array([film.logit for film in mine], float),
                "distance": np.array([film.distance for film in mine], float),
                "features": features(film.features or b"" for film in mine),
            }
            before = {name: numbers[kept] for name, numbers in self._numbers.items()}
            found.append(_Sample(sender=sender, reference=before, newer=now))
        return found

    def _distributions(self, sample: _Sample, alpha: float) -> list[Figure]:
        figures = []
        for name in ("logit", "distance"):
            before, now = (each[name][np.isfinite(each[name])] for each in (sample.reference, sample.newer))
            if min(len(now), len(before)) < LEAST_FILMS:
                continue
            figure = Figure(
                name=name,
                sender=sample.sender,
                test="KS",
                films=len(now),
                reference_films=len(before),
                now=float(np.median(now)),
                before=float(np.median(before)),
                p=two_sample.ks(before, now).p,
                least=two_sample.least_shift(len(before), len(now), alpha) if self._with_least else None,
            )
            figures.append(figure)
        before, now = sample.reference["features"], sample.newer["features"]
        if sample.sender not in self._kernels:
            self._kernels[sample.sender] = two_sample.Kernel(before)
        kernel = self._kernels[sample.sender]
        figure = Figure(
            name="features",
            sender=sample.sender,
            test="MMD",
            films=len(now),
            reference_films=len(before),
            now=None,
            before=None,
            p=kernel.mmd(now).p,
            least=kernel.least_shift(len(now), alpha) if self._with_least else None,
        )
        return [*figures, figure]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """A side of a share of a sender."""

    sender: str
    share: Share
    chart: Chart
    before: float
    reference_films: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """Numbers of films, one row for each: of the reference, and of the newest."""

    sender: str | None
    reference: dict[str, NDArray[np.float64]]
    newer: dict[str, NDArray[np.float64]]


_VERDICTS = {
    Share.ABSTENTION: Verdict.INDETERMINATE,
    Share.REJECTION: Verdict.REJECTED,
    Share.POSITIVE: Verdict.POSITIVE,
}


def _parts(counts: Counts) -> dict[Share, tuple[int, int]]:
    return {
        Share.ABSTENTION: (counts.abstained, counts.judged),
        Share.REJECTION: (counts.rejected, counts.settled),
        Share.POSITIVE: (counts.positive, counts.judged),
    }


def _charts(reference: Reference, sender: str) -> list[_Watched]:
    own, everybody = _parts(reference.of_sender(sender)), _parts(reference.of_sender(None))
    made = []
    for share in Share:
        few, of = own[share] if own[share][1] >= OWN_FILMS else everybody[share]
        low, high = bounds(few, of)
        sides = [(high, False)] * (high < 1.0) + [(low, True)] * (low > 0.0)
        told: dict[str, Any] = {"sender": sender, "share": share, "before": few / of, "reference_films": of}
        made += [_Watched(chart=Chart.of(rate, falls=falls), **told) for rate, falls in sides]
    return made


def bounds(few: int, of: int) -> tuple[float, float]:
    """One-sided bounds of Clopper and Pearson, each of `_BOUND`."""
    return interval(few, of, 2.0 * _BOUND - 1.0)


def _begin(levels: Sequence[int]) -> int:
    """The film after the last at which the sum was zero."""
    return next((place + 1 for place in range(len(levels) - 1, -1, -1) if levels[place] == 0), 0)


def features(packed: Iterable[bytes]) -> NDArray[np.float64]:
    """Unpack what `model.pooled` made: shape (films, 64)."""
    return np.stack([np.frombuffer(each, "<f2") for each in packed]).astype(np.float64)
