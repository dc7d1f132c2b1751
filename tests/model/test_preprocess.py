"""One golden array pins the preprocessing that training and serving share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from cxr_node.model import preprocess
from cxr_node.model.preprocess import pictures, prepare, standardise, views
from cxr_node.model.profile import InputSpec, Normalisation, Shown

SPEC = InputSpec(size_px=32, border=0.04)
GOLDEN_GRID = [
    [0.72044, 0.56513, 0.71652, 0.60055],
    [0.70024, -1.10692, 0.55354, -0.80891],
    [0.67442, -2.65928, 0.34294, -2.51633],
    [0.72318, -0.65911, 0.76468, -0.25769],
]
"""Every eighth row and column."""
GOLDEN_SUM_OF_CUBES = -1280.1356


def drawn(rows: int, cols: int) -> NDArray[np.float32]:
    """Draw a smooth picture that looks the same at any size: two dark lungs on a bright ground."""
    y, x = ((np.arange(n) + 0.5) / n for n in (rows, cols))
    lungs = sum(np.exp(-(((y[:, None] - 0.5) / 0.25) ** 2) - ((x[None] - c) / 0.12) ** 2) for c in (0.3, 0.7))
    return np.asarray(0.8 - 0.6 * lungs + 0.1 * y[:, None] * x[None], dtype=np.float32)


def test_golden_array() -> None:
    prepared = prepare(drawn(150, 110), SPEC)
    np.testing.assert_allclose(prepared[::8, ::8], GOLDEN_GRID, atol=2e-5)
    assert float((prepared.astype(np.float64) ** 3).sum()) == pytest.approx(GOLDEN_SUM_OF_CUBES, abs=2e-2)


def test_output_is_standardised() -> None:
    prepared = prepare(drawn(300, 200), SPEC)
    assert prepared.shape == (32, 32)
    assert prepared.dtype == np.float32
    assert float(prepared.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(prepared.std()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("size", [(224, 224), (1200, 900), (3000, 2500)])
def test_an_original_and_its_copy_give_the_same_input(size: tuple[int, int]) -> None:
    np.testing.assert_allclose(prepare(drawn(*size), SPEC), prepare(drawn(448, 448), SPEC), atol=0.02)


@pytest.mark.parametrize("shape", [(1024, 1024), (2500, 2000), (3000, 2501), (5200, 210), (210, 5200)])
@pytest.mark.parametrize("spec", [InputSpec(size_px=224, border=0.04), InputSpec(size_px=320, border=0.0)])
def test_a_large_image_is_averaged_with_pillows_weights(
    shape: tuple[int, int], spec: InputSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On noise, where every weight shows; half a millionth is the rounding of float32."""
    noise = np.random.default_rng(5).random(shape, dtype=np.float32)
    assert noise.size >= preprocess.LARGE_PX
    found = preprocess.cut_and_resize(noise, spec)
    monkeypatch.setattr(preprocess, "LARGE_PX", noise.size + 1)
    pillows = preprocess.cut_and_resize(noise, spec)
    assert found.dtype == pillows.dtype == np.float32 and found.flags.c_contiguous
    assert np.abs(found - pillows).max() <= 5e-7


def test_an_image_of_training_is_pillows_to_the_last_bit() -> None:
    noise, spec = np.random.default_rng(6).random((320, 288), dtype=np.float32), InputSpec(size_px=224, border=0.05)
    kept = (0.05 * 288, 0.05 * 320, 0.95 * 288, 0.95 * 320)
    pillows = Image.fromarray(noise).resize((224, 224), Image.Resampling.BILINEAR, box=kept)
    assert np.array_equal(preprocess.cut_and_resize(noise, spec), np.asarray(pillows))


def test_fine_detail_is_averaged_not_sampled() -> None:
    image = drawn(640, 640)
    stripes = np.where(np.arange(640) % 2, 0.1, -0.1).astype(np.float32)
    np.testing.assert_allclose(prepare(image + stripes, SPEC), prepare(image, SPEC), atol=0.02)


def test_brightness_and_contrast_do_not_matter() -> None:
    image = drawn(224, 224)
    np.testing.assert_allclose(prepare(image * 0.3 + 0.2, SPEC), prepare(image, SPEC), atol=1e-3)


def test_letters_do_not_set_the_scale() -> None:
    image, lettered = drawn(224, 224), drawn(224, 224)
    lettered[20:40, 20:30] = 5.0
    difference = np.abs(prepare(lettered, SPEC) - prepare(image, SPEC))
    assert float(np.median(difference)) < 0.1


def test_border_is_cut() -> None:
    framed = drawn(200, 200)  # 8 pixels are cut; the averaging filter reaches back over less than half of them
    framed[:4], framed[-4:], framed[:, :4], framed[:, -4:] = 0.0, 1.0, 0.0, 1.0
    np.testing.assert_array_equal(prepare(framed, SPEC), prepare(drawn(200, 200), SPEC))


def test_constant_image_becomes_zeros() -> None:
    prepared = prepare(np.full((200, 200), 0.5, np.float32), SPEC)
    np.testing.assert_allclose(prepared, 0.0, atol=1e-2)


def test_standardise_treats_each_image_alone() -> None:
    batch = np.stack([drawn(64, 64), drawn(64, 64) ** 2])
    both, alone = standardise(batch), standardise(batch[1:])
    np.testing.assert_array_equal(both[1:], alone)


def test_views_keep_the_image_first_and_change_the_others() -> None:
    prepared = prepare(drawn(224, 224), SPEC)
    shown = views(prepared[None], SPEC)
    assert shown.shape == (len(SPEC.views), 1, 32, 32)
    np.testing.assert_array_equal(shown[0, 0], prepared)
    for view in shown[1:, 0]:
        assert 0.01 < float(np.abs(view - shown[0, 0]).mean()) < 0.5
        assert float(view.mean()) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("spec", [SPEC, InputSpec(size_px=32, border=0.0, normalisation=Normalisation.XRV)])
def test_fewer_views_are_the_same_views(spec: InputSpec) -> None:
    prepared = prepare(drawn(224, 224), spec)
    every = dict(zip(Shown, views(prepared[None], spec), strict=True))
    for some in ((Shown.PLAIN, Shown.CLOSER), (Shown.PLAIN, Shown.BRIGHTER, Shown.BLURRED)):
        shown = views(prepared[None], spec.model_copy(update={"views": some}))
        np.testing.assert_array_equal(shown, np.stack([every[view] for view in some]))


@pytest.mark.parametrize(
    "some", [[], ["plain"], ["closer", "plain"], ["plain", "closer", "closer"], ["plain", "mirrored"]]
)
def test_views_that_could_not_disagree_or_be_explained_are_refused(some: list[str]) -> None:
    with pytest.raises(ValidationError, match="views"):
        InputSpec.model_validate({"size_px": 32, "border": 0.0, "views": some})


def test_numpy_says_what_torch_said_when_the_weights_were_trained() -> None:
    """Training began with torch's own operations; calibrations fitted on them hold, for the views are the same."""
    prepared = prepare(drawn(224, 224) + np.random.default_rng(7).random((224, 224), dtype=np.float32) * 0.1, SPEC)
    plain = torch.from_numpy(prepared)[None, None]
    closer = nnf.interpolate(plain[..., 1:31, 1:31], size=(32, 32), mode="bilinear", align_corners=False)
    blurred = nnf.avg_pool2d(nnf.pad(plain, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    brighter = ((plain - plain.min()) / (plain.max() - plain.min())) ** 0.8
    expected = standardised_by_torch(torch.cat([closer, blurred, brighter])[:, 0])
    np.testing.assert_allclose(views(prepared[None], SPEC)[1:, 0], expected.numpy(), atol=2e-5)


def standardised_by_torch(images: torch.Tensor) -> torch.Tensor:
    means = nnf.avg_pool2d(images[:, None], 2).flatten(1)
    low, high = torch.quantile(means, torch.tensor([0.02, 0.98]), dim=1)
    clipped = images.clamp(low[:, None, None], high[:, None, None])
    spread, centre = torch.std_mean(clipped, dim=(1, 2), correction=0, keepdim=True)
    return (clipped - centre) / spread


def test_two_pictures_of_a_film_are_those_of_their_own_rules() -> None:
    spec = SPEC.model_copy(update={"shape_px": SPEC.size_px + 32})
    squashed, shaped = spec.of_pictures
    film = drawn(300, 200)
    both = pictures(film, spec)
    assert both.shape == (2, spec.side_px, spec.side_px) and spec.side_px == SPEC.size_px + 32
    size = slice(SPEC.size_px)
    np.testing.assert_array_equal(both[0, size, size], prepare(film, SPEC))
    assert not both[0, SPEC.size_px :].any() and not both[0, :, SPEC.size_px :].any()
    np.testing.assert_array_equal(both[1], prepare(film, shaped))
    shown = views(both, spec)
    np.testing.assert_array_equal(shown[:, 0, size, size], views(both[:1, size, size], squashed)[:, 0])
    np.testing.assert_array_equal(shown[:, 1], views(both[1:], shaped)[:, 0])


@pytest.mark.parametrize("changes", [{"geometry": "letterbox", "border": 0.0}, {"normalisation": "xrv", "border": 0.0}])
def test_a_second_picture_is_for_squashed_films(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="shape_px"):
        InputSpec.model_validate({"size_px": 64, "border": 0.04, "shape_px": 96} | changes)
