"""Reports in messages of HL7 version 2: ORU^R01, as files, with or without the frames of MLLP and headers of a batch.

HL7 2.5.1 chapters 2, 4.5, 7; IHE RAD TF-2 for where the Accession Number stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

from cxr_node.assurance.report import WITHDRAWN, Readers, Report, Source, accessions, instant
from cxr_node.dicom.words.coded_findings import OWN_SCHEME

_ACCESSION_FIELDS = (("OBR", 18), ("OBR", 3), ("OBR", 2), ("ORC", 3), ("ORC", 2))
"""IHE Radiology: OBR-18 is the Accession Number where it is filled; else the filler's number, else the placer's."""
_FINAL = {"F", "C", "A", ""}
_GONE = {"X", "D", "W"}
_HEADINGS = {"IMP": "IMPRESSION", "GDT": "FINDINGS", "ADT": "ADDENDUM", "19005-8": "IMPRESSION", "59776-5": "FINDINGS"}
"""Suffixes of HL7 table 0135-like OBX-3 and LOINC codes."""
_TEXT_TYPES = {"TX", "FT", "ST", "CE", "CWE", "CF"}
_ESCAPE = re.compile(r"\\([^\\]*)\\")


def reports(text: str, readers: Readers) -> Iterator[Report]:
    """Messages of a file, with or without the frames of MLLP and the headers of a batch."""
    segments = [line.strip("\x0b\x1c") for line in re.split(r"[\r\n]+", text)]
    message: list[str] = []
    for segment in [*segments, "MSH"]:
        if segment[:3] in ("MSH", "FTS", "BTS", "FHS", "BHS"):
            if message:
                yield from _of_message(message, readers)
            message = [segment] if segment.startswith("MSH") and len(segment) > 8 else []
        elif message and segment:
            message.append(segment)


def _of_message(segments: Sequence[str], readers: Readers) -> Iterator[Report]:
    mark, component = segments[0][3], segments[0][4]
    split = [segment.split(mark) for segment in segments]
    if f"{component}{OWN_SCHEME}" in "".join(segments):
        readers.skipped.own += 1
        return
    order: list[list[str]] = []
    groups: list[list[list[str]]] = []
    for fields in split:
        if fields[0] == "ORC":
            order = [fields]
        elif fields[0] == "OBR":
            groups.append([*order, fields])
            order = []
        elif groups and fields[0] in ("OBX", "ZDS"):
            groups[-1].append(fields)
    for group in groups:
        yield from _of_order(group, component, instant(_at(split[0], 6)), readers)


def _at(fields: Sequence[str], number: int) -> str:
    return fields[number] if len(fields) > number else ""


def _of_order(
    group: Sequence[Sequence[str]], component: str, sent_at: datetime | None, readers: Readers
) -> Iterator[Report]:
    request = next(fields for fields in group if fields[0] == "OBR")
    rows = [fields for fields in group if fields[0] == "OBX"]
    status = _at(request, 25).strip().upper()
    if status not in _FINAL | _GONE:
        readers.skipped.not_final += 1
        return
    text = _observed(rows, component)
    if status in _GONE:
        reading = WITHDRAWN
    elif text:
        reading = readers.rules.read(text)
    else:
        return
    numbers = [
        _at(fields, place).split(component)[0]
        for name, place in _ACCESSION_FIELDS
        for fields in group
        if fields[0] == name
    ]
    named = [_at(fields, 5 if fields[0] == "OBX" else 1) for fields in group if _names_study(fields)]
    yield Report(
        source=Source.ORU,
        accession_keys=accessions(numbers),
        uids=frozenset(value.split(component)[0].strip() for value in named) - {""},
        reading=reading,
        said_at=instant(_at(request, 22)) or sent_at,
    )


def _names_study(fields: Sequence[str]) -> bool:
    return fields[0] == "ZDS" or (fields[0] == "OBX" and _at(fields, 3).split("^")[0] in ("110180", "113014"))


def _observed(rows: Sequence[Sequence[str]], component: str) -> str:
    """The text of a report, with a heading where OBX-3 says that a part begins."""
    lines, heading = [], ""
    for fields in rows:
        if _at(fields, 2) not in _TEXT_TYPES or _at(fields, 11).upper() in _GONE or _names_study(fields):
            continue
        parts = re.split(rf"[&{re.escape(component)}]", _at(fields, 3))
        named = next((_HEADINGS[part] for part in parts if part in _HEADINGS), "")
        if named and named != heading:
            lines.append(f"{named}:")
            heading = named
        values = _at(fields, 5).split("~")
        lines += [
            _unescaped(value.split(component)[1] if _is_coded(fields, value, component) else value) for value in values
        ]
    return "\n".join(lines).strip()


def _is_coded(fields: Sequence[str], value: str, component: str) -> bool:
    return _at(fields, 2) in ("CE", "CWE", "CF") and component in value


def _unescaped(text: str) -> str:
    marks = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\"}
    return _ESCAPE.sub(
        lambda found: "\n" if found[1].startswith((".br", ".sp", "X0D", "X0A")) else marks.get(found[1], " "), text
    )
