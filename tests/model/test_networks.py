"""Each architecture offers what Grad-CAM and the distance need; a softmax over classes answers one judged question."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from scipy.special import expit

from cxr_node import heatmap
from cxr_node.domain import Radiograph, View
from cxr_node.errors import ModelError
from cxr_node.model import efficientnet_lite, networks, ood_distance, predictor, profile, weights
from cxr_node.model.imagenet import begin_from
from cxr_node.model.network import Network, OverClasses
from cxr_node.model.networks import ARCHITECTURES, MobileNetV2Second, MobileNetV2Shaped, build
from cxr_node.model.profile import NetworkSpec
from tests.builders import around
from tests.model import folders

PLAIN = sorted(set(ARCHITECTURES) - {"mobilenet-v2-second", "mobilenet-v2-shaped"})
"""Those whose maps hold nothing but features."""


@cache
def built(architecture: str, labels: int = 1) -> Network:
    """One of each for all tests that only read it: drawing the weights of a ResNet50 takes half a second."""
    return build(NetworkSpec(architecture=architecture), labels).eval()


def film(architecture: str, count: int, size_px: int = 64) -> torch.Tensor:
    """As many pictures of each as the network sees."""
    return torch.randn(count, 2 if architecture == "mobilenet-v2-shaped" else 1, size_px, size_px)


@pytest.mark.parametrize("architecture", PLAIN)
@pytest.mark.parametrize("labels", [1, 2])
def test_forward_is_head_of_features(architecture: str, labels: int) -> None:
    network = built(architecture, labels)
    x = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        feature_map = network.features(x)
        logits = network.head(feature_map)
        assert feature_map.dim() == 4
        assert len(feature_map) == 2
        assert logits.shape == (2, labels)
        torch.testing.assert_close(network(x), logits)
        assert network.pooled(feature_map).shape == feature_map.shape[:2]
        early_map = network.early(x)
        torch.testing.assert_close(network.late(early_map), feature_map)
        assert network.signature(early_map).shape == (2, 2 * early_map.shape[1])
    assert network.layer


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"simple-cnn"}))
def test_head_averages_so_that_its_gradient_is_flat(architecture: str) -> None:
    network = built(architecture)
    feature_map = network.features(film(architecture, 1)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.head(feature_map).sum(), feature_map)
    torch.testing.assert_close(gradient, gradient[..., :1, :1].expand_as(gradient))
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("architecture", PLAIN)
def test_importance_is_the_gradient_averaged_over_the_image(architecture: str) -> None:
    torch.manual_seed(3)
    network = built(architecture, 2)
    shape = network.features(torch.zeros(1, 1, 64, 64)).shape[1:]
    feature_map = torch.rand(3, *shape).requires_grad_()
    for label in (0, 1):
        (gradient,) = torch.autograd.grad(network.head(feature_map)[:, label].sum(), feature_map)
        torch.testing.assert_close(
            network.importance(feature_map, label), gradient.mean(dim=(2, 3)), rtol=1e-4, atol=1e-9
        )


Passed = tuple[Network, torch.Tensor, torch.Tensor]
"""A network, and its two maps of some films."""


def assert_the_rest_is_alike(whole: Passed, alone: Passed) -> None:
    """All but the logit is that of the network without the further opinion."""
    (one, early, late), (other, first, features) = whole, alone
    torch.testing.assert_close(one.signature(early), other.signature(first))
    torch.testing.assert_close(one.strangeness(late), other.strangeness(features))
    torch.testing.assert_close(one.evidence(late), other.evidence(features))
    for label in (0, 1):
        torch.testing.assert_close(one.activation(late, label), other.activation(features, label))
        torch.testing.assert_close(one.importance(late, label), other.importance(features, label))


def test_a_second_opinion_is_added_to_the_logit_and_to_nothing_else() -> None:
    torch.manual_seed(3)
    options = {"stride": 16, "outsider": True}
    whole = build(NetworkSpec(architecture="mobilenet-v2-second", options=options | {"second_px": 64}), 2)
    assert isinstance(whole, MobileNetV2Second)
    alone = build(NetworkSpec(architecture="mobilenet-v2", options=options), 2).eval()
    alone.load_state_dict({name: value for name, value in whole.state_dict().items() if not name.startswith("second.")})
    whole.train()
    assert not any(module.training for module in whole.second.modules())
    assert not any(parameter.requires_grad for parameter in whole.second.parameters())
    x = torch.randn(3, 1, 96, 96)
    with torch.inference_mode():
        early, first = whole.eval().early(x), alone.early(x)
        late, features = whole.late(early), alone.late(first)
        opinion = whole.second(x)
        assert opinion.shape == (3, 1) and opinion.std() > 0
        torch.testing.assert_close(whole(x), alone(x) + opinion)
        assert_the_rest_is_alike((whole, early, late), (alone, first, features))


def test_a_third_opinion_sees_the_film_in_its_shape_and_is_added_to_nothing_else() -> None:
    torch.manual_seed(3)
    options = {"stride": 16, "outsider": True, "second_px": 64}
    whole = build(NetworkSpec(architecture="mobilenet-v2-shaped", options=options | {"size_px": 96}), 2)
    assert isinstance(whole, MobileNetV2Shaped)
    both = build(NetworkSpec(architecture="mobilenet-v2-second", options=options), 2).eval()
    both.load_state_dict({name: value for name, value in whole.state_dict().items() if not name.startswith("third.")})
    whole.train()
    assert not any(module.training for module in whole.third.modules())
    assert not any(parameter.requires_grad for parameter in whole.third.parameters())
    squashed, shaped = torch.randn(3, 1, 96, 96), torch.randn(3, 1, 128, 128)
    x = torch.cat([nnf.pad(squashed, (0, 32, 0, 32), value=7.0), shaped], dim=1)  # nobody looks beyond the corner
    with torch.inference_mode():
        early, before = whole.eval().early(x), both.early(squashed)
        late, features = whole.late(early), both.late(before)
        opinion = whole.third(shaped)
        assert opinion.shape == (3, 1) and opinion.std() > 0
        torch.testing.assert_close(whole(x), both(squashed) + opinion)
        assert_the_rest_is_alike((whole, early, late), (both, before, features))


def test_stride_16_gives_four_times_the_cells_from_the_same_parameters() -> None:
    coarse = build(NetworkSpec(architecture="mobilenet-v2"), 1).eval()
    fine = build(NetworkSpec(architecture="mobilenet-v2", options={"stride": 16}), 1).eval()
    fine.load_state_dict(coarse.state_dict())
    x = torch.randn(1, 1, 128, 128)
    with torch.inference_mode():
        few, many = coarse.features(x), fine.features(x)
    assert (few.shape[-1], many.shape[-1]) == (4, 8)
    torch.testing.assert_close(many[..., 2:-2:2, 2:-2:2], few[..., 1:-1, 1:-1], atol=1e-3, rtol=1e-2)


def test_stride_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ModelError, match="stride must be 16 or 32, not 8"):
        build(NetworkSpec(architecture="mobilenet-v2", options={"stride": 8}), 1)


def test_evidence_of_the_cells_adds_up_to_the_logit() -> None:
    network = build(NetworkSpec(architecture="mobilenet-v2", options={"outsider": True}), 2).eval()
    feature_map = torch.rand(3, 1280, 4, 4)
    with torch.inference_mode():
        evidence = network.evidence(feature_map)
        torch.testing.assert_close(evidence.mean(dim=(2, 3)) + network.classifier.bias, network.head(feature_map))
        assert network.strangeness(feature_map).shape == (3,)


def test_strangeness_is_none_where_it_was_not_learned() -> None:
    network = build(NetworkSpec(architecture="mobilenet-v2"), 1)
    assert not network.learns_outsiders
    assert network.strangeness(torch.rand(1, 1280, 2, 2)) is None


def test_a_dense_head_has_a_gradient_everywhere() -> None:
    network = build(NetworkSpec(architecture="simple-cnn"), 1).eval()
    feature_map = network.features(torch.randn(1, 1, 64, 64)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.head(feature_map).sum(), feature_map)
    assert (gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_its_map_reaches_the_source_grid(architecture: str) -> None:
    torch.manual_seed(3)
    network = built(architecture)
    feature_map = network.features(film(architecture, 1, 96)).detach()
    active = network.activation(feature_map, 0)[0].detach().numpy()
    assert active.shape == feature_map.shape[2:]
    assert heatmap.on_source_grid(active * 1e9, (50, 70), border=around(0.04)).shape == (50, 70)


THREE = {"normal": False, "bacteria": True, "virus": True}


@pytest.mark.parametrize(
    ("architecture", "classes"), [*((name, {}) for name in ARCHITECTURES), ("mobilenet-v2", THREE)]
)
def test_weights_come_back_as_they_were_saved(architecture: str, classes: dict[str, bool], tmp_path: Path) -> None:
    spec, labels = NetworkSpec(architecture=architecture, classes=classes), 1 + len(classes)
    network = build(spec, labels).eval() if classes else built(architecture)
    stats = ood_distance.fit(torch.rand(40, 8).numpy(), np.arange(40) % 2)  # as wide as a ResNet50 it takes seconds
    weights.save(tmp_path / "w.safetensors", network, stats)
    again, found = weights.load(tmp_path / "w.safetensors", spec, labels)
    assert found.keys() == stats.keys() and all(np.array_equal(found[name], stats[name]) for name in stats)
    x = film(architecture, 2)
    with torch.inference_mode():
        assert not again.training
        torch.testing.assert_close(again(x), network(x), atol=0.02, rtol=0.02)  # matrices are kept as fp16


def test_a_hidden_layer_is_an_option() -> None:
    network = build(NetworkSpec(architecture="mobilenet-v2", options={"hidden": 128, "dropout": 0.5}), 1).eval()
    assert network.get_parameter("classifier.0.weight").shape == (128, 1280)
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 1)


def test_unknown_architecture_names_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"'alexnet' is unknown; this version builds .*mobilenet-v2"):
        build(NetworkSpec(architecture="alexnet"), 1)


def test_unknown_option_is_an_error() -> None:
    with pytest.raises(ModelError, match="do not fit architecture 'mobilenet-v2'"):
        build(NetworkSpec(architecture="mobilenet-v2", options={"depth": 3}), 1)


def test_imagenet_trunk_is_taken_over_in_fp32(tmp_path: Path) -> None:
    source = build(NetworkSpec(architecture="mobilenet-v2"), 1)
    stored = {f"features.{name}": value.half() for name, value in source.trunk.state_dict().items()}
    torch.save(stored, tmp_path / "trunk.pt")
    network = build(NetworkSpec(architecture="mobilenet-v2"), 1)
    begin_from(network, tmp_path / "trunk.pt")
    first = next(network.parameters())
    assert first.dtype == torch.float32
    torch.testing.assert_close(first, next(source.parameters()), atol=1e-3, rtol=1e-3)


def test_a_b0_begins_with_the_features_of_a_lite0_and_open_gates(tmp_path: Path) -> None:
    source = build(NetworkSpec(architecture="efficientnet-lite0"), 1)
    torch.save({name: value.half() for name, value in source.trunk.state_dict().items()}, tmp_path / "lite0.pt")
    network = build(NetworkSpec(architecture="efficientnet-b0"), 1).eval()
    begin_from(network, tmp_path / "lite0.pt")
    lite, b0 = source.trunk.blocks, network.trunk
    pairs = [
        (source.trunk.conv_stem, b0[0][0]),
        (lite[0][0].conv_dw, b0[1][0].block[0][0]),
        (lite[3][1].conv_pw, b0[4][1].block[0][0]),
        (lite[5][3].conv_dw, b0[6][3].block[1][0]),
        (lite[6][0].conv_pwl, b0[7][0].block[3][0]),
        (source.trunk.conv_head, b0[8][0]),
    ]
    for lent, own in pairs:
        torch.testing.assert_close(own.weight, lent.weight, atol=1e-3, rtol=1e-3)
    x = torch.randn(2, 96, 8, 8)
    torch.testing.assert_close(b0[2][0].block[2](x), x * torch.sigmoid(torch.tensor(4.0)))


def test_foreign_trunk_is_refused(tmp_path: Path) -> None:
    network = build(NetworkSpec(architecture="mobilenet-v2"), 1)
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pt")
    (tmp_path / "garbage.pt").write_bytes(b"no torch file")
    with pytest.raises(ModelError, match="does not hold the trunk"):
        begin_from(network, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="does not hold the trunk"):
        begin_from(network, tmp_path / "garbage.pt")
    with pytest.raises(ModelError, match="cannot be read"):
        begin_from(network, tmp_path / "missing.pt")


CLASSES = {"normal": False, "bacteria": True, "virus": True}
SPEC = NetworkSpec(architecture="simple-cnn", classes=CLASSES)


def lively() -> networks.Network:
    torch.manual_seed(4)
    network = networks.build(SPEC, 4).eval()
    with torch.no_grad():
        network.get_parameter("inner.classifier.3.weight").normal_(std=2.0)
    return network


def profile_folder(folder: Path) -> Path:
    network = lively()
    features = np.random.default_rng(1).random((60, 64), dtype=np.float32)
    weights.save(folder / "weights.safetensors", network, folders.ood_distance.fit(features, np.arange(60) % 2))
    described = folders.DESCRIBED.model_copy(update={"network": SPEC, "labels": ["pneumonia", *CLASSES]})
    profile.write(folder, described, folders.CALIBRATED)
    return folder


def test_the_judged_logit_is_that_of_all_positive_classes() -> None:
    network = lively()
    assert isinstance(network, OverClasses)
    feature_map = network.features(torch.randn(5, 1, 64, 64))
    softmax = network.inner.head(feature_map).softmax(dim=1)  # (5, classes)
    answers = torch.sigmoid(network.head(feature_map))
    torch.testing.assert_close(answers[:, 0], softmax[:, 1] + softmax[:, 2])
    torch.testing.assert_close(answers[:, 1:], softmax)


def test_a_divided_probability_is_whole() -> None:
    logits = np.array([-1.0, 0.5, 2.0], dtype=np.float32)
    shares = predictor.divided(0.7, logits, [False, True, True])
    assert float(shares[0]) == pytest.approx(0.3)
    assert float(shares[1:].sum()) == pytest.approx(0.7)
    assert float(shares[2] / shares[1]) == pytest.approx(float(expit(logits[2]) / expit(logits[1])))


def test_a_class_that_is_certain_loses_nothing() -> None:
    shares = predictor.divided(1.0, np.array([-200.0, 200.0], dtype=np.float32), [False, True])
    assert np.isfinite(shares).all()
    assert float(shares.sum()) == pytest.approx(1.0)


def test_a_prediction_names_the_classes_and_the_map_is_of_the_judged_label(tmp_path: Path) -> None:
    looked = predictor.load_predictor(profile.load(profile_folder(tmp_path)), threads=1)
    pixels = np.random.default_rng(0).random((80, 80), dtype=np.float32)
    seen = looked.examine(Radiograph(pixels=pixels, pixel_aspect=1.0, view=View.AP, pixel_digest=""))
    assert list(seen.prediction.probability) == ["pneumonia"]
    shares = seen.prediction.classes
    assert list(shares) == ["normal", "bacteria", "virus"]
    assert shares["bacteria"] + shares["virus"] == pytest.approx(seen.prediction.probability["pneumonia"])
    assert sum(shares.values()) == pytest.approx(1.0)
    assert seen.heatmap.label == "pneumonia"


@pytest.mark.parametrize("label", [0, 1, 2, 3])
def test_importance_is_the_gradient_of_the_softmax_answers(label: int) -> None:
    network = lively()
    feature_map = network.features(torch.rand(2, 1, 64, 64)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.head(feature_map)[:, label].sum(), feature_map)
    torch.testing.assert_close(network.importance(feature_map, label), gradient.mean(dim=(2, 3)), rtol=1e-4, atol=1e-7)


def test_labels_that_do_not_name_the_classes_are_refused(tmp_path: Path) -> None:
    folder = profile_folder(tmp_path)
    text = (folder / "profile.yaml").read_text("utf-8").replace("- virus", "- fungus")
    (folder / "profile.yaml").write_text(text, "utf-8")
    with pytest.raises(ModelError, match=r"labels must be the judged label and then network\.classes"):
        profile.load(folder)


def test_a_number_of_labels_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="3 classes give 4 labels, not 1"):
        networks.build(SPEC, 1)


def test_strided_layers_of_lite0_pad_as_tensorflow_does() -> None:
    """For an even side, one column more at the end and none at the start."""
    conv = efficientnet_lite._Conv(1, 1, 3, 2)
    torch.nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 8, 8)
    x[..., 1] = 1.0
    with torch.inference_mode():
        seen = conv(x)
    assert seen.shape == (1, 1, 4, 4)
    assert seen[0, 0, 0].tolist() == [3.0, 0.0, 0.0, 0.0]  # windows that begin a column earlier would be two


def test_stride_16_without_dilation_is_another_network_of_the_same_parameters() -> None:
    options = [{"stride": 16}, {"stride": 16, "dilated": False}]
    dilated, near = (build(NetworkSpec(architecture="mobilenet-v2", options=each), 1).eval() for each in options)
    near.load_state_dict(dilated.state_dict())
    x = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        one, other = dilated.features(x), near.features(x)
    assert one.shape == other.shape
    assert not torch.allclose(one, other, atol=0.0)  # drawn weights give tiny maps
