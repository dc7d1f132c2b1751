"""What a result says of its own making, and the first element in which two results differ; no value of a patient."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cxr_node.dicom.part10 import PROCESSING_EQUIPMENT
from cxr_node.dicom.verify.plain import Plain, items, read
from cxr_node.errors import InstanceError

_META = b"DICM\x02\0\0\0UL\x04\0"
_THRESHOLDS = re.compile(r"[Rr]uled out below [\d.e-]+(?: %)?, reported from [\d.e-]*\d(?: %)?")
_DIGEST = re.compile(r"\+sha256:([0-9a-f]{12})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """Of one result: who made it, by what, and when the node had its image."""

    sop_instance_uid: str
    sop_class_uid: str
    """Another result of the same kind has the same."""
    received_at: datetime | None
    parts: dict[str, str]
    """In words: what its making depends on besides the image."""


def making(content: bytes) -> Making:
    """Read it.

    Raises
    ------
    InstanceError : it is no DICOM file, or none that this node could have made.
    """
    dataset = read(content).dataset
    ours = [each for each in items(dataset, "ContributingEquipmentSequence") if _is_processing(each)]
    if not ours:
        raise InstanceError("no algorithm has contributed to it: it is no result of this node")
    algorithm = ours[0]
    version = str(algorithm.get("SoftwareVersions", ""))
    digest, thresholds = _DIGEST.search(version), _THRESHOLDS.search(" ".join(_texts(dataset)))
    parts = {
        "version of cxr_node": str(dataset.get("SoftwareVersions", "")).partition("\\")[0],
        "weights": digest[1] if digest else version,
        "profile": f"{algorithm.get('ManufacturerModelName', '')} {version.partition('+')[0]}",
        "thresholds": thresholds[0] if thresholds else "",
        "installation": str(algorithm.get("DeviceSerialNumber", "")),
    }
    return Making(
        sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
        sop_class_uid=str(dataset.get("SOPClassUID", "")),
        received_at=_instant(str(algorithm.get("ContributionDateTime", ""))),
        parts=parts,
    )


def _is_processing(item: Plain) -> bool:
    return any(each.get("CodeValue") == PROCESSING_EQUIPMENT for each in items(item, "PurposeOfReferenceCodeSequence"))


def _instant(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%S.%f%z")
    except ValueError:
        return None


def _texts(dataset: Plain) -> Iterator[str]:
    for value in dataset.values():
        if isinstance(value, str):
            yield value
        else:
            for item in value:
                yield from _texts(item)


def data_set(content: bytes) -> bytes:
    """What follows the File Meta Information, which every archive writes anew (PS3.10 7.1); all of it without one."""
    if content[128:140] != _META:
        return content
    return content[144 + int.from_bytes(content[140:144], "little") :]


def is_transcoded(one: bytes, other: bytes) -> bool:
    """Whether two files have their data sets in different transfer syntaxes."""
    return read(one).meta.get("TransferSyntaxUID") != read(other).meta.get("TransferSyntaxUID")


def first_difference(one: bytes, other: bytes) -> str:
    """Name the first element in which two data sets differ, by its path; "" where they are the same.

    A UID differs because something else does; it is named where nothing else is found.
    """
    if data_set(one) == data_set(other):
        return ""
    first, second = read(one), read(other)
    mine, theirs = first.dataset, second.dataset
    return _first(mine, theirs, with_uids=False) or _first(mine, theirs, with_uids=True) or "PixelData"


def _first(one: Plain, other: Plain, *, with_uids: bool) -> str | None:
    for keyword in (*one, *(each for each in other if each not in one)):
        if keyword.endswith(("UID", "GroupLength")) and not with_uids:
            continue
        if keyword not in one or keyword not in other:
            return keyword
        if (inner := _within(one[keyword], other[keyword], with_uids=with_uids)) is not None:
            return f"{keyword}{inner}"
    return None


def _within(one: Any, other: Any, *, with_uids: bool) -> str | None:
    if isinstance(one, str) or isinstance(other, str):
        return None if one == other else ""
    for number, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if (found := _first(mine, theirs, with_uids=with_uids)) is not None:
            return f"[{number}].{found}"
    return None if len(one) == len(other) else f"[{min(len(one), len(other))}]"
