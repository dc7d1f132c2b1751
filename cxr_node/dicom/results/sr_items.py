"""Content items of a structured report, as the bytes that stand in its file (PS3.3 C.17.3, PS3.5 7.5).

Most of a report is the same in every one, so what depends on codes alone is encoded once and kept; pydicom's data sets
take ten times as long. Tests let pydicom read whole files and write them again. Knows no report. All text is ASCII;
a caller folds it (`wording.plain`).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from enum import StrEnum
from typing import TypeAlias

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag

from cxr_node.dicom.results import encoder
from cxr_node.dicom.words.codes import Code
from cxr_node.domain import Point

Item: TypeAlias = bytes
"""A content item, encoded, with its tag and length; nothing can be changed in it."""


class Relation(StrEnum):
    """Relationship Type (0040,A010)."""

    CONTAINS = "CONTAINS"
    HAS_OBS_CONTEXT = "HAS OBS CONTEXT"
    HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
    HAS_ACQ_CONTEXT = "HAS ACQ CONTEXT"
    INFERRED_FROM = "INFERRED FROM"
    SELECTED_FROM = "SELECTED FROM"
    HAS_PROPERTIES = "HAS PROPERTIES"


def coded(concept: Code) -> Dataset:
    """Item of a code sequence (PS3.3 8.8)."""
    return Dataset(dict(_code_elements(concept.value, concept.scheme_designator, concept.meaning)))


@functools.lru_cache(maxsize=256)  # a report has sixty codes, and the next one has them again
def _code_elements(value: str, scheme_designator: str, meaning: str) -> dict[BaseTag, RawDataElement]:
    """Made by pydicom once, and kept as the bytes that are written: nobody can change them for others."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme_designator
    item.CodeMeaning = meaning
    return {element.tag: _raw(element) for element in item}


def _raw(element: DataElement) -> RawDataElement:
    value = str(element.value).encode("ascii")
    value += b" " * (len(value) % 2)
    return RawDataElement(element.tag, element.VR, len(value), value, 0, False, True, True)


def reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """Item that refers to one SOP Instance (PS3.3 10.8)."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def root(title: Code, template_id: str, children: Sequence[Item]) -> Dataset:
    """Content tree of a document, to be merged into its data set."""
    values = {
        "ValueType": b"CONTAINER ",
        "ConceptNameCodeSequence": _code(title),
        "ContinuityOfContent": b"SEPARATE",
        "ContentTemplateSequence": _template(template_id),
        "ContentSequence": b"".join(children),
    }
    return Dataset({element.tag: element for element in (encoded(*each) for each in values.items())})


def encoded(keyword: str, value: bytes) -> RawDataElement:
    """Element of a data set whose value is encoded already."""
    tag, vr = _tag_and_vr(keyword)
    return RawDataElement(BaseTag(tag), vr, len(value), value, 0, False, True, True)


def container(relation: Relation, name: Code, children: Sequence[Item], template_id: str | None = None) -> Item:
    """CONTAINER; always SEPARATE, for viewers lose the headings of CONTINUOUS ones."""
    own = _element("ContinuityOfContent", b"SEPARATE")
    if template_id is not None:
        own += _element("ContentTemplateSequence", _template(template_id))
    return _item("CONTAINER", relation, name, own, children)


def code(relation: Relation, name: Code, value: Code, children: Sequence[Item] = ()) -> Item:
    """CODE."""
    return _item("CODE", relation, name, _element("ConceptCodeSequence", _code(value)), children)


def carried_code(relation: Relation, name: Code, value: Dataset) -> Item:
    """CODE whose value is an item of a code sequence, as another object had it."""
    return _item("CODE", relation, name, _element("ConceptCodeSequence", encoder.item(encoder.to_bytes(value))))


def text(relation: Relation, name: Code, value: str, children: Sequence[Item] = ()) -> Item:
    """TEXT."""
    return _item("TEXT", relation, name, _element("TextValue", value.encode("ascii")), children)


def uid_ref(relation: Relation, name: Code, value: str) -> Item:
    """UIDREF."""
    return _item("UIDREF", relation, name, _element("UID", value.encode("ascii")))


def number(relation: Relation, name: Code, value: float, unit: Code, children: Sequence[Item] = ()) -> Item:
    """NUM."""
    measured = _element("MeasurementUnitsCodeSequence", _code(unit))
    measured += _element("NumericValue", f"{value:.10g}".encode("ascii"))
    return _item("NUM", relation, name, _element("MeasuredValueSequence", encoder.item(measured)), children)


def image(
    relation: Relation, name: Code | None, sop_class_uid: str, sop_instance_uid: str, children: Sequence[Item] = ()
) -> Item:
    """IMAGE; most templates give it no name."""
    named = _element("ReferencedSOPClassUID", sop_class_uid.encode("ascii"))
    named += _element("ReferencedSOPInstanceUID", sop_instance_uid.encode("ascii"))
    before = _element("ReferencedSOPSequence", encoder.item(named))
    return _item("IMAGE", relation, name, children=children, before=before)


def polyline(relation: Relation, name: Code, points: Sequence[Point], source: Item) -> Item:
    """SCOORD of type POLYLINE on an IMAGE item; column\\row pairs of the source grid (PS3.3 C.18.6)."""
    values = [value for point in points for value in point]
    after = _element("GraphicData", struct.pack(f"<{len(values)}f", *values)) + _element("GraphicType", b"POLYLINE")
    return _item("SCOORD", relation, name, children=[source], after=after)


def _item(  # noqa: PLR0913 - the parts of an item, in their order in the file
    value_type: str,
    relation: Relation,
    name: Code | None,
    own: bytes = b"",
    children: Sequence[Item] = (),
    *,
    before: bytes = b"",
    after: bytes = b"",
) -> Item:
    """`own` : elements between Concept Name and Content Sequence; `before` and `after` all others."""
    named = ("", "", "") if name is None else (name.value, name.scheme_designator, name.meaning)
    content = _element("ContentSequence", b"".join(children)) if children else b""
    return encoder.item(b"".join((before, _beginning(value_type, relation, *named), own, content, after)))


@functools.lru_cache(maxsize=256)
def _beginning(value_type: str, relation: str, value: str, scheme_designator: str, meaning: str) -> bytes:
    """Relationship Type, Value Type, and Concept Name unless the code is empty."""
    begun = _element("RelationshipType", relation.encode("ascii")) + _element("ValueType", value_type.encode("ascii"))
    if value:
        begun += _element("ConceptNameCodeSequence", _encoded_code(value, scheme_designator, meaning))
    return begun


def _code(concept: Code) -> bytes:
    return _encoded_code(concept.value, concept.scheme_designator, concept.meaning)


@functools.lru_cache(maxsize=256)
def _encoded_code(value: str, scheme_designator: str, meaning: str) -> bytes:
    return encoder.item(encoder.to_bytes(Dataset(dict(_code_elements(value, scheme_designator, meaning)))))


@functools.cache
def _template(template_id: str) -> bytes:
    named = _element("MappingResource", b"DCMR") + _element("TemplateIdentifier", template_id.encode("ascii"))
    return encoder.item(named)


def _element(keyword: str, value: bytes) -> bytes:
    return encoder.element(*_tag_and_vr(keyword), value)


@functools.cache
def _tag_and_vr(keyword: str) -> tuple[int, str]:
    tag = tag_for_keyword(keyword) or 0
    return tag, dictionary_VR(tag)
