"""Which images come when, and how fast the network learns from them.

Knows no image's contents. The order of an epoch is drawn from the generator given to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_node.model.networks import Network
from cxr_node.training.data.recipe import Balance, FrozenPart, ScheduleSection

HEAD = "classifier"
"""What every architecture calls the part that learns from nothing."""
Places = NDArray[np.int64]


def steps_of(schedule: ScheduleSection) -> int:
    """Batches of one epoch."""
    return math.ceil(schedule.images_per_epoch / schedule.batch)


def batches(kinds: Places, classes: int, schedule: ScheduleSection, rng: np.random.Generator) -> Iterator[Places]:
    """Draw the batches of one epoch.

    Parameters
    ----------
    kinds : shape (images,), place of each image's class
    classes : how many there are; with balanced sampling each fills an equal part of every batch, in its own order

    Yields
    ------
    shape (batch,), places of images
    """
    steps, size = steps_of(schedule), schedule.batch
    if schedule.balance is not Balance.SAMPLING:
        drawn = [_drawn(np.arange(len(kinds)), steps * size, rng)]
    else:
        sizes = [size * (one + 1) // classes - size * one // classes for one in range(classes)]
        drawn = [_drawn(np.flatnonzero(kinds == one), steps * each, rng) for one, each in enumerate(sizes)]
    for parts in zip(*(np.split(places, steps) for places in drawn), strict=True):
        yield np.concatenate(parts)


def _drawn(places: Places, count: int, rng: np.random.Generator) -> Places:
    rounds = [rng.permutation(places) for _ in range(math.ceil(count / len(places)))]
    return np.concatenate(rounds)[:count]


def optimizer(network: Network, schedule: ScheduleSection) -> torch.optim.Optimizer:
    """Build AdamW with a faster head, and without decay of the trunk's vectors."""
    named = [(HEAD in name.split("."), value) for name, value in network.named_parameters()]
    groups = [
        {"params": [value for is_head, value in named if is_head], "factor": schedule.head_factor},
        {"params": [value for is_head, value in named if not is_head and value.dim() > 1], "factor": 1.0},
        {
            "params": [value for is_head, value in named if not is_head and value.dim() <= 1],
            "factor": 1.0,
            "weight_decay": 0.0,
        },
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)


def set_rate(optimizer: torch.optim.Optimizer, highest: float, warmup: float, done: float) -> None:
    """Rise linearly during the warm-up, then fall as a cosine; `done` is the share of all steps, in [0, 1)."""
    share = done / warmup if done < warmup else 0.5 * (1.0 + math.cos(math.pi * (done - warmup) / (1.0 - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = highest * share * group["factor"]


def feature_map(network: Network, batch: torch.Tensor, frozen: FrozenPart | None) -> torch.Tensor:
    """Pass a batch through the trunk; what is frozen learns nothing, and no time is spent on its gradients.

    Its normalisation still follows the images: statistics of other images would be wrong for the parts behind it.
    """
    with torch.set_grad_enabled(frozen is None):
        early_map = network.early(batch)
    with torch.set_grad_enabled(frozen is not FrozenPart.TRUNK):
        return network.late(early_map)  # (batch, channels, rows, cols)
