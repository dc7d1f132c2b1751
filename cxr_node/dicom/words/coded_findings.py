"""The findings that a classifier may score beside the one it judges: their words and codes, and which stand highest.

Knows no DICOM object and no sentence. A code is taken where PS3.16 has it, or where public vocabularies agree on it; a
finding that has none of either gets one of our own (99CXRNODE), which claims nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom import Dataset

from cxr_node.dicom.words.codes import Code
from cxr_node.dicom.words.rounding import is_stated, rounded_score
from cxr_node.domain import Finding, Scale

OWN_SCHEME = "99CXRNODE"
"""Coding Scheme Designator of this project; 99 marks a local one (PS3.3 8.2)."""
SCORED = Code("scored-finding", OWN_SCHEME, "Finding scored, not asserted")
SCORE = Code("score", OWN_SCHEME, "Score, not a probability")
NO_UNITS = Code("1", "UCUM", "no units")
TOP = 5
"""So many of them are told to people; machines get all."""


@dataclass(frozen=True, slots=True)
class Named:
    """A finding in words, and as a code."""

    words: str
    code: Code


_KNOWN: Mapping[str, Named] = {
    # PS3.16
    "infiltration": Named("infiltration", Code("112121", "DCM", "Infiltrate")),
    "pneumothorax": Named("pneumothorax", Code("36118008", "SCT", "Pneumothorax")),
    "edema": Named("pulmonary edema", Code("19242006", "SCT", "Pulmonary edema")),
    "effusion": Named("pleural effusion", Code("60046008", "SCT", "Pleural effusion")),
    "nodule": Named("nodule", Code("27925004", "SCT", "Nodule")),
    "mass": Named("mass", Code("4147007", "SCT", "Mass")),
    "lung lesion": Named("lung lesion", Code("52988006", "SCT", "Lesion")),
    "lung opacity": Named("lung opacity", Code("112001", "DCM", "Opacity")),
    # SNOMED CT as several public vocabularies have it
    "pneumonia": Named("pneumonia", Code("233604007", "SCT", "Pneumonia")),
    "atelectasis": Named("atelectasis", Code("46621007", "SCT", "Atelectasis")),
    "consolidation": Named("consolidation", Code("95436008", "SCT", "Lung consolidation")),
    "emphysema": Named("emphysema", Code("87433001", "SCT", "Pulmonary emphysema")),
    "fibrosis": Named("pulmonary fibrosis", Code("51615001", "SCT", "Pulmonary fibrosis")),
    "cardiomegaly": Named("cardiomegaly", Code("8186001", "SCT", "Cardiomegaly")),
    "hernia": Named("hiatal hernia", Code("84089009", "SCT", "Hiatal hernia")),
    "fracture": Named("fracture", Code("125605004", "SCT", "Fracture of bone")),
    # No code that could be verified
    "pleural thickening": Named("pleural thickening", Code("pleural-thick", OWN_SCHEME, "Pleural thickening")),
    "enlarged cardiomediastinum": Named(
        "enlarged cardiomediastinum", Code("wide-mediast", OWN_SCHEME, "Enlarged cardiomediastinum")
    ),
}


def own_scheme() -> Dataset:
    """Say whose the local codes are (PS3.3 C.12.1.1.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = OWN_SCHEME
    item.CodingSchemeName = "cxr_node local codes"
    item.CodingSchemeResponsibleOrganization = "cxr_node project"
    return item


def named(label: str) -> Named:
    """Words and code of a profile's label; of one that nobody knows, its own words and a code made of them."""
    known = _KNOWN.get(_plain(label))
    if known is not None:
        return known
    words = "".join(char if " " <= char <= "~" and char != "\\" else "?" for char in label)[:64].strip() or "?"
    return Named(words, Code(f"l-{hashlib.sha256(label.encode()).hexdigest()[:12]}", OWN_SCHEME, words))


def names() -> frozenset[str]:
    """Words of every finding that has some."""
    return frozenset(named.words for named in _KNOWN.values())


def are_scored(finding: Finding) -> bool:
    """Whether the classifier scores other findings beside the judged one.

    Classes behind a judged label (bacterial, viral) are none: they are parts of its answer, and not calibrated alone.
    """
    return finding.identity.operating_point.scale is Scale.SCORE and len(finding.prediction.probability) > 1


def listed(finding: Finding) -> tuple[tuple[str, float], ...]:
    """Labels with their scores as people read them, the highest first; empty where no number may be stated."""
    if not are_scored(finding) or not is_stated(finding):
        return ()
    ranked = sorted(finding.prediction.probability.items(), key=lambda item: -item[1])
    return tuple((label, rounded_score(value, finding.identity.operating_point)) for label, value in ranked)


def highest(finding: Finding) -> list[str]:
    """Name the highest of several findings, each with its score."""
    return [f"{named(label).words} {value:.10g}" for label, value in listed(finding)[:TOP]]


def _plain(label: str) -> str:
    return label.casefold().replace("_", " ")
