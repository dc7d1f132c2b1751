"""A second opinion separates what its features separate, is as loud as asked, and is served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.progress import Progress

from cxr_node.errors import ConfigError
from cxr_node.model import efficientnet_lite, networks, profile
from cxr_node.model.networks import MobileNetV2Second
from cxr_node.training.data import images, profile_folder, recipe
from cxr_node.training.learn import second, train
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
    return recipe.parse(content, "recipe")


def test_the_fit_is_the_ridge_of_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(400) % 4 == 0
    features = rng.normal(size=(400, 3)) * [1.0, 10.0, 0.1] + np.outer(positive, [1.0, 0.0, 0.0])
    weight, bias = second.fit(features, positive, penalty=0.01)
    logit = features @ weight + bias
    assert logit[positive].mean() > 0.2 > -0.2 > logit[~positive].mean()
    standard = np.abs(weight * features.std(axis=0))
    assert standard[0] > 3.0 * standard[1:].max()
    smaller, _ = second.fit(features, positive, penalty=1.0)
    assert np.abs(smaller * features.std(axis=0)).max() < standard.max() / 2.0


def test_it_is_added_as_loud_as_asked(asked: recipe.Recipe, tmp_path: Path) -> None:
    items = images.read(folders.tree(tmp_path / "data", each=15), asked.words)
    parts = profile_folder.deal(items, asked)
    first = networks.build(asked.network_spec, 1).eval()
    with torch.no_grad():
        first.classifier.weight.mul_(100.0)
    with Progress(disable=True) as bar:
        whole = second.added(asked, tmp_path / "trunk.pt", first, (parts["training"], parts["calibration"]), bar)
    assert isinstance(whole, MobileNetV2Second)
    inputs = inference.prepared(parts["calibration"], asked.input)
    with torch.inference_mode():
        alone, opinion = first(inputs), whole.second(inputs)
        torch.testing.assert_close(whole(inputs), alone + opinion)
        assert float(opinion.std(correction=0) / alone.std(correction=0)) == pytest.approx(0.5, rel=1e-3)


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


def test_only_a_mobilenet_gets_one(asked: recipe.Recipe) -> None:
    content = asked.model_dump(mode="json")
    content["network"] = {"architecture": "simple-cnn", "options": {}}
    with pytest.raises(ConfigError, match="second is for architecture mobilenet-v2"):
        recipe.parse(content, "recipe")
