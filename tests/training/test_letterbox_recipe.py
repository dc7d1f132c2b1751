"""A recipe that training would quietly turn into another one is refused before any image is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr_node.errors import ConfigError
from cxr_node.training.learn import train

LUNGS = Path(__file__).parents[2] / "config" / "train" / "lungs.yaml"


def test_training_does_not_squash_what_was_to_keep_its_shape(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    told = LUNGS.read_text("utf-8").replace("geometry: squashed ", "geometry: letterbox ", 1)
    told = told.replace("  border: 0.04 ", "  border: 0.0 ", 1)
    recipe.write_text(told, "utf-8")
    with pytest.raises(ConfigError, match="letterbox"):
        train.run(recipe, tmp_path / "none", tmp_path / "out", progress=False)
