from __future__ import annotations

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray

from cxr_node.model import gradcam, networks
from tests.model import folders

Float = NDArray[np.float32]
NO_BORDER = (0.0, 0.0)


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
        gradcam.on_source_grid(active, (301, 223), 0.0), expected[0, 0].numpy(), atol=0.6 / gradcam.LEVELS
    )


def test_a_last_bit_does_not_reach_the_picture() -> None:
    active = np.random.default_rng(4).random((7, 7), dtype=np.float32)
    nudged = np.nextafter(active, np.float32(2.0))
    one, other = (gradcam.on_source_grid(each, (300, 200), 0.05).tobytes() for each in (active, nudged))
    assert one == other


def test_the_border_that_the_network_never_saw_has_no_weight() -> None:
    weight = gradcam.on_source_grid(np.ones((7, 7), dtype=np.float32), (200, 100), 0.1)
    assert (weight[20:180, 10:90] == 1.0).all()
    weight[20:180, 10:90] = 0.0
    assert (weight == 0.0).all()


def test_a_cell_lands_where_it_came_from() -> None:
    active = np.zeros((7, 7), dtype=np.float32)
    active[1, 5] = 2.0
    weight = gradcam.on_source_grid(active, (1000, 500), 0.05)
    row, column = np.unravel_index(np.argmax(weight), weight.shape)
    assert row + 0.5 == pytest.approx(1000 * (0.05 + 0.9 * 1.5 / 7), abs=1)
    assert column + 0.5 == pytest.approx(500 * (0.05 + 0.9 * 5.5 / 7), abs=1)


def test_nothing_that_raises_the_logit_is_an_empty_map_without_an_outline() -> None:
    weight = gradcam.on_source_grid(np.zeros((7, 7), dtype=np.float32), (50, 60), 0.05)
    assert weight.shape == (50, 60) and not weight.any()
    assert gradcam.outline(weight, NO_BORDER, weight.shape) == ()


def test_a_breath_of_warmth_is_not_blown_up_to_a_finding() -> None:
    faint = np.full((6, 6), 0.1, dtype=np.float32) * gradcam.SMALLEST_RISE / 36
    faint[2, 2] *= 9.9
    assert not gradcam.on_source_grid(faint, (50, 60), 0.05).any()
    faint[2, 2] *= 1.1
    assert gradcam.on_source_grid(faint, (50, 60), 0.05).max() > 0.9


def test_a_map_that_is_warm_everywhere_points_nowhere() -> None:
    assert gradcam.outline(np.full((9, 8), 0.7, dtype=np.float32), NO_BORDER, (90, 80)) == ()


def test_points_count_from_the_corner_of_the_first_pixel() -> None:
    weight = np.zeros((40, 60), dtype=np.float32)
    weight[10:20, 30:50] = 1.0
    points = np.array(gradcam.outline(weight, NO_BORDER, weight.shape))
    # Half of the way from the centre of the last hot pixel to the centre of the first cold one is their common edge.
    np.testing.assert_allclose(points.min(axis=0), (30.0, 10.0))
    np.testing.assert_allclose(points.max(axis=0), (50.0, 20.0))


def test_a_second_spot_and_a_hole_are_not_outlined() -> None:
    row, column = np.mgrid[:200, :200]
    ring = np.exp(-(((np.hypot(row - 60, column - 60) - 30) / 8) ** 2))
    ring[60, 90] = 1.01  # the peak is on the ring
    other = 0.9 * np.exp(-((row - 160) ** 2 + (column - 160) ** 2) / 200)
    points = np.array(gradcam.outline((ring + other).astype(np.float32), NO_BORDER, ring.shape))
    assert points.max() < 105
    assert np.hypot(*(points - 60.5).T).min() > 30  # the outer edge, not that of the hole


def test_a_large_image_costs_nothing() -> None:
    active = np.random.default_rng(0).random((7, 7), dtype=np.float32)
    started = time.thread_time()
    points = gradcam.outline(gradcam.scaled(active), (0.05, 0.05), (3000, 2500))
    assert time.thread_time() - started < 1.0  # of its own computing, 3 ms; on the grid of the image it is minutes
    assert 4 <= len(points) <= gradcam.MAX_POINTS


@settings(max_examples=60, deadline=None)
@given(
    cells=st.integers(1, 12),
    rows=st.integers(40, 900),
    cols=st.integers(40, 900),
    border=st.floats(0.0, 0.2),
    seed=st.integers(0, 10_000),
)
def test_an_outline_is_a_closed_polygon_on_the_image_round_its_peak(
    cells: int, rows: int, cols: int, border: float, seed: int
) -> None:
    active = np.random.default_rng(seed).random((cells, cells), dtype=np.float32) ** 3
    weight = gradcam.on_source_grid(active, (rows, cols), border)
    assert weight.dtype == np.float32 and weight.shape == (rows, cols)
    assert weight.min() >= 0.0 and weight.max() <= 1.0
    points = gradcam.outline(gradcam.scaled(active), (border, border), (rows, cols))
    if not points:
        assert weight.min() >= 0.4 * weight.max()
        return
    polygon = np.array(points)
    assert points[0] == points[-1]
    assert 4 <= len(points) <= gradcam.MAX_POINTS
    assert (polygon >= 0.0).all() and (polygon <= (cols, rows)).all()
    peak_row, peak_column = np.unravel_index(np.argmax(weight), weight.shape)
    peak = (peak_column + 0.5, peak_row + 0.5)
    # On the edge of the image a peak may lie on the line; the radius grows or shrinks with the sense of rotation.
    assert any(Polygon(turned).contains_point(peak, radius=2.0) for turned in (polygon, polygon[::-1]))


@settings(max_examples=40, deadline=None)
@given(
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    rows=st.integers(40, 700),
    cols=st.integers(40, 700),
    border=st.tuples(st.floats(0.0, 0.2), st.floats(0.0, 0.2)),
    seed=st.integers(0, 10_000),
)
def test_the_outline_of_the_cells_is_that_of_the_map_with_every_pixel_looked_at(
    cells: tuple[int, int], rows: int, cols: int, border: tuple[float, float], seed: int
) -> None:
    scaled = gradcam.scaled(np.random.default_rng(seed).random(cells, dtype=np.float32) ** 2 * 9)
    weight = gradcam.on_source_grid(scaled * 100, (rows, cols), border)
    top, (row, column) = (
        float(weight.max()),
        gradcam._peak(
            *(gradcam.interpolation(*each) for each in zip((rows, cols), cells, border, strict=True)), scaled
        ),
    )
    assert weight[row, column] == pytest.approx(top, abs=1e-6)
    if np.count_nonzero(weight > top - 1e-5) > 1:
        return  # of several equal peaks the first is taken, and rounding decides which that is
    one = gradcam.outline(scaled, border, (rows, cols))
    other = gradcam.outline(weight, NO_BORDER, (rows, cols))
    assert len(one) == len(other)
    np.testing.assert_allclose(np.array(one), np.array(other), atol=0.02)
