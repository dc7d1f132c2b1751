"""From a trained network to a profile folder: statistics, weights, calibration, figures, card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from cxr_node.model import ood_distance, profile, weights
from cxr_node.model.networks import Network
from cxr_node.model.profile import FORMAT, ProfileFile
from cxr_node.model.torch_runtime import export
from cxr_node.training.calibrate import calibrate
from cxr_node.training.data import images
from cxr_node.training.data.images import Item
from cxr_node.training.data.profile_folder import RECIPE_LABELS, update_metrics
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.measure import evaluate, inference, model_card
from cxr_node.training.measure.evaluate import Change

PREDICTED = ("auc", "balanced_accuracy_at_0.5", "answered", "accuracy_of_answered", "calibration_error", "brier")
"""Figures that are stated before anybody can measure them."""

MEASURED = (Change.NONE, Change.CORRUPTED, Change.EXCHANGED)
"""How the validation part is shown; the last one is what is predicted."""

Parts = Mapping[str, Sequence[Item]]


def release(profile_folder: Path, recipe: Recipe, network: Network, dealt: tuple[Parts, str], bar: Progress) -> None:
    """Write a profile folder that `model.profile.load` accepts.

    `network` : with its final weights
    `dealt` : items of the three parts, and the data's name
    """
    parts, source = dealt
    weights.save(profile_folder / "weights.safetensors", network, _statistics(recipe, network, parts, bar))
    curves = [json.loads(line) for line in (profile_folder / "curves.jsonl").read_text("utf-8").splitlines()]
    training = {
        "data": source,
        "fingerprint": images.fingerprint([item for items in parts.values() for item in items]),
        "epochs": max(line["epoch"] for line in curves),  # fewer than planned where training stopped by itself
        "images_per_epoch": recipe.schedule.images_per_epoch,
        "parts": {name: _counted(items) for name, items in parts.items()},
        "curves": curves,
    }
    update_metrics(profile_folder, {"recipe": recipe.model_dump(mode="json"), "training": training, "evaluations": {}})
    described = described_by(recipe)
    calibrate.calibrate(profile_folder, recipe, described, (parts["calibration"], f"{source}, calibration part"), bar)
    loaded, measured = profile.load(profile_folder), {}
    task = bar.add_task("evaluate", total=len(MEASURED) * len(parts["validation"]))
    for change in MEASURED:
        name = evaluate.named(f"{source}, validation part", recipe, RECIPE_LABELS, change)
        measured[name] = evaluate.evaluate(loaded, recipe, parts["validation"], change, lambda: bar.advance(task))
    update_metrics(profile_folder, {"evaluations": measured, "predicted": _predicted(measured[name]["rates"])})
    model_card.write(profile_folder)
    export(loaded)


def _predicted(rates: Mapping[str, Any]) -> dict[str, Any]:
    """Say beforehand what children of the same kind, photographed elsewhere, will show.

    The clean validation part flatters: it shares wards and devices with the training images. The last change takes
    that help away and turns it into its opposite; the truth should lie near it, on the better side.
    """
    how = "validation part, in the surroundings and style of the other class"
    return {name: rates[name] | {"how": how} for name in PREDICTED if name in rates}


def described_by(recipe: Recipe) -> ProfileFile:
    """What profile.yaml says, hashes aside."""
    said = recipe.profile.model_dump(include={"name", "version", "population", "licence", "citation"})
    network, labels = recipe.profile_spec, recipe.labels
    return ProfileFile(format=FORMAT, labels=labels, network=network, input=recipe.served_input, sha256={}, **said)


def _statistics(recipe: Recipe, network: Network, parts: Parts, bar: Progress) -> dict[str, NDArray[np.float32]]:
    """Describe the training images; 1.0 is the edge of the calibration part, which training never saw."""
    seen, held_out = parts["training"], parts["calibration"]
    task = bar.add_task("signatures", total=2 * (len(seen) + len(held_out)))

    def signatures_of(items: Sequence[Item]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        inputs = inference.prepared(items, recipe.served_input, lambda: bar.advance(task))
        return inference.signatures(network, inputs, lambda: bar.advance(task))

    stats = ood_distance.fit(signatures_of(seen)[0], np.array([int(item.positive) for item in seen]))
    return ood_distance.normalised(stats, *signatures_of(held_out))


def _counted(items: Sequence[Item]) -> dict[str, int]:
    return {
        "images": len(items),
        "positives": sum(item.positive for item in items),
        "patients": len({item.group for item in items}),
    }
