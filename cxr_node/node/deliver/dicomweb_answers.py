"""What the answer to a STOW-RS or QIDO-RS request says of our object (PS3.18 10.5.3, 10.6.3, Annexes F and I).

A status alone proves nothing: a proxy or a login page answers 200 as well. What proves is our own SOP Instance UID.

| answer | delivery |
|---|---|
| 200 or 202, our UID in Referenced SOP Sequence | delivered, with a warning where Warning Reason says so |
| our UID in Failed SOP Sequence, or an item without a UID | by Failure Reason, as a C-STORE status (`statuses`) |
| 2xx without body, of another type, without our UID | looked for by QIDO-RS: delivered if it is there, else repeated |
| a Failure Reason that is a warning (0xB00E of Azure: it has it already), or 0x0110, which says nothing | the same |
| 400, 409, 413, 415, 422 without Failure Reason | DEAD: the same bytes would get the same answer |
| 401 | once more with a new token or file, then as 403 |
| 3xx (not followed), 403, 404, 405 and all other 4xx, 429, 5xx | repeated, after Retry-After where it says so |
| no answer, half an answer | repeated: the object may have arrived, and the same UID changes nothing |
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from cxr_node.errors import DeliveryError
from cxr_node.node.deliver.http_exchange import Answer
from cxr_node.node.deliver.link import StoreReply
from cxr_node.node.network.statuses import Action, judge

_JSON = ("application/dicom+json", "application/json")
_XML = ("application/dicom+xml", "application/xml", "text/xml")
_SOP_INSTANCE_UID, _REFERENCED_UID = "00080018", "00081155"
_REFERENCED, _FAILED, _OTHER = "00081199", "00081198", "0008119A"
_WARNING_REASON, _FAILURE_REASON = "00081196", "00081197"
_HAS_IT = 0x0111
_PROCESSING_FAILURE = 0x0110
WORDS = {  # to a person; of a status that is no success
    400: "the request is malformed",
    401: "it does not accept our authentication",
    403: "our account may not do this",
    404: "there is no such service at this URL",
    405: "there is no such service at this URL",
    406: "it answers in no form that is read here",
    409: "it stored nothing, and does not say why",
    413: "the object is too large for it, or for a proxy before it",
    415: "it does not take application/dicom in Explicit VR Little Endian",
    422: "it stored nothing, and does not say why",
    429: "it gets too many requests",
    501: "there is no such service at this URL",
    503: "it is busy",
    507: "it has no room",
}
REFUSED = (400, 409, 413, 415, 422)
"""Statuses that are about the object; all others are about the server, or the way to it."""

Item = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a STOW-RS response says of the one instance that was sent."""

    is_stored: bool
    warning: int | None = None
    failure: int | None = None


def stored(answer: Answer, sop_instance_uid: str) -> StoreReply | None:
    """Judge the answer to a STOW-RS request that carried one instance; None where it proves nothing.

    Raises
    ------
    DeliveryError : it was not stored; says whether a repeat can help.
    """
    told = _told(answer, sop_instance_uid)
    if told.failure is not None:
        return _by_reason(answer, told.failure)
    if answer.status // 100 != 2:
        raise refusal(answer)
    if not told.is_stored:
        return None
    if not told.warning:
        return StoreReply(words=answer.words)
    words = f"{answer.words} warning=0x{told.warning:04X} {judge(told.warning).words}"
    return StoreReply(words=words, status=told.warning, is_warning=True)


def says_little(reason: int | None) -> bool:
    """Whether a Failure Reason leaves open that the object is there, from an earlier try whose answer was lost."""
    return reason == _PROCESSING_FAILURE or (reason is not None and judge(reason).action is Action.DELIVERED)


def unproven(answer: Answer) -> str:
    """Why an answer proves nothing, for people."""
    if not answer.content:
        return f"{answer.words} without a body"
    if answer.media_type not in (*_JSON, *_XML):
        return f"{answer.words} with a body that is neither DICOM JSON nor XML"
    return f"{answer.words} that does not name the object"


def refusal(answer: Answer) -> DeliveryError:
    """What a status that is no success means."""
    words = WORDS.get(answer.status)
    if answer.status // 100 == 3:
        words = "a redirect, which is not followed; write the URL that it leads to"
    elif words is None:
        words = "a fault of the server" if answer.status >= 500 else "it refuses"
    sentence, permanent = f"{answer.words}: {words}", answer.status in REFUSED
    return DeliveryError(sentence, permanent=permanent, answered=True, after_s=None if permanent else answer.after_s)


def found(answer: Answer, sop_instance_uid: str) -> bool:
    """Whether the answer to a QIDO-RS request lists the object.

    Raises
    ------
    DeliveryError : it is no answer to that.
    """
    if answer.status // 100 != 2:
        raise refusal(answer)
    if answer.status == 204 or not answer.content:
        return False
    items = _items(answer)
    if items is None:
        words = f"{answer.words} to QIDO-RS with a body that is no DICOM JSON"
        raise DeliveryError(words, permanent=False, answered=True)
    return any(_first(item, _SOP_INSTANCE_UID) == sop_instance_uid for item in items)


def _by_reason(answer: Answer, reason: int) -> StoreReply:
    rule = judge(reason)
    if reason == _HAS_IT:
        return StoreReply(words=f"{answer.words} {rule.words}", status=reason)
    permanent = rule.action is Action.REFUSED
    sentence = f"{answer.words}, Failure Reason 0x{reason:04X}: {rule.words}"
    raise DeliveryError(
        sentence, permanent=permanent, status=reason, answered=True, after_s=None if permanent else answer.after_s
    )


def _told(answer: Answer, uid: str) -> Told:
    """One instance was sent, so that an item without a UID is about it."""
    (whole, *_) = _items(answer) or [{}]
    for item in (*_sequence(whole, _FAILED), *_sequence(whole, _OTHER)):
        if _first(item, _REFERENCED_UID) in (uid, None):
            return Told(is_stored=False, failure=_number(item, _FAILURE_REASON, _PROCESSING_FAILURE))
    for item in _sequence(whole, _REFERENCED):
        if _first(item, _REFERENCED_UID) == uid:
            return Told(is_stored=True, warning=_number(item, _WARNING_REASON, 0))
    return Told(is_stored=False)


def _items(answer: Answer) -> list[Item] | None:
    """The data sets of an answer in the form of PS3.18 F.2; None where it holds none that can be read."""
    try:
        if answer.media_type in _XML:
            return [_of_xml(answer.content)]
        if answer.media_type not in _JSON:
            return None
        content = json.loads(answer.content)
    except (ValueError, RecursionError, ElementTree.ParseError):
        return None
    items = content if isinstance(content, list) else [content]
    return [item for item in items if isinstance(item, dict)]


def _of_xml(content: bytes) -> Item:
    """The Native DICOM Model (PS3.19 A.1) in the form of JSON.

    Raises
    ------
    ValueError : it has a document type, by which a few bytes could mean many.
    """
    if b"<!DOCTYPE" in content:
        raise ValueError("a document type")
    return _attributes(ElementTree.fromstring(content))  # noqa: S314 - no document type, and at most a MiB


def _attributes(parent: ElementTree.Element) -> Item:
    return {
        attribute.get("tag", "").upper(): {"Value": list(_values(attribute))}
        for attribute in parent
        if _is(attribute, "DicomAttribute")
    }


def _values(attribute: ElementTree.Element) -> Iterator[Any]:
    for child in attribute:
        if _is(child, "Value"):
            yield (child.text or "").strip()
        elif _is(child, "Item"):
            yield _attributes(child)


def _is(element: ElementTree.Element, name: str) -> bool:
    return element.tag.rpartition("}")[2] == name


def _sequence(item: Item, tag: str) -> list[Item]:
    return [each for each in _value(item, tag) if isinstance(each, dict)]


def _first(item: Item, tag: str) -> str | None:
    values = _value(item, tag)
    return values[0].rstrip("\0 ") if values and isinstance(values[0], str) else None


def _number(item: Item, tag: str, default: int) -> int:
    """A US; some servers write it as text."""
    values = _value(item, tag)
    try:
        number = int(values[0]) if values else default
    except (ValueError, TypeError, OverflowError):
        return default
    return number if 0 <= number <= 0xFFFF else default


def _value(item: Item, tag: str) -> list[Any]:
    attribute = item.get(tag)
    value = attribute.get("Value") if isinstance(attribute, dict) else None
    return value if isinstance(value, list) else []
