from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr_node import heatmap
from cxr_node.domain import Examination, Radiograph, View
from cxr_node.errors import ModelError
from cxr_node.model import ood_distance, predictor, preprocess, profile, weights
from cxr_node.model.decision import decide
from cxr_node.model.network import Network
from cxr_node.model.site_calibration import at_site
from tests.model import folders


def radiograph(seed: int, shape: tuple[int, int] = (150, 120)) -> Radiograph:
    coarse = np.random.default_rng(seed).random((6, 5))
    rows, cols = (np.linspace(0, n - 1.001, m) for n, m in zip(coarse.shape, shape, strict=True))
    pixels = coarse[np.ix_(rows.astype(int), cols.astype(int))].astype(np.float32)
    return Radiograph(pixels=pixels, pixel_aspect=1.0, view=View.PA, pixel_digest=f"{seed:064}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.write(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> predictor.ProfilePredictor:
    return predictor.load_predictor(profile.load(folder), threads=1)


def same(one: Examination, other: Examination) -> bool:
    return (
        one.prediction == other.prediction
        and one.heatmap.regions == other.heatmap.regions
        and one.heatmap.cells.tobytes() == other.heatmap.cells.tobytes()
    )


def test_an_examination_is_in_range_and_on_the_source_grid(loaded: predictor.ProfilePredictor) -> None:
    seen = loaded.examine(radiograph(1, (150, 120)))
    assert set(seen.prediction.probability) == {"pneumonia"}
    assert 0.0 <= seen.prediction.probability["pneumonia"] <= 1.0
    assert 0.0 <= seen.prediction.spread <= 1.0
    assert seen.prediction.distance > 0.0
    weight = heatmap.on_grid(seen.heatmap, (150, 120))
    assert weight.shape == (150, 120) and weight.dtype == np.float32
    assert weight.min() >= 0.0 and weight.max() <= 1.0
    assert (seen.heatmap.label, seen.heatmap.layer) == ("pneumonia", "features.18")


@pytest.mark.parametrize(("report_at", "is_positive"), [(0.0, True), (1.0, False)])
def test_what_nobody_reads_is_not_outlined(
    loaded: predictor.ProfilePredictor, report_at: float, is_positive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results show regions of a positive only; the map is there whatever the verdict."""
    point = replace(
        loaded.profile.operating_point, rule_out_below=0.0, report_at=report_at, max_spread=1.0, max_distance=np.inf
    )
    monkeypatch.setattr(loaded, "_profile", replace(loaded.profile, operating_point=point))
    monkeypatch.setattr(heatmap, "SMALLEST_RISE", 0.0)
    seen = loaded.examine(radiograph(1, (150, 120)))
    assert seen.heatmap.cells.any()
    assert bool(seen.heatmap.regions) is is_positive


def test_the_answer_is_what_the_parts_say(loaded: predictor.ProfilePredictor) -> None:
    one = radiograph(2)
    own = folders.tensors()
    network, _ = weights.load(loaded.profile.weights_path, loaded.profile.network, 1)
    spec = loaded.profile.input
    shown = torch.from_numpy(preprocess.views(preprocess.pictures(one.pixels, spec), spec))
    with torch.no_grad():
        logits = network(shown)[:, 0]
        signature = network.signature(network.early(shown[:1])).numpy()
    stats = {
        name.removeprefix("distance."): value.numpy() for name, value in own.items() if name.startswith("distance.")
    }
    by_view = 1 / (1 + np.exp(-(1.5 * logits.numpy() - 0.25)))
    seen = loaded.examine(one).prediction
    assert seen.probability["pneumonia"] == pytest.approx(1 / (1 + np.exp(-(1.5 * logits.mean().item() - 0.25))), 1e-4)
    assert seen.spread == pytest.approx(np.ptp(by_view), abs=1e-4)
    assert seen.distance == pytest.approx(ood_distance.distance(signature, stats).item(), rel=1e-4)


def test_a_site_calibration_changes_the_probability_and_not_what_sets_an_image_aside(
    loaded: predictor.ProfilePredictor, folder: Path
) -> None:
    there = predictor.load_predictor(replace(profile.load(folder), site=(0.5, -1.0)), threads=1)
    before, after = loaded.examine(radiograph(2)).prediction, there.examine(radiograph(2)).prediction
    moved = at_site(before.probability["pneumonia"], 0.5, -1.0)
    assert after.probability["pneumonia"] == pytest.approx(moved, abs=1e-12) != before.probability["pneumonia"]
    assert (after.spread, after.distance) == (before.spread, before.distance)


def test_different_radiographs_get_different_answers(loaded: predictor.ProfilePredictor) -> None:
    assert not same(loaded.examine(radiograph(1)), loaded.examine(radiograph(2)))


def test_an_answer_does_not_depend_on_what_was_seen_before(loaded: predictor.ProfilePredictor) -> None:
    first = loaded.examine(radiograph(1))
    loaded.examine(radiograph(2))
    assert same(first, loaded.examine(radiograph(1)))


def test_a_new_process_would_say_the_same(folder: Path, loaded: predictor.ProfilePredictor) -> None:
    again = predictor.load_predictor(profile.load(folder), threads=1)
    assert same(again.examine(radiograph(3)), loaded.examine(radiograph(3)))


def test_the_number_of_threads_moves_no_printed_digit(folder: Path, loaded: predictor.ProfilePredictor) -> None:
    one = loaded.examine(radiograph(4))
    try:
        two = predictor.load_predictor(profile.load(folder), threads=2).examine(radiograph(4))
    finally:
        torch.set_num_threads(1)
    assert two.prediction.probability["pneumonia"] == pytest.approx(one.prediction.probability["pneumonia"], abs=1e-5)
    np.testing.assert_allclose(two.heatmap.cells, one.heatmap.cells, atol=1e-4)


def test_calibration_and_serving_see_the_same_in_any_batch(loaded: predictor.ProfilePredictor) -> None:
    spec = loaded.profile.input
    shown = np.stack([preprocess.views(preprocess.pictures(radiograph(seed).pixels, spec), spec) for seed in range(3)])
    together = loaded.runtime.infer(shown)
    assert together.logits.shape == (3, len(spec.views), 1)
    for position in range(3):
        alone = loaded.runtime.infer(shown[position : position + 1])
        np.testing.assert_allclose(alone.logits[0], together.logits[position], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(alone.signature[0], together.signature[position], rtol=1e-4, atol=1e-4)


def test_neighbours_do_not_matter(loaded: predictor.ProfilePredictor) -> None:
    several = [radiograph(seed) for seed in range(5)]
    for alone, beside in zip(map(loaded.examine, several), loaded.examine_all(several), strict=True):
        assert beside.prediction.probability["pneumonia"] == pytest.approx(
            alone.prediction.probability["pneumonia"], abs=1e-3
        )
        assert decide(beside.prediction, loaded.profile.operating_point) == decide(
            alone.prediction, loaded.profile.operating_point
        )
    assert loaded.examine_all([]) == []


def test_weights_swapped_after_loading_are_refused_by_both_hashes(tmp_path: Path) -> None:
    folder = folders.write(tmp_path)
    trusted = profile.load(folder)
    (folder / "weights.safetensors").write_bytes(b"other weights")
    found = profile.sha256(folder / "weights.safetensors")
    with pytest.raises(ModelError, match=f"{found}.*{trusted.weights_sha256}"):
        predictor.load_predictor(trusted, threads=1)


@pytest.mark.parametrize(
    ("name", "tensor", "complaint"),
    [
        ("network.classifier.weight", None, "classifier.weight"),
        ("network.classifier.scale", torch.ones(1), "classifier.scale"),
        ("network.classifier.weight", torch.ones(3, 1280), "size mismatch"),
        ("distance.axes", None, "axes"),
        ("distance.median", torch.ones(1), "median"),
        ("optimizer.step", torch.ones(1), "optimizer.step"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, tensor: torch.Tensor | None, complaint: str
) -> None:
    content = folders.tensors()
    if tensor is None:
        del content[name]
    else:
        content[name] = tensor
    trusted = profile.load(folders.write(tmp_path, content))
    with pytest.raises(ModelError, match=re.escape(complaint)):
        predictor.load_predictor(trusted, threads=1)


def test_weights_that_answer_no_number_do_not_start(tmp_path: Path) -> None:
    content = folders.tensors()
    content["network.classifier.bias"] = torch.tensor([float("nan")])
    with pytest.raises(ModelError, match="no number"):
        predictor.load_predictor(profile.load(folders.write(tmp_path, content)), threads=1)


def test_statistics_of_another_network_do_not_start(tmp_path: Path) -> None:
    content = folders.tensors()
    content["distance.mean"] = torch.zeros(2, 512)
    with pytest.raises(ModelError, match="another network"):
        predictor.load_predictor(profile.load(folders.write(tmp_path, content)), threads=1)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    folder = folders.write(tmp_path)
    torch.save(folders.tensors(), folder / "weights.safetensors")
    profile.write(folder, folders.DESCRIBED, folders.CALIBRATED)
    with pytest.raises(ModelError, match="cannot be read"):
        predictor.load_predictor(profile.load(folder), threads=1)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    trusted = profile.load(folders.write(tmp_path))
    strange = replace(trusted, network=profile.NetworkSpec(architecture="resnet-1000"))
    with pytest.raises(ModelError, match="resnet-1000"):
        predictor.load_predictor(strange, threads=1)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    trusted = profile.load(folders.write(tmp_path))
    trusted.weights_path.unlink()
    with pytest.raises(ModelError, match=r"weights\.safetensors cannot be read"):
        predictor.load_predictor(trusted, threads=1)


def test_a_broken_runtime_is_our_fault_not_the_images(
    loaded: predictor.ProfilePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Network, "activation", fail)
    with pytest.raises(ModelError, match="out of memory"):
        loaded.examine(radiograph(1))
