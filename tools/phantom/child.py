"""Who is drawn: sizes, breath and what is wrong with the lungs. Knows no picture."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Opacity:
    """Consolidated lung: a ragged ellipse in which fluid takes the place of air.

    Attributes
    ----------
    x, y : centre, cm from the spine (to the right of the picture) and from the upper edge
    width, height : half axes, cm
    fill : share of the air that is replaced, in [0, 1]
    patchy : 0 for an even veil, 1 for islands
    """

    x: float
    y: float
    width: float
    height: float
    fill: float
    patchy: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One drawn child. The seed fixes whatever is not named here.

    Attributes
    ----------
    chest, heart : size, 1 is usual
    breath_cm : how much lower the diaphragm stands
    haze : share of the air that is replaced all over the lungs, in [0, 1]
    vessels : how strongly the lung vessels show, 1 is usual
    turn_deg : how far the child lies turned on the detector
    opacities : consolidations
    """

    seed: int
    chest: float = 1.0
    heart: float = 1.0
    breath_cm: float = 0.0
    haze: float = 0.0
    vessels: float = 1.0
    turn_deg: float = 0.0
    opacities: tuple[Opacity, ...] = ()

    def chance(self, part: str) -> np.random.Generator:
        """Random numbers of one part of the body; the ribs stay where they are when an opacity is added."""
        return np.random.default_rng([self.seed, zlib.crc32(part.encode())])


CHILDREN: Mapping[str, Child] = {
    "clear-1": Child(seed=1, turn_deg=0.8),
    "clear-2": Child(seed=5, chest=0.97, heart=0.97, breath_cm=0.2, turn_deg=-1.2),
    "clear-3": Child(seed=9, chest=1.04, turn_deg=0.3),
    "opacity-1": Child(  # both lower lobes
        seed=2,
        haze=0.25,
        vessels=1.4,
        turn_deg=-0.6,
        opacities=(
            Opacity(x=-3.8, y=11.2, width=3.0, height=2.4, fill=0.8),
            Opacity(x=3.8, y=11.0, width=2.4, height=2.6, fill=0.7),
        ),
    ),
    "opacity-2": Child(  # patches in both lungs, shallow breath
        seed=14,
        chest=0.97,
        heart=1.05,
        breath_cm=-0.4,
        haze=0.25,
        vessels=1.6,
        turn_deg=1.5,
        opacities=(
            Opacity(x=3.6, y=11.2, width=2.4, height=2.6, fill=0.75, patchy=0.8),
            Opacity(x=-3.2, y=8.2, width=2.0, height=2.2, fill=0.55, patchy=0.9),
            Opacity(x=-3.4, y=11.6, width=1.8, height=1.6, fill=0.5, patchy=0.9),
        ),
    ),
    "opacity-3": Child(  # the child of clear-1, fallen slightly ill: faint, in both lungs
        seed=1,
        haze=0.1,
        vessels=1.1,
        turn_deg=0.8,
        opacities=(
            Opacity(x=-3.6, y=10.2, width=2.6, height=2.6, fill=0.4),
            Opacity(x=3.8, y=11.4, width=2.3, height=2.2, fill=0.39),
        ),
    ),
}
"""The demo's six: three with clear lungs, three with opacities as pneumonia makes them."""
