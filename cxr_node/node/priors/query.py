"""Which earlier radiographs of a patient are asked for, and which of the answers count. Opens no connection.

C-FIND of the Study Root model (PS3.4 C.6.2). Identifiers are written here by hand and read by pynetdicom.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

SOP_CLASSES = ("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1")
"""What is retrieved: Computed Radiography, and Digital X-Ray for presentation."""
_MODALITIES = frozenset({"CR", "DX"})
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_MATCHES_MORE = re.compile(r"[*?\\\x00-\x1f\x7f]")
"""Wildcards, the delimiter of a list, and what no value may hold (PS3.4 C.2.2.2, PS3.5 6.2)."""
_UID_TAGS = frozenset({0x00080018, 0x0020000D, 0x0020000E})
_LONGEST = 64  # PS3.5 6.2: LO, and UI
_LATERAL = re.compile(
    r"\b(?:[LR]?LAT(?:ERAL\w*|L|R)?|LL|RL|LLD|RLD|[LR]AO|[LR]PO|OBL\w*|SEITL\w*|PROFIL\w*|PERFIL|DECUB\w*)\b"
)
_FRONTAL = re.compile(r"\b(?:PA|AP|FRONTAL\w*|POSTERO\w*|ANTERO\w*)\b")
_OTHER_PART = re.compile(
    r"(?:ABDOMEN|ANKLE|ARM|BREAST|CALCANEUS|CLAVICLE|[CLST]?SPINE|ELBOW|EXTREMITY|FEMUR|FINGER|FOOT|FOREARM|HAND|HEAD|HIP"
    r"|HUMERUS|JAW|KNEE|LEG|NECK|PATELLA|PELVIS|SCAPULA|SHOULDER|SKULL|TIBIA|TOE|WRIST)"
)
"""Defined Terms of Body Part Examined (PS3.16 Annex L) that are no chest; of what is unclear the header decides."""


class Reason(StrEnum):
    """Why no earlier radiograph came."""

    NOT_ASKED = "not-asked"
    """What is known of the image does not allow a query that matches one patient only."""
    NONE = "none"
    OTHER_ISSUER = "other-issuer"
    """There are earlier studies of this Patient ID, but of another issuer."""
    NOT_FOUND = "not-found"
    """No earlier study has a radiograph that may be a frontal one."""
    UNREACHABLE = "unreachable"
    CANNOT_QUERY = "cannot-query"
    CANNOT_RETRIEVE = "cannot-retrieve"
    TIMEOUT = "timeout"
    FAULT = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFetched:
    """No earlier radiograph, or none of one study; `sentence` holds no patient data."""

    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the header of the current image says: values as they are there, "" where it says nothing."""

    patient_id: str = field(repr=False)
    issuer: str = field(default="", repr=False)
    """Issuer of Patient ID."""
    birth_date: str = field(default="", repr=False)
    study_instance_uid: str
    study_date: str
    study_time: str = ""

    def why_not(self) -> str:
        """Why nothing can be asked; "" if it can."""
        if not self.patient_id.strip():
            return "the image has no Patient ID"
        if _MATCHES_MORE.search(self.patient_id) or len(self.patient_id) > _LONGEST:
            return "the Patient ID of the image cannot be queried: it could match other patients"
        if _day(self.study_date) is None:
            return "the image has no Study Date"
        return "" if is_uid(self.study_instance_uid) else "the image has no valid Study Instance UID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """One radiograph of an earlier study."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    """"" until it came, where the source did not tell."""
    study_date: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One earlier study, as the source names it."""

    uid: str
    date: str
    time: str


def is_uid(value: str) -> bool:
    """Whether it may go into another query: no list, no wildcard."""
    return len(value) <= _LONGEST and _UID.fullmatch(value) is not None


def of_patient(wanted: Wanted, years: float) -> dict[int, str]:
    """Identifier that asks for the patient's studies of these years up to the current one."""
    keys = dict.fromkeys((0x00080030, 0x00080061, 0x00100021, 0x00100030, 0x0020000D), "")
    keys[0x00080020] = f"{_oldest(wanted, years)}-{wanted.study_date}"
    keys[0x00080052] = "STUDY"
    keys[0x00100020] = wanted.patient_id.strip()
    if not wanted.patient_id.isascii():
        keys[0x00080005] = "ISO_IR 192"
    return keys


def of_study(study: Study) -> dict[int, str]:
    """Identifier that asks for the series of a study."""
    keys = dict.fromkeys((0x00080060, 0x0008103E, 0x00180015, 0x00185101, 0x0020000E), "")
    return keys | {0x00080052: "SERIES", 0x0020000D: study.uid}


def of_series(study: Study, series_instance_uid: str) -> dict[int, str]:
    """Identifier that asks for the instances of a series."""
    keys = dict.fromkeys((0x00080016, 0x00080018, 0x00080023, 0x00080033, 0x00185101), "")
    return keys | {0x00080052: "IMAGE", 0x0020000D: study.uid, 0x0020000E: series_instance_uid}


def of_instance(ref: Ref) -> dict[int, str]:
    """Identifier of a C-GET (PS3.4 C.4.3.1.3)."""
    keys = {0x00080018: ref.sop_instance_uid, 0x00080052: "IMAGE"}
    return keys | {0x0020000D: ref.study_instance_uid, 0x0020000E: ref.series_instance_uid}


def encode(keys: Mapping[int, str]) -> bytes:
    """Encode an identifier in Implicit VR Little Endian, in the order of its tags."""
    return b"".join(_element(tag, value) for tag, value in sorted(keys.items()))


def _element(tag: int, value: str) -> bytes:
    encoded = value.encode("utf-8")
    if len(encoded) % 2:
        encoded += b"\0" if tag in _UID_TAGS else b" "
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(encoded)) + encoded


def earlier(answers: Iterable[Any], wanted: Wanted, years: float) -> tuple[list[Study], NotFetched]:
    """The patient's earlier studies, the newest first, and what is to be said where there are none.

    A source may match more than it was asked: every key is looked at again.
    """
    found: dict[str, Study] = {}
    left_out: Counter[Reason] = Counter()
    for answer in answers:
        study = Study(uid=_text(answer, "StudyInstanceUID"), date=_text(answer, "StudyDate"), time=_time(answer))
        if not _is_earlier(study, wanted, years) or not _may_be_radiographs(answer):
            continue
        if _text(answer, "PatientID") != wanted.patient_id.strip():
            continue
        if _differs(_text(answer, "IssuerOfPatientID"), wanted.issuer):
            left_out[Reason.OTHER_ISSUER] += 1
        elif not _differs(_text(answer, "PatientBirthDate"), wanted.birth_date):
            found[study.uid] = study
    newest_first = sorted(found.values(), key=lambda study: (study.date, study.time, study.uid), reverse=True)
    if left_out[Reason.OTHER_ISSUER]:
        sentence = "the earlier studies of this Patient ID are of another issuer"
        return newest_first, NotFetched(reason=Reason.OTHER_ISSUER, sentence=sentence)
    return newest_first, NotFetched(reason=Reason.NONE, sentence="the source has no earlier study of the patient")


def _is_earlier(study: Study, wanted: Wanted, years: float) -> bool:
    if not is_uid(study.uid) or study.uid == wanted.study_instance_uid or _day(study.date) is None:
        return False
    if study.date == wanted.study_date:  # of the same day only where both say when
        return "" < study.time < _clean_time(wanted.study_time)
    return _oldest(wanted, years) <= study.date < wanted.study_date


def _may_be_radiographs(answer: Any) -> bool:
    said = set(_text(answer, "ModalitiesInStudy").split("\\")) - {""}
    return not said or bool(said & _MODALITIES)


def _differs(one: str, other: str) -> bool:
    """Whether both say something, and not the same."""
    other = other.strip()
    return bool(one) and bool(other) and one != other


def radiographs(answers: Iterable[Any], study: Study) -> dict[str, Any]:
    """Series of a study that may hold a frontal radiograph of the chest, by UID."""
    return {
        uid: answer
        for answer in answers
        if is_uid(uid := _text(answer, "SeriesInstanceUID"))
        and _text(answer, "StudyInstanceUID") in ("", study.uid)
        and _text(answer, "Modality") in _MODALITIES
        and not _OTHER_PART.fullmatch(_text(answer, "BodyPartExamined").upper())
        and _view(answer) is not False
    }


def candidates(found: Iterable[tuple[Any, Any]], study: Study) -> list[Ref]:
    """Instances that may be frontal radiographs: those that say so first, then the newest.

    Parameters
    ----------
    found : of each instance the answers for its series and for itself
    """
    ranked = [(_view(image) or _view(series) or False, image, series) for series, image in found if _may_be(image)]
    ranked.sort(key=lambda row: (_text(row[1], "ContentDate"), _text(row[1], "ContentTime")), reverse=True)
    ranked.sort(key=lambda row: not row[0])
    return [
        Ref(
            study_instance_uid=study.uid,
            series_instance_uid=_text(series, "SeriesInstanceUID"),
            sop_instance_uid=_text(image, "SOPInstanceUID"),
            sop_class_uid=_text(image, "SOPClassUID"),
            study_date=study.date,
        )
        for _, image, series in ranked
    ]


def _may_be(image: Any) -> bool:
    is_of_class = _text(image, "SOPClassUID") in ("", *SOP_CLASSES)
    return is_uid(_text(image, "SOPInstanceUID")) and is_of_class and _view(image) is not False


def _view(answer: Any) -> bool | None:
    """Whether it is a frontal view, as far as it says anything; a series may hold both."""
    position = _text(answer, "ViewPosition").upper().replace("_", " ")
    said = f"{position} {_text(answer, 'SeriesDescription').upper().replace('_', ' ')}"
    if _LATERAL.search(position):
        return False
    if _FRONTAL.search(said):
        return True
    return False if _LATERAL.search(said) else None


def _oldest(wanted: Wanted, years: float) -> str:
    day = datetime.strptime(wanted.study_date, "%Y%m%d")
    return (day - timedelta(days=round(365.25 * years))).strftime("%Y%m%d")


def _day(value: str) -> date | None:
    try:
        return datetime.strptime(value, "%Y%m%d").date() if re.fullmatch("[0-9]{8}", value) else None
    except ValueError:
        return None


def _time(answer: Any) -> str:
    return _clean_time(_text(answer, "StudyTime"))


def _clean_time(value: str) -> str:
    """Hours, minutes and seconds; "" where they are not all there."""
    found = re.match("[0-9]{6}", value.strip().replace(":", ""))
    return found.group() if found else ""


def _text(answer: Any, keyword: str) -> str:
    """One element of an identifier; a list with its delimiters, for it equals nothing that is one value."""
    value = answer.get(keyword)
    if value is None:
        return ""
    values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
    return "\\".join(str(each) for each in values).strip("\0 ")
