"""Radiology reports from files: CSV, HL7 version 2 (ORU^R01), DICOM SR, FHIR DiagnosticReport (JSON).

What is not final is left out, and so is what this node said itself.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cxr_node.assurance import fhir_reports, hl7_reports
from cxr_node.assurance.report import MistakeError, Readers, Report, Source, accessions, decoded, instant
from cxr_node.assurance.report_rules import Reading, Said
from cxr_node.dicom.read import report_text
from cxr_node.errors import DataError, InstanceError

MAX_BYTES = 256 * 1024 * 1024
"""Of one file; a year of reports of a large department is smaller."""
_WORDS = {
    Said.PRESENT: ("present", "positive", "pneumonia", "yes", "1", "true"),
    Said.ABSENT: ("absent", "negative", "normal", "no", "0", "false", "no pneumonia"),
    Said.NOT_STATED: ("not-stated", "not stated", "uncertain", "unknown", "indeterminate", "cannot say", ""),
}
_LABELS = {word: said for said, words in _WORDS.items() for word in words}


def read(paths: Iterable[Path], readers: Readers) -> Iterator[Report]:
    """Read files, and all files in folders. Raises DataError: one is none of these formats, or has a mistake."""
    for path in paths:
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for file in files:
            yield from _file(file, readers)


def _file(path: Path, readers: Readers) -> Iterator[Report]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES // 1024**2} MiB: give it in parts")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    try:
        if content[128:132] == b"DICM":
            yield from _of_sr(content, readers)
            return
        text = decoded(content)
        first = text.lstrip("\ufeff\x0b \r\n\t")
        if first.startswith(("MSH", "FHS", "BHS")):
            yield from hl7_reports.reports(first, readers)
        elif first.startswith(("{", "[")):
            yield from fhir_reports.reports(first, readers)
        else:
            yield from _of_csv(text.lstrip("\ufeff"), readers)
    except MistakeError as error:
        raise DataError(f"{path}: {error}") from error
    except InstanceError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"{path} is malformed ({type(error).__name__})") from error


_COLUMNS = {
    "accession": ("accession", "accession_number", "accessionnumber"),
    "study": ("study", "study_instance_uid", "studyinstanceuid", "study_uid"),
    "image": ("image", "sop_instance_uid", "sopinstanceuid", "sop", "sop_uid"),
    "label": ("label", "pneumonia"),
    "text": ("text", "report"),
    "at": ("reported_at", "date", "at"),
}


def _of_csv(text: str, readers: Readers) -> Iterator[Report]:
    """A report a row."""
    lines = text.splitlines()
    delimiter = max(",;\t", key=lambda mark: lines[0].count(mark)) if lines else ","
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    heads = {name: _column(rows.fieldnames or (), names) for name, names in _COLUMNS.items()}
    if not any(heads[name] for name in ("accession", "study", "image")) or not (heads["label"] or heads["text"]):
        known = "accession, study or image, and label or text"
        raise MistakeError(f"it is no HL7, SR or FHIR, and as CSV it lacks a column: {known}")
    for number, row in enumerate(rows, 2):
        values = {name: (row.get(head) or "").strip() if head else "" for name, head in heads.items()}
        yield _row(values, number, readers)


def _column(fields: Sequence[str], names: Sequence[str]) -> str | None:
    known = {each.strip().casefold().replace(" ", "_"): each for each in fields}
    return next((known[name] for name in names if name in known), None)


def _row(values: Mapping[str, str], number: int, readers: Readers) -> Report:
    word = values["label"].casefold()
    if word in _LABELS and (word or not values["text"]):
        reading = Reading(_LABELS[word], "label")
    elif values["text"]:
        reading = readers.rules.read(values["text"])
    else:
        raise MistakeError(f"row {number}: the label is none of present, absent, not stated")
    return Report(
        source=Source.CSV,
        accession_keys=accessions([values["accession"]]),
        uids=frozenset({values["study"], values["image"]} - {""}),
        reading=reading,
        said_at=instant(values["at"]),
        is_of_image=bool(values["image"]),
    )


def _of_sr(content: bytes, readers: Readers) -> Iterator[Report]:
    found = report_text.read(content)
    if found.is_own:
        readers.skipped.own += 1
    elif not found.is_final:
        readers.skipped.not_final += 1
    else:
        yield Report(
            source=Source.SR,
            accession_keys=(found.accession_keys,) if found.accession_keys else (),
            uids=found.uids,
            reading=readers.rules.read(found.text),
            said_at=instant(found.reported_at),
        )
