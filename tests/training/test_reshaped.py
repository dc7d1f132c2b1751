"""Films that exchange their shape with a film of the other class: is it read?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_node.errors import DataError
from cxr_node.model import preprocess
from cxr_node.model.profile import InputSpec
from cxr_node.training.data import images
from cxr_node.training.data.images import Item
from cxr_node.training.measure import inference

SPEC = InputSpec(size_px=32, border=0.0)


def film(folder: Path, number: int, shape: tuple[int, int], *, positive: bool) -> Item:
    pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
    path = folder / f"{number}.png"
    Image.fromarray(pixels).save(path)
    return Item(path=path, positive=positive, kind="", group=str(number), digest=str(number))


def test_each_film_is_cut_to_the_shape_of_the_other_class(tmp_path: Path) -> None:
    wide, high = film(tmp_path, 1, (60, 90), positive=True), film(tmp_path, 2, (80, 80), positive=False)
    found = inference.reshaped([wide, high], SPEC, seed=0).numpy()[:, 0]
    narrowed, lowered = images.load(wide)[:, 15:75], images.load(high)[13:66]  # 1:1, and 3:2 as near as rows allow
    assert np.array_equal(found[0], preprocess.prepare(narrowed, SPEC))
    assert np.array_equal(found[1], preprocess.prepare(lowered, SPEC))


@pytest.mark.parametrize(("shape", "aspect"), [((60, 90), 0.5), ((60, 90), 1.5), ((3, 200), 4.0), ((200, 3), 0.01)])
def test_a_film_is_cut_on_one_axis_and_never_to_nothing(shape: tuple[int, int], aspect: float) -> None:
    cut = inference.cut_to(np.zeros(shape, dtype=np.float32), aspect)
    assert min(cut.shape) >= 1
    assert cut.shape[0] == shape[0] or cut.shape[1] == shape[1]
    assert cut.shape[0] <= shape[0] and cut.shape[1] <= shape[1]


@pytest.mark.parametrize(("second", "shape"), [(True, (80, 80)), (False, (60, 90))])
def test_films_of_one_class_or_of_one_shape_are_refused(second: bool, shape: tuple[int, int], tmp_path: Path) -> None:
    items = [film(tmp_path, 1, (60, 90), positive=True), film(tmp_path, 2, shape, positive=second)]
    with pytest.raises(DataError, match="still have"):
        inference.reshaped(items, SPEC, seed=0)
