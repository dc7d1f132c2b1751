"""The picture of every verdict and doubt, against the one that people looked at and found good.

A change of the drawing shows here first. Who means it runs `python -m tests.dicom.test_golden_pictures`, looks at the
new pictures, and commits them. Fonts are rasterised by the installed Pillow, so single pixels may differ a little.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_node.dicom.render import picture
from tests.dicom import contexts

GOLDEN = Path(__file__).parent / "golden"
LONG_SIDE_PX = 1024
MEAN_DIFFERENCE = 0.2
"""Gray levels over the whole picture; another reason to abstain in the words makes 0.28."""
MOVED_SHARE = 0.003
"""Share of pixels that may differ by more than a fifth of the range: edges of letters."""


PICTURES = (*contexts.CASES, "bilateral", "cautioned")


def drawn(case: str) -> Image.Image:
    context = contexts.context(case if case in contexts.CASES else "pneumonia")
    if case == "bilateral":
        context = contexts.in_both_lungs(context)
    if case == "cautioned":
        radiograph = replace(context.radiograph, cautions=("Age not known.", "Projection assumed."))
        context = replace(context, radiograph=radiograph)
    return picture.draw(
        context.radiograph, context.finding, LONG_SIDE_PX, shows_map=context.shows_map, looked=context.looked
    )


@pytest.mark.parametrize("case", PICTURES)
def test_the_picture_is_the_one_that_was_looked_at(case: str) -> None:
    with Image.open(GOLDEN / f"{case}.png") as kept:
        expected = np.asarray(kept.convert("RGB")).astype(np.int16)
    found = np.asarray(drawn(case)).astype(np.int16)
    assert found.shape == expected.shape
    difference = np.abs(found - expected)
    assert difference.mean() <= MEAN_DIFFERENCE
    assert (difference.max(axis=2) > 51).mean() <= MOVED_SHARE


def test_another_verdict_is_another_picture() -> None:
    """The tolerance does not forgive a wrong word."""
    golden = {case: np.asarray(Image.open(GOLDEN / f"{case}.png").convert("RGB")).astype(int) for case in PICTURES}
    for case, one in golden.items():
        for other, two in golden.items():
            if case != other and one.shape == two.shape:
                assert np.abs(one - two).mean() > MEAN_DIFFERENCE, f"{case} looks like {other}"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in PICTURES:
        drawn(name).save(GOLDEN / f"{name}.png", optimize=True)
        print(GOLDEN / f"{name}.png")
