"""Content items as flat ones, and the comparison of a content tree with what it must be.

Knows no template: `rows` says which rows a document must have.

Clauses: PS3.3 C.17.3 SR Document Content, C.18.6 Spatial Coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydicom.sr.coding import Code

from cxr_node.dicom.results.sr_items import Relation
from cxr_node.dicom.verify.plain import NO_CODE, Plain, Triple, code, item_value, items, text
from tests.dicom.oracle.rules import OracleRule

Report: TypeAlias = Callable[[OracleRule, str], None]
"""Takes a broken rule and the place where it is broken."""


def triple(concept: Code) -> Triple:
    """Code as it stands in an object."""
    return str(concept.value), str(concept.scheme_designator), str(concept.meaning)


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
        value=item_value(plain, value_type),
        children=tuple(tree(child) for child in items(plain, "ContentSequence")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedItem:
    """One content item that a document must have, and the rule that it breaks where it is missing or wrong.

    `value`: what it must be equal to, a function that accepts it, or None where anything but nothing is right.
    """

    rule: OracleRule
    relation: Relation | None
    value_type: str
    name: Code | None
    value: Any = None
    rows: tuple[ExpectedItem, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, str]:
        """As `Item.key`."""
        name = triple(self.name)[:2] if self.name else NO_CODE[:2]
        return (str(self.relation or ""), self.value_type, *name)

    def accepts(self, value: Any) -> bool:
        """Tell whether a value is right."""
        if self.value is None:
            return bool(value and any(value))
        if isinstance(self.value, str):
            return bool(value == self.value.rstrip(" "))  # trailing spaces are padding (PS3.5 6.2)
        return bool(self.value(value)) if callable(self.value) else bool(self.value == value)


def compare(found: Item, row: ExpectedItem, report: Report, path: tuple[str, ...] = ()) -> None:
    """Compare an item with its row, and all below: closed (nothing more), complete (nothing less), in order."""
    where = (*path, found.name[2] or found.value_type)
    place = " > ".join(where)
    if row.name is not None and found.name[2] != row.name.meaning:
        report(OracleRule.CODE_MEANING, place)
    if row.value_type == "CONTAINER":
        _compare_container(found, row, report, place)
    elif not row.accepts(found.value):
        report(row.rule, place)
    pairs, missing, unexpected = _match(found.children, row.rows)
    for absent in missing:
        name = absent.name.meaning if absent.name else absent.value_type
        report(absent.rule, f"{place} > {name}")
    for item in unexpected:
        report(OracleRule.ROW_UNEXPECTED, f"{place} > {item.name[2] or item.value_type}")
    order = [index for _, index in pairs]
    if order != sorted(order):
        report(OracleRule.ROW_ORDER, place)
    for item, index in pairs:
        compare(item, row.rows[index], report, where)


def _compare_container(found: Item, row: ExpectedItem, report: Report, place: str) -> None:
    continuity, template = found.value
    if continuity != "SEPARATE":
        report(OracleRule.CONTINUITY, place)
    if template != (row.value or ""):
        report(OracleRule.TEMPLATE, place)


def _match(
    found: Sequence[Item], rows: Sequence[ExpectedItem]
) -> tuple[list[tuple[Item, int]], list[ExpectedItem], list[Item]]:
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
