"""A graph's constants need half the place, and no answer moves by a bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cxr_node import resources
from cxr_node.model import graph_file, half_constants, profile
from cxr_node.model.openvino_runtime import OpenVINORuntime, in_float32, ov
from cxr_node.model.torch_runtime import export
from tests.model import folders

ops = ov.opset13
SHIPPED = ("pneumonia-pediatric", "pneumonia-adult")
LARGEST_BYTES = 60_000_000


def convolution(weights: np.ndarray) -> ov.Model:
    image = ops.parameter([1, weights.shape[1], 9, 9], np.float32, name="image")
    seen = ops.convolution(image, ops.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])
    return ov.Model([seen], [image], "one convolution")


def answer(graph: ov.Model) -> np.ndarray:
    shape = [dimension.get_length() for dimension in graph.input(0).partial_shape]
    image = np.random.default_rng(7).standard_normal(shape, dtype=np.float32)
    return np.array(in_float32(graph, 1)([image])[0])


def drawn(seed: int = 5) -> np.ndarray:
    """Weights of a convolution as they are learned: fp16; one channel is of zeros, as training leaves some."""
    learned = np.random.default_rng(seed).standard_normal((8, 3, 3, 3)).astype(np.float16).astype(np.float32)
    learned[4] = 0.0
    return learned


def test_weights_and_factors_are_kept_apart_and_give_the_same_bits() -> None:
    learned = drawn()
    factors = np.random.default_rng(6).uniform(0.01, 30.0, (8, 1, 1, 1)).astype(np.float32)
    expected = answer(convolution(learned * factors))
    graph = convolution(learned * factors)
    assert half_constants.halve(graph, [drawn(9), learned]) == 1
    kept = {each.data.dtype: each.data.size for each in graph.get_ops() if each.get_type_name() == "Constant"}
    assert kept == {np.dtype(np.float16): learned.size, np.dtype(np.float32): len(learned)}
    np.testing.assert_array_equal(answer(graph), expected)


def test_weights_that_nothing_was_multiplied_into_need_no_factors() -> None:
    graph = convolution(drawn())
    assert half_constants.halve(graph, [drawn()]) == 1
    assert [each.data.dtype for each in graph.get_ops() if each.get_type_name() == "Constant"] == [np.float16]


@pytest.mark.parametrize(
    "learned",
    [drawn(9), drawn() + np.float32(1e-6), drawn() * np.float32(1e6), drawn()[:, :2]],
    ids=["others", "finer than fp16", "larger than fp16", "of another shape"],
)
def test_constants_made_of_something_else_stay(learned: np.ndarray) -> None:
    graph = convolution(drawn() * np.float32(3.0))
    assert half_constants.halve(graph, [learned]) == 0
    assert [each.data.dtype for each in graph.get_ops() if each.get_type_name() == "Constant"] == [np.float32]


@pytest.mark.whole
def test_an_exported_network_answers_as_one_with_constants_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {
        name: value.half().to(value.dtype) if value.dim() > 1 else value for name, value in folders.tensors().items()
    }
    made = [profile.load(folders.write(tmp_path / name, content)) for name in ("half", "full")]
    export(made[0])
    monkeypatch.setattr(half_constants, "halve", lambda *_: 0)
    export(made[1])
    sizes = [(each.folder / "network.bin").stat().st_size for each in made]
    assert sizes[0] < 0.6 * sizes[1]
    shown = graph_file.golden_inputs(made[0].input)[:2]
    half, full = (OpenVINORuntime(each, 1).infer(shown) for each in made)
    for part in ("logits", "activation", "signature"):
        np.testing.assert_array_equal(getattr(half, part), getattr(full, part))


def test_both_shipped_profiles_together_have_less_than_60_megabytes() -> None:
    files = [file for name in SHIPPED for file in resources.profile_folder(name).iterdir()]
    assert sum(file.stat().st_size for file in files) < LARGEST_BYTES
    for name in SHIPPED:
        graph = ov.Core().read_model(graph_file.graph(profile.load(resources.profile_folder(name))))
        matrices = [each.data for each in graph.get_ops() if each.get_type_name() == "Constant" and each.data.ndim >= 4]
        whole = [each.nbytes for each in matrices if each.dtype == np.float32]
        assert sum(whole) < 0.1 * sum(each.nbytes for each in matrices), "export it again"
