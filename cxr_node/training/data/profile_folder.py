"""A profile folder as training sees it: metrics.json, the recipe in it, and which images are held out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_node.errors import ConfigError, DataError, ForeignProfileError, ModelError
from cxr_node.training.data import images, recipe
from cxr_node.training.data.images import Item
from cxr_node.training.data.recipe import Recipe

METRICS = "metrics.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Where a data set has its labels and how it words them; manifest.csv and the recipe's words by default.

    `positive`, `negative` : its words for either; where it names both, rows with another word are left out
    `by` : further columns whose values an evaluation is split by
    `boxes` : column of radiologists' boxes, as `images.Asked`
    """

    manifest: Path | None = None
    column: str = "label"
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    boxes: str | None = None

    @property
    def are_those_of_the_recipe(self) -> bool:
        """Whether column and words are the recipe's, wherever the manifest is."""
        return (self.column, self.positive, self.negative) == ("label", (), ())

    def words(self, recipe: Recipe) -> dict[str, bool]:
        """Word in the label column -> whether it counts as positive."""
        if self.are_those_of_the_recipe:
            return recipe.words
        positive, negative = self.positive or (recipe.data.positive,), self.negative or (recipe.data.negative,)
        return dict.fromkeys(negative, False) | dict.fromkeys(positive, True)


RECIPE_LABELS = Labels()


def recipe_of(folder: Path) -> Recipe:
    """Read the recipe that a profile was trained with.

    Raises ForeignProfileError: it is of another version of this program; ModelError: metrics.json is missing or holds
    none.
    """
    content = section(folder, "recipe")
    if not content:
        raise ModelError(f"{folder / METRICS} holds no recipe: the folder was not written by cxr-node train")
    try:
        return recipe.parse(content, "recipe")
    except ConfigError as error:  # no operator wrote this file
        raise ForeignProfileError(
            f"{folder / METRICS} holds a recipe of another version: {'; '.join(error.mistakes)}"
        ) from error


def section(folder: Path, name: str) -> dict[str, Any]:
    """Read one section of metrics.json; empty where there is none. Raises ModelError: the file cannot be read."""
    try:
        content = json.loads((folder / METRICS).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / METRICS} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{folder / METRICS} was not written by cxr-node train: it holds no sections")
    found: dict[str, Any] = content.get(name, {})
    return found


def make(folder: Path) -> None:
    """Make a profile folder where there is none yet. Raises DataError: the folder cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror}") from error


def update_metrics(folder: Path, sections: dict[str, Any]) -> None:
    """Replace sections of metrics.json, keeping the others. Raises DataError: the folder cannot be written to."""
    path = folder / METRICS
    content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    try:
        path.write_text(json.dumps(content | sections, indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error


def deal(items: Sequence[Item], recipe: Recipe) -> dict[str, list[Item]]:
    """Deal images to training, validation and calibration as the recipe says."""
    shares = recipe.data
    return images.split(items, validation=shares.validation, calibration=shares.calibration, seed=recipe.seed)


def listed(folder: Path, data_folder: Path, labels: Labels = RECIPE_LABELS) -> list[Item]:
    """List all images of `data_folder`, labelled for a profile. Raises DataError: as `images.read`."""
    recipe = recipe_of(folder)
    column = recipe.data.column if labels.are_those_of_the_recipe else labels.column
    asked = images.Asked(
        tags=tuple(dict.fromkeys([*images.TAG_COLUMNS, *labels.by])),
        boxes=labels.boxes,
        strict=not (labels.positive and labels.negative),
    )
    return images.read(data_folder, labels.words(recipe), label_column=column, manifest=labels.manifest, asked=asked)


def is_own(folder: Path, items: Sequence[Item]) -> bool:
    """Whether a profile was trained on these very images."""
    return images.fingerprint(items) == section(folder, "training").get("fingerprint")


def of_patients(folder: Path, trained_on: Path, items: Sequence[Item], part: str) -> list[Item]:
    """Keep images of the patients of one part of what a profile was trained on: other copies of the same films.

    Raises DataError: the profile was not trained on `trained_on`, or nobody of that part is among the images.
    """
    known = listed(folder, trained_on)
    if not is_own(folder, known):
        raise DataError(f"{trained_on} is not what the profile was trained on")
    groups = {item.group for item in deal(known, recipe_of(folder))[part]}
    kept = [item for item in items if item.group in groups]
    if not kept:
        raise DataError(f"no image is of a patient of the {part} part of {trained_on}")
    return kept


def held_out(
    folder: Path, data_folder: Path, part: str | None, *, default: str, labels: Labels = RECIPE_LABELS
) -> tuple[list[Item], str]:
    """List the images of `data_folder` that may be used on a profile, and name them.

    `part` : training, validation, calibration or all; None: `default` where the profile was trained on these very
    images, else all of them. Figures on images that training saw would flatter.
    Raises DataError: as `data.read`, or there is no such part.
    """
    recipe, items = recipe_of(folder), listed(folder, data_folder, labels)
    own = is_own(folder, items)
    chosen = part or (default if own else "all")
    if chosen == "all":
        return items, labels.manifest.name if labels.manifest else data_folder.name
    if own and labels.manifest:  # it may name patients in another way, and its parts would not be those of training
        raise DataError(f"{labels.manifest} lists the images that the profile was trained on; leave it out")
    if chosen not in images.PARTS:
        raise DataError(f"there is no part {chosen!r}; parts are {', '.join(images.PARTS)}, all")
    if not own:
        raise DataError(f"{data_folder} is not what the profile was trained on, so it has no part '{chosen}'")
    return deal(items, recipe)[chosen], f"{data_folder.name}, {chosen} part"
