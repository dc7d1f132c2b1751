"""Order and rates of an epoch, and what is frozen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cxr_node.model import networks
from cxr_node.model.profile import NetworkSpec
from cxr_node.training.data.recipe_sections import FrozenPart
from cxr_node.training.learn import checkpoint
from tests.model import test_networks
from tests.training.test_losses import SCHEDULE

KINDS = np.array([0] * 4 + [1] * 11 + [2] * 30)


def drawn(**options: object) -> list[np.ndarray]:
    section = SCHEDULE.model_copy(update={"images_per_epoch": 60, "batch": 8, **options})
    return list(checkpoint.batches(KINDS, 3, section, np.random.default_rng(5)))


def test_balanced_batches_hold_each_class_alike() -> None:
    for batch in drawn():
        assert len(batch) == 8
        assert sorted(np.bincount(KINDS[batch], minlength=3)) == [2, 3, 3]


def test_every_image_of_a_class_comes_before_one_comes_again() -> None:
    places = np.concatenate([batch[KINDS[batch] == 2] for batch in drawn()])
    assert len(set(places[:24].tolist())) == len(places[:24])


@pytest.mark.parametrize("balance", ["weights", "none"])
def test_unbalanced_batches_hold_what_the_data_holds(balance: str) -> None:
    batches = drawn(balance=balance)
    assert [len(batch) for batch in batches] == [8] * 8
    assert len(set(np.concatenate(batches).tolist())) == len(KINDS)


def test_the_rate_rises_and_falls() -> None:
    network = networks.build(NetworkSpec(architecture="simple-cnn"), 1)
    optimizer = checkpoint.optimizer(network, SCHEDULE.model_copy(update={"head_factor": 3.0}))

    def rates(done: float) -> tuple[float, float]:
        checkpoint.set_rate(optimizer, 0.1, 0.2, done)
        return optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"]

    assert rates(0.1) == pytest.approx((0.15, 0.05))
    assert rates(0.2) == pytest.approx((0.3, 0.1))
    assert rates(0.6) == pytest.approx((0.15, 0.05))
    assert rates(0.9999)[0] < 1e-6


@pytest.mark.parametrize("architecture", sorted(networks.ARCHITECTURES))
def test_every_architecture_has_a_head_that_learns_at_its_own_rate(architecture: str) -> None:
    for classes in ({}, {"a": False, "b": True, "c": True}):
        network = networks.build(NetworkSpec(architecture=architecture, classes=classes), 1 + len(classes))
        head, matrices, vectors = checkpoint.optimizer(network, SCHEDULE).param_groups
        assert head["params"]
        assert sum(len(group["params"]) for group in (head, matrices, vectors)) == len(list(network.parameters()))


@pytest.mark.parametrize("architecture", sorted(networks.ARCHITECTURES))
def test_what_is_frozen_has_no_gradient(architecture: str) -> None:
    network = networks.build(NetworkSpec(architecture=architecture), 1).train()
    images = test_networks.film(architecture, 4, 32)

    def learning(frozen: FrozenPart | None) -> set[str]:
        network.zero_grad(set_to_none=True)
        torch.autograd.backward(network.head(checkpoint.feature_map(network, images, frozen)).sum())
        return {name for name, value in network.named_parameters() if value.grad is not None}

    everything = {name for name, value in network.named_parameters() if value.requires_grad}
    head = {name for name in everything if checkpoint.HEAD in name.split(".")}
    assert learning(None) == everything
    assert learning(FrozenPart.TRUNK) == head
    assert head < learning(FrozenPart.EARLY) < everything
