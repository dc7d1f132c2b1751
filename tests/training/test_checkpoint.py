"""Weights of several seeds are averaged only where the validation part says so."""

from __future__ import annotations

import torch

from cxr_node.training.data.recipe_sections import Watch
from cxr_node.training.learn import checkpoint
from cxr_node.training.learn.checkpoint import State


def state(value: float) -> State:
    return {"weight": torch.tensor([value]), "count": torch.tensor(7)}


def near(target: float) -> object:
    return lambda one: -abs(float(one["weight"]) - target)


def test_an_average_that_helps_is_kept() -> None:
    chosen = checkpoint.choose({1: state(0.0), 2: state(2.0)}, near(0.9))
    assert float(chosen.weights["weight"]) == 1.0
    assert set(chosen.kept) == {1, 2}
    assert chosen.as_json(Watch.AUC)["kept_is"] == "the average of these seeds' weights"


def test_an_average_that_harms_is_not() -> None:
    chosen = checkpoint.choose({1: state(0.0), 2: state(2.0)}, near(2.0))
    assert float(chosen.weights["weight"]) == 2.0
    assert chosen.kept == (2,)
    assert chosen.as_json(Watch.AUC)["kept_is"] == "one seed's weights"
    assert chosen.single == {1: -2.0, 2: 0.0}


def test_one_seed_that_harms_does_not_keep_others_out() -> None:
    chosen = checkpoint.choose({1: state(1.0), 2: state(9.0), 3: state(-1.5)}, near(0.0))
    assert chosen.kept == (1, 3)
    assert float(chosen.weights["weight"]) == -0.25


def test_counters_are_not_averaged() -> None:
    assert checkpoint.mean_of([state(1.0), state(2.0)])["count"].dtype == torch.int64
