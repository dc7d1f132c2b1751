"""Targets, mixtures and the loss: shares stay shares, and what is written is what is learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf

from cxr_node.training.data.recipe import ScheduleSection
from cxr_node.training.learn import losses

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
