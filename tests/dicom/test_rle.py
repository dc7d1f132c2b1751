"""RLE Lossless and JPEG-LS of color frames: what comes back out of other decoders is what went in."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pydicom.pixels.decoders.rle import _rle_decode_frame

from cxr_node.dicom.pixels import compress, rle

FEW = st.integers(0, 3) | st.integers(0, 255)


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40).map(lambda side: (*side, 3)), elements=FEW))
@settings(max_examples=150, deadline=None)
def test_pydicom_reads_what_is_written(frame: NDArray[np.uint8]) -> None:
    rows, columns, _ = frame.shape
    back = _rle_decode_frame(rle.encode(frame), rows, columns, 3, 8)
    assert bytes(back) == frame.transpose(2, 0, 1).tobytes()  # plane by plane


@pytest.mark.parametrize("length", [1, 2, 3, 127, 128, 129, 130, 131, 255, 256, 257, 600])
@pytest.mark.parametrize("other", [0, 1, 2, 3, 130])
def test_runs_and_literals_of_every_length(length: int, other: int) -> None:
    row = np.concatenate((np.full(length, 7, np.uint8), np.arange(other, dtype=np.uint8), np.full(length, 9, np.uint8)))
    frame = np.repeat(np.tile(row, (300, 1))[:, :, None], 3, axis=2)  # more than a band
    assert bytes(_rle_decode_frame(rle.encode(frame), *frame.shape, 8)) == frame.transpose(2, 0, 1).tobytes()


def test_no_piece_crosses_a_row_and_no_header_is_reserved() -> None:
    """PS3.5 G.3.1: each row is encoded by itself, and -128 is not written."""
    plane = np.zeros((5, 130), np.uint8)
    packed, at, lengths = rle.pack_bits(plane), 0, []
    while at < len(packed):
        head = struct.unpack_from("b", packed, at)[0]
        assert head != -128
        lengths.append(1 - head if head < 0 else head + 1)
        at += 2 if head < 0 else head + 2
    assert lengths == [128, 2] * 5


@pytest.mark.parametrize("syntax", [compress.JPEG_LS, compress.RLE])
def test_the_child_gives_the_same_bytes_each_time_and_other_decoders_the_pixels(syntax: str) -> None:
    import jpeg_ls

    random = np.random.default_rng(1)
    frame = random.integers(0, 255, (67, 101, 3), np.uint8)
    frame[20:50] = 3
    press = compress.Press()
    try:
        first = press.compress(67, 101, memoryview(frame.tobytes()), syntax)
        press.close()
        assert first == press.compress(67, 101, memoryview(frame.tobytes()), syntax)
    finally:
        press.close()
    assert first is not None
    decoded: Any = jpeg_ls.decode(np.frombuffer(first, np.uint8)) if syntax == compress.JPEG_LS else None
    if decoded is None:
        decoded = np.frombuffer(bytes(_rle_decode_frame(first, 67, 101, 3, 8)), np.uint8)
        decoded = decoded.reshape(3, 67, 101).transpose(1, 2, 0)
    assert np.array_equal(decoded, frame)
