"""Pictures without loss in fewer bytes: JPEG-LS Lossless and RLE Lossless (PS3.5 8.2.2, 8.2.3; ISO 14495-1).

A confined child writes them: the process that sends has neither numpy nor codecs.
"""

from __future__ import annotations

import importlib.machinery
import resource
import sys
from typing import Any

from cxr_node.dicom.pixels.sandbox import MAX_MEMORY_BYTES, Sandbox, serve
from cxr_node.process_setup import leave_no_core

JPEG_LS, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"
_COMMAND = (sys.executable, "-m", "cxr_node.dicom.pixels.compress")
_BY_PIXEL = 2
"""Interleave mode "sample" of JPEG-LS: the order in which the pixels are, and the one that every decoder knows."""


class Press:
    """A compressor for the node; its child is started when it is first needed."""

    def __init__(self) -> None:
        self._child = Sandbox(_COMMAND)
        self.syntaxes = frozenset({RLE, JPEG_LS} if _is_installed("jpeg_ls") else {RLE})
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

    def close(self) -> None:
        """End the child."""
        self._child.close()


def answer(request: dict[str, Any], content: bytes) -> bytes:
    """Compress one frame, in the child; no bytes where the codec refuses."""

    rows, columns = request["rows"], request["columns"]
    if request["syntax"] == RLE:
        import numpy as np

        from cxr_node.dicom.pixels import rle

        return rle.encode(np.frombuffer(content, np.uint8).reshape(rows, columns, 3))
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
