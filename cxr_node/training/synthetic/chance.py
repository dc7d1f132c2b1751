"""Where the changes of a batch get their chance from: the pictures of a film are changed alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Chance(NamedTuple):
    """Generators of one picture's changes. Those of the other pictures say the same, one by one.

    A film that is dark and askew is dark and askew in each of its pictures; changed apart, one picture shows what the
    other hides, and answers made of both look steadier than they are.
    """

    edges: np.random.Generator
    """Where a film ends, and what shape it has: for a letterbox alone."""
    turn: np.random.Generator
    """The angle; apart, because a letterbox draws it after what `place` gives, and a squashed film before."""
    place: np.random.Generator
    """Scale, ratio, mirror and shift."""
    look: np.random.Generator
    """Sharpness, tone, noise and encoding."""
    grain: np.random.Generator
    """The noise itself, which has a picture's size."""


def alike(rng: np.random.Generator, pictures: int) -> list[Chance]:
    """Draw the chance of each picture; a single one draws from `rng` itself."""
    if pictures == 1:
        return [Chance(*[rng] * len(Chance._fields))]
    seeds = rng.integers(2**63, size=len(Chance._fields))
    return [Chance(*(np.random.default_rng(seed) for seed in seeds)) for _ in range(pictures)]
