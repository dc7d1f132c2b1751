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
from cxr_node.model.networks import MobileNetV2Shaped
from cxr_node.model.predictor import load_predictor
from cxr_node.model.profile import Profile
from cxr_node.training.data import images, populations, profile_folder, recipe
from cxr_node.training.learn import last_layers, opinions, train
from cxr_node.training.measure import inference
from cxr_node.training.report.evaluation import DataSet
from tests.training import folders
from tests.training.folders import CLASSES

SQUASHED_PX, SHAPED_PX = 32, 48
KNOWN = {"NORMAL/1.png": 1500} | {
    f"{word}/{number}.png": 900 + 100 * number for word in CLASSES for number in (2, 3, 4)
}
"""Columns of the films of 1,000 rows whose shape is listed."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, few_golden_inputs: None) -> Path:
    """A folder with films, the trunk of a second opinion, a list of shapes, and a letterbox network."""
    folder = tmp_path_factory.mktemp("shaped")
    torch.manual_seed(1)
    torch.save(efficientnet_lite.Lite0().state_dict(), folder / "trunk.pt")
    folders.tree(folder / "data", each=15)
    listed = [f"{name},{columns},1000" for name, columns in KNOWN.items()]
    (folder / "shapes.csv").write_text("\n".join(["file,columns,rows", *listed, ""]), "utf-8")
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
    content["opinions"] = {"level_sharpness": 0.5, "cut_weight": 0.2}
    content["shaped"] = {"profile": "letterbox", "size_px": SHAPED_PX, "weight": 0.5, "penalty": 0.01}
    content["data"]["shapes"] = {"manifest": "shapes.csv", "file": "file", "columns": "columns", "rows": "rows"}
    return content | changes


def test_it_is_added_as_loud_as_asked(place: Path) -> None:
    wanted = recipe.parse(asked(place), "recipe")
    items = images.read(place / "data", wanted.words)
    dealt = profile_folder.deal(items, wanted)
    shaped = populations.of_known_shape(dealt["training"], wanted, place, place / "data")
    parts = populations.in_shape(dealt, wanted, place, place / "data")
    whole = opinions.added(wanted, place, folders.lively(networks.build(wanted.second_spec, 1)))
    assert isinstance(whole, MobileNetV2Shaped)
    folders.lively(whole.third)
    with Progress(disable=True) as bar:
        last_layers.fitted(wanted, whole, (parts, shaped), bar)
    inputs = inference.prepared(parts["calibration"], wanted.served_input)
    with torch.inference_mode():
        first, second, third = (
            layer(read) for layer, read in zip(whole.last_layers(), whole.read(inputs), strict=True)
        )
        torch.testing.assert_close(whole(inputs), first + second + third)
        torch.testing.assert_close(third, whole.third(inputs[:, 1:]))
        torch.testing.assert_close(second, whole.second(inputs[:, :1, :SQUASHED_PX, :SQUASHED_PX]))
        assert float(third.std(correction=0) / first.std(correction=0)) == pytest.approx(0.5, rel=0.05)


def test_films_get_their_shape_back_or_one_that_tells_nothing(place: Path) -> None:
    wanted = recipe.parse(asked(place), "recipe")
    items = images.read(place / "data", wanted.words)
    found = populations.in_shape({"all": items}, wanted, place, place / "data")["all"]
    shapes = {item.path.relative_to(place / "data").as_posix(): item.aspect for item in found}
    assert shapes["NORMAL/1.png"] == 1.5
    drawn = np.log([shape for name, shape in shapes.items() if name not in KNOWN])
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
        ({"second": None, "opinions": None}, "shaped is added to a network with a second opinion"),
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
        opinions.opinion(section.model_copy(update={"size_px": 64}), place / "letterbox")
