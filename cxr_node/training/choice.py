"""Which weights a training ends with, where several seeds have learned from the same beginning.

Knows no optimizer. Weights of networks that started from the same ones lie in one basin often enough that their
mean is better than each (Wortsman et al. 2022, model soups); whether it is so here, the validation part says: the
best single one is kept, and another joins its average only where the watched figure does not fall.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cxr_node.training.course import State
from cxr_node.training.recipe import Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The weights that were kept, the seeds that are in them, and the figures that decided."""

    weights: State
    kept: tuple[int, ...]
    single: Mapping[int, float]
    figure: float

    def as_json(self, watch: Watch) -> dict[str, Any]:
        """One section of metrics.json."""
        return {
            "watched": f"{watch.value} on the validation part" + (", negative" if watch is Watch.LOG_LOSS else ""),
            "seeds": {str(seed): round(figure, 5) for seed, figure in self.single.items()},
            "kept": list(self.kept),
            "kept_is": "the average of these seeds' weights" if len(self.kept) > 1 else "one seed's weights",
            "figure": round(self.figure, 5),
        }


def choose(finals: Mapping[int, State], watched: Callable[[State], float]) -> Choice:
    """Keep the best single weights, and average into them all that do not make the watched figure fall.

    Parameters
    ----------
    finals : seed -> the weights that its course ended with
    watched : weights -> figure on the validation part, larger is better
    """
    single = {seed: watched(state) for seed, state in finals.items()}
    ranked = sorted(finals, key=lambda seed: -single[seed])
    kept = ranked[:1]
    weights, figure = finals[kept[0]], single[kept[0]]
    for seed in ranked[1:]:
        tried = mean_of([finals[one] for one in (*kept, seed)])
        if (reached := watched(tried)) >= figure:
            kept, weights, figure = [*kept, seed], tried, reached
    return Choice(weights=weights, kept=tuple(kept), single=single, figure=figure)


def mean_of(states: Sequence[State]) -> State:
    """Average weights; counters are taken from the first."""
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }
