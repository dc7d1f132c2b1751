"""Whose a result is and which order it answers, as plain text: for messages, which carry no bytes of the header over.

What cannot be read for certain is left out, and nothing is guessed: not which of several orders is meant, either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom import Dataset

from cxr_node.dicom.read.character_sets import certain
from cxr_node.dicom.read.header import Source
from cxr_node.dicom.results import copied_attributes

Code = tuple[str, str, str]
"""Code Value, Coding Scheme Designator, Code Meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonName:
    """One group of a PN (PS3.5 6.2.1): family, given, middle, prefix, suffix."""

    representation: str
    """A: alphabetic, I: ideographic, P: phonetic."""
    parts: tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """As the header names the patient; "" where it does not."""

    identifier: str
    issuer: str
    issuer_universal: tuple[str, str]
    """Universal Entity ID and its type."""
    names: tuple[PersonName, ...]
    """Empty also where the name cannot be read for certain."""
    birth_date: str
    sex: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the study was ordered as; "" where the header does not say, or names several."""

    accession_number: str
    placer_number: str
    filler_number: str
    procedure_id: str
    description: str
    procedure: Code | None
    studied_at: str
    """Study Date and Study Time, as far as both are there (YYYYMMDD[HH[MM[SS]]])."""
    utc_offset: str
    """Of that time; "" where none is known."""


def patient_of(source: Source) -> Patient:
    """Read the patient."""
    dataset = source.dataset
    qualifiers = (dataset.get("IssuerOfPatientIDQualifiersSequence") or [Dataset()])[0]
    return Patient(
        identifier=_text(dataset, "PatientID"),
        issuer=_text(dataset, "IssuerOfPatientID"),
        issuer_universal=(_text(qualifiers, "UniversalEntityID"), _text(qualifiers, "UniversalEntityIDType")),
        names=tuple(_names(certain(dataset, "PatientName") or "")),
        birth_date=_valid(source, "PatientBirthDate"),
        sex=_valid(source, "PatientSex"),
    )


def order_of(source: Source, utc_offset: str) -> Order:
    """Read the order."""
    dataset = source.dataset
    items = copied_attributes.requests(dataset, source.ref.study_instance_uid)
    procedure = copied_attributes.procedure_code(dataset)
    return Order(
        accession_number=_text(dataset, "AccessionNumber") or _only(items, "AccessionNumber"),
        placer_number=_text(dataset, "PlacerOrderNumberImagingServiceRequest"),
        filler_number=_text(dataset, "FillerOrderNumberImagingServiceRequest"),
        procedure_id=_only(items, "RequestedProcedureID"),
        description=_only(items, "RequestedProcedureDescription") or _text(dataset, "StudyDescription"),
        procedure=None if procedure is None else _code(procedure),
        studied_at=_studied_at(source),
        utc_offset=utc_offset,
    )


def _studied_at(source: Source) -> str:
    day, time = _valid(source, "StudyDate"), _valid(source, "StudyTime")
    return f"{day}{time.split('.')[0]}" if day and time.split(".")[0].isdigit() else day


def _names(text: str) -> Iterator[PersonName]:
    for representation, group in zip("AIP", text.split("="), strict=False):
        parts = [part.strip() for part in group.split("^")][:5]
        if any(parts):
            family, given, middle, prefix, suffix = parts + [""] * (5 - len(parts))
            yield PersonName(representation=representation, parts=(family, given, middle, prefix, suffix))


def _text(dataset: Dataset, keyword: str) -> str:
    return certain(dataset, keyword) or ""


def _valid(source: Source, keyword: str) -> str:
    """A date, time or code string as results carry it over: "" where its VR forbids it."""
    carried = copied_attributes.patient_and_study(source.dataset)
    return copied_attributes.raw_text(carried, keyword).decode("ascii", "replace").strip()


def _only(items: list[Dataset], keyword: str) -> str:
    """What all requests say alike."""
    said = {_text(item, keyword) for item in items}
    return said.pop() if len(said) == 1 else ""


def _code(item: Dataset) -> Code:
    return _text(item, "CodeValue"), _text(item, "CodingSchemeDesignator"), _text(item, "CodeMeaning")
