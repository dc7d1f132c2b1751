"""Pictures in fewer bytes: JPEG Baseline, JPEG-LS Lossless, RLE Lossless (PS3.5 8.2.1 to 8.2.3; ISO 10918-1, 14495-1).

The worker writes them, of pixels that it has just drawn. What another process needs, for a destination that accepts
something else, a confined child does: the process that sends has neither numpy nor codecs.
"""

from __future__ import annotations

import importlib.machinery
import io
import resource
import sys
from typing import Any

from cxr_node.dicom.pixels.sandbox import MAX_MEMORY_BYTES, Sandbox, serve
from cxr_node.process_setup import leave_no_core

JPEG, JPEG_LS, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"
QUALITY = 92
"""Of JPEG, by the tables of the Independent JPEG Group: 0.6 gray levels of 255 in the mean, text stays sharp."""
_COMMAND = (sys.executable, "-m", "cxr_node.dicom.pixels.compress")
_BY_PIXEL = 2
"""Interleave mode "sample" of JPEG-LS: the order in which the pixels are, and the one that every decoder knows."""


class Encoder:
    """Compresses in this process: for pixels of its own making, and a codec that holds Python's lock meanwhile."""

    def __init__(self) -> None:
        self.syntaxes = _installed()
        """Transfer syntaxes that it can write."""

    def compress(self, rows: int, columns: int, frame: memoryview, syntax: str) -> bytes | None:
        """Compress one frame (uint8, shape (rows, columns, 3), colour by pixel); None where the codec refuses."""
        return encode(rows, columns, bytes(frame), syntax) or None


class Press:
    """A compressor for the node; its child is started when it is first needed."""

    def __init__(self) -> None:
        self._child = Sandbox(_COMMAND)
        self.syntaxes = _installed()
        """Transfer syntaxes that it can write."""

    def compress(self, rows: int, columns: int, frame: memoryview, syntax: str) -> bytes | None:
        """Compress one frame; None where the child cannot.

        Parameters
        ----------
        frame : uint8, shape (rows, columns, 3), colour by pixel

        Raises ResourceError: no child can be started.
        """
        # PackBits makes at most 129 bytes of 128, JPEG-LS bounds a sample by four times its bits (ISO 14495-1 A.2.1)
        request = {"syntax": syntax, "rows": rows, "columns": columns, "expected_bytes": 4 * len(frame) + 4096}
        return self._child.ask(request, bytes(frame))

    def decompress(self, rows: int, columns: int, frame: memoryview, syntax: str) -> bytes | None:
        """Decode one frame in JPEG or JPEG-LS of our own making, as `compress` takes it; None where the child cannot.

        Raises ResourceError: no child can be started.
        """
        request = {"syntax": syntax, "decode": True, "expected_bytes": rows * columns * 3}
        return self._child.ask(request, bytes(frame))

    def close(self) -> None:
        """End the child."""
        self._child.close()


def answer(request: dict[str, Any], content: bytes) -> bytes:
    """Compress or decompress one frame, in the child; no bytes where the codec refuses."""
    if not request.get("decode"):
        return encode(request["rows"], request["columns"], content, request["syntax"])
    return decode(content, request["syntax"])


def encode(rows: int, columns: int, pixels: bytes, syntax: str) -> bytes:
    """Compress one frame; no bytes where the codec refuses."""
    if syntax == JPEG:
        from PIL import Image

        written = io.BytesIO()
        image = Image.frombuffer("RGB", (columns, rows), pixels, "raw", "RGB", 0, 1)
        image.save(written, "JPEG", quality=QUALITY, subsampling="4:2:2")
        return written.getvalue()
    if syntax == RLE:
        import numpy as np

        from cxr_node.dicom.pixels import rle

        return rle.encode(np.frombuffer(pixels, np.uint8).reshape(rows, columns, 3))
    import jpeg_ls

    try:
        return bytes(jpeg_ls.encode_buffer(pixels, rows, columns, 3, 8, interleave_mode=_BY_PIXEL))
    except (RuntimeError, ValueError):
        return b""


def decode(frame: bytes, syntax: str) -> bytes:
    """Decode one frame in JPEG or JPEG-LS, colour by pixel; no bytes where the codec refuses."""
    if syntax == JPEG:
        from PIL import Image

        try:
            with Image.open(io.BytesIO(frame), formats=["JPEG"]) as image:
                return image.convert("RGB").tobytes()
        except (OSError, ValueError, Image.DecompressionBombError):
            return b""
    import jpeg_ls

    try:
        return bytes(jpeg_ls.decode_buffer(frame)[0])
    except (RuntimeError, ValueError):
        return b""


def _installed() -> frozenset[str]:
    """Ask the path, not `sys.modules`, where `pixel_free` has put up its signs."""
    has_jpeg_ls = importlib.machinery.PathFinder.find_spec("jpeg_ls") is not None
    return frozenset({JPEG, RLE, JPEG_LS} if has_jpeg_ls else {JPEG, RLE})


if __name__ == "__main__":
    from cxr_node.dicom.pixels.sandbox import confine

    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    leave_no_core()
    confine()
    serve(answer)
