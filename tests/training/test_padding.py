"""Edges of a film moved and nothing else; what is counted of the answers; and that letterbox and squash differ."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_node.domain import Verdict
from cxr_node.model import preprocess, profile
from cxr_node.model.profile import Geometry
from cxr_node.training.data import images
from cxr_node.training.measure import padding
from cxr_node.training.measure.bootstrap import Interval
from cxr_node.training.measure.evaluate import Scorer
from tests.training import folders


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return Scorer(profile.load(folders.profile(tmp_path_factory.mktemp("profile"))))


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[images.Item]:
    return images.read(folders.tree(tmp_path_factory.mktemp("data"), each=10), folders.CLASSES)


@pytest.mark.parametrize("name", padding.MOVES)
def test_the_film_between_the_edges_stays_as_it_was(name: str) -> None:
    picture = np.random.default_rng(0).uniform(0.2, 1.0, (40, 80)).astype(np.float32)
    changed = padding.moved(picture, padding.MOVES[name])
    left, right, top, bottom = padding.MOVES[name]
    assert changed.shape == (40 + round(40 * top) + round(40 * bottom), 80 + round(80 * left) + round(80 * right))
    if name.startswith("padded"):
        assert (changed > 0.0).sum() == picture.size
        rows, cols = round(40 * top), round(80 * left)
        np.testing.assert_array_equal(changed[rows : rows + 40, cols : cols + 80], picture)
    else:
        rows, cols = round(-40 * top), round(-80 * left)
        np.testing.assert_array_equal(changed, picture[rows : rows + changed.shape[0], cols : cols + changed.shape[1]])


def test_every_side_is_padded_and_cut_by_ten_to_fifteen_per_cent() -> None:
    moved = np.array(list(padding.MOVES.values()))
    assert moved.shape == (12, 4)
    assert ((np.abs(moved[moved != 0.0]) >= 0.10) & (np.abs(moved[moved != 0.0]) <= 0.15)).all()
    assert (moved > 0.0).any(axis=0).all() and (moved < 0.0).any(axis=0).all()


def test_moves_changes_and_flips_are_counted(
    scorer: Scorer, items: list[images.Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(padding, "MOVES", {"as it is": (0.0,) * 4, "half a film": (0.0, 0.0, -0.5, 0.0)})
    monkeypatch.setattr(padding, "AT_ONCE", 7)  # chunks must not change what belongs to which film
    seen: list[None] = []
    found = padding.measure(scorer, items, lambda: seen.append(None))
    assert len(seen) == padding.steps(len(items)) == 3 * len(items)
    same, half = found["variants"].values()
    assert (same["move"], same["changes"], same["flips"]) == ({"value": 0.0, "low": 0.0, "high": 0.0}, 0, 0)
    logits = [
        scorer.score(padding._shown(images.load(item), scorer), lambda: None).logit() for item in items
    ]  # (films, 1 + moves), one film at a time
    moves = np.array([one[2] - one[0] for one in logits])
    positive = np.array([item.positive for item in items])
    assert half["move"]["value"] == pytest.approx(moves.mean(), abs=1e-4)
    assert half["of_positives"]["value"] == pytest.approx(moves[positive].mean(), abs=1e-4)
    assert half["of_negatives"]["value"] == pytest.approx(moves[~positive].mean(), abs=1e-4)
    assert found["move"]["value"] == pytest.approx(abs(moves.mean()), abs=1e-4)
    assert found["answers"] == 2 * len(items)


def test_flips_are_turns_to_the_opposite_only() -> None:
    before = np.array(["POSITIVE", "POSITIVE", "NEGATIVE", "INDETERMINATE"])
    after = np.array(["NEGATIVE", "INDETERMINATE", "NEGATIVE", "POSITIVE"])
    one, other = (np.array([str(Verdict[word]) for word in words]) for words in (before, after))
    found = padding._compared(np.zeros(4), (one, other), np.array([True] * 4), np.arange(4).astype(str))
    assert (found["changes"], found["flips"], found["answers"]) == (3, 1, 4)
    assert "of_negatives" not in found


def test_a_move_has_no_sign_and_an_interval_that_holds_zero_begins_there() -> None:
    assert padding._unsigned(Interval(value=-0.3, low=-0.4, high=-0.1)) == Interval(value=0.3, low=0.1, high=0.4)
    assert padding._unsigned(Interval(value=-0.1, low=-0.3, high=0.2)) == Interval(value=0.1, low=0.0, high=0.3)


@pytest.mark.parametrize(("geometry", "kept"), [(Geometry.LETTERBOX, True), (Geometry.SQUASHED, False)])
def test_a_letterbox_keeps_the_shape_that_a_squash_loses(scorer: Scorer, geometry: Geometry, kept: bool) -> None:
    """A round heart stays round when a margin is added at both sides; squashed, it becomes an upright egg."""
    y, x = np.mgrid[:60, :90] + 0.5
    film = (0.2 + 0.7 * (np.hypot(y - 30, x - 45) < 15) + 0.002 * (x % 7)).astype(np.float32)
    spec = scorer.profile.input.model_copy(update={"border": 0.0, "size_px": 64, "geometry": geometry})
    roundness = []
    for one in (film, padding.moved(film, padding.MOVES["padded by 12.5%, left and right"])):
        heart = preprocess.prepare(one, spec) > 1.0
        roundness.append(heart.any(axis=0).sum() / heart.any(axis=1).sum())
    assert bool(roundness[1] / roundness[0] > 0.9) is kept
