"""Each ancestor's recipe, made small, goes its whole way from images to a profile that the node could load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cxr_node.model import profile as profiles
from cxr_node.model import weights
from cxr_node.training import train
from tests.training import folders

ANCESTORS = ("simple-cnn", "densenet121", "efficientnet-b0", "resnet50", "mobilenet-v2")


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.manifest(tmp_path_factory.mktemp("children"), folders.children(count=4, images=1))


def one_epoch_of(ancestor: str, folder: Path) -> Path:
    """Its own recipe with fewer and smaller images; whatever its authors chose stays."""
    content = yaml.safe_load((folders.RECIPE.parent / f"{ancestor}.yaml").read_text("utf-8"))
    content |= {"threads": 1, "initial_weights": None}
    content["input"] |= {"size_px": 32}
    content["data"] |= {"source_px": 40, "validation": 0.25, "calibration": 0.25}
    content["schedule"] |= {"epochs": 1, "images_per_epoch": 6, "batch": 6, "average_epochs": 1, "small_px": 32}
    content["operating"] |= {"corrupted_copies": 1}
    if content["pretraining"]:
        content["pretraining"] |= {"epochs": 1, "images_per_epoch": 6}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return path


@pytest.mark.parametrize("ancestor", ANCESTORS)
def test_a_recipe_ends_in_a_profile(ancestor: str, children: Path, tmp_path: Path) -> None:
    folder = train.run(one_epoch_of(ancestor, tmp_path), children, tmp_path / ancestor, progress=False)
    profile = profiles.load(folder)
    network, _ = weights.load(profile.weights_path, profile.network, len(profile.labels))
    assert not network.training
    three = ancestor == "efficientnet-b0"
    assert profile.labels == (("PNEUMONIA", "normal", "bacteria", "virus") if three else ("PNEUMONIA",))
    measured = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert measured["choice"]["kept"] == [2]
    assert len(measured["training"]["curves"]) == 1
    assert (folder / "pretraining.jsonl").is_file() == (ancestor in {"densenet121", "efficientnet-b0", "resnet50"})
