"""Radiographs to send: the drawn ones of `cxr_node.tools.drawn`, under as many SOP Instance UIDs as are wanted.

Drawing takes longer than a receiver does, so six are drawn, and what tells instances apart is put into them anew.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Self

from pydicom import dcmread

from cxr_node.tools import drawn
from cxr_node.tools.drawn import Plate

SOP_CLASS_UID = "1.2.840.10008.5.1.4.1.1.1.1"  # Digital X-Ray Image Storage - For Presentation
TRANSFER_SYNTAX_UID = "1.2.840.10008.1.2.1"  # Explicit VR Little Endian
TEN_MB, ONE_MB, SMALL = Plate(rows=2500, cols=2000), Plate(rows=800, cols=625), Plate(rows=512, cols=512)
_DIFFERENT = 6
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True, slots=True)
class Numbered:
    """One SOP Instance, as a C-STORE carries it."""

    sop_instance_uid: str
    parts: tuple[bytes, ...]
    """The data set, in pieces; the second one, the pixels, is shared by others."""

    @property
    def size_bytes(self) -> int:
        """Length of the data set."""
        return sum(map(len, self.parts))


@dataclass(frozen=True, slots=True)
class Drawing:
    """A data set, divided where Pixel Data begins, and the UIDs in it: of study, series and instance."""

    part10: bytes
    head: bytes
    pixel_data: bytes
    uids: tuple[str, ...]

    @classmethod
    def of(cls, part10: bytes, plate: Plate) -> Self:
        """Divide a Part 10 file; nothing follows its Pixel Data, an element of 12 bytes before its value."""
        dataset = dcmread(io.BytesIO(part10), stop_before_pixels=True)
        begins = 132 + 12 + int(dataset.file_meta.FileMetaInformationGroupLength)
        pixels = len(part10) - plate.size_bytes - 12
        uids = tuple(str(dataset[keyword].value) for keyword in _UIDS)
        return cls(part10, part10[begins:pixels], part10[pixels:], uids)

    def numbered(self, number: int, study: int | None = None) -> Numbered:
        """Give it UIDs of that number, as long as the old ones: lengths stay true. `study`: number of its study."""
        head, new = self.head, ""
        for place, old in enumerate(self.uids, 1):
            told = number if study is None or place > 1 else study
            new = f"2.25.{place}{told:0{len(old) - 6}d}"
            head = head.replace(old.encode(), new.encode())
        return Numbered(new, (head, self.pixel_data))


class Images:
    """Any number of instances of one size."""

    def __init__(self, plate: Plate) -> None:
        self.drawings = [Drawing.of(content, plate) for content in drawn.draw(plate, _DIFFERENT)]
        self.size_bytes = self.numbered(0).size_bytes

    def numbered(self, number: int) -> Numbered:
        """The instance of that number; six pictures take turns."""
        return self.drawings[number % _DIFFERENT].numbered(number)

    def study(self, number: int, size: int) -> list[Numbered]:
        """So many images of the study of that number, all of one patient: the same picture under several UIDs."""
        drawing = self.drawings[number % _DIFFERENT]
        return [drawing.numbered(10 * number + place, number) for place in range(size)]

    def several(self, first: int, count: int) -> list[Numbered]:
        """So many of them, from a number on."""
        return [self.numbered(first + place) for place in range(count)]
