"""Results as plain values: what stands in a file, by keyword, as text.

Read by a parser of our own. Values stay in the bytes they were sent in (as Latin-1, which loses none), so that carried
text is compared without its character set. PS3.5 7.1.2, 7.5; PS3.3 8.8 code sequences, C.17.3.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from cxr_node.dicom.part10 import MAX_DEPTH, foreign_faults, parse
from cxr_node.errors import InstanceError

Plain: TypeAlias = dict[str, str | list["Plain"]]
"""A data set by keyword (private ones by number): text as Latin-1 without padding, items of a sequence."""
Triple: TypeAlias = tuple[str, str, str]
"""Code Value, Coding Scheme Designator, Code Meaning."""

NO_CODE: Triple = ("", "", "")
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_HEAD, _ITEM_HEAD, _LENGTH = struct.Struct("<HH2sH"), struct.Struct("<II"), struct.Struct("<I")
_UNDEFINED, _ITEM, _PIXEL_DATA = 0xFFFFFFFF, 0xE000FFFE, 0x7FE00010
_VRS = {str(vr).encode(): str(vr) for vr in STANDARD_VR}
_LONG = frozenset(str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32)
_FORMATS = {"US": "H", "UL": "I", "FL": "f", "FD": "d"}


class _OtherEncodingError(InstanceError):
    """Not as we encode it: another transfer syntax, or sequences of undefined length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """One file: its file meta information, its data set, and the length of its pixel data (0: it has none)."""

    meta: Plain
    dataset: Plain
    pixel_bytes: int


class Item(NamedTuple):
    """One content item; `value` by its type: text, a code, a number with its unit, a reference, points."""

    relation: str
    value_type: str
    name: Triple
    value: Any
    parent: str
    """Value type of the item above it."""


def read(content: bytes) -> Parsed:
    """Read a Part 10 file; what archives have transcoded is left to pydicom.

    Raises InstanceError: it is none, is cut short, or is beyond the bounds of `part10`.
    """
    with foreign_faults():
        try:
            return _read(content)
        except _OtherEncodingError:
            dataset, pixels = parse(io.BytesIO(content), len(content))
            pixel_bytes = pixels.end - pixels.start if pixels else 0
            return Parsed(meta=plain(dataset.file_meta), dataset=plain(dataset), pixel_bytes=pixel_bytes)


def top(content: bytes) -> dict[str, bytes]:
    """Elements of a file that we made, as they are encoded; those of its file meta information among them.

    Raises InstanceError: as `read`.
    """
    with foreign_faults():
        return {_keyword(tag): content[start:end] for tag, _, start, end in _file(content)}


def _read(content: bytes) -> Parsed:
    meta: Plain = {}
    dataset: Plain = {}
    pixel_bytes = 0
    for tag, vr, start, end in _file(content):
        if tag >> 16 != 2 and not dataset and meta.get("TransferSyntaxUID") != EXPLICIT_LITTLE_ENDIAN:
            raise _OtherEncodingError
        if tag == _PIXEL_DATA:
            pixel_bytes = end - start
        else:
            (meta if tag >> 16 == 2 else dataset)[_keyword(tag)] = _value(content, vr, start, end, 0)
    return Parsed(meta=meta, dataset=dataset, pixel_bytes=pixel_bytes)


def _file(content: bytes) -> Iterator[tuple[int, str, int, int]]:
    if content[128:132] != b"DICM":
        raise InstanceError("the prefix DICM of a DICOM file is missing")
    return _elements(content, 132, len(content))


def _elements(content: bytes, start: int, end: int) -> Iterator[tuple[int, str, int, int]]:
    """Tag and VR of each element, and where its value begins and ends."""
    while start < end:
        group, number, code, length = _HEAD.unpack_from(content, start)
        start += 8
        if code in _LONG:
            (length,) = _LENGTH.unpack_from(content, start)
            start += 4
        vr = _VRS.get(code)
        if vr is None or length == _UNDEFINED:
            raise _OtherEncodingError
        if start + length > end:
            raise InstanceError("it ends in the middle of an attribute")
        yield group << 16 | number, vr, start, start + length
        start += length


def _value(content: bytes, vr: str, start: int, end: int, depth: int) -> str | list[Plain]:
    if vr != "SQ":
        return _text(content[start:end], vr)
    if depth >= MAX_DEPTH:
        raise InstanceError("its sequences are nested deeper than those of any result")
    found: list[Plain] = []
    while start < end:
        tag, length = _ITEM_HEAD.unpack_from(content, start)
        start += 8
        if length == _UNDEFINED:
            raise _OtherEncodingError
        if tag != _ITEM or start + length > end:
            raise InstanceError("it ends in the middle of an attribute")
        found.append(
            {
                _keyword(number): _value(content, kind, first, last, depth + 1)
                for number, kind, first, last in _elements(content, start, start + length)
            }
        )
        start += length
    return found


def plain(dataset: Dataset) -> Plain:
    """Data set as plain values; text is not converted."""
    found: Plain = {}
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        keyword = _keyword(int(tag))
        vr = str(getattr(element, "VR", None) or (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"))
        value: Any = getattr(element, "value", None)
        if vr == "SQ":
            found[keyword] = [plain(item) for item in dataset[tag].value or ()]
        elif isinstance(value, MultiValue):  # pydicom converts a character set while it reads, whoever asks
            found[keyword] = "\\".join(str(part) for part in value)
        elif isinstance(value, bytes):
            order = "<" if not isinstance(element, RawDataElement) or element.is_little_endian else ">"
            found[keyword] = _text(value, vr, order)
        else:
            found[keyword] = "" if value is None else str(value)
    return found


def _text(value: bytes, vr: str, order: str = "<") -> str:
    form = _FORMATS.get(vr)
    if form is not None:
        numbers = struct.unpack(f"{order}{len(value) // struct.calcsize(form)}{form}", value)
        return "\\".join(f"{number:.10g}" for number in numbers)
    return value.decode("latin-1") if vr == "OB" else value.decode("latin-1").rstrip(" \0")


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


def reference(item: Plain) -> tuple[str, str]:
    """SOP Class and SOP Instance UID that an item names."""
    return text(item, "ReferencedSOPClassUID"), text(item, "ReferencedSOPInstanceUID")


def listed(dataset: Plain, keyword: str) -> list[tuple[str, str, str, str]]:
    """Study, series, SOP Class and SOP Instance UID of each entry of a hierarchical reference (PS3.3 table 10-4)."""
    return [
        (text(study, "StudyInstanceUID"), text(series, "SeriesInstanceUID"), *reference(member))
        for study in items(dataset, keyword)
        for series in items(study, "ReferencedSeriesSequence")
        for member in items(series, "ReferencedSOPSequence")
    ]


def content_items(plain: Plain, parent: str = "") -> Iterator[Item]:
    """Yield the content items below a data set or an item, and all below them."""
    for each in items(plain, "ContentSequence"):
        value_type = text(each, "ValueType")
        name = code(each, "ConceptNameCodeSequence")
        yield Item(text(each, "RelationshipType"), value_type, name, item_value(each, value_type), parent)
        yield from content_items(each, value_type)


def item_value(plain: Plain, value_type: str) -> Any:
    """Value of a content item; of a CONTAINER its Continuity of Content and its template."""
    match value_type:
        case "CONTAINER":
            templates = items(plain, "ContentTemplateSequence")
            named = [f"{text(each, 'MappingResource')} {text(each, 'TemplateIdentifier')}" for each in templates]
            return text(plain, "ContinuityOfContent"), ", ".join(named)
        case "TEXT":
            return text(plain, "TextValue")
        case "UIDREF":
            return text(plain, "UID")
        case "CODE":
            return code(plain, "ConceptCodeSequence")
        case "IMAGE":
            images = items(plain, "ReferencedSOPSequence")
            return reference(images[0]) if len(images) == 1 else ("", "")
        case "NUM":
            measured = items(plain, "MeasuredValueSequence")
            if len(measured) != 1:
                return "", NO_CODE
            return text(measured[0], "NumericValue"), code(measured[0], "MeasurementUnitsCodeSequence")
        case "SCOORD":
            return text(plain, "GraphicType"), tuple(text(plain, "GraphicData").split("\\"))
        case _:
            return None
