"""Radiographs to send: one drawn chest of a wanted size under as many SOP Instance UIDs as are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cxr_node.demo import BUILT_IN, BUILT_IN_ATTRIBUTES
from cxr_node.dicom import wrap

SOP_CLASS_UID = "1.2.840.10008.5.1.4.1.1.1.1"  # Digital X-Ray Image Storage - For Presentation
TRANSFER_SYNTAX_UID = "1.2.840.10008.1.2.1"  # Explicit VR Little Endian
TEN_MB, ONE_MB, SMALL = (2500, 2000), (800, 625), (512, 512)
"""Rows and columns; two bytes a pixel."""
_FIRST = 10**12  # so that every number has as many digits, and the head of a data set its length
_UIDS = {"StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2", "SOPInstanceUID": "2.25.3"}
_META_BYTES = 132  # preamble and prefix of a Part 10 file (PS3.10 7.1)


@dataclass(frozen=True, slots=True)
class Numbered:
    """One SOP Instance, as a C-STORE carries it."""

    sop_instance_uid: str
    parts: tuple[bytes, ...]
    """The data set, in pieces; the pixels are shared by all numbers."""

    @property
    def size_bytes(self) -> int:
        """Length of the data set."""
        return sum(map(len, self.parts))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A data set with the UIDs of number 0, divided where the value of Pixel Data begins."""

    part10: bytes
    head: bytes
    pixels: bytes

    def numbered(self, number: int) -> Numbered:
        """Give the same chest another patient's UIDs."""
        mine = str(_FIRST + number).encode()
        return Numbered(f"{_UIDS['SOPInstanceUID']}{mine.decode()}", (self.head.replace(b"%d" % _FIRST, mine), self.pixels))

    def several(self, first: int, count: int) -> Sequence[Numbered]:
        """So many of them, from a number on."""
        return [self.numbered(first + place) for place in range(count)]


def draw(shape: tuple[int, int], picture: str = "opacity-1.jpg") -> Drawn:
    """Draw a child's chest of that many rows and columns: 12 bits stored in 16, with a little noise."""
    rows, columns = shape
    with Image.open(BUILT_IN / picture) as drawn:
        smooth = np.asarray(drawn.convert("F").resize((columns, rows), Image.Resampling.BICUBIC))
    noise = np.random.default_rng(1).normal(0.0, 8.0, smooth.shape)
    stored = np.clip(smooth * 16.0 + noise, 0, 4095).astype(np.uint16)
    uids = {keyword: f"{root}{_FIRST}" for keyword, root in _UIDS.items()}
    more = {"PatientID": f"BENCH-{_FIRST}", "BitsStored": 12, "HighBit": 11, "LossyImageCompression": "00"}
    window = {"WindowCenter": "2048", "WindowWidth": "4096"}
    part10 = wrap.of_values(stored, **BUILT_IN_ATTRIBUTES, **uids, **more, **window)
    body = _META_BYTES + 12 + int.from_bytes(part10[_META_BYTES + 8 : _META_BYTES + 12], "little")
    place = part10.index(stored.tobytes()[:64], body)
    return Drawn(part10, part10[body:place], part10[place:])
