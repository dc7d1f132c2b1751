"""`cxr-node calibrate`: a site's own labels, a promise kept or refused in one sentence, and nothing half done."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from cxr_node.cli.node import app
from cxr_node.domain import RuntimeKind
from cxr_node.errors import DataError, ModelError
from cxr_node.model import profile
from cxr_node.model.predictor import load_predictor
from cxr_node.model.profile import Shown
from cxr_node.training.calibrate import calibrate
from cxr_node.training.data.images import Item
from cxr_node.training.data.profile_folder import Labels, held_out, recipe_of, section
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.learn import train
from cxr_node.training.measure import inference
from cxr_node.training.measure.evaluate import Scorer
from cxr_node.training.measure.inference import Scores
from tests.training import folders


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.tree(tmp_path_factory.mktemp("data"), each=15)


@pytest.fixture(scope="module")
def trained(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    recipe = folders.small_recipe(folder, epochs=1, average_epochs=1)
    return train.run(recipe, data_folder, folder / "small", progress=False)


@pytest.fixture
def profile_folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "profile"))


def labels_csv(path: Path, data_folder: Path, *, patients: bool = True) -> Path:
    """The labels of a site's own images: two images a patient, listed beside them."""
    rows = [
        f"{file.relative_to(data_folder)},{file.parent.name}" + (f",{file.parent.name}{place // 2}" if patients else "")
        for place, file in enumerate(sorted(data_folder.glob("*/*.png")))
    ]
    path.write_text("\n".join(["file,label" + (",patient" if patients else ""), *rows]) + "\n", "utf-8")
    return path


def test_a_site_calibrates_on_its_own_labels_with_a_promise(
    profile_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sure(_folder: Path, _recipe: Recipe, _described: object, items: list[Item], _bar: object) -> object:
        sure = np.array([4.0 if item.positive else -4.0 for item in items], dtype=np.float32)
        views = np.repeat(sure[:, None, None], 4, axis=1)
        return Scores(logits=views, distance=np.zeros(len(items))), []

    monkeypatch.setattr(calibrate, "scored", sure)
    asked = ["--ppv", "0.6", "--npv", "0.6", "--confidence", "0.8", "--prevalence", "0.4"]
    labels = labels_csv(tmp_path / "own.csv", data_folder)
    said = CliRunner().invoke(
        app,
        ["calibrate", str(profile_folder), "--data", str(data_folder), "--labels", str(labels), "--part=all", *asked],
    )
    assert said.exit_code == 2, said.output
    assert "on 8 positive and 8 negative patients: at least 13" in " ".join(said.stderr.split())
    one_each = labels_csv(tmp_path / "own.csv", data_folder, patients=False)
    measured = calibrate.run(
        profile_folder,
        data_folder,
        part="all",
        labels=Labels(manifest=one_each),
        options=calibrate.CalibrationOptions(ppv=0.6, npv=0.6, confidence=0.8, prevalence=0.4),
        progress=False,
    )
    promised = yaml.safe_load((profile_folder / "calibration.yaml").read_text("utf-8"))["guarantee"]
    assert (promised["ppv"], promised["prevalence"], promised["positive_patients"]) == (0.6, 0.4, 15)
    assert measured["guarantee"] == promised
    assert "own.csv" in profile.load(profile_folder).calibration
    assert "positive predictive value of at least 0.6" in (profile_folder / "MODEL_CARD.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give --data, --labels or both"),
        (["--labels", "missing.csv"], "missing.csv"),
        (["--data", "."], "no labelled image"),
        (["--data", "{data}", "--ppv", "0.9"], "give --ppv and --npv"),
        (["--data", "{data}", "--views", "plain"], "a single view never disagrees"),
        (["--data", "{data}", "--ppv", "0.9", "--npv", "0.9"], "patients of each class are needed"),
    ],
)
def test_wrong_use_of_calibrate_changes_nothing(
    options: list[str], said: str, profile_folder: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in profile_folder.iterdir()}
    monkeypatch.chdir(profile_folder)
    answer = CliRunner().invoke(
        app, ["calibrate", str(profile_folder), *(one.format(data=data_folder) for one in options)]
    )
    assert answer.exit_code == 2, answer.output
    assert said in " ".join(answer.stderr.split())
    assert answer.stderr.count("cxr-node: ") == 1
    assert {path.name: path.read_bytes() for path in profile_folder.iterdir()} == before


def test_fewer_views_are_calibrated_measured_and_exported_as_such(profile_folder: Path, data_folder: Path) -> None:
    before = profile.load(profile_folder)
    said = CliRunner().invoke(
        app, ["calibrate", str(profile_folder), "--data", str(data_folder), "--views", "plain,closer"]
    )
    assert said.exit_code == 0, said.output
    after = profile.load(profile_folder)
    assert (before.input.views, after.input.views) == (tuple(Shown), (Shown.PLAIN, Shown.CLOSER))
    assert after.weights_sha256 == before.weights_sha256
    items = held_out(profile_folder, data_folder, None, default="calibration")[0]
    scores = Scorer(after).score(inference.prepared(items, after.input), lambda: None)
    assert scores.logits.shape == (len(items), 2, 1)
    spread = scores.spread(after.slope, after.intercept)
    assert after.operating_point.max_spread == pytest.approx(np.quantile(spread, 0.98), abs=1e-4)
    assert (section(profile_folder, "evaluations"), section(profile_folder, "predicted")) == ({}, {})
    assert "of each side cut; shown plain, closer |" in (profile_folder / "MODEL_CARD.md").read_text("utf-8")
    assert recipe_of(profile_folder).input == after.input
    assert load_predictor(after, threads=1, wanted=RuntimeKind.OPENVINO).profile == after


def test_a_list_of_the_images_of_training_is_refused(profile_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Other patients in it would deal other parts, and training images would come among them."""
    labels = Labels(manifest=labels_csv(tmp_path / "own.csv", data_folder))
    with pytest.raises(DataError, match="leave it out"):
        calibrate.run(profile_folder, data_folder, labels=labels, progress=False)


def test_other_weights_are_not_calibrated(profile_folder: Path, data_folder: Path) -> None:
    weights = profile_folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ModelError, match=r"profile\.yaml says [0-9a-f]{64}"):
        calibrate.run(profile_folder, data_folder, part="all", progress=False)


def test_an_impossible_promise_is_refused_before_training(data_folder: Path, tmp_path: Path) -> None:
    path = folders.small_recipe(tmp_path)
    content = yaml.safe_load(path.read_text("utf-8"))
    del content["operating"]["abstain"]
    content["operating"]["guarantee"] = {"ppv": 0.9, "npv": 0.98, "confidence": 0.95}
    path.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(DataError, match="patients of each class are needed"):
        train.run(path, data_folder, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
