from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cxr_node.model import lungs
from tests.shared import radiographs
from tools.phantom import canvas, child, exposure, thorax

SHIPPED = Path(str(resources.files("cxr_node"))) / "demo_radiographs"


def pixels_of(path: Path) -> NDArray[np.float32]:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), dtype=np.float32) / 255.0


def air(name: str) -> NDArray[np.bool_]:
    """Where the drawn child has lung, opacities or not."""
    healthy = replace(child.CHILDREN[name], opacities=(), haze=0.0)
    return thorax.lungs(healthy, canvas.Canvas(exposure.ROWS, exposure.COLS)) > 1.0


@pytest.mark.parametrize("name", sorted(child.CHILDREN))
def test_the_lungs_of_a_drawn_child_are_found_clear_or_white(name: str) -> None:
    truth, found = air(name), lungs.find(pixels_of(SHIPPED / f"{name}.jpg"))
    assert found.lungs.shape == found.region.shape == truth.shape
    # What lies before the heart and below the dome counts as air in the drawing and not as lung field here.
    assert 2 * (truth & found.lungs).sum() / (truth.sum() + found.lungs.sum()) > 0.7
    assert (truth & found.region).sum() / truth.sum() > 0.85
    assert (found.region & ~found.lungs).any() and not (found.lungs & ~found.region).any()
    assert found.region.mean() < 0.7


def test_a_moved_and_squeezed_picture_moves_the_lungs() -> None:
    pixels = pixels_of(SHIPPED / "clear-2.jpg")
    rows, cols = pixels.shape
    moved = np.pad(pixels, ((0, rows // 10), (cols // 12, 0)), mode="edge")[rows // 10 :, :cols]
    before, after = lungs.find(pixels).lungs, lungs.find(moved).lungs
    assert np.argwhere(after).mean(0)[0] - np.argwhere(before).mean(0)[0] == pytest.approx(-rows / 10, abs=rows / 25)
    assert np.argwhere(after).mean(0)[1] - np.argwhere(before).mean(0)[1] == pytest.approx(cols / 12, abs=cols / 25)


def test_size_and_brightness_do_not_move_the_lungs() -> None:
    pixels = pixels_of(SHIPPED / "opacity-2.jpg")
    other = np.asarray(Image.fromarray(0.2 + 0.5 * pixels).resize((224, 224), Image.Resampling.BILINEAR))
    large, small = lungs.find(pixels).region, lungs.find(other).region
    again = np.asarray(Image.fromarray(small).resize(large.shape[::-1], Image.Resampling.NEAREST))
    assert (large & again).sum() / (large | again).sum() > 0.93


@pytest.mark.parametrize("pixels", [np.zeros((60, 50)), np.ones((50, 60)), np.eye(48)])
def test_no_picture_is_too_poor_for_a_usual_thorax(pixels: NDArray[np.float64]) -> None:
    found = lungs.find(pixels.astype(np.float32))
    assert 0.1 < found.lungs.mean() < found.region.mean() < 0.9
    assert abs(found.likeness) < 0.6


def test_same_picture_same_place() -> None:
    pixels = pixels_of(SHIPPED / "clear-1.jpg")
    first, second = lungs.find(pixels), lungs.find(pixels.copy())
    stored = lungs.find(np.rint(255 * pixels).astype(np.float32))
    assert (stored.lungs == first.lungs).all() and (stored.region == first.region).all()
    assert first.likeness == second.likeness and (first.lungs == second.lungs).all()


@pytest.mark.whole
@pytest.mark.shared
def test_real_lungs_are_dark_and_in_the_region() -> None:
    """On originals: normal lung fields are darker than what lies between and around them in the chest region."""
    darker = []
    for path, label in radiographs(12).items():
        pixels = pixels_of(path)
        found = lungs.find(pixels)
        assert 0.2 < found.region.mean() < 0.75, path.name
        if label == "NORMAL":
            darker.append(pixels[found.lungs].mean() < pixels[found.region & ~found.lungs].mean() - 0.05)
    assert np.mean(darker) == 1.0
