"""TorchXRayVision's published form: network, op-norm and input, against a second reading of its source."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cxr_node.model import preprocess, torchxrayvision
from cxr_node.model.networks import XrvDenseNet121
from cxr_node.model.profile import InputSpec, Normalisation
from tests.model import xrv_states

SPEC = InputSpec(size_px=224, border=0.0, normalisation=Normalisation.XRV)
RECORDED = [
    [-28.95, 230.64, -415.96, 566.0],
    [-40.69, 324.24, -584.75, 795.67],
    [-19.72, 157.1, -283.33, 385.52],
    [16.14, -128.58, 231.89, -315.54],
]
"""Every 74th row and column."""


def network() -> XrvDenseNet121:
    built = XrvDenseNet121(18)
    built.load_state_dict({name.replace("features.", "trunk.", 1): v for name, v in xrv_states.state().items()})
    return built.eval()


def test_names_and_shapes_are_the_published_ones() -> None:
    ours = {name.replace("trunk.", "features.", 1): tuple(v.shape) for name, v in network().state_dict().items()}
    assert ours == xrv_states.shapes()
    assert len(ours) == 727


def test_logits_are_the_reference_s() -> None:
    images = (torch.rand(2, 1, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1) * 1024
    with torch.no_grad():
        expected, found = xrv_states.reference(xrv_states.state(), images), network()(images)
    assert expected.std() > 0.3  # a dead network would agree with anything
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_op_norm_by_hand() -> None:
    """Two straight lines through (0, 0), (threshold, 0.5), (1, 1); 0.5 where nothing was trained."""
    found = torchxrayvision.op_norm(np.array([[0.1, 0.2, 0.6, 0.9], [0.0, 1.0, 0.05, 0.3]]), [0.2, 0.2, 0.2, None])
    # 0.1 / 0.4; at the threshold; 1 - 0.4 / 1.6; untrained   0; 1; 0.05 / 0.4; untrained
    np.testing.assert_allclose(found, [[0.25, 0.5, 0.75, 0.5], [0.0, 1.0, 0.125, 0.5]])


def test_op_norm_of_the_published_threshold_for_pneumonia() -> None:
    """By hand: 0.03 / (2 * 0.056810737) = 0.264035, 1 - 0.7 / (2 * 0.943189263) = 0.628918."""
    thresholds = torchxrayvision.OP_THRESHOLDS["densenet121-res224-all"]
    at = torchxrayvision.LABELS.index("Pneumonia")
    assert thresholds[at] == 0.056810737
    scores = torchxrayvision.op_norm(np.array([0.03, 0.3]), [thresholds[at]] * 2)
    assert scores.tolist() == pytest.approx([0.264035, 0.628918], abs=1e-6)


def test_every_published_weight_has_a_threshold_for_each_of_18_labels() -> None:
    assert len(torchxrayvision.LABELS) == len(set(torchxrayvision.LABELS)) == 18
    assert len(torchxrayvision.OP_THRESHOLDS) == 7
    for thresholds in torchxrayvision.OP_THRESHOLDS.values():
        assert len(thresholds) == 18
        assert all(math.isnan(value) or 0 < value < 1 for value in thresholds)


@pytest.mark.parametrize(
    ("file_name", "weights"),
    [
        ("nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt", "all"),
        ("kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.state.pt", "rsna"),
        ("chex-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt", "chex"),
        ("state.pt", None),
    ],
)
def test_published_files_are_known_by_their_names(file_name: str, weights: str | None) -> None:
    assert torchxrayvision.published_as(file_name) == (weights and f"densenet121-res224-{weights}")


def picture(rows: int, cols: int) -> NDArray[np.float32]:
    y, x = np.mgrid[:rows, :cols]
    return (0.5 + 0.5 * np.sin(x / 17.0) * np.cos(y / 23.0)).astype(np.float32)


def test_an_image_of_the_networks_size_is_only_scaled() -> None:
    pixels = picture(224, 224)
    np.testing.assert_allclose(preprocess.prepare(pixels, SPEC), pixels * 2048 - 1024, atol=2e-4)


def test_larger_images_are_shrunk_as_scikit_image_does() -> None:
    """Recorded from torchxrayvision 1.5.7, scikit-image 0.26: XRayResizer(224)(XRayCenterCrop()(normalize(...)))."""
    found = preprocess.prepare(picture(610, 500), SPEC)
    np.testing.assert_allclose(found[::74, ::74], RECORDED, atol=0.05)
    assert np.cbrt((found.astype(np.float64) ** 3).mean()) == pytest.approx(-131.20845, abs=0.05)


@pytest.mark.parametrize(
    ("shape", "place"), [((610, 500), (55, 0, 500)), ((301, 400), (0, 50, 301)), ((9, 9), (0, 0, 9))]
)
def test_the_central_square_is_seen(shape: tuple[int, int], place: tuple[int, int, int]) -> None:
    assert torchxrayvision.square(shape) == place
    border = preprocess.borders(np.zeros(shape, np.float32), SPEC)
    assert np.array(border) == pytest.approx(np.array([[place[0]] * 2, [place[1]] * 2]) / np.array(shape)[:, None])


def test_views_keep_the_range_and_begin_with_the_image() -> None:
    prepared = preprocess.prepare(picture(300, 300), SPEC)
    shown = preprocess.views(prepared[None], SPEC)
    assert shown.shape == (len(SPEC.views), 1, 224, 224)
    assert np.array_equal(shown[0, 0], prepared)
    assert np.abs(shown).max() <= 1024
    assert all(np.abs(view - shown[0]).mean() > 1 for view in shown[1:])


def test_a_border_is_not_cut_from_what_the_authors_saw_whole() -> None:
    with pytest.raises(ValueError, match="border must be 0"):
        InputSpec(size_px=224, border=0.05, normalisation=Normalisation.XRV)
