"""64 numbers of an image's pooled features, small enough to be kept of every film; they show no picture.

What the network pools for its distance (`NetworkOutput.signature`), and where that has more numbers, a random
projection of it, which keeps the distances between films (Johnson and Lindenstrauss 1984; signs: Achlioptas 2003).
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

NUMBERS = 64
SEED = "cxr_node pooled features 1"
"""The signs are the bits of SHAKE-256 of this and the number of channels: the same in every version of numpy."""
_LARGEST = np.finfo(np.float16).max


def packed(signature: Floats) -> bytes:
    """The numbers to keep.

    Parameters
    ----------
    signature : float32, shape (channels,), of the plain view

    Returns
    -------
    float16, little-endian, `NUMBERS` of them; zeros at the end where there are fewer channels
    """
    channels = signature.shape[0]
    few = np.zeros(NUMBERS)
    if channels > NUMBERS:
        few[:] = signature.astype(np.float64) @ signs(channels) / np.sqrt(NUMBERS)
    else:
        few[:channels] = signature
    return few.clip(-_LARGEST, _LARGEST).astype("<f2").tobytes()


@cache
def signs(channels: int) -> NDArray[np.float64]:
    """The projection: +1 or -1, shape (channels, NUMBERS)."""
    bits = hashlib.shake_256(f"{SEED} {channels}".encode()).digest(channels * NUMBERS // 8)
    return np.asarray(np.unpackbits(np.frombuffer(bits, np.uint8)).reshape(channels, NUMBERS) * 2.0 - 1.0, np.float64)
