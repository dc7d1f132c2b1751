from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_node.errors import DataError
from tools.phantom import __main__, canvas, child, exposure, likeness, skeleton, thorax

SHIPPED = Path(str(resources.files("cxr_node"))) / "demo_radiographs"


@pytest.fixture(scope="module")
def plane() -> canvas.Canvas:
    return canvas.Canvas(exposure.ROWS, exposure.COLS)


def test_six_are_shipped_and_nothing_else_is_in_them() -> None:
    assert sorted(path.stem for path in SHIPPED.glob("*.jpg")) == sorted(child.CHILDREN)
    for path in SHIPPED.glob("*.jpg"):
        assert path.stat().st_size < 250_000
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (exposure.COLS, exposure.ROWS))
            assert not image.getexif() and "comment" not in image.info


@pytest.mark.parametrize("name", ["opacity-1", "opacity-3"])
def test_what_is_shipped_is_what_the_formula_draws(name: str) -> None:
    with Image.open(SHIPPED / f"{name}.jpg") as image:
        shipped = np.asarray(image, dtype=np.float32)
    drawn = exposure.radiograph(child.CHILDREN[name]).astype(np.float32)
    assert np.abs(shipped - drawn).mean() < 2.0  # grey values, of which JPEG costs about one
    assert np.corrcoef(shipped.ravel(), drawn.ravel())[0, 1] > 0.998


def test_no_two_children_are_alike() -> None:
    small = [np.asarray(Image.open(path).resize((64, 52)), dtype=np.float64) for path in SHIPPED.glob("*.jpg")]
    digests = {hashlib.sha256(image.tobytes()).hexdigest() for image in small}
    assert len(digests) == 6


def test_an_opacity_takes_air_where_it_is_and_moves_nothing_else(plane: canvas.Canvas) -> None:
    healthy = child.CHILDREN["clear-1"]
    spot = child.Opacity(x=-4.5, y=9.0, width=1.5, height=1.5, fill=0.8)
    before, after = thorax.lungs(healthy, plane), thorax.lungs(replace(healthy, opacities=(spot,)), plane)
    away = np.hypot(plane.x - spot.x, plane.y - spot.y)
    assert (after <= before + 1e-9).all()
    assert after[away < 0.7].mean() < 0.5 * before[away < 0.7].mean()
    np.testing.assert_allclose(after[away > 6.0], before[away > 6.0], atol=1e-3)


def test_the_doubtful_one_is_the_first_child_fallen_slightly_ill() -> None:
    healthy, ill = child.CHILDREN["clear-1"], child.CHILDREN["opacity-3"]
    assert replace(ill, haze=healthy.haze, vessels=healthy.vessels, opacities=()) == healthy
    certain = [one.fill for name in ("opacity-1", "opacity-2") for one in child.CHILDREN[name].opacities]
    assert max(one.fill for one in ill.opacities) < min(certain)


def test_lungs_lie_between_the_walls_and_above_the_belly(plane: canvas.Canvas) -> None:
    air = thorax.lungs(child.CHILDREN["clear-1"], plane)
    wall = thorax.chest_wall(plane.y, child.CHILDREN["clear-1"])
    assert air.min() >= 0.0
    assert air[np.abs(plane.x) > wall + 0.1].max() < 1e-6
    assert air[plane.y < 2.0].max() < 0.01
    middle = (np.abs(np.abs(plane.x) - 4.0) < 0.5) & (np.abs(plane.y - 10.0) < 0.5)
    assert 4.0 < air[middle & (plane.x < 0)].mean() < 10.0  # cm of air through a child's right lung


def test_a_tube_has_the_volume_of_its_length(plane: canvas.Canvas) -> None:
    along = np.linspace(0.0, 1.0, 4000)
    axis = np.column_stack([-3.0 + 6.0 * along, np.full(along.size, 8.0)])
    thickness = plane.tubes([(axis, np.full(along.size, 6.0 / along.size))], 0.3, 0.5)
    assert thickness.sum() * canvas.CM_PER_PX**2 == pytest.approx(np.pi * 0.3**2 * 6.0, rel=0.02)


def test_a_capsule_is_as_thick_as_its_diameter(plane: canvas.Canvas) -> None:
    assert plane.capsule((-3.0, 5.0), (3.0, 9.0), 1.2).max() == pytest.approx(2.4, rel=1e-3)


def test_bones_are_where_bones_are(plane: canvas.Canvas) -> None:
    bone = skeleton.bone(child.CHILDREN["clear-1"], plane)
    assert bone.min() >= 0.0
    spine = bone[(np.abs(plane.x) < 0.5) & (plane.y > 2.0)].mean()
    between = bone[(plane.x > 9.8) & (plane.y > 9.0)].mean()
    assert spine > 0.2 and between < 0.02


def write_manifest(folder: Path, images: dict[str, np.ndarray]) -> None:
    folder.mkdir()
    lines = ["file,label,patient"]
    for number, (name, pixels) in enumerate(images.items()):
        Image.fromarray(pixels).save(folder / name)
        lines.append(f"{name},{'NORMAL' if number % 2 else 'PNEUMONIA'},child {number}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


def test_a_copy_is_found_out_and_a_stranger_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    images = {f"{n}.png": rng.integers(0, 256, (120, 120), dtype=np.uint8) for n in range(4)}
    write_manifest(tmp_path / "data", images)
    drawings = {"copy": images["2.png"], "stranger": rng.integers(0, 256, (120, 120), dtype=np.uint8)}
    found = likeness.measure(drawings, tmp_path / "data")
    assert found.drawn["copy"] == pytest.approx(1.0, abs=1e-4)
    assert found.drawn["stranger"] < 0.2
    assert found.between_children[0] <= found.between_children[1] < 0.2


def test_a_folder_without_images_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        likeness.measure({}, tmp_path)


def test_the_command_writes_what_it_drew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = np.tile(np.arange(200, dtype=np.uint8), (150, 1))
    monkeypatch.setattr(__main__, "radiograph", lambda _child: flat)
    write_manifest(tmp_path / "data", {"a.png": flat, "b.png": flat.T.copy()})
    monkeypatch.setattr(sys, "argv", ["phantom", "--out", str(tmp_path / "out"), "--data", str(tmp_path / "data")])
    __main__.main()
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.jpg")) == sorted(child.CHILDREN)
    said = capsys.readouterr().out
    assert "clear-1: nearest real radiograph, correlation 1.000" in said and "different children" in said
