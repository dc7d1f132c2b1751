"""The state of one training: which images come when, what changes, what is averaged, and how it is kept.

A course that was stopped is taken up again from the end of its last finished epoch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_node.errors import ConfigError
from cxr_node.model.networks import Network
from cxr_node.training.data import populations
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.data.recipe_sections import Balance, FrozenPart, ScheduleSection, Watch

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


def mixed_batches(
    strata: Sequence[tuple[Places, float]], schedule: ScheduleSection, rng: np.random.Generator
) -> Iterator[Places]:
    """Draw the batches of one epoch from strata, each with its share of the epoch; a batch has what chance gives it.

    `strata` : places of images and share of each, as `populations.strata` returns them
    """
    steps, size = steps_of(schedule), schedule.batch
    drawn_of = populations.counts([share for _, share in strata], steps * size)
    drawn = [_drawn(places, count, rng) for (places, _), count in zip(strata, drawn_of, strict=True)]
    yield from np.split(rng.permutation(np.concatenate(drawn)), steps)


def _drawn(places: Places, count: int, rng: np.random.Generator) -> Places:
    rounds = [rng.permutation(places) for _ in range(max(1, math.ceil(count / len(places))))]
    return np.concatenate(rounds)[:count]


def optimizer(network: Network, schedule: ScheduleSection) -> torch.optim.Optimizer:
    """Build AdamW with a faster head, and without decay of the trunk's vectors."""
    named = [(HEAD in name.split("."), value) for name, value in network.named_parameters()]
    head, trunk = ([value for is_head, value in named if is_head is wanted] for wanted in (True, False))
    groups = [
        {"params": head, "factor": schedule.head_factor},
        {"params": [value for value in trunk if value.dim() > 1], "factor": 1.0},
        {"params": [value for value in trunk if value.dim() <= 1], "factor": 1.0, "weight_decay": 0.0},
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


State = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSelection:
    """The weights that were kept, the seeds that are in them, and the figures that decided."""

    weights: State
    kept: tuple[int, ...]
    single: Mapping[int, float]
    figure: float

    def as_json(self, watch: Watch) -> dict[str, Any]:
        """One section of metrics.json."""
        return {
            "watched": f"{watch.value} on the validation part" + (", negative" if watch is Watch.LOG_LOSS else ""),
            "seeds": {str(seed): round(figure, 5) for seed, figure in self.single.items()},
            "kept": list(self.kept),
            "kept_is": "the average of these seeds' weights" if len(self.kept) > 1 else "one seed's weights",
            "figure": round(self.figure, 5),
        }


def choose(finals: Mapping[int, State], watched: Callable[[State], float]) -> ModelSelection:
    """Keep the best single weights, and average into them all that do not make the watched figure fall.

    `finals` : seed -> the weights that its course ended with
    `watched` : weights -> figure on the validation part, larger is better
    """
    single = {seed: watched(state) for seed, state in finals.items()}
    ranked = sorted(finals, key=lambda seed: -single[seed])
    kept = ranked[:1]
    weights, figure = finals[kept[0]], single[kept[0]]
    for seed in ranked[1:]:
        tried = mean_of([finals[one] for one in (*kept, seed)])
        if (reached := watched(tried)) >= figure:
            kept, weights, figure = [*kept, seed], tried, reached
    return ModelSelection(weights=weights, kept=tuple(kept), single=single, figure=figure)


def mean_of(states: Sequence[State]) -> State:
    """Average weights; counters are taken from the first."""
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }


@dataclass(frozen=True, slots=True)
class TrainingIdentity:
    """The images and the recipe that a checkpoint belongs to; names and thresholds may change after the last epoch."""

    images: str
    recipe: Recipe

    def __str__(self) -> str:
        return f"{self.images} {self._learning_part(short=False)}"

    def holds(self, stored: str) -> bool:
        """Whether a checkpoint is of this training; an option that it does not name must be at its default."""
        images, _, recipe = stored.partition(" ")
        full, least = (json.loads(self._learning_part(short=short)) for short in (False, True))
        said = json.loads(recipe)
        return images == self.images and _within(said, full) and _within(least, said)

    def _learning_part(self, *, short: bool) -> str:
        return self.recipe.model_dump_json(exclude={"profile", "operating", "threads"}, exclude_defaults=short)


def _within(part: Any, whole: Any) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and _within(value, whole[name]) for name, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(_within(*pair) for pair in zip(part, whole, strict=True))
    return bool(part == whole)


@dataclass(slots=True, kw_only=True)
class Best:
    """The epoch with the best watched figure so far (larger is better), and its averaged weights."""

    figure: float
    epoch: int
    weights: State


@dataclass(slots=True, kw_only=True)
class Course:
    """What changes while a network learns, and is kept at the end of every epoch.

    `identity` : what its checkpoints belong to
    `seed` : all chance of this course but its initial weights
    `ema`, `average` : running average of the weights, and its average over the ends of the last epochs
    `best` : where training stops by itself, what it will go back to
    """

    network: Network
    optimizer: torch.optim.Optimizer
    identity: TrainingIdentity
    seed: int
    ema: State
    average: State | None = None
    averaged: int = 0
    epoch: int = 0
    best: Best | None = None

    @property
    def averaged_weights(self) -> State:
        """What the network would end with, were this its last epoch."""
        return self.average or self.ema

    def finished(self, section: ScheduleSection) -> bool:
        """Whether all epochs are done, or the watched figure has not risen for as many as the recipe waits."""
        waited = self.epoch - self.best.epoch if self.best is not None else 0
        return self.epoch >= section.epochs or (section.patience is not None and waited >= section.patience)

    def notice(self, figure: float) -> None:
        """Remember the averaged weights where they are better than ever before."""
        if self.best is None or figure > self.best.figure:
            self.best = Best(figure=figure, epoch=self.epoch, weights=copied(self.averaged_weights))

    def conclude(self, section: ScheduleSection) -> None:
        """Give the network the weights that the course ends with."""
        chosen = self.best if section.patience is not None else None
        self.network.load_state_dict(chosen.weights if chosen is not None else self.averaged_weights)


def begin(recipe: Recipe, network: Network, checkpoint: Path, *, seed: int, identity: TrainingIdentity) -> Course:
    """Start from the network as it is, or take up a checkpoint."""
    rule, ema = optimizer(network, recipe.schedule), copied(network.state_dict())
    course = Course(network=network, optimizer=rule, identity=identity, seed=seed, ema=ema)
    if checkpoint.is_file():
        _restore(course, checkpoint)
    return course


def copied(state: Mapping[str, torch.Tensor]) -> State:
    """Copy weights, where they lie."""
    return {name: value.detach().clone() for name, value in state.items()}


def follow(course: Course, decay: float, step: int) -> None:
    """Move the running average towards the network; faster while it is young."""
    decay = min(decay, (1.0 + step) / (10.0 + step))
    for name, value in course.network.state_dict().items():
        if value.is_floating_point():
            course.ema[name].lerp_(value, 1.0 - decay)


def take_average(course: Course, section: ScheduleSection) -> None:
    """Average the running averages over the ends of the last epochs: single epochs wander."""
    if section.patience is not None or course.epoch <= section.epochs - section.average_epochs:
        return
    if course.average is None:
        course.average = copied(course.ema)
    for name, value in course.ema.items():
        if value.is_floating_point():
            course.average[name].lerp_(value, 1.0 / (course.averaged + 1))
    course.averaged += 1


def keep(course: Course, checkpoint: Path) -> None:
    """Write the checkpoint of an epoch."""
    best = course.best
    write(
        checkpoint,
        {
            "bound_to": str(course.identity),
            "network": course.network.state_dict(),
            "optimizer": course.optimizer.state_dict(),
            "ema": course.ema,
            "average": course.average,
            "averaged": course.averaged,
            "epoch": course.epoch,
            "best": None if best is None else (best.figure, best.epoch, best.weights),
        },
    )


def write(checkpoint: Path, content: dict[str, Any]) -> None:
    """Write beside the old one, then rename: a kill leaves one of them whole."""
    part = checkpoint.with_name(f"{checkpoint.name}.part")
    torch.save(content, part)
    part.replace(checkpoint)


def is_one(path: Path) -> bool:
    """Whether a file lies in a training's folder as its checkpoint does; of what is in it, nothing is asked."""
    return path.name.startswith("checkpoint") and path.suffix == ".pt"


def read(checkpoint: Path, identity: TrainingIdentity) -> dict[str, Any]:
    """Read a checkpoint; its tensors lie on the CPU. Raises ConfigError: it belongs to another training."""
    content: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if not identity.holds(content["bound_to"]):
        raise ConfigError(
            f"{checkpoint} belongs to another recipe or to other images; choose another --out, or remove it"
        )
    return content


def _restore(course: Course, checkpoint: Path) -> None:
    content = read(checkpoint, course.identity)
    course.network.load_state_dict(content["network"])
    course.optimizer.load_state_dict(content["optimizer"])
    device = next(course.network.parameters()).device

    def there(state: State) -> State:
        return {name: value.to(device) for name, value in state.items()}

    course.ema = there(content["ema"])
    course.average = there(content["average"]) if content["average"] is not None else None
    course.averaged, course.epoch = content["averaged"], content["epoch"]
    if (best := content.get("best")) is not None:
        course.best = Best(figure=best[0], epoch=best[1], weights=there(best[2]))


def add_line(curves: Path, line: dict[str, float | int]) -> None:
    """Append one line of curves."""
    with curves.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def forget_after(curves: Path, seed: int, epoch: int) -> None:
    """Drop the lines of epochs whose checkpoint was never finished: they come again."""
    if not curves.is_file():
        return
    lines = [(line, json.loads(line)) for line in curves.read_text("utf-8").splitlines()]
    kept = [line for line, said in lines if said.get("seed", seed) != seed or said["epoch"] <= epoch]
    curves.write_text("".join(f"{line}\n" for line in kept), "utf-8")
