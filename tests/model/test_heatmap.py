from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray

from cxr_node import heatmap
from cxr_node.model import networks
from tests.builders import around
from tests.model import folders

Float = NDArray[np.float32]


@pytest.fixture(scope="module")
def network() -> networks.Network:
    return folders.lively(labels=2)


def plain_gradcam(network: networks.Network, image: torch.Tensor, label: int) -> Float:
    """The paper's recipe, word for word: forward, backward through everything, hooks on the last layer."""
    seen: list[torch.Tensor] = []

    def keep(_module: object, _inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    hook = network.get_submodule("trunk.18").register_forward_hook(keep)
    network(image)[0, label].backward()
    hook.remove()
    gradient = seen[0].grad
    assert gradient is not None
    alpha = gradient[0].mean(dim=(1, 2))
    return nnf.relu(torch.einsum("k,kij->ij", alpha, seen[0][0].detach())).numpy()


@pytest.mark.parametrize("label", [0, 1])
def test_head_only_gradient_equals_a_full_backward_pass(network: networks.Network, label: int) -> None:
    image = torch.randn(1, 1, 192, 192, generator=torch.Generator().manual_seed(label))
    with torch.no_grad():
        feature_map = network.features(image)
    found = network.activation(feature_map, label)[0].detach().numpy()
    reference = plain_gradcam(network, image, label)
    assert found.shape == (6, 6) and found.dtype == np.float32 and found.max() > 0
    assert np.corrcoef(found.ravel(), reference.ravel())[0, 1] >= 0.999
    np.testing.assert_allclose(found, reference, rtol=1e-4, atol=1e-7)


def test_spreading_agrees_with_torch_where_no_border_was_cut() -> None:
    active = np.random.default_rng(3).random((7, 7), dtype=np.float32)
    expected = nnf.interpolate(torch.from_numpy(active / active.max())[None, None], size=(301, 223), mode="bilinear")
    np.testing.assert_allclose(
        heatmap.on_source_grid(active, (301, 223), around(0.0)), expected[0, 0].numpy(), atol=0.6 / heatmap.LEVELS
    )


def test_a_last_bit_does_not_reach_the_picture() -> None:
    active = np.random.default_rng(4).random((7, 7), dtype=np.float32)
    nudged = np.nextafter(active, np.float32(2.0))
    one, other = (heatmap.on_source_grid(each, (300, 200), around(0.05)).tobytes() for each in (active, nudged))
    assert one == other


def test_the_border_that_the_network_never_saw_has_no_weight() -> None:
    weight = heatmap.on_source_grid(np.ones((7, 7), dtype=np.float32), (200, 100), around(0.1))
    assert (weight[20:180, 10:90] == 1.0).all()
    weight[20:180, 10:90] = 0.0
    assert (weight == 0.0).all()


def test_a_cell_lands_where_it_came_from() -> None:
    active = np.zeros((7, 7), dtype=np.float32)
    active[1, 5] = 2.0
    weight = heatmap.on_source_grid(active, (1000, 500), around(0.05))
    row, column = np.unravel_index(np.argmax(weight), weight.shape)
    assert row + 0.5 == pytest.approx(1000 * (0.05 + 0.9 * 1.5 / 7), abs=1)
    assert column + 0.5 == pytest.approx(500 * (0.05 + 0.9 * 5.5 / 7), abs=1)


def test_nothing_that_raises_the_logit_is_an_empty_map() -> None:
    weight = heatmap.on_source_grid(np.zeros((7, 7), dtype=np.float32), (50, 60), around(0.05))
    assert weight.shape == (50, 60) and not weight.any()


def test_a_breath_of_warmth_is_not_blown_up_to_a_finding() -> None:
    faint = np.full((6, 6), 0.1, dtype=np.float32) * heatmap.SMALLEST_RISE / 36
    faint[2, 2] *= 9.9
    assert not heatmap.on_source_grid(faint, (50, 60), around(0.05)).any()
    faint[2, 2] *= 1.1
    assert heatmap.on_source_grid(faint, (50, 60), around(0.05)).max() > 0.9
