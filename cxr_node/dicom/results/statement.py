"""What the conformance statement tells of result objects, read off the objects themselves, as plain values.

Must not know how the statement is laid out. PS3.2 A.8.1 (IOD contents), A.8.3 (coded terminology and templates).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.uid import UID

from cxr_node.dicom.results import copied_attributes

_SHOWN_VRS = frozenset({"CS", "IS", "US"})
_OF_THE_IMAGE = frozenset({"Rows", "Columns"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentRow:
    """One content item as all documents of a kind have it; `values` and `present` name the documents."""

    depth: int
    relationship: str
    value_type: str
    concept: str
    template: str
    values: tuple[str, ...]
    """Values, with the documents that have them where those differ; empty for free text, UIDs and numbers."""
    present: str
    """always, or the documents that have it."""
    multiplicity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One attribute of a data set; `value` is empty where it depends on the case."""

    tag: str
    name: str
    vr: str
    value: str


def name(uid: str) -> str:
    """Name of a SOP class or transfer syntax in PS3.6 Annex A, or the UID itself."""
    return UID(uid).name


def carried() -> tuple[Attribute, ...]:
    """Attributes that every result takes over from its source, nested ones after their sequence."""
    return tuple(
        Attribute(tag=_tag(tag), name=f"{'> ' * depth}{dictionary_description(tag)}", vr=dictionary_VR(tag), value="")
        for tag, depth in _flat(copied_attributes.PATIENT_AND_STUDY)
    )


def generated(documents: Mapping[str, bytes]) -> tuple[Attribute, ...]:
    """Top-level attributes that the node makes, in the order of their tags; documents are Part 10 files by name."""
    found: dict[int, list[Dataset]] = {}
    datasets = [_read(content) for content in documents.values()]
    for dataset in datasets:
        for element in dataset:
            if element.keyword not in copied_attributes.PATIENT_AND_STUDY:
                found.setdefault(int(element.tag), []).append(dataset)
    return tuple(_attribute(tag, having) for tag, having in sorted(found.items()))


def content_tree(documents: Mapping[str, bytes]) -> tuple[ContentRow, ...]:
    """Content items of structured reports of one kind, merged: one row for what they have in common."""
    trees = {document: [_read(content)] for document, content in documents.items()}
    return tuple(_rows(trees, 0, tuple(trees)))


def _rows(siblings: Mapping[str, Sequence[Dataset]], depth: int, documents: tuple[str, ...]) -> list[ContentRow]:
    """Rows of items of one level and what is below them; a key stands where the first document has it."""
    keys: list[tuple[str, ...]] = []
    for items in siblings.values():
        at = 0
        for key in map(_key, items):
            at = keys.index(key) + 1 if key in keys else at
            if key not in keys:
                keys.insert(at, key)
                at += 1
    rows: list[ContentRow] = []
    for key in keys:
        alike = {document: [item for item in items if _key(item) == key] for document, items in siblings.items()}
        rows.append(_row(key, {document: items for document, items in alike.items() if items}, depth, documents))
        below = {
            name: [one for item in items for one in item.get("ContentSequence", ())] for name, items in alike.items()
        }
        rows += _rows({document: items for document, items in below.items() if items}, depth + 1, documents)
    return rows


def _row(
    key: tuple[str, ...], alike: Mapping[str, Sequence[Dataset]], depth: int, documents: tuple[str, ...]
) -> ContentRow:
    relationship, value_type, concept, template = key
    counts = {len(items) for items in alike.values()}
    return ContentRow(
        depth=depth,
        relationship=relationship,
        value_type=value_type,
        concept=concept,
        template=template,
        values=_values(alike),
        present="always" if tuple(alike) == documents else ", ".join(alike),
        multiplicity=str(min(counts)) if len(counts) == 1 else f"{min(counts)}-{max(counts)}",
    )


def _values(alike: Mapping[str, Sequence[Dataset]]) -> tuple[str, ...]:
    said: dict[str, list[str]] = {}
    for document, items in alike.items():
        for value in dict.fromkeys(_value(item) for item in items):
            said.setdefault(value, []).append(document)
    said.pop("", None)
    if len({tuple(having) for having in said.values()}) <= 1:
        return tuple(said)
    return tuple(f"{value} for {', '.join(having)}" for value, having in said.items())


def _key(item: Dataset) -> tuple[str, ...]:
    concept = item.get("ConceptNameCodeSequence")
    template = item.get("ContentTemplateSequence")
    return (
        str(item.get("RelationshipType", "")),
        str(item.ValueType),
        _code(concept[0]) if concept else "",
        f"TID {template[0].TemplateIdentifier}" if template else "",
    )


def _value(item: Dataset) -> str:
    match item.ValueType:
        case "CODE":
            return _code(item.ConceptCodeSequence[0])
        case "NUM":
            return f"in {_code(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0])}"
        case "SCOORD":
            return str(item.GraphicType)
        case "IMAGE":
            return name(item.ReferencedSOPSequence[0].ReferencedSOPClassUID)
        case "CONTAINER":
            return str(item.ContinuityOfContent)
        case _:
            return ""


def _code(code: Dataset) -> str:
    return f'({code.CodeValue}, {code.CodingSchemeDesignator}, "{code.CodeMeaning}")'


def _attribute(tag: int, having: Sequence[Dataset]) -> Attribute:
    elements = [dataset[tag] for dataset in having]
    first = elements[0]
    values = {str(element.value) for element in elements if first.VR in _SHOWN_VRS}
    fixed = len(values) == 1 and first.keyword not in _OF_THE_IMAGE
    shown = first.value if first.VM > 1 else [first.value] * first.VM
    value = "\\".join(map(str, shown)) if fixed else ""
    return Attribute(tag=_tag(tag), name=first.name, vr=first.VR, value=value)


def _flat(attributes: copied_attributes.Attributes, depth: int = 0) -> list[tuple[int, int]]:
    return [
        pair
        for tag, nested in sorted((tag_for_keyword(key) or 0, nested) for key, nested in attributes.items())
        for pair in [(tag, depth), *(_flat(nested, depth + 1) if nested else ())]
    ]


def _tag(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _read(content: bytes) -> Dataset:
    return dcmread(io.BytesIO(content))
