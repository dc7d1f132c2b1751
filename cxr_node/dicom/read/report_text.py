"""The text of somebody else's Structured Report, with its headings, and which study it is about.

Knows no finding. PS3.3 C.17.2 (SR Document General), C.17.3 (content tree), PS3.16 TID 2000.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydicom import Dataset

from cxr_node.dicom.part10 import foreign_faults, parse
from cxr_node.dicom.read.admission import is_own
from cxr_node.dicom.read.keys import accession_key
from cxr_node.errors import InstanceError

_MAX_ITEMS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportText:
    """What a report says, and of what; its Accession Number is a digest already."""

    text: str = field(repr=False)
    codes: frozenset[tuple[str, str]]
    """Coded values: Code Value and Coding Scheme Designator."""
    accession_keys: frozenset[str]
    uids: frozenset[str]
    """Study Instance UIDs."""
    reported_at: str
    """Content Date and Content Time, YYYYMMDDHHMMSS as far as they are there."""
    is_final: bool
    is_own: bool
    """It is a result of this node."""


def read(content: bytes) -> ReportText:
    """Read a Part 10 file. Raises InstanceError: it is none, or no Structured Report."""
    with foreign_faults():
        dataset, _ = parse(io.BytesIO(content), len(content))
        if "ContentSequence" not in dataset:
            raise InstanceError("it is no Structured Report")
        return _read(dataset)


def _read(dataset: Dataset) -> ReportText:
    items = list(_items(dataset))
    requests = [dataset, *dataset.get("ReferencedRequestSequence", [])]
    evidence = dataset.get("CurrentRequestedProcedureEvidenceSequence", [])
    accessions = {str(each.get("AccessionNumber") or "").strip() for each in requests} - {""}
    return ReportText(
        text="\n".join(line for line in map(_line, items) if line),
        codes=frozenset(code for each in items if (code := _code(each)) is not None),
        accession_keys=frozenset(map(accession_key, accessions)),
        uids=frozenset(str(each.get("StudyInstanceUID") or "") for each in [dataset, *evidence]) - {""},
        reported_at=f"{dataset.get('ContentDate') or ''}{str(dataset.get('ContentTime') or '')[:6]}",
        is_final=dataset.get("PreliminaryFlag") != "PRELIMINARY",
        is_own=is_own(dataset),
    )


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """All content items in the order of reading."""
    waiting = list(dataset.get("ContentSequence", []))[::-1]
    for _ in range(_MAX_ITEMS):
        if not waiting:
            return
        item = waiting.pop()
        yield item
        waiting += list(item.get("ContentSequence", []))[::-1]


def _line(item: Dataset) -> str:
    name = next((str(code.get("CodeMeaning") or "") for code in item.get("ConceptNameCodeSequence", [])), "")
    match item.get("ValueType"):
        case "CONTAINER":
            return f"{name}:" if name else ""
        case "TEXT":
            return f"{name}:\n{item.get('TextValue') or ''}" if name else str(item.get("TextValue") or "")
    return ""


def _code(item: Dataset) -> tuple[str, str] | None:
    if item.get("ValueType") != "CODE":
        return None
    found = next(iter(item.get("ConceptCodeSequence", [])), Dataset())
    return str(found.get("CodeValue") or ""), str(found.get("CodingSchemeDesignator") or "")
