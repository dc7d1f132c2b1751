"""A network that keeps the shape of films is added to one that squashes them, as loud as asked, and is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.progress import Progress

from cxr_node.errors import ConfigError
from cxr_node.model import efficientnet_lite, networks, profile
from cxr_node.model.networks import EfficientNetLite0, MobileNetV2Shaped, Network
from cxr_node.model.predictor import load_predictor
from cxr_node.model.profile import Profile
from cxr_node.training.data import images, populations, profile_folder, recipe
from cxr_node.training.learn import shaped, train
from cxr_node.training.measure import inference
from cxr_node.training.report.evaluation import DataSet
from tests.training import folders

SQUASHED_PX, SHAPED_PX = 32, 48


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, few_golden_inputs: None) -> Path:
    """A folder with films, the trunk of a second opinion, a list of shapes, and a letterbox network."""
    folder = tmp_path_factory.mktemp("shaped")
    torch.manual_seed(1)
    torch.save(efficientnet_lite.Lite0().state_dict(), folder / "trunk.pt")
    folders.tree(folder / "data", each=15)
    (folder / "shapes.csv").write_text("file,columns,rows\nNORMAL/1.png,1500,1000\n", "utf-8")
    content = yaml.safe_load(folders.small_recipe(folder).read_text("utf-8"))
    content["network"] = {"architecture": "efficientnet-lite0", "options": {"outsider": False}}
    content["input"] = {"size_px": SHAPED_PX, "border": 0.0, "geometry": "letterbox"}
    (folder / "letterbox.yaml").write_text(yaml.safe_dump(content), "utf-8")
    train.run(folder / "letterbox.yaml", folder / "data", folder / "letterbox", progress=False)
    return folder


def asked(place: Path, **changes: Any) -> dict[str, Any]:
    """A recipe that asks for it."""
    content: dict[str, Any] = yaml.safe_load(folders.small_recipe(place).read_text("utf-8"))
    content["second"] = {"trunk": "trunk.pt", "size_px": 64, "weight": 0.5, "penalty": 0.01}
    content["shaped"] = {"profile": "letterbox", "size_px": SHAPED_PX, "weight": 0.5}
    content["data"]["shapes"] = {"manifest": "shapes.csv", "file": "file", "columns": "columns", "rows": "rows"}
    return content | changes


def lively(network: Network) -> Network:
    """Random weights whose answers differ from one film to the next."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(torch.randn(8, 1, 64, 64))
    return network.eval()


def test_it_is_added_as_loud_as_asked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = recipe.parse(asked(place), "recipe")
    items = images.read(place / "data", wanted.words)
    parts = populations.in_shape(profile_folder.deal(items, wanted), wanted, place, place / "data")
    both, other = lively(networks.build(wanted.second_spec, 1)), lively(EfficientNetLite0(1))
    monkeypatch.setattr(shaped, "opinion", lambda *_: other)
    with Progress(disable=True) as bar:
        whole = shaped.added(wanted, place / "letterbox", both, parts["calibration"], bar)
    assert isinstance(whole, MobileNetV2Shaped)
    inputs = inference.prepared(parts["calibration"], wanted.served_input)
    with torch.inference_mode():
        before, opinion = both(inputs[:, :1, :SQUASHED_PX, :SQUASHED_PX]), whole.third(inputs[:, 1:])
        torch.testing.assert_close(whole(inputs), before + opinion)
        assert float(opinion.std(correction=0) / before.std(correction=0)) == pytest.approx(0.5, rel=1e-3)


def test_films_get_their_shape_back_or_one_that_tells_nothing(place: Path) -> None:
    wanted = recipe.parse(asked(place), "recipe")
    items = images.read(place / "data", wanted.words)
    found = populations.in_shape({"all": items}, wanted, place, place / "data")["all"]
    shapes = {item.path.relative_to(place / "data").as_posix(): item.aspect for item in found}
    assert shapes["NORMAL/1.png"] == 1.5
    drawn = np.log([shape for name, shape in shapes.items() if name != "NORMAL/1.png"])
    assert drawn.std() > 0.08 and abs(drawn.mean() - images.LOST_MEAN) < 0.1
    assert populations.in_shape({"all": items}, wanted, place, place / "data")["all"] == found
    loaded = images.load(next(item for item in found if item.aspect == 1.5))
    assert loaded.shape == (40, 60)
    assert [item.digest for item in found] == [item.digest for item in items]


@pytest.fixture(scope="module")
def served(place: Path) -> Profile:
    (place / "shaped.yaml").write_text(yaml.safe_dump(asked(place)), "utf-8")
    return profile.load(train.run(place / "shaped.yaml", place / "data", place / "out", progress=False))


def test_a_training_ends_in_a_profile_with_it(place: Path, served: Profile) -> None:
    assert served.network.architecture == "mobilenet-v2-shaped"
    assert (served.input.size_px, served.input.shape_px, served.input.side_px) == (SQUASHED_PX, SHAPED_PX, SHAPED_PX)
    assert profile_folder.recipe_of(place / "out").served_input == served.input
    assert load_predictor(served).runtime.name.startswith("OpenVINO"), "it answers as torch does"
    measured = folders.measured_on(place / "out", DataSet(data=place / "data", part="all"))
    assert measured["rates"]["auc"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"second": None}, "shaped is added to a network with a second opinion"),
        ({"input": {"size_px": 32, "border": 0.04, "shape_px": 48}}, r"input\.shape_px comes of the section shaped"),
        ({"shaped": None}, r"data\.shapes are for input\.geometry: letterbox"),
    ],
)
def test_recipes_that_contradict_themselves(place: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        recipe.parse(asked(place, **changes), "recipe")


def test_another_network_than_the_recipe_says(place: Path) -> None:
    section = recipe.parse(asked(place), "recipe").shaped
    assert section is not None
    with pytest.raises(ConfigError, match="no efficientnet-lite0 with geometry letterbox at 64 px"):
        shaped.opinion(section.model_copy(update={"size_px": 64}), place / "letterbox")
