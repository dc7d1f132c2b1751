"""Models on equal terms: what each measured, side by side, and never of different images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cxr_node.errors import DataError, ModelError
from cxr_node.training.learn import train
from cxr_node.training.report import compare
from tests.training import folders


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("compared")
    recipe = folders.small_recipe(base, epochs=1, average_epochs=1)
    return train.run(recipe, folders.tree(base / "data", each=15), base / "profile", progress=False)


def described_alone(trained: Path, tmp_path: Path) -> Path:
    """What is kept of a model that is only compared: no weights."""
    tmp_path.mkdir(exist_ok=True)
    for name in ("profile.yaml", "metrics.json"):
        shutil.copy(trained / name, tmp_path / name)
    return tmp_path


def test_every_model_has_its_figures_with_intervals_on_each_data_set(trained: Path, tmp_path: Path) -> None:
    other = described_alone(trained, tmp_path / "other")
    content = json.loads((other / "metrics.json").read_text("utf-8"))
    content["recipe"]["profile"]["claimed"] = "99 % of something"
    (other / "metrics.json").write_text(json.dumps(content), "utf-8")
    text = compare.page([trained, other])
    auc = content["evaluations"]["data, validation part"]["rates"]["auc"]
    assert text.count(f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})") >= 2
    assert "## Measured: data, validation part, exchanged" in text
    assert "corrupted" not in text
    assert "99 % of something" in text


def test_models_of_other_images_are_not_compared(trained: Path, tmp_path: Path) -> None:
    other = described_alone(trained, tmp_path / "other")
    content = json.loads((other / "metrics.json").read_text("utf-8"))
    content["training"]["fingerprint"] = "another"
    (other / "metrics.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(DataError, match="different images"):
        compare.page([trained, other])


def test_a_folder_without_a_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"profile\.yaml"):
        compare.page([tmp_path])
