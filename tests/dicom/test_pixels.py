"""Gray scale by hand and by pydicom's own reading of the standard; every oddity of stored values that archives have."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut, apply_windowing
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from cxr_node.config.schema import Admission
from cxr_node.dicom.pixels import grayscale, pixels
from cxr_node.dicom.read import header
from cxr_node.domain import Radiograph, View, Voi
from cxr_node.errors import UndecodableError
from tests.builders import chest, part10, radiograph
from tests.shared import shared

NO_VOI = {"WindowCenter": None, "WindowWidth": None}


def decode(stored: NDArray[Any] | None = None, syntax: str = ImplicitVRLittleEndian, **overrides: Any) -> Radiograph:
    source = header.read(part10(radiograph(stored=stored, **overrides), syntax))
    assert isinstance(source, header.Source), source
    found = pixels.decode(source, Admission())
    assert found.pixels.dtype == np.float32
    assert found.pixels.min() >= 0.0
    assert found.pixels.max() <= 1.0
    return found


def ramp(bits: int = 12, signed: bool = False) -> NDArray[Any]:
    """Every stored value once: shape (2**bits // 64, 64)."""
    values = np.arange(1 << bits)
    if signed:
        return (values - (1 << (bits - 1))).astype(np.int16).reshape(-1, 64)
    return values.astype(np.uint8 if bits == 8 else np.uint16).reshape(-1, 64)


def lut(first: int, entries: list[int] | NDArray[Any], bits: int, vr: str = "US", data: bytes | None = None) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries, "<u2").tobytes() if data is None else data)
    return item


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [("2048", "4096"), ("1000", "1500"), ("-50", "3001"), ("2047.5", "4095")])
@pytest.mark.parametrize(("slope", "intercept"), [("1", "0"), ("0.5", "-100"), ("2", "30.5")])
def test_windows_are_pydicoms(function: str | None, center: str, width: str, slope: str, intercept: str) -> None:
    overrides = {
        "VOILUTFunction": function, "WindowCenter": center, "WindowWidth": width, "RescaleSlope": slope,
        "RescaleIntercept": intercept,
    }  # fmt: skip
    found = decode(ramp(), **overrides)
    assert found.remarks == ()
    dataset = dcmread(io.BytesIO(part10(radiograph(stored=ramp(), **overrides))))
    values = apply_modality_lut(ramp().astype(np.float64), dataset)
    expected = apply_windowing(values, dataset)
    low, high = 0.0 * float(slope) + float(intercept), 4095 * float(slope) + float(intercept)
    if function == "LINEAR_EXACT":
        expected = np.clip((values - (float(center) - float(width) / 2)) / float(width), 0, 1)  # C.11.2.1.3.2
    else:
        expected = (expected - low) / (high - low)
    np.testing.assert_allclose(found.pixels, expected, atol=2e-6)


def test_linear_window_by_hand() -> None:
    """PS3.3 C.11.2.1.2.1: c=2048, w=4096 gives 0 at 0, and 1 at 4095."""
    found = decode(ramp(), WindowCenter="2048", WindowWidth="4096").pixels.ravel()
    assert found[0] == 0.0
    assert found[-1] == 1.0
    assert found[2048] == pytest.approx((2048 - 2047.5) / 4095 + 0.5)
    narrow = decode(ramp(), WindowCenter="100", WindowWidth="1", RescaleSlope="1").pixels.ravel()
    assert set(narrow) != {0.0}


def test_the_first_of_several_windows_is_used() -> None:
    one = decode(ramp(), WindowCenter="1500", WindowWidth="1000")
    two = decode(ramp(), WindowCenter=["1500", "300"], WindowWidth=["1000", "7"])
    assert np.array_equal(one.pixels, two.pixels)


@pytest.mark.parametrize("data_vr", ["bytes", "numbers"])
def test_modality_lut(data_vr: str) -> None:
    entries = (np.sqrt(np.arange(4000) / 3999) * 65535).astype(np.uint16)
    item = lut(50, entries, 16)
    if data_vr == "numbers":
        item.add_new("LUTData", "US", entries.tolist())
    overrides = {"ModalityLUTSequence": [item], "RescaleSlope": None, "RescaleIntercept": None}
    found = decode(ramp(), **overrides, WindowCenter="32768", WindowWidth="65536")
    assert found.remarks == ()
    dataset = dcmread(io.BytesIO(part10(radiograph(stored=ramp(), **overrides))))
    expected = apply_modality_lut(ramp(), dataset) / 65535
    np.testing.assert_allclose(found.pixels, expected, atol=1e-5)


@pytest.mark.parametrize("signed", [False, True])
def test_voi_lut_is_preferred_to_the_window(signed: bool) -> None:
    entries = (1000 + 3000 / (1 + np.exp(-(np.arange(4096) - 2048) / 400))).astype(np.uint16)
    item = lut(-2048 if signed else 0, entries, 12, vr="SS" if signed else "US")
    stored = ramp(signed=signed)
    found = decode(stored, VOILUTSequence=[item], WindowCenter="7", WindowWidth="3")
    dataset = dcmread(io.BytesIO(part10(radiograph(stored=stored, VOILUTSequence=[item]))))
    np.testing.assert_allclose(found.pixels, apply_voi_lut(stored, dataset) / 4095, atol=1e-6)


def test_voi_lut_with_a_first_value_written_unsigned() -> None:
    entries = np.arange(4096)
    item = lut(63488, entries, 12)  # -2048 as US
    found = decode(ramp(signed=True), VOILUTSequence=[item])
    np.testing.assert_allclose(found.pixels.ravel(), entries / 4095, atol=1e-6)


def test_voi_lut_of_packed_bytes_and_of_big_endian_words() -> None:
    entries = np.arange(256)
    packed = lut(0, entries, 8, data=entries.astype(np.uint8).tobytes())
    found = decode(ramp(8), VOILUTSequence=[packed])
    np.testing.assert_allclose(found.pixels.ravel(), entries / 255, atol=1e-6)
    words = lut(0, np.arange(4096), 12, data=np.arange(4096).astype(">u2").tobytes())
    found = decode(ramp(), ExplicitVRBigEndian, VOILUTSequence=[words])
    np.testing.assert_allclose(found.pixels.ravel(), np.arange(4096) / 4095, atol=1e-6)


def test_broken_luts() -> None:
    short = lut(0, np.arange(4096), 12)
    short.LUTData = bytes(100)
    assert decode(ramp(), VOILUTSequence=[short]).remarks == ()  # the window is there
    assert np.ptp(decode(ramp(), VOILUTSequence=[Dataset()]).pixels) == 1.0
    with pytest.raises(UndecodableError, match="Modality LUT"):
        decode(ramp(), ModalityLUTSequence=[short])


@pytest.mark.parametrize(
    "overrides",
    [
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        {"PresentationLUTShape": "INVERSE"},
    ],
)
def test_inverse_gray_scales_are_turned_once(overrides: dict[str, str]) -> None:
    upright = decode(ramp()).pixels
    np.testing.assert_allclose(decode(ramp(), **overrides).pixels, 1.0 - upright, atol=1e-6)


@pytest.mark.parametrize("bits", range(8, 17))
@pytest.mark.parametrize("signed", [False, True])
def test_every_depth_and_sign(bits: int, signed: bool) -> None:
    if bits == 8 and signed:
        stored: NDArray[Any] = ramp(8).astype(np.int16).astype(np.int8)
        stored = np.arange(-128, 128).astype(np.int8).reshape(-1, 64)
    else:
        stored = ramp(bits, signed)
    low, high = int(stored.min()), int(stored.max())
    window = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": str((low + high) / 2), "WindowWidth": str(high - low)}
    found = decode(stored, BitsStored=bits, HighBit=bits - 1, **window)
    expected = (stored.astype(np.float64) - low) / (high - low)
    np.testing.assert_allclose(found.pixels, expected, atol=1e-6)


@pytest.mark.parametrize("mono1", [False, True])
def test_padding_is_black_and_does_not_count(mono1: bool) -> None:
    stored = chest().astype(np.int16)
    framed = np.full((400, 400), -2000, np.int16)
    framed[40:360, 56:344] = stored
    overrides = {"PhotometricInterpretation": "MONOCHROME1"} if mono1 else {}
    found = decode(framed, PixelPaddingValue=-2000, BitsStored=16, HighBit=15, **NO_VOI, **overrides).pixels
    assert not found[:40].any()
    assert not found[:, :56].any()
    inside = decode(stored, BitsStored=16, HighBit=15, **NO_VOI, **overrides).pixels
    np.testing.assert_allclose(found[40:360, 56:344], inside, atol=1e-6)


def test_padding_range() -> None:
    padded = decode(ramp(), PixelPaddingValue=4000, PixelPaddingRangeLimit=4095).pixels.ravel()
    assert not padded[4000:].any()
    assert padded[3999] > 0.9
    other_way = decode(ramp(), PixelPaddingValue=4095, PixelPaddingRangeLimit=4000).pixels.ravel()
    assert np.array_equal(padded, other_way)


@pytest.mark.parametrize(
    ("vr", "value", "limit"),
    [("US", 63536, None), ("SS", -2000, None), ("US", 4096, None), ("US", 65535, 63536), ("SS", -2000, -1000)],
)
def test_a_padding_value_that_no_pixel_can_have_pads_nothing(vr: str, value: int, limit: int | None) -> None:
    dataset = radiograph(stored=ramp())
    dataset.add_new("PixelPaddingValue", vr, value)
    if limit is not None:
        dataset.add_new("PixelPaddingRangeLimit", vr, limit)
    source = header.read(part10(dataset))
    assert isinstance(source, header.Source)
    found = pixels.decode(source, Admission())
    assert np.array_equal(found.pixels, decode(ramp()).pixels)
    assert found.pixel_digest == decode(ramp()).pixel_digest


@pytest.mark.parametrize("bits", [12, 14, 16])
def test_padding_of_signed_pixels_is_compared_with_its_sign(bits: int) -> None:
    stored, lowest = ramp(bits, signed=True), -(1 << (bits - 1))
    for vr, value in (("SS", lowest), ("US", lowest & 0xFFFF)):
        dataset = radiograph(stored=stored, BitsStored=bits, HighBit=bits - 1, **NO_VOI)
        dataset.add_new("PixelPaddingValue", vr, value)
        source = header.read(part10(dataset))
        assert isinstance(source, header.Source)
        found = pixels.decode(source, Admission()).pixels
        assert found[stored == lowest].max() == 0.0
        inverse = Dataset()
        inverse.update(dataset)
        inverse.PhotometricInterpretation = "MONOCHROME1"
        source = header.read(part10(inverse))
        assert isinstance(source, header.Source)
        turned = pixels.decode(source, Admission()).pixels
        assert turned[stored == lowest].max() == 0.0
        assert turned[stored == lowest + 1].min() > 0.9


@pytest.mark.parametrize("mono1", [False, True])
def test_cells_of_a_padding_value_beyond_the_stored_bits_are_padding(mono1: bool) -> None:
    """The whole cell is compared (C.7.5.1.1.2): 63536 & 4095 is a middle gray, and other pixels have that."""
    framed = np.full((400, 400), 63536, np.uint16)
    framed[40:360, 56:344] = chest()
    overrides: dict[str, Any] = {"PhotometricInterpretation": "MONOCHROME1"} if mono1 else {}
    window = {"BitsStored": 12, "HighBit": 11, "WindowCenter": "2048", "WindowWidth": "4096"}
    found = decode(framed, PixelPaddingValue=63536, **window, **overrides).pixels
    assert not found[:40].any()
    assert not found[:, :56].any()
    np.testing.assert_allclose(found[40:360, 56:344], decode(chest(), **overrides).pixels, atol=1e-6)


def test_overlays_in_unused_bits_are_cut_off() -> None:
    clean = chest()
    marked = clean | ((np.arange(clean.size).reshape(clean.shape) % 3 == 0).astype(np.uint16) << 13)
    found = decode(marked, BitsStored=12, HighBit=11, WindowCenter="2048", WindowWidth="4096")
    assert np.array_equal(found.pixels, decode(clean).pixels)
    assert found.pixel_digest == decode(clean).pixel_digest


def test_high_bit_is_believed_only_where_the_low_bits_are_empty() -> None:
    clean = decode(chest()).pixels
    window = {"WindowCenter": "2048", "WindowWidth": "4096", "BitsStored": 12}
    assert np.array_equal(decode(chest(), HighBit=15, **window).pixels, clean)  # a mistake
    assert np.array_equal(decode(chest() << 4, HighBit=15, **window).pixels, clean)  # aligned to the left
    assert np.array_equal(decode(chest(), HighBit=7, **window).pixels, clean)
    assert np.array_equal(decode(chest(), HighBit=40, **window).pixels, clean)
    assert np.array_equal(decode(chest(), HighBit=None, **window).pixels, clean)


def test_without_voi_the_data_range_is_shown_and_said() -> None:
    stored = chest()
    stored[:2, :2] = 4095  # a marker
    found = decode(stored, **NO_VOI)
    assert "no VOI window" in found.remarks[0]
    assert np.percentile(found.pixels, 99.6) == pytest.approx(1.0, abs=0.02)
    eight = decode(chest(bits=8).astype(np.uint8), **NO_VOI)
    assert eight.remarks == ()
    np.testing.assert_allclose(eight.pixels, chest(bits=8) / 255, atol=1e-6)


@pytest.mark.parametrize(("center", "width"), [("60000", "10"), ("-5000", "100"), ("2048", "4000000")])
def test_a_window_that_shows_nothing_is_replaced_and_said(center: str, width: str) -> None:
    found = decode(chest(), WindowCenter=center, WindowWidth=width)
    assert "does not fit" in found.remarks[0]
    assert np.ptp(found.pixels) > 0.9


@pytest.mark.parametrize("mono1", [False, True])
@pytest.mark.parametrize("width", ["1", "2", "10", "50"])
@pytest.mark.parametrize("function", [None, "LINEAR_EXACT", "SIGMOID"])
def test_a_window_that_leaves_hardly_anything_but_black_and_white_is_replaced_and_said(
    mono1: bool, width: str, function: str | None
) -> None:
    overrides: dict[str, Any] = {"PhotometricInterpretation": "MONOCHROME1"} if mono1 else {}
    center = str(int(np.median(chest())))
    found = decode(chest(), WindowCenter=center, WindowWidth=width, VOILUTFunction=function, **overrides)
    assert "does not fit" in found.remarks[0]
    assert np.array_equal(found.pixels, decode(chest(), **NO_VOI, **overrides).pixels)


@pytest.mark.parametrize("width", ["65536", "32768"])
def test_a_window_of_more_bits_than_the_image_has_is_replaced_and_said(width: str) -> None:
    """The image would be black to the eye: a 16th or an 8th of the range."""
    found = decode(chest(), WindowCenter=str(int(width) // 2), WindowWidth=width)
    assert "does not fit" in found.remarks[0]
    assert np.percentile(found.pixels, 99) > 0.9


def test_a_narrow_window_that_shows_the_lungs_is_kept() -> None:
    found = decode(chest(), WindowCenter="1400", WindowWidth="1800")
    assert found.remarks == ()
    expected = apply_windowing(chest().astype(np.float64), radiograph(WindowCenter="1400", WindowWidth="1800")) / 4095
    np.testing.assert_allclose(found.pixels, expected, atol=2e-6)


def test_the_first_useful_of_several_windows_is_used_and_said() -> None:
    found = decode(chest(), WindowCenter=["2000", "60000", "1400"], WindowWidth=["1", "10", "1800"])
    assert np.array_equal(found.pixels, decode(chest(), WindowCenter="1400", WindowWidth="1800").pixels)
    assert found.remarks
    assert "another one" in found.remarks[0]
    assert found.voi == Voi(window=(1400.0, 1800.0))


def test_a_useless_curve_gives_way_to_the_window_and_to_the_next_curve() -> None:
    step = lut(0, np.where(np.arange(4096) > 2000, 4095, 0), 12)
    useful = lut(0, np.arange(4096), 12)
    by_window = decode(chest(), VOILUTSequence=[step])
    assert np.array_equal(by_window.pixels, decode(chest()).pixels)
    assert "another one" in by_window.remarks[0]
    by_curve = decode(chest(), VOILUTSequence=[step, useful], WindowCenter="1400", WindowWidth="1800")
    np.testing.assert_allclose(by_curve.pixels, chest() / 4095, atol=1e-6)
    assert by_curve.voi == Voi(lut=1)


@pytest.mark.parametrize("declared", [10, 12, 14, 16])
@pytest.mark.parametrize("top", [4095, 4096, 4010])
def test_a_curve_is_scaled_by_what_it_holds(declared: int, top: int) -> None:
    """Agfa's, later Fuji's and GE's CR: "16 bits" over entries of 12."""
    shape = 1 / (1 + np.exp(-6 * (np.arange(4096) / 4095 - 0.5)))
    entries = np.round((shape - shape.min()) / np.ptp(shape) * top).astype(np.uint16)
    found = decode(chest(), VOILUTSequence=[lut(0, entries, declared)])
    expected = np.minimum(entries, 4095)[chest()] / 4095
    np.testing.assert_allclose(found.pixels, expected, atol=1e-6)
    assert found.remarks == ()


def test_a_modality_lut_is_taken_for_what_it_holds() -> None:
    """Its values are those that the window is made for, whatever number of bits its descriptor names."""
    entries = np.arange(4096, dtype=np.uint16)[::-1]
    rescaled = [
        decode(chest(), ModalityLUTSequence=[lut(0, entries, bits)], RescaleSlope=None, RescaleIntercept=None)
        for bits in (12, 16)
    ]
    assert np.array_equal(rescaled[0].pixels, rescaled[1].pixels)
    np.testing.assert_allclose(rescaled[0].pixels, 1 - decode(chest()).pixels, atol=1e-6)


def test_a_curve_of_bytes_in_big_endian_words() -> None:
    entries = (np.arange(256) ** 2 // 255).astype(np.uint8)
    swapped = lut(0, entries, 8, data=entries.reshape(-1, 2)[:, ::-1].tobytes())
    found = decode(ramp(8), ExplicitVRBigEndian, VOILUTSequence=[swapped])
    np.testing.assert_allclose(found.pixels.ravel(), entries / 255, atol=1e-6)


def test_noise_is_not_stretched_into_a_picture() -> None:
    stored = (2000 + np.arange(90_000) % 9).astype(np.uint16).reshape(300, 300)
    assert np.ptp(decode(stored, WindowCenter="2048", WindowWidth="4096", BitsStored=12).pixels) < 0.01


@pytest.mark.parametrize(
    ("overrides", "aspect"),
    [
        ({}, 1.0),
        ({"PixelSpacing": ["0.2", "0.1"]}, 2.0),
        ({"PixelSpacing": ["0", "0"], "ImagerPixelSpacing": ["0.1", "0.2"]}, 0.5),
        ({"ImagerPixelSpacing": None, "PixelAspectRatio": ["6", "5"]}, 1.2),
        ({"PixelSpacing": ["0.1", "100"]}, 1.0),
        ({"ImagerPixelSpacing": None}, 1.0),
    ],
)
def test_pixel_aspect(overrides: dict[str, Any], aspect: float) -> None:
    assert decode(**overrides).pixel_aspect == pytest.approx(aspect)


def test_the_digest_is_of_what_is_seen() -> None:
    digests = {decode(None, syntax).pixel_digest for syntax in (
        ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless,
    )}  # fmt: skip
    assert len(digests) == 1
    changed = chest()
    changed[0, 0] += 1
    assert decode(changed).pixel_digest not in digests
    assert decode(WindowCenter="2047").pixel_digest not in digests
    assert decode(PhotometricInterpretation="MONOCHROME1").pixel_digest not in digests
    assert decode(number=2).pixel_digest in digests


@pytest.mark.parametrize("value", ["nan", "inf", "1e400"])
@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
def test_numbers_that_are_none_do_not_come_through(value: str) -> None:
    content = part10(radiograph(WindowWidth="4096", RescaleSlope="1.00"))
    raw = value.encode().ljust(6)[:4]
    for old in (b"DS\x04\x004096", b"DS\x04\x001.00"):
        source = header.read(content.replace(old, old[:4] + raw))
        assert isinstance(source, header.Source)
        assert np.isfinite(pixels.decode(source, Admission()).pixels).all()


@pytest.mark.parametrize(
    "overrides",
    [
        {"BitsStored": 17, "BitsAllocated": 16},
        {"BitsStored": 0},
        {"BitsAllocated": 12},
        {"BitsAllocated": None},
        {"Rows": None},
        {"Columns": 0},
        {"Rows": 640},
        {"PixelData": None},
        {"PixelData": b""},
        {"PhotometricInterpretation": None},
        {"PhotometricInterpretation": "RGB"},
        {"SamplesPerPixel": 3},
        {"NumberOfFrames": "3"},
        {"Rows": 60_000, "Columns": 60_000},
    ],
)
def test_contradictory_descriptions_are_refused(overrides: dict[str, Any]) -> None:
    with pytest.raises(UndecodableError) as caught:
        decode(**overrides)
    assert str(caught.value).endswith(".")
    assert "TEST" not in str(caught.value)


def test_what_may_be_missing() -> None:
    found = decode(
        chest(bits=16), BitsStored=None, HighBit=None, PixelRepresentation=None, SamplesPerPixel=None, ViewPosition="AP"
    )
    assert found.view is View.AP
    np.testing.assert_allclose(found.pixels, decode(chest(bits=16)).pixels, atol=1e-6)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("cr_8bit_jpeg_invalid_age", (1024, 1024)),
        ("cr_philips_mono1_15bit_j2k", (1955, 1841)),
        ("dx_in_sc_class_no_view", (1024, 1024)),
    ],
)
def test_lungs_of_real_radiographs_are_darker_than_the_mediastinum(name: str, shape: tuple[int, int]) -> None:
    source = header.read(shared("dicom", f"{name}.dcm").read_bytes())
    assert isinstance(source, header.Source)
    found = pixels.decode(source, Admission())
    assert found.pixels.shape == shape
    assert found.pixel_aspect == 1.0
    rows, columns = shape
    middle = found.pixels[int(rows * 0.35) : int(rows * 0.5)]
    lungs = np.concatenate([middle[:, int(columns * at) : int(columns * (at + 0.1))] for at in (0.2, 0.7)])
    mediastinum = middle[:, int(columns * 0.45) : int(columns * 0.55)]
    assert lungs.mean() < mediastinum.mean() - 0.2


@pytest.mark.parametrize("frames", [2, 4])
def test_pixel_data_of_several_images_is_not_one(frames: int) -> None:
    """pydicom takes it for as many frames, whatever Number of Frames says."""
    rows, columns = chest().shape
    with pytest.raises(UndecodableError, match="more pixel data"):
        decode(Rows=rows // frames, Columns=columns)


@pytest.mark.parametrize("size", [(1300, 300), (3, 140_000)])
def test_an_image_of_several_strips_is_looked_up_and_counted_whole(size: tuple[int, int]) -> None:
    """Each pixel by itself, as numpy's own indexing and counting do it in one go."""
    patterns = np.random.default_rng(3).integers(0, 4096, size).astype(np.uint16)
    table = np.random.default_rng(4).random(4096).astype(np.float32)
    assert np.array_equal(pixels._looked_up(table, patterns), table[patterns])
    padding = np.arange(4096) < 5
    expected = np.bincount(patterns.ravel(), minlength=4096) * ~padding
    assert np.array_equal(pixels._counts(patterns, padding, 1), expected)
    assert pixels._counts(patterns, padding, 2).sum() == np.count_nonzero(patterns[::2] >= 5)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(0.0, 4.0), st.booleans())
def test_a_part_of_the_pixels_never_proves_more_contrast_than_there_is(
    seed: int, rows: int, shape: float, padded: bool
) -> None:
    rng = np.random.default_rng(seed)
    patterns = (255 * rng.beta(0.2 + shape, 0.2 + rng.random() * 4, (rows, 40))).astype(np.uint8)
    patterns[:: grayscale.PART] //= np.uint8(rng.integers(1, 9))  # the part need not look like the whole
    padding = np.arange(256) == (int(patterns[0, 0]) if padded else -1)
    table = np.clip((np.arange(256) - 255 * rng.random()) / rng.integers(1, 256), 0.0, 1.0)
    part, counts = (pixels._counts(patterns, padding, step) for step in (grayscale.PART, 1))
    proven = grayscale._least_contrast(table, part, patterns.size)
    assert proven <= max(0.0, grayscale._contrast(table, counts) if counts.any() else 0.0)


@pytest.mark.parametrize("overrides", [{}, NO_VOI, {"WindowCenter": "60000", "WindowWidth": "10"}])
def test_what_is_shown_does_not_depend_on_what_a_part_proves(
    overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = decode(**overrides)
    monkeypatch.setattr(grayscale, "_least_contrast", lambda *_: 0.0)
    assert decode(**overrides).pixel_digest == quick.pixel_digest
