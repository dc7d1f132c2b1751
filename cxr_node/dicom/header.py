"""Part 10 bytes or a file to a checked header; hostile input ends in `InstanceError` or `Rejected`, never elsewhere.

Knows neither who sent the object nor whether it may be judged (`admission`). PS3.10 7.1 (file meta information),
PS3.5 7 (data set), 9.1 (UIDs), 6.2 (AS, DA). pydicom parses; what bounds it stands here: it may read only so many
times, so many bytes and so deep, and pixel data is taken beside it.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydicom import Dataset, config
from pydicom.charset import python_encoding
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue

from cxr_node.dicom import projection
from cxr_node.domain import InstanceRef, Reason, Rejected, View
from cxr_node.errors import InstanceError, ResourceError

PARSER_FAULTS: tuple[type[Exception], ...] = (
    ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, InvalidDicomError, LookupError,
    MemoryError, OSError, RuntimeError, TypeError, ValueError, Warning, struct.error,
)  # fmt: skip
"""What pydicom and the decoders raise on bytes they cannot read (RecursionError and NotImplementedError are
RuntimeErrors, UnicodeError is a ValueError). A name that Python itself cannot find is a bug and not among them."""

MAX_HEADER_BYTES = 8 * 1024 * 1024
"""Of all attributes but pixel data and single huge ones; radiographs seen so far stay below 1 MiB."""
MAX_HEADER_READS = 200_000
"""About two per attribute: bounds time (some 0.5 s) and objects that a header of 8-byte attributes can cost."""
MAX_ATTRIBUTES = 50_000
MAX_DEPTH = 16
"""Of sequences; CR, DX and SC need 4."""
_HUGE_BYTES = 1024 * 1024
"""An attribute longer than this is skipped: nothing that is read here is (a 16-bit VOI LUT takes 128 KiB)."""
MAX_PIXEL_BITS = 8 * 1024**3
"""Rows x Columns x Bits Allocated x Samples x Frames that a header may claim: 1 GiB, four times the largest object."""

_UID = re.compile(r"[0-9.]{1,64}")
_AGE = re.compile(r"(\d{3})([DWMY])")
_DATE = re.compile(r"\d{8}")
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, _PIXEL_DATA)  # float, double float, integer
_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
_LONG_VALUE_BYTES = 8  # a shorter read may fall short only at the end of the data set


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What a file on disk claims to be, without its pixel data; an absent number is 0 (samples and frames: 1)."""

    ref: InstanceRef
    rows: int
    columns: int
    bits_allocated: int
    samples: int
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A received instance: every attribute of the data set is converted and safe to read.

    Attributes
    ----------
    dataset : without private attributes; pixel data, if any, as received (`decoders` turns it into stored values)
    ref : its identity
    unreadable : tags of attributes that were there but could not be read, and were dropped
    """

    dataset: Dataset = field(repr=False)
    ref: InstanceRef
    unreadable: frozenset[int] = frozenset()

    @property
    def modality(self) -> str:
        """Modality (0008,0060) in capitals, or ""."""
        return self.text("Modality").upper()

    @property
    def view(self) -> View:
        """PA or AP where the header tells it."""
        return projection.frontal_view(self.dataset)

    @property
    def age_years(self) -> float | None:
        """Age at the examination in years, not rounded; None where the header does not tell it."""
        return _age_years(self)

    def text(self, keyword: str) -> str:
        """One attribute as text, "" where it is absent or empty; several values joined by a backslash."""
        value = self.dataset.get(keyword)
        if isinstance(value, MultiValue):
            return "\\".join(str(part) for part in value).strip()
        return "" if value is None else str(value).strip()

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """All values of a numeric attribute; () where it is absent, empty or not numeric."""
        value = self.dataset.get(keyword)
        parts = value if isinstance(value, (MultiValue, list)) else [value]
        try:
            return tuple(float(part) for part in parts)
        except (TypeError, ValueError, OverflowError):
            return ()

    def integer(self, keyword: str, default: int = 0) -> int:
        """First value of a numeric attribute, whole; `default` where it is absent or no whole number."""
        values = self.numbers(keyword)
        return int(values[0]) if values and values[0].is_integer() else default


def read(content: bytes) -> Source | Rejected:
    """Read a Part 10 file into a `Source`, or say why it cannot be read."""
    try:
        with _foreign_faults():
            dataset, pixels = _parse(io.BytesIO(content), len(content))
            if not (_text(dataset, 0x0020000D) and _text(dataset, 0x0020000E)):
                return Rejected(reason=Reason.IDENTITY_EMPTY, sentence="The study or series it belongs to is not given.")
            ref = _reference(dataset)
            if pixels is not None:
                _attach(dataset, pixels, content)
            plain, unreadable = _settle(dataset)
            return Source(dataset=plain, ref=ref, unreadable=unreadable)
    except InstanceError as error:
        return Rejected(reason=Reason.UNREADABLE_HEADER, sentence=f"The object cannot be read: {error}.")


def inspect(path: Path) -> Inspected:
    """Check the header of a file on disk; pixel data is never read, only found to be there in full.

    Raises
    ------
    InstanceError : not parsable, UIDs missing or ill-formed (PS3.5 9.1), file meta information absent or
        contradicting the data set, an absurd size. The sentence holds no value of the object.
    ResourceError : this machine cannot read the file.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise ResourceError(f"a received file cannot be read: {error.strerror}") from error
    with file, _foreign_faults():
        dataset, _ = _parse(file, path.stat().st_size)
        inspected = Inspected(
            ref=_reference(dataset),
            rows=_number(dataset, 0x00280010, 0),
            columns=_number(dataset, 0x00280011, 0),
            bits_allocated=_number(dataset, 0x00280100, 0),
            samples=_number(dataset, 0x00280002, 1),
            frames=_number(dataset, 0x00280008, 1),
        )
    bits = inspected.bits_allocated * max(inspected.samples, 1) * max(inspected.frames, 1)
    if inspected.rows * inspected.columns * bits > MAX_PIXEL_BITS:
        raise InstanceError("its image would be larger than any radiograph")
    return inspected


def accession_key(accession: str) -> str:
    """One-way key of an Accession Number, as `InstanceRef.accession_key` holds it."""
    return sha256(accession.strip(" \0").encode("utf-8", "surrogateescape")).hexdigest()


@contextmanager
def _foreign_faults() -> Iterator[None]:
    """Parse without complaints on stderr (they may quote values); whatever is raised becomes an `InstanceError`."""
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    except PARSER_FAULTS as error:
        raise InstanceError(f"it is not encoded as DICOM ({type(error).__name__})") from error


class _Bounded:
    """What pydicom reads from: nothing beyond the end, and only so much of everything."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file, self._size_bytes = file, size_bytes
        self._reads_left, self._bytes_left = MAX_HEADER_READS, MAX_HEADER_BYTES

    def read(self, count: int = -1) -> bytes:
        if count < 0:  # pydicom reads to the end only in order to inflate (FAULTS T7)
            raise InstanceError("the deflated transfer syntax is not accepted")
        if count > _LONG_VALUE_BYTES and count > self._size_bytes - self._file.tell():
            raise InstanceError("it ends in the middle of an attribute")
        self._reads_left -= 1
        self._bytes_left -= count
        if self._reads_left < 0 or self._bytes_left < 0:
            raise InstanceError("its header is larger than that of any radiograph")
        return self._file.read(count)

    def seek(self, offset: int, whence: int = 0) -> int:
        target = offset if whence == 0 else offset + self._file.tell()
        if not 0 <= target <= self._size_bytes:
            raise InstanceError("it ends in the middle of an attribute")
        return self._file.seek(target)

    def tell(self) -> int:
        return self._file.tell()


@dataclass(frozen=True, slots=True)
class _PixelValue:
    """Where the value of Pixel Data lies; `length` is None for encapsulated data (undefined length)."""

    start: int
    length: int | None


def _parse(file: BinaryIO, size_bytes: int) -> tuple[Dataset, _PixelValue | None]:
    """Read everything before the pixel data, and find that in full."""
    if size_bytes < 132 or file.read(132)[128:] != b"DICM":  # noqa: PLR2004 - PS3.10 7.1: preamble and prefix
        raise InstanceError("it is no DICOM file (PS3.10): the prefix DICM is missing")
    file.seek(0)
    found: list[tuple[int, int, int]] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag in _PIXEL_TAGS:
            found.append((tag, file.tell(), length))
        return tag in _PIXEL_TAGS

    dataset = read_partial(cast(BinaryIO, _Bounded(file, size_bytes)), at_pixels, defer_size=_HUGE_BYTES)
    if not found or found[0][0] != _PIXEL_DATA:
        return dataset, None
    _, start, length = found[0]
    if length == _UNDEFINED:
        _check_fragments(file, start, size_bytes)
        return dataset, _PixelValue(start, None)
    if length > size_bytes - start:
        raise InstanceError("it ends in the middle of the pixel data")
    return dataset, _PixelValue(start, length)


def _check_fragments(file: BinaryIO, start: int, size_bytes: int) -> None:
    """Walk over the fragments of encapsulated pixel data by their lengths alone (PS3.5 A.4)."""
    position = start
    for _ in range(MAX_HEADER_READS):
        file.seek(position)
        item = file.read(8)
        if len(item) < 8:  # noqa: PLR2004 - an item's tag and length
            break
        tag, length = item[:4], int.from_bytes(item[4:], "little")
        if tag == b"\xfe\xff\xdd\xe0":
            return
        if tag != b"\xfe\xff\x00\xe0" or length > size_bytes - position - 8:
            break
        position += 8 + length
    raise InstanceError("it ends in the middle of the pixel data")
