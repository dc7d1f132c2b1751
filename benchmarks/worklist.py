"""`python -m benchmarks.worklist`: what a film waits where marked ones are read first, with and without an upper bound.

A reading room as a queue: films arrive at random, one reader takes the next one when the last is read. The means are
those of a formula (Cobham 1954: priorities without interruption), which the simulation is held against; tails, the
bound and films that should have had a mark and have none come out of the simulation. It measures nothing of the node.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

LOAD = 0.9
READ_MIN = 3.0
"""Mean time to read one film, minutes."""
MARKED = 0.25
"""Share of films that have the mark."""
BOUNDS_MIN = (inf, 120.0, 60.0)
FILMS = 500_000
SEED = 20261129
PERCENT = 99


@dataclass(frozen=True, slots=True)
class Waits:
    """Minutes from arrival to the begin of reading: float64, shape (films,), of one kind of film each."""

    marked: NDArray[np.float64]
    unmarked: NDArray[np.float64]


def mean_waits(load: float, marked: float, read_min: float) -> tuple[float, float, float]:
    """Mean waits in minutes by the formula: in order of arrival, marked first, and the others then.

    Arrivals are Poisson and reading times exponential, so the rest of the film that is being read lasts read_min.
    """
    rest = load * read_min
    return rest / (1 - load), rest / (1 - load * marked), rest / ((1 - load * marked) * (1 - load))


def simulate(load: float, marked: float, films: int, seed: int, *, reorders: bool, bound_min: float = inf) -> Waits:
    """Read `films` films, the first tenth of which does not count: the queue fills.

    `bound_min` : a film that has waited so long is the next to be read, marked or not; the oldest of several
    """
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(READ_MIN / load, films))
    readings = random.exponential(READ_MIN, films)
    has_mark = random.random(films) < marked
    rank = np.where(has_mark & reorders, 0, 1)
    begun = _begin(arrivals, readings, rank, bound_min)
    counts = np.arange(films) >= films // 10
    waits = begun - arrivals
    return Waits(marked=waits[counts & has_mark], unmarked=waits[counts & ~has_mark])


def _begin(
    arrivals: NDArray[np.float64], readings: NDArray[np.float64], rank: NDArray[np.int64], bound_min: float
) -> NDArray[np.float64]:
    """When each is begun; by rank, then by arrival, but one that is over the bound before all others."""
    came, takes, first = arrivals.tolist(), readings.tolist(), rank.tolist()
    begun = [-1.0] * len(came)
    queue: list[tuple[int, int]] = []
    oldest, arrived, now = 0, 0, 0.0
    for _ in came:
        if not queue and arrived < len(came):
            now = max(now, came[arrived])
        while arrived < len(came) and came[arrived] <= now:
            heapq.heappush(queue, (first[arrived], arrived))
            arrived += 1
        while begun[oldest] >= 0:
            oldest += 1
        if oldest < arrived and now - came[oldest] >= bound_min:
            film = oldest
        else:
            film = heapq.heappop(queue)[1]
            while begun[film] >= 0:  # it was taken for its age
                film = heapq.heappop(queue)[1]
        begun[film] = now
        now += takes[film]
        while queue and begun[queue[0][1]] >= 0:
            heapq.heappop(queue)
    return np.array(begun)


def told(name: str, waits: Waits) -> str:
    """One row: mean, 99th percentile and longest of both kinds, in whole minutes."""
    cells = [
        f"{round(float(figure))}"
        for each in (waits.marked, waits.unmarked)
        for figure in (each.mean(), np.percentile(each, PERCENT), each.max())
    ]
    return f"| {name} | {' | '.join(cells)} |"


def table() -> str:
    """Of docs/triage.md."""
    lines = [
        "| order | marked: mean | p99 | longest | without: mean | p99 | longest |",
        "|---|---|---|---|---|---|---|",
    ]
    orders = [("in order of arrival", False, inf)]
    orders += [(f"marked first{_but(bound_min)}", True, bound_min) for bound_min in BOUNDS_MIN]
    for name, reorders, bound_min in orders:
        waits = simulate(LOAD, MARKED, FILMS, SEED, reorders=reorders, bound_min=bound_min)
        lines.append(told(name, waits))
    return "\n".join(lines)


def _but(bound_min: float) -> str:
    return "" if bound_min == inf else f", but next who has waited {bound_min:.0f} min"


def main() -> None:
    """Print the table, and the formula's means."""
    print(table())
    print("By the formula:", ", ".join(f"{mean:.1f}" for mean in mean_waits(LOAD, MARKED, READ_MIN)))


if __name__ == "__main__":
    main()
