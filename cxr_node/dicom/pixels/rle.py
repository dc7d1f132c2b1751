"""Color frames to RLE Lossless, in numpy alone: pydicom's encoder takes seconds a picture, GDCM's aborts on some."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_LONGEST = 128


_BAND_ROWS = 256  # at a time: some 50 bytes of memory a pixel


_SHORTEST_RUN = 3  # two equal bytes amid others cost less as they are


def encode(frame: NDArray[np.uint8]) -> bytes:
    """Encode one frame.

    Parameters
    ----------
    frame : uint8, shape (rows, columns, samples)
    """
    bands = range(0, frame.shape[0], _BAND_ROWS)
    planes = [
        b"".join([pack_bits(frame[top : top + _BAND_ROWS, :, sample]) for top in bands])
        for sample in range(frame.shape[2])
    ]
    segments = [plane + b"\0" * (len(plane) % 2) for plane in planes]
    offsets, position = [], 64
    for segment in segments:
        offsets.append(position)
        position += len(segment)
    return struct.pack("<16I", len(segments), *offsets, *([0] * (15 - len(offsets)))) + b"".join(segments)


def pack_bits(plane: NDArray[np.uint8]) -> bytes:
    """Encode a plane: uint8, shape (rows, columns). No run and no literal crosses the end of a row (G.3.1)."""
    columns, flat = plane.shape[1], np.ascontiguousarray(plane).reshape(-1)
    begins = np.ones(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[::columns] = True
    runs = np.flatnonzero(begins)
    is_long = np.diff(runs, append=flat.size) >= _SHORTEST_RUN
    opens = (
        is_long | np.concatenate(([True], is_long[:-1])) | (runs % columns == 0)
    )  # short runs in a row are one literal
    return _written(flat, *_cut(runs[opens], is_long[opens], flat.size))


def _cut(
    starts: NDArray[np.int64], is_run: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Cut stretches into pieces of 128 bytes at most: start, length, and whether all its bytes are equal."""
    lengths = np.diff(starts, append=size)
    pieces = -(-lengths // _LONGEST)
    of = np.repeat(np.arange(starts.size), pieces)
    before = _LONGEST * (np.arange(of.size) - np.repeat(np.cumsum(pieces) - pieces, pieces))
    length = np.minimum(lengths[of] - before, _LONGEST)
    return starts[of] + before, length, is_run[of] & (length > 1)


def _written(
    flat: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64], is_run: NDArray[np.bool_]
) -> bytes:
    """Header byte of each piece, and its one byte or all of them."""
    sizes = np.where(is_run, 2, lengths + 1)
    at = np.cumsum(sizes) - sizes
    packed = np.empty(int(sizes.sum()), np.uint8)
    packed[at] = np.where(is_run, 257 - lengths, lengths - 1)
    packed[at[is_run] + 1] = flat[starts[is_run]]
    literal = lengths[~is_run]
    within = np.arange(int(literal.sum())) - np.repeat(np.cumsum(literal) - literal, literal)
    packed[np.repeat(at[~is_run] + 1, literal) + within] = flat[np.repeat(starts[~is_run], literal) + within]
    return packed.tobytes()
