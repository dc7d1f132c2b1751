"""A whole small training: a profile that loads, and a resumed training that ends like an uninterrupted one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cxr_node.errors import ConfigError, DataError, ModelError
from cxr_node.model import weights
from cxr_node.model.profile import load
from cxr_node.training.calibrate import calibrate
from cxr_node.training.data import images
from cxr_node.training.data.profile_folder import recipe_of
from cxr_node.training.learn import checkpoint, release, train
from cxr_node.training.measure import evaluate
from cxr_node.training.measure.evaluate import Change
from cxr_node.training.report.evaluation import DataSet
from tests.training import folders


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.tree(tmp_path_factory.mktemp("data"), each=15)


@pytest.fixture(scope="module")
def trained(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train once for all tests that only look at the result."""
    folder = tmp_path_factory.mktemp("trained")
    return train.run(folders.small_recipe(folder), data_folder, folder / "small", progress=False)


@pytest.fixture
def profile_folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained profile that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "profile"))


def test_a_training_ends_in_a_profile_that_loads(trained: Path) -> None:
    profile = load(trained)
    assert profile.labels == ("PNEUMONIA",)
    assert profile.slope > 0.0
    network, stats = weights.load(profile.weights_path, profile.network, 1)
    assert set(stats) == {"mean", "axes", "variance", "residual_variance", "scale"}
    assert not network.training
    measured = json.loads((trained / "metrics.json").read_text("utf-8"))
    assert [line["epoch"] for line in measured["training"]["curves"]] == [1, 2]
    assert len(measured["evaluations"]) == 3


def test_parts_of_the_training_cover_all_images_once(trained: Path) -> None:
    parts = json.loads((trained / "metrics.json").read_text("utf-8"))["training"]["parts"]
    assert sum(part["images"] for part in parts.values()) == 30
    assert all(0 < part["positives"] < part["images"] for part in parts.values())


def test_the_card_tells_what_the_files_tell(trained: Path) -> None:
    card = (trained / "MODEL_CARD.md").read_text("utf-8")
    described = yaml.safe_load((trained / "profile.yaml").read_text("utf-8"))
    assert described["sha256"]["weights.safetensors"] in card
    assert "10.17632/rscbjbr9sj" in card
    assert "CC BY 4.0" in card
    assert "1 to 5 years" in card


def test_changed_weights_do_not_load(profile_folder: Path) -> None:
    content = bytearray((profile_folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (profile_folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="is not the file that the profile was released with"):
        load(profile_folder)


def test_stopped_and_resumed_equals_uninterrupted(
    trained: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = folders.small_recipe(tmp_path), tmp_path / "resumed"
    kept = checkpoint.keep

    def keep_and_stop(*arguments: object) -> None:
        kept(*arguments)  # type: ignore[arg-type] # passed through
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoint, "keep", keep_and_stop)
        train.run(recipe, data_folder, out, progress=False)
    assert not (out / "profile.yaml").exists()
    train.run(recipe, data_folder, out, progress=False)
    assert [json.loads(line)["epoch"] for line in (out / "curves.jsonl").read_text("utf-8").splitlines()] == [1, 2]
    one, other = (load_file(folder / "weights.safetensors") for folder in (trained, out))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=1e-6, rtol=1e-4)


def test_a_checkpoint_of_another_recipe_is_refused(profile_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    other = folders.small_recipe(tmp_path, learning_rate=0.1)
    with pytest.raises(ConfigError, match="belongs to another recipe"):
        train.run(other, data_folder, profile_folder, progress=False)


def test_a_checkpoint_of_other_images_is_refused(profile_folder: Path, tmp_path: Path) -> None:
    other = folders.tree(tmp_path / "other", each=14)
    with pytest.raises(ConfigError, match="or to other images"):
        train.run(folders.small_recipe(tmp_path), other, profile_folder, progress=False)


def test_a_missing_initialisation_is_named(data_folder: Path, tmp_path: Path) -> None:
    path = folders.small_recipe(tmp_path)
    content = yaml.safe_load(path.read_text("utf-8")) | {"initial_weights": "nowhere.pt"}
    path.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(ConfigError, match=r"nowhere\.pt, which does not exist"):
        train.run(path, data_folder, tmp_path / "out", progress=False)


@pytest.mark.parametrize("part", ["training", "calibration"])
def test_broken_images_are_found_before_training(part: str, data_folder: Path, tmp_path: Path) -> None:
    recipe = folders.small_recipe(tmp_path)
    copy = Path(shutil.copytree(data_folder, tmp_path / "data"))
    for label in folders.CLASSES:
        (copy / label / "5.png").write_bytes(b"broken " + label.encode() + part.encode())
    with pytest.raises(DataError, match=r"5\.png is not a readable image"):
        train.run(recipe, copy, tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "curves.jsonl").exists()


def test_calibrating_anew_binds_to_the_weights_and_renews_the_card(profile_folder: Path, data_folder: Path) -> None:
    before = (profile_folder / "weights.safetensors").read_bytes()
    measured = calibrate.run(profile_folder, data_folder, part="all", progress=False)
    assert measured["images"] == 30
    assert load(profile_folder).slope == measured["slope"]
    assert (profile_folder / "weights.safetensors").read_bytes() == before
    assert "fitted on 30 images" in (profile_folder / "MODEL_CARD.md").read_text("utf-8")


def test_own_data_is_used_only_where_training_did_not_see_it(
    profile_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    assert calibrate.run(profile_folder, data_folder, progress=False)["images"] == 6
    elsewhere = folders.tree(tmp_path / "elsewhere", each=4)
    (elsewhere / "NORMAL" / "0.png").unlink()
    assert folders.measured_on(profile_folder, DataSet(data=elsewhere))["images"] == 7
    with pytest.raises(DataError, match="is not what the profile was trained on"):
        folders.measured_on(profile_folder, DataSet(data=elsewhere, part="validation"))


def test_evaluation_counts_every_image_and_brackets_every_rate(profile_folder: Path, data_folder: Path) -> None:
    measured = folders.measured_on(profile_folder, DataSet(data=data_folder, part="all"))
    assert sum(sum(counts.values()) for counts in measured["verdicts"].values()) == measured["images"] == 30
    for name in ("auc", "answered", "brier"):
        rate = measured["rates"][name]
        assert rate["low"] <= rate["value"] <= rate["high"]
    kept = json.loads((profile_folder / "metrics.json").read_text("utf-8"))["evaluations"]
    assert kept[data_folder.name] == {key: value for key, value in measured.items() if key != "name"}


def test_what_others_will_measure_is_said_beforehand(profile_folder: Path, data_folder: Path) -> None:
    kept = json.loads((profile_folder / "metrics.json").read_text("utf-8"))
    swapped = kept["evaluations"][f"{data_folder.name}, validation part, exchanged"]["rates"]
    assert {name: figure["value"] for name, figure in kept["predicted"].items()} == {
        name: swapped[name]["value"] for name in release.PREDICTED if name in swapped
    }
    assert "Predicted for data that nobody here has seen" in (profile_folder / "MODEL_CARD.md").read_text("utf-8")


def test_surroundings_of_one_class_alone_cannot_change_places(profile_folder: Path, data_folder: Path) -> None:
    recipe = recipe_of(profile_folder)
    items = [item for item in images.read(data_folder, recipe.words) if item.positive]
    with pytest.raises(DataError, match="of one"):
        evaluate.prepared(recipe, items, Change.EXCHANGED)
