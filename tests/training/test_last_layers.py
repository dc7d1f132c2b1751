"""What opinions say is asked of the films that weigh most, each is as loud as asked, and the rest stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.progress import Progress

from cxr_node.errors import ConfigError, ModelError
from cxr_node.model import efficientnet_lite, networks, profile
from cxr_node.model.networks import MobileNetV2Second, SimpleCNN
from cxr_node.training.data import images, populations, profile_folder, recipe
from cxr_node.training.data.recipe_sections import OpinionsSection, ShapesSection
from cxr_node.training.learn import last_layers, opinions, train
from cxr_node.training.measure import inference
from tests.training import folders

SIZE_PX = 64


@pytest.fixture
def asked(tmp_path: Path) -> recipe.Recipe:
    """A small recipe with a second opinion, of features that nobody published."""
    torch.manual_seed(1)
    torch.save(efficientnet_lite.Lite0().state_dict(), tmp_path / "trunk.pt")
    content = yaml.safe_load(folders.small_recipe(tmp_path).read_text("utf-8"))
    content["second"] = {"trunk": "trunk.pt", "size_px": SIZE_PX, "weight": 0.5, "penalty": 0.01}
    content["opinions"] = {"level_sharpness": 0.5, "cut_weight": 0.0}
    return recipe.parse(content, "recipe")


def test_the_fit_is_the_ridge_of_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(400) % 4 == 0
    features = rng.normal(size=(400, 3)) * [1.0, 10.0, 0.1] + np.outer(positive, [1.0, 0.0, 0.0])
    weight, bias = last_layers.fit(features, positive, np.ones(400), penalty=0.01)
    logit = features @ weight + bias
    assert logit[positive].mean() > 0.2 > -0.2 > logit[~positive].mean()
    standard = np.abs(weight * features.std(axis=0))
    assert standard[0] > 3.0 * standard[1:].max()
    smaller, _ = last_layers.fit(features, positive, np.ones(400), penalty=1.0)
    assert np.abs(smaller * features.std(axis=0)).max() < standard.max() / 2.0


def test_the_fit_asks_the_films_that_weigh_most() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(400) % 2 == 0
    shortcut = positive ^ (np.arange(400) >= 360)  # right for nine of ten
    features = rng.normal(size=(400, 2)) * 0.3 + np.stack([1.5 * shortcut, positive], axis=1)
    alike, _ = last_layers.fit(features, positive, np.ones(400), penalty=0.01)
    levelled, _ = last_layers.fit(features, positive, np.where(shortcut == positive, 1.0, 9.0), penalty=0.01)
    assert alike[0] > 0.2 * alike[1] > 0.0
    assert abs(levelled[0]) < 0.02 * levelled[1]


def test_all_else_stays_and_each_opinion_is_as_loud_as_asked(asked: recipe.Recipe, tmp_path: Path) -> None:
    items = images.read(folders.tree(tmp_path / "data", each=15), asked.words)
    parts = profile_folder.deal(items, asked)
    first = folders.lively(networks.build(asked.network_spec, 1))
    whole = opinions.added(asked, tmp_path, first)
    assert isinstance(whole, MobileNetV2Second)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    with Progress(disable=True) as bar:
        last_layers.fitted(asked, whole, (parts, []), bar)
    changed = {name for name, value in whole.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"second.last.weight", "second.last.bias"}
    inputs = inference.prepared(parts["calibration"], asked.input)
    with torch.inference_mode():
        alone, opinion = (layer(read) for layer, read in zip(whole.last_layers(), whole.read(inputs), strict=True))
        torch.testing.assert_close(whole(inputs), alone + opinion)
        torch.testing.assert_close(opinion, whole.second(inputs))
        assert float(opinion.std(correction=0) / alone.std(correction=0)) == pytest.approx(0.5, rel=0.05)


@pytest.mark.whole
def test_a_training_ends_in_a_profile_with_one(asked: recipe.Recipe, tmp_path: Path) -> None:
    path = tmp_path / "second.yaml"
    path.write_text(yaml.safe_dump(asked.model_dump(mode="json")), "utf-8")
    data = folders.tree(tmp_path / "data", each=15)
    served = profile.load(train.run(path, data, tmp_path / "out", progress=False))
    assert served.network.architecture == "mobilenet-v2-second"
    assert served.network.options["second_px"] == SIZE_PX
    (tmp_path / "trunk.pt").unlink()
    with pytest.raises(ConfigError, match=r"second\.trunk names .*trunk\.pt, which does not exist"):
        train.run(path, data, tmp_path / "again", progress=False)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"network": {"architecture": "simple-cnn", "options": {}}}, "second is for architecture mobilenet-v2"),
        ({"network": {"architecture": "mobilenet-v2", "options": {"hidden": 8}}}, "no option hidden"),
        ({"opinions": None}, "second and opinions need each other"),
        ({"second": None}, "second and opinions need each other"),
        ({"opinions": {"level_sharpness": 0.5, "cut_weight": 0.1}}, "cut_weight needs data.shapes"),
        ({"opinions": {"level_sharpness": 1.5, "cut_weight": 0.0}}, "opinions.level_sharpness"),
    ],
)
def test_recipes_that_contradict_themselves(asked: recipe.Recipe, changed: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        recipe.parse(asked.model_dump(mode="json") | changed, "recipe")


def test_a_chain_of_layers_is_not_fitted() -> None:
    with pytest.raises(ModelError, match="SimpleCNN has no linear head"):
        SimpleCNN(1).last_layers()


def test_only_films_of_known_shape_are_cut(tmp_path: Path, asked: recipe.Recipe) -> None:
    items = images.read(folders.tree(tmp_path / "data", each=3), asked.words)
    assert populations.of_known_shape(items, asked, tmp_path, tmp_path / "data") == []
    (tmp_path / "shapes.csv").write_text("file,columns,rows\nNORMAL/1.png,1500,1000\n", "utf-8")
    listed = {"manifest": "shapes.csv", "file": "file", "columns": "columns", "rows": "rows"}
    wanted = asked.model_copy(update={"data": asked.data.model_copy(update={"shapes": ShapesSection(**listed)})})
    found = populations.of_known_shape(items, wanted, tmp_path, tmp_path / "data")
    assert [(item.path.name, item.aspect) for item in found] == [("1.png", 1.5)]
    cutting = wanted.model_copy(update={"opinions": OpinionsSection(level_sharpness=0, cut_weight=1)})
    with pytest.raises(ConfigError, match="lists the shapes of 1 films of the training part; films of both classes"):
        last_layers.require_shapes(cutting, found)
    last_layers.require_shapes(wanted, found)
