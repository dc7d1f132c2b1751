"""A recipe is strict: one line per mistake, with the key's path."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cxr_node.errors import ConfigError
from cxr_node.training.data import recipe
from tests.training import folders

SHIPPED = sorted(folders.RECIPE.parent.glob("*.yaml"))
ANCESTORS = [path for path in SHIPPED if path.stem not in ("lungs", "shape", "adult", "adult-first", "tuberculosis")]
EXPLAINED = {"input", "data", "pretraining", "schedule", "augment", "operating"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_recipes_are_read(path: Path) -> None:
    assert recipe.read(path).label == "PNEUMONIA"


@pytest.mark.parametrize("path", ANCESTORS, ids=lambda path: path.name)
def test_every_key_is_written(path: Path) -> None:
    """A reader of one file knows all that can be changed."""
    content = yaml.safe_load(path.read_text("utf-8"))
    written = recipe.read(path).model_dump(mode="json")
    for section, value in written.items():
        assert section in content
        if isinstance(value, dict) and section != "network":
            assert set(value) - {"shape_px"} == set(content[section])  # that one comes of the section shaped


def test_the_second_training_of_adults_goes_on_from_the_first() -> None:
    first, second = (recipe.read(folders.RECIPE.parent / f"{name}.yaml") for name in ("adult-first", "adult"))
    changed = {"schedule", "initial_weights", "average_with"}
    assert first.model_dump(exclude=changed) == second.model_dump(exclude=changed)
    assert second.average_with == (second.initial_weights,)
    assert first.average_with == ()
    assert (first.heads, first.serves) == (2, 2)


def test_no_film_of_tuberculosis_may_be_called_normal() -> None:
    read = recipe.read(folders.RECIPE.parent / "tuberculosis.yaml")
    assert read.words == {"normal": False, "pneumonia": True, "tuberculosis": True}
    assert read.labels == ["PNEUMONIA", "normal", "pneumonia", "tuberculosis"]


def test_ancestors_are_compared_on_equal_terms() -> None:
    read = [recipe.read(path) for path in ANCESTORS]
    assert len(read) == 5
    for one in read:
        assert one.seed == 2
        assert (one.data.validation, one.data.calibration, one.data.source_px) == (0.10, 0.15, 224)
        assert one.operating == read[0].operating
        assert one.augment == read[0].augment
        assert one.schedule.epochs * one.schedule.images_per_epoch == 36_000


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_key_is_explained(path: Path) -> None:
    """Each key of the sections that steer the training has a comment on its line."""
    section, bare = "", []
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            section = line.split(":")[0]
        elif section in EXPLAINED and line.strip() and "#" not in line:
            bare.append(line.strip())
    allowed = ("negative", "words", "epochs", "batch", "weight_decay", "rotate_deg", "recompress_quality", "name")
    assert [line for line in bare if not line.startswith(allowed)] == []


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("schedule", "lerning_rate", 0.1, "schedule.lerning_rate: Extra inputs"),
        ("schedule", "epochs", 0, "schedule.epochs: Input should be greater than or equal to 1"),
        ("augment", "marks", 1.5, "augment.marks: Input should be less than or equal to 1"),
        ("input", "border", 0.4, "input.border: Input should be less than 0.25"),
        ("operating", "prevalence", 0.0, "operating.prevalence: Input should be greater than 0"),
    ],
)
def test_mistakes_are_named(section: str, key: str, value: object, said: str, tmp_path: Path) -> None:
    path = folders.small_recipe(tmp_path)
    content = yaml.safe_load(path.read_text("utf-8"))
    content[section][key] = value
    path.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(ConfigError) as caught:
        recipe.read(path)
    (mistake,) = caught.value.mistakes
    assert said in mistake
    assert str(path) in mistake


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("seed: 1\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        recipe.read(path)
    assert len(caught.value.mistakes) >= 8


def test_something_must_be_left_to_train_on(tmp_path: Path) -> None:
    path = folders.small_recipe(tmp_path)
    content = yaml.safe_load(path.read_text("utf-8"))
    content["data"] |= {"validation": 0.45, "calibration": 0.45}
    path.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(ConfigError, match="must leave at least a fifth"):
        recipe.read(path)


@pytest.mark.parametrize(
    "ways",
    [{}, {"abstain": 0.1, "guarantee": {"ppv": 0.9, "npv": 0.9, "confidence": 0.95}}, {"abstain": 0.1, "wrong": 0.1}],
)
def test_thresholds_are_placed_in_one_way(ways: dict[str, object], tmp_path: Path) -> None:
    path = folders.small_recipe(tmp_path)
    content = yaml.safe_load(path.read_text("utf-8"))
    del content["operating"]["abstain"]
    content["operating"] |= ways
    path.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(ConfigError, match=r"operating: .*give one of abstain, wrong and guarantee"):
        recipe.read(path)


def test_missing_and_malformed_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        recipe.read(tmp_path / "missing.yaml")
    (tmp_path / "broken.yaml").write_text("seed: [", "utf-8")
    with pytest.raises(ConfigError, match="is not YAML"):
        recipe.read(tmp_path / "broken.yaml")
