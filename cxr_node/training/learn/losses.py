"""What a batch teaches: targets and their loss, and what is taught beside the labels.

All chance comes from the generator given to a call. Labels alone leave three things open, and on one hospital's images
a network fills them in wrongly: whether the evidence lies in the chest (it reads letters and wards), whether an opacity
looks the same in another hospital, and whether an image belongs to the population at all. Auxiliary losses teach these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray

from cxr_node.model.networks import Network
from cxr_node.training.data import images
from cxr_node.training.data.recipe_sections import LessonsSection, ScheduleSection
from cxr_node.training.synthetic import drawings
from cxr_node.training.synthetic.augment import AugmentedBatch, Augmenter

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
    known = [(cuts, alpha) for cuts, alpha in enumerate((schedule.mixup_alpha, schedule.cutmix_alpha)) if alpha > 0.0]
    if not known:
        return batch, target
    cuts, alpha = known[int(rng.integers(len(known))) if len(known) > 1 else 0]
    share = float(rng.beta(alpha, alpha))
    partner = torch.from_numpy(rng.permutation(len(batch)))
    batch, share = _cut(batch, batch[partner], share, rng) if cuts else (batch.lerp(batch[partner], share), share)
    return batch, target.lerp(target[partner], share)


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
    logits : float32, shape (batch, 1), or (batch, 1 + classes) as `model.network.OverClasses` answers
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


Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Films:
    """Labelled images of a batch.

    Attributes
    ----------
    images : uint8, shape (films, source_px, source_px)
    positive, spared : bool, shape (films,); what is spared gets no opacity drawn
    aspects : float64, shape (films,), width over height for a letterbox; not a number where lost or not needed
    """

    images: Bytes
    positive: Bools
    spared: Bools
    aspects: NDArray[np.float64]

    @staticmethod
    def plain(images: Bytes, positive: Bools) -> Films:
        """Of lost shape, none spared."""
        none = np.zeros(len(images), dtype=np.bool_)
        return Films(images=images, positive=positive, spared=none, aspects=np.full(len(images), np.nan))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One batch: labelled images first, then pairs of strangers (plain ones, the same with an opacity), then outsiders.

    `batch` : all of them, changed
    `labelled`, `pairs` : how many images carry a label, how many pairs of strangers follow; the rest are outsiders
    """

    batch: AugmentedBatch
    labelled: int
    pairs: int


def strangers(section: LessonsSection, beside: Path, size_px: int) -> Bytes:
    """Read the unlabelled images of another population: uint8, shape (images, size_px, size_px); empty without any.

    Raises DataError: the folder, its manifest or an image cannot be read, or no row holds the word.
    """
    if section.strangers is None:
        return np.empty((0, size_px, size_px), dtype=np.uint8)
    named = section.strangers
    items = images.read(beside / named.folder, {named.word: False}, label_column=named.column)
    return images.load_all(items, size_px)


def lesson_of(
    section: LessonsSection | None,
    augmenter: Augmenter,
    chosen: Films,
    strange: Bytes | None,
    rng: np.random.Generator,
    size_px: int,
) -> Lesson:
    """Put a batch together and change it.

    `section` : None: the labelled images alone
    `chosen` : labelled ones; outsiders and strangers borrow their shapes
    `strange` : unlabelled images of another population, may be empty
    """
    images, positive, aspects = chosen.images, chosen.positive, chosen.aspects
    drawable = ~positive & ~chosen.spared
    if section is None or strange is None:
        draw = drawable & (rng.random(len(images)) < augmenter.opacity)
        batch = augmenter.changed(images, positive, (draw, len(images)), rng, size_px=size_px, aspects=aspects)
        return Lesson(batch=batch, labelled=len(images), pairs=0)
    pairs = min(section.pairs, len(strange))
    plain = strange[rng.choice(len(strange), size=pairs, replace=False)] if pairs else strange[:0]
    others = drawings.draw(images, section.outsiders, rng)
    together = np.concatenate([images, plain, plain, others])
    draw = np.zeros(len(together), dtype=bool)
    draw[: len(images)] = drawable & (rng.random(len(images)) < augmenter.opacity)
    draw[len(images) + pairs : len(images) + 2 * pairs] = True
    known = np.concatenate([positive, np.zeros(len(together) - len(images), dtype=bool)])
    if not np.isnan(aspects).all():
        aspects = np.concatenate([aspects, rng.choice(aspects, len(together) - len(images))])
    else:
        aspects = np.full(len(together), np.nan)
    batch = augmenter.changed(together, known, (draw, len(images) + pairs), rng, size_px=size_px, aspects=aspects)
    return Lesson(batch=batch, labelled=len(images), pairs=pairs)


def auxiliary_loss(
    section: LessonsSection, network: Network, feature_map: torch.Tensor, lesson: Lesson
) -> torch.Tensor:
    """Add up the terms; those that a network cannot learn count nothing.

    Parameters
    ----------
    feature_map : shape (batch, channels, rows, cols), of the lesson's images
    """
    evidence = network.evidence(feature_map).mean(dim=1).float()  # (batch, rows, cols), in logits, of all heads
    total = section.outside_weight * _outside(evidence, lesson) + section.drawn_weight * _drawn(evidence, lesson)
    strange = network.strangeness(feature_map)
    if strange is not None:
        outside_world = torch.zeros(len(strange), device=strange.device)
        outside_world[lesson.labelled :] = 1.0
        total = total + section.outsider_weight * nnf.binary_cross_entropy_with_logits(strange.float(), outside_world)
    if lesson.pairs:
        start, between = lesson.labelled, lesson.labelled + lesson.pairs
        logit = evidence.mean(dim=(1, 2))
        rise = logit[between : between + lesson.pairs] - logit[start:between]
        total = total + section.pair_weight * nnf.softplus(section.pair_margin - rise).mean()
    return total


def _outside(evidence: torch.Tensor, lesson: Lesson) -> torch.Tensor:
    """Evidence of either sign outside the chest, in logits per cell."""
    rows, cols = evidence.shape[-2:]
    chest = nnf.adaptive_avg_pool2d(lesson.batch.chest, (rows, cols))[: lesson.labelled, 0].to(evidence.device)
    beyond = (1.0 - chest) * evidence[: lesson.labelled].abs()
    return beyond.sum() / (1.0 - chest).sum().clamp_min(1.0)


def _drawn(evidence: torch.Tensor, lesson: Lesson) -> torch.Tensor:
    """Share of the positive evidence that misses the drawn opacity, as a negative log likelihood."""
    rows, cols = evidence.shape[-2:]
    where = nnf.adaptive_max_pool2d(lesson.batch.drawn, (rows, cols))[:, 0].to(evidence.device) > 0.3
    taught = where.flatten(1).any(dim=1)
    if not bool(taught.any()):
        return evidence.new_zeros(())
    likely = torch.log_softmax(evidence[taught].flatten(1), dim=1)
    inside = torch.logsumexp(likely.masked_fill(~where[taught].flatten(1), -torch.inf), dim=1)
    return -inside.mean()
