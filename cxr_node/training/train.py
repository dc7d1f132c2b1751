"""From a folder of labelled radiographs and a recipe to a profile folder, in reading order.

Knows no DICOM and no thresholds. A training that was stopped goes on from its last finished epoch and ends with
the same weights as one that was not: every epoch draws its chance from (seed, epoch) alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
import torch.nn.utils as nn_utils
from numpy.typing import NDArray
from rich.progress import Progress

from cxr_node.errors import ConfigError
from cxr_node.model import networks
from cxr_node.model.networks import Network
from cxr_node.training import calibrate, data, folder, lesson, metrics, release, scores
from cxr_node.training import recipe as recipes
from cxr_node.training.augment import Augmenter
from cxr_node.training.data import Item
from cxr_node.training.lesson import Lesson
from cxr_node.training.progress import bar_of
from cxr_node.training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"
CURVES = "curves.jsonl"
State = dict[str, torch.Tensor]


@dataclass(slots=True, kw_only=True)
class Course:
    """What changes while a network learns, and is kept at the end of every epoch.

    Attributes
    ----------
    bound_to : recipe and images that a checkpoint belongs to
    ema, average : running average of the weights, and its average over the ends of the last epochs
    """

    network: Network
    optimizer: torch.optim.Optimizer
    bound_to: str
    ema: State
    average: State | None
    averaged: int
    epoch: int
    strangers: NDArray[np.uint8] | None = None


def run(recipe_path: Path, data_folder: Path, out: Path, *, progress: bool = True) -> Path:
    """Train, calibrate, measure, and write a complete profile folder.

    Parameters
    ----------
    recipe_path : a file of config/train
    data_folder : manifest.csv or one folder per class
    out : the profile folder; an unfinished training in it is taken up again

    Returns
    -------
    the profile folder

    Raises
    ------
    ConfigError : the recipe is wrong, or `out` holds a training of another recipe
    DataError : the data cannot be trained on; said before any training starts
    """
    recipe = recipes.read(recipe_path)
    items = data.read(data_folder, {recipe.data.positive: True, recipe.data.negative: False})
    parts = folder.deal(items, recipe)
    calibrate.foresee(recipe, parts["calibration"])
    torch.set_num_threads(recipe.threads)
    out.mkdir(parents=True, exist_ok=True)
    with bar_of(progress) as bar:
        course = begin(recipe, recipe_path, out, fingerprint=data.fingerprint(items))
        reading = bar.add_task("read images", total=len(items))
        images = {  # all of them now: a broken image must not stop the work after its longest hour
            name: data.load_all(part, recipe.data.source_px, lambda: bar.advance(reading))
            for name, part in parts.items()
        }
        watched = scores.prepared(parts["validation"], recipe.input)
        strange = (
            lesson.strangers(recipe.lessons, recipe_path.parent, recipe.data.source_px) if recipe.lessons else None
        )
        course.strangers = strange
        learn(recipe, course, (images["training"], parts["training"]), (watched, parts["validation"]), out, bar)
        release.release(out, recipe, course.network, (parts, data_folder.name), bar)
    return out


def begin(recipe: Recipe, recipe_path: Path, out: Path, *, fingerprint: str) -> Course:
    """Build the network and its optimizer, or take up the checkpoint in `out`."""
    torch.manual_seed(recipe.seed)
    network = networks.build(recipe.network, labels=1)
    if recipe.initial_weights is not None:
        initial = recipe_path.parent / recipe.initial_weights
        if not initial.is_file():
            raise ConfigError(
                f"{recipe_path}: initial_weights names {initial}, which does not exist; "
                "give its path, or null to start from random weights"
            )
        networks.load_imagenet_trunk(network, initial)
    network.to(memory_format=torch.channels_last)
    course = Course(
        network=network,
        optimizer=_optimizer(network, recipe),
        bound_to=f"{fingerprint} {_learning_part(recipe)}",
        ema=_copy(network),
        average=None,
        averaged=0,
        epoch=0,
    )
    if (out / CHECKPOINT).is_file():
        _restore(course, out / CHECKPOINT)
    _forget_after(out / CURVES, course.epoch)
    return course


def learn(
    recipe: Recipe,
    course: Course,
    training: tuple[NDArray[np.uint8], Sequence[Item]],
    watched: tuple[torch.Tensor, Sequence[Item]],
    out: Path,
    bar: Progress,
) -> None:
    """Run the epochs that are left; the network ends with the averaged weights."""
    augmenter = Augmenter(recipe.augment, recipe.input, recipe.data.source_px, recipe.seed)
    steps = math.ceil(recipe.schedule.images_per_epoch / recipe.schedule.batch)
    task = bar.add_task("train", total=recipe.schedule.epochs * steps, completed=course.epoch * steps)
    while course.epoch < recipe.schedule.epochs:
        torch.manual_seed(recipe.seed * 1_000_003 + course.epoch)
        begun, losses = time.monotonic(), []
        mixing = np.random.default_rng([recipe.seed, course.epoch, 1])
        for step, given in enumerate(_ahead(_lessons(recipe, course, augmenter, training))):
            _set_rate(course.optimizer, recipe, (course.epoch * steps + step) / (recipe.schedule.epochs * steps))
            losses.append(_learn_batch(course, recipe, given, mixing))
            _follow(course, recipe, course.epoch * steps + step)
            bar.advance(task)
        course.epoch += 1
        _take_average(course, recipe)
        _log(out, course, float(np.mean(losses)), time.monotonic() - begun, watched)
        _keep(course, out)
    course.network.load_state_dict(course.average or course.ema)


def _balanced(positive: NDArray[np.bool_], recipe: Recipe, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Draw the batches of one epoch, half of each batch from each class, each class in its own random order."""
    half = recipe.schedule.batch // 2
    batches = math.ceil(recipe.schedule.images_per_epoch / recipe.schedule.batch)
    drawn = [_drawn(np.flatnonzero(positive == one), batches * half, rng) for one in (False, True)]
    for batch in range(batches):
        yield np.concatenate([places[batch * half : (batch + 1) * half] for places in drawn])


def _drawn(places: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    rounds = [rng.permutation(places) for _ in range(math.ceil(count / len(places)))]
    return np.concatenate(rounds)[:count]


def _lessons(
    recipe: Recipe, course: Course, augmenter: Augmenter, training: tuple[NDArray[np.uint8], Sequence[Item]]
) -> Iterator[Lesson]:
    """Make the batches of one epoch; all chance comes from (seed, epoch)."""
    images, items = training
    positive = np.array([item.positive for item in items])
    rng = np.random.default_rng([recipe.seed, course.epoch])
    schedule = recipe.schedule
    size_px = schedule.small_px if course.epoch < schedule.small_epochs else recipe.input.size_px
    for chosen in _balanced(positive, recipe, rng):
        labelled = (images[chosen], positive[chosen])
        yield lesson.give(recipe.lessons, augmenter, labelled, course.strangers, rng, size_px)


def _ahead(lessons: Iterator[Lesson]) -> Iterator[Lesson]:
    """Make the next batch while the network learns from this one."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = pool.submit(next, lessons, None)
        while (given := waiting.result()) is not None:
            waiting = pool.submit(next, lessons, None)
            yield given


def _learn_batch(course: Course, recipe: Recipe, given: Lesson, rng: np.random.Generator) -> float:
    schedule, labelled = recipe.schedule, given.labelled
    inputs, target = given.batch.inputs, torch.from_numpy(given.batch.positive[:labelled].astype(np.float32))[:, None]
    target = target * (1.0 - schedule.label_smoothing) + schedule.label_smoothing / 2.0  # (labelled, 1)
    if schedule.mixup_alpha > 0.0:
        share = float(rng.beta(schedule.mixup_alpha, schedule.mixup_alpha))
        partner = torch.from_numpy(rng.permutation(labelled))
        inputs, target = inputs.lerp(inputs[partner], share), target.lerp(target[partner], share)
    course.network.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=schedule.bfloat16):
        feature_map = course.network.features(inputs.contiguous(memory_format=torch.channels_last))
        logits = course.network.head(feature_map[:labelled])  # (labelled, 1)
    loss = nnf.binary_cross_entropy_with_logits(logits.float(), target)
    if recipe.lessons is not None:
        loss = loss + lesson.loss(recipe.lessons, course.network, feature_map.float(), given)
    course.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn_utils.clip_grad_norm_(course.network.parameters(), schedule.clip_norm)
    course.optimizer.step()
    return float(loss.detach())


def _optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    schedule = recipe.schedule
    named = list(network.named_parameters())
    head = [value for name, value in named if name.startswith("classifier")]
    matrices = [value for name, value in named if not name.startswith("classifier") and value.dim() > 1]
    vectors = [value for name, value in named if not name.startswith("classifier") and value.dim() <= 1]
    groups = [
        {"params": head, "factor": schedule.head_factor},
        {"params": matrices, "factor": 1.0},
        {"params": vectors, "factor": 1.0, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)


def _set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, done: float) -> None:
    """Rise linearly during the warm-up, then fall as a cosine; `done` is the share of all steps, in [0, 1)."""
    warmup = recipe.schedule.warmup
    share = done / warmup if done < warmup else 0.5 * (1.0 + math.cos(math.pi * (done - warmup) / (1.0 - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = recipe.schedule.learning_rate * share * group["factor"]


def _copy(network: Network) -> State:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _follow(course: Course, recipe: Recipe, step: int) -> None:
    """Move the running average towards the network; faster while it is young."""
    decay = min(recipe.schedule.ema_decay, (1.0 + step) / (10.0 + step))
    for name, value in course.network.state_dict().items():
        if value.is_floating_point():
            course.ema[name].lerp_(value, 1.0 - decay)


def _take_average(course: Course, recipe: Recipe) -> None:
    """Average the running averages over the ends of the last epochs: single epochs wander."""
    if course.epoch <= recipe.schedule.epochs - recipe.schedule.average_epochs:
        return
    if course.average is None:
        course.average = {name: value.clone() for name, value in course.ema.items()}
    for name, value in course.ema.items():
        if value.is_floating_point():
            course.average[name].lerp_(value, 1.0 / (course.averaged + 1))
    course.averaged += 1


def _keep(course: Course, out: Path) -> None:
    """Write the checkpoint beside the old one, then rename: a kill leaves one of them whole."""
    content = {
        "bound_to": course.bound_to,
        "network": course.network.state_dict(),
        "optimizer": course.optimizer.state_dict(),
        "ema": course.ema,
        "average": course.average,
        "averaged": course.averaged,
        "epoch": course.epoch,
    }
    torch.save(content, out / f"{CHECKPOINT}.part")
    (out / f"{CHECKPOINT}.part").replace(out / CHECKPOINT)


def _learning_part(recipe: Recipe) -> str:
    """What decides the weights; names and thresholds may change after the last epoch."""
    return recipe.model_dump_json(exclude={"profile", "operating", "threads"})


def _restore(course: Course, checkpoint: Path) -> None:
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if content.get("bound_to") != course.bound_to:
        raise ConfigError(
            f"{checkpoint} belongs to another recipe or to other images; choose another --out, or remove it"
        )
    course.network.load_state_dict(content["network"])
    course.optimizer.load_state_dict(content["optimizer"])
    course.ema, course.average = content["ema"], content["average"]
    course.averaged, course.epoch = content["averaged"], content["epoch"]


def _forget_after(curves: Path, epoch: int) -> None:
    """Drop the lines of epochs whose checkpoint was never finished: they come again."""
    if curves.is_file():
        lines = [line for line in curves.read_text("utf-8").splitlines() if json.loads(line)["epoch"] <= epoch]
        curves.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _log(out: Path, course: Course, loss: float, took_s: float, watched: tuple[torch.Tensor, Sequence[Item]]) -> None:
    """Append one line of curves: the averaged weights, measured on children that training never saw."""
    current = _copy(course.network)
    course.network.load_state_dict(course.average or course.ema)
    logits = scores.logits(course.network, watched[0])
    course.network.load_state_dict(current)
    positive = np.array([item.positive for item in watched[1]])
    line = {
        "epoch": course.epoch,
        "loss": round(loss, 5),
        "validation_auc": round(metrics.auc(positive, logits), 5),
        "validation_loss": round(metrics.log_loss(positive, metrics.sigmoid(logits)), 5),
        "took_s": round(took_s, 1),
    }
    with (out / CURVES).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
