"""What is taught beside the labels: where disease can be, what it adds to an image, and where the network's world ends.

Knows no epochs. Labels alone leave three things open, and on one hospital's images a network fills them in wrongly:
whether the evidence lies in the chest (it reads letters and wards), whether an opacity looks the same in another
hospital (it has seen none), and whether an image belongs to the population at all (it answers everything).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray

from cxr_node.model.networks import Network
from cxr_node.training.data import images as data
from cxr_node.training.data.recipe import LessonsSection
from cxr_node.training.synthetic import out_of_distribution
from cxr_node.training.synthetic.augment import AugmentedBatch, Augmenter

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One batch: labelled images first, then pairs of strangers (plain ones, the same with an opacity), then outsiders.

    Attributes
    ----------
    batch : all of them, changed
    labelled, pairs : how many images carry a label, how many pairs of strangers follow; the rest are outsiders
    """

    batch: AugmentedBatch
    labelled: int
    pairs: int


def strangers(section: LessonsSection, beside: Path, size_px: int) -> Bytes:
    """Read the unlabelled images of another population: uint8, shape (images, size_px, size_px); empty without any.

    Raises
    ------
    DataError : the folder, its manifest or an image cannot be read, or no row holds the word
    """
    if section.strangers is None:
        return np.empty((0, size_px, size_px), dtype=np.uint8)
    named = section.strangers
    items = data.read(beside / named.folder, {named.word: False}, label_column=named.column)
    return data.load_all(items, size_px)


def lesson_of(
    section: LessonsSection | None,
    augmenter: Augmenter,
    chosen: tuple[Bytes, Bools],
    strange: Bytes | None,
    rng: np.random.Generator,
    size_px: int,
) -> Lesson:
    """Put a batch together and change it.

    Parameters
    ----------
    section : None: the labelled images alone
    chosen : labelled images and whether each is positive
    strange : unlabelled images of another population, may be empty
    """
    if section is None or strange is None:
        return Lesson(batch=augmenter(*chosen, rng, size_px=size_px), labelled=len(chosen[1]), pairs=0)
    images, positive = chosen
    pairs = min(section.pairs, len(strange))
    plain = strange[rng.choice(len(strange), size=pairs, replace=False)] if pairs else strange[:0]
    others = out_of_distribution.draw(images, section.outsiders, rng)
    together = np.concatenate([images, plain, plain, others])
    draw = np.zeros(len(together), dtype=bool)
    draw[: len(images)] = ~positive & (rng.random(len(images)) < augmenter.opacity)
    draw[len(images) + pairs : len(images) + 2 * pairs] = True
    known = np.concatenate([positive, np.zeros(len(together) - len(images), dtype=bool)])
    batch = augmenter.changed(together, known, (draw, len(images) + pairs), rng, size_px=size_px)
    return Lesson(batch=batch, labelled=len(images), pairs=pairs)


def auxiliary_loss(
    section: LessonsSection, network: Network, feature_map: torch.Tensor, lesson: Lesson
) -> torch.Tensor:
    """Add up the terms; those that a network cannot learn count nothing.

    Parameters
    ----------
    feature_map : shape (batch, channels, rows, cols), of the lesson's images
    """
    evidence = network.evidence(feature_map)[:, 0].float()  # (batch, rows, cols), in logits
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
