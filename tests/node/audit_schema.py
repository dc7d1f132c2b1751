"""The audit message schema of PS3.15 A.5.1.1, as far as our messages go: a table, and who reads it.

Own words for the standard's RELAX NG: per element its attributes (required or not, and what they may hold) and its
children in their order with how many there may be. What is not in the table is not in the schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.etree import ElementTree

_TOKEN, _UID, _INTEGER, _BOOLEAN = r".+", r"[0-9]+(\.[0-9]+)*", r"[0-9]+", r"true|false"
_BASE64 = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_DATE_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"
_MANY = 10_000


@dataclass(frozen=True)
class Rule:
    required: dict[str, str] = field(default_factory=dict)
    optional: dict[str, str] = field(default_factory=dict)
    children: tuple[tuple[str, int, int], ...] = ()
    has_text: bool = False


_CODE = Rule({"csd-code": _TOKEN, "codeSystemName": _TOKEN, "originalText": _TOKEN}, {"displayName": _TOKEN})
SCHEMA = {
    "AuditMessage": Rule(
        children=(
            ("EventIdentification", 1, 1),
            ("ActiveParticipant", 1, _MANY),
            ("AuditSourceIdentification", 1, 1),
            ("ParticipantObjectIdentification", 0, _MANY),
        )
    ),
    "EventIdentification": Rule(
        {"EventDateTime": _DATE_TIME, "EventOutcomeIndicator": "0|4|8|12"},
        {"EventActionCode": "[CRUDE]"},
        (("EventID", 1, 1), ("EventTypeCode", 0, _MANY), ("EventOutcomeDescription", 0, 1)),
    ),
    "EventID": _CODE,
    "EventTypeCode": _CODE,
    "EventOutcomeDescription": Rule(has_text=True),
    "ActiveParticipant": Rule(
        {"UserID": ".*", "UserIsRequestor": _BOOLEAN},
        {
            "AlternativeUserID": ".*",
            "UserName": ".*",
            "NetworkAccessPointID": _TOKEN,
            "NetworkAccessPointTypeCode": "[1-5]",
        },
        (("RoleIDCode", 0, _MANY), ("MediaIdentifier", 0, 1)),
    ),
    "RoleIDCode": _CODE,
    "AuditSourceIdentification": Rule(
        {"AuditSourceID": _TOKEN}, {"AuditEnterpriseSiteID": _TOKEN}, (("AuditSourceTypeCode", 0, _MANY),)
    ),
    "AuditSourceTypeCode": Rule({"csd-code": "[1-9]"}),
    "ParticipantObjectIdentification": Rule(
        {"ParticipantObjectID": _TOKEN},
        {
            "ParticipantObjectTypeCode": "[1-4]",
            "ParticipantObjectTypeCodeRole": r"[1-9]|1\d|2[0-6]",
            "ParticipantObjectDataLifeCycle": r"[1-9]|1[0-5]",
            "ParticipantObjectSensitivity": _TOKEN,
        },
        (
            ("ParticipantObjectIDTypeCode", 1, 1),
            ("ParticipantObjectName", 1, 1),  # or a query, which we never have
            ("ParticipantObjectDetail", 0, _MANY),
            ("ParticipantObjectDescription", 0, _MANY),
        ),
    ),
    "ParticipantObjectIDTypeCode": _CODE,
    "ParticipantObjectName": Rule(has_text=True),
    "ParticipantObjectDetail": Rule({"type": _TOKEN, "value": _BASE64}),
    "ParticipantObjectDescription": Rule(children=(("SOPClass", 0, _MANY),)),
    "SOPClass": Rule({"NumberOfInstances": _INTEGER}, {"UID": _UID}, (("Instance", 0, _MANY),)),
}


def faults(content: bytes) -> list[str]:
    """What the schema has against a message; empty where it is valid."""
    root = ElementTree.fromstring(content)
    return [*([] if root.tag == "AuditMessage" else [f"root {root.tag}"]), *_faults(root)]


def _faults(element: ElementTree.Element) -> Iterator[str]:
    rule = SCHEMA.get(element.tag)
    if rule is None:
        yield f"{element.tag}: unknown element"
        return
    yield from _attribute_faults(element, rule)
    if not rule.has_text and (element.text or "").strip():
        yield f"{element.tag}: text"
    tags = [child.tag for child in element]
    order = [name for name, _, _ in rule.children]
    if unknown := set(tags) - set(order):
        yield f"{element.tag}: unknown children {unknown}"
    elif tags != sorted(tags, key=order.index):
        yield f"{element.tag}: order of children {tags}"
    for name, least, most in rule.children:
        if not least <= tags.count(name) <= most:
            yield f"{element.tag}: {tags.count(name)} of {name}"
    for child in element:
        yield from _faults(child)


def _attribute_faults(element: ElementTree.Element, rule: Rule) -> Iterator[str]:
    for name in rule.required.keys() - element.attrib.keys():
        yield f"{element.tag}: {name} is missing"
    allowed = rule.required | rule.optional
    for name, value in element.attrib.items():
        if name not in allowed:
            yield f"{element.tag}: unknown attribute {name}"
        elif re.fullmatch(allowed[name], value) is None:
            yield f"{element.tag}: {name}={value!r}"
