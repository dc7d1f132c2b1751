"""What a batch is asked: targets, their smoothing, pairs of images blended or cut into each other, and the loss.

Knows no network and no file. With two classes the target is one number, with more it is a share of each class;
all chance comes from the generator given to a call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray

from cxr_node.training.data.recipe import ScheduleSection

Places = NDArray[np.int64]
Bools = NDArray[np.bool_]


def targets(kinds: Places, positive: Bools, sides: Sequence[bool], smoothing: float) -> torch.Tensor:
    """Say what the network should answer to each image.

    Parameters
    ----------
    kinds : shape (batch,), place of each image's class
    positive : shape (batch,), whether the image, as it is shown, is positive: augmentation may have made it so,
        and nobody knows then of which class it is
    sides : whether each class is positive
    smoothing : share of the target that is spread evenly over all classes, in [0, 1)

    Returns
    -------
    float32, shape (batch, 1) with two classes: the probability of positive; else (batch, classes)
    """
    if len(sides) == 2:
        return _smooth(torch.from_numpy(positive.astype(np.float32))[:, None], smoothing, 2)
    side = np.array(sides)
    share = np.eye(len(sides), dtype=np.float32)[kinds]  # (batch, classes)
    share[positive & ~side[kinds]] = side / side.sum()
    return _smooth(torch.from_numpy(share), smoothing, len(sides))


def _smooth(target: torch.Tensor, smoothing: float, classes: int) -> torch.Tensor:
    return target * (1.0 - smoothing) + smoothing / classes


def mixed(
    batch: torch.Tensor, target: torch.Tensor, schedule: ScheduleSection, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each image with a partner: MixUp (Zhang et al. 2018) or CutMix (Yun et al. 2019), whichever is asked for.

    Where both are, a coin decides for each batch. The share is drawn from Beta(alpha, alpha).
    """
    known = [
        (way, alpha) for way, alpha in ((_blended, schedule.mixup_alpha), (_cut, schedule.cutmix_alpha)) if alpha > 0.0
    ]
    if not known:
        return batch, target
    way, alpha = known[int(rng.integers(len(known))) if len(known) > 1 else 0]
    share = float(rng.beta(alpha, alpha))
    partner = torch.from_numpy(rng.permutation(len(batch)))
    batch, share = way(batch, batch[partner], share, rng)
    return batch, target.lerp(target[partner], share)


def _blended(
    batch: torch.Tensor, partner: torch.Tensor, share: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    return batch.lerp(partner, share), share


def _cut(
    batch: torch.Tensor, partner: torch.Tensor, share: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Put a rectangle of the partner into its own place; the share is what the border leaves of it."""
    rows, cols = batch.shape[-2:]
    high, wide = rows * share**0.5, cols * share**0.5
    middle_row, middle_col = rng.uniform(0.0, rows), rng.uniform(0.0, cols)
    top, bottom = (round(min(max(edge, 0.0), rows)) for edge in (middle_row - high / 2, middle_row + high / 2))
    left, right = (round(min(max(edge, 0.0), cols)) for edge in (middle_col - wide / 2, middle_col + wide / 2))
    cut = batch.clone()
    cut[..., top:bottom, left:right] = partner[..., top:bottom, left:right]
    return cut, (bottom - top) * (right - left) / (rows * cols)


def class_weights(kinds: Places, classes: int) -> torch.Tensor:
    """Weights that give each class the same say however many images it has: float32, shape (classes,), mean 1."""
    share = np.bincount(kinds, minlength=classes) / len(kinds)
    return torch.from_numpy((1.0 / (classes * share)).astype(np.float32))


def cross_entropy(logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Cross-entropy, in nats.

    Parameters
    ----------
    logits : float32, shape (batch, 1), or (batch, 1 + classes) as `model.classes.OverClasses` answers
    target : as `targets` returns it
    weights : of the classes, or None
    """
    if target.shape[1] == 1:
        each = nnf.binary_cross_entropy_with_logits(logits, target, reduction="none")[:, 0]
        share = torch.cat([1.0 - target, target], dim=1)  # (batch, 2)
    else:
        each = -(target * nnf.logsigmoid(logits[:, 1:])).sum(dim=1)  # its sigmoids are the softmax
        share = target
    if weights is None:
        return each.mean()
    weight = share @ weights.to(share)
    return (each * weight).sum() / weight.sum()
