"""A canary: a patient whose every attribute can be recognised, and a search for it in whatever form it was written."""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "QVXCANARY"
"""Stands in every text; no word of any language."""
NAME = f"{MARK}^Ottili\u00e4Qv"
NUMBER = "8801239477"
"""An ID of digits only."""
BIRTH_DATE = "20220317"
STUDY_DATE = "20250923"
ATTRIBUTES = {
    "PatientName": NAME,
    "PatientID": f"{MARK}-{NUMBER}",
    "IssuerOfPatientID": f"{MARK} issuer",
    "OtherPatientNames": f"{MARK}^Other",
    "PatientBirthDate": BIRTH_DATE,
    "PatientAddress": f"{MARK} street 1",
    "PatientTelephoneNumbers": NUMBER,
    "PatientMotherBirthName": f"{MARK}^Mother",
    "PatientComments": f"{MARK} comment",
    "AccessionNumber": f"{MARK}5150",
    "StudyID": f"{MARK}1",
    "StudyDate": STUDY_DATE,
    "ContentDate": STUDY_DATE,
    "AcquisitionDate": STUDY_DATE,
    "StudyDescription": f"{MARK} study",
    "SeriesDescription": f"{MARK} series",
    "ProtocolName": f"{MARK} protocol",
    "InstitutionName": f"{MARK} hospital",
    "InstitutionAddress": f"{MARK} road",
    "StationName": "ROOM3",  # of a device, not of a patient: the ledger keeps it
    "ReferringPhysicianName": f"{MARK}^Referrer",
    "PerformingPhysicianName": f"{MARK}^Performer",
    "OperatorsName": f"{MARK}^Operator",
    "ImageComments": f"{MARK} image",
    "RequestingPhysician": f"{MARK}^Requester",
}
"""Attributes of every instance that is sent, by DICOM keyword."""
TEXTS = (MARK, "Ottili\u00e4Qv", NUMBER)


@dataclass(frozen=True, slots=True)
class Hit:
    """Where the canary was found, and in which form."""

    place: str
    form: str


def _dates() -> Iterator[str]:
    for date in (BIRTH_DATE, STUDY_DATE):
        year, month, day = date[:4], date[4:6], date[6:]
        yield date
        yield from (f"{year}{mark}{month}{mark}{day}" for mark in "-./")
        yield from (f"{day}{mark}{month}{mark}{year}" for mark in "-./")
        yield f"{month}/{day}/{year}"


def _forms(text: str) -> Iterator[tuple[str, bytes]]:
    """One text as it may lie in a file; upper and lower case are the same to `search`."""
    for encoding in ("utf-8", "latin-1", "utf-16-le", "utf-16-be", "unicode_escape"):
        encoded = text.encode(encoding)
        yield encoding, encoded
        yield f"hex of {encoding}", encoded.hex().encode()
        for shift in range(3):  # base64 of a text inside a longer one: without the characters at its edges
            whole = base64.b64encode(bytes(shift) + encoded)
            yield f"base64 of {encoding}", whole[4 if shift else 0 : -4]
    yield "repr", repr(text.encode("latin-1"))[2:-1].encode()
    yield "percent", urllib.parse.quote(text).encode()


NEEDLES = {
    needle.lower(): f"{text} as {form}"
    for text in (*TEXTS, *_dates())
    for form, needle in _forms(text)
    if len(needle) >= 8
}


def search(place: str, content: bytes) -> list[Hit]:
    """Find the canary in bytes."""
    lowered = content.lower()
    return [Hit(place, form) for needle, form in NEEDLES.items() if needle in lowered]


def search_files(folder: Path, *, spare: tuple[Path, ...]) -> tuple[list[Hit], list[Path]]:
    """Find it in names and contents of all files below a folder but those below `spare`; also what was looked at."""
    hits: list[Hit] = []
    looked_at: list[Path] = []
    for path in sorted(folder.rglob("*")):
        hits += search(f"name of {path.name}", str(path.relative_to(folder)).encode())
        if path.is_file() and not any(path.is_relative_to(spared) for spared in spare):
            looked_at.append(path)
            hits += search(str(path.relative_to(folder)), path.read_bytes())
    return hits, looked_at
