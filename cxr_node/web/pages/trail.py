"""The last entries of the audit trail in plain words: what, who, from where, when, with what outcome.

Reads the segments that this node's processes write. The studies and pseudonyms in them are left out: an auditor finds
them in the files.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

from cxr_node.config.schema import Config
from cxr_node.errors import ConfigError, ResourceError
from cxr_node.node.audit import recorder
from cxr_node.node.audit.messages import Outcome

LAST = 50
_TAIL_BYTES = 256 * 1024
_SEGMENTS = 24
"""Written to last; a process has one at a time."""
_TRANSFER = "110104"
_DONE = {
    "110100": "application",
    "110102": "begins to send a study",
    "110105": "study deleted",
    "110103": "study accessed",
    "110113": "security alert",
    "110114": "authentication",
    "110120": "started",
    "110121": "stopped",
    "110122": "logged in",
    "110123": "logged out",
    "110126": "peer not let in",
    "110132": "changed by an operator",
    "110134": "gap in the trail",
}
_OUTCOMES = {
    Outcome.SUCCESS: "done",
    Outcome.MINOR_FAILURE: "refused",
    Outcome.SERIOUS_FAILURE: "failed",
    Outcome.MAJOR_FAILURE: "broke off",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One message."""

    at: datetime
    what: str
    who: str
    host: str
    outcome: str
    words: str
    """What the message says itself."""

    @property
    def is_good(self) -> bool:
        """Nothing was refused, nothing failed."""
        return self.outcome == _OUTCOMES[Outcome.SUCCESS]


def last(config: Config, number: int = LAST) -> list[Entry]:
    """The newest first; none where audit is off or nothing can be read."""
    if not config.audit.enabled:
        return []
    try:
        segments = recorder.trail_folder(config).segments()
    except (ConfigError, ResourceError, OSError):
        return []
    newest = heapq.nlargest(_SEGMENTS, segments, key=_modified_at)
    entries = (entry for segment in newest for line in _tail(segment) if (entry := _entry(line)) is not None)
    return heapq.nlargest(number, entries, key=lambda entry: entry.at)


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _tail(path: Path) -> Iterator[bytes]:
    """Whole lines at the end of a segment."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            content = file.read(_TAIL_BYTES)
    except OSError:
        return
    lines = content.split(b"\n")[:-1]
    yield from lines if size <= _TAIL_BYTES else lines[1:]


def _entry(line: bytes) -> Entry | None:
    """Read one line; None of one that is torn."""
    begin = line.find(b"<AuditMessage")
    try:
        message = ElementTree.fromstring(line[max(begin, 0) :])  # noqa: S314 - this node wrote it
        event = message.find("EventIdentification")
        if event is None:
            return None
        at = datetime.fromisoformat(event.get("EventDateTime", ""))
        outcome = _OUTCOMES[Outcome(_number(event.get("EventOutcomeIndicator", "")))]
    except (ElementTree.ParseError, ValueError, KeyError):
        return None
    participants = message.findall("ActiveParticipant")
    first = participants[0] if participants else ElementTree.Element("none")
    return Entry(
        at=at,
        what=_what(event, first),
        who=first.get("UserID", "-"),
        host=first.get("NetworkAccessPointID", "-"),
        outcome=outcome,
        words=event.findtext("EventOutcomeDescription", ""),
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else -1


def _what(event: ElementTree.Element, first: ElementTree.Element) -> str:
    kind, more = _code(event, "EventID"), _code(event, "EventTypeCode")
    if kind == _TRANSFER:
        source = first.get("UserID", "")
        return "study sent" if source.endswith("]") else "study received"
    return _DONE.get(more) or _DONE.get(kind, "event")


def _code(event: ElementTree.Element, name: str) -> str:
    found = event.find(name)
    return "" if found is None else found.get("csd-code", "")
