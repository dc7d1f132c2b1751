"""Drift that is known: simulated sites, and real films that become others, against the site's own first ones.

`python -m benchmarks.drift` prints the table of docs/trust.md. The simulated part needs nothing; the films come from
`../shared/data` (CXR_NODE_SHARED), where that is.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxr_node import resources
from cxr_node.assurance import drift, predictive
from cxr_node.domain import Radiograph, Verdict, View
from cxr_node.model import pooled, predictor, profile
from cxr_node.model.decision import decide
from cxr_node.node.ledger import films as ledger_films
from cxr_node.node.ledger.films import Film, Reference

Pixels = NDArray[np.float32]
SHARED = Path(os.environ.get("CXR_NODE_SHARED", Path(__file__).parent.parent.parent / "shared"))
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SENDER = "ROOM_1"
_LOOKED_AT = 1000
"""Films of a cumulative sum in a simulated year: it has been at zero since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Whose films are drawn: shares, and numbers of 64 dimensions that hang together."""

    rejected: float = 0.06
    abstained: float = 0.08
    positive: float = 0.30
    films_a_day: int = 100


def drawn(site: Site, number: int, rng: np.random.Generator, first: int = 1) -> list[Film]:
    """Films of a site where nothing changes."""
    logits, distances = rng.normal(0.0, 2.0, number), rng.gamma(9.0, 0.07, number)
    mix = np.random.default_rng(7).standard_normal((pooled.NUMBERS, pooled.NUMBERS))
    rows = (rng.standard_normal((number, pooled.NUMBERS)) @ mix).astype("<f2")
    chances = rng.random((2, number))
    made = []
    for place in range(number):
        rejected, abstained = chances[0, place] < site.rejected, chances[1, place] < site.abstained
        positive = chances[1, place] > 1.0 - site.positive
        verdict = Verdict.INDETERMINATE if abstained else Verdict.POSITIVE if positive else Verdict.NEGATIVE
        made.append(
            Film(
                instance_id=first + place,
                received_at=BEGIN + timedelta(days=place / site.films_a_day),
                sender=SENDER,
                verdict=Verdict.REJECTED if rejected else verdict,
                probability=None if rejected else {Verdict.POSITIVE: 0.9, Verdict.NEGATIVE: 0.05}.get(verdict, 0.5),
                logit=None if rejected else float(logits[place]),
                distance=None if rejected else float(distances[place]),
                features=None if rejected else rows[place].tobytes(),
            )
        )
    return made


def referred(films: Sequence[Film], number: int = ledger_films.REFERENCE_FILMS) -> Reference:
    """A reference of films, without a ledger."""
    measured = [place for place, film in enumerate(films) if film.is_measured][:number]
    chosen = films[: measured[-1] + 1]
    judged = [film for film in chosen if film.is_measured]
    return Reference(
        name=f"first-{number}",
        weights_sha256="0" * 64,
        fixed_at=BEGIN,
        last_instance_id=chosen[-1].instance_id,
        counts={sender: ledger_films.count(chosen, sender) for sender in {film.sender for film in chosen}},
        senders=tuple(film.sender for film in judged),
        logits=tuple(film.logit or 0.0 for film in judged),
        distances=tuple(float("nan") if film.distance is None else film.distance for film in judged),
        probabilities=tuple(float("nan") if film.probability is None else film.probability for film in judged),
        verdicts=tuple(film.verdict for film in judged),
        features=tuple(film.features or b"" for film in judged),
    )


def false_alarms(days: int, seed: int, site: Site = Site()) -> int:
    """How often a change begins that is not there: one look a day at a site where nothing changes."""
    rng = np.random.default_rng(seed)
    before = drawn(site, round(1.2 * ledger_films.REFERENCE_FILMS / (1.0 - site.rejected)), rng)
    reference = referred(before)
    newer = drawn(site, days * site.films_a_day, rng, first=reference.last_instance_id + 1)
    comparison = drift.Comparison(reference, with_least=False)
    begun, open_before = 0, frozenset[tuple[str, str | None, str]]()
    for day in range(5, days + 1):
        end = day * site.films_a_day
        seen = comparison.of(newer[max(0, end - _LOOKED_AT) : end])
        now = frozenset((figure.name, figure.sender, figure.test) for figure in seen.begun)
        begun += len(now - open_before)
        open_before = now
    return begun


def found_within(readings: int, runs: int, seed: int, before: float = 0.90, after: float = 0.80) -> float:
    """Share of runs in which a fall of the PPV is found within so many reported positives that were read."""
    rng = np.random.default_rng(seed)
    chart, level = predictive.watch(before)
    wrong = rng.random((runs, readings)) >= after
    return sum(max(chart.levels(run, level)) >= level for run in wrong.tolist()) / runs


Change = Callable[[Pixels], Pixels]


def as_it_is(pixels: Pixels) -> Pixels:
    """Nothing changed."""
    return pixels


def inverted(pixels: Pixels) -> Pixels:
    """MONOCHROME1 shown as MONOCHROME2."""
    return np.asarray(1.0 - pixels, np.float32)


def another_style(pixels: Pixels) -> Pixels:
    """Another maker's presets: edges enhanced, and a steeper curve."""
    sharper = pixels + 1.5 * (pixels - gaussian_filter(pixels, 4.0))
    return np.asarray((1.0 / (1.0 + np.exp(-7.0 * (sharper - 0.5)))).clip(0.0, 1.0), np.float32)


class Judge:
    """The node's own network on picture files, without DICOM."""

    def __init__(self, name: str = "pneumonia-pediatric") -> None:
        self._predictor = predictor.load_predictor(profile.load(resources.profile_folder(name)), threads=1)

    def film(self, path: Path, number: int, change: Change = as_it_is) -> Film:
        """Judge one picture."""
        with Image.open(path) as picture:
            pixels = change(np.asarray(picture.convert("L"), np.float32) / 255.0)
        radiograph = Radiograph(pixels=pixels, pixel_aspect=1.0, view=View.UNKNOWN, pixel_digest="")
        seen = self._predictor.examine(radiograph)
        point, measured = self._predictor.profile.operating_point, seen.measurement
        assert measured is not None  # noqa: S101 - the predictor measures always
        return Film(
            instance_id=number,
            received_at=BEGIN + timedelta(minutes=number),
            sender=SENDER,
            verdict=decide(seen.prediction, point).verdict,
            probability=seen.prediction.probability[point.label],
            logit=measured.logit,
            distance=measured.distance,
            features=measured.features,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Films that come instead of the site's own."""

    name: str
    folders: Sequence[str] = ("kermany224",)
    change: Change = as_it_is


CASES = (
    Case(name="nothing changed"),
    Case(name="one room inverted", change=inverted),
    Case(name="new contrast style", change=another_style),
    Case(name="adults", folders=("adults",)),
    Case(name="other hospitals", folders=("others/nih_children", "others/covid_chestxray", "others/hannover")),
)


def pictures(folders: Sequence[str], seed: int = 1) -> list[Path]:
    """All of some folders of the shared data, in an order of chance."""
    there = sorted(path for folder in folders for path in (SHARED / "data" / folder).rglob("*.jp*g"))
    return [there[place] for place in np.random.default_rng(seed).permutation(len(there))]


def flagged_after(reference: Reference, newer: Sequence[Film], every: int = 25) -> tuple[int | None, drift.Drift]:
    """Films until a change is said for the first time; None: never. And what was said then, or last."""
    comparison = drift.Comparison(reference, with_least=False)
    for end in (*range(every, len(newer), every), len(newer)):
        seen = comparison.of(newer[:end])
        if seen.begun:
            return end, seen
    return None, seen


def main() -> int:
    """Print the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--reference", type=int, default=ledger_films.REFERENCE_FILMS)
    asked.add_argument("--films", type=int, default=500)
    asked.add_argument("--years", type=int, default=5)
    options = asked.parse_args()
    print("| what happened | found | of | films until then: median, most | by |\n|---|---|---|---|---|")
    share = found_within(160, 10_000, seed=1)
    chart, level = predictive.watch(0.9)
    print(f"| PPV falls from 0.90 to 0.80 | {share:.1%} | 10,000 | within 160 read positives | CUSUM |")
    print(f"| PPV stays at 0.90 | | | one alarm in {chart.run_length(level):,.0f} read positives | |")
    alarms = [false_alarms(365, seed) for seed in range(options.years)]
    print(f"| nothing, 365 days of 100 films | {alarms} false alarms | {options.years} years | | |", flush=True)
    if not (SHARED / "data").is_dir():
        print(f"no films: {SHARED}")
        return 0
    judge, own = Judge(), pictures(("kermany224",))
    reference = referred([judge.film(path, n) for n, path in enumerate(own[: options.reference])], options.reference)
    later = own[options.reference :]
    for case in CASES:
        paths = (later if case.folders == ("kermany224",) else pictures(case.folders))[: options.films]
        films = [judge.film(path, options.reference + n, case.change) for n, path in enumerate(paths)]
        print(_row(case.name, reference, films), flush=True)
    return 0


def _row(name: str, reference: Reference, films: Sequence[Film], orders: int = 5) -> str:
    after, by = [], set()
    for seed in range(orders):
        order = np.random.default_rng(seed).permutation(len(films))
        found, seen = flagged_after(reference, [films[place] for place in order])
        after += [] if found is None else [found]
        by |= {figure.name for figure in seen.begun}
    until = f"{int(np.median(after))}, {max(after)}" if after else f"not in {len(films)}"
    return f"| {name} | {len(after)} | {orders} orders of {len(films)} films | {until} | {', '.join(sorted(by))} |"


if __name__ == "__main__":
    raise SystemExit(main())
