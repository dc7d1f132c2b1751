"""Part 10 bytes or a file to a pydicom data set, within bounds, whatever the bytes are.

pydicom parses, and may read only so many times, so many bytes and so deep; pixel data is found beside it.
PS3.10 7.1 (file meta information), PS3.5 7 (data set), A.4 (encapsulation).
"""

from __future__ import annotations

import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, cast

from pydicom import Dataset, config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue

from cxr_node import __version__
from cxr_node.errors import InstanceError

IMPLEMENTATION_CLASS_UID = "2.25.185814882927451263349267447895445246782"
"""Of every file we make (PS3.10 7.1), and the Instance Creator UID (PS3.3 C.12.1.1), which archives keep."""

IMPLEMENTATION_VERSION_NAME = f"CXR_NODE_{__version__}"[:16]

PRODUCT = "cxr_node"
"""Manufacturer's Model Name of our Contributing Equipment item begins with this (PS3.3 C.12.1.1)."""

PROCESSING_EQUIPMENT = "109102"
"""Purpose of our Contributing Equipment item, coding scheme DCM (PS3.16 CID 7005)."""


PARSER_FAULTS: tuple[type[Exception], ...] = (
    ArithmeticError, AssertionError, AttributeError, BufferError, BytesLengthException, EOFError, InvalidDicomError,
    LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError, Warning, struct.error,
)  # fmt: skip
"""What pydicom and the decoders raise on bytes they cannot read (RecursionError and NotImplementedError are
RuntimeErrors, UnicodeError is a ValueError). A name that Python itself cannot find is a bug and not among them."""

MAX_HEADER_BYTES = 8 * 1024 * 1024
"""Of all attributes but pixel data and single huge ones; radiographs seen so far stay below 1 MiB."""
MAX_HEADER_READS = 200_000
"""About two per attribute: bounds time (0.9 s measured) and objects that a header of 8-byte attributes can cost."""
MAX_DEPTH = 16
"""Of sequences; CR, DX and SC need 4."""
HUGE_BYTES = 1024 * 1024
"""An attribute longer than this is skipped: nothing that is read here is (a 16-bit VOI LUT takes 128 KiB)."""

_PREFIX_END = 132  # PS3.10 7.1: preamble and prefix
_UNDEFINED = 0xFFFFFFFF
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_PIXEL_DATA = 0x7FE00010
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, _PIXEL_DATA)  # float, double float, integer
_STRINGS = frozenset(
    ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
)
_LONG_VALUE_BYTES = 8  # a shorter read may fall short only at the end of the data set
CUT_PIXELS = "it ends in the middle of the pixel data"
_CUT_ATTRIBUTE = "it ends in the middle of an attribute"


@contextmanager
def _all_quiet() -> Iterator[None]:
    log = logging.getLogger("pydicom")
    before = log.disabled, log.propagate, log.handlers[:]
    log.disabled, log.propagate = True, False
    log.handlers[:] = [logging.NullHandler()]  # what its children say ends here, also of those that come later
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled, log.propagate, log.handlers[:] = before


class _Quiet:
    """What `quiet` switches off belongs to the process: the first thread that needs it does, the last one undoes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._undo = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._undo.enter_context(_all_quiet())
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._undo.close()


_QUIET = _Quiet()


def quiet() -> AbstractContextManager[None]:
    """Read without pydicom's complaints on stderr and in the log: they may quote values. For any number of threads."""
    return _QUIET


@contextmanager
def foreign_faults() -> Iterator[None]:
    """Parse quietly; whatever is raised becomes an `InstanceError`."""
    try:
        with quiet():
            yield
    except PARSER_FAULTS as error:
        raise InstanceError(f"it is not encoded as DICOM ({type(error).__name__})") from error


class AsSent(DataElement):
    """A string that was read, with the bytes it was read from: decoding and encoding again need not give them back."""

    def __init__(self, element: DataElement, sent: bytes) -> None:
        super().__init__(element.tag, element.VR, element.value, already_converted=True)
        self._sent, self._read = sent, self._value

    @property
    def sent(self) -> bytes | None:
        """The bytes, padding included; None where the element was given another value since."""
        return self._sent if self._value is self._read else None


class _Bounded:
    """What pydicom reads from: nothing beyond the end, and only so much of everything."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file, self._size_bytes = file, size_bytes
        self._reads_left, self._bytes_left = MAX_HEADER_READS, MAX_HEADER_BYTES

    def read(self, count: int = -1) -> bytes:
        if count < 0:  # pydicom reads to the end only in order to inflate (reliability.md T7)
            raise InstanceError("the deflated transfer syntax is not accepted")
        if count > _LONG_VALUE_BYTES and count > self._size_bytes - self._file.tell():
            raise InstanceError(_CUT_ATTRIBUTE)
        self._reads_left -= 1
        self._bytes_left -= count
        if self._reads_left < 0 or self._bytes_left < 0:
            raise InstanceError("its header is larger than that of any radiograph")
        return self._file.read(count)

    def seek(self, offset: int, whence: int = 0) -> int:
        target = offset if whence == 0 else offset + self._file.tell()
        if not 0 <= target <= self._size_bytes:
            raise InstanceError(_CUT_ATTRIBUTE)
        return self._file.seek(target)

    def tell(self) -> int:
        return self._file.tell()


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelValue:
    """Where the value of Pixel Data lies; encapsulated data ends before its sequence delimiter."""

    vr: str
    start: int
    end: int
    encapsulated: bool


def parse(file: BinaryIO, size_bytes: int) -> tuple[Dataset, PixelValue | None]:
    """Read everything before the pixel data, and find that in full.

    Raises InstanceError: no Part 10 file, cut short, deflated, or beyond the bounds of this module.
    """
    require_prefix(file, size_bytes)
    found: list[tuple[int, str, int, int]] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag in PIXEL_TAGS:
            found.append((tag, vr or "OW", file.tell(), length))
        return tag in PIXEL_TAGS

    dataset = read_partial(cast(BinaryIO, _Bounded(file, size_bytes)), at_pixels, defer_size=HUGE_BYTES)
    if not found or found[-1][0] != _PIXEL_DATA:
        return dataset, None
    _, vr, start, length = found[-1]
    if length == _UNDEFINED:
        end = _end_of_fragments(file, start, size_bytes)
        return dataset, PixelValue(vr=vr, start=start, end=end, encapsulated=True)
    if length > size_bytes - start:
        raise InstanceError(CUT_PIXELS)
    return dataset, PixelValue(vr=vr, start=start, end=start + length, encapsulated=False)


def require_prefix(file: BinaryIO, size_bytes: int) -> None:
    """Look for preamble and prefix (PS3.10 7.1); the file is then at its beginning.

    Raises InstanceError: they are missing.
    """
    file.seek(0)
    if size_bytes < _PREFIX_END or file.read(_PREFIX_END)[-4:] != b"DICM":
        raise InstanceError("the prefix DICM of a DICOM file is missing")
    file.seek(0)


def _end_of_fragments(file: BinaryIO, start: int, size_bytes: int) -> int:
    """Walk over the fragments of encapsulated pixel data by their lengths alone (PS3.5 A.4)."""
    position = start
    for _ in range(MAX_HEADER_READS):
        file.seek(position)
        tag, length = file.read(4), int.from_bytes(file.read(4), "little")
        if tag == _SEQUENCE_END:
            return position
        if tag != _ITEM or length > size_bytes - position - 8:
            break
        position += 8 + length
    raise InstanceError(CUT_PIXELS)


def raw_text(dataset: Dataset, tag: int) -> str:
    """Raw value as text: no conversion, hence no complaint; bytes beyond ASCII stay themselves."""
    element = dataset.get_item(tag, keep_deferred=True)
    if element is None:
        return ""
    return as_text(element.value if isinstance(element, RawDataElement) else str(element.value).encode())


def as_text(value: bytes | None) -> str:
    """Value as text without its padding; bytes beyond ASCII stay themselves."""
    return (value or b"").decode("ascii", "surrogateescape").strip(" \0")


def attach(dataset: Dataset, pixels: PixelValue, content: bytes) -> None:
    """Put pixel data into the data set as it stands in the file: what is native, and large, as a view of that."""
    value = (
        content[pixels.start : pixels.end] if pixels.encapsulated else memoryview(content)[pixels.start : pixels.end]
    )
    element = DataElement(_PIXEL_DATA, pixels.vr, value, already_converted=True)
    element.is_undefined_length = pixels.encapsulated
    dataset[_PIXEL_DATA] = element


def settle(dataset: Dataset) -> tuple[Dataset, frozenset[int]]:
    """Convert every attribute now, so that nobody meets a broken one later; drop private ones and the broken.

    Returns the data set, cut loose from the file, and the tags that were dropped because they could not be read.
    Raises InstanceError: sequences are nested too deep.
    """
    unreadable: set[int] = set()
    for part in (dataset.file_meta, dataset):
        _convert(part, unreadable, 0)
    plain = Dataset(dataset)
    plain.file_meta = dataset.file_meta
    implicit, little = dataset.original_encoding
    plain.set_original_encoding(implicit, little, dataset.original_character_set)
    return plain, frozenset(unreadable)


def _convert(dataset: Dataset, unreadable: set[int], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InstanceError("its sequences are nested deeper than those of any radiograph")
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag, keep_deferred=True)
        if tag.is_private:
            del dataset[tag]
            continue
        if isinstance(raw, RawDataElement) and raw.value is None and raw.length:  # huge, skipped
            del dataset[tag]
            unreadable.add(int(tag))
            continue
        try:
            element = dataset[tag]
            if element.VR == "PN":
                str(element.value)  # a name is decoded when it is first read
            if element.VR in ("DS", "IS") and _is_text(element.value):  # pydicom hands on what is no number
                raise ValueError(element.VR)
        except PARSER_FAULTS:
            del dataset[tag]
            unreadable.add(int(tag))
            continue
        if element.VR in _STRINGS and isinstance(raw, RawDataElement) and raw.value:
            dataset[tag] = AsSent(element, raw.value)
        for item in element.value if element.VR == "SQ" else ():
            _convert(item, unreadable, depth + 1)


def _is_text(value: object) -> bool:
    parts = value if isinstance(value, (list, MultiValue)) else (value,)
    return any(isinstance(part, str) and part.strip() for part in parts)
