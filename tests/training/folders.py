"""Small drawn data sets and a small recipe: what the tests of the training room are made of."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from cxr_node.model.network import Network
from cxr_node.training.data.recipe import Recipe, read
from cxr_node.training.report import evaluation
from cxr_node.training.report.evaluation import DataSet, Extras
from tests.model import folders

RECIPE = Path(__file__).parents[2] / "config" / "train" / "mobilenet-v2.yaml"
CLASSES = {"PNEUMONIA": True, "NORMAL": False}


def small_recipe(folder: Path, **schedule: Any) -> Path:
    """Write a shipped recipe, made small and plain: two epochs of 16 images of 32 pixels, from random weights."""
    content = yaml.safe_load(RECIPE.read_text("utf-8"))
    content["threads"] = 1
    content["initial_weights"] = None
    content["network"] = {"architecture": "mobilenet-v2", "options": {"dropout": 0.3}}
    content["input"] = {"size_px": 32, "border": 0.04}
    content["data"] |= {"source_px": 40, "validation": 0.2, "calibration": 0.2}
    content["schedule"] |= {"epochs": 2, "images_per_epoch": 16, "batch": 8, "average_epochs": 2, "bfloat16": False}
    content["schedule"] |= {"frozen_epochs": 0, "label_smoothing": 0.1}
    content["schedule"] |= schedule
    content["operating"] |= {"corrupted_copies": 1}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def recipe(folder: Path, **schedule: Any) -> Recipe:
    """Read what `small_recipe` writes."""
    return read(small_recipe(folder, **schedule))


def measured_on(profile_folder: Path, asked: DataSet) -> dict[str, Any]:
    """Evaluate without re-encodings, outsiders and heat maps."""
    return evaluation.run(profile_folder, [asked], Extras(sample=0), progress=False)


def draw(path: Path, *, opacity: bool, seed: int, size_px: int = 40) -> None:
    """Draw two dark lungs with noise, one of them whitened where `opacity`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size_px, :size_px] / size_px
    image = 0.8 - sum(0.6 * np.exp(-(((y - 0.5) / 0.3) ** 2) - ((x - c) / 0.15) ** 2) for c in (0.3, 0.7))
    if opacity:
        image += 0.5 * np.exp(-(((y - 0.6) / 0.15) ** 2) - ((x - 0.3) / 0.12) ** 2)
    image += rng.normal(0.0, 0.03, image.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(image.clip(0.0, 1.0) * 255.0).astype(np.uint8)).save(path)


def tree(folder: Path, each: int = 10) -> Path:
    """Write one folder per class."""
    for label, opacity in CLASSES.items():
        for place in range(each):
            draw(folder / label / f"{place}.png", opacity=opacity, seed=100 * opacity + place)
    return folder


def manifest(folder: Path, rows: Iterable[dict[str, str]]) -> Path:
    """Write the images that the rows name, each another one, and their manifest.csv."""
    rows = list(rows)
    for seed, row in enumerate(rows):
        draw(folder / row["file"], opacity=row.get("label") == "PNEUMONIA", seed=seed)
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def children(count: int = 12, images: int = 3) -> list[dict[str, str]]:
    """Rows of `count` children a class with `images` each; numbers run anew in each sub-class, as in real data."""
    labels = {"normal": "NORMAL", "bacteria": "PNEUMONIA", "virus": "PNEUMONIA"}
    return [
        {
            "file": f"{label}/child{child}_{sublabel}_{image}.png",
            "label": label,
            "sublabel": sublabel,
            "patient": f"child{child}",
            "exact_duplicate_group": "",
        }
        for sublabel, label in labels.items()
        for child in range(count)
        for image in range(images)
    ]


def profile(folder: Path) -> Path:
    """Write a profile of random weights as `train` leaves one, in a hundredth of the time."""
    written = folders.write(folder / "profile")
    parts = {part: {"images": 0, "positives": 0, "patients": 0} for part in ("training", "validation", "calibration")}
    training = {"data": "nothing", "fingerprint": "", "epochs": 0, "images_per_epoch": 0, "parts": parts}
    content = {"recipe": recipe(folder).model_dump(mode="json"), "training": training}
    (written / "metrics.json").write_text(json.dumps(content), "utf-8")
    return written


def lively(network: Network) -> Network:
    """Random weights whose answers differ from one film to the next."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(torch.randn(8, 1, 64, 64))
    return network.eval()
