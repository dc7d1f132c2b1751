"""A softmax over classes answers one judged question and divides its probability without losing any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit

from cxr_node.domain import Radiograph, View
from cxr_node.errors import ModelError
from cxr_node.model import network as classes
from cxr_node.model import networks, predictor, profile, weights
from cxr_node.model.profile import NetworkSpec
from tests.model import folders

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
    assert isinstance(network, classes.OverClasses)
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
    seen = looked.examine(Radiograph(pixels=pixels, pixel_aspect=1.0, view=View.AP, pixel_sha256=""))
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
