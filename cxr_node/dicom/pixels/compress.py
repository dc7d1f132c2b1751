"""Pictures without loss in fewer bytes: JPEG-LS Lossless and RLE Lossless, written by a child process.

The process that sends has neither numpy nor codecs (`pixel_free`); the child has them, is confined as the one that
decodes, and lives only while pictures are sent compressed. Knows no data set. PS3.5 8.2.2, 8.2.3; ISO 14495-1.
"""

from __future__ import annotations

import importlib.machinery
import resource
import struct
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_node.dicom.pixels.sandbox import MAX_MEMORY_BYTES, Sandbox, serve
from cxr_node.process_setup import leave_no_core

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


JPEG_LS, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"
_COMMAND = (sys.executable, "-m", "cxr_node.dicom.pixels.compress")
_BY_PIXEL = 2
"""Interleave mode "sample" of JPEG-LS: the order in which the pixels are, and the one that every decoder knows."""


class Press:
    """A squeezer for the node; its child is started when it is first needed."""

    def __init__(self) -> None:
        self._child = Sandbox(_COMMAND)
        self.syntaxes = frozenset({RLE, JPEG_LS} if _is_installed("jpeg_ls") else {RLE})
        """Transfer syntaxes that it can write."""

    def squeeze(self, rows: int, columns: int, frame: memoryview, syntax: str) -> bytes | None:
        """Compress one frame; None where the child cannot.

        Parameters
        ----------
        frame : uint8, shape (rows, columns, 3), colour by pixel

        Raises
        ------
        ResourceError : no child can be started.
        """
        # PackBits makes at most 129 bytes of 128, JPEG-LS bounds a sample by four times its bits (ISO 14495-1 A.2.1)
        request = {"syntax": syntax, "rows": rows, "columns": columns, "expected_bytes": 4 * len(frame) + 4096}
        return self._child.ask(request, bytes(frame))

    def close(self) -> None:
        """End the child."""
        self._child.close()


def answer(request: dict[str, Any], content: bytes) -> bytes:
    """Compress one frame, in the child; no bytes where the codec refuses."""
    import numpy as np

    rows, columns = request["rows"], request["columns"]
    if request["syntax"] == RLE:
        return encode(np.frombuffer(content, np.uint8).reshape(rows, columns, 3))
    import jpeg_ls

    try:
        return bytes(jpeg_ls.encode_buffer(content, rows, columns, 3, 8, interleave_mode=_BY_PIXEL))
    except (RuntimeError, ValueError):
        return b""


def _is_installed(name: str) -> bool:
    """Ask the path, not `sys.modules`, where `pixel_free` has put up its signs."""
    return importlib.machinery.PathFinder.find_spec(name) is not None


if __name__ == "__main__":
    from cxr_node.dicom.pixels.sandbox import confine

    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    leave_no_core()
    confine()
    serve(answer)
