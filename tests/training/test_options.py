"""Each option of a training: stopped anywhere and resumed it ends as uninterrupted, and it does what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from cxr_node.errors import ConfigError
from cxr_node.training.data import images
from cxr_node.training.data.device import bar_of
from cxr_node.training.data.recipe import read
from cxr_node.training.data.recipe_sections import PretrainingSection
from cxr_node.training.learn import checkpoint, pretrain, release, train
from cxr_node.training.learn.checkpoint import State
from tests.training import folders

PRETRAINING = {"epochs": 2, "images_per_epoch": 8, "learning_rate": 0.001, "hidden": 0.5, "noise": 0.1}
CLASSES = {"column": "sublabel", "classes": {"normal": "NORMAL", "bacteria": "PNEUMONIA", "virus": "PNEUMONIA"}}
LESSONS = {
    "outsiders": 2,
    "outsider_weight": 0.1,
    "strangers": None,
    "pairs": 0,
    "pair_weight": 0.0,
    "pair_margin": 0.0,
    "outside_weight": 0.1,
    "drawn_weight": 0.1,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mixing": {"schedule": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "balance": "weights"}},
    "unbalanced": {"schedule": {"balance": "none"}},
    "frozen": {"schedule": {"frozen_epochs": 1, "frozen_part": "early"}},
    "patience": {"schedule": {"patience": 1, "average_epochs": 1, "watch": "log_loss"}},
    "seeds": {"schedule": {"seeds": [2, 3]}},
    "pretraining": {"pretraining": PRETRAINING},
    "classes": {"data": CLASSES},
    "letterbox": {
        "input": {"geometry": "letterbox", "border": 0.0},
        "augment": {"cut": 0.5, "margin": 0.2, "edge_reach": 0.15, "open_bars": 0.2},
    },
    "twice": {"twice": {"own": 0.1}},
}


def recipe_with(folder: Path, sections: dict[str, Any]) -> Path:
    """Write a small recipe of the smallest network, changed as told."""
    path = folders.small_recipe(folder)
    content = yaml.safe_load(path.read_text("utf-8"))
    content["network"] = {"architecture": "simple-cnn", "options": {"hidden": 8}}
    for name, section in sections.items():
        content[name] = (content.get(name) or {}) | section
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return path


def final_weights(recipe: Path, data_folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """Train without what comes after training."""
    ends: list[State] = []
    with monkeypatch.context() as patched:
        patched.setattr(release, "release", lambda *given: ends.append(checkpoint.copied(given[2].state_dict())))
        train.run(recipe, data_folder, out, progress=False)
    return ends[0]


def curves(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / train.CURVES).read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.manifest(tmp_path_factory.mktemp("children"), folders.children(count=6, images=2))


@pytest.mark.parametrize("option", OPTIONS)
def test_stopped_after_every_epoch_equals_uninterrupted(
    option: str, children: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_it_resumes(recipe_with(tmp_path, OPTIONS[option]), children, tmp_path, monkeypatch)


def assert_it_resumes(recipe: Path, children: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a training after every epoch, and compare it with one that was not stopped."""
    out = tmp_path / "stopped"
    whole = final_weights(recipe, children, tmp_path / "whole", monkeypatch)
    write, stops = checkpoint.write, 0

    def write_and_stop(*given: Any) -> None:
        write(*given)
        raise KeyboardInterrupt

    while True:
        try:
            with monkeypatch.context() as patched:
                patched.setattr(checkpoint, "write", write_and_stop)
                resumed = final_weights(recipe, children, out, monkeypatch)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 2
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, atol=1e-6, rtol=1e-4)
    without_time = [
        [{k: v for k, v in line.items() if k != "took_s"} for line in curves(tmp_path / part)]
        for part in ("whole", "stopped")
    ]
    assert without_time[0] == without_time[1]


def test_patience_goes_back_to_the_best_epoch(children: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"schedule": {"patience": 2, "average_epochs": 1, "epochs": 6, "ema_decay": 0.0}}
    figures = iter([0.6, 0.9, 0.7, 0.8, 0.99, 0.99])
    watched = train._watch
    monkeypatch.setattr(train, "_watch", lambda *given: watched(*given) | {train.Watch.AUC: next(figures)})
    seen: list[State] = []
    noticed = checkpoint.Course.notice
    monkeypatch.setattr(
        checkpoint.Course, "notice", lambda one, figure: (seen.append(checkpoint.copied(one.ema)), noticed(one, figure))
    )
    ended = final_weights(recipe_with(tmp_path, options), children, tmp_path / "out", monkeypatch)
    assert [line["epoch"] for line in curves(tmp_path / "out")] == [1, 2, 3, 4]
    for name, value in seen[1].items():
        torch.testing.assert_close(ended[name], value)


def test_seeds_begin_alike_and_the_choice_is_written(
    children: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[State] = []
    begin = checkpoint.begin

    def watched_begin(*given: Any, **named: Any) -> checkpoint.Course:
        one = begin(*given, **named)
        begun.append(checkpoint.copied(one.network.state_dict()))
        return one

    monkeypatch.setattr(checkpoint, "begin", watched_begin)
    final_weights(recipe_with(tmp_path, OPTIONS["seeds"]), children, tmp_path / "out", monkeypatch)
    first, second = begun
    assert all(torch.equal(first[name], second[name]) for name in first)
    chosen = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))["choice"]
    assert set(chosen["seeds"]) == {"2", "3"}
    assert set(chosen["kept"]) <= {2, 3}
    assert chosen["figure"] >= max(chosen["seeds"].values())
    assert [(line["seed"], line["epoch"]) for line in curves(tmp_path / "out")] == [(2, 1), (2, 2), (3, 1), (3, 2)]
    one, other = (torch.load(tmp_path / "out" / f"checkpoint-{seed}.pt")["ema"] for seed in (2, 3))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_reconstruction_learns_to_reconstruct(children: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = {"pretraining": PRETRAINING | {"epochs": 8, "images_per_epoch": 32, "learning_rate": 0.01}}
    path = recipe_with(tmp_path, sections | {"schedule": {"epochs": 1, "average_epochs": 1}})
    final_weights(path, children, tmp_path / "out", monkeypatch)
    lines = [json.loads(line) for line in (tmp_path / "out" / pretrain.CURVES).read_text("utf-8").splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]


def test_hidden_cells_are_blank_and_the_rest_is_noisy() -> None:
    section = PretrainingSection(**PRETRAINING)
    images, hidden = pretrain.spoiled(torch.ones(6, 1, 32, 32), section, np.random.default_rng(0))
    shown = torch.nn.functional.interpolate(hidden, (32, 32)) == 0.0
    assert 0.3 < float(hidden.mean()) < 0.7
    assert (images[~shown] == 0.0).all()
    assert 0.05 < float(images[shown].std()) < 0.2


def test_pretraining_is_repeatable_and_leaves_the_head_alone(
    children: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read(recipe_with(tmp_path, OPTIONS["pretraining"]))
    items = images.read(children, recipe.words)
    decoded, identity = (
        images.load_all(items, recipe.data.source_px),
        checkpoint.TrainingIdentity(images.fingerprint(items), recipe),
    )
    ends = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        network = train.initial(recipe, tmp_path)
        with bar_of(shown=False) as bar:
            pretrain.run(recipe, network, decoded, tmp_path / name, identity, bar)
        ends.append(network.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert torch.equal(
        ends[0]["classifier.0.weight"], train.initial(recipe, tmp_path).state_dict()["classifier.0.weight"]
    )


def test_a_checkpoint_outlives_new_options_but_no_other_change(tmp_path: Path) -> None:
    recipe = read(recipe_with(tmp_path, {}))
    identity = checkpoint.TrainingIdentity("images", recipe)
    older = json.loads(str(identity).partition(" ")[2])
    del older["pretraining"], older["schedule"]["patience"]
    assert identity.holds(f"images {json.dumps(older)}")
    assert not identity.holds(f"others {json.dumps(older)}")
    assert not checkpoint.TrainingIdentity("images", read(recipe_with(tmp_path, OPTIONS["pretraining"]))).holds(
        f"images {json.dumps(older)}"
    )
    older["schedule"]["learning_rate"] = 1.0
    assert not identity.holds(f"images {json.dumps(older)}")


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"schedule": {"patience": 2}}, "patience keeps the best epoch"),
        ({"schedule": {"seeds": [1, 1]}}, "seeds must differ"),
        ({"schedule": {"balance": "luck"}}, "schedule.balance: Input should be 'sampling', 'weights' or 'none'"),
        ({"data": {"classes": {"a": "PNEUMONIA", "b": "NORMAL"}}}, "classes must be three or more"),
        ({"data": {"classes": dict.fromkeys("abc", "NORMAL")}}, "classes must be three or more"),
        ({"data": {"classes": {"a": "NORMAL", "b": "NORMAL", "PNEUMONIA": "PNEUMONIA"}}}, "must not be one of them"),
        ({"network": {"classes": {"a": True}}}, "network.classes is for profiles"),
        ({"schedule": {"mixup_alpha": 0.2}, "lessons": LESSONS}, "lessons point at places of one image"),
        ({"pretraining": {"epochs": 2}}, "pretraining.hidden: Field required"),
    ],
)
def test_options_that_exclude_each_other_are_named(sections: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(recipe_with(tmp_path, sections))
    assert any(said in mistake for mistake in caught.value.mistakes)


def test_lessons_that_a_network_cannot_learn_are_refused_at_once(children: Path, tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, {"lessons": LESSONS})
    with pytest.raises(ConfigError, match="lessons: SimpleCNN has no linear head"):
        train.run(recipe, children, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_the_bar_says_how_long_is_left() -> None:
    with bar_of(shown=False) as bar:
        task = bar.add_task("train", total=100)
        for _ in range(10):
            bar.advance(task)
        console = Console(width=120, record=True, file=None, quiet=False, force_terminal=False)
        with console.capture() as captured:
            console.print(bar.make_tasks_table(bar.tasks))
    assert "10/100" in captured.get()
    assert "left" in captured.get()
    assert "-:--:--" not in captured.get()
