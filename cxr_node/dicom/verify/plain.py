"""Results as plain values: what stands in a file, by keyword, as text.

Values stay in the bytes they were sent in (read as Latin-1, which loses none), so that carried text is compared
without knowing its character set. Knows no attribute's meaning.

Clauses: PS3.5 7.5 nesting, PS3.3 8.8 code sequences.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import data_element_generator
from pydicom.multival import MultiValue
from pydicom.values import convert_SQ

from cxr_node.dicom.part10 import foreign_faults, parse
from cxr_node.errors import InstanceError

Plain: TypeAlias = dict[str, str | list["Plain"]]
"""A data set by keyword (private ones by number): text as Latin-1 without padding, items of a sequence."""
Triple: TypeAlias = tuple[str, str, str]
"""Code Value, Coding Scheme Designator, Code Meaning."""
Element: TypeAlias = DataElement | RawDataElement

NO_CODE: Triple = ("", "", "")
_ITEM = [0xFFFE, 0xE000]
_BINARY = frozenset({"US", "UL", "FL", "FD", "OB"})
_FORMATS = {"US": "H", "UL": "I", "FL": "f", "FD": "d"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """One file: its file meta information, its data set, and how long its pixel data is (0: it has none)."""

    meta: Plain
    dataset: Plain
    pixel_bytes: int


def read(content: bytes) -> Parsed:
    """Read a Part 10 file.

    Raises
    ------
    InstanceError : it is none, is cut short, or is beyond the bounds of `part10`.
    """
    with foreign_faults():
        dataset, pixels = parse(io.BytesIO(content), len(content))
        pixel_bytes = pixels.end - pixels.start if pixels else 0
        return Parsed(meta=plain(dataset.file_meta), dataset=plain(dataset), pixel_bytes=pixel_bytes)


def read_top(content: bytes) -> tuple[Plain, dict[str, Any]]:
    """File meta information, and the data set's elements with their sequences as they are encoded.

    Raises
    ------
    InstanceError : as `read`.
    """
    with foreign_faults():
        dataset, _ = parse(io.BytesIO(content), len(content))
        top: dict[str, Any] = {}
        for tag, element in dataset.items():
            top[_keyword(int(tag))] = _text(element, "UI") if element.VR == "UI" else element.value
        return plain(dataset.file_meta), top


def plain(dataset: Dataset) -> Plain:
    """Data set as plain values; elements are not converted, which would take twice the time."""
    return _plain(dataset.values())  # not `iter(dataset)`, which converts


def _plain(elements: Iterable[Element]) -> Plain:
    found: Plain = {}
    for element in elements:
        vr = element.VR or dictionary_VR(element.tag)
        keyword = _keyword(int(element.tag))
        found[keyword] = [_plain(item) for item in _items(element)] if vr == "SQ" else _text(element, vr)
    return found


def _items(sequence: Element) -> Iterator[Iterable[Element]]:
    """Elements of each item; read by pydicom, but without making a data set of each item.

    Raises
    ------
    InstanceError : an element is cut off by the end of its item.
    """
    if not isinstance(sequence, RawDataElement):
        yield from (item.values() for item in sequence.value or ())
        return
    value, start = sequence.value or b"", 0
    header = struct.Struct("<HHI" if sequence.is_little_endian else ">HHI")
    encoding = sequence.is_implicit_VR, sequence.is_little_endian
    while start < len(value):
        *tag, length = header.unpack_from(value, start)
        end = start + header.size + length
        if tag != _ITEM or end > len(value):  # of undefined length, or damaged
            yield from (item.values() for item in convert_SQ(value[start:], *encoding))
            return
        elements = list(data_element_generator(io.BytesIO(value[start + header.size : end]), *encoding))
        if any(isinstance(each, RawDataElement) and len(each.value or b"") != each.length for each in elements):
            raise InstanceError("it ends in the middle of an attribute")
        yield elements
        start = end


def _text(element: Element, vr: str) -> str:
    value: Any = element.value
    if isinstance(value, MultiValue):  # pydicom converts a character set while it reads, whoever asks
        return "\\".join(str(part) for part in value)
    if not isinstance(value, bytes):
        return "" if value is None else str(value)
    form = _FORMATS.get(vr)
    if form is not None and isinstance(element, RawDataElement):
        order = "<" if element.is_little_endian else ">"
        numbers = struct.unpack(f"{order}{len(value) // struct.calcsize(form)}{form}", value)
        return "\\".join(f"{number:.10g}" for number in numbers)
    return value.decode("latin-1") if vr in _BINARY else value.decode("latin-1").rstrip(" \0")


@functools.cache
def _keyword(tag: int) -> str:
    return keyword_for_tag(tag) or f"{tag:08X}"


def items(plain: Plain, keyword: str) -> list[Plain]:
    """Items of a sequence; none where it is absent or no sequence."""
    value = plain.get(keyword)
    return value if isinstance(value, list) else []


def text(plain: Plain, keyword: str) -> str:
    """Text of an attribute; "" where it is absent or a sequence."""
    value = plain.get(keyword)
    return value if isinstance(value, str) else ""


def code(plain: Plain, keyword: str) -> Triple:
    """Return the only code of a sequence; empty strings where there is none, or more than one."""
    found = items(plain, keyword)
    if len(found) != 1:
        return NO_CODE
    item = found[0]
    return text(item, "CodeValue"), text(item, "CodingSchemeDesignator"), text(item, "CodeMeaning")


def reference(plain: Plain) -> tuple[str, str]:
    """SOP Class and SOP Instance UID of the only item of Referenced SOP Sequence; "" twice where there is not one."""
    found = items(plain, "ReferencedSOPSequence")
    if len(found) != 1:
        return "", ""
    return text(found[0], "ReferencedSOPClassUID"), text(found[0], "ReferencedSOPInstanceUID")
