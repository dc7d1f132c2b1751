"""Give a trained profile the opinions of a recipe that it lacks, and last layers fitted anew, without training it.

    python -m tools.second_opinion PROFILE_FOLDER --recipe config/train/lungs.yaml --data FOLDER --out FOLDER

Writes a complete profile folder: the old trunks, and those of the opinions beside them; last layers, calibration,
figures and card by the recipe. `cxr-node train` does the same at the end of a training with such a recipe.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cxr_node.errors import DataError
from cxr_node.model import profile, weights
from cxr_node.training.data import images, populations, profile_folder, recipe
from cxr_node.training.data.device import bar_of
from cxr_node.training.learn import last_layers, opinions, release, train


def main() -> None:
    """Fit, and release."""
    parser = argparse.ArgumentParser(prog="python -m tools.second_opinion", description=__doc__)
    parser.add_argument("profile", type=Path)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the images that the profile was trained on")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    asked, beside = recipe.read(given.recipe), given.recipe.parent
    items = images.read(given.data, asked.words, label_column=asked.data.column)
    if asked.second is None or not profile_folder.is_own(given.profile, items):
        raise DataError(f"{given.recipe} has no `second`, or {given.profile} was trained on other images")
    described = profile.described_in(given.profile)
    network, _ = weights.load(given.profile / "weights.safetensors", described.network, len(described.labels))
    parts = profile_folder.deal(items, asked)
    shaped = populations.of_known_shape(parts["training"], asked, beside, given.data)
    last_layers.require_shapes(asked, shaped)
    given.out.mkdir(parents=True, exist_ok=True)
    curves = profile_folder.section(given.profile, "training")["curves"]
    (given.out / train.CURVES).write_text("".join(json.dumps(line) + "\n" for line in curves), "utf-8")
    with bar_of(True) as bar:
        whole = opinions.added(asked, beside, network)
        parts = populations.in_shape(parts, asked, beside, given.data)
        last_layers.fitted(asked, whole, (parts, shaped), bar)
        release.release(given.out, asked, whole, (parts, given.data.name), bar)


if __name__ == "__main__":
    main()
