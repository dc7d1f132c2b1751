"""Populations that share a trunk: who teaches which head, what is drawn how often, and what answers in the end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from cxr_node.errors import ConfigError, DataError
from cxr_node.model import networks, profile
from cxr_node.model.networks import Network
from cxr_node.training.data import images, populations
from cxr_node.training.data.recipe import read
from cxr_node.training.data.recipe_sections import (
    DistillationSection,
    PopulationSection,
    Served,
    TogetherSection,
    TwiceSection,
)
from cxr_node.training.learn import checkpoint, heads, train
from cxr_node.training.learn.heads import Told
from tests.training import folders
from tests.training.test_options import LESSONS, assert_it_resumes, final_weights, recipe_with

OTHERS = PopulationSection(name="b", folder="b", positive=("x",), negative=("y",), share=0.5)


def together(**options: Any) -> TogetherSection:
    return TogetherSection(**({"populations": (OTHERS,), "other_heads": 0.0, "served": Served.MEAN} | options))


def told(heads_of: list[int], target: list[float], **more: Any) -> Told:
    count = len(heads_of)
    given = {
        "target": torch.tensor(target)[:, None],
        "head": torch.tensor(heads_of),
        "spared": torch.zeros(count, dtype=torch.bool),
        "taught": torch.full((count,), float("nan")),
    }
    return Told(**(given | more))


def gradient(loss: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(loss, logits, allow_unused=True)
    return torch.zeros_like(logits) if found is None else found


def test_each_film_teaches_the_head_of_its_population() -> None:
    logits = torch.zeros(4, 2, requires_grad=True)
    loss = heads.together_loss(together(), logits, told([0, 1, 0, 1], [1.0, 1.0, 0.0, 0.0]))
    found = gradient(loss, logits)
    assert (found != 0.0).tolist() == [[True, False], [False, True], [True, False], [False, True]]
    assert found[0, 0] < 0.0 < found[2, 0]  # towards the label


def test_other_heads_agree_a_little_but_not_on_the_spared() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    spared = torch.tensor([False, True])
    loss = heads.together_loss(together(other_heads=0.15), logits, told([0, 1], [1.0, 0.0], spared=spared))
    found = gradient(loss, logits)
    assert (found != 0.0).tolist() == [[True, True, True], [False, True, False]]
    assert found[0, 1].abs() < 0.5 * found[0, 0].abs()


def test_two_answers_to_one_film_are_drawn_together_unless_one_got_an_opacity() -> None:
    logits = torch.tensor([[1.0, 0.0], [2.0, 5.0], [3.0, 0.0], [2.0, 1.0]], requires_grad=True)
    same = told([0, 0, 0, 0], [1.0, 0.0, 1.0, 1.0])  # films 0 and 1, then the same again; into 1 something was drawn
    loss = heads.twice_loss(TwiceSection(own=0.5), logits, same)
    assert float(loss.detach()) == pytest.approx(0.5 * (1.0 - 3.0) ** 2)
    assert (gradient(loss, logits) != 0.0).tolist() == [[True, False], [False, False], [True, False], [False, False]]
    both = heads.twice_loss(TwiceSection(own=0.0, other=0.1), logits, told([0, 0, 0, 0], [1.0] * 4))
    assert float(both.detach()) == pytest.approx(0.1 * (0.0 + 16.0) / 2)
    assert float(heads.twice_loss(TwiceSection(own=1.0), logits.detach()[:2], told([0, 0], [1.0, 0.0]))) == 0.0


def test_teachers_pull_towards_their_softened_answer_where_they_saw_the_film() -> None:
    section = DistillationSection(teachers=("t",), temperature=2.0, weight=0.5)
    taught = torch.tensor([3.0, float("nan"), -3.0])
    logits = torch.tensor([[3.0], [0.0], [0.0]], requires_grad=True)
    found = gradient(heads.distilled_loss(section, logits, told([0] * 3, [1.0] * 3, taught=taught)), logits)[:, 0]
    assert found[0] == pytest.approx(0.0, abs=1e-6)  # agrees already
    assert found[1] == 0.0 and found[2] > 0.0
    unknown = told([0] * 3, [1.0] * 3)
    assert float(heads.distilled_loss(section, logits, unknown).detach()) == 0.0


def test_the_mean_of_heads_answers_as_one_network(tmp_path: Path) -> None:
    path = mixed(tmp_path)
    for served, columns in (("mean", [0, 1]), ("own", [0])):
        recipe = read(changed(path, served))
        network = networks.build(recipe.network_spec, recipe.heads).eval()
        torch.nn.init.normal_(network.classifier[-1].weight)
        single = heads.served(recipe, network).eval()
        inputs = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            wanted = network(inputs)[:, columns].mean(dim=1)
            torch.testing.assert_close(single(inputs)[:, 0], wanted, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def wards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patients with two kinds of negatives, and a view that goes with the class."""
    rows = folders.children(count=6, images=2)
    for place, row in enumerate(rows):
        row["label"] = {"normal": "Clear", "bacteria": "Opacity", "virus": "Ill"}[row["sublabel"]]
        row["view"] = "AP" if (row["label"] == "Opacity") == (place % 4 != 0) else "PA"
    return folders.manifest(tmp_path_factory.mktemp("wards"), rows)


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.manifest(tmp_path_factory.mktemp("children"), folders.children(count=6, images=2))


def mixed(folder: Path, children: Path | None = None, **sections: Any) -> Path:
    """A recipe for `wards` that learns together with `children`."""
    words = {"Opacity": "PNEUMONIA", "Clear": "NORMAL", "Ill": "NORMAL"}
    population = {
        "name": "children",
        "folder": str(children),
        "positive": ["PNEUMONIA"],
        "negative": ["NORMAL"],
        "share": 0.5,
    }
    return recipe_with(
        folder,
        {
            "data": {"words": words, "spared": ["Ill"], "strata": "view"},
            "together": {"populations": [population], "other_heads": 0.15, "served": "mean"},
            "twice": {"own": 0.1, "other": 0.05},
            "input": {"geometry": "letterbox", "border": 0.0},
            "augment": {"cut": 0.5, "margin": 0.2, "edge_reach": 0.15, "open_bars": 0.15, "opacity": 0.5},
        }
        | sections,
    )


def changed(path: Path, served: str) -> Path:
    content = yaml.safe_load(path.read_text("utf-8"))
    content["together"]["served"] = served
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def test_populations_stopped_after_every_epoch_equal_uninterrupted(
    wards: Path, children: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_it_resumes(mixed(tmp_path, children), wards, tmp_path, monkeypatch)


def test_a_training_together_ends_in_a_profile_with_one_head(wards: Path, children: Path, tmp_path: Path) -> None:
    lessons = LESSONS | {"outsiders": 3}
    path = mixed(tmp_path, children, lessons=lessons)
    content = yaml.safe_load(path.read_text("utf-8"))
    content["network"] = {"architecture": "efficientnet-lite0", "options": {"outsider": True}}
    path.write_text(yaml.safe_dump(content), "utf-8")
    made = profile.load(train.run(path, wards, tmp_path / "out", progress=False))
    assert made.labels == ("PNEUMONIA",)
    measured = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))
    assert measured["together"]["children"]["images"] < 36
    assert measured["training"]["parts"]["calibration"]["images"] > 0
    kept = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["average"]["classifier.weight"]
    assert kept.shape[0] == 2


def test_strata_are_drawn_alike_whatever_they_hold(wards: Path, children: Path, tmp_path: Path) -> None:
    recipe = read(mixed(tmp_path, children))
    items = images.read(wards, recipe.words, asked=images.Asked())
    others = populations.companions(recipe, tmp_path)
    pools = [populations.own(recipe, wards, items), *others]
    found = populations.strata(pools)
    assert sum(share for _, share in found) == pytest.approx(1.0)
    pool = [item for one in pools for item in one.items]
    by_kind = {(pool[places[0]].word, pool[places[0]].tags.get("view", "")): share for places, share in found}
    assert by_kind == pytest.approx(
        {(word, view): 0.5 / 6 for word in ("Opacity", "Clear", "Ill") for view in ("AP", "PA")}
        | {("PNEUMONIA", ""): 0.25, ("NORMAL", ""): 0.25}
    )
    schedule = recipe.schedule.model_copy(update={"images_per_epoch": 240, "batch": 8})
    drawn = np.concatenate(list(checkpoint.mixed_batches(found, schedule, np.random.default_rng(0))))
    count = Counter((pool[place].word, pool[place].tags.get("view", "")) for place in drawn)
    assert len(drawn) == 240
    assert all(abs(count[kind] - 240 * share) <= 1 for kind, share in by_kind.items())


def test_nobody_held_out_learns_along(children: Path, tmp_path: Path) -> None:
    recipe = read(mixed(tmp_path, children))
    (other,) = populations.companions(recipe, tmp_path)
    everybody = images.read(children, folders.CLASSES)
    dealt = images.split(everybody, validation=recipe.data.validation, calibration=recipe.data.calibration, seed=2)
    assert {item.group for item in other.items} == {item.group for item in dealt["training"]}
    assert populations.fingerprint(everybody, [other]) != populations.fingerprint(everybody, [])
    assert populations.fingerprint(everybody, []) == images.fingerprint(everybody)


def test_no_opacity_is_drawn_into_the_spared_and_films_come_twice(
    wards: Path, children: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[train.LessonBatch, Any]] = []
    learn = train._learn_batch

    def watched(recipe: Any, one: Any, asked: train.LessonBatch, *more: Any) -> float:
        seen.append((asked, recipe))
        return learn(recipe, one, asked, *more)

    monkeypatch.setattr(train, "_learn_batch", watched)
    final_weights(mixed(tmp_path, children), wards, tmp_path / "out", monkeypatch)
    assert len(seen) == 4  # two epochs of sixteen images in batches of eight
    spared, drawn = 0, 0
    for (given, inputs, told_of), _ in seen:
        films = len(inputs) // 2
        assert torch.equal(told_of.head[:films], told_of.head[films:])
        assert not torch.equal(inputs[:films], inputs[films:])
        into = given.batch.drawn.flatten(1).amax(dim=1) > 0.0
        assert not into[told_of.spared].any()
        spared, drawn = spared + int(told_of.spared.sum()), drawn + int(into.sum())
    assert spared > 0 and drawn > 0


def test_teachers_are_asked_once_and_forget_films_with_a_drawing(
    children: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = folders.profile(tmp_path)
    section = {"teachers": [str(teacher)], "temperature": 2.0, "weight": 0.5}
    path = recipe_with(tmp_path, {"distillation": section, "augment": {"opacity": 1.0}})
    seen: list[train.LessonBatch] = []
    learn = train._learn_batch
    monkeypatch.setattr(train, "_learn_batch", lambda *given: (seen.append(given[2]), learn(*given))[1])
    final_weights(path, children, tmp_path / "out", monkeypatch)
    for _, _, told_of in seen:
        drawn = told_of.taught.isnan()
        assert drawn.any() and not drawn.all()  # every negative got an opacity, no positive did
    items = images.read(children, folders.CLASSES)
    asked: list[int] = []
    said = heads.taught([str(teacher)], tmp_path, items[:3], lambda: asked.append(1))
    assert len(said) == len(asked) == 3 and np.isfinite(said).all()
    assert np.isnan(heads.taught([], tmp_path, items[:3], lambda: None)).all()


def test_a_training_begins_from_another_and_is_averaged_with_it(
    children: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    began = final_weights(recipe_with(tmp_path, {}), children, first, monkeypatch)
    path = recipe_with(tmp_path, {})
    content = yaml.safe_load(path.read_text("utf-8"))
    content["initial_weights"] = "first/checkpoint.pt"
    content["schedule"] |= {"learning_rate": 1e-12, "epochs": 1, "average_epochs": 1, "weight_decay": 0.0}
    path.write_text(yaml.safe_dump(content), "utf-8")
    network = train.initial(read(path), path)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in began.items())
    ended = final_weights(path, children, tmp_path / "second", monkeypatch)
    for name, value in began.items():  # a rate of nothing leaves it there, but for what counts
        torch.testing.assert_close(ended[name], value, atol=1e-4, rtol=1e-3)
    doubled = {name: value * 3.0 if value.is_floating_point() else value for name, value in ended.items()}
    kept = torch.load(first / "checkpoint.pt", weights_only=True)
    torch.save(kept | {"average": doubled}, tmp_path / "checkpoint-far.pt")
    recipe = read(path).model_copy(update={"average_with": ("checkpoint-far.pt",)})
    mean = heads.averaged(recipe, tmp_path, ended)
    for name, value in ended.items():
        if value.is_floating_point():
            torch.testing.assert_close(mean[name], 2.0 * value)


def test_checkpoints_of_other_networks_are_refused(children: Path, tmp_path: Path) -> None:
    other = networks.build(read(folders.small_recipe(tmp_path)).network_spec, 1)
    torch.save({"average": None, "ema": other.state_dict()}, tmp_path / "checkpoint.pt")
    path = recipe_with(tmp_path, {})
    small: Network = train.initial(read(path), path)
    with pytest.raises(ConfigError, match="does not hold the weights of this network"):
        heads.begin_from(small, tmp_path / "checkpoint.pt")
    recipe = read(path).model_copy(update={"average_with": ("checkpoint.pt",)})
    with pytest.raises(ConfigError, match="does not hold the weights of this network"):
        heads.averaged(recipe, tmp_path, small.state_dict())
    (tmp_path / "checkpoint-no.pt").write_text("nothing")
    with pytest.raises(ConfigError, match="is no checkpoint"):
        heads.begin_from(small, tmp_path / "checkpoint-no.pt")


def test_a_head_of_another_number_begins_anew(tmp_path: Path) -> None:
    recipe = read(recipe_with(tmp_path, {}))
    one, two = (networks.build(recipe.network_spec, count) for count in (1, 2))
    torch.save({"average": None, "ema": one.state_dict()}, tmp_path / "checkpoint.pt")
    before = two.state_dict()["classifier.3.weight"].clone()
    heads.begin_from(two, tmp_path / "checkpoint.pt")
    assert torch.equal(two.state_dict()["first.0.weight"], one.state_dict()["first.0.weight"])
    assert torch.equal(two.state_dict()["classifier.3.weight"], before)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"twice": {"own": 0.1}, "schedule": {"mixup_alpha": 0.2}}, "without mixing of images"),
        ({"data": {"words": {"a": "PNEUMONIA", "b": "PNEUMONIA"}}}, "some of both, without classes"),
        ({"data": {"spared": ["Ill"]}}, "spared must be negative words"),
        ({"data": {"strata": "view"}, "schedule": {"balance": "none"}}, "schedule.balance must be sampling"),
        ({"augment": {"cut": 0.7, "margin": 0.7}}, "must sum to at most 1"),
    ],
)
def test_options_that_exclude_each_other_are_named(sections: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(recipe_with(tmp_path, sections))
    assert any(said in mistake for mistake in caught.value.mistakes)


def test_a_column_that_tells_nothing_is_named(children: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tells of no image's 'ward'"):
        train.run(recipe_with(tmp_path, {"data": {"strata": "ward"}}), children, tmp_path / "out", progress=False)


def test_a_checkpoint_to_average_with_is_missed_before_anything_is_learned(children: Path, tmp_path: Path) -> None:
    path = recipe_with(tmp_path, {})
    content = yaml.safe_load(path.read_text("utf-8")) | {"average_with": ["nowhere/checkpoint.pt"]}
    path.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(ConfigError, match=r"checkpoint\.pt cannot be read"):
        train.run(path, children, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
