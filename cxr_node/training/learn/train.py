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
from typing import Any

import numpy as np
import torch
import torch.nn.utils as nn_utils
from numpy.typing import NDArray
from rich.progress import Progress

from cxr_node.errors import ConfigError, DataError, ModelError
from cxr_node.model import imagenet, networks
from cxr_node.model.networks import Network
from cxr_node.training.calibrate import calibrate
from cxr_node.training.data import device, images, populations, profile_folder
from cxr_node.training.data.device import bar_of
from cxr_node.training.data.images import Item
from cxr_node.training.data.populations import Population
from cxr_node.training.data.recipe import Recipe, read
from cxr_node.training.data.recipe_sections import Balance, Watch
from cxr_node.training.learn import checkpoint, heads, last_layers, losses, opinions, pretrain, release
from cxr_node.training.learn.checkpoint import Course, State, TrainingIdentity
from cxr_node.training.learn.heads import Told
from cxr_node.training.learn.losses import Films, Lesson
from cxr_node.training.measure import bootstrap, inference
from cxr_node.training.synthetic.augment import Augmenter

CHECKPOINT = "checkpoint.pt"
CURVES = "curves.jsonl"
LessonBatch = tuple[Lesson, torch.Tensor, Told]
"""A lesson, its images after mixing, and what is known of the labelled ones, which come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """All that is learned from: the training part, and behind it those of other populations.

    Attributes
    ----------
    images : uint8, shape (images, source_px, source_px)
    kinds : shape (images,), place of each one's class in `sides`
    sides : whether each class is positive
    heads : shape (images,), its population, 0 the profile's own
    spared : shape (images,), which get no opacity drawn and teach their own head only
    aspects : shape (images,), width over height, not a number where lost or not needed
    taught : shape (images,), calibrated logit of the teachers, not a number without any
    strata : places and share of what is drawn alike; empty: classes are, as the recipe's `balance` says
    watched : prepared images of the validation part, and whether each is positive
    strangers : unlabelled images of another population, as `losses.strangers` reads them; None without lessons
    """

    images: NDArray[np.uint8]
    kinds: NDArray[np.int64]
    sides: tuple[bool, ...]
    heads: NDArray[np.int64]
    spared: NDArray[np.bool_]
    aspects: NDArray[np.float64]
    taught: NDArray[np.float64]
    strata: Sequence[tuple[NDArray[np.int64], float]]
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
    asked = images.Asked(tags=populations.tags(recipe.data.strata))
    items = images.read(data_folder, recipe.words, label_column=recipe.data.column, asked=asked)
    parts = profile_folder.deal(items, recipe)
    _require_every_class(parts["training"], recipe)
    others = populations.companions(recipe, recipe_path.parent)
    shaped = populations.of_known_shape(parts["training"], recipe, recipe_path.parent, data_folder)
    last_layers.require_shapes(recipe, shaped)
    if recipe.second is not None and not (trunk := recipe_path.parent / recipe.second.trunk).is_file():
        raise ConfigError(f"{recipe_path}: second.trunk names {trunk}, which does not exist; give its path, or null")
    network = initial(recipe, recipe_path)
    heads.averaged(recipe, recipe_path.parent, network.state_dict())  # refuses a checkpoint before hours, not after
    identity = TrainingIdentity(populations.fingerprint(items, others), recipe)
    for path in [*sorted(out.glob("checkpoint*.pt")), *out.glob(pretrain.CHECKPOINT)]:
        checkpoint.read(path, identity)  # refuses another training's before an hour goes into reading images
    calibrate.foresee(recipe, parts["calibration"])
    profile_folder.make(out)
    with bar_of(progress) as bar:
        material = prepare(recipe, recipe_path, (parts, data_folder), others, bar)
        pretrain.run(recipe, network, material.images, out, identity, bar)
        finals = learn_all(recipe, network, material, (out, identity), bar)
        chosen = checkpoint.choose(
            finals, lambda state: _watch(recipe, network, state, material)[recipe.schedule.watch]
        )
        network.load_state_dict(heads.averaged(recipe, recipe_path.parent, chosen.weights))
        profile_folder.update_metrics(out, {"choice": chosen.as_json(recipe.schedule.watch)} | _beside(recipe, others))
        served = heads.served(recipe, network.cpu())
        if recipe.second is not None:
            served = opinions.added(recipe, recipe_path.parent, served)
        parts = populations.in_shape(parts, recipe, recipe_path.parent, data_folder)
        last_layers.fitted(recipe, served, (parts, shaped), bar)
        release.release(out, recipe, served, (parts, data_folder.name), bar)
    return out


def initial(recipe: Recipe, recipe_path: Path) -> Network:
    """Build the network, on the device where it will learn."""
    where = device.chosen(recipe.threads)
    torch.manual_seed(recipe.seed)
    network = networks.build(recipe.network_spec, recipe.heads)
    if recipe.initial_weights is not None:
        weights = recipe_path.parent / recipe.initial_weights
        if not weights.is_file():
            raise ConfigError(
                f"{recipe_path}: initial_weights names {weights}, which does not exist; "
                "give its path, or null to start from random weights"
            )
        if checkpoint.is_one(weights):
            heads.begin_from(network, weights)
        else:
            imagenet.begin_from(network, weights)
    if recipe.lessons is not None:
        _require_evidence(recipe, network, recipe_path)
    return network.to(where).to(memory_format=torch.channels_last)


def prepare(
    recipe: Recipe,
    recipe_path: Path,
    data: tuple[Mapping[str, Sequence[Item]], Path],
    others: Sequence[Population],
    bar: Progress,
) -> Material:
    """Decode all images now: a broken one must not stop the work after its longest hour.

    `data` : the parts of the profile's own images, and their folder
    `others` : populations that learn along
    """
    parts, folder = data
    pools = [populations.own(recipe, folder, parts["training"]), *others]
    pool = [item for one in pools for item in one.items]
    held_out = [*parts["validation"], *parts["calibration"]]
    reading = bar.add_task("read images", total=len(pool) + len(held_out))
    source_px, lessons, beside = recipe.data.source_px, recipe.lessons, recipe_path.parent
    decoded = images.load_all(pool, source_px, lambda: bar.advance(reading))
    images.load_all(held_out, source_px, lambda: bar.advance(reading))
    asking = bar.add_task("ask teachers", total=sum(len(one.teachers) * len(one.items) for one in pools))
    watched = parts["validation"]
    numbers = [number for number, one in enumerate(pools) for _ in one.items]
    return Material(
        images=decoded,
        kinds=_kinds(recipe, pool),
        sides=recipe.sides,
        heads=np.array(numbers, dtype=np.int64),
        spared=np.array([item.word in one.spared for one in pools for item in one.items], dtype=np.bool_),
        aspects=np.concatenate([populations.aspects(one, recipe, beside) for one in pools]),
        taught=np.concatenate(
            [heads.taught(one.teachers, beside, one.items, lambda: bar.advance(asking)) for one in pools]
        ),
        strata=populations.strata(pools) if recipe.together or recipe.data.strata else (),
        watched=(inference.prepared(watched, recipe.input), np.array([item.positive for item in watched])),
        strangers=losses.strangers(lessons, beside, recipe.data.source_px) if lessons is not None else None,
    )


def _kinds(recipe: Recipe, pool: Sequence[Item]) -> NDArray[np.int64]:
    """Place of each image's class among `recipe.sides`; two classes are the two sides, whatever their words."""
    if not recipe.data.classes:
        return np.array([int(item.positive) for item in pool])
    place = {word: number for number, word in enumerate(recipe.words)}
    return np.array([place[item.word] for item in pool])


def _beside(recipe: Recipe, others: Sequence[Population]) -> dict[str, Any]:
    """One section of metrics.json: who learned along."""
    if recipe.together is None:
        return {}
    named = zip(recipe.together.populations, others, strict=True)
    return {
        "together": {
            said.name: {"images": len(one.items), "positives": sum(item.positive for item in one.items)}
            for said, one in named
        }
    }


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
    size_px = recipe.seen_px(one.epoch)
    for chosen in _drawn(recipe, material, rng):
        kinds, spared = material.kinds[chosen], material.spared[chosen]
        films = Films(
            images=material.images[chosen], positive=side[kinds], spared=spared, aspects=material.aspects[chosen]
        )
        given = losses.lesson_of(recipe.lessons, augmenter, films, material.strangers, rng, size_px)
        positive = given.batch.positive[: given.labelled]
        target = losses.targets(kinds, positive, material.sides, options.label_smoothing)
        shown, rest = given.batch.inputs[: given.labelled], given.batch.inputs[given.labelled :]
        shown, target = losses.mixed(shown, target, options, mixing_rng)
        taught = np.where(positive == side[kinds], material.taught[chosen], np.nan)  # of the film without a drawing
        told = Told(
            target=target,
            head=torch.from_numpy(material.heads[chosen]),
            spared=torch.from_numpy(spared),
            taught=torch.from_numpy(taught.astype(np.float32)),
        )
        yield given, torch.cat([shown, rest]), told


def _drawn(recipe: Recipe, material: Material, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Draw the batches of one epoch; where films are shown twice, the second half repeats the first."""
    options = recipe.schedule
    if recipe.twice is not None:
        options = options.model_copy(
            update={"batch": options.batch // 2, "images_per_epoch": options.images_per_epoch // 2}
        )
    if material.strata:
        batches = checkpoint.mixed_batches(material.strata, options, rng)
    else:
        batches = checkpoint.batches(material.kinds, len(material.sides), options, rng)
    for chosen in batches:
        yield np.concatenate([chosen, chosen]) if recipe.twice is not None else chosen


def _ahead(lessons: Iterator[LessonBatch]) -> Iterator[LessonBatch]:
    """Make the next batch while the network learns from this one."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = pool.submit(next, lessons, None)
        while (asked := waiting.result()) is not None:
            waiting = pool.submit(next, lessons, None)
            yield asked


def _learn_batch(recipe: Recipe, one: Course, asked: LessonBatch, weights: torch.Tensor | None) -> float:
    options, network, (given, inputs, told) = recipe.schedule, one.network, asked
    where = device.of(network)
    frozen = options.frozen_part if one.epoch < options.frozen_epochs else None
    network.train()
    with torch.autocast(where.type, torch.bfloat16, enabled=options.bfloat16):
        feature_map = checkpoint.feature_map(network, device.placed(inputs, network), frozen)
        logits = network.head(feature_map[: given.labelled])  # (labelled, labels)
    loss = _labelled_loss(recipe, logits.float(), told.to(where), weights)
    if recipe.lessons is not None:
        loss = loss + losses.auxiliary_loss(recipe.lessons, network, feature_map.float(), given)
    one.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn_utils.clip_grad_norm_(network.parameters(), options.clip_norm)
    one.optimizer.step()
    return float(loss.detach())


def _labelled_loss(recipe: Recipe, logits: torch.Tensor, told: Told, weights: torch.Tensor | None) -> torch.Tensor:
    if recipe.together is not None:
        loss = heads.together_loss(recipe.together, logits, told)
    else:
        loss = losses.cross_entropy(logits, told.target, weights)
    if recipe.twice is not None:
        loss = loss + heads.twice_loss(recipe.twice, logits, told)
    if recipe.distillation is not None:
        share = recipe.distillation.weight
        loss = (1.0 - share) * loss + share * heads.distilled_loss(recipe.distillation, logits, told)
    return loss


def _finish_epoch(
    recipe: Recipe, one: Course, material: Material, checkpoint_path: Path, measured: tuple[float, float]
) -> None:
    """Measure the averaged weights on children that training never saw, write the curves and the checkpoint."""
    loss, took_s = measured
    figures = _watch(recipe, one.network, one.averaged_weights, material)
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


def _watch(recipe: Recipe, network: Network, state: State, material: Material) -> dict[Watch, float]:
    """Figures of some weights on the validation part, larger is better; the network is left as it was."""
    current = checkpoint.copied(network.state_dict())
    network.load_state_dict(state)
    inputs, positive = material.watched
    logits = inference.logits(network, inputs, recipe.serves)
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
