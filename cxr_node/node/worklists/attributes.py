"""Data sets of work items: few attributes, with sequences, to bytes and back. Knows neither a connection nor a rule.

Written in Implicit VR Little Endian (PS3.5 A.1), in ASCII, or in the DICOM JSON Model (PS3.18 F); what was decoded is
read by keyword.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

DataSet = Mapping[str, Any]
"""By keyword: text, or a list of such data sets."""

TAGS = {
    "AffectedSOPInstanceUID": (0x00001000, "UI"),
    "SOPClassUID": (0x00080016, "UI"),
    "SOPInstanceUID": (0x00080018, "UI"),
    "RetrieveAETitle": (0x00080054, "AE"),
    "CodeValue": (0x00080100, "SH"),
    "CodingSchemeDesignator": (0x00080102, "SH"),
    "CodeMeaning": (0x00080104, "LO"),
    "ReferencedSOPClassUID": (0x00081150, "UI"),
    "ReferencedSOPInstanceUID": (0x00081155, "UI"),
    "RetrieveURL": (0x00081190, "UR"),
    "TransactionUID": (0x00081195, "UI"),
    "ReferencedSOPSequence": (0x00081199, "SQ"),
    "StudyInstanceUID": (0x0020000D, "UI"),
    "SeriesInstanceUID": (0x0020000E, "UI"),
    "PerformedProcedureStepDescription": (0x00400254, "LO"),
    "ScheduledWorkitemCodeSequence": (0x00404018, "SQ"),
    "PerformedWorkitemCodeSequence": (0x00404019, "SQ"),
    "InputInformationSequence": (0x00404021, "SQ"),
    "ScheduledStationNameCodeSequence": (0x00404025, "SQ"),
    "PerformedStationNameCodeSequence": (0x00404028, "SQ"),
    "OutputInformationSequence": (0x00404033, "SQ"),
    "InputReadinessState": (0x00404041, "CS"),
    "PerformedProcedureStepStartDateTime": (0x00404050, "DT"),
    "PerformedProcedureStepEndDateTime": (0x00404051, "DT"),
    "ProcedureStepCancellationDateTime": (0x00404052, "DT"),
    "TypeOfInstances": (0x0040E020, "CS"),
    "DICOMRetrievalSequence": (0x0040E021, "SQ"),
    "WADORSRetrievalSequence": (0x0040E025, "SQ"),
    "ProcedureStepState": (0x00741000, "CS"),
    "ProcedureStepProgressInformationSequence": (0x00741002, "SQ"),
    "ProcedureStepProgress": (0x00741004, "DS"),
    "ProcedureStepProgressDescription": (0x00741006, "ST"),
    "ProcedureStepDiscontinuationReasonCodeSequence": (0x0074100E, "SQ"),
    "ScheduledProcedureStepPriority": (0x00741200, "CS"),
    "UnifiedProcedureStepPerformedProcedureSequence": (0x00741216, "SQ"),
    "ReasonForCancellation": (0x00741238, "LT"),
}
"""Tag and VR of all that is ever written or read here (PS3.6)."""
_ITEM = 0xFFFEE000
_MOST_ITEMS = 1000
"""Of one sequence, and of all below it: an item of work names some images, not an archive."""


def encode(data_set: DataSet) -> bytes:
    """Encode in the order of the tags."""
    ordered = sorted((*TAGS[keyword], value) for keyword, value in data_set.items())
    return b"".join(_element(tag, _value(vr, value)) for tag, vr, value in ordered)


def _value(vr: str, value: Any) -> bytes:
    if vr == "SQ":
        return b"".join(_element(_ITEM, encode(item)) for item in value)
    encoded = str(value).encode("ascii", "replace")
    return encoded + (b"\0" if vr == "UI" else b" ") * (len(encoded) % 2)


def _element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def text(data_set: Any, keyword: str) -> str:
    """One value; "" where there is none, and a list with its delimiters, for it equals nothing that is one value."""
    value = None if data_set is None else data_set.get(keyword)
    if value is None:
        return ""
    values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
    return "\\".join(str(each) for each in values).strip("\0 ")


def items(data_set: Any, keyword: str) -> Iterator[Any]:
    """Items of a sequence; none where it is absent or none."""
    value = None if data_set is None else data_set.get(keyword)
    if value is None or isinstance(value, str) or not hasattr(value, "__iter__"):
        return
    for number, item in enumerate(value):
        if number == _MOST_ITEMS:
            return
        if hasattr(item, "get"):
            yield item


def first(data_set: Any, keyword: str) -> Any:
    """First item of a sequence; None where there is none."""
    return next(items(data_set, keyword), None)


def to_json(data_set: DataSet) -> dict[str, Any]:
    """The same in the DICOM JSON Model."""
    ordered = sorted((*TAGS[keyword], value) for keyword, value in data_set.items())
    return {f"{tag:08X}": {"vr": vr, **_json_value(vr, value)} for tag, vr, value in ordered}


def _json_value(vr: str, value: Any) -> dict[str, Any]:
    values: list[Any] = [to_json(item) for item in value] if vr == "SQ" else [str(value)] if str(value) else []
    if vr == "DS":
        values = [int(each) if each.isdecimal() else float(each) for each in values]
    return {"Value": values} if values else {}


_KEYWORDS = {f"{tag:08X}": keyword for keyword, (tag, _) in TAGS.items()}


def of_json(item: Any) -> dict[str, Any]:
    """Read the attributes that are known here; what is malformed counts as absent."""
    found: dict[str, Any] = {}
    for tag, element in item.items() if isinstance(item, dict) else ():
        keyword = _KEYWORDS.get(str(tag).upper())
        values = element.get("Value") if isinstance(element, dict) else None
        if keyword is not None and isinstance(values, list):
            is_sequence = TAGS[keyword][1] == "SQ"
            found[keyword] = [of_json(one) for one in values[:_MOST_ITEMS]] if is_sequence else list(map(_text, values))
    return found


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) else ""
