"""What people did with the node, and when it ran, out of the audit trail: without the studies and pseudonyms in it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

from cxr_node.node.audit.trail import TrailFolder

_OF_STUDIES = frozenset({"110102", "110104"})
"""Begin Transferring, DICOM Instances Transferred: no person's doing, and the ledger has them."""


def deeds(folder: TrailFolder, since: datetime, until: datetime) -> list[dict[str, str]]:
    """All of a time that is kept, in its order."""
    found = [each for path in folder.segments() for line in _lines(path) if (each := _deed(line)) is not None]
    inside = [each for each in found if since <= datetime.fromisoformat(each["at"]) < until]
    return sorted(inside, key=lambda each: datetime.fromisoformat(each["at"]))


def _lines(path: Path) -> Iterator[bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:  # too old just now
        return
    yield from content.split(b"\n")[:-1]


def _deed(line: bytes) -> dict[str, str] | None:
    """Read one message; None of one that is torn, or about a transfer."""
    try:
        message = ElementTree.fromstring(line[max(line.find(b"<AuditMessage"), 0) :])  # noqa: S314 - this node wrote it
        event = message.find("EventIdentification")
        if event is None or _code(event, "EventID")[0] in _OF_STUDIES:
            return None
        at = datetime.fromisoformat(event.get("EventDateTime", "")).isoformat()
    except (ElementTree.ParseError, ValueError):
        return None
    person = next(iter(message.findall("ActiveParticipant")), ElementTree.Element("none"))
    return {
        "at": at,
        "event": _code(event, "EventID")[1],
        "type": _code(event, "EventTypeCode")[1],
        "who": person.get("UserID", ""),
        "host": person.get("NetworkAccessPointID", ""),
        "outcome": event.get("EventOutcomeIndicator", ""),
        "words": event.findtext("EventOutcomeDescription", ""),
    }


def _code(event: ElementTree.Element, name: str) -> tuple[str, str]:
    found = event.find(name)
    return ("", "") if found is None else (found.get("csd-code", ""), found.get("originalText", ""))
