"""Each ancestor's recipe, made small, goes its whole way from images to a profile that the node could load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from cxr_node.config import loader
from cxr_node.domain import Radiograph, View
from cxr_node.model import weights
from cxr_node.model.predictor import load_predictor
from cxr_node.model.profile import load
from cxr_node.tools import classify
from cxr_node.training.data import images
from cxr_node.training.data.profile_folder import Labels
from cxr_node.training.learn import checkpoint, train
from cxr_node.training.report.evaluation import DataSet
from tests import builders
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


@pytest.fixture(scope="module", params=ANCESTORS)
def trained(request: pytest.FixtureRequest, children: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train each once; without checkpoints, which are half a gigabyte for the largest (test_options resumes)."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint, "write", lambda *given: None)
        return train.run(one_epoch_of(request.param, folder), children, folder / request.param, progress=False)


def test_a_recipe_ends_in_a_profile(trained: Path) -> None:
    folder, ancestor = trained, trained.name
    profile = load(folder)
    network, _ = weights.load(profile.weights_path, profile.network, len(profile.labels))
    assert not network.training
    three = ancestor == "efficientnet-b0"
    assert profile.labels == (("PNEUMONIA", "normal", "bacteria", "virus") if three else ("PNEUMONIA",))
    measured = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert measured["choice"]["kept"] == [2]
    assert len(measured["training"]["curves"]) == 1
    assert (folder / "pretraining.jsonl").is_file() == (ancestor in {"densenet121", "resnet50"})


@pytest.mark.parametrize("trained", ["efficientnet-b0"], indirect=True)
def test_three_classes_are_measured_and_judged_as_one_question(trained: Path, children: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "profile"))
    own = folders.measured_on(folder, DataSet(data=children, part="all"))
    assert (own["images"], own["positives"]) == (12, 8)
    words = Labels(positive=("PNEUMONIA",), negative=("NORMAL",))
    assert folders.measured_on(folder, DataSet(data=children, part="all", labels=words))["rates"] == own["rates"]
    predictor = load_predictor(load(folder), threads=1)
    image = next(item for item in images.read(children, folders.CLASSES) if item.positive)
    seen = predictor.examine(
        Radiograph(pixels=images.load(image), pixel_aspect=1.0, view=View.AP, pixel_digest="")
    ).prediction
    assert seen.classes["bacteria"] + seen.classes["virus"] == pytest.approx(seen.probability["PNEUMONIA"])
    file = tmp_path / "a.dcm"
    file.write_bytes(builders.part10(builders.radiograph()))
    (answer,) = classify.judge([file], predictor, loader.parse({"spool": {"path": "."}}), objects=True)
    assert answer.artifacts
    told = answer.as_json("three")["classes"]
    assert isinstance(told, dict)
    assert list(told) == ["normal", "bacteria", "virus"]


def test_a_sites_own_tuberculosis_is_a_class_and_never_normal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = folders.children(count=4, images=1)
    for row in rows:
        row["label"] = {"normal": "normal", "bacteria": "pneumonia", "virus": "tuberculosis"}[row["sublabel"]]
    site = folders.manifest(tmp_path / "site", rows)
    monkeypatch.setattr(checkpoint, "write", lambda *given: None)
    made = load(train.run(one_epoch_of("tuberculosis", tmp_path), site, tmp_path / "profile", progress=False))
    assert made.labels == ("PNEUMONIA", "normal", "pneumonia", "tuberculosis")
    assert dict(made.network.classes) == {"normal": False, "pneumonia": True, "tuberculosis": True}
    counted = json.loads((tmp_path / "profile" / "metrics.json").read_text("utf-8"))["training"]["parts"]["training"]
    assert counted["positives"] == 4  # two of four patients of either disease: the rest is held out
