"""Targets, mixtures and losses: shares stay shares, outsiders are foreign, and evidence lies in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf

from cxr_node.errors import DataError
from cxr_node.model.networks import build
from cxr_node.model.profile import NetworkSpec
from cxr_node.training.data.recipe_sections import LessonsSection, ScheduleSection, StrangersSection
from cxr_node.training.learn import losses
from cxr_node.training.learn.losses import Lesson
from cxr_node.training.synthetic import augment, drawings
from cxr_node.training.synthetic.augment import AugmentedBatch, Augmenter
from tests.training import folders

SIDES = (False, True, True)
SCHEDULE = ScheduleSection(
    epochs=1,
    images_per_epoch=4,
    batch=4,
    learning_rate=0.1,
    head_factor=1.0,
    warmup=0.0,
    weight_decay=0.0,
    clip_norm=1.0,
    label_smoothing=0.0,
    mixup_alpha=0.0,
    ema_decay=0.0,
    average_epochs=1,
    bfloat16=False,
)


def mixed(seed: int = 0, **alphas: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Four images, each of one value all over; each one's target is that value."""
    value = torch.arange(4.0) / 4.0
    batch = value[:, None, None, None].expand(4, 1, 16, 16)
    section = SCHEDULE.model_copy(update=alphas)
    return losses.mixed(batch, value[:, None], section, np.random.default_rng(seed))


def test_two_classes_are_one_number() -> None:
    target = losses.targets(np.array([0, 1, 1]), np.array([False, True, True]), (False, True), 0.1)
    torch.testing.assert_close(target, torch.tensor([[0.05], [0.95], [0.95]]))


def test_several_classes_are_shares_that_sum_to_one() -> None:
    target = losses.targets(np.array([0, 1, 2]), np.array([False, True, True]), SIDES, 0.3)
    torch.testing.assert_close(target, torch.eye(3) * 0.7 + 0.1)


def test_a_normal_that_augmentation_made_positive_is_of_no_known_positive_class() -> None:
    target = losses.targets(np.array([0, 1]), np.array([True, True]), SIDES, 0.0)
    torch.testing.assert_close(target, torch.tensor([[0.0, 0.5, 0.5], [0.0, 1.0, 0.0]]))
    binary = losses.targets(np.array([0]), np.array([True]), (False, True), 0.0)
    torch.testing.assert_close(binary, torch.tensor([[1.0]]))


def test_nothing_is_mixed_unless_asked_for() -> None:
    batch, target = mixed()
    torch.testing.assert_close(batch[:, 0, 0, :1], target)


@pytest.mark.parametrize("seed", range(5))
def test_a_blend_and_its_target_have_one_share(seed: int) -> None:
    batch, target = mixed(seed, mixup_alpha=1.0)
    torch.testing.assert_close(batch.mean(dim=(2, 3)), target)
    assert batch.std(dim=(2, 3)).max() < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_a_cut_and_its_target_have_one_share(seed: int) -> None:
    batch, target = mixed(seed, cutmix_alpha=1.0)
    torch.testing.assert_close(batch.mean(dim=(2, 3)), target)
    assert all(len(image.unique()) <= 2 for image in batch)


def test_both_ways_take_turns() -> None:
    turns = [mixed(seed, mixup_alpha=1.0, cutmix_alpha=1.0)[0] for seed in range(12)]
    cut = [bool(batch.std(dim=(2, 3)).max() > 1e-6) for batch in turns]
    assert any(cut)
    assert not all(cut)


def test_class_weights_give_each_class_the_same_say() -> None:
    kinds = np.array([0] * 6 + [1] * 3 + [2])
    weights = losses.class_weights(kinds, 3)
    says = [float(weights[one]) * int((kinds == one).sum()) for one in range(3)]
    assert says == pytest.approx([says[0]] * 3)


def test_weighted_loss_of_unequal_classes_is_the_mean_over_classes() -> None:
    logits = torch.tensor([[0.3], [0.3], [0.3], [-1.0]])
    target = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    each = nnf.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weights = losses.class_weights(np.array([0, 0, 0, 1]), 2)
    assert float(losses.cross_entropy(logits, target, weights)) == pytest.approx(float(each[:3].mean() + each[3]) / 2)
    assert float(losses.cross_entropy(logits, target, None)) == pytest.approx(float(each.mean()))


def test_loss_over_classes_is_softmax_cross_entropy() -> None:
    scores = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    others = [torch.logsumexp(scores[:, [k for k in range(3) if k != one]], dim=1) for one in range(3)]
    logits = torch.stack([torch.zeros(5), *(scores[:, one] - others[one] for one in range(3))], dim=1)
    target = torch.eye(3)[[0, 1, 2, 1, 0]]
    expected = nnf.cross_entropy(scores, target)
    torch.testing.assert_close(losses.cross_entropy(logits, target, None), expected)


SECTION = LessonsSection(
    outsiders=5,
    outsider_weight=1.0,
    strangers=None,
    pairs=2,
    pair_weight=1.0,
    pair_margin=1.0,
    outside_weight=1.0,
    drawn_weight=1.0,
)


def thorax(size_px: int = 96) -> np.ndarray:
    """Draw two dark lungs: float32, shape (size_px, size_px), range [0, 1]."""
    y, x = np.mgrid[:size_px, :size_px] / size_px
    lungs = sum(0.6 * np.exp(-(((y - 0.45) / 0.3) ** 2) - ((x - c) / 0.15) ** 2) for c in (0.3, 0.7))
    return (0.8 - lungs).astype(np.float32)


def test_an_opacity_brightens_lung_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        image = thorax()
        before = image.copy()
        drawn = drawings.paste_opacity(image, rng)
        assert 0.0 <= image.min() <= image.max() <= 1.0
        assert drawn.max() == pytest.approx(1.0)
        assert (image - before)[drawn > 0.5].mean() > 0.03
        np.testing.assert_allclose(image[drawn < 1e-3], before[drawn < 1e-3], atol=2e-3)
        assert drawn[-15:].max() < 0.05  # below the diaphragm


def test_surroundings_are_the_others_and_the_chest_stays() -> None:
    image, other = np.full((100, 100), 0.2, np.float32), np.full((100, 100), 0.9, np.float32)
    augment.surround(image, other, np.random.default_rng(1))
    np.testing.assert_allclose(image[35:65, 35:65], 0.2)
    np.testing.assert_allclose(image[0], 0.9, atol=0.71)
    assert image[0].mean() > 0.5


def test_style_moves_detail_and_grey_towards_the_other() -> None:
    rng = np.random.default_rng(2)
    sharp = (thorax() + rng.normal(0.0, 0.05, (96, 96))).clip(0, 1).astype(np.float32)
    soft = (thorax() * 0.5).astype(np.float32)
    changed = augment.like(sharp, soft, 1.0)
    assert np.abs(np.diff(changed)).mean() < np.abs(np.diff(sharp)).mean()
    assert abs(changed.mean() - soft.mean()) < 0.02
    np.testing.assert_allclose(augment.like(sharp, soft, 0.0), sharp, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(drawings.MAKERS))
def test_each_outsider_is_another_picture_of_the_same_size(kind: str) -> None:
    image = np.rint(thorax() * 255.0).astype(np.uint8)
    image[:, :40] //= 2  # no symmetry
    rng = np.random.default_rng(3)
    for _ in range(10):
        made = drawings.MAKERS[kind](image, rng)
        assert made.shape == image.shape
        assert made.dtype == np.uint8
        assert np.abs(made.astype(int) - image).mean() > 2.0


def test_a_lesson_holds_labelled_images_then_pairs_then_outsiders(tmp_path: Path) -> None:
    recipe = folders.recipe(tmp_path)
    augmenter = Augmenter(recipe.augment, recipe.input, recipe.data.source_px, seed=1)
    images = np.stack([np.rint(thorax(40) * 255.0).astype(np.uint8)] * 8)
    chosen = losses.Films.plain(images, np.arange(8) < 4)
    given = losses.lesson_of(SECTION, augmenter, chosen, images[:3], np.random.default_rng(0), 32)
    assert (given.labelled, given.pairs) == (8, 2)
    assert given.batch.inputs.shape == (8 + 2 * 2 + 5, 1, 32, 32)
    drawn = given.batch.drawn.flatten(1).amax(dim=1) > 0.0
    assert drawn.tolist() == [False] * 10 + [True] * 2 + [False] * 5


def _lesson(inputs: torch.Tensor, drawn: torch.Tensor) -> Lesson:
    chest = torch.zeros_like(inputs)
    chest[..., 16:-16, 16:-16] = 1.0
    batch = AugmentedBatch(inputs=inputs, positive=np.zeros(len(inputs), dtype=bool), chest=chest, drawn=drawn)
    return Lesson(batch=batch, labelled=len(inputs), pairs=0)


def test_evidence_outside_the_chest_or_beside_the_opacity_costs() -> None:
    network = build(NetworkSpec(architecture="mobilenet-v2", options={"outsider": False}), 1).eval()
    torch.nn.init.ones_(network.classifier.weight)
    drawn = torch.zeros(1, 1, 64, 64)
    drawn[..., 32:48, 32:48] = 1.0
    given = _lesson(torch.zeros(1, 1, 64, 64), drawn)
    inside, beside, outside = (torch.zeros(1, 1280, 4, 4) for _ in range(3))
    inside[..., 2, 2], beside[..., 1, 1], outside[..., 0, 0] = 0.01, 0.01, 0.01
    with torch.no_grad():
        costs = [float(losses.auxiliary_loss(SECTION, network, one, given)) for one in (inside, beside, outside)]
    assert costs[0] < costs[1] < costs[2]


def test_strangers_are_the_rows_that_hold_the_word(tmp_path: Path) -> None:
    rows = [{"file": f"{n}.png", "read_by": word} for n, word in enumerate(["", "Normal", ""])]
    folders.manifest(tmp_path / "adults", rows)
    named = StrangersSection(folder="adults", column="read_by", word="")
    section = SECTION.model_copy(update={"strangers": named})
    assert losses.strangers(section, tmp_path, 32).shape == (2, 32, 32)
    missing = section.model_copy(update={"strangers": named.model_copy(update={"word": "Lung Opacity"})})
    with pytest.raises(DataError, match="no labelled image"):
        losses.strangers(missing, tmp_path, 32)
