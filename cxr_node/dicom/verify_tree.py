"""Data sets as plain values, content items as flat ones, and the comparison of a content tree with what it must be.

Values stay in the bytes they were sent in (read as Latin-1, which loses none), so that carried text is compared
without knowing its character set. Knows no template: `verify_rows` says which rows a document must have.

Clauses: PS3.3 C.17.3 SR Document Content, 8.8 code sequences, C.18.6 Spatial Coordinates.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sr.coding import Code

from cxr_node.dicom.content import Relation
from cxr_node.dicom.part10 import foreign_faults, parse
from cxr_node.dicom.verify_rules import Rule

Plain: TypeAlias = dict[str, str | list["Plain"]]
"""A data set by keyword (private ones by number): text as Latin-1 without padding, items of a sequence."""
Triple: TypeAlias = tuple[str, str, str]
"""Code Value, Coding Scheme Designator, Code Meaning."""
Report: TypeAlias = Callable[[Rule, str], None]
"""Takes a broken rule and the place where it is broken."""

_NO_CODE: Triple = ("", "", "")
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
    found: Plain = {}
    for tag, element in dataset.items():  # not `for element in dataset`, which converts
        vr = element.VR or dictionary_VR(tag)
        if vr == "SQ":
            found[_keyword(int(tag))] = [plain(item) for item in dataset[tag].value or ()]
        else:
            found[_keyword(int(tag))] = _text(element, vr)
    return found


def _text(element: DataElement | RawDataElement, vr: str) -> str:
    value: Any = element.value
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
        return _NO_CODE
    item = found[0]
    return text(item, "CodeValue"), text(item, "CodingSchemeDesignator"), text(item, "CodeMeaning")


def triple(concept: Code) -> Triple:
    """Code as it stands in an object."""
    return str(concept.value), str(concept.scheme_designator), str(concept.meaning)


def reference(plain: Plain) -> tuple[str, str]:
    """SOP Class and SOP Instance UID of the only item of Referenced SOP Sequence; "" twice where there is not one."""
    found = items(plain, "ReferencedSOPSequence")
    if len(found) != 1:
        return "", ""
    return text(found[0], "ReferencedSOPClassUID"), text(found[0], "ReferencedSOPInstanceUID")


@dataclass(frozen=True, slots=True)
class Item:
    """One content item. `value` depends on the value type: text, a code, a number with its unit, a reference, points.

    A CONTAINER's value is its Continuity of Content and its template's identifier.
    """

    relation: str
    value_type: str
    name: Triple
    value: Any
    children: tuple[Item, ...]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a row of a template is found by."""
        return (self.relation, self.value_type, *self.name[:2])


def tree(plain: Plain) -> Item:
    """Content tree below a data set or an item."""
    value_type = text(plain, "ValueType")
    return Item(
        relation=text(plain, "RelationshipType"),
        value_type=value_type,
        name=code(plain, "ConceptNameCodeSequence"),
        value=_value(plain, value_type),
        children=tuple(tree(child) for child in items(plain, "ContentSequence")),
    )


def walk(item: Item) -> Iterator[Item]:
    """Yield an item and all below it."""
    yield item
    for child in item.children:
        yield from walk(child)


def _value(plain: Plain, value_type: str) -> Any:
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
            return reference(plain)
        case "NUM":
            measured = items(plain, "MeasuredValueSequence")
            if len(measured) != 1:
                return "", _NO_CODE
            return text(measured[0], "NumericValue"), code(measured[0], "MeasurementUnitsCodeSequence")
        case "SCOORD":
            return text(plain, "GraphicType"), tuple(text(plain, "GraphicData").split("\\"))
        case _:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One content item that a document must have, and the rule that it breaks where it is missing or wrong.

    `value`: what it must be equal to, a function that accepts it, or None where anything but nothing is right.
    """

    rule: Rule
    relation: Relation | None
    value_type: str
    name: Code | None
    value: Any = None
    rows: tuple[Row, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, str]:
        """As `Item.key`."""
        name = triple(self.name)[:2] if self.name else _NO_CODE[:2]
        return (str(self.relation or ""), self.value_type, *name)

    def accepts(self, value: Any) -> bool:
        """Tell whether a value is right."""
        if self.value is None:
            return bool(value and any(value))
        if isinstance(self.value, str):
            return bool(value == self.value.rstrip(" "))  # trailing spaces are padding (PS3.5 6.2)
        return bool(self.value(value)) if callable(self.value) else bool(self.value == value)


def compare(found: Item, row: Row, report: Report, path: tuple[str, ...] = ()) -> None:
    """Compare an item with its row, and all below: closed (nothing more), complete (nothing less), in order."""
    where = (*path, found.name[2] or found.value_type)
    place = " > ".join(where)
    if row.name is not None and found.name[2] != row.name.meaning:
        report(Rule.CODE_MEANING, place)
    if row.value_type == "CONTAINER":
        _compare_container(found, row, report, place)
    elif not row.accepts(found.value):
        report(row.rule, place)
    pairs, missing, unexpected = _match(found.children, row.rows)
    for absent in missing:
        name = absent.name.meaning if absent.name else absent.value_type
        report(absent.rule, f"{place} > {name}")
    for item in unexpected:
        report(Rule.ROW_UNEXPECTED, f"{place} > {item.name[2] or item.value_type}")
    order = [index for _, index in pairs]
    if order != sorted(order):
        report(Rule.ROW_ORDER, place)
    for item, index in pairs:
        compare(item, row.rows[index], report, where)


def _compare_container(found: Item, row: Row, report: Report, place: str) -> None:
    continuity, template = found.value
    if continuity != "SEPARATE":
        report(Rule.CONTINUITY, place)
    if template != (row.value or ""):
        report(Rule.TEMPLATE, place)


def _match(found: Sequence[Item], rows: Sequence[Row]) -> tuple[list[tuple[Item, int]], list[Row], list[Item]]:
    """Pair items with rows by key, those of equal value first, so that of many alike the wrong one is blamed."""
    free = dict(enumerate(rows))
    paired: dict[int, int] = {}
    for exactly in (True, False):
        for place, item in enumerate(found):
            if place in paired:
                continue
            key = item.key
            for index, row in free.items():
                if row.key == key and (not exactly or row.value_type == "CONTAINER" or row.accepts(item.value)):
                    paired[place] = index
                    del free[index]
                    break
    pairs = [(item, paired[place]) for place, item in enumerate(found) if place in paired]
    return pairs, list(free.values()), [item for place, item in enumerate(found) if place not in paired]
