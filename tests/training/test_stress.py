"""Re-encodings that keep the image, outsiders that do not, and what is counted of the answers to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cxr_node.errors import DataError
from cxr_node.model import profile
from cxr_node.training.data import images
from cxr_node.training.measure import evaluate, stress
from cxr_node.training.measure.evaluate import Scorer
from tests.training import folders


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return Scorer(profile.load(folders.profile(tmp_path_factory.mktemp("profile"))))


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[images.Item]:
    return images.read(folders.tree(tmp_path_factory.mktemp("data"), each=3), folders.CLASSES)


def nothing() -> None:
    """Tell nobody of progress."""


@pytest.fixture
def picture() -> np.ndarray:
    rng = np.random.default_rng(4)
    smooth = np.kron(rng.uniform(0.1, 0.9, (5, 4)), np.ones((30, 30)))
    return (np.rint((smooth + rng.normal(0.0, 0.01, smooth.shape)).clip(0, 1) * 255) / 255).astype(np.float32)


@pytest.mark.parametrize("name", stress.REENCODINGS)
def test_another_encoding_shows_the_same_picture(name: str, picture: np.ndarray) -> None:
    shown = stress.REENCODINGS[name](picture)
    assert shown.dtype == np.float32
    assert 0.0 <= shown.min() < shown.max() <= 1.0
    if shown.shape == picture.shape:
        assert np.corrcoef(shown.ravel(), picture.ravel())[0, 1] > 0.97
    else:
        assert max(shown.shape) == int(name.split()[0])
        assert shown.mean() == pytest.approx(picture.mean(), abs=0.01)


@pytest.mark.parametrize("name", ["8 bits, no window", "MONOCHROME1, 8 bits"])
def test_a_lossless_encoding_changes_nothing(name: str, picture: np.ndarray) -> None:
    np.testing.assert_allclose(stress.REENCODINGS[name](picture), picture, atol=1e-6)


def test_moves_flips_and_changes_are_counted(
    scorer: Scorer, items: list[images.Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {"as it is": lambda image: image, "upside down": lambda image: image[::-1]}
    monkeypatch.setattr(stress, "REENCODINGS", two)
    seen: list[None] = []
    found = stress.measure_reencodings(scorer, items, lambda: seen.append(None))
    assert len(seen) == 3 * len(items)
    same, turned = found["variants"].values()
    assert (same["largest"], same["changes"], same["flips"]) == (0.0, 0, 0)
    assert turned["largest"] > 0.0
    assert found["largest"] == turned["largest"]
    assert found["answers"] == 2 * len(items)
    assert found["move"]["low"] <= found["move"]["value"] <= found["move"]["high"] <= found["largest"]


def test_outsiders_are_counted_by_kind_and_together(scorer: Scorer, items: list[images.Item], tmp_path: Path) -> None:
    folders.tree(tmp_path / "adults", each=4)
    foreign = stress.foreign(tmp_path / "adults", 5)
    assert len(foreign) == 5
    found = stress.measure_outsiders(scorer, items, {"adults": foreign}, nothing)
    assert set(found["kinds"]) == {*stress.OUTSIDERS, "adults"}
    for one in found["kinds"].values():
        refused = sum(count for verdict, count in one["verdicts"].items() if verdict in stress.REFUSALS)
        assert one["refused"]["value"] == pytest.approx(refused / one["images"], abs=1e-4)
    assert found["all"]["images"] == len(stress.OUTSIDERS) * len(items) + 5


def test_outsiders_are_what_their_names_say(picture: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    made = {kind: change(picture, rng) for kind, change in stress.OUTSIDERS.items()}
    np.testing.assert_allclose(made["inverted"] + picture, 1.0)
    np.testing.assert_array_equal(made["mirrored"][:, 0], picture[:, -1])
    assert made["rotated by 90 degrees"].shape == picture.shape[::-1]
    np.testing.assert_array_equal(made["rotated by 180 degrees"][0, 0], picture[-1, -1])
    assert abs(np.corrcoef(made["noise"].ravel(), picture.ravel())[0, 1]) < 0.5


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        stress.foreign(tmp_path, 5)


def test_a_sample_has_both_classes_and_every_child_once(tmp_path: Path) -> None:
    items = images.read(folders.manifest(tmp_path, folders.children(count=4, images=2)), folders.CLASSES)
    some = evaluate.sampled(items, 6)
    assert len(some) == len({item.group for item in some}) == 6
    assert sum(item.positive for item in some) == 3
    assert evaluate.sampled(items[::-1], 6) == some
    everybody = evaluate.sampled(items, 100)
    assert len(everybody) == 12
    assert sum(item.positive for item in everybody) == 8
    assert sum(item.positive for item in evaluate.sampled(items, 10)) == 6  # four normals are all there are
