"""Fewer views are judged by a calibration of their own, and differences are counted film by film."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cxr_node import resources
from cxr_node.model import profile as profiles
from cxr_node.training.data.images import Item
from cxr_node.training.data.profile_folder import recipe_of
from cxr_node.training.measure.inference import Scores
from tools import cheaper_network

FOLDER = resources.profile_folder("pneumonia-pediatric")
ITEMS = [Item(path=Path(), positive=place % 2 == 0, kind="", group=str(place), digest="") for place in range(80)]


def scores(scale: float = 1.0) -> Scores:
    """Two clear classes in two views that differ by a tenth; the distance is that of nobody foreign."""
    side = np.array([1.0 if item.positive else -1.0 for item in ITEMS])
    logits = side * np.linspace(0.5, 3.0, len(ITEMS)) * scale
    both = np.stack([logits, logits + 0.1], axis=1)[:, :, None].astype(np.float32)
    return Scores(logits=both, distance=np.zeros(len(ITEMS)))


def test_a_calibration_of_its_own_makes_good_what_only_moved_the_scale() -> None:
    profile, recipe = profiles.load(FOLDER), recipe_of(FOLDER)
    one, half = scores(), scores(0.5)
    then = cheaper_network.outcomes(cheaper_network.fitted(profile, recipe, ITEMS, [one]), ITEMS, one)
    anew = cheaper_network.outcomes(cheaper_network.fitted(profile, recipe, ITEMS, [half]), ITEMS, half)
    as_it_was = cheaper_network.outcomes(cheaper_network.fitted(profile, recipe, ITEMS, [one]), ITEMS, half)
    assert np.abs(anew.probability - then.probability).max() < 0.02
    assert np.abs(as_it_was.probability - then.probability).max() > 0.1
    assert "| 0.000, 0.0000 | 0.0% | 0 | 1.000" in cheaper_network.row("same", then, then)


def test_verdicts_that_turn_are_told_from_those_that_end_in_doubt() -> None:
    profile, recipe = profiles.load(FOLDER), recipe_of(FOLDER)
    one = scores()
    own = cheaper_network.fitted(profile, recipe, ITEMS, [one])
    then = cheaper_network.outcomes(own, ITEMS, one)
    moved = one.logits.copy()
    moved[-2:] *= -1.0  # the two surest, one of each class
    far = np.where(np.arange(len(ITEMS)) == len(ITEMS) - 3, 9.0, 0.0)
    now = cheaper_network.outcomes(own, ITEMS, Scores(logits=moved, distance=far))
    assert "| 3.8% | 2 |" in cheaper_network.row("moved", now, then)


def test_maps_are_compared_cell_by_cell() -> None:
    drawn = np.random.default_rng(4).random((5, 6, 6), dtype=np.float32)
    nothing = np.zeros((5, 2, 1), np.float32)
    one, other = (
        cheaper_network.Seen(logits=nothing, activation=cells, signature=nothing[:, 0], strangeness=None)
        for cells in (drawn, drawn * 3.0)
    )
    assert cheaper_network.maps_alike(one, other) == "maps: correlation 1.000, 5th percentile 1.000; 100% same peak"
    turned = cheaper_network.Seen(logits=nothing, activation=1.0 - drawn, signature=nothing[:, 0], strangeness=None)
    assert "correlation -1.000" in cheaper_network.maps_alike(one, turned)
    assert cheaper_network.maps_alike(one, turned).endswith("0% same peak")
