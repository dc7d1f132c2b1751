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
from cxr_node.model.profile import Profile, load
from cxr_node.training.data import profile_folder
from cxr_node.training.data.images import Item
from cxr_node.training.measure import evaluate, inference, model_card, stress
from cxr_node.training.measure.evaluate import Scorer
from cxr_node.training.measure.inference import Scores
from cxr_node.training.saliency import localisation
from cxr_node.training.saliency.localisation import Explained
from cxr_node.training.saliency.probe import Probe, case_of
from tests.shared import radiographs, shared

LANDED = Path(__file__).parents[2] / "weights" / "pneumonia-pediatric"


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load(LANDED)


@pytest.fixture(scope="module")
def scorer(profile: Profile) -> Scorer:
    return Scorer(profile)


@pytest.fixture(scope="module")
def held_out() -> list[Item]:
    """Children whom neither training nor calibration saw."""
    items, name = profile_folder.held_out(LANDED, shared("data", "kermany224"), None, default="validation")
    assert name == "kermany224, validation part"
    return items


def test_card_and_metrics_are_those_of_the_weights(profile: Profile, tmp_path: Path) -> None:
    for name in ("profile.yaml", "calibration.yaml", "metrics.json"):
        (tmp_path / name).write_bytes((LANDED / name).read_bytes())
    model_card.write(tmp_path)
    assert (tmp_path / model_card.NAME).read_text("utf-8") == (LANDED / model_card.NAME).read_text("utf-8")
    measured = json.loads((LANDED / "metrics.json").read_text("utf-8"))
    assert measured["calibration"]["slope"] == profile.slope
    assert profile.weights_sha256 in (LANDED / model_card.NAME).read_text("utf-8")


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
def test_adults_that_it_never_saw_are_uncertain(profile: Profile) -> None:
    folder_of_adults = shared("data", "nih320")
    with (folder_of_adults / "manifest.csv").open(newline="") as lines:
        unseen = [row["file"] for row in csv.DictReader(lines) if row["rsna_class"]]  # the others were learned from
    adults = [folder_of_adults / name for name in unseen[::5]]
    decisions = evaluate.decisions_of(profile, _scores(profile, adults))
    assert len(adults) > 40
    assert sum(decision.verdict is Verdict.INDETERMINATE for decision in decisions) >= 0.95 * len(adults)


@pytest.mark.shared
def test_what_is_no_chest_as_it_should_be_is_uncertain(scorer: Scorer, held_out: list[Item]) -> None:
    found = stress.measure_outsiders(scorer, evaluate.sampled(held_out, 10), {}, _silent)["kinds"]
    uncertain = {kind: one["verdicts"].get("UNCERTAIN", 0) / one["images"] for kind, one in found.items()}
    assert set(uncertain) == {"mirrored", "inverted", "rotated by 90 degrees", "rotated by 180 degrees", "noise"}
    assert min(uncertain.values()) >= 0.9, uncertain


@pytest.mark.shared
def test_no_verdict_turns_into_its_opposite_when_the_image_is_stored_another_way(
    scorer: Scorer, held_out: list[Item]
) -> None:
    found = stress.measure_reencodings(scorer, evaluate.sampled(held_out, 4), _silent)
    assert found["answers"] == 4 * len(stress.REENCODINGS)
    assert found["flips"] == 0
    assert found["move"]["value"] < 0.05


@pytest.mark.shared
def test_heat_maps_of_positives_peak_inside_the_chest(scorer: Scorer, held_out: list[Item]) -> None:
    probe = Probe(profile=scorer.profile, network=scorer.network.eval())
    looked = _looked(probe, [item for item in evaluate.sampled(held_out, 40) if item.positive])
    assert len(looked.explanations) == 20 and looked.explanations[0].active.shape == (12, 12)
    found = localisation.in_chest(probe, looked)
    assert found["shown"].value >= 0.9
    assert found["peak_in_chest"].value >= 0.85
    assert found["energy_in_chest"].value > found["energy_in_chest_by_chance"].value + 0.2


@pytest.mark.shared
def test_heat_maps_peak_in_an_opacity_drawn_into_a_normal_lung(scorer: Scorer, held_out: list[Item]) -> None:
    probe = Probe(profile=scorer.profile, network=scorer.network.eval())
    looked = _looked(probe, [item for item in evaluate.sampled(held_out, 24) if not item.positive])
    found, _ = localisation.on_opacities(probe, looked, np.random.default_rng(0), _silent)
    assert found["opacity_found"].value >= 0.75
    assert found["opacity_found_by_chance"].value < 0.4


def _looked(probe: Probe, items: list[Item]) -> Explained:
    cases = [case_of(item) for item in items]
    inputs = probe.prepared([case.pixels for case in cases])
    return Explained(cases=cases, inputs=inputs, explanations=probe.explain(inputs))


def _silent() -> None:
    """Report nothing."""


def _scores(profile: Profile, images: list[Path] | list[io.BytesIO]) -> Scores:
    network, stats = weights.load(profile.weights_path, profile.network, len(profile.labels))
    inputs = []
    for one in images:
        with Image.open(one) as image:
            pixels = np.asarray(image.convert("L"), dtype=np.float32) / 255.0
        inputs.append(torch.from_numpy(preprocess.pictures(pixels, profile.input)))
    return inference.score(network, stats, profile.input, torch.stack(inputs))


def _probability(profile: Profile, images: list[Path] | list[io.BytesIO]) -> np.ndarray:
    return _scores(profile, images).probability(profile.slope, profile.intercept)


def _recompressed(path: Path, quality: int) -> io.BytesIO:
    coded = io.BytesIO()
    with Image.open(path) as image:
        image.convert("L").save(coded, "JPEG", quality=quality)
    coded.seek(0)
    return coded
