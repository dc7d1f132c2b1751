"""Training films between bars are what serving shows, and their edges lie anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cxr_node.errors import ConfigError, DataError
from cxr_node.model import preprocess
from cxr_node.model.profile import Geometry, InputSpec
from cxr_node.training.data import images
from cxr_node.training.data.images import Item
from cxr_node.training.data.recipe import read
from cxr_node.training.data.recipe_sections import AugmentSection
from cxr_node.training.measure import inference
from cxr_node.training.synthetic import letterbox
from cxr_node.training.synthetic.augment import Augmenter
from tests.training import folders
from tests.training.test_options import recipe_with

OFF = {name: 0 for name in AugmentSection.model_fields if name != "recompress_quality"} | {
    "recompress_quality": (50, 90)
}
SPEC = InputSpec(size_px=64, border=0.0, geometry=Geometry.LETTERBOX)
SOURCE_PX = 96


def section(**options: float) -> AugmentSection:
    return AugmentSection.model_validate(OFF | options)


def film(aspect: float, seed: int = 0) -> np.ndarray:
    """A smooth film in its shape, uint8, long side 192."""
    coarse = np.random.default_rng(seed).uniform(40, 230, (6, 6)).astype(np.uint8)
    cols, rows = (round(192 * min(1.0, side)) for side in (aspect, 1.0 / aspect))
    return np.asarray(Image.fromarray(coarse).resize((cols, rows), Image.Resampling.BICUBIC))


def squashed(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((SOURCE_PX, SOURCE_PX), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("aspect", [0.6, 1.0, 1.6])
def test_everything_off_is_what_serving_shows(aspect: float) -> None:
    picture = film(aspect)
    changed = Augmenter(section(), SPEC, SOURCE_PX, 0)(
        squashed(picture)[None], np.array([True]), np.random.default_rng(0), aspects=np.array([aspect])
    )
    served = preprocess.prepare(picture.astype(np.float32) / 255.0, SPEC)
    seen = changed.inputs[0, 0].numpy()
    bars = served == 0.0
    assert ((seen == 0.0) != bars).mean() < 0.05  # a row or column more or less where the edge falls between two
    inner = ~bars & (seen != 0.0)
    assert np.abs(seen - served)[inner].mean() < 0.12
    assert np.corrcoef(seen[inner], served[inner])[0, 1] > 0.98


def test_a_lost_shape_is_drawn_and_a_known_one_is_kept() -> None:
    known = np.array([1.5, np.nan, np.nan, 0.8])
    found = letterbox.shapes(known, 4, np.random.default_rng(0))
    assert (found[0], found[3]) == (1.5, 0.8) and found[1] != found[2]
    drawn = np.log(letterbox.shapes(None, 4000, np.random.default_rng(1)))
    assert drawn.mean() == pytest.approx(images.LOST_MEAN, abs=0.02)
    assert drawn.std() == pytest.approx(images.LOST_SPREAD, abs=0.02)
    assert np.isnan(known[1])  # what was given is not changed


def test_edges_are_cut_and_added_as_often_and_as_far_as_told() -> None:
    found = letterbox.edges(4000, section(cut=0.5, margin=0.2, edge_reach=0.15), np.random.default_rng(0))
    for axis in (0, 1):
        low, high = found[:, axis] + 1.0, 1.0 - found[:, axis + 2]  # cut is positive, a margin negative
        assert ((low > 0) & (high > 0)).mean() == pytest.approx(0.5, abs=0.03)
        assert ((low < 0) & (high < 0)).mean() == pytest.approx(0.2, abs=0.03)
        assert max(low.max(), high.max()) <= 0.3 and min(low.min(), high.min()) >= -0.3  # of a side of 2
    still = letterbox.edges(10, section(edge_reach=0.15), np.random.default_rng(0))
    np.testing.assert_array_equal(still, np.tile([-1.0, -1.0, 1.0, 1.0], (10, 1)))


def test_a_cut_film_is_the_cut_film_and_not_a_stretched_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of the film has the shape that it has: serving the cut picture shows the same."""
    picture = film(1.5)
    monkeypatch.setattr(letterbox, "edges", lambda count, *given: np.tile([-0.5, -1.0, 0.5, 1.0], (count, 1)))
    changed = Augmenter(section(), SPEC, SOURCE_PX, 0)(
        squashed(picture)[None], np.array([True]), np.random.default_rng(0), aspects=np.array([1.5])
    )
    cols = picture.shape[1]
    served = preprocess.prepare(picture[:, cols // 4 : cols - cols // 4].astype(np.float32) / 255.0, SPEC)
    seen = changed.inputs[0, 0].numpy()
    inner = (served != 0.0) & (seen != 0.0)
    assert ((seen == 0.0) != (served == 0.0)).mean() < 0.05
    assert np.corrcoef(seen[inner], served[inner])[0, 1] > 0.97


def test_bars_are_zero_and_open_bars_are_picture() -> None:
    stack = np.stack([squashed(film(2.0, seed)) for seed in range(8)])
    given = {"rng": np.random.default_rng(0), "aspects": np.full(8, 2.0)}
    barred = Augmenter(section(), SPEC, SOURCE_PX, 0)(stack, np.ones(8, dtype=bool), **given).inputs
    assert (barred[:, 0, :14] == 0.0).all() and (barred[:, 0, 20:44] != 0.0).float().mean() > 0.99
    spread, mean = torch.std_mean(barred[:, 0, 17:47], dim=(1, 2))
    torch.testing.assert_close(mean, torch.zeros(8), atol=0.1, rtol=0.0)
    torch.testing.assert_close(spread, torch.ones(8), atol=0.15, rtol=0.0)
    opened = Augmenter(section(open_bars=1.0), SPEC, SOURCE_PX, 0)(stack, np.ones(8, dtype=bool), **given).inputs
    assert (opened[:, 0, :14] != 0.0).all()


@pytest.mark.parametrize("door", [{"cut": 1.0}, {"margin": 1.0}, {"rotate_deg": 20.0}, {"scale": 0.3}, {"mirror": 1.0}])
def test_each_door_changes_films_and_its_generator_alone_decides(door: dict[str, float]) -> None:
    stack = np.stack([squashed(film(1.3, seed)) for seed in range(4)])
    positive, aspects = np.ones(4, dtype=bool), np.full(4, 1.3)

    def batch(seed: int, **options: float) -> torch.Tensor:
        changer = Augmenter(section(edge_reach=0.15, **options), SPEC, SOURCE_PX, 0)
        return changer(stack, positive, np.random.default_rng(seed), aspects=aspects).inputs

    assert float((batch(0, **door) - batch(0)).abs().max()) > 0.05
    torch.testing.assert_close(batch(3, **door), batch(3, **door), atol=0.0, rtol=0.0)
    assert torch.isfinite(batch(3, **door)).all()


def test_shapes_come_from_the_files_or_from_a_list(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    items = []
    for name, size in (("a.png", (60, 40)), ("b.png", (40, 40))):
        Image.fromarray(np.zeros(size[::-1], dtype=np.uint8)).save(folder / name)
        items.append(Item(path=folder / name, positive=True, kind="", group=name, digest=""))
    np.testing.assert_allclose(images.aspects(items), [1.5, 1.0])
    listed = tmp_path / "shapes.csv"
    listed.write_text("copy,wide,high\nb.png,300,200\n")
    known = images.shapes_listed(listed, "copy", "wide", "high")
    found = images.aspects(items, known, folder)
    assert np.isnan(found[0]) and found[1] == 1.5
    with pytest.raises(DataError, match="has no column 'deep'"):
        images.shapes_listed(listed, "copy", "wide", "deep")
    listed.write_text("copy,wide,high\nb.png,300,0\n")
    with pytest.raises(DataError, match=r"does not tell wide and high of b\.png"):
        images.shapes_listed(listed, "copy", "wide", "high")


def test_exchanged_films_get_their_shape_back() -> None:
    stack = np.stack([squashed(film(1.6, seed)) for seed in range(4)])
    positive = np.array([True, False, True, False])
    shown = inference.exchanged(stack, positive, SPEC, 0, np.full(4, 1.6))
    assert (shown[:, 0, :10] == 0.0).all() and (shown[:, 0, 20:40] != 0.0).float().mean() > 0.99


@pytest.mark.parametrize("option", [{"cut": 0.1}, {"margin": 0.1}, {"open_bars": 0.1}])
def test_a_squashed_film_has_no_edges_to_move(option: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"are for input\.geometry: letterbox"):
        read(recipe_with(tmp_path, {"augment": option}))
    assert read(folders.small_recipe(tmp_path)).augment.cut == 0.0


CHANGES = {
    "rotate_deg": 20.0,
    "scale": 0.2,
    "aspect": 0.2,
    "shift": 0.1,
    "mirror": 0.5,
    "gamma": 0.6,
    "contrast": 0.4,
    "unevenness": 0.3,
    "blur_px": 1.6,
    "sharpen": 0.8,
    "noise": 0.2,
    "recompress": 0.6,
}


@pytest.mark.parametrize("change", [*CHANGES, "all"])
def test_both_pictures_of_a_film_are_changed_alike(change: str) -> None:
    """A square film is the same picture squashed and between bars: what differs would be a change of its own."""
    changes = CHANGES if change == "all" else {change: CHANGES[change]}
    spec = InputSpec(size_px=64, border=0.0, shape_px=64)
    films, ill = np.stack([squashed(film(1.0, seed)) for seed in range(12)]), np.ones(12, dtype=bool)
    shown = Augmenter(section(**changes), spec, SOURCE_PX, 0)(
        films, ill, np.random.default_rng(3), aspects=np.ones(12)
    ).inputs.numpy()
    for flat, boxed in shown:
        there = boxed != 0.0
        assert np.corrcoef(flat[there], boxed[there])[0, 1] > 0.98
