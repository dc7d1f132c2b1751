"""From a folder of labelled radiographs and a recipe to a profile folder, in reading order.

A training that was stopped goes on from its last finished epoch and ends with the same weights as one that was not:
every epoch draws its chance from (seed, epoch) alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.utils as nn_utils
from numpy.typing import NDArray
from rich.progress import Progress

from cxr_node.errors import ConfigError, DataError, ModelError
from cxr_node.model import networks
from cxr_node.model.networks import Network
from cxr_node.model.profile import Geometry
from cxr_node.training.calibrate import calibrate
from cxr_node.training.data import device, images, profile_folder
from cxr_node.training.data.device import bar_of
from cxr_node.training.data.images import Item
from cxr_node.training.data.recipe import Balance, Recipe, Watch, read
from cxr_node.training.learn import checkpoint, losses, pretrain, release
from cxr_node.training.learn.checkpoint import Course, State, TrainingIdentity
from cxr_node.training.learn.losses import Lesson
from cxr_node.training.measure import bootstrap, inference
from cxr_node.training.synthetic.augment import Augmenter

CHECKPOINT = "checkpoint.pt"
CURVES = "curves.jsonl"
LessonBatch = tuple[Lesson, torch.Tensor, torch.Tensor]
"""A lesson, its images after mixing, and the targets of the labelled ones, which come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """All that is learned from.

    Attributes
    ----------
    images : uint8, shape (images, source_px, source_px), of the training part
    kinds : shape (images,), place of each one's class in `sides`
    sides : whether each class is positive
    watched : prepared images of the validation part, and whether each is positive
    strangers : unlabelled images of another population, as `losses.strangers` reads them; None without lessons
    """

    images: NDArray[np.uint8]
    kinds: NDArray[np.int64]
    sides: tuple[bool, ...]
    watched: tuple[torch.Tensor, NDArray[np.bool_]]
    strangers: NDArray[np.uint8] | None


def run(recipe_path: Path, data_folder: Path, out: Path, *, progress: bool = True) -> Path:
    """Train, calibrate, measure, and write a complete profile folder.

    `recipe_path` : a file of config/train
    `data_folder` : manifest.csv or one folder per class
    `out` : the profile folder; an unfinished training in it is taken up again
    Returns the profile folder
    Raises ConfigError: the recipe is wrong, or `out` holds a training of another recipe; DataError: the data cannot be
    trained on, or `out` cannot be made; said before any training starts.
    """
    recipe = read(recipe_path)
    if recipe.input.geometry is Geometry.LETTERBOX:  # the changes of `synthetic.augment` squash every film
        raise ConfigError(f"{recipe_path}: input.geometry: letterbox can be served; training here squashes films")
    items = images.read(data_folder, recipe.words, label_column=recipe.data.column)
    parts = profile_folder.deal(items, recipe)
    _require_every_class(parts["training"], recipe)
    network = initial(recipe, recipe_path)
    identity = TrainingIdentity(images.fingerprint(items), recipe)
    for path in [*sorted(out.glob("checkpoint*.pt")), *out.glob(pretrain.CHECKPOINT)]:
        checkpoint.read(path, identity)  # refuses another training's before an hour goes into reading images
    calibrate.foresee(recipe, parts["calibration"])
    profile_folder.make(out)
    with bar_of(progress) as bar:
        material = prepare(recipe, recipe_path, parts, bar)
        pretrain.run(recipe, network, material.images, out, identity, bar)
        finals = learn_all(recipe, network, material, (out, identity), bar)
        chosen = checkpoint.choose(finals, lambda state: _watch(network, state, material)[recipe.schedule.watch])
        network.load_state_dict(chosen.weights)
        profile_folder.update_metrics(out, {"choice": chosen.as_json(recipe.schedule.watch)})
        release.release(out, recipe, network.cpu(), (parts, data_folder.name), bar)
    return out


def initial(recipe: Recipe, recipe_path: Path) -> Network:
    """Build the network, on the device where it will learn."""
    where = device.chosen(recipe.threads)
    torch.manual_seed(recipe.seed)
    network = networks.build(recipe.network_spec, len(recipe.labels))
    if recipe.initial_weights is not None:
        weights = recipe_path.parent / recipe.initial_weights
        if not weights.is_file():
            raise ConfigError(
                f"{recipe_path}: initial_weights names {weights}, which does not exist; "
                "give its path, or null to start from random weights"
            )
        networks.load_imagenet_trunk(network, weights)
    if recipe.lessons is not None:
        _require_evidence(recipe, network, recipe_path)
    return network.to(where).to(memory_format=torch.channels_last)


def prepare(recipe: Recipe, recipe_path: Path, parts: Mapping[str, Sequence[Item]], bar: Progress) -> Material:
    """Decode all images now: a broken one must not stop the work after its longest hour."""
    reading = bar.add_task("read images", total=sum(len(part) for part in parts.values()))
    decoded = {
        name: images.load_all(part, recipe.data.source_px, lambda: bar.advance(reading)) for name, part in parts.items()
    }
    place = {word: number for number, word in enumerate(recipe.words)}
    watched = parts["validation"]
    lessons, beside = recipe.lessons, recipe_path.parent
    return Material(
        images=decoded["training"],
        kinds=np.array([place[item.word] for item in parts["training"]]),
        sides=tuple(recipe.words.values()),
        watched=(inference.prepared(watched, recipe.input), np.array([item.positive for item in watched])),
        strangers=losses.strangers(lessons, beside, recipe.data.source_px) if lessons is not None else None,
    )


def learn_all(
    recipe: Recipe, network: Network, material: Material, kept: tuple[Path, TrainingIdentity], bar: Progress
) -> dict[int, State]:
    """Run the course of every seed from the same beginning; seed -> the weights that it ends with.

    `kept` : folder of checkpoints and curves, and what these are bound to
    """
    out, identity = kept
    beginning, finals = checkpoint.copied(network.state_dict()), {}
    for seed in recipe.schedule.seeds or (recipe.seed,):
        network.load_state_dict(beginning)
        checkpoint_path = out / (f"checkpoint-{seed}.pt" if recipe.schedule.seeds else CHECKPOINT)
        one = checkpoint.begin(recipe, network, checkpoint_path, seed=seed, identity=identity)
        checkpoint.forget_after(out / CURVES, seed, one.epoch)
        learn(recipe, one, material, checkpoint_path, bar)
        finals[seed] = checkpoint.copied(network.state_dict())
    return finals


def learn(recipe: Recipe, one: Course, material: Material, checkpoint_path: Path, bar: Progress) -> None:
    """Run the epochs that are left; the network ends with the weights that the recipe chooses."""
    options = recipe.schedule
    augmenter = Augmenter(recipe.augment, recipe.input, recipe.data.source_px, one.seed)
    balanced = options.balance is Balance.WEIGHTS
    weights = losses.class_weights(material.kinds, len(material.sides)) if balanced else None
    steps = checkpoint.steps_of(options)
    task = bar.add_task("train", total=options.epochs * steps, completed=one.epoch * steps)
    while not one.finished(options):
        torch.manual_seed(one.seed * 1_000_003 + one.epoch)
        begun, costs = time.monotonic(), []
        for step, asked in enumerate(_ahead(_lessons(recipe, one, augmenter, material))):
            done = (one.epoch * steps + step) / (options.epochs * steps)
            checkpoint.set_rate(one.optimizer, options.learning_rate, options.warmup, done)
            costs.append(_learn_batch(recipe, one, asked, weights))
            checkpoint.follow(one, options.ema_decay, one.epoch * steps + step)
            bar.advance(task)
        one.epoch += 1
        checkpoint.take_average(one, options)
        _finish_epoch(recipe, one, material, checkpoint_path, (float(np.mean(costs)), time.monotonic() - begun))
    bar.update(task, completed=options.epochs * steps)  # also where it stopped by itself
    one.conclude(options)


def _lessons(recipe: Recipe, one: Course, augmenter: Augmenter, material: Material) -> Iterator[LessonBatch]:
    """Make the batches of one epoch and their targets; all chance comes from (seed, epoch)."""
    options, side = recipe.schedule, np.array(material.sides)
    rng, mixing_rng = (np.random.default_rng([one.seed, one.epoch, *more]) for more in ((), (1,)))
    size_px = options.small_px if one.epoch < options.small_epochs else recipe.input.size_px
    for chosen in checkpoint.batches(material.kinds, len(side), options, rng):
        kinds = material.kinds[chosen]
        labelled = (material.images[chosen], side[kinds])
        given = losses.lesson_of(recipe.lessons, augmenter, labelled, material.strangers, rng, size_px)
        positive = given.batch.positive[: given.labelled]
        target = losses.targets(kinds, positive, material.sides, options.label_smoothing)
        shown, rest = given.batch.inputs[: given.labelled], given.batch.inputs[given.labelled :]
        shown, target = losses.mixed(shown, target, options, mixing_rng)
        yield given, torch.cat([shown, rest]), target


def _ahead(lessons: Iterator[LessonBatch]) -> Iterator[LessonBatch]:
    """Make the next batch while the network learns from this one."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = pool.submit(next, lessons, None)
        while (asked := waiting.result()) is not None:
            waiting = pool.submit(next, lessons, None)
            yield asked


def _learn_batch(recipe: Recipe, one: Course, asked: LessonBatch, weights: torch.Tensor | None) -> float:
    options, network, (given, inputs, target) = recipe.schedule, one.network, asked
    where = device.of(network)
    frozen = options.frozen_part if one.epoch < options.frozen_epochs else None
    network.train()
    with torch.autocast(where.type, torch.bfloat16, enabled=options.bfloat16):
        feature_map = checkpoint.feature_map(network, device.placed(inputs, network), frozen)
        logits = network.head(feature_map[: given.labelled])  # (labelled, labels)
    loss = losses.cross_entropy(logits.float(), target.to(where), weights)
    if recipe.lessons is not None:
        loss = loss + losses.auxiliary_loss(recipe.lessons, network, feature_map.float(), given)
    one.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn_utils.clip_grad_norm_(network.parameters(), options.clip_norm)
    one.optimizer.step()
    return float(loss.detach())


def _finish_epoch(
    recipe: Recipe, one: Course, material: Material, checkpoint_path: Path, measured: tuple[float, float]
) -> None:
    """Measure the averaged weights on children that training never saw, write the curves and the checkpoint."""
    loss, took_s = measured
    figures = _watch(one.network, one.averaged_weights, material)
    if recipe.schedule.patience is not None:
        one.notice(figures[recipe.schedule.watch])
    line = {
        "seed": one.seed,
        "epoch": one.epoch,
        "loss": round(loss, 5),
        "validation_auc": round(figures[Watch.AUC], 5),
        "validation_loss": round(-figures[Watch.LOG_LOSS], 5),
        "took_s": round(took_s, 1),
    }
    checkpoint.add_line(checkpoint_path.parent / CURVES, line)
    checkpoint.keep(one, checkpoint_path)


def _watch(network: Network, state: State, material: Material) -> dict[Watch, float]:
    """Figures of some weights on the validation part, larger is better; the network is left as it was."""
    current = checkpoint.copied(network.state_dict())
    network.load_state_dict(state)
    inputs, positive = material.watched
    logits = inference.logits(network, inputs)
    network.load_state_dict(current)
    return {
        Watch.AUC: bootstrap.auc(positive, logits),
        Watch.LOG_LOSS: -bootstrap.log_loss(positive, bootstrap.sigmoid(logits)),
    }


def _require_evidence(recipe: Recipe, network: Network, recipe_path: Path) -> None:
    """Refuse lessons that a network cannot learn before an hour goes into what it can."""
    size_px = recipe.input.size_px
    try:
        with torch.no_grad():
            network.evidence(network.eval().features(torch.zeros(1, 1, size_px, size_px)))
    except ModelError as error:
        raise ConfigError(f"{recipe_path}: lessons: {error}") from error


def _require_every_class(training: Sequence[Item], recipe: Recipe) -> None:
    missing = [word for word in recipe.words if not any(item.word == word for item in training)]
    if missing:
        raise DataError(f"no patient with the label {missing[0]!r} is left to train on; there are too few of them")
