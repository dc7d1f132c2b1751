"""A tiny image in every transfer syntax, so that a machine's decoders can be tried before the first radiograph comes.

Knows no node. `samples.json` holds one frame of a ramp for each compressed syntax, in base 85, as DCMTK (JPEG), CharLS
(JPEG-LS), OpenJPEG (JPEG 2000), OpenJPH (HTJ2K), libjpeg-turbo (JPEG Baseline) and pydicom (RLE) encoded it.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate

from cxr_node.dicom import decoders
from cxr_node.errors import InstanceError

SIZE_PX = 32
_FILE = Path(__file__).with_name("samples.json")
_HTJ2K_SAMPLE = uid.HTJ2KLossless
_MAX_ERROR = {uid.JPEGBaseline8Bit: 2, uid.JPEGExtended12Bit: 8, uid.JPEGLSNearLossless: 2, uid.JPEG2000: 4}
"""In stored values; every other syntax gives every value back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one transfer syntax did with its sample."""

    uid: str
    name: str
    right: bool
    took_ms: float


def trials() -> list[Trial]:
    """Decode the sample of every transfer syntax that the node offers, in the sandbox where the node does too.

    Raises
    ------
    ResourceError : the sandbox cannot be started.
    """
    syntaxes = decoders.transfer_syntaxes()
    for syntax in syntaxes:  # libraries are loaded at their first use
        _try(syntax)
    return [_try(syntax) for syntax in syntaxes]


def missing() -> list[str]:
    """Name the transfer syntaxes that the node knows and this installation has no decoder for."""
    offered = {syntax.uid for syntax in decoders.transfer_syntaxes()}
    return [syntax.name for syntax in decoders.KNOWN if syntax not in offered]


def picture(syntax: str) -> NDArray[Any]:
    """Stored values of the sample: a ramp, 8 bits in JPEG Baseline, else 12; shape (32, 32)."""
    ramp = np.arange(SIZE_PX * SIZE_PX).reshape(SIZE_PX, SIZE_PX)
    return (ramp >> 2).astype(np.uint8) if syntax == uid.JPEGBaseline8Bit else (ramp << 2).astype(np.uint16)


def _try(syntax: decoders.TransferSyntax) -> Trial:
    wanted = picture(syntax.uid)
    bits_allocated = wanted.dtype.itemsize * 8
    layout = decoders.Layout(
        rows=SIZE_PX,
        columns=SIZE_PX,
        bits_allocated=bits_allocated,
        bits_stored=min(bits_allocated, 12),
        signed=False,
        photometric_interpretation="MONOCHROME2",
    )
    started = time.perf_counter()
    try:
        found = decoders.decode(_pixel_data(syntax.uid, wanted), syntax.uid, layout)
        right = int(np.abs(found.astype(int) - wanted.astype(int)).max()) <= _MAX_ERROR.get(uid.UID(syntax.uid), 0)
    except InstanceError:
        right = False
    return Trial(uid=syntax.uid, name=syntax.name, right=right, took_ms=(time.perf_counter() - started) * 1000)


def _pixel_data(syntax: str, wanted: NDArray[Any]) -> bytes:
    if not uid.UID(syntax).is_encapsulated:
        return wanted.astype(">u2" if syntax == uid.ExplicitVRBigEndian else "<u2").tobytes()
    samples = json.loads(_FILE.read_text("ascii"))
    return encapsulate([base64.b85decode(samples.get(syntax) or samples[_HTJ2K_SAMPLE])])
