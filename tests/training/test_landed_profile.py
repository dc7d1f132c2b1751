"""The profile in weights/ on real radiographs: what its card promises, seen on the files themselves."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cxr_node.domain import Verdict
from cxr_node.model import preprocess, weights
from cxr_node.model import profile as profiles
from cxr_node.model.profile import Profile
from cxr_node.training import card, evaluate, scores
from cxr_node.training.scores import Scores
from tests.shared import radiographs, shared

LANDED = Path(__file__).parents[2] / "weights" / "pneumonia-pediatric"


@pytest.fixture(scope="module")
def profile() -> Profile:
    return profiles.load(LANDED)


def test_card_and_metrics_are_those_of_the_weights(profile: Profile, tmp_path: Path) -> None:
    for name in ("profile.yaml", "calibration.yaml", "metrics.json"):
        (tmp_path / name).write_bytes((LANDED / name).read_bytes())
    card.write(tmp_path)
    assert (tmp_path / card.NAME).read_text("utf-8") == (LANDED / card.NAME).read_text("utf-8")
    measured = json.loads((LANDED / "metrics.json").read_text("utf-8"))
    assert measured["calibration"]["slope"] == profile.slope
    assert profile.weights_sha256 in (LANDED / card.NAME).read_text("utf-8")


@pytest.mark.shared
def test_an_original_its_copy_and_its_recompression_agree(profile: Profile) -> None:
    """Sharpness, size and JPEG quality tell the class in these data; they must not move the answer."""
    originals = radiographs(per_class=6)
    small = shared("data", "kermany224")
    names = [path.relative_to(shared("data", "kermany_full")) for path in originals]
    probabilities = [
        _probability(profile, [_recompressed(path, 85) for path in originals]),
        _probability(profile, [_recompressed(path, 40) for path in originals]),
        _probability(profile, [small / name for name in names]),
    ]
    assert float(np.abs(probabilities[1] - probabilities[0]).max()) < 0.15
    assert float(np.median(np.abs(probabilities[2] - probabilities[0]))) < 0.01


@pytest.mark.shared
def test_adults_of_another_hospital_are_mostly_uncertain(profile: Profile) -> None:
    folder = shared("data", "nih320")
    with (folder / "manifest.csv").open(newline="") as lines:
        adults = [folder / row["file"] for row in csv.DictReader(lines)][::30]
    decisions = evaluate.decisions_of(profile, _scores(profile, adults))
    assert sum(decision.verdict is Verdict.UNCERTAIN for decision in decisions) > len(adults) / 2


def _scores(profile: Profile, images: list[Path] | list[io.BytesIO]) -> Scores:
    network, stats = weights.load(profile.weights_path, profile.network, len(profile.labels))
    inputs = []
    for one in images:
        with Image.open(one) as image:
            pixels = np.asarray(image.convert("L"), dtype=np.float32) / 255.0
        inputs.append(torch.from_numpy(preprocess.prepare(pixels, profile.input))[None])
    return scores.score(network, stats, inputs)


def _probability(profile: Profile, images: list[Path] | list[io.BytesIO]) -> np.ndarray:
    return _scores(profile, images).probability(profile.slope, profile.intercept)


def _recompressed(path: Path, quality: int) -> io.BytesIO:
    coded = io.BytesIO()
    with Image.open(path) as image:
        image.convert("L").save(coded, "JPEG", quality=quality)
    coded.seek(0)
    return coded
