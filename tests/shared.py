"""Where real radiographs lie beside the checkout, for the tests that want them; a user does not have them."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("CXR_NODE_SHARED", Path(__file__).parent.parent.parent / "shared"))


def shared(*parts: str) -> Path:
    """A file or folder of the shared data; skips, loudly, where it is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real radiographs are not here: {path} (set CXR_NODE_SHARED)")
    return path


def radiographs(per_class: int) -> dict[Path, str]:
    """Original radiographs of both classes, one for each child: path -> NORMAL or PNEUMONIA."""
    folder = shared("data", "kermany_full")
    chosen: dict[Path, str] = {}
    with (folder / "manifest.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            taken = sum(label == row["label"] for label in chosen.values())
            if taken < per_class:
                chosen[folder / row["file"]] = row["label"]
    return chosen
