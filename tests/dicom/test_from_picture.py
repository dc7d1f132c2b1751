"""Pictures as DX images: exact pixels, deterministic, and no more claimed than is known."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from cxr_node.config.schema import Admission
from cxr_node.dicom import from_picture
from cxr_node.dicom.pixels.pixels import decode
from cxr_node.dicom.read import header
from cxr_node.errors import InstanceError
from tests import builders


def picture(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("bits", [8, 16])
def test_pixels_survive(tmp_path: Path, bits: int) -> None:
    drawn = builders.chest(bits=bits).astype(np.uint8 if bits == 8 else np.uint16)
    dataset = dcmread(io.BytesIO(from_picture.wrap(picture(tmp_path / "a.png", drawn))))
    assert np.array_equal(dataset.pixel_array, drawn)
    assert (dataset.BitsStored, dataset.Modality, dataset.PhotometricInterpretation) == (bits, "DX", "MONOCHROME2")


def test_the_same_picture_gives_the_same_bytes_and_another_one_other_uids(tmp_path: Path) -> None:
    one = picture(tmp_path / "a.png", builders.chest(bits=8).astype(np.uint8))
    other = picture(tmp_path / "b.png", builders.chest(rows=321, bits=8).astype(np.uint8))
    assert from_picture.wrap(one) == from_picture.wrap(one)
    first, second = (dcmread(io.BytesIO(from_picture.wrap(path))) for path in (one, other))
    assert first.StudyInstanceUID != second.StudyInstanceUID


def test_nothing_is_claimed_that_is_not_known(tmp_path: Path) -> None:
    dataset = dcmread(
        io.BytesIO(from_picture.wrap(picture(tmp_path / "a.png", builders.chest(bits=8).astype(np.uint8))))
    )
    assert "PatientAge" not in dataset
    assert "ViewPosition" not in dataset
    told = dcmread(io.BytesIO(from_picture.wrap(tmp_path / "a.png", PatientAge="003Y", ViewPosition="AP")))
    assert (told.PatientAge, told.ViewPosition) == ("003Y", "AP")


def test_a_gray_picture_stored_as_color_is_gray(tmp_path: Path) -> None:
    drawn = builders.chest(bits=8).astype(np.uint8)
    file = picture(tmp_path / "a.png", np.repeat(drawn[:, :, None], 3, axis=2))
    assert np.array_equal(dcmread(io.BytesIO(from_picture.wrap(file))).pixel_array, drawn)


def test_what_is_no_gray_picture_is_one_sentence(tmp_path: Path) -> None:
    color = np.zeros((64, 64, 3), np.uint8)
    color[:, :, 0] = 200
    text = tmp_path / "text.png"
    text.write_text("no picture")
    whole = picture(tmp_path / "whole.png", builders.chest(bits=8).astype(np.uint8)).read_bytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole[: len(whole) // 2])
    for path in (picture(tmp_path / "color.png", color), text, cut, tmp_path / "missing.png"):
        with pytest.raises(InstanceError):
            from_picture.wrap(path)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
def test_16_bits_are_windowed_by_what_they_hold(tmp_path: Path, bits: int) -> None:
    """The pixels of a detector of 12 bits in a PNG of 16, which knows no other, are not 16 times as dark."""
    drawn = builders.chest(bits=bits)
    drawn[0, 0] = (1 << bits) - 1
    content = from_picture.wrap(picture(tmp_path / "a.png", drawn))
    dataset = dcmread(io.BytesIO(content))
    assert np.array_equal(dataset.pixel_array, drawn)
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, bits, bits - 1)
    source = header.read(content)
    assert isinstance(source, header.Source)
    found = decode(source, Admission())
    assert found.remarks == ()
    np.testing.assert_allclose(found.pixels, drawn / ((1 << bits) - 1), atol=1e-2)
