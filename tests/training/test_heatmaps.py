from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cxr_node.model import weights
from cxr_node.model.networks import Network, build
from cxr_node.model.profile import InputSpec, NetworkSpec, Profile, load
from cxr_node.training.data import profile_folder
from cxr_node.training.data.images import Item
from cxr_node.training.saliency import faithfulness, heatmap_tests, localisation
from cxr_node.training.saliency.probe import LARGEST_PX, Probe, case_of
from tests.model import folders
from tests.model.test_lungs import SHIPPED, pixels_of
from tests.shared import shared

LANDED = Path(__file__).parents[2] / "weights" / "pneumonia-pediatric"
CELLS, SIZE_PX = 8, 64
LEARNED = 40.0
"""Logits that one white cell of a lung adds."""


class Watcher(Network):
    """Knows what it looks for: cells brighter than a healthy child's, in the lungs or where it is told to look."""

    layer = "difference"

    def __init__(self, usual: torch.Tensor, where: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("usual", usual)
        self.register_buffer("where", where)
        self.classifier = nn.Linear(2, 1)
        with torch.no_grad():
            self.classifier.weight.copy_(torch.tensor([[LEARNED, 0.0]]))
            self.classifier.bias.fill_(-3.0)

    def early(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(x, CELLS)

    def late(self, early_map: torch.Tensor) -> torch.Tensor:
        whiter = (early_map - self.usual - 0.25).clamp_min(0.0) * self.where
        return torch.cat([whiter, self.where.expand_as(whiter)], dim=1)

    def head(self, feature_map: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.pooled(feature_map))
        return logits


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    loaded = load(folders.write(tmp_path_factory.mktemp("profile")))
    point = replace(loaded.operating_point, report_at=0.6, rule_out_below=0.4)
    return replace(
        loaded, input=InputSpec(size_px=SIZE_PX, border=0.0), operating_point=point, slope=1.0, intercept=0.0
    )


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """A healthy drawn child and an ill one, each some times with other grain: chests, and nobody's."""
    folder = tmp_path_factory.mktemp("drawn")
    found = []
    for name, positive in (("clear-1", False), ("opacity-2", True)):
        pixels = pixels_of(SHIPPED / f"{name}.jpg")[::4, ::4]
        for seed in range(6):
            grain = np.random.default_rng(seed).normal(0.0, 0.01, pixels.shape)
            path = folder / f"{name}-{seed}.png"
            Image.fromarray(np.rint((pixels + grain).clip(0.0, 1.0) * 255.0).astype(np.uint8)).save(path)
            found.append(Item(path=path, positive=positive, kind=name, group=f"{name} {seed}", digest=name))
    return found


def watcher(profile: Profile, items: list[Item], where: str) -> Watcher:
    """A network that looks at the lungs only, or only at what lies outside the chest."""
    case = case_of(next(item for item in items if not item.positive))
    plain = Probe(profile=profile, network=folders.lively()).prepared([case.pixels])
    place = case.chest.lungs if where == "lungs" else ~case.chest.region
    share = nn.functional.adaptive_avg_pool2d(torch.from_numpy(place.astype(np.float32))[None, None], CELLS)
    return Watcher(nn.functional.adaptive_avg_pool2d(plain, CELLS), (share > 0.6).float()).eval()


@pytest.fixture(scope="module")
def measured(profile: Profile, items: list[Item]) -> dict[str, dict[str, dict[str, float]]]:
    return heatmap_tests.measure(profile, watcher(profile, items, "lungs"), items, np.random.default_rng(3))


def value(measured: dict[str, dict[str, dict[str, float]]], name: str) -> float:
    return measured["rates"][name]["value"]


def test_a_network_that_looks_at_lungs_passes(measured: dict[str, dict[str, dict[str, float]]]) -> None:
    assert value(measured, "shown") == 1.0
    assert value(measured, "inside_chest") == 1.0
    assert value(measured, "energy_in_chest") > 0.9 > value(measured, "energy_in_chest_by_chance")
    assert value(measured, "energy_on_marks") < 0.1 * value(measured, "energy_on_marks_by_chance")
    assert value(measured, "opacity_found_nearly") >= 0.8
    assert (
        value(measured, "opacity_found_nearly")
        >= value(measured, "opacity_found")
        > value(measured, "opacity_found_by_chance")
    )
    assert value(measured, "deletion_gain") > 0.02 and value(measured, "insertion_gain") > 0.02


def test_a_network_that_looks_at_the_edges_does_not_pass(
    profile: Profile, items: list[Item], measured: dict[str, dict[str, dict[str, float]]]
) -> None:
    framed = []  # all children lie on a bright sheet now: there is something to see at the edges
    for item in items:
        pixels = pixels_of(item.path)
        pixels[:, : pixels.shape[1] // 10] = 1.0
        path = item.path.with_name(f"framed-{item.path.name}")
        Image.fromarray(np.rint(pixels * 255.0).astype(np.uint8)).save(path)
        framed.append(replace(item, path=path))
    edges = heatmap_tests.measure(profile, watcher(profile, items, "edges"), framed, np.random.default_rng(3))
    assert value(edges, "inside_chest") == 0.0 == value(edges, "peak_in_chest")
    assert value(edges, "energy_in_chest") < 0.3 < value(edges, "energy_in_chest_by_chance")
    assert value(edges, "opacity_found_nearly") == 0.0 == value(edges, "opacity_raises")
    assert value(edges, "energy_on_marks") > 4.0 * value(measured, "energy_on_marks")


def test_figures_are_named_bounded_and_fit_for_json(measured: dict[str, dict[str, dict[str, float]]]) -> None:
    assert set(measured["rates"]) <= set(heatmap_tests.NAMES)
    assert {"inside_chest", "opacity_found", "deletion_gain"} <= set(measured["rates"])
    again = json.loads(json.dumps(measured, allow_nan=False))
    assert again == measured
    for figure in measured["rates"].values():
        assert -1.0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1.0
    assert sum(one["images"] for one in measured["opacities"].values()) == measured["negatives"]
    shares = measured["curves"]["shares"]
    for kind in ("deletion", "insertion", "deletion_random", "insertion_random"):
        assert len(measured["curves"][kind]["value"]) == len(shares)
    assert measured["curves"]["deletion"]["value"][0] == measured["curves"]["insertion"]["value"][-1]


def test_same_chance_same_figures_and_all_steps_are_told(profile: Profile, items: list[Item]) -> None:
    network, told = watcher(profile, items, "lungs"), []
    one = heatmap_tests.measure(profile, network, items, np.random.default_rng(4), lambda: told.append(1))
    assert len(told) == heatmap_tests.steps(items)
    assert one == heatmap_tests.measure(profile, network, items, np.random.default_rng(4))


@pytest.mark.parametrize("positive", [True, False])
def test_one_class_alone_gives_what_it_can(profile: Profile, items: list[Item], positive: bool) -> None:
    some = [item for item in items if item.positive is positive]
    found = heatmap_tests.measure(profile, watcher(profile, items, "lungs"), some, np.random.default_rng(0))
    assert ("inside_chest" in found["rates"]) is positive
    assert ("opacity_found" in found["rates"]) is not positive
    assert found["curves"] == {}


def test_shuffled_weights_change_the_map(profile: Profile) -> None:
    probe = Probe(profile=profile, network=folders.lively())
    before = {name: tensor.clone() for name, tensor in probe.network.state_dict().items()}
    inputs = torch.randn(4, 1, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1))
    found = faithfulness.likeness(probe, inputs, probe.explain(inputs), np.random.default_rng(0), lambda: None)
    assert set(found) == {"other image", *faithfulness.STAGES}
    assert found["all layers"]["spearman"].mean() < 0.6
    assert (np.abs(found["all layers"]["ssim"]) < 0.99).all()
    assert all(torch.equal(before[name], tensor) for name, tensor in probe.network.state_dict().items())


def test_the_last_layer_is_shuffled_so_often_that_chance_hardly_moves_its_figure(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Probe(profile=profile, network=folders.lively())
    inputs = torch.randn(4, 1, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1))
    looks = probe.explain(inputs)
    monkeypatch.setattr(faithfulness, "STAGES", {"last layer": 0.0})

    def spread(draws: int) -> float:
        monkeypatch.setattr(faithfulness, "DRAWS", draws)
        found = [
            faithfulness.likeness(probe, inputs, looks, np.random.default_rng(seed), lambda: None) for seed in range(3)
        ]
        return float(np.ptp([one["last layer"]["spearman"].mean() for one in found]))

    once = spread(1)
    assert spread(30) < once / 3.0


def test_only_layers_behind_the_logit_are_shuffled(profile: Profile) -> None:
    network = folders.lively()
    network.other_head = nn.Linear(1280, 1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    layers = faithfulness.layers_behind(Probe(profile=profile, network=network), torch.randn(1, 1, SIZE_PX, SIZE_PX))
    assert layers[0] == "trunk.0.0" and layers[-1] == "classifier" and "other_head" not in layers
    faithfulness.shuffle(network, layers[-1:], torch.Generator().manual_seed(0))
    moved = [name for name, tensor in network.state_dict().items() if not torch.equal(before[name], tensor)]
    assert moved == ["classifier.weight"]
    assert torch.equal(network.get_parameter("classifier.weight").sort()[0], before["classifier.weight"].sort()[0])


def test_a_frozen_second_opinion_is_not_shuffled(profile: Profile) -> None:
    network = build(NetworkSpec(architecture="mobilenet-v2-second", options={"second_px": SIZE_PX}), 1).eval()
    layers = faithfulness.layers_behind(Probe(profile=profile, network=network), torch.randn(1, 1, SIZE_PX, SIZE_PX))
    assert layers[-1] == "classifier" and any(name.startswith("trunk.") for name in layers)
    assert not [name for name in layers if name.startswith("second.")]


def test_likeness_of_maps() -> None:
    ramp = np.arange(36, dtype=np.float32).reshape(6, 6)
    assert faithfulness.spearman(ramp, ramp**2) == pytest.approx(1.0)
    assert faithfulness.spearman(ramp, -ramp) == pytest.approx(-1.0)
    assert faithfulness.spearman(ramp, np.zeros_like(ramp)) == 0.0
    assert faithfulness.ssim(ramp, 3.0 * ramp) == pytest.approx(1.0)
    assert faithfulness.ssim(ramp, ramp[::-1]) < 0.5


def test_deletion_takes_the_warmest_first() -> None:
    assert faithfulness.area(np.array([[1.0] * 7, [0.0] * 6 + [1.0]])) == pytest.approx([1.0, 1.0 / 12.0])
    rank = faithfulness._rank(np.array([[0.0, 1.0], [0.0, 0.0]], dtype=np.float32), 8)
    assert rank[0, :2, 6:].max() < 4 / 64 and rank.max() < 1.0 and len(rank.unique()) == 64
    mixed = faithfulness._mixed(torch.ones(1, 8, 8), torch.zeros(1, 8, 8), rank)
    assert mixed.mean(dim=(1, 2, 3)).numpy() == pytest.approx(faithfulness.SHARES[1:-1], abs=1 / 64)


def test_large_radiographs_are_made_smaller(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.tile(np.arange(0, 250, dtype=np.uint8), (1000, 3))).save(path)
    case = case_of(Item(path=path, positive=True, kind="", group="", digest=""))
    assert max(case.pixels.shape) == LARGEST_PX and case.pixels.shape[0] > case.pixels.shape[1]
    assert case.chest.region.shape == case.pixels.shape


@pytest.mark.whole
@pytest.mark.shared
def test_the_landed_profile_can_be_asked() -> None:
    """The landed profile's maps, on a handful of radiographs: every figure is there; what they say is in its card."""
    profile = load(LANDED)
    items, _ = profile_folder.held_out(LANDED, shared("data", "kermany224"), None, default="validation")
    few = [item for item in items if item.positive][:8] + [item for item in items if not item.positive][:8]
    network, _ = weights.load(profile.weights_path, profile.network, len(profile.labels))
    found = heatmap_tests.measure(profile, network, few, np.random.default_rng(0))
    assert found["positives"] == found["negatives"] == 8
    assert value(found, "energy_in_chest_by_chance") == pytest.approx(0.62, abs=0.15)
    assert localisation.INSIDE == 0.8 and 0.0 <= value(found, "inside_chest") <= 1.0
