"""Regions of a heat map: all that stand out, each in one lung, closed polygons, the hottest first."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray

from cxr_node import heatmap
from cxr_node.dicom.results.segmentation import mask
from cxr_node.domain import NO_BORDER, Border, Place, Region, Zone
from cxr_node.model import lungs, regions
from cxr_node.model.lungs import Thorax
from cxr_node.model.regions import REGION_CUT
from tests.builders import around
from tests.model.test_lungs import SHIPPED, pixels_of

Float = NDArray[np.float32]
SHAPE = (300, 280)
USUAL = Thorax(place=lungs.USUAL, likeness=0.7)
SHARES = st.tuples(st.floats(0.0, 0.2), st.floats(0.0, 0.2))
UNLIKE = Thorax(place=lungs.USUAL, likeness=lungs.FOUND_FROM - 0.01)


def spots(*places: tuple[float, float, float], size: float = 22.0) -> Float:
    """Draw a map with a spot of each height at shares (across, down) of the picture."""
    row, column = np.mgrid[0.5 : SHAPE[0], 0.5 : SHAPE[1]]
    drawn = np.zeros(SHAPE)
    for across, down, height in places:
        away = np.hypot(column - across * SHAPE[1], row - down * SHAPE[0])
        drawn = np.maximum(drawn, height * np.exp(-0.5 * (away / size) ** 2))
    return drawn.astype(np.float32)


def of(cells: Float, thorax: Thorax | None = USUAL, border: Border = NO_BORDER) -> tuple[Region, ...]:
    return regions.regions(cells, border, SHAPE, thorax)


def bridge() -> Float:
    """Draw one warm bar over both lungs and the spine, hottest on the picture's left."""
    row, column = np.mgrid[0.5 : SHAPE[0], 0.5 : SHAPE[1]]
    bar = np.exp(-0.5 * ((row - 0.5 * SHAPE[0]) / 30) ** 2) * (np.abs(column / SHAPE[1] - 0.5) < 0.28)
    return (bar * (1.0 - 0.1 * column / SHAPE[1])).astype(np.float32)


def test_every_place_that_stands_out_has_an_outline_the_hottest_first() -> None:
    found = of(spots((0.30, 0.65, 0.9), (0.72, 0.40, 1.0), (0.30, 0.35, 0.75), (0.70, 0.70, 0.6)))
    assert [region.place for region in found] == [Place.PICTURE_RIGHT, Place.PICTURE_LEFT, Place.PICTURE_LEFT]
    assert [region.weight for region in found] == pytest.approx([1.0, 0.9, 0.75], abs=0.01)
    assert [region.peak for region in found] == [
        pytest.approx((across * SHAPE[1], down * SHAPE[0]), abs=2.5)
        for across, down in ((0.72, 0.40), (0.30, 0.65), (0.30, 0.35))
    ]
    for region in found:
        assert Polygon(np.array(region.outline)).contains_point(region.peak)


def test_what_bridges_both_lungs_is_split_at_the_spine() -> None:
    """On the old code one outline went over the spine."""
    (whole,) = of(bridge(), None)
    left, right = of(bridge())
    assert (left.place, right.place) == (Place.PICTURE_LEFT, Place.PICTURE_RIGHT)
    middle = lungs.USUAL[0] * SHAPE[1]
    assert np.array(whole.outline)[:, 0].min() < middle < np.array(whole.outline)[:, 0].max()
    assert np.array(left.outline)[:, 0].max() < middle - 5 < middle + 5 < np.array(right.outline)[:, 0].min()
    for piece in (left, right):  # nothing is outlined that was not warm
        inside = mask(piece.outline, SHAPE)
        assert (bridge()[inside] >= 0.95 * REGION_CUT * bridge().max()).mean() > 0.98
        assert inside.mean() > 0.01


@pytest.mark.parametrize("thorax", [None, UNLIKE])
def test_without_lungs_nothing_is_cut_and_no_place_is_named(thorax: Thorax | None) -> None:
    (whole,) = of(bridge(), thorax)
    assert (whole.place, whole.zones) == (None, ())


def test_regions_end_at_the_rib_cage_but_a_letter_that_was_looked_at_is_shown() -> None:
    (reaching,) = of(spots((0.16, 0.55, 1.0), size=30))
    assert reaching.place is Place.PICTURE_LEFT
    u, _, depth = USUAL.own(*(np.array([value], np.float32) for value in (0.02, 0.55)))
    assert depth[0, 0] < 0 < abs(u[0, 0])
    assert min(x for x, _ in reaching.outline) > 0.06 * SHAPE[1]
    lung, letter = sorted(of(spots((0.93, 0.06, 1.0), (0.3, 0.5, 0.9), size=12)), key=lambda region: region.peak[0])
    assert (lung.place, letter.place, letter.zones) == (Place.PICTURE_LEFT, Place.OUTSIDE, ())
    assert letter.weight > lung.weight


def test_a_spot_on_the_spine_lies_between_the_lungs() -> None:
    (region,) = of(spots((lungs.USUAL[0], 0.5, 1.0), size=8))
    assert (region.place, region.zones) == (Place.BETWEEN, ())


@pytest.mark.parametrize(
    ("down", "size", "zones"),
    [
        (0.30, 12, (Zone.UPPER,)),
        (0.50, 12, (Zone.MIDDLE,)),
        (0.70, 12, (Zone.LOWER,)),
        (0.40, 26, (Zone.UPPER, Zone.MIDDLE)),
    ],
)
def test_zones_are_thirds_of_the_lung(down: float, size: float, zones: tuple[Zone, ...]) -> None:
    (region,) = of(spots((0.30, down, 1.0), size=size))
    assert region.zones == zones


@pytest.mark.parametrize("name", ["opacity-1", "opacity-2", "clear-1"])
def test_the_quick_thorax_of_a_drawn_child_is_that_of_the_thorough_one(name: str) -> None:
    pixels = pixels_of(SHIPPED / f"{name}.jpg")
    quick, thorough = lungs.fit(pixels), lungs.find(pixels)
    _, region = lungs.masks(quick.place, pixels.shape)
    assert quick.is_found
    assert (region & thorough.region).sum() / (region | thorough.region).sum() > 0.75
    turned = lungs.fit(np.ascontiguousarray(np.rot90(pixels)))
    assert not turned.is_found


def test_nothing_and_a_map_that_is_warm_everywhere_point_nowhere() -> None:
    assert of(np.zeros(SHAPE, np.float32)) == ()
    assert regions.regions(np.full((9, 8), 0.7, dtype=np.float32), NO_BORDER, (90, 80), USUAL) == ()


def test_points_count_from_the_corner_of_the_first_pixel() -> None:
    weight = np.zeros((40, 60), dtype=np.float32)
    weight[10:20, 30:50] = 1.0
    (region,) = regions.regions(weight, NO_BORDER, (40, 60), None)
    points = np.array(region.outline)
    # From the centre of the last hot pixel to that of the first cold one the weight falls evenly: 0.3 of the way.
    centre, way = 0.5, 1.0 - REGION_CUT
    assert points.min(axis=0) == pytest.approx((30 + centre - way, 10 + centre - way), abs=0.5)
    assert points.max(axis=0) == pytest.approx((49 + centre + way, 19 + centre + way), abs=0.5)


def test_a_hole_is_not_outlined() -> None:
    row, column = np.mgrid[:200, :200]
    ring = np.exp(-(((np.hypot(row - 60, column - 60) - 30) / 8) ** 2))
    (region,) = regions.regions(ring.astype(np.float32), NO_BORDER, ring.shape, None)
    assert np.hypot(*(np.array(region.outline) - 60.5).T).min() > 30  # the outer edge, not that of the hole


def test_a_large_image_costs_nothing() -> None:
    active = np.random.default_rng(0).random((7, 7), dtype=np.float32)
    started = time.process_time()
    found = regions.regions(heatmap.scaled(active), around(0.05), (3000, 2500), USUAL)
    assert time.process_time() - started < 1.0  # it takes 4 ms
    assert found


@settings(max_examples=60, deadline=None)
@given(
    cells=st.integers(1, 12),
    rows=st.integers(40, 900),
    cols=st.integers(40, 900),
    border=st.floats(0.0, 0.2),
    seed=st.integers(0, 10_000),
    finds=st.booleans(),
)
def test_regions_are_closed_polygons_on_the_image_round_their_peaks(
    cells: int, rows: int, cols: int, border: float, seed: int, finds: bool
) -> None:
    active = np.random.default_rng(seed).random((cells, cells), dtype=np.float32) ** 3
    weight = heatmap.on_source_grid(active, (rows, cols), around(border))
    thorax = USUAL if finds else None
    found = regions.regions(heatmap.scaled(active), around(border), (rows, cols), thorax)
    if not found:
        assert weight.min() >= (REGION_CUT - 0.1) * weight.max()
        return
    assert [region.weight for region in found] == sorted((region.weight for region in found), reverse=True)
    if not finds:
        assert found[0].weight == pytest.approx(weight.max(), abs=1e-5)
    for region in found:
        polygon = np.array(region.outline)
        assert region.outline[0] == region.outline[-1]
        assert 4 <= len(region.outline) <= regions.MAX_POINTS
        assert (polygon >= 0.0).all() and (polygon <= (cols, rows)).all()
        assert region.weight >= REGION_CUT * weight.max() - 1e-4
        step = max(rows, cols) / 192 + 2  # on an edge a peak may lie on the line
        assert any(Polygon(turned).contains_point(region.peak, radius=step) for turned in (polygon, polygon[::-1]))
    assert found == regions.regions(heatmap.scaled(active), around(border), (rows, cols), thorax)


@settings(max_examples=40, deadline=None)
@given(
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    rows=st.integers(40, 700),
    cols=st.integers(40, 700),
    border=st.tuples(SHARES, SHARES),
    seed=st.integers(0, 10_000),
)
def test_the_peak_of_the_cells_is_that_of_the_map_with_every_pixel_looked_at(
    cells: tuple[int, int], rows: int, cols: int, border: Border, seed: int
) -> None:
    scaled = heatmap.scaled(np.random.default_rng(seed).random(cells, dtype=np.float32) ** 2 * 9)
    weight = heatmap.on_source_grid(scaled * 100, (rows, cols), border)
    down, across = (regions.interpolation(*each) for each in zip((rows, cols), cells, border, strict=True))
    row, column = regions._peak(down, across, scaled)
    assert weight[row, column] == pytest.approx(float(weight.max()), abs=1e-6)
