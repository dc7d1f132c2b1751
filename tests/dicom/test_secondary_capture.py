"""The picture: true aspect, true colors, the region where it is, words that fit; and its DICOM attributes."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread

from cxr_node.dicom.render import picture
from cxr_node.dicom.render.layout import Layout, lay_out, words_of
from cxr_node.dicom.render.overlay import gray
from cxr_node.dicom.results import secondary_capture
from cxr_node.dicom.results.context import Context
from cxr_node.domain import Verdict, View
from tests import builders
from tests.dicom.contexts import CASES, context, finding, picture_of

FLAT = np.full((600, 500), 0.5, np.float32)


def made(of: Context) -> Dataset:
    return dcmread(io.BytesIO(secondary_capture.build(of).content))


def drawn(case: str, pixels: NDArray[Any] = FLAT, max_px: int = 2048, *, shows_map: bool = True) -> NDArray[np.uint8]:
    radiograph = picture_of(pixels)
    return np.asarray(picture.draw(radiograph, finding(case, radiograph), max_px, shows_map=shows_map))


def layout_of(case: str, pixels: NDArray[Any] = FLAT, max_px: int = 2048, *, shows_map: bool = True) -> Layout:
    radiograph = picture_of(pixels)
    words = words_of(radiograph, finding(case, radiograph), shows_map=shows_map, looked="")
    return lay_out(radiograph, max_px, words)


def on_radiograph(
    image: NDArray[np.uint8], pixels: NDArray[Any], case: str, max_px: int = 2048, *, shows_map: bool = True
) -> NDArray[np.uint8]:
    left, top, width, height = layout_of(case, pixels, max_px, shows_map=shows_map).image
    return image[top : top + height, left : left + width]


def saturation(image: NDArray[np.uint8]) -> NDArray[np.int16]:
    return np.ptp(image.astype(np.int16), axis=-1)


@pytest.mark.parametrize("case", CASES)
def test_the_object_is_a_plain_rgb_secondary_capture(case: str) -> None:
    of = context(case)
    dataset = made(of)
    assert (dataset.PhotometricInterpretation, dataset.SamplesPerPixel, dataset.PlanarConfiguration) == ("RGB", 3, 0)
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation) == (8, 8, 7, 0)
    size = dataset.Rows * dataset.Columns * 3
    assert len(dataset.PixelData) == size + size % 2
    assert (dataset.ConversionType, list(dataset.ImageType)) == ("WSD", ["DERIVED", "SECONDARY"])
    assert (dataset.BurnedInAnnotation, dataset.RecognizableVisualFeatures) == ("YES", "NO")
    assert dataset.SourceImageSequence[0].ReferencedSOPInstanceUID == of.source.ref.sop_instance_uid
    assert dataset.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert list(dataset.PatientOrientation) == ["L", "F"]
    for absent in ("PixelSpacing", "ViewPosition", "Laterality", "ImageLaterality", "WindowCenter"):
        assert absent not in dataset
    assert ("DerivationCodeSequence" in dataset) == (case in ("pneumonia", "between"))


@pytest.mark.parametrize(("told", "written"), [("01", "01"), ("00", "00"), (None, "00")])
def test_what_was_lossy_stays_lossy(told: str | None, written: str) -> None:
    assert made(context(dataset=builders.radiograph(LossyImageCompression=told))).LossyImageCompression == written


@pytest.mark.parametrize(
    "shape", [(224, 224), (512, 430), (3000, 3000), (3056, 2500), (1300, 2200), (900, 300), (128, 640)]
)
@pytest.mark.parametrize("pixel_aspect", [1.0, 1.25])
@pytest.mark.parametrize("max_px", [1024, 2048])
def test_the_radiograph_keeps_its_aspect_and_the_picture_its_limit(
    shape: tuple[int, int], pixel_aspect: float, max_px: int
) -> None:
    radiograph = picture_of(np.zeros(shape), pixel_aspect=pixel_aspect)
    words = words_of(radiograph, finding("pneumonia", radiograph), shows_map=True, looked="")
    layout = lay_out(radiograph, max_px, words)
    left, top, width, height = layout.image
    assert height / width == pytest.approx(shape[0] * pixel_aspect / shape[1], rel=0.02)
    assert max(layout.width, layout.height) <= max_px
    assert max(layout.width, layout.height) >= min(1000, max_px - 20)
    assert left >= 0
    assert left + width <= layout.width
    assert (top, top + height + layout.scale + layout.footer) == (layout.free + layout.banner, layout.height)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [(512, 420), (700, 1000), (2500, 2048), (900, 300)])
def test_every_word_fits_without_being_cut(case: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the header states no projection, and where a model has a long name."""
    cut: list[str] = []
    fit = picture.fit

    def watched(text: str, size_px: int, width: int, *, bold: bool = False) -> Any:
        fitted = fit(text, size_px, width, bold=bold)
        if fitted[0] != text or fitted[1].getlength(text) > width:
            cut.append(text)
        return fitted

    monkeypatch.setattr(picture, "fit", watched)
    drawn(case, np.zeros(size, np.float32), max_px=2048)
    drawn(case, np.zeros(size, np.float32), max_px=1024)
    unstated = replace(picture_of(np.zeros(size)), view=View.UNKNOWN)
    judged = finding(case, unstated)
    for profile in (judged.identity.profile, "imported-densenet121-all-chest-images"):
        identity = replace(judged.identity, profile=profile)
        picture.draw(unstated, replace(judged, identity=identity), 1024, shows_map=True)
    assert cut == []


def test_words_that_cannot_fit_are_cut_and_say_so() -> None:
    text, font = picture.fit("m" * 300, 20, 200)
    assert text.endswith("...")
    assert font.getlength(text) <= 200


def test_banners_differ_in_lightness_and_none_is_red() -> None:
    lightness = {verdict: np.dot(color, (0.299, 0.587, 0.114)) for verdict, (color, _) in picture.BANNERS.items()}
    values = sorted(lightness.values())
    assert min(np.diff(values)) > 15
    for (red, green, blue), _ in picture.BANNERS.values():
        assert not (red > 120 and green < red / 2 and blue < red / 2)
    for verdict, (color, ink) in picture.BANNERS.items():
        assert abs(lightness[verdict] - np.dot(ink, (0.299, 0.587, 0.114))) > 120, (verdict, color)


@pytest.mark.parametrize(
    ("case", "verdict"),
    [("pneumonia", Verdict.POSITIVE), ("normal", Verdict.NEGATIVE), ("views", Verdict.INDETERMINATE)],
)
def test_the_banner_is_the_verdict_s(case: str, verdict: Verdict) -> None:
    layout = layout_of(case)
    for row in (layout.free, layout.free + layout.banner - 1):
        assert tuple(drawn(case)[row, 2]) == picture.BANNERS[verdict][0]
    assert tuple(drawn(case)[layout.free - 1, 2]) == picture.BLACK


def test_symbols_tell_the_verdict_without_color() -> None:
    shapes = []
    for case in ("pneumonia", "normal", "between"):
        image = drawn(case)
        layout = layout_of("pneumonia")  # whose banner is the lowest: one line
        banner = image[layout.free : layout.free + layout.banner, : layout.banner].astype(np.int16)
        shapes.append(np.abs(banner - banner[1, 1]).max(axis=-1) > 60)  # ink, whatever its color
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.mean(shapes[i] != shapes[j]) > 0.1


def test_the_map_colors_only_where_the_network_looked() -> None:
    colored = saturation(on_radiograph(drawn("pneumonia"), FLAT, "pneumonia")) > 8
    rows, columns = colored.shape
    hot = colored[int(0.62 * rows), int(0.32 * columns)]
    assert hot
    assert not colored[: rows // 4].any()
    assert not colored[:, int(0.75 * columns) :].any()


def test_without_a_map_the_radiograph_is_gray() -> None:
    plain = on_radiograph(drawn("normal", shows_map=False), FLAT, "normal", shows_map=False)
    assert saturation(plain).max() == 0


def test_where_no_answer_rests_on_the_map_it_is_hatched_without_color() -> None:
    shown = on_radiograph(drawn("between"), FLAT, "between")
    assert saturation(drawn("between")[layout_of("between").below :]).max() == 0  # nor in the legend
    assert saturation(shown).max() == 0
    rows, columns = shown.shape[:2]
    hot = shown[int(0.58 * rows) : int(0.66 * rows), int(0.28 * columns) : int(0.36 * columns), 0].astype(int)
    assert np.ptp(hot) > 60  # lines, not a veil that would look like an opacity
    assert np.ptp(shown[: rows // 4].astype(int)) == 0


@pytest.mark.parametrize("case", ["views", "unlike"])
def test_no_map_is_drawn_where_no_certainty_is_stated(case: str) -> None:
    of = context(case)
    assert not of.shows_map and not of.refers_to_map
    dataset = made(of)
    pixels = np.frombuffer(dataset.PixelData, np.uint8)[: dataset.Rows * dataset.Columns * 3]
    image = pixels.reshape(dataset.Rows, dataset.Columns, 3)
    left, top, width, height = picture.image_box(of.radiograph, of.finding, 2048, shows_map=False)
    shown = image[top : top + height, left : left + width]
    assert (shown == np.asarray(gray(of.radiograph.pixels, (width, height)))[..., None]).all()
    assert "Grad-CAM" not in dataset.SeriesDescription
    assert "DerivationCodeSequence" not in dataset


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [(2000, 1600), (1000, 1300), (1000, 2400), (900, 300), (128, 160)])
def test_the_corners_and_the_top_are_free_for_the_words_of_viewers(case: str, size: tuple[int, int]) -> None:
    image = drawn(case, np.zeros(size, np.float32))
    rows, columns = image.shape[:2]
    assert not image[: round(0.04 * rows)].any()
    lowest = image[-round(0.035 * rows) :]
    assert not lowest[:, : columns // 8].any() and not lowest[:, -columns // 8 :].any()


def test_the_scale_stands_below_the_radiograph() -> None:
    layout = layout_of("pneumonia")
    one, other = drawn("pneumonia"), drawn("between")
    assert layout.free + layout.banner + layout.image[3] == layout.below
    strip = one[layout.below : layout.below + layout.scale]
    assert strip.max() == 255 and saturation(strip).max() == 0
    assert not one[: layout.free].any() and not other[: layout_of("between").free].any()


def test_cautions_stand_on_the_banner_and_take_nothing_from_the_radiograph() -> None:
    of = context()
    warned = replace(of.radiograph, cautions=("Age not known.", "Unusually long words of caution " * 4))
    plain, cautioned = (words_of(each, of.finding, shows_map=True, looked="") for each in (of.radiograph, warned))
    assert " ".join(cautioned.cautions) == " ".join(warned.cautions).strip() and not plain.cautions
    before, after = lay_out(of.radiograph, 1024, plain), lay_out(warned, 1024, cautioned)
    assert after.banner > before.banner
    image = np.asarray(picture.draw(warned, of.finding, 1024, shows_map=True))
    ink = (image[after.free : after.free + after.banner].astype(int).sum(axis=-1) < 60).any(axis=1)
    bare = np.asarray(picture.draw(of.radiograph, of.finding, 1024, shows_map=True))
    ink_before = (bare[before.free : before.free + before.banner].astype(int).sum(axis=-1) < 60).any(axis=1)
    assert ink.sum() > ink_before.sum() + 3 * after.body_px // 2


def test_normal_gets_a_map_only_where_the_site_wants_it() -> None:
    plain, mapped = made(context("normal")), made(context("normal", normal_heatmap="map"))
    assert plain.SeriesDescription == "AI: no pneumonia detected picture (research)"
    assert mapped.SeriesDescription == "AI: no pneumonia detected Grad-CAM (research)"
    assert plain.PixelData != mapped.PixelData


def test_the_outline_is_drawn_where_the_measurements_have_it() -> None:
    """White line on the polygon, for PNEUMONIA only: elsewhere nothing is claimed."""
    radiograph = picture_of(FLAT)
    judged = finding("pneumonia", radiograph)
    with_outline = np.asarray(picture.draw(radiograph, judged, 2048, shows_map=True))
    (region,) = judged.heatmap.regions
    bare = replace(judged, heatmap=replace(judged.heatmap, regions=()))
    changed = (with_outline != np.asarray(picture.draw(radiograph, bare, 2048, shows_map=True))).any(axis=-1)
    left, top, width, height = layout_of("pneumonia").image
    for x, y in region.outline:
        column, row = round(left + x * width / 500), round(top + y * height / 600)
        assert changed[row - 2 : row + 3, column - 2 : column + 3].any()
    rows, columns = np.nonzero(changed)
    outline = np.asarray(region.outline) * (width / 500, height / 600) + (left, top)
    assert rows.min() >= outline[:, 1].min() - 8
    assert columns.max() <= outline[:, 0].max() + 8
    uncertain = finding("between", radiograph)
    same = replace(uncertain, heatmap=replace(uncertain.heatmap, regions=()))
    assert picture.draw(radiograph, uncertain, 2048, shows_map=True) == picture.draw(
        radiograph, same, 2048, shows_map=True
    )


def test_gray_levels_are_the_radiograph_s() -> None:
    ramp = np.tile(np.linspace(0, 1, 1024, dtype=np.float32), (1024, 1))
    shown = on_radiograph(drawn("normal", ramp, shows_map=False), ramp, "normal", shows_map=False)[..., 0]
    expected = np.asarray(Image.fromarray(ramp * 255).resize((shown.shape[1], shown.shape[0])))
    assert np.abs(shown[shown.shape[0] // 2].astype(float) - expected[shown.shape[0] // 2])[4:-4].max() <= 1.0
