"""Boxes from the manifest to the heat map: read, laid over films of any shape, and found or not."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cxr_node.domain import AbstainReason, Decision, Verdict
from cxr_node.errors import DataError
from cxr_node.model.profile import Geometry, InputSpec, Profile, load
from cxr_node.training.data import images
from cxr_node.training.data.images import Asked, Item
from cxr_node.training.saliency import boxes
from cxr_node.training.saliency.probe import Explanation, Probe
from tests.model import folders as model_folders
from tests.training import folders
from tests.training.test_heatmaps import SIZE_PX, Watcher

CALLED = Decision(verdict=Verdict.POSITIVE, abstain_reason=None)
UNSURE = Decision(verdict=Verdict.INDETERMINATE, abstain_reason=AbstainReason.BETWEEN_THRESHOLDS)


def test_boxes_are_shares_of_the_picture(tmp_path: Path) -> None:
    rows = [row | {"boxes_100": ""} for row in folders.children(count=1, images=1)]
    rows[1]["boxes_100"] = "[[10, 20, 30.5, 40], [0, 0, 100, 100]]"
    folder = folders.manifest(tmp_path, rows)
    items = images.read(folder, folders.CLASSES, asked=Asked(boxes="boxes_100"))
    assert items[1].boxes == ((0.1, 0.2, 0.305, 0.4), (0.0, 0.0, 1.0, 1.0))
    assert items[0].boxes == ()
    assert all(not item.boxes for item in images.read(folder, folders.CLASSES))


@pytest.mark.parametrize(
    ("column", "told", "said"),
    [
        ("boxes", "[]", "does not end in the side of its grid"),
        ("boxes_0", "[]", "does not end in the side of its grid"),
        ("boxes_9", "nine", "is no list of boxes"),
        ("boxes_9", "[[1, 2, 3]]", "holds a box that is not"),
    ],
)
def test_boxes_that_cannot_be_read_are_named(column: str, told: str, said: str, tmp_path: Path) -> None:
    folder = folders.manifest(tmp_path, [row | {column: told} for row in folders.children(count=1, images=1)])
    with pytest.raises(DataError, match=said):
        images.read(folder, folders.CLASSES, asked=Asked(boxes=column))
    with pytest.raises(DataError, match="has no column"):
        images.read(folder, folders.CLASSES, asked=Asked(boxes="boxes_7"))


def test_a_box_lies_where_it_was_drawn() -> None:
    place = boxes.place_of([(0.25, 0.5, 0.5, 0.25)], (40, 80))
    rows, cols = np.nonzero(place)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (20, 29, 20, 59)
    assert not boxes.place_of([], (4, 4)).any()
    np.testing.assert_array_equal(boxes.place_of([(0, 0, 0.5, 1), (0.5, 0, 0.5, 1)], (6, 6)), True)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    loaded = load(model_folders.write(tmp_path_factory.mktemp("profile")))
    return replace(loaded, input=InputSpec(size_px=SIZE_PX, border=0.0), slope=1.0, intercept=0.0)


def spotted(path: Path, shape: tuple[int, int], spot: tuple[float, float], told: images.Box) -> Item:
    """A dark film with one bright spot, and a box that may or may not be round it."""
    rows, cols = ((np.arange(side) + 0.5) / side for side in shape)
    film = 0.15 + 0.8 * np.exp(-(((rows[:, None] - spot[1]) / 0.06) ** 2) - ((cols[None] - spot[0]) / 0.06) ** 2)
    film += np.random.default_rng(0).normal(0.0, 0.01, shape)
    Image.fromarray(np.rint(film.clip(0, 1) * 255).astype(np.uint8)).save(path)
    return Item(path=path, positive=True, kind="", group=path.name, digest="", boxes=(told,))


@pytest.mark.parametrize("geometry", list(Geometry))
@pytest.mark.parametrize("shape", [(60, 120), (120, 60)])
def test_a_map_is_laid_over_the_film_in_either_geometry(
    profile: Profile, geometry: Geometry, shape: tuple[int, int], tmp_path: Path
) -> None:
    spec = profile.input.model_copy(update={"geometry": geometry})
    spot = (0.25, 0.75)
    right, wrong = (0.0, 0.5, 0.5, 0.5), (0.5, 0.0, 0.5, 0.5)
    items = [spotted(tmp_path / "a.png", shape, spot, right), spotted(tmp_path / "b.png", shape, spot, wrong)]
    everywhere = Watcher(torch.zeros(1, 8, 8), torch.ones(1, 8, 8)).eval()
    judged = [(items[0], CALLED), (items[1], CALLED), (items[1], UNSURE)]
    told: list[None] = []
    found = boxes.measure(replace(profile, input=spec), everywhere, judged, lambda: told.append(None))
    assert (found["images"], found["called"], len(told)) == (3, 2, 3)
    assert found["rates"]["peak_in_box_of_called"]["value"] == 0.5
    assert found["rates"]["peak_in_box"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert set(found["rates"]) <= set(boxes.NAMES)


def test_the_bars_of_a_letterbox_are_no_part_of_the_film(profile: Profile) -> None:
    letterbox = replace(profile, input=profile.input.model_copy(update={"geometry": Geometry.LETTERBOX}))
    active = np.zeros((8, 8), dtype=np.float32)
    active[4, 4] = 10.0
    film = np.zeros((40, 80), dtype=np.float32)
    probe = Probe(profile=letterbox, network=model_folders.lively())
    assert (probe.even(film) == 1.0).all()  # the network sees all of the film, and bars
    assert np.array(probe.borders(film)) == pytest.approx(np.array(((-0.5, -0.5), (0.0, 0.0))))
    assert probe.shown(Explanation(probability=1.0, active=active), film).max() > 0.9


def test_negatives_and_films_without_a_box_are_left_out(profile: Profile, tmp_path: Path) -> None:
    item = spotted(tmp_path / "a.png", (64, 64), (0.3, 0.3), (0.2, 0.2, 0.2, 0.2))
    judged = [(replace(item, boxes=()), CALLED), (replace(item, positive=False), CALLED)]
    found = boxes.measure(profile, Watcher(torch.zeros(1, 8, 8), torch.ones(1, 8, 8)), judged)
    assert found == {"images": 0, "called": 0, "rates": {}}


def test_a_column_of_the_manifest_splits_what_is_measured(tmp_path: Path) -> None:
    rows = [row | {"source": "ab"[place % 2]} for place, row in enumerate(folders.children(count=2, images=2))]
    folder = folders.manifest(tmp_path, rows)
    items = images.read(folder, folders.CLASSES, asked=Asked(tags=(*images.TAG_COLUMNS, "source")))
    assert {item.tags["source"] for item in items} == {"a", "b"}
    with pytest.raises(DataError, match="tells of no image's 'hospital'; it has file, label"):
        images.read(folder, folders.CLASSES, asked=Asked(tags=("hospital",)))
    with (folder / "manifest.csv").open() as lines:
        assert "source" in next(csv.reader(lines))
