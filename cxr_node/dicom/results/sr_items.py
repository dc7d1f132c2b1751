"""Content items of a structured report, one function per value type (PS3.3 C.17.3).

highdicom insists on a concept name for every image, which TID 1601 and 2000 do not give.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from enum import StrEnum

from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sr.coding import Code
from pydicom.tag import BaseTag

from cxr_node.domain import Point


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


def root(title: Code, template_id: str, children: Iterable[Dataset]) -> Dataset:
    """Content tree of a document, to be merged into its data set."""
    item = container(Relation.CONTAINS, title, children, template_id)
    del item.RelationshipType
    return item


def container(relation: Relation, name: Code, children: Iterable[Dataset], template_id: str | None = None) -> Dataset:
    """CONTAINER; always SEPARATE, for viewers lose the headings of CONTINUOUS ones."""
    item = _item("CONTAINER", relation, name)
    item.ContinuityOfContent = "SEPARATE"
    if template_id is not None:
        template = Dataset()
        template.MappingResource, template.TemplateIdentifier = "DCMR", template_id
        item.ContentTemplateSequence = [template]
    item.ContentSequence = list(children)
    return item


def code(relation: Relation, name: Code, value: Code) -> Dataset:
    """CODE."""
    item = _item("CODE", relation, name)
    item.ConceptCodeSequence = [coded(value)]
    return item


def text(relation: Relation, name: Code, value: str) -> Dataset:
    """TEXT."""
    item = _item("TEXT", relation, name)
    item.TextValue = value
    return item


def uid_ref(relation: Relation, name: Code, value: str) -> Dataset:
    """UIDREF."""
    item = _item("UIDREF", relation, name)
    item.UID = value
    return item


def number(relation: Relation, name: Code, value: float, unit: Code) -> Dataset:
    """NUM."""
    measured = Dataset()
    measured.NumericValue = f"{value:.10g}"
    measured.MeasurementUnitsCodeSequence = [coded(unit)]
    item = _item("NUM", relation, name)
    item.MeasuredValueSequence = [measured]
    return item


def image(relation: Relation, name: Code | None, sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """IMAGE; most templates give it no name."""
    item = _item("IMAGE", relation, name)
    item.ReferencedSOPSequence = [reference(sop_class_uid, sop_instance_uid)]
    return item


def polyline(relation: Relation, name: Code, points: Sequence[Point], source: Dataset) -> Dataset:
    """SCOORD of type POLYLINE on an IMAGE item; column\\row pairs of the source grid (PS3.3 C.18.6)."""
    item = _item("SCOORD", relation, name)
    item.GraphicType = "POLYLINE"
    item.GraphicData = [float(value) for point in points for value in point]
    item.ContentSequence = [source]
    return item


def _item(value_type: str, relation: Relation, name: Code | None) -> Dataset:
    item = Dataset(dict(_item_elements(value_type, str(relation))))
    if name is not None:
        item.ConceptNameCodeSequence = [coded(name)]
    return item


@functools.cache
def _item_elements(value_type: str, relation: str) -> dict[BaseTag, RawDataElement]:
    item = Dataset()
    item.RelationshipType = relation
    item.ValueType = value_type
    return {element.tag: _raw(element) for element in item}
