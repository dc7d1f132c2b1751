"""The doors that every training image passes: same chance, same batch; off means off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cxr_node.model.preprocess import standardise
from cxr_node.training.data.recipe_sections import AugmentSection
from cxr_node.training.synthetic import drawings
from cxr_node.training.synthetic.augment import Augmenter
from tests.training import folders

NEGATIVE = np.zeros(16, dtype=bool)
OFF = {name: 0 for name in AugmentSection.model_fields if name != "recompress_quality"}


@pytest.fixture
def images() -> NDArray[np.uint8]:
    y, x = np.mgrid[:40, :40] / 40.0
    picture = 120.0 + 80.0 * np.sin(5.0 * x) * np.cos(4.0 * y)
    return np.stack([np.rint(picture * share).astype(np.uint8) for share in (1.0, 0.9, 0.8, 0.7) * 4])


def augmenter(tmp_path: Path, **options: float) -> Augmenter:
    recipe = folders.recipe(tmp_path)
    section = AugmentSection.model_validate(OFF | {"recompress_quality": (5, 10)} | options)
    return Augmenter(section, recipe.input, recipe.data.source_px, seed=1)


def test_everything_off_is_preparation_alone(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    batch = augmenter(tmp_path)(images, NEGATIVE, np.random.default_rng(0)).inputs
    assert batch.shape == (16, 1, 32, 32)
    spread, mean = torch.std_mean(batch, dim=(1, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(16), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(spread, torch.ones(16), atol=1e-2, rtol=0.0)
    small = torch.nn.functional.interpolate(
        torch.from_numpy(images[:, 2:-2, 2:-2].astype(np.float32))[:, None], size=(32, 32), mode="bilinear"
    )
    torch.testing.assert_close(batch[:, 0], torch.from_numpy(standardise(small[:, 0].numpy())), atol=0.1, rtol=0.0)


@pytest.mark.parametrize(
    "door",
    [
        {"opacity": 1.0},
        {"style": 1.0},
        {"surround": 1.0},
        {"marks": 1.0},
        {"wipe": 1.0},
        {"mirror": 1.0},
        {"rotate_deg": 20.0},
        {"scale": 0.3},
        {"aspect": 0.3},
        {"shift": 0.2},
        {"gamma": 0.8},
        {"contrast": 0.9},
        {"unevenness": 0.5},
        {"blur_px": 2.0, "sharpen": 1.0},
        {"noise": 0.1},
        {"recompress": 1.0},
    ],
    ids=lambda door: next(iter(door)),
)
def test_each_door_changes_images_and_its_generator_alone_decides(
    door: dict[str, float], tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    plain = augmenter(tmp_path)(images, NEGATIVE, np.random.default_rng(0)).inputs
    one = augmenter(tmp_path, **door)(images, NEGATIVE, np.random.default_rng(3)).inputs
    same = augmenter(tmp_path, **door)(images, NEGATIVE, np.random.default_rng(3)).inputs
    assert float((one - plain).abs().max()) > 0.05
    assert torch.isfinite(one).all()
    torch.testing.assert_close(one, same, atol=0.0, rtol=0.0)


def test_a_drawn_opacity_makes_a_negative_positive_and_is_known_in_place(
    tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    positive = np.arange(16) % 2 == 0
    batch = augmenter(tmp_path, opacity=1.0)(images, positive, np.random.default_rng(0))
    plain = augmenter(tmp_path)(images, positive, np.random.default_rng(0))
    assert batch.positive.all()
    assert (plain.positive == positive).all()
    drawn = batch.drawn.flatten(1).amax(dim=1) > 0.3
    assert (drawn.numpy() == ~positive).all()
    assert (batch.chest.flatten(1).mean(dim=1) > 0.5).all()


def test_a_smaller_size_is_the_same_picture(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    batch = augmenter(tmp_path)(images, NEGATIVE, np.random.default_rng(0), size_px=20)
    assert batch.inputs.shape == batch.chest.shape == batch.drawn.shape == (16, 1, 20, 20)


def test_stamps_are_opacities_of_many_shapes() -> None:
    bank = drawings.bank(60, 224, np.random.default_rng(1))
    assert len({stamp.shape for stamp in bank}) > 30
    for stamp in bank:
        assert stamp.min() >= 0.0
        assert stamp.max() <= 1.0
        assert stamp.max() > 0.3


def test_stamps_fit_images_smaller_than_themselves() -> None:
    bank = drawings.bank(40, 224, np.random.default_rng(1))
    image = np.full((24, 24), 0.5, np.float32)
    rng = np.random.default_rng(2)
    for _ in range(40):
        drawings.paste_marks(image, bank, rng)
    assert 0.0 <= float(image.min()) < float(image.max()) <= 1.0
