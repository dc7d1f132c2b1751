"""Who learns together: the profile's own training part, and those of other populations, as one pool to draw from.

Every population is dealt by the recipe's shares and seed, so that two profiles of one training, each with the other as
its companion, hold out the same patients. What is held out of another population is not used.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr_node.errors import DataError
from cxr_node.model.profile import Geometry
from cxr_node.training.data import images
from cxr_node.training.data.images import Asked, Item
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.data.recipe_sections import PopulationSection, ShapesSection

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """One population's training part.

    `items`, `folder` : its images, named from there
    `spared` : words whose images get no opacity drawn and teach no other head
    `strata` : column whose values are drawn alike
    `share` : of the images shown; the own population's is what the others leave
    `teachers` : profile folders
    """

    items: Sequence[Item]
    folder: Path
    spared: tuple[str, ...]
    strata: str | None
    shapes: ShapesSection | None
    share: float
    teachers: tuple[str, ...]


def tags(column: str | None) -> tuple[str, ...]:
    """Which columns of a manifest are needed to draw by `column`."""
    return tuple(dict.fromkeys([*images.TAG_COLUMNS, *([column] if column else [])]))


def own(recipe: Recipe, folder: Path, training: Sequence[Item]) -> Population:
    """The profile's own population."""
    others = sum(one.share for one in recipe.together.populations) if recipe.together else 0.0
    teachers = recipe.distillation.teachers if recipe.distillation else ()
    data = recipe.data
    return Population(
        items=training,
        folder=folder,
        spared=data.spared,
        strata=data.strata,
        shapes=data.shapes,
        share=1.0 - others,
        teachers=teachers,
    )


def companions(recipe: Recipe, beside: Path) -> list[Population]:
    """The training parts of the other populations. Raises DataError: one cannot be read or dealt."""
    return [
        _companion(recipe, one, beside / one.folder) for one in (recipe.together.populations if recipe.together else ())
    ]


def _companion(recipe: Recipe, one: PopulationSection, folder: Path) -> Population:
    words = dict.fromkeys(one.negative, False) | dict.fromkeys(one.positive, True)
    items = images.read(folder, words, label_column=one.column, asked=Asked(tags=tags(one.strata), strict=False))
    shares = recipe.data
    dealt = images.split(items, validation=shares.validation, calibration=shares.calibration, seed=recipe.seed)
    return Population(
        items=dealt["training"],
        folder=folder,
        spared=one.spared,
        strata=one.strata,
        shapes=one.shapes,
        share=one.share,
        teachers=one.teachers,
    )


def fingerprint(items: Sequence[Item], others: Sequence[Population]) -> str:
    """Name what is learned from: as `images.fingerprint` where there are no other populations."""
    named = [images.fingerprint(items), *(images.fingerprint(one.items) for one in others)]
    return named[0] if not others else sha256("".join(named).encode()).hexdigest()


def aspects(population: Population, recipe: Recipe, beside: Path) -> images.Doubles:
    """Width over height of each film, where a letterbox needs it; else not numbers."""
    if recipe.input.geometry is Geometry.SQUASHED:
        return np.full(len(population.items), np.nan)
    if (named := population.shapes) is None:
        return images.aspects(population.items)
    known = images.shapes_listed(beside / named.manifest, named.file, named.columns, named.rows)
    return images.aspects(population.items, known, population.folder)


def in_shape(parts: dict[str, list[Item]], recipe: Recipe, beside: Path, folder: Path) -> dict[str, list[Item]]:
    """Tell the width over height of squashed films, where the network that is served keeps shapes.

    For a film whose shape is lost it is drawn, by its content alone: the same whoever draws.
    """
    if not recipe.served_input.keeps_shape or recipe.data.shapes is None:
        return parts
    return {
        part: [replace(item, aspect=_shape_of(item, one)) for item, one in _listed(items, recipe, beside, folder)]
        for part, items in parts.items()
    }


def of_known_shape(items: Sequence[Item], recipe: Recipe, beside: Path, folder: Path) -> list[Item]:
    """Those of some squashed films, in their shape, whose width and height are listed; none where nothing lists any."""
    listed = _listed(items, recipe, beside, folder)
    return [replace(item, aspect=one) for item, one in listed if not math.isnan(one)]


def _listed(items: Sequence[Item], recipe: Recipe, beside: Path, folder: Path) -> list[tuple[Item, float]]:
    """Each film with its width over height, not a number where nothing lists it."""
    if (named := recipe.data.shapes) is None:
        return [(item, math.nan) for item in items]
    known = images.shapes_listed(beside / named.manifest, named.file, named.columns, named.rows)
    return list(zip(items, images.aspects(items, known, folder).tolist(), strict=True))


def _shape_of(item: Item, known: float) -> float:
    if not math.isnan(known):
        return known
    return float(images.drawn_aspects(1, np.random.default_rng(int(item.digest[:16], 16)))[0])


def strata(populations: Sequence[Population]) -> list[tuple[Places, float]]:
    """Places in the pool of all images, and the share of images shown, of each stratum.

    A population's share is divided evenly between its words, and a word's between the values of its column.

    Raises DataError: a stratum's column is told of no image.
    """
    found, start = [], 0
    for one in populations:
        values = [item.tags.get(one.strata, "") if one.strata else "" for item in one.items]
        if one.strata and not any(values):
            raise DataError(f"{one.folder}: no image tells its {one.strata!r}")
        words = sorted({item.word for item in one.items})
        kinds = sorted({(item.word, value) for item, value in zip(one.items, values, strict=True)})
        for word, value in kinds:
            places = [p for p, item in enumerate(one.items) if (item.word, values[p]) == (word, value)]
            within = one.share / len(words) / sum(kind[0] == word for kind in kinds)
            found.append((start + np.array(places), within))
        start += len(one.items)
    return found


def counts(shares: Sequence[float], films: int) -> list[int]:
    """How many of `films` each share gets; they sum to it."""
    ends = [round(end * films / sum(shares)) for end in itertools.accumulate(shares)]
    return [end - begun for begun, end in itertools.pairwise([0, *ends])]
