"""`cxr-node evaluate`: all that a reader needs to decide whether to trust a profile, measured in one go.

Knows no training. What is wrong with the data is said before anything is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from cxr_node.errors import DataError
from cxr_node.model.profile import load
from cxr_node.training.data import images, profile_folder
from cxr_node.training.data.device import bar_of
from cxr_node.training.data.images import Item
from cxr_node.training.data.profile_folder import RECIPE_LABELS, Labels, held_out, of_patients, recipe_of
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.measure import acceptance, evaluate, padding, paired, stress
from cxr_node.training.measure.bootstrap import Interval, difference
from cxr_node.training.measure.evaluate import Change, Scorer, Study
from cxr_node.training.report import views
from cxr_node.training.saliency import boxes, heatmap_tests


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """A data set to measure on.

    `part` : training, validation, calibration or all; None: the validation part of the data that the profile was
    trained on, all images of any other
    `labels` : the data's label column and words
    `parts_of` : what the profile was trained on, where `data` are other copies of its films; then `part` is of that
    """

    data: Path
    part: str | None = None
    labels: Labels = RECIPE_LABELS
    change: Change = Change.NONE
    parts_of: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What is measured beside the answers themselves.

    `sample` : images of the first data set that are re-encoded; twice as many are made outsiders, and data_sets where
    the network looks; 0: none
    `padded` : images of the first data set whose edges are moved; None: as many as `sample`
    `against` : a second profile, judging the same images
    `strangers` : folder of images that the profile was not made for
    `page` : HTML file to write
    `keep` : whether the profile's metrics.json and card are renewed
    """

    sample: int = 20
    padded: int | None = None
    against: Path | None = None
    strangers: Path | None = None
    page: Path | None = None
    keep: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """A data set whose images are decoded and prepared."""

    name: str
    items: Sequence[Item]
    inputs: torch.Tensor
    asked: DataSet


def run(folder: Path, data_sets: Sequence[DataSet], extras: Extras, *, progress: bool = True) -> dict[str, Any]:
    """Measure a profile on one data set, or on two side by side.

    Returns the figures of the first data set with its `name`; of a second one under `external`, and how much they
    differ under `compared`
    Raises DataError: the data cannot be evaluated on, or the page cannot be written; ModelError: the profile is not
    complete, or its hashes do not match.
    """
    profile, recipe = load(folder), recipe_of(folder)
    if extras.page and not extras.page.parent.is_dir():
        raise DataError(f"{extras.page} cannot be written: there is no folder {extras.page.parent}")
    foreign = stress.foreign(extras.strangers, 10 * extras.sample) if extras.strangers and extras.sample else []
    with _single_threaded(), bar_of(progress) as bar:
        listed = _listed(folder, recipe, data_sets, bar)
        scorer = Scorer(profile)
        studies = {}
        for one in listed:
            task = bar.add_task("judge", total=len(one.items))
            step = partial(bar.advance, task)
            studies[one.name] = evaluate.study(scorer, one.items, one.inputs, step, one.asked.labels.by)
            if one.asked.labels.boxes:
                studies[one.name].figures["boxes"] = _boxes(scorer, studies[one.name], bar)
        first, *others = studies.values()
        first.figures.update(_stressed(scorer, first.items, foreign, extras, bar))
        if extras.against:
            for one in listed:
                figures = _against(extras.against, folder, one, studies[one.name], bar)
                studies[one.name].figures["paired"] = figures
    for study in studies.values():
        study.figures["goals"] = acceptance.held_against(study.figures)
    if extras.keep:
        evaluate.keep(folder, {name: study.figures for name, study in studies.items()})
    name, *other_names = studies
    result = {"name": name, **first.figures}
    for other_name, other in zip(other_names, others, strict=True):
        result["external"] = {"name": other_name, **other.figures}
        result["compared"] = compared(first.figures, other.figures)
    if extras.page:
        views.write_page(extras.page, scorer, studies, result)
    return result


def compared(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Difference `other - first` of each rate that both have, with its interval."""
    shared = [name for name in first["rates"] if name in other["rates"]]
    return {
        name: difference(Interval(**other["rates"][name]), Interval(**first["rates"][name])).as_json()
        for name in shared
    }


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Let torch work on one core a call: on small images two of them wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _listed(folder: Path, recipe: Recipe, data_sets: Sequence[DataSet], bar: Progress) -> list[_Listed]:
    """List all images before the first is decoded, and decode all before the first is judged."""
    found = [_found(folder, one) for one in data_sets]
    task = bar.add_task("read", total=sum(len(items) for items, _ in found))
    listed: list[_Listed] = []
    for one, (items, name) in zip(data_sets, found, strict=True):
        inputs = evaluate.prepared(recipe, items, one.change, lambda: bar.advance(task))
        name = evaluate.named(name, recipe, one.labels, one.change)
        if any(name == before.name for before in listed):
            name += " (external)"
        listed.append(_Listed(name=name, items=items, inputs=inputs, asked=one))
    return listed


def _found(folder: Path, one: DataSet) -> tuple[list[Item], str]:
    if one.parts_of is None:
        return held_out(folder, one.data, one.part, default="validation", labels=one.labels)
    part = one.part or "validation"
    if part not in images.PARTS:
        raise DataError(f"there is no part {part!r} of {one.parts_of}; parts are {', '.join(images.PARTS)}")
    items = of_patients(folder, one.parts_of, profile_folder.listed(folder, one.data, one.labels), part)
    return items, f"{one.data.name}, {part} part"


def _against(other: Path, folder: Path, one: _Listed, study: Study, bar: Progress) -> dict[str, Any]:
    """Let a second profile judge the same images, those that it has not learned from.

    Raises DataError: there are none of both classes.
    """
    profile, recipe = load(other), recipe_of(other)
    kept = np.ones(len(one.items), dtype=np.bool_)
    everything = profile_folder.listed(folder, one.asked.data, one.asked.labels)
    if profile_folder.is_own(other, everything) and one.asked.part != "all":
        theirs = {item.path for item in profile_folder.deal(everything, recipe)[one.asked.part or "validation"]}
        kept = np.array([item.path in theirs for item in one.items], dtype=np.bool_)
    items = [item for item, is_kept in zip(one.items, kept, strict=True) if is_kept]
    if len({item.positive for item in items}) < 2:
        raise DataError(f"{one.name}: no images of both classes are left that {profile.name} has not learned from")
    task = bar.add_task(f"judge by {profile.name}", total=2 * len(items))
    step = partial(bar.advance, task)
    judged = evaluate.study(Scorer(profile), items, evaluate.prepared(recipe, items, one.asked.change, step), step)
    return {
        "profile": f"{profile.name} {profile.version}",
        **paired.compared(study.outcomes.taken(kept), judged.outcomes),
    }


def _boxes(scorer: Scorer, study: Study, bar: Progress) -> dict[str, Any]:
    judged = list(zip(study.items, study.decisions, strict=True))
    task = bar.add_task("boxes", total=sum(bool(item.boxes) and item.positive for item in study.items))
    return boxes.measure(scorer.profile, scorer.network, judged, partial(bar.advance, task))


def _stressed(
    scorer: Scorer, items: Sequence[Item], foreign: Sequence[Item], extras: Extras, bar: Progress
) -> dict[str, Any]:
    sample, padded = extras.sample, extras.sample if extras.padded is None else extras.padded
    found: dict[str, Any] = {}
    if padded:
        some = evaluate.sampled(items, padded)
        edges = bar.add_task("move edges", total=padding.steps(len(some)))
        found["padding"] = padding.measure(scorer, some, lambda: bar.advance(edges))
    if not sample:
        return found
    few, more = evaluate.sampled(items, sample), evaluate.sampled(items, 2 * sample)
    encodings = bar.add_task("re-encode", total=len(few) * (1 + len(stress.REENCODINGS)))
    foreigners = bar.add_task("outsiders", total=len(more) * len(stress.OUTSIDERS) + len(foreign))
    maps = bar.add_task("heat maps", total=heatmap_tests.steps(more))
    others = {"foreign images": foreign} if foreign else {}
    rng = np.random.default_rng(0)
    return found | {
        "reencoding": stress.measure_reencodings(scorer, few, lambda: bar.advance(encodings)),
        "outsiders": stress.measure_outsiders(scorer, more, others, lambda: bar.advance(foreigners)),
        "heatmaps": heatmap_tests.measure(scorer.profile, scorer.network, more, rng, lambda: bar.advance(maps)),
    }
