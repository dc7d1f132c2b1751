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
    """Where a data set has its labels and how it words them; manifest.csv and the recipe's words by default."""

    manifest: Path | None = None
    column: str = "label"
    positive: str | None = None
    negative: str | None = None

    @property
    def are_those_of_the_recipe(self) -> bool:
        """Whether column and words are the recipe's, wherever the manifest is."""
        return (self.column, self.positive, self.negative) == ("label", None, None)


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


def held_out(
    folder: Path, data_folder: Path, part: str | None, *, default: str, labels: Labels = RECIPE_LABELS
) -> tuple[list[Item], str]:
    """List the images of `data_folder` that may be used on a profile, and name them.

    `part` : training, validation, calibration or all; None: `default` where the profile was trained on these very
    images, else all of them. Figures on images that training saw would flatter.
    Raises DataError: as `data.read`, or there is no such part.
    """
    recipe = recipe_of(folder)
    if labels.are_those_of_the_recipe:
        items = images.read(data_folder, recipe.words, label_column=recipe.data.column, manifest=labels.manifest)
    else:
        words = {labels.positive or recipe.data.positive: True, labels.negative or recipe.data.negative: False}
        items = images.read(data_folder, words, label_column=labels.column, manifest=labels.manifest)
    own = images.fingerprint(items) == section(folder, "training").get("fingerprint")
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
